"""Errors of AWS as one message each, with the command that mends the cause."""

from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    EndpointConnectionError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    SSOError,
    TokenRetrievalError,
)
from botocore.exceptions import (
    ConnectionError as NetworkError,
)

from emulator.errors import EmulatorError

EXPIRED = frozenset(["ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"])
_INVALID_KEY = frozenset(
    [
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    ]
)
_DENIED = frozenset(
    ["AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AuthorizationError", "403", "Forbidden"]
)
THROTTLED = frozenset(
    [
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        "RequestLimitExceeded",
        "SlowDown",
        "RequestThrottled",
        "LimitExceededException",
    ]
)


class AwsError(EmulatorError):
    """AWS refused a request, or could not be reached."""


@contextmanager
def explained() -> Iterator[None]:
    """Raise errors of botocore within a block as an `AwsError` with advice."""
    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise AwsError(explain(error)) from error


def error_code(error: BaseException) -> str:
    """Return the code of AWS's error; empty for another error."""
    return str(error.response["Error"].get("Code", "")) if isinstance(error, ClientError) else ""


def is_expired(error: BaseException) -> bool:
    """Return whether the credentials have expired, so that the same request succeeds with renewed ones."""
    return error_code(error) in EXPIRED or isinstance(error, CredentialRetrievalError | TokenRetrievalError | SSOError)


def is_transient(error: BaseException) -> bool:
    """Return whether the same request may succeed later: the network, throttling, or an error of AWS itself."""
    if isinstance(error, NetworkError | HTTPClientError | IncompleteReadError):
        return True
    if not isinstance(error, ClientError):
        return False
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return error_code(error) in THROTTLED or status >= 500


def explain(error: BaseException) -> str:
    """Return one message for an error of botocore: what was wrong, and what to do."""
    code = error_code(error)
    if is_expired(error):
        return f"the AWS credentials have expired: renew them, for example with `aws sso login` ({error})"
    if code in _INVALID_KEY:
        return f"AWS does not accept the credentials: check --aws-profile and `aws sts get-caller-identity` ({error})"
    if code in _DENIED:
        return (
            f"{error}: expected credentials with the policy that `fmi-emulator deploy --print-policy` prints; ask the "
            "account's administrator to attach it"
        )
    if code in THROTTLED:
        return f"AWS still refuses requests after several tries, for their rate: wait, then try again ({error})"
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return f"no AWS credentials: run `aws configure` or `aws sso login`, or give --aws-profile ({error})"
    if isinstance(error, EndpointConnectionError):
        return f"{error}: check --region, --endpoint-url and the network"
    return str(error)
