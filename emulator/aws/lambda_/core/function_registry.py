"""The functions that exist, with their versions, aliases, reservations and tags."""

import random
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any

from emulator.aws import limits
from emulator.aws.disk_reserve import DiskFullError
from emulator.aws.lambda_.core.code_store import CodeStore
from emulator.aws.lambda_.core.function_records import FunctionRecord, FunctionRecords
from emulator.aws.lambda_.core.models import Alias, Function, FunctionSpec, LayerUse, Package
from emulator.aws.lambda_.core.references import (
    ALIAS,
    LATEST,
    Reference,
    conflict,
    invalid_parameter,
    resource_not_found,
    without_type,
)
from emulator.errors import ApiError

_MOST_TAGS = 50


@dataclass(frozen=True)
class Target:
    """What an invocation runs.

    Parameters
    ----------
    function
        The function or its published version.
    arn
        The ARN that was invoked, with the alias or version that the caller named.
    """

    function: Function
    arn: str


@dataclass(frozen=True)
class ConcurrencyLimits:
    """How many executions of a function may run at once.

    Parameters
    ----------
    reserved
        The function's reservation; None when it has none or does not exist.
    unreserved
        What all functions of its region without a reservation share.
    provisioned
        What is provisioned for all its versions and aliases.
    provisioned_here
        What is provisioned for the version or alias itself.
    """

    reserved: int | None
    unreserved: int
    provisioned: int
    provisioned_here: int


