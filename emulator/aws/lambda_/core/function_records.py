"""The database records of the functions and layers, which outlive a restart."""

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from emulator.aws.account import Account
from emulator.aws.lambda_.core.models import Alias, Function, FunctionSpec, LayerUse, Package, PackageType
from emulator.aws.state import StateFolder
from emulator.errors import ApiError

_SCHEMA = "CREATE TABLE IF NOT EXISTS functions (name TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID"


@dataclass
class FunctionRecord:
    """Everything that is stored under one function name.

    Attributes
    ----------
    latest, versions, aliases
        The function, its published versions by number, its aliases by name.
    published
        How many versions have been published.
    published_state
        The ``state_id`` of the function when it was last published.
    reserved_concurrency, tags
        As in the API.
    policies
        The statements of the resource policies, by qualifier (empty for the function itself) and statement id.
    policy_revisions
        The revision id of each policy: the one that its function, version or alias got when the policy was changed.
    urls, event_invoke_configs, provisioned
        The function URLs, the settings of asynchronous invocations and the provisioned concurrency, by qualifier.
    options
        Other settings, by the name of their operation: recursion, runtime management, code signing.
    """

    latest: Function
    versions: dict[str, Function] = field(default_factory=dict)
    published: int = 0
    published_state: str = ""
    aliases: dict[str, Alias] = field(default_factory=dict)
    reserved_concurrency: int | None = None
    tags: dict[str, str] = field(default_factory=dict)
    policies: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    policy_revisions: dict[str, str] = field(default_factory=dict)
    urls: dict[str, dict[str, Any]] = field(default_factory=dict)
    event_invoke_configs: dict[str, dict[str, Any]] = field(default_factory=dict)
    provisioned: dict[str, dict[str, Any]] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def functions(self) -> list[Function]:
        """The unpublished function and the published versions."""
        return [self.latest, *self.versions.values()]

    @property
    def provisioned_concurrency(self) -> int:
        """What is provisioned for all versions and aliases together."""
        return sum(stored["Requested"] for stored in self.provisioned.values())

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON for the database."""
        return {
            **vars(self),
            "latest": _function_json(self.latest),
            "versions": [_function_json(function) for function in self.versions.values()],
            "aliases": [asdict(alias) for alias in self.aliases.values()],
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any], folder: Path, layers: Path) -> "FunctionRecord":
        """Read a record from the database; `folder` contains the functions' code, `layers` that of layers."""
        versions = [_function(function, folder, layers) for function in stored["versions"]]
        return cls(
            **{
                **stored,
                "latest": _function(stored["latest"], folder, layers),
                "versions": {function.version: function for function in versions},
                "aliases": {alias["name"]: Alias(**alias) for alias in stored["aliases"]},
            }
        )


class FunctionRecords:
    """The records of all functions in the state folder's database.

    Parameters
    ----------
    state
        The state folder.

    Attributes
    ----------
    folder
        The folder for the functions' code.
    layers_folder
        The folder for the layers' files.
    reserve
        Space for small writes on a full disk.

    Raises
    ------
    StateError
        When the folder cannot be used.
    """

    def __init__(self, state: StateFolder) -> None:
        self.folder = state.folder("functions")
        self.layers_folder = state.folder("layers")
        self.reserve = state.reserve
        self._state = state
        self._database = state.database

    def load(self) -> dict[str, FunctionRecord]:
        """Return all records, by key.

        Raises
        ------
        StateError
            When a record cannot be read, or a function's code is missing.
        """
        try:
            self._database.execute(_SCHEMA)
            rows = self._database.execute("SELECT name, record FROM functions").fetchall()
            entries = {name: self._record(record) for name, record in rows}
        except (sqlite3.DatabaseError, ApiError, LookupError, TypeError, ValueError) as error:
            raise self._state.damaged(f"functions: {error!r}") from error
        for name, entry in entries.items():
            for function in entry.functions:
                if function.package.root is not None and not function.package.root.is_dir():
                    raise self._state.damaged(f"the code of the function {name} is missing: {function.package.root}")
        return entries

    def get(self, name: str) -> FunctionRecord | None:
        """Return the stored record of a function, or None."""
        row = self._database.execute("SELECT record FROM functions WHERE name = ?", (name,)).fetchone()
        return None if row is None else self._record(row[0])

    def put(self, name: str, entry: FunctionRecord) -> None:
        """Store the record of a function."""
        row = (name, json.dumps(entry.to_json()))
        self._database.write("INSERT OR REPLACE INTO functions VALUES (?, ?)", row)

    def clear(self) -> None:
        """Delete all records."""
        self._database.write("DELETE FROM functions")

    def delete(self, name: str) -> None:
        """Delete the record of a function."""
        self._database.write("DELETE FROM functions WHERE name = ?", (name,))

    def _record(self, text: str) -> FunctionRecord:
        return FunctionRecord.from_json(json.loads(text), self.folder, self.layers_folder)


def _function_json(function: Function) -> dict[str, Any]:
    package, spec = function.package, function.spec
    return {
        "spec": {
            **vars(spec),
            "account": vars(spec.account),
            "package_type": spec.package_type.value,
            # The names of folders only: the state folder may be moved.
            "layers": [{**vars(layer), "root": layer.root.name} for layer in spec.layers],
        },
        "package": {**vars(package), "root": package.root and package.root.name},
        "version": function.version,
        "revision_id": function.revision_id,
        "state_id": function.state_id,
        "last_modified": function.last_modified.isoformat(),
    }


def _function(stored: Mapping[str, Any], folder: Path, layers: Path) -> Function:
    package, spec = stored["package"], stored["spec"]
    uses = (LayerUse(layer["arn"], layer["size"], layers / layer["root"]) for layer in spec["layers"])
    return Function(
        **{
            **stored,
            "spec": FunctionSpec(
                **{
                    **spec,
                    "account": Account(**spec["account"]),
                    "package_type": PackageType(spec["package_type"]),
                    "layers": tuple(uses),
                }
            ),
            "package": Package(**{**package, "root": folder / package["root"] if package["root"] else None}),
            "last_modified": datetime.fromisoformat(stored["last_modified"]),
        }
    )
