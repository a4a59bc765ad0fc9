"""The telemetry of a local cloud: the collector, the histories of its runs, and who follows them."""

import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from types import TracebackType
from typing import Self

from emulator.fmi.rank_log import LineKind, LogLine
from emulator.fmi.telemetry.collector import Collector, CommandError
from emulator.fmi.telemetry.history import History
from emulator.fmi.telemetry.kept import KeptRuns
from fmi_shim.faults import parse_faults
from fmi_shim.injection import check_immediate
from fmi_shim.telemetry.events import Closed, EventError, Failed, Message, Observed, decode

_MOST_RUNS = 50
_SETTLE_S = 3.0
_ANSWER_S = 1.0
_PAUSE_S = 0.01
_MS = 1_000_000
_MISSES = 2
_LOST = "its process has ended without closing its communicators: it was killed, or has called os._exit()"


class Telemetry:
    """The histories of the latest runs.

    Parameters
    ----------
    host, advertised
        Where a collector listens, see `Collector`; None for no collector: then events come from logs alone.
    on_error
        Called with what is wrong with events, once for each text.
    kept
        Where events are kept, so that runs outlive this process; None to forget them.
    """

    def __init__(
        self,
        host: str | None = None,
        advertised: str = "",
        on_error: Callable[[str], None] | None = None,
        kept: KeptRuns | None = None,
    ) -> None:
        self._report = on_error or (lambda text: print(f"emulator: {text}", file=sys.stderr))
        self._reported: set[str] = set()
        self._lock = threading.RLock()
        self._histories: OrderedDict[str, History] = OrderedDict()
        self._held: list[Observed] = []
        self._followers: list[Callable[[Message], None]] = []
        self._stack = ExitStack()
        self._kept = kept
        self._past = [] if kept is None else kept.jobs()
        self._collector = (
            None
            if host is None
            else Collector(host, advertised, self._receive_from_bus, self._report, self._find_lost_ranks)
        )
        self._misses: dict[tuple[str, int], int] = {}

    def __enter__(self) -> Self:
        """Start the collector, if there is one."""
        if self._collector is not None:
            self._stack.enter_context(self._collector)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop it."""
        self._stack.close()
        if self._kept is not None:
            self._kept.close()

    @property
    def variable(self) -> str:
        """The value of FMI_TELEMETRY_BUS; empty without a collector."""
        return "" if self._collector is None else str(self._collector.address)

    @contextmanager
    def history(self, job: str | None = None) -> Iterator[History]:
        """Give the history of a run, by default of the latest one, which does not change meanwhile."""
        with self._lock:
            if job is None:
                yield next(reversed(self._histories.values()), History())
            else:
                yield self._histories.get(job, History(job))

    def jobs(self) -> list[str]:
        """Return the runs, the latest last: those that are kept of earlier processes, and those of this one."""
        with self._lock:
            return [*(job for job in self._past if job not in self._histories), *self._histories]

    def past(self, job: str) -> History | None:
        """Return the history of a run of an earlier process; None if it is of this one, or unknown."""
        with self._lock:
            if job in self._histories or job not in self._past or self._kept is None:
                return None
        return self._kept.history(job)

    def follow(self, follower: Callable[[Message], None]) -> AbstractContextManager[None]:
        """Call `follower` with each message within the block, in the collector's thread."""

        @contextmanager
        def following() -> Iterator[None]:
            with self._lock:
                self._followers.append(follower)
            try:
                yield
            finally:
                with self._lock:
                    self._followers.remove(follower)

        return following()

    def receive(self, message: Message) -> None:
        """Add a message to the history of its run."""
        with self._lock:
            history = self._histories.get(message.job)
            if history is None:
                history = self._histories[message.job] = History(message.job)
                while len(self._histories) > _MOST_RUNS:
                    self._histories.popitem(last=False)
            history.apply(message)
            if self._kept is not None:
                self._kept.append(message)
            for follower in self._followers:
                follower(message)

    def read_line(self, line: LogLine, function: str) -> None:
        """Add what a log line of a function tells: events, or times of the latest run, which `settle` adds.

        Parameters
        ----------
        line
            The line.
        function
            What the function does in the run, for example ``execute``.
        """
        if line.kind is LineKind.EVENTS:
            self.read_events(line.text)
        elif line.phase is not None and line.phase.name != "communication":
            for began, ended in line.phase.intervals:
                self._held.append(
                    Observed(function, line.rank, line.phase.name, round(began * 1e9), round(ended * 1e9))
                )
        elif line.report is not None:
            ended = line.timestamp_ms * _MS
            began = ended - round(line.report.duration_ms * _MS)
            source, name = (function, "handler") if line.rank is not None else ("pipeline", function)
            self._held.append(Observed(source, line.rank, name, began, ended))
            if line.report.init_ms:
                cold = "cold start" if line.rank is not None else f"cold start of {function}"
                self._held.append(Observed(source, line.rank, cold, began - round(line.report.init_ms * _MS), began))

    def observe(self, job: str, event: Observed) -> None:
        """Add what the emulator has seen of a run."""
        self.receive(Message(job, None, 0, 0, (event,)))

    def read_events(self, text: str) -> None:
        """Add a message that a rank has written to its log, without the line's marker."""
        try:
            self.receive(decode(text))
        except EventError as error:
            if str(error) not in self._reported:
                self._reported.add(str(error))
                self._report(str(error))

    def wait_for_last_events(self, ranks: frozenset[int]) -> None:
        """Wait until the last events of these ranks, which have ended, are here; a moment at most.

        The times that logs told before belong to the latest run from then on.
        """
        deadline = time.monotonic() + _SETTLE_S
        while time.monotonic() < deadline:
            with self.history() as history:
                known = [history.ranks[rank] for rank in ranks if rank in history.ranks]
                if all(rank.closed is not None or not rank.started for rank in known):
                    break
            time.sleep(_PAUSE_S)
        with self.history() as history:
            job = history.job
        held, self._held = self._held, []
        if held:
            self.receive(Message(job, None, 0, 0, tuple(held)))

    def _receive_from_bus(self, message: Message) -> None:
        if message.rank is not None:
            self._misses[message.job, message.rank] = 0
        self.receive(message)

    def _find_lost_ranks(self) -> None:
        """Record the end of ranks that are not connected any more, and silent, in two checks: they cannot say it."""
        with self._lock:
            running = {
                (job, rank.rank)
                for job, history in self._histories.items()
                for rank in history.ranks.values()
                if rank.started and rank.closed is None
            }
        for key in list(self._misses):
            if key not in running:
                del self._misses[key]
            elif self._collector is not None and not self._collector.is_connected(*key):
                self._misses[key] += 1
                if self._misses[key] == _MISSES:
                    self._lose(*key)

    def _lose(self, job: str, rank: int) -> None:
        with self.history(job) as history:
            known = history.ranks[rank]
            now = max(0, time.time_ns() - known.epoch)
            events = (Failed(now, 0, _LOST, rank), Closed(now))
            dropped = known.dropped - known.dropped_before
            self.receive(Message(job, rank, known.next_message, dropped, events))

    def request_stacks(self) -> None:
        """Have the ranks of the latest run send their stacks, and wait for a moment until they are here."""
        if self._collector is None:
            return
        waiting: dict[int, int] = {}
        with self.history() as history:
            job, running = history.job, [rank.rank for rank in history.ranks.values() if rank.closed is None]
        for rank in running:
            with suppress(CommandError):
                waiting[rank] = self._collector.command(job, rank, "stacks")
        deadline = time.monotonic() + _ANSWER_S
        while waiting and time.monotonic() < deadline:
            with self.history(job) as history:
                answers = {rank: history.ranks[rank].stacks for rank in waiting}
            for rank, stacks in answers.items():
                if stacks is not None and stacks.request >= waiting[rank]:
                    del waiting[rank]
            time.sleep(_PAUSE_S)

    def strike(self, text: str) -> None:
        """Have ranks of the latest run fail now, as ``kill rank 2`` or ``stop rank 1 for 2s`` says.

        Raises
        ------
        FaultError
            If the text is invalid, names a rank that is not there, or a fault that cannot be applied now.
        CommandError
            If a rank is not connected.
        """
        with self.history() as history:
            job, size = history.job, history.world_size
        faults = parse_faults(text, size, 0)
        for fault in faults:
            check_immediate(fault)
        if self._collector is None:
            raise CommandError("ranks cannot fail on command: there is no bus: expected a local cloud with telemetry")
        for fault in faults:
            for rank in fault.ranks:
                self._collector.command(job, rank, "fault", str(fault))
