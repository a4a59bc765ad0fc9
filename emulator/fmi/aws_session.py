"""Which endpoint a command talks to: a local cloud's, or AWS itself."""

import os
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config

from emulator.aws.limits import REGION
from emulator.errors import EmulatorError

DEFAULT_URL = "http://127.0.0.1:4566"
# What to give as the endpoint's URL for the real one.
AWS = "aws"
# Longer than Lambda's longest timeout with a cold start before it: the endpoint always answers first.
_READ_TIMEOUT_S = 960
_ATTEMPTS = 3


class EndpointUnreachableError(EmulatorError):
    """Nothing answers at the endpoint's URL."""

    def __init__(self, url: str) -> None:
        super().__init__(
            f"nothing answers at {url}; start a local cloud with `fmi-emulator serve`, or give the --endpoint-url of "
            f"one (`{AWS}` means AWS itself)"
        )


class InvalidEndpointError(EmulatorError):
    """What was given as the endpoint's URL is none."""

    def __init__(self, url: str) -> None:
        super().__init__(f"{url!r} is no endpoint's URL: expected one such as {DEFAULT_URL}, or `{AWS}` for AWS itself")


@dataclass(frozen=True)
class AwsSession:
    """An AWS endpoint and the right to call it.

    Parameters
    ----------
    session
        Credentials and region.
    url
        The endpoint's URL; None for AWS's own.
    """

    session: boto3.Session
    url: str | None

    def client(self, service: str, connections: int = 10) -> Any:
        """Return a boto3 client.

        Parameters
        ----------
        service
            AWS's name of the service.
        connections
            Calls that will be under way at once.
        """
        # A repeated Invoke would run a rank twice. All else may be asked again, such as CloudWatch Logs, which AWS
        # lets an account ask some times a second only.
        attempts = 1 if service == "lambda" else _ATTEMPTS
        config = Config(
            max_pool_connections=connections,
            read_timeout=_READ_TIMEOUT_S,
            retries={"mode": "standard", "total_max_attempts": attempts},
        )
        make: Any = self.session.client  # typed for each service by name, of which this is any
        return make(service, endpoint_url=self.url, config=config)


def connect(url: str | None = None) -> AwsSession:
    """Return the connection to an endpoint; no call is made yet.

    Parameters
    ----------
    url
        The endpoint's URL, or ``aws``; when None, AWS_ENDPOINT_URL, or the port that ``fmi-emulator serve`` takes.

    Raises
    ------
    InvalidEndpointError
        When it is none.
    """
    url = url or os.environ.get("AWS_ENDPOINT_URL") or DEFAULT_URL
    if url == AWS:
        return AwsSession(boto3.Session(), None)
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidEndpointError(url)
    session = boto3.Session(region_name=boto3.Session().region_name or REGION)
    if session.get_credentials() is None:
        session = local_session()
    return AwsSession(session, url)


def local_session() -> boto3.Session:
    """Return the credentials of a local endpoint, which checks none."""
    return boto3.Session(
        region_name=REGION,
        aws_access_key_id="local",
        aws_secret_access_key="local",  # noqa: S106 - the local endpoint checks no credentials
    )
