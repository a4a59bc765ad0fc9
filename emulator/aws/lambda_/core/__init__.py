"""AWS Lambda: functions, invocations, the runtime API and the log lines."""
