"""A function: its settings, checked as AWS checks them, its versions and aliases."""

import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any

from emulator.aws import limits
from emulator.aws.account import Account
from emulator.aws.lambda_.core.references import DEFAULT_ACCOUNT, LATEST, invalid_parameter

# https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtimes.html, and those that AWS was recorded to accept beyond
# the dates there.
_RUNTIMES = (
    *(f"python3.{minor}" for minor in range(8, 15)),
    *(f"nodejs{major}.x" for major in (16, 18, 20, 22, 24)),
    *(f"java{name}" for name in ("8.al2", "11", "17", "21", "25")),
    *(f"dotnet{major}" for major in (6, 8, 10)),
    *(f"ruby3.{minor}" for minor in range(2, 5)),
    *("provided.al2", "provided.al2023"),
)
# Runtimes that functions cannot be created with any more.
_RETIRED = (
    *("python2.7", "python3.6", "python3.7"),
    *("nodejs", "nodejs4.3", "nodejs4.3-edge", "nodejs6.10", "nodejs8.10"),
    *(f"nodejs{major}.x" for major in (10, 12, 14)),
    *("java8", "dotnetcore1.0", "dotnetcore2.0", "dotnetcore2.1", "dotnetcore3.1", "dotnet5.0", "dotnet7"),
    *("ruby2.5", "ruby2.7", "go1.x", "provided"),
)
_SNAP_START = ("java11", "java17", "java21", "java25", "python3.12", "python3.13", "python3.14", "dotnet8", "dotnet10")
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
# Settings that have no effect here, stored and returned.
_KEPT = ("DeadLetterConfig", "KMSKeyArn", "TracingConfig")
# Settings that a function depends on when it runs, and which cannot be emulated.
_NOT_EMULATED = {
    "FileSystemConfigs": "EFS is not emulated: use S3 or /tmp",
    "CapacityProviderConfig": "capacity providers are not emulated: leave the setting out",
    "DurableConfig": "durable functions are not emulated: leave the setting out",
    "TenancyConfig": "tenant isolation is not emulated: leave the setting out",
}
_MOST_LAYERS = 5
_JSON_LEVELS = {"ApplicationLogLevel": "INFO", "SystemLogLevel": "INFO"}
_REASON = "The function is being created."


class PackageType(Enum):
    """The format of a deployment package."""

    ZIP = "Zip"
    IMAGE = "Image"


@dataclass(frozen=True)
class LayerUse:
    """A layer version that a function uses.

    Parameters
    ----------
    arn
        The ARN of the version.
    size
        Size of its archive, bytes.
    root
        The folder with its files.
    """

    arn: str
    size: int
    root: Path


