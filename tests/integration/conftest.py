"""The emulator tests' fixtures: a local cloud for all tests of a module, and boto3 clients on it."""

from tests.emulator.conftest import bucket, client, cloud, deploy, functions, log_client, s3

__all__ = ["bucket", "client", "cloud", "deploy", "functions", "log_client", "s3"]
