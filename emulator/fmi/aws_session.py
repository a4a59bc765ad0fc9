"""The AWS endpoint that a command uses, the local cloud's or AWS's own, and the credentials for it."""

import os
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config

from emulator.aws.credentials import Credentials
from emulator.aws.limits import REGION
from emulator.errors import EmulatorError

DEFAULT_URL = "http://127.0.0.1:4566"
# Stands for AWS itself where an endpoint's URL is expected.
AWS = "aws"
# Longer than Lambda's longest timeout with a cold start before it: the endpoint always answers before this.
_READ_TIMEOUT_S = 960
_ATTEMPTS = 3


class EndpointUnreachableError(EmulatorError):
    """No server answers at the endpoint's URL."""

    def __init__(self, url: str) -> None:
        super().__init__(
            f"no server answers at {url}: start a local cloud with `fmi-emulator serve`, or give the --endpoint-url of "
            f"one (`{AWS}` means AWS itself)"
        )


class InvalidEndpointError(EmulatorError):
    """The given endpoint URL is invalid."""

    def __init__(self, url: str) -> None:
        super().__init__(f"invalid endpoint URL {url!r}: expected for example {DEFAULT_URL}, or `{AWS}` for AWS itself")


@dataclass(frozen=True)
class AwsSession:
    """An AWS endpoint and the credentials for it.

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
            Maximum number of concurrent calls.
        """
        # A retried Invoke would run a rank twice. Every other call may be retried: AWS throttles CloudWatch Logs.
        attempts = 1 if service == "lambda" else _ATTEMPTS
        config = Config(
            max_pool_connections=connections,
            read_timeout=_READ_TIMEOUT_S,
            retries={"mode": "standard", "total_max_attempts": attempts},
        )
        make: Any = self.session.client  # boto3-stubs has one overload for each service name
        return make(service, endpoint_url=self.url, config=config)


def connect(url: str | None = None) -> AwsSession:
    """Return the session for an endpoint. It makes no call.

    Parameters
    ----------
    url
        The endpoint's URL, or ``aws``; when None, AWS_ENDPOINT_URL, or the default port of ``fmi-emulator serve``.

    Raises
    ------
    InvalidEndpointError
        If the URL is invalid.
    """
    url = url or os.environ.get("AWS_ENDPOINT_URL") or DEFAULT_URL
    if url == AWS:
        return AwsSession(boto3.Session(), None)
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidEndpointError(url)
    session = boto3.Session(region_name=boto3.Session().region_name or REGION)
    if session.get_credentials() is None:
        # An endpoint that checks no signatures takes any key.
        session = session_with(Credentials.random())
    return AwsSession(session, url)


def session_with(credentials: Credentials) -> boto3.Session:
    """Return a session with a key."""
    make: Any = boto3.Session
    session: boto3.Session = make(region_name=REGION, **credentials.for_boto3())
    return session
