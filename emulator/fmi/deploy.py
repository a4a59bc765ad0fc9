"""Deploys the three functions of a run: initialize, execute and summarize."""

import secrets
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, TypedDict

from emulator.aws.limits import DEFAULT_EPHEMERAL_STORAGE_MB, MB_PER_VCPU, vcpus
from emulator.errors import EmulatorError
from emulator.fmi.bundle import function_archive
from emulator.fmi.functions.initialize import RANKS_IN_S3

if TYPE_CHECKING:
    from types_boto3_lambda.client import LambdaClient
    from types_boto3_lambda.literals import PackageTypeType, RuntimeType
    from types_boto3_lambda.type_defs import FunctionCodeTypeDef, ImageConfigTypeDef


# Lambda's maximum: programs store their partitions there.
EXECUTE_TMP_MB = 10240
_OWN_FUNCTION_TIMEOUT_S = 60
# The zygote forks functions of this version.
_RUNTIME: Any = f"python3.{sys.version_info.minor}"
# Marks the functions that may be replaced by the next run.
_DESCRIPTION = "deployed by fmi-emulator"


class _Code(TypedDict, total=False):
    """The arguments of CreateFunction that say what runs."""

    PackageType: "PackageTypeType"
    ImageConfig: "ImageConfigTypeDef"
    Runtime: "RuntimeType"
    Handler: str
    Code: "FunctionCodeTypeDef"


class Role(Enum):
    """A function's role in a run. The value is the name of the handler's module."""

    INITIALIZE = "initialize"
    EXECUTE = "execute"
    SUMMARIZE = "summarize"


class ForeignFunctionError(EmulatorError):
    """A function of that name exists, and this command did not deploy it."""


@dataclass(frozen=True)
class DeploySettings:
    """Configuration of the deployed functions.

    Parameters
    ----------
    memory_mb, timeout_s
        Memory (MB) and timeout (s) of *execute*.
    rendezvous
        ``host:port`` of the rendezvous server that functions can reach.
    traced
        Whether ranks write the times of their phases to their logs.
    ranks_in_s3
        Whether *initialize* writes the ranks' payloads to S3 and returns their location.
    executor_image
        The executor's image, which then has all three functions; None to deploy archives.
    rank_image
        Another image for *execute*, with its own command; None for the same as the others.
    """

    memory_mb: int
    timeout_s: int
    rendezvous: str
    traced: bool = False
    ranks_in_s3: bool = False
    executor_image: str | None = None
    rank_image: str | None = None


def deploy(functions: "LambdaClient", names: Mapping[Role, str], settings: DeploySettings, iam_role: str) -> None:
    """Create the functions of a run, replacing those of an earlier run.

    Parameters
    ----------
    functions
        boto3 client of Lambda.
    names
        Their names.
    settings
        Their configuration.
    iam_role
        ARN of their role.

    Raises
    ------
    ForeignFunctionError
        If a function of one of these names exists that was not deployed by this command.
    """
    archive = function_archive()
    variables = {
        "FMI_RENDEZVOUS": settings.rendezvous,
        "FMI_FRAMED": "1",
        # On AWS no two functions share memory, whatever hint a program gives.
        "FMI_CHANNEL": "network",
        # Two runs at one rendezvous server never pair, whatever the names of their communicators.
        "FMI_JOB": uuid.uuid4().hex,
        # Ranks of one run accept each other's Python objects.
        "FMI_SECRET": secrets.token_hex(32),
        # The functions see all of the machine's cores; their libraries should use only as many as the memory pays for.
        "OMP_NUM_THREADS": str(vcpus(settings.memory_mb)),
        **({"FMI_TRACE": "1"} if settings.traced else {}),
        **({RANKS_IN_S3: "1"} if settings.ranks_in_s3 else {}),
    }
    for role, name in names.items():
        is_execute = role is Role.EXECUTE
        _delete_existing(functions, name)
        functions.create_function(
            FunctionName=name,
            Description=_DESCRIPTION,
            Role=iam_role,
            MemorySize=settings.memory_mb if is_execute else MB_PER_VCPU,
            Timeout=settings.timeout_s if is_execute else _OWN_FUNCTION_TIMEOUT_S,
            EphemeralStorage={"Size": EXECUTE_TMP_MB if is_execute else DEFAULT_EPHEMERAL_STORAGE_MB},
            Environment={"Variables": variables},
            **_code(role, settings, archive),
        )


def _code(role: Role, settings: DeploySettings, archive: bytes) -> "_Code":
    """Return the code of a function: an image, with the handler as its command, or the archive."""
    handler = f"{role.value}.handler"
    if role is Role.EXECUTE and settings.rank_image is not None:
        return {"PackageType": "Image", "Code": {"ImageUri": settings.rank_image}}
    if settings.executor_image is not None:
        image: _Code = {"PackageType": "Image", "Code": {"ImageUri": settings.executor_image}}
        return {**image, "ImageConfig": {"Command": [handler]}}
    return {"Runtime": _RUNTIME, "Handler": handler, "Code": {"ZipFile": archive}}


def _delete_existing(functions: "LambdaClient", name: str) -> None:
    try:
        found = functions.get_function_configuration(FunctionName=name)
    except functions.exceptions.ResourceNotFoundException:
        return
    if found.get("Description") != _DESCRIPTION:
        raise ForeignFunctionError(
            f"function {name!r} already exists and was not deployed by this command: delete it, or use another name "
            "in the state machine"
        )
    functions.delete_function(FunctionName=name)
