"""The database records of the functions, which outlive a restart."""

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from emulator.aws.lambda_.core.models import Alias, Function, FunctionSpec, Package
from emulator.aws.state import StateFolder
from emulator.errors import ApiError

_SCHEMA = "CREATE TABLE IF NOT EXISTS functions (name TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID"


@dataclass
class FunctionRecord:
    """Everything that is stored under one function name."""

    latest: Function
    versions: dict[str, Function] = field(default_factory=dict)
    published: int = 0
    aliases: dict[str, Alias] = field(default_factory=dict)
    reserved_concurrency: int | None = None
    tags: dict[str, str] = field(default_factory=dict)
    # The statements of its resource policy, by statement id.
    policy: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def functions(self) -> list[Function]:
        """The unpublished function and the published versions."""
        return [self.latest, *self.versions.values()]

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON for the database."""
        return {
            "functions": [_function_json(function) for function in self.functions],
            "published": self.published,
            "aliases": [asdict(alias) for alias in self.aliases.values()],
            "reservedConcurrency": self.reserved_concurrency,
            "tags": self.tags,
            "policy": self.policy,
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any], folder: Path) -> "FunctionRecord":
        """Read a record from the database; `folder` contains the functions' code."""
        latest, *versions = (_function(function, folder) for function in stored["functions"])
        return cls(
            latest,
            {function.version: function for function in versions},
            stored["published"],
            {alias["name"]: Alias(**alias) for alias in stored["aliases"]},
            stored["reservedConcurrency"],
            stored["tags"],
            stored["policy"],
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
    reserve
        Space for small writes on a full disk.

    Raises
    ------
    StateError
        When the folder cannot be used.
    """

    def __init__(self, state: StateFolder) -> None:
        self.folder = state.folder("functions")
        self.reserve = state.reserve
        self._state = state
        self._database = state.database

    def load(self) -> dict[str, FunctionRecord]:
        """Return all records, by function name.

        Raises
        ------
        StateError
            When a record cannot be read, or a function's code is missing.
        """
        try:
            self._database.execute(_SCHEMA)
            rows = self._database.execute("SELECT name, record FROM functions").fetchall()
            entries = {name: FunctionRecord.from_json(json.loads(record), self.folder) for name, record in rows}
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
        return None if row is None else FunctionRecord.from_json(json.loads(row[0]), self.folder)

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


def _function_json(function: Function) -> dict[str, Any]:
    package = function.package
    return {
        "spec": function.spec.to_api(),
        "package": {
            "sha256": package.sha256,
            "size": package.size,
            # The name only: the state folder may be moved.
            "root": package.root and package.root.name,
            "imageUri": package.image_uri,
        },
        "version": function.version,
        "revisionId": function.revision_id,
        "lastModified": function.last_modified.isoformat(),
    }


def _function(stored: Mapping[str, Any], folder: Path) -> Function:
    package = stored["package"]
    root = folder / package["root"] if package["root"] else None
    return Function(
        FunctionSpec.from_api(stored["spec"]),
        Package(package["sha256"], package["size"], root, package["imageUri"]),
        stored["version"],
        stored["revisionId"],
        datetime.fromisoformat(stored["lastModified"]),
    )
