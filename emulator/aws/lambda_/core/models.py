"""A function as it is at one time, and the names that mean it."""

import re
import uuid
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

from emulator.aws import limits
from emulator.aws.lambda_.core.constraints import invalid
from emulator.aws.lambda_.core.function_spec import FunctionSpec
from emulator.errors import ApiError

LATEST = "$LATEST"
# arn:aws:lambda:region:account:function:name, account:function:name, function:name or name, each with :qualifier
_REFERENCE = re.compile(
    r"(?:(?:arn:aws:lambda:[a-z0-9-]+:)?\d{12}:function:|function:)?"
    r"(?P<name>[A-Za-z0-9_-]+)(?::(?P<qualifier>[A-Za-z0-9$_-]+))?"
)


@dataclass(frozen=True)
class Package:
    """Code as it was deployed.

    Parameters
    ----------
    sha256
        SHA-256 of the archive, base64; of an image's URI, hexadecimal.
    size
        Size of the archive, bytes; 0 for an image.
    root
        The folder with the archive's files; None for an image.
    image_uri
        Where an image is; None for an archive.
    """

    sha256: str
    size: int
    root: Path | None = None
    image_uri: str | None = None


@dataclass(frozen=True)
class Function:
    """A function as it is at one time; a change makes a new one.

    Parameters
    ----------
    spec
        What it is configured with.
    package
        Its code.
    version
        ``$LATEST`` or the number it was published under.
    """

    spec: FunctionSpec
    package: Package
    version: str = LATEST
    revision_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    last_modified: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def arn(self) -> str:
        """The function's Amazon resource name, with the version when one was published."""
        plain = function_arn(self.spec.name)
        return plain if self.version == LATEST else f"{plain}:{self.version}"

    @property
    def code_root(self) -> Path:
        """The folder with its code.

        Raises
        ------
        ApiError
            When it has none, being an image.
        """
        if self.package.root is None:
            raise invalid(
                f"{self.arn} is a container image ({self.package.image_uri}), and this emulator has no sandbox for "
                "one; to run it here, create the function with PackageType Zip"
            )
        return self.package.root

    def changed(self, **changes: Any) -> "Function":
        """Return what a change makes of it, with a revision and a time of its own."""
        return replace(self, **changes, revision_id=str(uuid.uuid4()), last_modified=datetime.now(UTC))

    def is_same_but_for_description(self, other: "Function") -> bool:
        """Tell whether another state of it has the same code and settings."""
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
class Reference:
    """A function's name, and perhaps a version or an alias of it."""

    name: str
    qualifier: str | None

    @classmethod
    def parse(cls, text: str) -> "Reference":
        """Read a name, a partial ARN or an ARN.

        Raises
        ------
        ApiError
            When the text is none of them.
        """
        match = _REFERENCE.fullmatch(text)
        if match is None:
            raise invalid(f"FunctionName: expected a name or an ARN, got {text!r}")
        return cls(match["name"], match["qualifier"])


@dataclass(frozen=True)
class ImageUri:
    """Where a container image is."""

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


def check_revision(latest: str, expected: object) -> None:
    """Refuse a change whose caller has seen another revision than the latest one; None is any.

    Raises
    ------
    ApiError
        PreconditionFailedException.
    """
    if expected is not None and expected != latest:
        raise ApiError(
            "PreconditionFailedException",
            HTTPStatus.PRECONDITION_FAILED,
            "The Revision Id provided does not match the latest Revision Id. Call the GetFunction/GetAlias API to "
            "retrieve the latest Revision Id",
        )


def not_found(arn: str) -> ApiError:
    """Return AWS's error for a function that does not exist."""
    return ApiError("ResourceNotFoundException", HTTPStatus.NOT_FOUND, f"Function not found: {arn}")
