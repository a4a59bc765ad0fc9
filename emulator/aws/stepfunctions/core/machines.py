"""The store of state machines. Each is saved in a file and loaded again after a restart."""

import asyncio
import hashlib
import json
import logging
import os
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from http import HTTPStatus
from pathlib import Path
from typing import Any

from emulator.aws.account import Account
from emulator.aws.disk_reserve import DiskReserve, private_opener
from emulator.aws.stepfunctions.asl.definition import Definition, MachineType
from emulator.aws.stepfunctions.asl.diagnostics import DefinitionError
from emulator.aws.stepfunctions.asl.parse_machine import parse_definition
from emulator.aws.stepfunctions.core.arns import machine_arn, validate_arn, validate_name
from emulator.errors import ApiError, StateError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Machine:
    """One revision of a state machine. An update creates a new one.

    Parameters
    ----------
    account
        Where it is.
    name
        The state machine's name.
    text
        The definition as received.
    parsed
        The parsed definition, or the mistakes that this version finds in one that another version has accepted.
    role_arn, kind, tags
        As in the API.
    settings
        Logging, tracing and encryption configuration, as received: they have no effect.
    created_at, updated_at
        Seconds since the epoch.
    revision_id
        Identifies the revision; None for the first one.
    """

    account: Account
    name: str
    text: str
    parsed: Definition | DefinitionError
    role_arn: str
    kind: MachineType = MachineType.STANDARD
    tags: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    created_at: float = field(default_factory=time.time)
    updated_at: float = field(default_factory=time.time)
    revision_id: str | None = None

    @property
    def arn(self) -> str:
        """The state machine's ARN."""
        return machine_arn(self.account, self.name)

    @property
    def definition(self) -> Definition:
        """The parsed definition.

        Raises
        ------
        ApiError
            InvalidDefinition, if this version refuses it.
        """
        if isinstance(self.parsed, DefinitionError):
            raise _invalid_definition(
                self.parsed,
                f"state machine {self.name!r} was created by another version, and this one refuses its definition; "
                "update or delete it: ",
            )
        return self.parsed

    def to_json(self) -> dict[str, Any]:
        """Return the content of the state machine's file."""
        return {
            "account": asdict(self.account),
            "name": self.name,
            "definition": self.text,
            "roleArn": self.role_arn,
            "type": self.kind,
            "tags": dict(self.tags),
            "settings": dict(self.settings),
            "createdAt": self.created_at,
            "updatedAt": self.updated_at,
            "revisionId": self.revision_id,
        }

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> "Machine":
        """Create a state machine from its file's content."""
        kind = MachineType(kept["type"])
        parsed: Definition | DefinitionError
        try:
            parsed = parse_definition(kept["definition"], kind)
        except DefinitionError as error:
            parsed = error
        return cls(
            Account(**kept["account"]),
            kept["name"],
            kept["definition"],
            parsed,
            kept["roleArn"],
            kind,
            kept["tags"],
            kept["settings"],
            kept["createdAt"],
            kept["updatedAt"],
            kept["revisionId"],
        )


