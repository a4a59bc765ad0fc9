"""The deployed Lambdas of a run: initialize, execute and summarize. They import boto3 and the standard library."""