@dataclass(frozen=True)
class FunctionSpec:
    """The settings of a function.

    Parameters
    ----------
    name, role, description
        As in the API.
    account
        The account and region that it is in.
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
        The function's environment variables; None if none were given.
    architecture
        As in the API; without effect: everything runs on this machine's.
    layers
        The layers, in their order: a later one replaces files of an earlier one.
    logging
        Where its log goes and in which format, as in the API.
    snap_start
        ``None`` or ``PublishedVersions``, without effect.
    vpc, image
        The VpcConfig and the ImageConfig, without effect; None if none were given.
    kept
        Settings of the API that have no effect here, as passed.
    """

    name: str
    role: str
    account: Account = DEFAULT_ACCOUNT
    handler: str = ""
    runtime: str = ""
    package_type: PackageType = PackageType.ZIP
    description: str = ""
    timeout_s: int = limits.DEFAULT_TIMEOUT_S
    memory_mb: int = limits.DEFAULT_MEMORY_MB
    ephemeral_storage_mb: int = limits.DEFAULT_EPHEMERAL_STORAGE_MB
    environment: Mapping[str, str] | None = None
    architecture: str = "x86_64"
    layers: tuple[LayerUse, ...] = ()
    logging: Mapping[str, str] = field(default_factory=dict)
    snap_start: str = "None"
    vpc: Mapping[str, Any] | None = None
    image: Mapping[str, Any] | None = None
    kept: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_api(
        cls, request: Mapping[str, Any], account: Account = DEFAULT_ACCOUNT, layers: Sequence[LayerUse] = ()
    ) -> "FunctionSpec":
        """Return the settings of a CreateFunction request, whose members satisfy the constraints of the model.

        Parameters
        ----------
        request
            The members, by name; FunctionName is the name alone.
        account
            Where the function is created.
        layers
            The layers that it names.

        Raises
        ------
        ApiError
            When Lambda does not accept the settings, with AWS's message.
        """
        unset = cls(
            name=str(request["FunctionName"]),
            role=str(request["Role"]),
            account=account,
            package_type=PackageType(request.get("PackageType", "Zip")),
            architecture=(request.get("Architectures") or ["x86_64"])[0],
        )
        return unset.updated(request, layers)

    def updated(self, request: Mapping[str, Any], layers: Sequence[LayerUse] | None = None) -> "FunctionSpec":
        """Return the settings with the changes of an UpdateFunctionConfiguration request.

        Parameters
        ----------
        request
            The members that change.
        layers
            The layers that it names; None to keep those that the function has.

        Raises
        ------
        ApiError
            As `from_api`.
        """
        layers = self.layers if layers is None else layers
        _check_supported(request, layers)
        variables = request.get("Environment", {}).get("Variables") if "Environment" in request else self.environment
        changed = replace(
            self,
            role=request.get("Role", self.role),
            handler=request.get("Handler", self.handler),
            runtime=request.get("Runtime", self.runtime),
            description=request.get("Description", self.description),
            timeout_s=request.get("Timeout", self.timeout_s),
            memory_mb=request.get("MemorySize", self.memory_mb),
            ephemeral_storage_mb=request.get("EphemeralStorage", {}).get("Size", self.ephemeral_storage_mb),
            environment=variables if variables is not None else ({} if "Environment" in request else None),
            layers=tuple(layers),
            logging=_merged_logging(self.name, self.logging, request.get("LoggingConfig", {})),
            snap_start=request.get("SnapStart", {}).get("ApplyOn", self.snap_start),
            vpc=request.get("VpcConfig", self.vpc),
            image=request.get("ImageConfig", self.image),
            kept={**self.kept, **{name: request[name] for name in _KEPT if name in request}},
        )
        _check_consistent(changed)
        return changed

    @property
    def arn(self) -> str:
        """The function's ARN."""
        return self.account.arn("lambda", f"function:{self.name}")

    @property
    def log_group(self) -> str:
        """The log group that its log goes to."""
        return self.logging.get("LogGroup", f"/aws/lambda/{self.name}")

    @property
    def logs_json(self) -> bool:
        """Whether its log is JSON."""
        return self.logging.get("LogFormat") == "JSON"

    def to_api(self) -> dict[str, Any]:
        """Return the settings by their names in a FunctionConfiguration."""
        settings: dict[str, Any] = {
            "FunctionName": self.name,
            "Runtime": self.runtime or None,
            "Role": self.role,
            "Handler": self.handler or None,
            "Description": self.description,
            "Timeout": self.timeout_s,
            "MemorySize": self.memory_mb,
            "EphemeralStorage": {"Size": self.ephemeral_storage_mb},
            "Environment": None if self.environment is None else {"Variables": dict(self.environment)},
            "PackageType": self.package_type.value,
            "Architectures": [self.architecture],
            "LoggingConfig": dict(self.logging),
            "TracingConfig": {"Mode": "PassThrough"},
            "VpcConfig": None if self.vpc is None else _vpc_answer(self.vpc),
            "Layers": [{"Arn": layer.arn, "CodeSize": layer.size} for layer in self.layers] or None,
            "ImageConfigResponse": {"ImageConfig": dict(self.image)} if self.image else None,
            **self.kept,
        }
        if "DeadLetterConfig" in self.kept and not self.kept["DeadLetterConfig"].get("TargetArn"):
            del settings["DeadLetterConfig"]
        return {name: value for name, value in settings.items() if value is not None}