class MachineStore:
    """The state machines of all regions, by ARN.

    Parameters
    ----------
    folder
        The folder of the files. Existing files are loaded.
    reserve
        Space for the files on a full disk.

    Raises
    ------
    StateError
        If a file is damaged.
    """

    def __init__(self, folder: Path, reserve: DiskReserve) -> None:
        self._folder = folder
        self._reserve = reserve
        self._machines: dict[str, Machine] = {}
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(folder.glob("*.json")):
            try:
                machine = Machine.from_json(json.loads(path.read_text()))
            except (ValueError, KeyError, TypeError) as error:
                raise StateError(
                    f"{path}: expected a state machine written by this emulator: {error!r}; remove the file"
                ) from None
            if isinstance(machine.parsed, DefinitionError):
                _log.warning(
                    "state machine %r is kept, but cannot run in this version: %s", machine.name, machine.parsed
                )
            self._machines[machine.arn] = machine

    async def create(
        self,
        account: Account,
        name: str,
        text: str,
        role_arn: str,
        kind: MachineType,
        tags: Mapping[str, str],
        settings: Mapping[str, Any],
    ) -> Machine:
        """Add a state machine. Creating an equal one again returns the existing one.

        Raises
        ------
        ApiError
            If the name or the definition is invalid, or a different state machine has that name.
        """
        # In a thread: the parser takes more than 100 ms for a definition of 1 MB.
        parsed = await asyncio.to_thread(validate_definition, text, kind)
        machine = Machine(account, validate_name(name), text, parsed, role_arn, kind, tags, settings)
        existing = self._machines.get(machine.arn)
        if existing is not None:
            if (existing.text, existing.kind, existing.settings) == (text, kind, settings):
                return existing
            raise ApiError(
                "StateMachineAlreadyExists",
                HTTPStatus.BAD_REQUEST,
                f"State Machine Already Exists: '{existing.arn}'",
            )
        self._save(machine)
        return machine

    async def update(
        self, arn: str, account: Account, text: str | None, role_arn: str | None, settings: Mapping[str, Any]
    ) -> Machine:
        """Update a state machine. Running executions continue with the previous revision.

        Raises
        ------
        ApiError
            If there is no such state machine, or the definition is invalid.
        """
        machine = self.get(arn, account)
        if text is not None:
            parsed = await asyncio.to_thread(validate_definition, text, machine.kind)
            # Another update may have replaced it since.
            machine = replace(self.get(arn, account), text=text, parsed=parsed)
        if role_arn is not None:
            machine = replace(machine, role_arn=role_arn)
        machine = replace(
            machine,
            settings={**machine.settings, **settings},
            updated_at=time.time(),
            revision_id=str(uuid.uuid4()),
        )
        self._save(machine)
        return machine

    def tag(self, machine: Machine, tags: Mapping[str, str]) -> None:
        """Replace a state machine's tags."""
        self._save(replace(machine, tags=dict(tags)))

    def get(self, arn: str, account: Account) -> Machine:
        """Return a state machine.

        Parameters
        ----------
        arn
            Its ARN.
        account
            The caller's, who finds no state machine of another region.

        Raises
        ------
        ApiError
            If the ARN is invalid, or there is no such state machine.
        """
        checked = validate_arn(arn, "stateMachine")
        machine = self._machines.get(checked)
        if machine is None or machine.account != account:
            raise ApiError(
                "StateMachineDoesNotExist", HTTPStatus.BAD_REQUEST, f"State Machine Does Not Exist: '{checked}'"
            )
        return machine

    def delete(self, arn: str, account: Account) -> None:
        """Remove a state machine if it exists."""
        machine = self._machines.get(validate_arn(arn, "stateMachine"))
        if machine is not None and machine.account == account:
            del self._machines[arn]
            self._path(machine).unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove all state machines."""
        for machine in list(self._machines.values()):
            self.delete(machine.arn, machine.account)

    def all(self, account: Account) -> list[Machine]:
        """Return all state machines of a region, ordered by name."""
        found = [machine for machine in self._machines.values() if machine.account == account]
        return sorted(found, key=lambda machine: machine.name)

    def _save(self, machine: Machine) -> None:
        """Save a state machine, or raise `DiskFullError`.

        The file is replaced atomically: after a crash it has the old or the new content.
        """
        path = self._path(machine)
        temporary = path.with_suffix(".new")

        def write() -> None:
            try:
                with open(temporary, "w", opener=private_opener) as file:
                    json.dump(machine.to_json(), file)
                    file.flush()
                    os.fsync(file.fileno())
                temporary.replace(path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise

        self._reserve.write(write)
        self._machines[machine.arn] = machine

    def _path(self, machine: Machine) -> Path:
        # A name can be . or .., too long for a file name, or differ from another only in case, which some file systems
        # ignore.
        return self._folder / f"{hashlib.sha256(machine.arn.encode()).hexdigest()}.json"


def validate_definition(text: str, kind: MachineType) -> Definition:
    """Parse a definition.

    Raises
    ------
    ApiError
        InvalidDefinition, with all mistakes and their locations.
    """
    try:
        return parse_definition(text, kind)
    except DefinitionError as error:
        raise _invalid_definition(error) from None


def _invalid_definition(error: DefinitionError, reason: str = "") -> ApiError:
    return ApiError("InvalidDefinition", HTTPStatus.BAD_REQUEST, f"Invalid State Machine Definition: '{reason}{error}'")
