"""CloudWatch Logs: groups, streams and events in a database."""