def _vpc_answer(vpc: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "SubnetIds": list(vpc.get("SubnetIds", ())),
        "SecurityGroupIds": list(vpc.get("SecurityGroupIds", ())),
        "VpcId": vpc.get("VpcId", ""),
        "Ipv6AllowedForDualStack": vpc.get("Ipv6AllowedForDualStack", False),
    }


def _merged_logging(name: str, before: Mapping[str, str], changes: Mapping[str, str]) -> dict[str, str]:
    """Return a LoggingConfig with its defaults: levels belong to the format JSON alone."""
    merged = {"LogFormat": "Text", "LogGroup": f"/aws/lambda/{name}", **before, **changes}
    if merged["LogFormat"] == "JSON":
        return {**_JSON_LEVELS, **merged}
    levels = [level for level in _JSON_LEVELS if level in changes]
    if levels:
        raise invalid_parameter("To configure log levels, choose JSON as the LogFormat.")
    return {key: value for key, value in merged.items() if key not in _JSON_LEVELS}


def _check_supported(request: Mapping[str, Any], layers: Sequence[LayerUse]) -> None:
    """Raise for values that are well formed, but that Lambda or this emulator does not support."""
    for name, reason in _NOT_EMULATED.items():
        if request.get(name):
            raise invalid_parameter(f"{name}: {reason}")
    runtime = request.get("Runtime")
    if runtime in _RETIRED:
        raise invalid_parameter(
            f"The runtime parameter of {runtime} is no longer supported for creating or updating AWS Lambda functions. "
            "We recommend you use a supported runtime while creating or updating functions."
        )
    if runtime and runtime not in _RUNTIMES:
        raise invalid_parameter(
            f"Value {runtime} at 'runtime' failed to satisfy constraint: Member must satisfy enum value set: "
            f"[{', '.join(_RUNTIMES)}] or be a valid ARN"
        )
    if len(layers) > _MOST_LAYERS:
        raise invalid_parameter(f"Cannot reference more than {_MOST_LAYERS} layers.")
    first_arns: dict[str, str] = {}
    for layer in layers:
        name = layer.arn.rpartition(":")[0]
        if name in first_arns:
            raise invalid_parameter(
                f"Two different versions of the same layer are not allowed to be referenced in the same function. "
                f"{first_arns[name]} and {layer.arn} are versions of the same layer."
            )
        first_arns[name] = layer.arn
    _check_variables(request.get("Environment", {}).get("Variables") or {})


