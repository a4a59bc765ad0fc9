"""Amazon resource names (ARNs) of Step Functions, and the validation of ARNs and names."""

import re
import uuid
from http import HTTPStatus

from emulator.aws.account import Account
from emulator.errors import ApiError

# https://docs.aws.amazon.com/step-functions/latest/apireference/API_CreateStateMachine.html
_NAME = re.compile(r"[^\s<>{}\[\]?*\"#%\\^|~`$&,;:/\x00-\x1f\x7f-\x9f]{1,80}")
_ARN = re.compile(r"arn:aws[a-z-]*:states:[a-z0-9-]*:\d{12}:(?P<kind>[A-Za-z]+):(?P<rest>.+)")


def machine_arn(account: Account, name: str, label: str = "") -> str:
    """Return a state machine's ARN; with a label, the ARN of the state machine of a distributed Map's children."""
    return account.arn("states", f"stateMachine:{_labelled(name, label)}")


def execution_arn(account: Account, machine_name: str, name: str, label: str = "") -> str:
    """Return the ARN of a STANDARD execution, or of a map run's child execution."""
    return account.arn("states", f"execution:{_labelled(machine_name, label)}:{name}")


def express_arn(account: Account, machine_name: str, name: str) -> str:
    """Return the ARN of a new EXPRESS execution."""
    return account.arn("states", f"express:{machine_name}:{name}:{uuid.uuid4()}")


def map_run_arn(account: Account, machine_name: str, label: str) -> str:
    """Return the ARN of a new map run."""
    return account.arn("states", f"mapRun:{_labelled(machine_name, label)}:{uuid.uuid4()}")


def validate_arn(arn: object, *kinds: str) -> str:
    """Return an ARN if it is valid and of one of several resource types.

    Raises
    ------
    ApiError
        InvalidArn, otherwise.
    """
    match = _ARN.fullmatch(arn) if isinstance(arn, str) else None
    if match is None:
        raise _invalid_arn(f"Invalid Arn: expected arn:aws:states:region:account:{'|'.join(kinds)}:…, got {arn!r}")
    if match["kind"] not in kinds:
        raise _invalid_arn(f"Invalid Arn: 'Resource type not valid in this context: {match['kind']}'")
    return match[0]


def validate_name(name: object) -> str:
    """Return the name of a state machine or execution if it is valid.

    Raises
    ------
    ApiError
        InvalidName, otherwise.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ApiError(
            "InvalidName",
            HTTPStatus.BAD_REQUEST,
            f"Invalid Name: expected 1 to 80 characters without spaces, brackets, wildcards or any of "
            f'"#%\\^|~`$&,;:/, got {name!r}',
        )
    return name


def _labelled(name: str, label: str) -> str:
    return f"{name}/{label}" if label else name


def _invalid_arn(message: str) -> ApiError:
    return ApiError("InvalidArn", HTTPStatus.BAD_REQUEST, message)
