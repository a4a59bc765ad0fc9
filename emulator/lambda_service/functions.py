"""The functions that exist, and what a new one may be configured with."""

import base64
import hashlib
import re
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

from emulator import limits
from emulator.errors import ApiError
from emulator.lambda_service.code import unpack

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
# arn:aws:lambda:region:account:function:name, account:function:name, function:name or name, each with :qualifier
_REFERENCE = re.compile(
    r"(?:(?:arn:aws:lambda:[a-z0-9-]+:)?\d{12}:function:|function:)?(?P<name>[A-Za-z0-9_-]+)(?::(?P<qualifier>[A-Za-z0-9$_-]+))?"
)
_RUNTIME = re.compile(r"python3\.\d+")


@dataclass(frozen=True)
class FunctionSpec:
    """What CreateFunction is asked for.

    Parameters
    ----------
    name, handler, runtime, role, description
        As in the API.
    timeout_s
        Longest time of an invocation, seconds.
    memory_mb
        Memory, MB.
    ephemeral_storage_mb
        Size of /tmp, MB.
    environment
        The function's own variables.
    """

    name: str
    handler: str
    runtime: str
    role: str
    description: str = ""
    timeout_s: int = limits.DEFAULT_TIMEOUT_S
    memory_mb: int = limits.DEFAULT_MEMORY_MB
    ephemeral_storage_mb: int = limits.DEFAULT_EPHEMERAL_STORAGE_MB
    environment: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_api(cls, request: Mapping[str, Any]) -> "FunctionSpec":
        """Check a CreateFunction request.

        Raises
        ------
        ApiError
            When a value is missing or not allowed, naming it, as AWS does.
        """
        spec = cls(
            name=_text(request, "FunctionName"),
            handler=_text(request, "Handler"),
            runtime=_text(request, "Runtime"),
            role=_text(request, "Role"),
            description=str(request.get("Description", "")),
            timeout_s=_within(request, "Timeout", limits.DEFAULT_TIMEOUT_S, limits.TIMEOUT_S),
            memory_mb=_within(request, "MemorySize", limits.DEFAULT_MEMORY_MB, limits.MEMORY_MB),
            ephemeral_storage_mb=_within(
                request.get("EphemeralStorage", {}),
                "Size",
                limits.DEFAULT_EPHEMERAL_STORAGE_MB,
                limits.EPHEMERAL_STORAGE_MB,
            ),
            environment=request.get("Environment", {}).get("Variables", {}),
        )
        if not _NAME.fullmatch(spec.name):
            raise invalid(f"FunctionName: expected 1 to 64 letters, digits, - or _, got {spec.name!r}")
        if not _RUNTIME.fullmatch(spec.runtime):
            raise invalid(f"Runtime: expected python3.N, the only one emulated, got {spec.runtime!r}")
        if request.get("PackageType", "Zip") != "Zip":
            raise invalid("PackageType: Image needs a container sandbox, which this emulator does not have; use Zip")
        return spec


@dataclass(frozen=True)
class Function:
    """A function that exists.

    Parameters
    ----------
    spec
        What it was created with.
    code_root
        The folder with its code.
    code_sha256
        SHA-256 of its archive, base64.
    code_size
        Size of its archive, bytes.
    """

    spec: FunctionSpec
    code_root: Path
    code_sha256: str
    code_size: int
    revision_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    last_modified: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def arn(self) -> str:
        """The function's Amazon resource name."""
        return function_arn(self.spec.name)

    def to_api(self) -> dict[str, Any]:
        """Return the FunctionConfiguration of the API."""
        return {
            "FunctionName": self.spec.name,
            "FunctionArn": self.arn,
            "Runtime": self.spec.runtime,
            "Role": self.spec.role,
            "Handler": self.spec.handler,
            "CodeSize": self.code_size,
            "CodeSha256": self.code_sha256,
            "Description": self.spec.description,
            "Timeout": self.spec.timeout_s,
            "MemorySize": self.spec.memory_mb,
            "LastModified": self.last_modified.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "+0000",
            "Version": "$LATEST",
            "Environment": {"Variables": dict(self.spec.environment)},
            "TracingConfig": {"Mode": "PassThrough"},
            "RevisionId": self.revision_id,
            "State": "Active",
            "LastUpdateStatus": "Successful",
            "PackageType": "Zip",
            "Architectures": ["x86_64"],
            "EphemeralStorage": {"Size": self.spec.ephemeral_storage_mb},
        }


class FunctionRegistry:
    """The functions that exist, by name.

    Parameters
    ----------
    folder
        Where code is unpacked.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._functions: dict[str, Function] = {}

    def create(self, spec: FunctionSpec, archive: bytes) -> Function:
        """Add a function.

        Raises
        ------
        ApiError
            When there is one of that name, or the archive is refused.
        """
        if spec.name in self._functions:
            raise ApiError("ResourceConflictException", HTTPStatus.CONFLICT, f"Function already exist: {spec.name}")
        code_root = self._folder / f"{spec.name}-{uuid.uuid4().hex[:8]}"
        code_root.mkdir(parents=True)
        try:
            unpack(archive, code_root)
        except ApiError:
            shutil.rmtree(code_root)
            raise
        digest = base64.b64encode(hashlib.sha256(archive).digest()).decode()
        function = Function(spec, code_root, digest, len(archive))
        self._functions[spec.name] = function
        return function

    def get(self, reference: str) -> Function:
        """Return the function that a name, partial ARN or ARN refers to.

        Raises
        ------
        ApiError
            When there is none, or it is asked for in a version other than ``$LATEST``.
        """
        match = _REFERENCE.fullmatch(reference)
        if match is None:
            raise invalid(f"FunctionName: expected a name or an ARN, got {reference!r}")
        function = self._functions.get(match["name"])
        if function is None or match["qualifier"] not in (None, "$LATEST"):
            raise ApiError(
                "ResourceNotFoundException",
                HTTPStatus.NOT_FOUND,
                f"Function not found: {function_arn(reference)}",
            )
        return function

    def delete(self, reference: str) -> Function:
        """Remove a function and its code; return what it was.

        Raises
        ------
        ApiError
            When there is none of that name.
        """
        function = self.get(reference)
        del self._functions[function.spec.name]
        shutil.rmtree(function.code_root, ignore_errors=True)
        return function

    def all(self) -> list[Function]:
        """Return every function, by name."""
        return [self._functions[name] for name in sorted(self._functions)]


def function_arn(name: str) -> str:
    """Return the Amazon resource name of a function in the emulated account."""
    return f"arn:aws:lambda:{limits.REGION}:{limits.ACCOUNT_ID}:function:{name}"


def invalid(message: str) -> ApiError:
    """Return AWS's error for a value that is not allowed."""
    return ApiError("InvalidParameterValueException", HTTPStatus.BAD_REQUEST, message)


def _text(request: Mapping[str, Any], key: str) -> str:
    value = request.get(key)
    if not isinstance(value, str) or not value:
        raise invalid(f"{key}: expected a text that is not empty, got {value!r}")
    return value


def _within(request: Mapping[str, Any], key: str, default: int, allowed: range) -> int:
    value = request.get(key, default)
    if not isinstance(value, int) or value not in allowed:
        raise invalid(f"{key}: expected a whole number from {allowed[0]} to {allowed[-1]}, got {value!r}")
    return value
