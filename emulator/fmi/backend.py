"""Which AWS a run talks to: everything that differs between this machine and the real one."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emulator.aws.limits import ACCOUNT_ID
from emulator.fmi.connection import Connection, local_session

if TYPE_CHECKING:
    from types_boto3_lambda.client import LambdaClient
    from types_boto3_logs.client import CloudWatchLogsClient
    from types_boto3_s3.client import S3Client


@dataclass(frozen=True)
class Backend:
    """An AWS endpoint with what a run needs there.

    Parameters
    ----------
    s3, functions, logs
        boto3 clients of S3, Lambda and CloudWatch Logs.
    bucket
        For code, data and results.
    role
        ARN of the functions' role.
    rendezvous
        ``host:port`` of the rendezvous server that functions can reach.
    stop_functions
        Ends running functions, where that is possible.
    """

    s3: "S3Client"
    functions: "LambdaClient"
    logs: "CloudWatchLogsClient"
    bucket: str
    role: str
    rendezvous: str
    stop_functions: Callable[[], None]


def local_backend(endpoint_url: str, rendezvous: str, world_size: int, stop_functions: Callable[[], None]) -> Backend:
    """Return the backend of an emulator on this machine.

    Parameters
    ----------
    endpoint_url
        The emulator's URL.
    rendezvous
        ``host:port`` of its rendezvous server.
    world_size
        Calls that will be under way at once.
    stop_functions
        Ends the emulator's running functions.
    """
    connection = Connection(local_session(), endpoint_url)
    return Backend(
        s3=connection.client("s3"),
        functions=connection.client("lambda", world_size + 1),
        logs=connection.client("logs"),
        bucket="fmi",
        role=f"arn:aws:iam::{ACCOUNT_ID}:role/fmi",
        rendezvous=rendezvous,
        stop_functions=stop_functions,
    )
