"""All that knows ranks: runs, pipelines, rank logs and failures, the deployed functions, and the report.

It calls AWS through boto3 alone, so it works on a local endpoint and on AWS.
"""
