"""The functions that exist, with their versions and aliases."""

import base64
import hashlib
import re
import shutil
import uuid
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

from emulator import limits
from emulator.errors import ApiError
from emulator.lambda_service.code import unpack
from emulator.lambda_service.function_spec import FunctionSpec, invalid

LATEST = "$LATEST"
# arn:aws:lambda:region:account:function:name, account:function:name, function:name or name, each with :qualifier
_REFERENCE = re.compile(
    r"(?:(?:arn:aws:lambda:[a-z0-9-]+:)?\d{12}:function:|function:)?"
    r"(?P<name>[A-Za-z0-9_-]+)(?::(?P<qualifier>[A-Za-z0-9$_-]+))?"
)
_ALIAS = re.compile(r"(?!\d+$)[A-Za-z0-9_-]{1,128}")


@dataclass(frozen=True)
class Function:
    """A function as it is at one time; a change makes a new one.

    Parameters
    ----------
    spec
        What it is configured with.
    code_root
        The folder with its code.
    code_sha256
        SHA-256 of its archive, base64.
    code_size
        Size of its archive, bytes.
    version
        ``$LATEST`` or the number it was published under.
    """

    spec: FunctionSpec
    code_root: Path
    code_sha256: str
    code_size: int
    version: str = LATEST
    revision_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    last_modified: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def arn(self) -> str:
        """The function's Amazon resource name, with the version when one was published."""
        plain = function_arn(self.spec.name)
        return plain if self.version == LATEST else f"{plain}:{self.version}"

    def to_api(self) -> dict[str, Any]:
        """Return the FunctionConfiguration of the API."""
        return {
            **self.spec.to_api(),
            "FunctionArn": self.arn,
            "CodeSize": self.code_size,
            "CodeSha256": self.code_sha256,
            "LastModified": self.last_modified.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "+0000",
            "Version": self.version,
            "TracingConfig": {"Mode": "PassThrough"},
            "RevisionId": self.revision_id,
            "State": "Active",
            "LastUpdateStatus": "Successful",
            "Architectures": ["x86_64"],
        }


@dataclass
class _Entry:
    """All there is under one name."""

    latest: Function
    versions: dict[str, Function] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    reserved_concurrency: int | None = None

    @property
    def functions(self) -> list[Function]:
        return [self.latest, *self.versions.values()]


