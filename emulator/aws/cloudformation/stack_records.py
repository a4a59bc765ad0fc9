"""The database records of stacks and change sets, which outlive a restart."""

import asyncio
import json
from collections.abc import Iterator, Mapping
from dataclasses import fields
from datetime import datetime
from typing import Any

from emulator.aws.cloudformation.resource import Resource, StackIdentity
from emulator.aws.cloudformation.stacks import (
    Change,
    ChangeSet,
    Stack,
    StackEvent,
    StackOutput,
    StackResource,
    StackSettings,
)
from emulator.aws.cloudformation.template import ParameterValue, Template
from emulator.aws.state import StateFolder

# Those of a table with a rowid are read in the order in which they were created.
_SCHEMA = "CREATE TABLE IF NOT EXISTS stacks (id TEXT PRIMARY KEY, record TEXT NOT NULL)"
_STORE = "INSERT INTO stacks VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET record = excluded.record"
# A deployment changes its stack many times a second.
_DELAY_S = 0.2


class StackRecords:
    """Stores stacks, each with its change sets.

    Parameters
    ----------
    state
        Has the database.
    """

    def __init__(self, state: StateFolder) -> None:
        self._state = state
        state.database.execute(_SCHEMA)
        self._changed: dict[str, Stack] = {}
        self._change_sets: Mapping[str, ChangeSet] = {}
        self._timer: asyncio.TimerHandle | None = None

    def read(self, change_sets: dict[str, ChangeSet]) -> Iterator[Stack]:
        """Yield the stored stacks, the oldest first, and add their change sets to a dictionary, which is kept.

        Raises
        ------
        StateError
            When a record is damaged.
        """
        self._change_sets = change_sets
        for stack_id, text in self._state.database.execute("SELECT id, record FROM stacks ORDER BY rowid").fetchall():
            try:
                record = json.loads(text)
                stack = _stack(record["stack"])
                change_sets |= {item["id"]: _change_set(item, stack) for item in record["change_sets"]}
            except (ValueError, KeyError, TypeError) as error:
                raise self._state.damaged(f"the record of stack {stack_id}: {error!r}") from error
            yield stack

    def changed(self, stack: Stack) -> None:
        """Store a stack soon."""
        self._changed[stack.id] = stack
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_DELAY_S, self.flush)

    def flush(self) -> None:
        """Store what has changed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for stack in self._changed.values():
            change_sets = [_plain(item, "stack") for item in self._change_sets.values() if item.stack is stack]
            record = {"stack": _plain(stack, "on_event"), "change_sets": change_sets}
            self._state.database.write(_STORE, (stack.id, json.dumps(record, default=_json)))
        self._changed.clear()

    def clear(self) -> None:
        """Delete all records."""
        self._changed.clear()
        self._state.database.write("DELETE FROM stacks")


def _plain(record: Stack | ChangeSet, omitted: str) -> dict[str, Any]:
    return {item.name: getattr(record, item.name) for item in fields(record) if item.name != omitted}


def _json(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, Resource):
        # Of moto's objects only the id is kept.
        return {"physical_id": value.physical_id, "attributes": dict(value.attributes)}
    return {item.name: getattr(value, item.name) for item in fields(value)}


def _stack(record: dict[str, Any]) -> Stack:
    return Stack(
        **{
            **_deployed(record),
            "identity": StackIdentity(**record["identity"]),
            "created_at": _time(record["created_at"]),
            "updated_at": _time(record["updated_at"]),
            "deleted_at": _time(record["deleted_at"]),
            "resources": {name: _resource(item) for name, item in record["resources"].items()},
            "events": [StackEvent(**{**item, "timestamp": _time(item["timestamp"])}) for item in record["events"]],
            "outputs": {name: StackOutput(**item) for name, item in record["outputs"].items()},
            "imports": set(record["imports"]),
        }
    )


def _change_set(record: dict[str, Any], stack: Stack) -> ChangeSet:
    changes = [Change(**{**item, "properties": tuple(item["properties"])}) for item in record["changes"]]
    return ChangeSet(
        **{**_deployed(record), "stack": stack, "changes": changes, "created_at": _time(record["created_at"])}
    )


def _deployed(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record with what stacks and change sets have in common: templates, parameters and settings."""
    original, template = Template(**record["original"]), Template(**record["template"])
    lists = {name: tuple(record["settings"][name]) for name in ("capabilities", "notification_arns")}
    return {
        **record,
        "original": original,
        "template": original if template == original else template,
        "parameters": {name: ParameterValue(**item) for name, item in record["parameters"].items()},
        "settings": StackSettings(**{**record["settings"], **lists}),
    }


def _resource(record: dict[str, Any]) -> StackResource:
    found = record["resource"]
    return StackResource(
        **{
            **record,
            "resource": None if found is None else Resource(**found),
            "depends_on": frozenset(record["depends_on"]),
            "updated_at": _time(record["updated_at"]),
        }
    )


def _time(text: str | None) -> Any:
    return None if text is None else datetime.fromisoformat(text)