def _check_consistent(spec: FunctionSpec) -> None:
    if spec.package_type is PackageType.ZIP:
        if not spec.runtime or not spec.handler:
            raise invalid_parameter(
                "Runtime and Handler are mandatory parameters for functions created with deployment packages."
            )
    elif spec.runtime or spec.handler:
        raise invalid_parameter(
            "The Runtime and Handler parameters are not supported for functions created with container images."
        )
    if spec.snap_start != "None" and spec.runtime not in _SNAP_START:
        raise invalid_parameter(f"{spec.runtime} is not supported for SnapStart enabled functions.")


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
    revision_id
        Changes with everything that AWS counts as a change, permissions included.
    state_id
        Changes with code and settings alone: sandboxes of another state cannot be used.
    last_modified
        When code or settings were changed.
    """

    spec: FunctionSpec
    package: Package
    version: str = LATEST
    revision_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    state_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    last_modified: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def arn(self) -> str:
        """The function's Amazon resource name, with the number of a published version."""
        return self.spec.arn if self.version == LATEST else f"{self.spec.arn}:{self.version}"

    def changed(self, **changes: Any) -> "Function":
        """Return a copy with other code or settings, with new ids and modification time."""
        changed = replace(self, **changes, last_modified=datetime.now(UTC))
        return replace(changed, revision_id=str(uuid.uuid4()), state_id=str(uuid.uuid4()))

    def revised(self) -> "Function":
        """Return a copy with a new revision id."""
        return replace(self, revision_id=str(uuid.uuid4()))

    def published_as(self, version: str, description: str | None) -> "Function":
        """Return the function as a published version."""
        spec = self.spec if description is None else replace(self.spec, description=description)
        published = replace(self, spec=spec, version=version)
        return replace(published, revision_id=str(uuid.uuid4()), state_id=str(uuid.uuid4()))

    def summary(self, arn: str | None = None) -> dict[str, Any]:
        """Return the FunctionConfiguration as listings have it, without states.

        Parameters
        ----------
        arn
            The ARN to show; None for that of the function or of its published version.
        """
        snap_started = self.spec.snap_start != "None" and self.version != LATEST
        return {
            **self.spec.to_api(),
            "FunctionArn": arn or self.arn,
            "CodeSize": self.package.size,
            "CodeSha256": self.package.sha256,
            "LastModified": self.last_modified.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "+0000",
            "Version": self.version,
            "RevisionId": self.revision_id,
            "SnapStart": {"ApplyOn": self.spec.snap_start, "OptimizationStatus": "On" if snap_started else "Off"},
        }

    def to_api(self, arn: str | None = None) -> dict[str, Any]:
        """Return the FunctionConfiguration of the API; `arn` as for `summary`."""
        body = self.summary(arn)
        if self.spec.runtime:
            body["RuntimeVersionConfig"] = {"RuntimeVersionArn": runtime_version_arn(self.spec)}
        return {**body, "State": "Active", "LastUpdateStatus": "Successful"}

    def created(self, arn: str | None = None) -> dict[str, Any]:
        """Return the FunctionConfiguration in the answer of CreateFunction, after which AWS creates a function.

        Parameters
        ----------
        arn
            As for `summary`.
        """
        body = {**self.to_api(arn), "RevisionId": str(uuid.uuid4())}
        del body["LastUpdateStatus"]
        return {**body, "State": "Pending", "StateReason": _REASON, "StateReasonCode": "Creating"}

    def in_update(self) -> dict[str, Any]:
        """Return the FunctionConfiguration in the answer of an update: AWS applies it afterwards."""
        return {
            **self.to_api(),
            "RevisionId": str(uuid.uuid4()),
            "LastUpdateStatus": "InProgress",
            "LastUpdateStatusReason": _REASON,
            "LastUpdateStatusReasonCode": "Creating",
        }


def runtime_version_arn(spec: FunctionSpec) -> str:
    """Return the ARN of the version of a function's runtime."""
    digest = hashlib.sha256(spec.runtime.encode()).hexdigest()
    return f"arn:aws:lambda:{spec.account.region}::runtime:{digest}"


@dataclass(frozen=True)
class ImageUri:
    """The URI of a container image."""

    text: str


@dataclass(frozen=True)
class Alias:
    """A name for a version of a function.

    Parameters
    ----------
    name, version, description
        As in the API.
    weights
        The part of the invocations, from 0 to 1, that another version gets, by its number; usually empty.
    """

    name: str
    version: str
    description: str = ""
    weights: Mapping[str, float] = field(default_factory=dict)
    revision_id: str = field(default_factory=lambda: str(uuid.uuid4()))

    def to_api(self, function_arn: str) -> dict[str, Any]:
        """Return the AliasConfiguration of the API."""
        body: dict[str, Any] = {
            "AliasArn": f"{function_arn}:{self.name}",
            "Name": self.name,
            "FunctionVersion": self.version,
            "Description": self.description,
            "RevisionId": self.revision_id,
        }
        if self.weights:
            body["RoutingConfig"] = {"AdditionalVersionWeights": dict(self.weights)}
        return body
