"""Provisioned concurrency: environments that are initialised before the first invocation, for a version or an alias."""

import asyncio
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from emulator.aws import limits
from emulator.aws.lambda_.core.execution_environments import ExecutionEnvironment, ExecutionEnvironments, WarmPool
from emulator.aws.lambda_.core.function_records import FunctionRecord
from emulator.aws.lambda_.core.function_registry import FunctionRegistry, alias_not_found, not_found
from emulator.aws.lambda_.core.models import Function
from emulator.aws.lambda_.core.references import LATEST, Reference, conflict, invalid_parameter, without_type
from emulator.errors import ApiError, SandboxError

_VERSION = re.compile("[0-9]+")


@dataclass
class _Allocation:
    """The environments of one configuration: how many are ready, and the task that starts them."""

    task: asyncio.Task[None]
    ready: int = 0
    failed: bool = False


class ProvisionedConcurrency:
    """The operations on provisioned concurrency.

    Parameters
    ----------
    functions
        The functions, with their configurations.
    environments, pool
        Start the environments and keep them.
    """

    def __init__(self, functions: FunctionRegistry, environments: ExecutionEnvironments, pool: WarmPool) -> None:
        self._functions = functions
        self._environments = environments
        self._pool = pool
        self._allocations: dict[tuple[str, str], _Allocation] = {}

    async def put(self, reference: Reference, requested: int) -> dict[str, Any]:
        """Start to allocate environments for a version or an alias; return the configuration.

        Raises
        ------
        ApiError
            When the version or alias does not exist, or the number is not possible.
        """
        if reference.qualifier == LATEST:
            raise invalid_parameter(
                "Provisioned Concurrency Configs cannot be applied to unpublished function versions."
            )
        entry = self._entry(reference)
        qualifier = str(reference.qualifier)
        self._check_conflict(entry, qualifier)
        self._check_limits(reference, entry, qualifier, requested)
        await self._release(reference, entry)
        entry.provisioned[qualifier] = {"Requested": requested, "LastModified": _now()}
        self._functions.save(reference)
        self._allocate(reference, requested)
        return _answer(entry.provisioned[qualifier], 0, "IN_PROGRESS")

    def get(self, reference: Reference) -> dict[str, Any]:
        """Return the configuration of a version or an alias.

        Raises
        ------
        ApiError
            When there is none.
        """
        entry = self._published_entry(reference)
        stored = entry.provisioned.get(str(reference.qualifier))
        if stored is None:
            message = "No Provisioned Concurrency Config found for this function"
            raise ApiError("ProvisionedConcurrencyConfigNotFoundException", HTTPStatus.NOT_FOUND, message)
        return self._state(reference, stored)

    def list(self, reference: Reference) -> list[dict[str, Any]]:
        """Return the configurations of a function."""
        entry = self._functions.record(reference)
        qualified = {key: Reference(reference.account, reference.name, key) for key in sorted(entry.provisioned)}
        return [
            {**self._state(found, entry.provisioned[key]), "FunctionArn": found.qualified_arn}
            for key, found in qualified.items()
        ]

    async def delete(self, reference: Reference) -> None:
        """Delete the configuration of a version or an alias, if there is one, and end its environments."""
        entry = self._published_entry(reference)
        if str(reference.qualifier) in entry.provisioned:
            await self._release(reference, entry)
            del entry.provisioned[str(reference.qualifier)]
            self._functions.save(reference)

    async def close(self) -> None:
        """Stop starting environments."""
        tasks = [allocation.task for allocation in self._allocations.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._allocations.clear()

    def _allocate(self, reference: Reference, requested: int) -> _Allocation:
        function = self._functions.get(reference)
        task = asyncio.ensure_future(self._start_all(reference, function, requested))
        allocation = self._allocations[reference.key, str(reference.qualifier)] = _Allocation(task)
        return allocation

    async def _start_all(self, reference: Reference, function: Function, requested: int) -> None:
        async def start() -> None:
            try:
                environment = await self._environments.provision(function)
            except SandboxError:
                environment = None
            allocation = self._allocations[reference.key, str(reference.qualifier)]
            if isinstance(environment, ExecutionEnvironment):
                self._pool.put_back(environment)
                allocation.ready += 1
            else:
                allocation.failed = True

        # A group: to cancel it cancels all starts.
        async with asyncio.TaskGroup() as starts:
            for _ in range(requested):
                starts.create_task(start())

    async def _release(self, reference: Reference, entry: FunctionRecord) -> None:
        allocation = self._allocations.pop((reference.key, str(reference.qualifier)), None)
        if allocation is None:
            return
        allocation.task.cancel()
        await asyncio.gather(allocation.task, return_exceptions=True)
        await self._pool.end_provisioned(self._functions.get(reference))

    def _state(self, reference: Reference, stored: dict[str, Any]) -> dict[str, Any]:
        allocation = self._allocations.get((reference.key, str(reference.qualifier)))
        if allocation is None:
            # After a restart with stored state.
            allocation = self._allocate(reference, stored["Requested"])
        if not allocation.task.done():
            return _answer(stored, 0, "IN_PROGRESS")
        if allocation.failed:
            return {**_answer(stored, 0, "FAILED"), "StatusReason": "FUNCTION_ERROR_INIT_FAILURE"}
        return _answer(stored, allocation.ready, "READY")

    def _published_entry(self, reference: Reference) -> FunctionRecord:
        if reference.qualifier == LATEST:
            raise invalid_parameter("The function resource provided must be an alias or a published version.")
        return self._entry(reference)

    def _entry(self, reference: Reference) -> FunctionRecord:
        entry = self._functions.record(reference) if self._functions.exists(reference) else None
        qualifier = str(reference.qualifier)
        if _VERSION.fullmatch(qualifier):
            if entry is None or qualifier not in entry.versions:
                raise not_found(reference.qualified_arn)
        elif entry is None or qualifier not in entry.aliases:
            raise alias_not_found(reference, qualifier)
        return entry

    def _check_conflict(self, entry: FunctionRecord, qualifier: str) -> None:
        if qualifier in entry.aliases:
            if entry.aliases[qualifier].version in entry.provisioned:
                raise conflict(
                    "Alias can't be used for Provisioned Concurrency configuration on an already Provisioned version"
                )
        elif any(alias.name in entry.provisioned for alias in entry.aliases.values() if alias.version == qualifier):
            raise conflict("Version is pointed by a Provisioned Concurrency alias")

    def _check_limits(self, reference: Reference, entry: FunctionRecord, qualifier: str, requested: int) -> None:
        others = entry.provisioned_concurrency - entry.provisioned.get(qualifier, {}).get("Requested", 0)
        if entry.reserved_concurrency is not None:
            if others + requested > entry.reserved_concurrency:
                raise invalid_parameter(
                    "Requested Provisioned Concurrency should not be greater than the reservedConcurrentExecution for "
                    "function"
                )
            return
        provisioned = sum(
            other.provisioned_concurrency
            for other in self._functions.records_of(reference.account.region)
            if other.reserved_concurrency is None and other is not entry
        )
        left = self._functions.unreserved(reference.account.region) - provisioned - others
        if requested > left:
            raise without_type(
                "Specified ConcurrentExecutions for function is greater than account's unreserved concurrency "
                f"[{left}]."
            )
        if left - requested < limits.UNRESERVED_EXECUTIONS:
            raise without_type(
                "Specified ConcurrentExecutions for function decreases account's UnreservedConcurrentExecution below "
                f"its minimum value of [{limits.UNRESERVED_EXECUTIONS}]."
            )


def check_reservable(entry: FunctionRecord, concurrency: int) -> None:
    """Check that a function's reserved concurrency covers what is provisioned.

    Raises
    ------
    ApiError
        When it does not.
    """
    provisioned = entry.provisioned_concurrency
    if concurrency < provisioned:
        raise without_type(
            f" ReservedConcurrentExecutions  {concurrency} should not be lower than function's total provisioned "
            f"concurrency [{provisioned}]."
        )


def _answer(stored: dict[str, Any], ready: int, status: str) -> dict[str, Any]:
    return {
        "RequestedProvisionedConcurrentExecutions": stored["Requested"],
        "AvailableProvisionedConcurrentExecutions": ready,
        "AllocatedProvisionedConcurrentExecutions": ready,
        "Status": status,
        "LastModified": stored["LastModified"],
    }


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}+0000"
