"""The functions that exist, with their versions, aliases, reservations, tags and policies."""

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any

from emulator.aws import limits
from emulator.aws.disk_reserve import DiskFullError
from emulator.aws.lambda_.core.code_store import CodeStore
from emulator.aws.lambda_.core.constraints import invalid_parameter
from emulator.aws.lambda_.core.function_records import FunctionRecord, FunctionRecords
from emulator.aws.lambda_.core.models import LATEST, Alias, Function, FunctionSpec, ImageUri, function_arn
from emulator.errors import ApiError

_ALIAS = re.compile(r"(?!^[0-9]+$)([a-zA-Z0-9-_]{1,128})")
# arn:aws:lambda:region:account:function:name, account:function:name, function:name or name, each with :qualifier
_REFERENCE = re.compile(
    r"(?:(?:arn:aws:lambda:[a-z0-9-]+:)?\d{12}:function:|function:)?"
    r"(?P<name>[A-Za-z0-9_-]+)(?::(?P<qualifier>[A-Za-z0-9$_-]+))?"
)


@dataclass(frozen=True)
class Reference:
    """A function name with an optional version or alias."""

    name: str
    qualifier: str | None

    @classmethod
    def parse(cls, text: str) -> "Reference":
        """Parse a name, a partial ARN or an ARN.

        Raises
        ------
        ApiError
            When the text is none of these.
        """
        match = _REFERENCE.fullmatch(text)
        if match is None:
            raise invalid_parameter(f"invalid FunctionName {text!r}: expected a name or an ARN")
        return cls(match["name"], match["qualifier"])


