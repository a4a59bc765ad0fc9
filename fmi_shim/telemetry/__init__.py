"""What a run does, as typed events, recorded in a rank and sent to the emulator. Off unless FMI_TELEMETRY is set.

`recorder` is None unless something records; then nothing here runs, and pyzmq is not imported.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fmi_shim.errors import ConfigError
from fmi_shim.log_lines import TELEMETRY_VARIABLE, is_traced

if TYPE_CHECKING:
    from fmi_shim.telemetry.recording import Recorder

BUS_VARIABLE = "FMI_TELEMETRY_BUS"
_BUS, _LOG = "bus", "log"

recorder: Recorder | None = None
"""Records the events of this process; None if nothing does."""


def start_telemetry(rank: int, size: int) -> None:
    """Start to record if FMI_TRACE or FMI_TELEMETRY say so: when a process opens a communicator.

    Parameters
    ----------
    rank, size
        This rank and the number of ranks, in the first communicator of the process.

    Raises
    ------
    ConfigError
        If FMI_TELEMETRY or FMI_TELEMETRY_BUS is invalid, or pyzmq is missing.
    """
    global recorder
    kind = os.environ.get(TELEMETRY_VARIABLE, "")
    if kind not in ("", _BUS, _LOG):
        raise ConfigError(f"environment: invalid {TELEMETRY_VARIABLE} {kind!r}: expected {_BUS!r} or {_LOG!r}")
    if not kind and not is_traced():
        return
    # A process that records nothing does not pay for the import.
    from fmi_shim.telemetry.phase_line import PhaseLine
    from fmi_shim.telemetry.recording import LogLines, Recorder, Sink

    if recorder is not None:
        if recorder.is_open:
            return
        recorder.close()
    sinks: list[Sink] = []
    if is_traced():
        sinks.append(PhaseLine())
    if kind == _LOG:
        sinks.append(LogLines())
    recorder = Recorder(rank, size, sinks)
    if kind == _BUS:
        from fmi_shim.telemetry.bus import connect

        connect(recorder, os.environ.get(BUS_VARIABLE, ""))


def _forget() -> None:
    """Record nothing in a forked child: the connection to the emulator is its parent's."""
    global recorder
    recorder = None


os.register_at_fork(after_in_child=_forget)