class FunctionRegistry:
    """The functions that exist, in all regions.

    Methods raise `ApiError` when the function does not exist, and when a revision id is passed that is not the latest
    one.

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
        self.code_store = CodeStore(records.folder, records.reserve)
        self.code_store.keep_only(function for entry in self._entries.values() for function in entry.functions)

    def check_new(self, reference: Reference) -> None:
        """Check that there is no function of a name.

        Raises
        ------
        ApiError
            ResourceConflictException.
        """
        if reference.key in self._entries:
            raise conflict(f"Function already exist: {reference.name}")

    def create(self, spec: FunctionSpec, package: Package, tags: Mapping[str, str] | None = None) -> Function:
        """Add a function, with its stored code.

        Raises
        ------
        ApiError
            When a function of that name exists.
        """
        reference = Reference(spec.account, spec.name)
        self.check_new(reference)
        function = Function(spec, package)
        self._entries[reference.key] = FunctionRecord(function, tags=_checked_tags(tags or {}))
        self._store(reference.key, new_code=function)
        return function

    def exists(self, reference: Reference) -> bool:
        """Return whether the function exists, whatever the qualifier."""
        return reference.key in self._entries

    def record(self, reference: Reference) -> FunctionRecord:
        """Return the record of a function; `save` stores changes of it."""
        if reference.key not in self._entries:
            raise not_found(reference.arn)
        return self._entries[reference.key]

    def save(self, reference: Reference) -> None:
        """Store the changed record of a function."""
        self._store(reference.key)

    def get(self, reference: Reference) -> Function:
        """Return a function, or the version that the qualifier names; of a weighted alias, its main version.

        Raises
        ------
        ApiError
            When it does not exist.
        """
        return self._version(reference, None)

    def target(self, reference: Reference) -> Target:
        """Return what an invocation runs: of a weighted alias, one of its versions, at random.

        Raises
        ------
        ApiError
            When it does not exist.
        """
        alias = None
        if reference.qualifier is not None and reference.key in self._entries:
            alias = self._entries[reference.key].aliases.get(reference.qualifier)
        return Target(self._version(reference, alias), reference.qualified_arn)

    def update_code(
        self,
        reference: Reference,
        package: Package,
        *,
        revision_id: str | None = None,
        architecture: str | None = None,
        dry_run: bool = False,
    ) -> Function:
        """Replace a function's code by stored code; return the new state, which a dry run does not store."""
        entry = self.record(reference)
        check_revision(entry.latest.revision_id, revision_id)
        spec = entry.latest.spec if architecture is None else replace(entry.latest.spec, architecture=architecture)
        function = entry.latest.changed(spec=spec, package=package)
        if dry_run:
            self.code_store.remove([function])
        else:
            entry.latest = function
            self._store(reference.key, new_code=function)
        return function

    def update_configuration(
        self, reference: Reference, request: Mapping[str, Any], layers: list[LayerUse] | None = None
    ) -> Function:
        """Change a function's settings; return the new state. `layers` are those that the request names."""
        entry = self.record(reference)
        check_revision(entry.latest.revision_id, request.get("RevisionId"))
        entry.latest = entry.latest.changed(spec=entry.latest.spec.updated(request, layers))
        self._store(reference.key)
        return entry.latest

    def publish(
        self,
        reference: Reference,
        *,
        description: str | None = None,
        code_sha256: str | None = None,
        revision_id: str | None = None,
    ) -> Function:
        """Publish the function as its next version; return the newest version if nothing has changed since."""
        entry = self.record(reference)
        latest = entry.latest
        check_revision(latest.revision_id, revision_id)
        if code_sha256 not in (None, latest.package.sha256):
            raise invalid_parameter(
                f"CodeSHA256 ({code_sha256}) is different from current CodeSHA256 in $LATEST "
                f"({latest.package.sha256}). Please try again with the CodeSHA256 in $LATEST."
            )
        newest = next(reversed(entry.versions.values()), None)
        if newest is not None and entry.published_state == latest.state_id:
            return newest
        entry.published += 1
        entry.published_state = latest.state_id
        version = str(entry.published)
        entry.versions[version] = latest.published_as(version, description)
        entry.latest = latest.revised()
        self._store(reference.key)
        return entry.versions[version]

    def create_alias(
        self, reference: Reference, name: str, version: str, description: str, weights: Mapping[str, float]
    ) -> Alias:
        """Create an alias of a version.

        Raises
        ------
        ApiError
            When the version does not exist, the alias exists, or the weights are invalid.
        """
        entry = self.record(reference)
        self._check_weights(reference, version, weights)
        self.get(Reference(reference.account, reference.name, version))
        if name in entry.aliases:
            raise conflict(f"Alias already exists: {reference.arn}:{name}")
        entry.aliases[name] = Alias(name, version, description, dict(weights))
        self._store(reference.key)
        return entry.aliases[name]

    def update_alias(
        self,
        reference: Reference,
        name: str,
        *,
        version: str | None = None,
        description: str | None = None,
        weights: Mapping[str, float] | None = None,
        revision_id: str | None = None,
    ) -> Alias:
        """Change an alias's version, description or weights."""
        entry = self.record(reference)
        if name not in entry.aliases:
            raise resource_not_found(f"Alias not found: {reference.arn}:{name}")
        alias = entry.aliases[name]
        check_revision(alias.revision_id, revision_id)
        if version is not None:
            self.get(Reference(reference.account, reference.name, version))
            alias = replace(alias, version=version)
        if description is not None:
            alias = replace(alias, description=description)
        if weights is not None:
            self._check_weights(reference, alias.version, weights)
            alias = replace(alias, weights=dict(weights))
        entry.aliases[name] = replace(alias, revision_id=str(uuid.uuid4()))
        self._store(reference.key)
        return entry.aliases[name]

    def alias(self, reference: Reference, name: str) -> Alias:
        """Return an alias."""
        entry = self._entries.get(reference.key)
        if entry is None or name not in entry.aliases:
            raise alias_not_found(reference, name)
        return entry.aliases[name]

    def delete_alias(self, reference: Reference, name: str) -> None:
        """Delete an alias, if it exists, with all settings that belong to it."""
        entry = self.record(reference)
        entry.aliases.pop(name, None)
        _drop_settings(entry, name)
        self._store(reference.key)

    def reserve(self, reference: Reference, concurrency: int | None) -> None:
        """Set a function's reserved concurrency; None removes it.

        Raises
        ------
        ApiError
            When fewer than 100 executions would remain for the functions without a reservation, as on AWS.
        """
        entry = self.record(reference)
        left = self.unreserved(reference.account.region) + (entry.reserved_concurrency or 0) - (concurrency or 0)
        if concurrency is not None and left < limits.UNRESERVED_EXECUTIONS:
            raise without_type(
                "Specified ReservedConcurrentExecutions for function decreases account's "
                f"UnreservedConcurrentExecution below its minimum value of [{limits.UNRESERVED_EXECUTIONS}]."
            )
        entry.reserved_concurrency = concurrency
        self._store(reference.key)

    def reserved(self, key: str) -> int | None:
        """Return a function's reserved concurrency; None when it has none or does not exist."""
        entry = self._entries.get(key)
        return None if entry is None else entry.reserved_concurrency

    def concurrency_limits(self, reference: Reference) -> ConcurrencyLimits:
        """Return the limits that apply to an invocation; a function that does not exist has no own ones."""
        entry = self._entries.get(reference.key)
        unreserved = self.unreserved(reference.account.region)
        if entry is None:
            return ConcurrencyLimits(None, unreserved, 0, 0)
        provisioned_here = entry.provisioned.get(str(reference.qualifier), {}).get("Requested", 0)
        return ConcurrencyLimits(
            entry.reserved_concurrency, unreserved, entry.provisioned_concurrency, provisioned_here
        )

    def unreserved(self, region: str) -> int:
        """Return the number of executions that all functions of a region without a reservation share."""
        prefix = f"{region}/"
        reserved = sum(
            entry.reserved_concurrency or 0 for key, entry in self._entries.items() if key.startswith(prefix)
        )
        return limits.CONCURRENT_EXECUTIONS - reserved

    def set_tags(self, reference: Reference, tags: Mapping[str, str]) -> None:
        """Replace a function's tags; the function gets a new revision id."""
        entry = self.record(reference)
        entry.tags = _checked_tags(tags)
        entry.latest = entry.latest.revised()
        self._store(reference.key)

    def delete(self, reference: Reference) -> list[Function]:
        """Delete a function with all its versions, or the version that the qualifier names; return what was deleted.

        Raises
        ------
        ApiError
            When an alias refers to the version, or the qualifier is an alias.
        """
        version = reference.qualifier
        if version is not None and ALIAS.fullmatch(version):
            raise invalid_parameter("Deletion of aliases is not currently supported.")
        entry = self.record(reference)
        if version == LATEST:
            raise invalid_parameter("$LATEST version cannot be deleted without deleting the function.")
        if version is None:
            self._records.delete(reference.key)
            del self._entries[reference.key]
            self.code_store.remove(entry.functions)
            return entry.functions
        if any(version in (alias.version, *alias.weights) for alias in entry.aliases.values()):
            raise conflict(f"Unable to delete version because the following aliases reference it: {version}")
        removed = entry.versions.pop(version, None)
        if removed is None:
            return []
        _drop_settings(entry, version)
        self._store(reference.key)
        if all(other.package.root != removed.package.root for other in entry.functions):
            self.code_store.remove([removed])
        return [removed]

    def clear(self) -> list[Function]:
        """Delete all functions with their versions; return what was deleted."""
        self._records.clear()
        deleted = [function for entry in self._entries.values() for function in entry.functions]
        self._entries.clear()
        self.code_store.remove(deleted)
        return deleted

    def all(self, region: str | None = None) -> list[Function]:
        """Return every unpublished function, sorted by name; of all regions, or of one."""
        keys = sorted(self._entries, key=lambda key: key.partition("/")[::-1])
        return [self._entries[key].latest for key in keys if region in (None, key.partition("/")[0])]

    def layer_uses(self) -> list[LayerUse]:
        """Return the layer versions that functions use."""
        functions = (function for entry in self._entries.values() for function in entry.functions)
        return [use for function in functions for use in function.spec.layers]

    def records_of(self, region: str) -> list[FunctionRecord]:
        """Return the records of all functions in a region, sorted by name."""
        return [self._entries[key] for key in sorted(self._entries) if key.startswith(f"{region}/")]

    def _version(self, reference: Reference, alias: Alias | None) -> Function:
        qualifier = reference.qualifier or LATEST
        entry = self._entries.get(reference.key)
        if entry is None:
            raise not_found(reference.qualified_arn)
        if alias is None:
            alias = entry.aliases.get(qualifier)
            version = qualifier if alias is None else alias.version
        else:
            version = _drawn(alias)
        function = entry.latest if version == LATEST else entry.versions.get(version)
        if function is None:
            raise not_found(f"{reference.arn}:{qualifier}")
        return function

    def _check_weights(self, reference: Reference, version: str, weights: Mapping[str, float]) -> None:
        if not weights:
            return
        if len(weights) > 1:
            raise invalid_parameter("Number of items in AdditionalVersionWeights cannot be greater than 1")
        if version in weights:
            raise invalid_parameter(
                f"Invalid function version {version}. Function version {version} is already "
                "included in routing configuration."
            )
        if version == LATEST:
            raise invalid_parameter("$LATEST is not supported for an alias pointing to more than 1 version")
        for other in weights:
            self.get(Reference(reference.account, reference.name, other))

    def _store(self, key: str, new_code: Function | None = None) -> None:
        """Store a changed entry; if that fails, undo the change and remove the new code, if any."""
        try:
            self._records.put(key, self._entries[key])
        except DiskFullError:
            if new_code is not None:
                self.code_store.remove([new_code])
            stored = self._records.get(key)
            if stored is None:
                del self._entries[key]
            else:
                self._entries[key] = stored
            raise


