"""The AWS endpoint that a command uses, the local cloud's or AWS's own, and the credentials for it."""

import os
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ProfileNotFound

from emulator.aws.credentials import Credentials
from emulator.aws.limits import REGION
from emulator.errors import EmulatorError

DEFAULT_URL = "http://127.0.0.1:4566"
# Stands for AWS itself where an endpoint's URL is expected.
AWS = "aws"
# Longer than Lambda's longest timeout with a cold start before it: the endpoint always answers before this.
_READ_TIMEOUT_S = 960
_CONNECT_TIMEOUT_S = 10
_ATTEMPTS = 3
# Of an account's services, which throttle; with pauses that grow, and fewer requests after each refusal.
_ACCOUNT_ATTEMPTS = 10


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


class AccountError(EmulatorError):
    """Credentials or region are missing, or it is unclear which endpoint is meant."""


@dataclass(frozen=True)
class AwsSession:
    """An AWS endpoint and the credentials for it.

    Parameters
    ----------
    session
        Credentials and region.
    url
        The endpoint's URL; None for AWS's own.
    is_account
        Whether the endpoint is an account's, or stands for one: requests are then retried adaptively, and endpoints
        that the environment names are not used.
    """

    session: boto3.Session
    url: str | None
    is_account: bool = False

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
        if self.is_account:
            # An option that the published types lack.
            account: dict[str, Any] = {"ignore_configured_endpoint_urls": True}
            config = Config(
                max_pool_connections=connections,
                connect_timeout=_CONNECT_TIMEOUT_S,
                retries={"mode": "adaptive", "total_max_attempts": _ACCOUNT_ATTEMPTS},
                **account,
            )
        else:
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


def connect_account(
    region: str | None = None, profile: str | None = None, endpoint_url: str | None = None
) -> AwsSession:
    """Return the session for an AWS account, or for an endpoint that stands for one. It makes no call.

    Parameters
    ----------
    region, profile
        As of the aws command; None for those of the environment and the configuration files.
    endpoint_url
        An endpoint that stands for AWS, such as the local cloud's; None for AWS itself.

    Raises
    ------
    AccountError
        If there is no region, no key, or no such profile, or if AWS_ENDPOINT_URL names an endpoint and `endpoint_url`
        does not: the run would happen elsewhere than the user may think.
    InvalidEndpointError
        If the URL is invalid.
    """
    named = {name: url for name, url in sorted(os.environ.items()) if name.startswith("AWS_ENDPOINT_URL") and url}
    if endpoint_url is None and named:
        name, url = next(iter(named.items()))
        raise AccountError(
            f"{name} is set to {url}, but --backend aws means AWS itself: unset the variable, or give --endpoint-url "
            f"{url} to use that endpoint as if it were AWS"
        )
    if endpoint_url is not None:
        parts = urlsplit(endpoint_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidEndpointError(endpoint_url)
    try:
        session = boto3.Session(region_name=region, profile_name=profile)
        has_key = session.get_credentials() is not None
    except ProfileNotFound:
        known = ", ".join(boto3.Session().available_profiles) or "none"
        raise AccountError(f"unknown profile {profile!r}: expected one of ~/.aws/config: {known}") from None
    except BotoCoreError as error:
        raise AccountError(f"cannot read AWS credentials: {error}: run `aws configure` or `aws sso login`") from None
    if session.region_name is None:
        raise AccountError("no region: give --region, for example us-east-1, or set AWS_DEFAULT_REGION")
    known_regions = {name for part in session.get_available_partitions() for name in _regions(session, part)}
    if session.region_name not in known_regions:
        raise AccountError(
            f"unknown region {session.region_name!r}: expected for example us-east-1; `aws ec2 describe-regions` lists "
            "those of the account"
        )
    if not has_key:
        raise AccountError(
            "no AWS credentials: run `aws configure` or `aws sso login`, give --aws-profile, or set AWS_ACCESS_KEY_ID "
            "and AWS_SECRET_ACCESS_KEY"
        )
    return AwsSession(session, endpoint_url, is_account=True)


def _regions(session: boto3.Session, partition: str) -> list[str]:
    return session.get_available_regions("lambda", partition)


def session_with(credentials: Credentials) -> boto3.Session:
    """Return a session with a key."""
    make: Any = boto3.Session
    session: boto3.Session = make(region_name=REGION, **credentials.for_boto3())
    return session
