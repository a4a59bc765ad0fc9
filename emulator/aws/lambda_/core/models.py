"""A function: its settings, checked as AWS checks them, its versions and aliases."""

import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any

from emulator.aws import limits
from emulator.aws.lambda_.core.constraints import Constraints, invalid_parameter

# The Python and custom runtimes that AWS supports: https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtimes.html
_RUNTIMES = (*(f"python3.{minor}" for minor in range(9, 15)), "provided.al2", "provided.al2023")
_NAME_PATTERN = (
    r"(arn:(aws[a-zA-Z-]*)?:lambda:)?([a-z]{2}(-gov)?-[a-z]+-\d{1}:)?(\d{12}:)?(function:)?"
    r"([a-zA-Z0-9-_]+)(:(\$LATEST|[a-zA-Z0-9-_]+))?"
)
_ROLE_PATTERN = r"arn:(aws[a-zA-Z-]*)?:iam::\d{12}:role/?[a-zA-Z_0-9+=,.@\-_/]+"
_HANDLER_PATTERN = r"[^\s]+"
_VARIABLE_PATTERN = re.compile("[a-zA-Z]([a-zA-Z0-9_])+")
_ARCHITECTURES = ("x86_64", "arm64")
_LONGEST_NAME, _LONGEST_HANDLER, _LONGEST_DESCRIPTION = 64, 128, 256
# https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html#configuration-envvars-runtime
_RESERVED_VARIABLES = (
    "_HANDLER",
    "_X_AMZN_TRACE_ID",
    "AWS_ACCESS_KEY",
    "AWS_ACCESS_KEY_ID",
    "AWS_DEFAULT_REGION",
    "AWS_EXECUTION_ENV",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
    "AWS_LAMBDA_FUNCTION_NAME",
    "AWS_LAMBDA_FUNCTION_VERSION",
    "AWS_LAMBDA_INITIALIZATION_TYPE",
    "AWS_LAMBDA_LOG_GROUP_NAME",
    "AWS_LAMBDA_LOG_STREAM_NAME",
    "AWS_LAMBDA_RUNTIME_API",
    "AWS_REGION",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "LAMBDA_RUNTIME_DIR",
    "LAMBDA_TASK_ROOT",
)
# Settings that are stored and returned, but have no effect here; the first two have defaults.
_KEPT: dict[str, Any] = {
    "TracingConfig": {"Mode": "PassThrough"},
    "SnapStart": {"ApplyOn": "None", "OptimizationStatus": "Off"},
    "DeadLetterConfig": None,
    "ImageConfig": None,
    "KMSKeyArn": None,
    "LoggingConfig": None,
    "VpcConfig": None,
}
# Settings that a function depends on when it runs, and which cannot be emulated.
_NOT_EMULATED = {
    "Layers": "layers are not emulated: put their content into the function's archive",
    "FileSystemConfigs": "EFS is not emulated: use S3 or /tmp",
}
LATEST = "$LATEST"


class PackageType(Enum):
    """The format of a deployment package."""

    ZIP = "Zip"
    IMAGE = "Image"


