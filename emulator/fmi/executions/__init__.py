"""Runs as executions of a stack's state machine. All their state is in S3 and Step Functions, none on this machine."""
