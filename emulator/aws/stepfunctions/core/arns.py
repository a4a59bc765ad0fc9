"""Step Functions' Amazon resource names and the rules for names."""

import re
import uuid
from http import HTTPStatus

from emulator.aws.limits import ACCOUNT_ID, REGION
from emulator.errors import ApiError

_PREFIX = f"arn:aws:states:{REGION}:{ACCOUNT_ID}"
# https://docs.aws.amazon.com/step-functions/latest/apireference/API_CreateStateMachine.html
_NAME = re.compile(r"[^\s<>{}\[\]?*\"#%\\^|~`$&,;:/\x00-\x1f\x7f-\x9f]{1,80}")
_ARN = re.compile(r"arn:aws[a-z-]*:states:[a-z0-9-]*:\d{12}:(?P<kind>[A-Za-z]+):(?P<rest>.+)")


def machine_arn(name: str, label: str = "") -> str:
    """Return a state machine's ARN, or with a label that of what a distributed Map of it runs."""
    return f"{_PREFIX}:stateMachine:{_labelled(name, label)}"


def execution_arn(machine_name: str, name: str, label: str = "") -> str:
    """Return a STANDARD execution's ARN, or a map run's child execution's."""
    return f"{_PREFIX}:execution:{_labelled(machine_name, label)}:{name}"


def express_arn(machine_name: str, name: str) -> str:
    """Return a new EXPRESS execution's ARN."""
    return f"{_PREFIX}:express:{machine_name}:{name}:{uuid.uuid4()}"


def map_run_arn(machine_name: str, label: str) -> str:
    """Return a new map run's ARN."""
    return f"{_PREFIX}:mapRun:{_labelled(machine_name, label)}:{uuid.uuid4()}"


def validate_arn(arn: object, *kinds: str) -> str:
    """Return an ARN of one of several kinds.

    Raises
    ------
    ApiError
        InvalidArn, when it is none.
    """
    match = _ARN.fullmatch(arn) if isinstance(arn, str) else None
    if match is None:
        raise _invalid_arn(f"Invalid Arn: expected arn:aws:states:region:account:{'|'.join(kinds)}:…, got {arn!r}")
    if match["kind"] not in kinds:
        raise _invalid_arn(f"Invalid Arn: 'Resource type not valid in this context: {match['kind']}'")
    return match[0]


def validate_name(name: object) -> str:
    """Return the name of a state machine or execution.

    Raises
    ------
    ApiError
        InvalidName, when it is none.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ApiError(
            "InvalidName",
            HTTPStatus.BAD_REQUEST,
            f"Invalid Name: expected 1 to 80 characters without spaces, brackets, wildcards and any of "
            f'"#%\\^|~`$&,;:/, got {name!r}',
        )
    return name


def _labelled(name: str, label: str) -> str:
    return f"{name}/{label}" if label else name


def _invalid_arn(message: str) -> ApiError:
    return ApiError("InvalidArn", HTTPStatus.BAD_REQUEST, message)