@dataclass(frozen=True)
class FunctionSpec:
    """The settings of a function.

    Parameters
    ----------
    name, role, description
        As in the API.
    package_type
        Zip or Image.
    handler, runtime
        As in the API; empty for an image.
    timeout_s
        Time limit of an invocation, seconds.
    memory_mb
        Memory, MB.
    ephemeral_storage_mb
        Size of /tmp, MB.
    environment
        The function's environment variables.
    architecture
        As in the API; without effect: everything runs on this machine's.
    kept
        Settings of the API that have no effect here, as passed.
    """

    name: str
    role: str
    handler: str = ""
    runtime: str = ""
    package_type: PackageType = PackageType.ZIP
    description: str = ""
    timeout_s: int = limits.DEFAULT_TIMEOUT_S
    memory_mb: int = limits.DEFAULT_MEMORY_MB
    ephemeral_storage_mb: int = limits.DEFAULT_EPHEMERAL_STORAGE_MB
    environment: Mapping[str, str] = field(default_factory=dict)
    architecture: str = _ARCHITECTURES[0]
    kept: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_api(cls, request: Mapping[str, Any]) -> "FunctionSpec":
        """Validate a CreateFunction request.

        Raises
        ------
        ApiError
            When a value is missing or invalid, with AWS's message.
        """
        parameters = Constraints({name: value for name, value in request.items() if value is not None})
        name = parameters.text("FunctionName", pattern=_NAME_PATTERN)
        if len(name) > _LONGEST_NAME and ":" not in name:
            parameters.add_violation(
                "FunctionName", name, f"Member must have length less than or equal to {_LONGEST_NAME}"
            )
        # Both are optional for an image.
        for mandatory, pattern, longest in (("Handler", _HANDLER_PATTERN, _LONGEST_HANDLER), ("Runtime", None, 0)):
            if request.get(mandatory):
                parameters.text(mandatory, pattern=pattern, longest=longest)
        storage = Constraints(
            {f"EphemeralStorage.{key}": value for key, value in parameters.members("EphemeralStorage").items()}
        )
        spec = cls(
            name=name.removesuffix(":$LATEST").rpartition(":")[2],
            role=parameters.text("Role", pattern=_ROLE_PATTERN),
            handler=str(request.get("Handler") or ""),
            runtime=str(request.get("Runtime") or ""),
            package_type=PackageType(parameters.one_of("PackageType", "Zip", [kind.value for kind in PackageType])),
            description=parameters.text("Description", "", longest=_LONGEST_DESCRIPTION),
            timeout_s=parameters.number("Timeout", limits.DEFAULT_TIMEOUT_S, limits.TIMEOUT_S),
            memory_mb=parameters.number("MemorySize", limits.DEFAULT_MEMORY_MB, limits.MEMORY_MB),
            ephemeral_storage_mb=storage.number(
                "EphemeralStorage.Size", limits.DEFAULT_EPHEMERAL_STORAGE_MB, limits.EPHEMERAL_STORAGE_MB
            ),
            environment=_variables(parameters),
            architecture=_architecture(parameters),
            kept={key: request[key] for key in _KEPT if request.get(key) is not None},
        )
        parameters.check()
        storage.check()
        _check_supported(request, spec)
        return spec

    def updated(self, request: Mapping[str, Any]) -> "FunctionSpec":
        """Return the settings with the changes of an UpdateFunctionConfiguration request.

        Raises
        ------
        ApiError
            As `from_api`.
        """
        return self.from_api({**self.to_api(), **request, "FunctionName": self.name})

    def to_api(self) -> dict[str, Any]:
        """Return the settings by their names in the API."""
        settings = {
            "FunctionName": self.name,
            "Runtime": self.runtime or None,
            "Role": self.role,
            "Handler": self.handler or None,
            "Description": self.description,
            "Timeout": self.timeout_s,
            "MemorySize": self.memory_mb,
            "EphemeralStorage": {"Size": self.ephemeral_storage_mb},
            "Environment": {"Variables": dict(self.environment)} if self.environment else None,
            "PackageType": self.package_type.value,
            "Architectures": [self.architecture],
            **_KEPT,
            **self.kept,
        }
        return {name: value for name, value in settings.items() if value is not None}


def _variables(parameters: Constraints) -> dict[str, str]:
    variables = parameters.members("Environment").get("Variables") or {}
    if not isinstance(variables, dict) or not all(isinstance(value, str) for value in variables.values()):
        parameters.add_violation("Environment.Variables", variables, "Map values must be strings")
        return {}
    if not all(_VARIABLE_PATTERN.fullmatch(name) for name in variables):
        pattern = f"[Member must satisfy regular expression pattern: {_VARIABLE_PATTERN.pattern}]"
        parameters.add_violation("Environment.Variables", variables, f"Map keys must satisfy constraint: {pattern}")
    return variables


def architecture_of(request: Mapping[str, Any]) -> str:
    """Return the architecture of a request; x86_64 when it has none.

    Raises
    ------
    ApiError
        When it is unknown, or there are several.
    """
    parameters = Constraints(request)
    architecture = _architecture(parameters)
    parameters.check()
    return architecture


def _architecture(parameters: Constraints) -> str:
    named = parameters.items("Architectures")
    if not named:
        return _ARCHITECTURES[0]
    if len(named) > 1:
        parameters.add_violation("Architectures", named, "Member must have length less than or equal to 1")
    elif named[0] not in _ARCHITECTURES:
        allowed = f"[Member must satisfy enum value set: [{', '.join(_ARCHITECTURES)}], Member must not be null]"
        parameters.add_violation("Architectures", named, f"Member must satisfy constraint: {allowed}")
    return str(named[0])


