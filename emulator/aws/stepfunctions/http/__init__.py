"""The API of Step Functions."""
