"""The options that show what the ranks of a run do: the trace and the profile."""

import argparse
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from emulator.cli.exit_codes import print_status
from emulator.cloud import LocalCloud
from emulator.fmi.outcomes import RunOutcome
from emulator.fmi.rank_log import LogLine
from emulator.fmi.results import check_folder, write_whole
from fmi_shim.log_lines import EVENTS_MARKER, TELEMETRY_VARIABLE

if TYPE_CHECKING:
    from emulator.fmi.telemetry.hub import Telemetry


def add_observation_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    group = parser.add_argument_group("telemetry", "What the ranks report of their calls, see docs/tracing.md.")
    group.add_argument(
        "--trace",
        type=Path,
        metavar="FILE",
        help="write a trace for ui.perfetto.dev or chrome://tracing: a track for each rank, arrows from sends to "
        "receipts, counters of bytes; for example trace.json",
    )
    group.add_argument(
        "--profile",
        action="store_true",
        help="print where the time went: who waited for whom, the critical path, imbalance, bytes, and advice",
    )


class Observation:
    """What the options ask for of one run.

    Parameters
    ----------
    options
        The options of `add_observation_options`.
    has_bus
        Whether the ranks reach this command; otherwise they write their events to their logs.
    """

    def __init__(self, options: argparse.Namespace, *, has_bus: bool) -> None:
        self._trace: Path | None = getattr(options, "trace", None)  # `attach` has no such options
        self._profile: bool = getattr(options, "profile", False)
        self._has_bus = has_bus
        self._telemetry: Telemetry | None = None
        if self._trace is not None:
            check_folder(self._trace.absolute().parent)

    @property
    def is_wanted(self) -> bool:
        """Whether there is anything to observe."""
        return self._trace is not None or self._profile

    @property
    def environment(self) -> dict[str, str]:
        """The variables of the ranks."""
        return {TELEMETRY_VARIABLE: "bus" if self._has_bus else "log"} if self.is_wanted else {}

    @contextlib.contextmanager
    def of(self, cloud: LocalCloud | None) -> Iterator[None]:
        """Observe the run within the block, in a cloud of this machine, or elsewhere."""
        if not self.is_wanted:
            yield
            return
        # Other runs do not pay for the import.
        from emulator.fmi.telemetry.hub import Telemetry

        self._telemetry = Telemetry() if cloud is None or cloud.telemetry is None else cloud.telemetry
        yield

    def on_record(self, line: LogLine) -> None:
        """Read a line that the library has written of itself."""
        if self._telemetry is not None:
            self._telemetry.read_line(line)

    def takes_line(self, text: str) -> bool:
        """Return whether a line of a rank's output is the library's: events, which are read if they are wanted."""
        if not text.startswith(EVENTS_MARKER):
            return False
        if self._telemetry is not None:
            self._telemetry.read_events(text.removeprefix(EVENTS_MARKER))
        return True

    def finish(self, outcome: RunOutcome) -> None:
        """Write and print what was asked for, after the run."""
        telemetry = self._telemetry
        if telemetry is None:
            return
        from emulator.fmi.telemetry.profile import profile, profile_text
        from emulator.fmi.telemetry.trace import trace_lines

        telemetry.settle(frozenset(rank.rank for rank in outcome.ranks if rank.failure is None))
        with telemetry.history() as history:
            if self._trace is not None:
                write_whole(self._trace, "".join(trace_lines(history)).encode())
                print_status(f"trace in {self._trace}: open it in ui.perfetto.dev or chrome://tracing")
            if self._profile:
                print_status(profile_text(profile(history)))
            elif history.dropped or history.left_out:
                print_status(
                    f"{history.dropped} calls were dropped, and {history.left_out} left out: the ranks made more than "
                    "could be recorded"
                )
