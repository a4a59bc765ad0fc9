"""The options that show what the ranks of a run do: trace, profile, live view, and where a run hangs."""

import argparse
import contextlib
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from emulator.cli.exit_codes import print_status
from emulator.cloud import LocalCloud
from emulator.errors import EmulatorError
from emulator.fmi.outcomes import RunOutcome
from emulator.fmi.rank_log import LogLine
from emulator.fmi.results import check_folder, write_whole
from fmi_shim.log_lines import EVENTS_MARKER, TELEMETRY_VARIABLE

if TYPE_CHECKING:
    from emulator.fmi.telemetry.hub import Telemetry

_WATCH_S = 0.5
_REFRESH_A_SECOND = 4
# Without a terminal, the live view is printed again after this time.
_PRINT_S = 5.0


def add_observation_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    group = parser.add_argument_group(
        "telemetry",
        "What the ranks report of their calls, see docs/tracing.md. With any of these options and --backend local, a "
        "run that hangs for a minute shows where each rank waits, and so does one that gets Ctrl-C or SIGUSR1.",
    )
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
    group.add_argument(
        "--live",
        action="store_true",
        help="show while it runs which call each rank is in, for whom it waits, and its rates; with --backend local",
    )


class Observation:
    """What the options ask for of one run.

    Parameters
    ----------
    options
        The options of `add_observation_options`; a command without them observes nothing.
    has_bus
        Whether the ranks reach this command; otherwise they write their events to their logs.

    Raises
    ------
    EmulatorError
        If the trace cannot be written to its folder, or a live view needs a bus that is not there.
    """

    def __init__(self, options: argparse.Namespace, *, has_bus: bool) -> None:
        self._trace: Path | None = getattr(options, "trace", None)
        self._profile: bool = getattr(options, "profile", False)
        self._live: bool = getattr(options, "live", False)
        self._has_bus = has_bus
        self._telemetry: Telemetry | None = None
        if self._trace is not None:
            check_folder(self._trace.absolute().parent)
        if self._live and not has_bus:
            raise EmulatorError(
                "--live needs ranks that reach this command: use --backend local; with others, --trace and --profile "
                "show the run at its end"
            )

    @property
    def is_wanted(self) -> bool:
        """Whether there is anything to observe."""
        return self._trace is not None or self._profile or self._live

    @property
    def has_bus(self) -> bool:
        """Whether the cloud must receive events."""
        return self.is_wanted and self._has_bus

    @property
    def is_live(self) -> bool:
        """Whether the live view is shown."""
        return self._live

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

        if cloud is None or cloud.telemetry is None:
            self._telemetry = Telemetry()
            yield
            return
        self._telemetry = cloud.telemetry
        watch = _Watch(cloud.telemetry)
        with watch, _shown(watch) if self._live else contextlib.nullcontext():
            try:
                yield
            except KeyboardInterrupt:
                # The ranks have been stopped: this is what they said last.
                watch.print_waits(ask=False)
                raise

    def on_record(self, line: LogLine, function: str = "execute") -> None:
        """Read a log line that is no output of the program, of a function of the run."""
        if self._telemetry is not None:
            self._telemetry.read_line(line, function)

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

        telemetry.wait_for_last_events(frozenset(rank.rank for rank in outcome.ranks if rank.failure is None))
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


class _Watch:
    """Prints where each rank waits: on SIGUSR1, and if no call ends for a minute. A context manager of the main thread.

    Parameters
    ----------
    telemetry
        The run's.
    """

    def __init__(self, telemetry: "Telemetry") -> None:
        from emulator.fmi.telemetry.live import Live

        self._telemetry = telemetry
        self._live = Live()
        self._asked = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> None:
        self._former = signal.signal(signal.SIGUSR1, lambda *_: self._asked.set())
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGUSR1, self._former)
        self._ended.set()
        self._asked.set()
        self._thread.join()

    def live_text(self, height: int = 1000) -> str:
        """Return the live view."""
        from emulator.fmi.telemetry.live import live_text

        with self._telemetry.history() as history:
            return live_text(self._live.ranks(history, time.time_ns()), height)

    def print_waits(self, *, ask: bool) -> None:
        """Print where each rank waits; `ask` the ranks for their stacks first."""
        from emulator.fmi.telemetry.wait_graph import waiting_text

        if ask:
            self._telemetry.request_stacks()
        with self._telemetry.history() as history:
            text = waiting_text(history, time.time_ns() if ask else history.latest)
        print_status(text)

    def _run(self) -> None:
        while not self._ended.is_set():
            is_asked = self._asked.wait(_WATCH_S)
            if self._ended.is_set():
                return
            self._asked.clear()
            with self._telemetry.history() as history:
                has_stalled = self._live.has_stalled(history, time.time_ns())
            if has_stalled:
                print_status("no call has ended for a minute:")
            if is_asked or has_stalled:
                self.print_waits(ask=True)


@contextlib.contextmanager
def _shown(watch: _Watch) -> Iterator[None]:
    """Show the live view within the block: on a terminal in place, otherwise as lines every few seconds."""
    if sys.stderr.isatty():
        # Importing rich takes a tenth of a second; it is not needed without a terminal.
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        console = Console(stderr=True)

        def view() -> Text:
            return Text(watch.live_text(shutil.get_terminal_size().lines), no_wrap=True, overflow="ellipsis")

        # The output of the ranks is printed above the table, unless standard output is redirected.
        both = sys.stdout.isatty()
        with Live(get_renderable=view, console=console, refresh_per_second=_REFRESH_A_SECOND, redirect_stdout=both):
            yield
        return
    with _repeated(lambda: print_status(watch.live_text())):
        yield


@contextlib.contextmanager
def _repeated(action: Callable[[], None]) -> Iterator[None]:
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(_PRINT_S):
            action()

    thread = threading.Thread(target=run, name="live", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        action()