class FunctionRegistry:
    """The functions that exist, by name.

    A reference is a name, a partial ARN or an ARN. Methods that take one raise `ApiError` when the function does not
    exist, and when a revision id is passed that is not the latest one.

    Parameters
    ----------
    records
        Stores every change before the method returns. Replaced code is kept until the function is deleted or the
        emulator restarts, because a version may use it.

    Raises
    ------
    StateError
        When the stored records are damaged.
    """

    def __init__(self, records: FunctionRecords) -> None:
        self._records = records
        self._entries = records.load()
        self._code_store = CodeStore(records.folder, records.reserve)
        self._code_store.keep_only(function for entry in self._entries.values() for function in entry.functions)

    def create(self, spec: FunctionSpec, code: bytes | ImageUri, tags: Mapping[str, str] | None = None) -> Function:
        """Add a function.

        Raises
        ------
        ApiError
            When a function of that name exists, or the archive is invalid.
        """
        if spec.name in self._entries:
            raise ApiError("ResourceConflictException", HTTPStatus.CONFLICT, f"Function already exist: {spec.name}")
        function = Function(spec, self._code_store.store(spec, code))
        self._entries[spec.name] = FunctionRecord(function, tags=dict(tags or {}))
        self._store(spec.name, new_code=function)
        return function

    def get(self, reference: str, qualifier: str | None = None) -> Function:
        """Return a function by reference and version or alias.

        Raises
        ------
        ApiError
            When it does not exist, or the reference has another qualifier.
        """
        entry, parsed = self._find(reference)
        if qualifier is not None and parsed.qualifier not in (None, qualifier):
            raise invalid_parameter(
                "The derived qualifier from the function name does not match the specified qualifier "
                f"{parsed.qualifier}"
            )
        qualifier = qualifier or parsed.qualifier or LATEST
        alias = entry.aliases.get(qualifier)
        version = qualifier if alias is None else alias.version
        function = entry.latest if version == LATEST else entry.versions.get(version)
        if function is None:
            raise not_found(f"{function_arn(parsed.name)}:{qualifier}")
        return function

    def update_code(
        self,
        reference: str,
        code: bytes | ImageUri,
        *,
        revision_id: str | None = None,
        architecture: str | None = None,
        dry_run: bool = False,
    ) -> Function:
        """Replace a function's code; return the new state, which a dry run does not store."""
        entry, parsed = self._find(reference)
        check_revision(entry.latest.revision_id, revision_id)
        spec = entry.latest.spec if architecture is None else replace(entry.latest.spec, architecture=architecture)
        function = entry.latest.changed(spec=spec, package=self._code_store.store(spec, code))
        if dry_run:
            self._code_store.remove([function])
        else:
            entry.latest = function
            self._store(parsed.name, new_code=function)
        return function

    def update_configuration(self, reference: str, request: Mapping[str, Any]) -> Function:
        """Change a function's settings; return the new state."""
        entry, parsed = self._find(reference)
        check_revision(entry.latest.revision_id, request.get("RevisionId"))
        entry.latest = entry.latest.changed(spec=entry.latest.spec.updated(request))
        self._store(parsed.name)
        return entry.latest

    def publish(
        self,
        reference: str,
        *,
        description: str | None = None,
        code_sha256: str | None = None,
        revision_id: str | None = None,
    ) -> Function:
        """Publish the function as its next version; return the newest version if nothing has changed."""
        entry, parsed = self._find(reference)
        latest = entry.latest
        check_revision(latest.revision_id, revision_id)
        if code_sha256 not in (None, latest.package.sha256):
            raise invalid_parameter(
                f"CodeSHA256 ({code_sha256}) is different from current CodeSHA256 in $LATEST "
                f"({latest.package.sha256}). Please try again with the CodeSHA256 in $LATEST."
            )
        newest = next(reversed(entry.versions.values()), None)
        if newest is not None and newest.is_same_but_for_description(latest):
            return newest
        entry.published += 1
        version = str(entry.published)
        spec = latest.spec if description is None else replace(latest.spec, description=description)
        entry.versions[version] = replace(latest, spec=spec, version=version, revision_id=str(uuid.uuid4()))
        self._store(parsed.name)
        return entry.versions[version]

    def create_alias(self, reference: str, name: str, version: str, description: str = "") -> Alias:
        """Create an alias of a version.

        Raises
        ------
        ApiError
            When the version does not exist, or the alias exists.
        """
        entry, parsed = self._find(reference)
        if not _ALIAS.fullmatch(name):
            raise invalid_parameter(f"invalid alias name {name!r}: expected letters, digits, - and _, not only digits")
        if name in entry.aliases:
            message = f"Alias already exists: {function_arn(parsed.name)}:{name}"
            raise ApiError("ResourceConflictException", HTTPStatus.CONFLICT, message)
        self.get(parsed.name, version)
        entry.aliases[name] = Alias(name, version, description)
        self._store(parsed.name)
        return entry.aliases[name]

    def update_alias(
        self,
        reference: str,
        name: str,
        *,
        version: str | None = None,
        description: str | None = None,
        revision_id: str | None = None,
    ) -> Alias:
        """Change an alias's version or description."""
        entry, parsed = self._find(reference)
        alias = self.alias(reference, name)
        check_revision(alias.revision_id, revision_id)
        if version is not None:
            self.get(parsed.name, version)
            alias = replace(alias, version=version)
        if description is not None:
            alias = replace(alias, description=description)
        entry.aliases[name] = replace(alias, revision_id=str(uuid.uuid4()))
        self._store(parsed.name)
        return entry.aliases[name]

    def alias(self, reference: str, name: str) -> Alias:
        """Return an alias."""
        entry, parsed = self._find(reference)
        if name not in entry.aliases:
            arn = f"{function_arn(parsed.name)}:{name}"
            raise ApiError("ResourceNotFoundException", HTTPStatus.NOT_FOUND, f"Cannot find alias arn: {arn}")
        return entry.aliases[name]

    def aliases(self, reference: str) -> list[Alias]:
        """Return a function's aliases, by name."""
        entry, _ = self._find(reference)
        return [entry.aliases[name] for name in sorted(entry.aliases)]

    def delete_alias(self, reference: str, name: str) -> None:
        """Delete an alias, if it exists."""
        entry, parsed = self._find(reference)
        entry.aliases.pop(name, None)
        self._store(parsed.name)

    def reserve(self, reference: str, concurrency: int | None) -> None:
        """Set a function's reserved concurrency; None removes it.

        Raises
        ------
        ApiError
            When fewer than 100 executions would remain for the functions without a reservation, as on AWS.
        """
        entry, parsed = self._find(reference)
        others = sum(other.reserved_concurrency or 0 for other in self._entries.values() if other is not entry)
        left = limits.CONCURRENT_EXECUTIONS - others - (concurrency or 0)
        if concurrency is not None and (concurrency < 0 or left < limits.UNRESERVED_EXECUTIONS):
            raise invalid_parameter(
                "Specified ReservedConcurrentExecutions for function decreases account's "
                f"UnreservedConcurrentExecution below its minimum value of [{limits.UNRESERVED_EXECUTIONS}]."
            )
        entry.reserved_concurrency = concurrency
        self._store(parsed.name)

    def reserved(self, name: str) -> int | None:
        """Return a function's reserved concurrency; None when it has none or does not exist."""
        entry = self._entries.get(name)
        return None if entry is None else entry.reserved_concurrency

    def concurrency_limits(self, name: str) -> tuple[int | None, int]:
        """Return a function's reserved concurrency, if any, and what all functions without a reservation share."""
        return self.reserved(name), self.unreserved()

    def unreserved(self) -> int:
        """Return the number of executions that all functions without a reservation share."""
        reserved = sum(entry.reserved_concurrency or 0 for entry in self._entries.values())
        return limits.CONCURRENT_EXECUTIONS - reserved

    def tags(self, reference: str) -> dict[str, str]:
        """Return a function's tags."""
        return dict(self._find(reference)[0].tags)

    def set_tags(self, reference: str, tags: dict[str, str]) -> None:
        """Replace a function's tags."""
        entry, parsed = self._find(reference)
        entry.tags = tags
        self._store(parsed.name)

    def policy(self, reference: str) -> dict[str, dict[str, Any]]:
        """Return the statements of a function's resource policy, by statement id."""
        return dict(self._find(reference)[0].policy)

    def set_policy(self, reference: str, policy: dict[str, dict[str, Any]]) -> None:
        """Replace a function's resource policy."""
        entry, parsed = self._find(reference)
        entry.policy = policy
        self._store(parsed.name)

    def delete(self, reference: str, qualifier: str | None = None) -> list[Function]:
        """Delete a function with all its versions, or one version of it; return what was deleted.

        Raises
        ------
        ApiError
            When an alias refers to the version.
        """
        entry, parsed = self._find(reference)
        version = qualifier or parsed.qualifier
        if version == LATEST:
            raise invalid_parameter("$LATEST version cannot be deleted without deleting the function.")
        if version is None:
            self._records.delete(parsed.name)
            del self._entries[parsed.name]
            self._code_store.remove(entry.functions)
            return entry.functions
        if any(alias.version == version for alias in entry.aliases.values()):
            message = f"Unable to delete version because the following aliases reference it: {version}"
            raise ApiError("ResourceConflictException", HTTPStatus.CONFLICT, message)
        removed = entry.versions.pop(version, None)
        if removed is None:
            return []
        self._store(parsed.name)
        if all(other.package.root != removed.package.root for other in entry.functions):
            self._code_store.remove([removed])
        return [removed]

    def clear(self) -> list[Function]:
        """Delete all functions with their versions; return what was deleted."""
        self._records.clear()
        deleted = [function for entry in self._entries.values() for function in entry.functions]
        self._entries.clear()
        self._code_store.remove(deleted)
        return deleted

    def all(self) -> list[Function]:
        """Return every unpublished function, sorted by name."""
        return [self._entries[name].latest for name in sorted(self._entries)]

    def versions(self, reference: str) -> list[Function]:
        """Return an unpublished function and its versions."""
        return self._find(reference)[0].functions

    def _store(self, name: str, new_code: Function | None = None) -> None:
        """Store a changed entry; if that fails, undo the change and remove the new code, if any."""
        try:
            self._records.put(name, self._entries[name])
        except DiskFullError:
            if new_code is not None:
                self._code_store.remove([new_code])
            stored = self._records.get(name)
            if stored is None:
                del self._entries[name]
            else:
                self._entries[name] = stored
            raise

    def _find(self, reference: str) -> tuple[FunctionRecord, Reference]:
        parsed = Reference.parse(reference)
        if parsed.name not in self._entries:
            raise not_found(function_arn(parsed.name))
        return self._entries[parsed.name], parsed


def check_revision(latest: str, expected: object) -> None:
    """Check that the revision id that a caller expects is the latest one; None matches any.

    Raises
    ------
    ApiError
        PreconditionFailedException, when it is another one.
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
