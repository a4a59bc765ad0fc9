"""The Resource of a Task: its parser and the integrations that are emulated."""

import re
from dataclasses import dataclass
from enum import StrEnum

_FUNCTION = re.compile(r"arn:aws[a-z-]*:lambda:[a-z0-9-]*:\d*:function:[A-Za-z0-9_-]+(:[A-Za-z0-9$_-]+)?")
_SDK = re.compile(r"aws-sdk:(?P<service>[a-z0-9]+):(?P<action>[a-z][A-Za-z0-9]*)")
_OPTIMIZED = re.compile(r"(?P<service>[a-z0-9-]+):(?P<action>[a-z][A-Za-z0-9]*)")
_PREFIX = re.compile(r"arn:aws[a-z-]*:states:[a-z0-9-]*:\d*:")


class Pattern(StrEnum):
    """What a Task waits for: the response, the end of the job it started, or the return of a task token."""

    REQUEST_RESPONSE = ""
    SYNC = "sync"
    SYNC_2 = "sync:2"
    TASK_TOKEN = "waitForTaskToken"  # noqa: S105 - a pattern's name


class ResourceError(ValueError):
    """A Resource is invalid or not emulated."""


@dataclass(frozen=True)
class Resource:
    """The resource that a Task calls.

    Parameters
    ----------
    arn
        The ARN as written in the definition.
    service, action
        Such as ``lambda`` and ``invoke``; both empty for a function's own ARN.
    pattern
        What the Task waits for.
    sdk
        Whether it is an ``aws-sdk`` integration, which calls any action of a service.
    """

    arn: str
    service: str = ""
    action: str = ""
    pattern: Pattern = Pattern.REQUEST_RESPONSE
    sdk: bool = False

    @classmethod
    def of_function(cls, arn: str) -> "Resource":
        """Return the resource of a function called by its own ARN."""
        return cls(arn)

    @property
    def is_function(self) -> bool:
        """Whether the resource is a function's own ARN."""
        return not self.service


# The integrations other than aws-sdk, each with its patterns on AWS. Source:
# https://docs.aws.amazon.com/step-functions/latest/dg/integrate-services.html
_REQUEST_RESPONSE, _JOBS, _TOKEN = (
    frozenset({Pattern.REQUEST_RESPONSE}),
    frozenset({Pattern.SYNC, Pattern.SYNC_2}),
    {Pattern.TASK_TOKEN},
)
OPTIMIZED: dict[tuple[str, str], frozenset[Pattern]] = {
    ("lambda", "invoke"): _REQUEST_RESPONSE | _TOKEN,
    ("states", "startExecution"): _REQUEST_RESPONSE | _JOBS | _TOKEN,
    ("dynamodb", "getItem"): _REQUEST_RESPONSE,
    ("dynamodb", "putItem"): _REQUEST_RESPONSE,
    ("dynamodb", "updateItem"): _REQUEST_RESPONSE,
    ("dynamodb", "deleteItem"): _REQUEST_RESPONSE,
    ("sns", "publish"): _REQUEST_RESPONSE | _TOKEN,
    ("sqs", "sendMessage"): _REQUEST_RESPONSE | _TOKEN,
    ("events", "putEvents"): _REQUEST_RESPONSE | _TOKEN,
}


def parse_resource(arn: str) -> Resource:
    """Parse a Resource.

    Raises
    ------
    ResourceError
        If the Resource is invalid or not emulated.
    """
    if _FUNCTION.fullmatch(arn):
        return Resource.of_function(arn)
    prefix = _PREFIX.match(arn)
    if prefix is None:
        raise ResourceError(
            f"expected the ARN of a Lambda function or of an integration such as arn:aws:states:::lambda:invoke, "
            f"got {arn!r}"
        )
    rest = arn[prefix.end() :]
    if rest.startswith("activity:"):
        raise ResourceError(f"activities are not emulated; use a .waitForTaskToken integration instead of {arn!r}")
    name, _, suffix = rest.partition(".")
    try:
        pattern = Pattern(suffix)
    except ValueError:
        raise ResourceError(
            f"expected .sync, .sync:2, .waitForTaskToken or nothing after {name!r}, got {suffix!r}"
        ) from None
    if sdk := _SDK.fullmatch(name):
        if pattern in _JOBS:
            raise ResourceError(f"expected no .{pattern} after an aws-sdk integration, got {arn!r}")
        return Resource(arn, sdk["service"], sdk["action"], pattern, sdk=True)
    integration = _OPTIMIZED.fullmatch(name)
    known = OPTIMIZED.get((integration["service"], integration["action"])) if integration else None
    if integration is None or known is None:
        names = ", ".join(f"{service}:{action}" for service, action in OPTIMIZED)
        raise ResourceError(
            f"the integration {name!r} is not emulated: expected one of {names}, aws-sdk:SERVICE:ACTION"
        )
    if pattern not in known:
        raise ResourceError(f"expected no .{pattern} after {name}, got {arn!r}")
    return Resource(arn, integration["service"], integration["action"], pattern)