def _drawn(alias: Alias) -> str:
    drawn = random.random()  # noqa: S311 - not used for security
    for version, weight in alias.weights.items():
        if drawn < weight:
            return version
        drawn -= weight
    return alias.version


def _drop_settings(entry: FunctionRecord, qualifier: str) -> None:
    for settings in (
        entry.policies,
        entry.policy_revisions,
        entry.urls,
        entry.event_invoke_configs,
        entry.provisioned,
    ):
        settings.pop(qualifier, None)


def _checked_tags(tags: Mapping[str, str]) -> dict[str, str]:
    if len(tags) > _MOST_TAGS:
        raise invalid_parameter("Number of tags exceeds resource tag limit.")
    return dict(tags)


def check_revision(latest: str, expected: object, operations: str = "GetFunction/GetAlias") -> None:
    """Check that the revision id that a caller expects is the latest one; None matches any.

    Parameters
    ----------
    latest, expected
        The revision ids.
    operations
        What returns the latest one, for the message.

    Raises
    ------
    ApiError
        PreconditionFailedException, when it is another one.
    """
    if expected is not None and expected != latest:
        raise ApiError(
            "PreconditionFailedException",
            HTTPStatus.PRECONDITION_FAILED,
            f"The Revision Id provided does not match the latest Revision Id. Call the {operations} API to retrieve "
            "the latest Revision Id",
        )


def not_found(arn: str) -> ApiError:
    """Return AWS's error for a function that does not exist."""
    return resource_not_found(f"Function not found: {arn}")


def alias_not_found(reference: Reference, name: str) -> ApiError:
    """Return AWS's error for an alias that does not exist."""
    return resource_not_found(f"Cannot find alias arn: {reference.arn}:{name}")