def _check_supported(request: Mapping[str, Any], spec: FunctionSpec) -> None:
    """Raise for values that are well formed, but that Lambda or this emulator does not support."""
    for name, reason in _NOT_EMULATED.items():
        if request.get(name):
            raise invalid_parameter(f"{name}: {reason}")
    if spec.package_type is PackageType.ZIP:
        if not spec.runtime or not spec.handler:
            raise invalid_parameter(
                "Runtime and Handler are mandatory parameters for functions created with deployment packages."
            )
        if spec.runtime not in _RUNTIMES:
            raise invalid_parameter(
                f"Value {spec.runtime} at 'runtime' failed to satisfy constraint: Member must satisfy enum value set: "
                f"[{', '.join(_RUNTIMES)}] or be a valid ARN (no other runtime is emulated)"
            )
    elif spec.runtime or spec.handler:
        raise invalid_parameter(
            "The Runtime and Handler parameters are not supported for functions created with container images."
        )
    _check_variables(spec.environment)


def _check_variables(variables: Mapping[str, str]) -> None:
    unable = (
        "Lambda was unable to configure your environment variables because the environment variables you have provided"
    )
    reserved = [name for name in variables if name in _RESERVED_VARIABLES]
    if reserved:
        raise invalid_parameter(
            f"{unable} contains reserved keys that are currently not supported for modification. "
            f"Reserved keys used in this request: {', '.join(reserved)}"
        )
    measured = json.dumps(dict(variables), separators=(",", ":"), ensure_ascii=False)
    if len(measured.encode()) > limits.ENVIRONMENT_BYTES:
        raise invalid_parameter(f"{unable} exceeded the 4KB limit. String measured: {measured}")


@dataclass(frozen=True)
class Package:
    """A deployment package.

    Parameters
    ----------
    sha256
        SHA-256 of the archive, in base64; of an image, that of its URI, in hexadecimal.
    size
        Size of the archive, bytes; 0 for an image.
    root
        The folder with the archive's files; None for an image.
    image_uri
        The URI of an image; None for an archive.
    """

    sha256: str
    size: int
    root: Path | None = None
    image_uri: str | None = None


@dataclass(frozen=True)
class Function:
    """One state of a function; a change creates a new one.

    Parameters
    ----------
    spec
        Its settings.
    package
        Its code.
    version
        ``$LATEST``, or the number of a published version.
    """

    spec: FunctionSpec
    package: Package
    version: str = LATEST
    revision_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    last_modified: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def arn(self) -> str:
        """The function's Amazon resource name, with the number of a published version."""
        plain = function_arn(self.spec.name)
        return plain if self.version == LATEST else f"{plain}:{self.version}"

    @property
    def code_root(self) -> Path:
        """The folder with its code.

        Raises
        ------
        ApiError
            When the function is an image, which has none.
        """
        if self.package.root is None:
            raise invalid_parameter(
                f"{self.arn} is a container image ({self.package.image_uri}), which this emulator cannot run: "
                "create the function with PackageType Zip"
            )
        return self.package.root

    def changed(self, **changes: Any) -> "Function":
        """Return a changed copy, with a new revision id and modification time."""
        return replace(self, **changes, revision_id=str(uuid.uuid4()), last_modified=datetime.now(UTC))

    def is_same_but_for_description(self, other: "Function") -> bool:
        """Return whether another state has the same code and settings."""
        spec = replace(self.spec, description=other.spec.description)
        return (self.package.sha256, spec) == (other.package.sha256, other.spec)

    def to_api(self) -> dict[str, Any]:
        """Return the FunctionConfiguration of the API."""
        return {
            **self.spec.to_api(),
            "FunctionArn": self.arn,
            "CodeSize": self.package.size,
            "CodeSha256": self.package.sha256,
            "LastModified": self.last_modified.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "+0000",
            "Version": self.version,
            "RevisionId": self.revision_id,
            "State": "Active",
            "LastUpdateStatus": "Successful",
        }


@dataclass(frozen=True)
class ImageUri:
    """The URI of a container image."""

    text: str


@dataclass(frozen=True)
class Alias:
    """A name for a version of a function."""

    name: str
    version: str
    description: str = ""
    revision_id: str = field(default_factory=lambda: str(uuid.uuid4()))

    def to_api(self, function_name: str) -> dict[str, Any]:
        """Return the AliasConfiguration of the API."""
        return {
            "AliasArn": f"{function_arn(function_name)}:{self.name}",
            "Name": self.name,
            "FunctionVersion": self.version,
            "Description": self.description,
            "RevisionId": self.revision_id,
        }


def function_arn(name: str) -> str:
    """Return the Amazon resource name of a function in the emulated account."""
    return f"arn:aws:lambda:{limits.REGION}:{limits.ACCOUNT_ID}:function:{name}"