class FunctionRegistry:
    """The functions that exist, by name.

    Every method that is given a reference takes a name, a partial ARN or an ARN, and raises `ApiError` when there is
    no such function.

    Parameters
    ----------
    folder
        Where code is unpacked. It stays until the function is deleted: a version may be running it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._entries: dict[str, _Entry] = {}

    def create(self, spec: FunctionSpec, archive: bytes) -> Function:
        """Add a function.

        Raises
        ------
        ApiError
            When there is one of that name, or the archive is refused.
        """
        if spec.name in self._entries:
            raise ApiError("ResourceConflictException", HTTPStatus.CONFLICT, f"Function already exist: {spec.name}")
        function = Function(spec, *self._store(spec.name, archive))
        self._entries[spec.name] = _Entry(function)
        return function

    def get(self, reference: str, qualifier: str | None = None) -> Function:
        """Return the function that a reference and a version or alias mean.

        Raises
        ------
        ApiError
            When there is none, or the reference has another qualifier.
        """
        entry, name, named = self._find(reference)
        if qualifier is not None and named not in (None, qualifier):
            raise invalid(
                f"The derived qualifier from the function name does not match the specified qualifier {named}"
            )
        qualifier = qualifier or named or LATEST
        version = entry.aliases.get(qualifier, qualifier)
        function = entry.latest if version == LATEST else entry.versions.get(version)
        if function is None:
            raise _not_found(f"{function_arn(name)}:{qualifier}")
        return function

    def update_code(self, reference: str, archive: bytes) -> Function:
        """Give a function new code; return it as it is now."""
        entry, name, _ = self._find(reference)
        code_root, digest, size = self._store(name, archive)
        entry.latest = _changed(entry.latest, code_root=code_root, code_sha256=digest, code_size=size)
        return entry.latest

    def update_configuration(self, reference: str, request: dict[str, Any]) -> Function:
        """Change a function's settings; return it as it is now."""
        entry, _, _ = self._find(reference)
        entry.latest = _changed(entry.latest, spec=entry.latest.spec.updated(request))
        return entry.latest

    def publish(self, reference: str) -> Function:
        """Freeze the function as its next version; an unchanged one is not published twice."""
        entry, _, _ = self._find(reference)
        newest = next(reversed(entry.versions.values()), None)
        if newest is not None and (newest.spec, newest.code_sha256) == (entry.latest.spec, entry.latest.code_sha256):
            return newest
        version = str(len(entry.versions) + 1)
        entry.versions[version] = replace(entry.latest, version=version, revision_id=str(uuid.uuid4()))
        return entry.versions[version]

    def set_alias(self, reference: str, alias: str, version: str, *, new: bool) -> dict[str, Any]:
        """Let a name stand for a version; return the AliasConfiguration of the API.

        Raises
        ------
        ApiError
            When the version does not exist, or the alias does although it is new, or the other way round.
        """
        entry, name, _ = self._find(reference)
        if not isinstance(alias, str) or not _ALIAS.fullmatch(alias):
            raise invalid(f"Name: expected letters, digits, - or _ and no mere number, got {alias!r}")
        if new and alias in entry.aliases:
            message = f"Alias already exists: {function_arn(name)}:{alias}"
            raise ApiError("ResourceConflictException", HTTPStatus.CONFLICT, message)
        if not new and alias not in entry.aliases:
            raise _not_found(f"{function_arn(name)}:{alias}")
        self.get(name, version)
        entry.aliases[alias] = version
        return self.alias(reference, alias)

    def alias(self, reference: str, alias: str) -> dict[str, Any]:
        """Return the AliasConfiguration of an alias."""
        entry, name, _ = self._find(reference)
        if alias not in entry.aliases:
            raise _not_found(f"{function_arn(name)}:{alias}")
        return {
            "AliasArn": f"{function_arn(name)}:{alias}",
            "Name": alias,
            "FunctionVersion": entry.aliases[alias],
            "Description": "",
        }

    def delete_alias(self, reference: str, alias: str) -> None:
        """Forget an alias, if there is one."""
        entry, _, _ = self._find(reference)
        entry.aliases.pop(alias, None)

    def reserve(self, reference: str, concurrency: int | None) -> None:
        """Set a function's reserved concurrency, or take the reservation back with None.

        Raises
        ------
        ApiError
            When fewer than 100 executions would be left for the functions without a reservation, as on AWS.
        """
        entry, _, _ = self._find(reference)
        others = sum(other.reserved_concurrency or 0 for other in self._entries.values() if other is not entry)
        left = limits.CONCURRENT_EXECUTIONS - others - (concurrency or 0)
        if concurrency is not None and (concurrency < 0 or left < limits.UNRESERVED_EXECUTIONS):
            raise invalid(
                "Specified ReservedConcurrentExecutions for function decreases account's "
                f"UnreservedConcurrentExecution below its minimum value of [{limits.UNRESERVED_EXECUTIONS}]."
            )
        entry.reserved_concurrency = concurrency

    def reserved(self, name: str) -> int | None:
        """Return a function's reserved concurrency, None when it has none or is gone."""
        entry = self._entries.get(name)
        return None if entry is None else entry.reserved_concurrency

    def unreserved(self) -> int:
        """Return how many executions the functions without a reservation share."""
        reserved = sum(entry.reserved_concurrency or 0 for entry in self._entries.values())
        return limits.CONCURRENT_EXECUTIONS - reserved

    def delete(self, reference: str) -> list[Function]:
        """Remove a function with all its versions; return what they were."""
        entry, name, _ = self._find(reference)
        del self._entries[name]
        for function in entry.functions:
            shutil.rmtree(function.code_root, ignore_errors=True)
        return entry.functions

    def all(self) -> list[Function]:
        """Return every function's latest state, by name."""
        return [self._entries[name].latest for name in sorted(self._entries)]

    def versions(self, reference: str) -> list[Function]:
        """Return a function's latest state and its versions."""
        return self._find(reference)[0].functions

    def _find(self, reference: str) -> tuple[_Entry, str, str | None]:
        match = _REFERENCE.fullmatch(reference)
        if match is None:
            raise invalid(f"FunctionName: expected a name or an ARN, got {reference!r}")
        name: str = match["name"]
        if name not in self._entries:
            raise _not_found(function_arn(name))
        return self._entries[name], name, match["qualifier"]

    def _store(self, name: str, archive: bytes) -> tuple[Path, str, int]:
        """Unpack an archive into a folder of its own; return the folder, the archive's SHA-256 and its size."""
        code_root = self._folder / f"{name}-{uuid.uuid4().hex[:8]}"
        code_root.mkdir(parents=True)
        try:
            unpack(archive, code_root)
        except ApiError:
            shutil.rmtree(code_root)
            raise
        return code_root, base64.b64encode(hashlib.sha256(archive).digest()).decode(), len(archive)


def function_arn(name: str) -> str:
    """Return the Amazon resource name of a function in the emulated account."""
    return f"arn:aws:lambda:{limits.REGION}:{limits.ACCOUNT_ID}:function:{name}"


def _changed(function: Function, **changes: Any) -> Function:
    return replace(function, **changes, revision_id=str(uuid.uuid4()), last_modified=datetime.now(UTC))


def _not_found(arn: str) -> ApiError:
    return ApiError("ResourceNotFoundException", HTTPStatus.NOT_FOUND, f"Function not found: {arn}")
