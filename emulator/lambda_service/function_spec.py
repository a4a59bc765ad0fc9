"""What a function may be configured with, checked as AWS checks it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from emulator import limits
from emulator.errors import ApiError

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_RUNTIME = re.compile(r"python3\.\d+")
# The variables' names and values together.
_ENVIRONMENT_BYTES = 4096


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
        name, runtime = _text(request, "FunctionName"), _text(request, "Runtime")
        if not _NAME.fullmatch(name):
            raise invalid(f"FunctionName: expected 1 to 64 letters, digits, - or _, got {name!r}")
        if not _RUNTIME.fullmatch(runtime):
            raise invalid(f"Runtime: expected python3.N, the only one emulated, got {runtime!r}")
        if request.get("PackageType", "Zip") != "Zip":
            raise invalid("PackageType: Image needs a container sandbox, which this emulator does not have; use Zip")
        storage = request.get("EphemeralStorage", {})
        return cls(
            name=name,
            handler=_text(request, "Handler"),
            runtime=runtime,
            role=_text(request, "Role"),
            description=str(request.get("Description", "")),
            timeout_s=_within(request, "Timeout", limits.DEFAULT_TIMEOUT_S, limits.TIMEOUT_S),
            memory_mb=_within(request, "MemorySize", limits.DEFAULT_MEMORY_MB, limits.MEMORY_MB),
            ephemeral_storage_mb=_within(
                storage, "Size", limits.DEFAULT_EPHEMERAL_STORAGE_MB, limits.EPHEMERAL_STORAGE_MB
            ),
            environment=_variables(request),
        )

    def updated(self, request: Mapping[str, Any]) -> "FunctionSpec":
        """Return this with the changes of an UpdateFunctionConfiguration request.

        Raises
        ------
        ApiError
            As `from_api`.
        """
        return self.from_api({**self.to_api(), **request, "FunctionName": self.name})

    def to_api(self) -> dict[str, Any]:
        """Return the settings under the names of the API."""
        return {
            "FunctionName": self.name,
            "Runtime": self.runtime,
            "Role": self.role,
            "Handler": self.handler,
            "Description": self.description,
            "Timeout": self.timeout_s,
            "MemorySize": self.memory_mb,
            "EphemeralStorage": {"Size": self.ephemeral_storage_mb},
            "Environment": {"Variables": dict(self.environment)},
            "PackageType": "Zip",
        }


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


def _variables(request: Mapping[str, Any]) -> dict[str, str]:
    variables = request.get("Environment", {}).get("Variables", {})
    if not isinstance(variables, dict) or not all(isinstance(value, str) for value in variables.values()):
        raise invalid(f"Environment.Variables: expected texts by name, got {variables!r}")
    size = sum(len(name.encode()) + len(value.encode()) for name, value in variables.items())
    if size > _ENVIRONMENT_BYTES:
        raise invalid(
            "Lambda was unable to configure your environment variables because the environment variables you have "
            f"provided exceeded the {_ENVIRONMENT_BYTES} bytes limit: got {size} bytes"
        )
    return variables
