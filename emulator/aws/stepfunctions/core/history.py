"""An execution's history: its events in the order in which they happened."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from emulator.aws.limits import HISTORY_EVENTS
from emulator.aws.stepfunctions.asl.failures import RUNTIME, StateFailure
from emulator.aws.stepfunctions.asl.json_values import Json


@dataclass(frozen=True)
class HistoryEvent:
    """One event.

    Parameters
    ----------
    event_id, previous_id
        Its number, from 1, and that of the event that led to it.
    timestamp
        When it happened, seconds since the epoch.
    kind
        AWS's name for it, such as ``TaskScheduled``.
    details
        What it tells, under the names of the API.
    """

    event_id: int
    previous_id: int
    timestamp: float
    kind: str
    details: Mapping[str, Json] | None

    def to_api(self, *, with_data: bool) -> dict[str, Any]:
        """Return the HistoryEvent of the API; without data, inputs and outputs are left out."""
        event: dict[str, Any] = {
            "timestamp": self.timestamp,
            "type": self.kind,
            "id": self.event_id,
            "previousEventId": self.previous_id,
        }
        if self.details is not None:
            kept = self.details.items()
            event[self._details_name()] = {
                name: value for name, value in kept if with_data or name.removesuffix("Details") not in _DATA
            }
        return event

    def _details_name(self) -> str:
        for ending in ("StateEntered", "StateExited"):
            if self.kind.endswith(ending):
                return f"{ending[0].lower()}{ending[1:]}EventDetails"
        return f"{self.kind[0].lower()}{self.kind[1:]}EventDetails"


_DATA = {"input", "output", "parameters"}
COMPLETE = {"truncated": False}


class History:
    """The events of one execution.

    Parameters
    ----------
    kept
        Whether events are kept. EXPRESS executions have no history, but their events are counted all the same.
    """

    def __init__(self, *, kept: bool) -> None:
        self._kept = kept
        self._full = False
        self._count = 0
        self.events: list[HistoryEvent] = []

    def add(self, kind: str, previous_id: int, details: Mapping[str, Json] | None = None) -> int:
        """Add an event; return its number.

        Raises
        ------
        StateFailure
            Once, when only the event that ends the execution has room left.
        """
        if self._kept and self._count >= HISTORY_EVENTS - 1:
            if not self._full:
                self._full = True
                raise StateFailure(
                    RUNTIME, f"The execution reached the maximum number of history events ({HISTORY_EVENTS})."
                )
            return self._count
        return self._append(kind, previous_id, details)

    def end(self, kind: str, previous_id: int, details: Mapping[str, Json] | None = None) -> int:
        """Add an event of the end, for which there is always room: of the execution, or of a state that was aborted."""
        return self._append(kind, previous_id, details)

    def _append(self, kind: str, previous_id: int, details: Mapping[str, Json] | None) -> int:
        self._count += 1
        if self._kept:
            self.events.append(HistoryEvent(self._count, previous_id, time.time(), kind, details))
        return self._count
