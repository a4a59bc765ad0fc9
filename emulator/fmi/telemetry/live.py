"""What the ranks of a run do now: a line for each rank, with rates, and whether the run makes progress. No I/O."""

from dataclasses import dataclass

from emulator.fmi.report import align
from emulator.fmi.telemetry.history import History
from emulator.fmi.telemetry.wait_graph import state_words

STALL_S = 60.0
"""A run is reported if no call ends for this time while a rank is in one."""
_RATE_NS = 1_000_000_000
_COLUMNS = ("rank", "calls", "calls/s", "MB/s", "memory MB", "for s", "state")


@dataclass(frozen=True)
class LiveRank:
    """What one rank does now.

    Parameters
    ----------
    rank
        The rank.
    state
        In words, with the rank that it waits for.
    seconds
        For how long.
    where
        The line of the program.
    calls
        Calls that have ended.
    call_rate, byte_rate
        Calls and bytes in a second, over the last second or longer.
    memory
        Resident memory, bytes.
    """

    rank: int
    state: str
    seconds: float
    where: str
    calls: int
    call_rate: float
    byte_rate: float
    memory: int


class Live:
    """Follows a run: computes rates, and detects that no call ends."""

    def __init__(self) -> None:
        self._counts: dict[int, tuple[int, int, int]] = {}
        self._rates: dict[int, tuple[float, float]] = {}
        self._ended = -1
        self._ended_at = 0
        self._is_reported = False

    def ranks(self, history: History, now: int) -> list[LiveRank]:
        """Return what each rank does at a time, ns since 1970."""
        return [self._rank(history, rank, now) for rank in range(max(history.world_size, len(history.ranks)))]

    def has_stalled(self, history: History, now: int) -> bool:
        """Return whether no call has ended for `STALL_S` while a rank is in one: True once, until one ends."""
        ended = sum(rank.operations.total() for rank in history.ranks.values())
        in_call = any(history.in_call(rank) is not None for rank in history.ranks)
        if ended != self._ended or not in_call:
            self._ended, self._ended_at, self._is_reported = ended, now, False
        if self._is_reported or now - self._ended_at < STALL_S * 1e9:
            return False
        self._is_reported = True
        return True

    def _rank(self, history: History, rank: int, now: int) -> LiveRank:
        known = history.ranks.get(rank)
        state = state_words(history, rank).removeprefix("is ").removeprefix("has ")
        if known is None or known.status is None:
            return LiveRank(rank, state, 0.0, "", 0, 0.0, 0.0, 0)
        calls, moved = known.operations.total(), known.bytes.total()
        before = self._counts.get(rank)
        if before is None or now - before[0] >= _RATE_NS:
            if before is not None:
                seconds = (now - before[0]) / 1e9
                self._rates[rank] = (calls - before[1]) / seconds, (moved - before[2]) / seconds
            self._counts[rank] = now, calls, moved
        awaited = history.awaited(rank)
        if awaited is not None:
            state += f", waits for rank {awaited}"
        call_rate, byte_rate = self._rates.get(rank, (0.0, 0.0))
        since = known.closed or known.status.since
        return LiveRank(
            rank,
            state,
            max(0, now - since) / 1e9,
            "" if known.closed is not None else known.status.where,
            calls,
            call_rate,
            byte_rate,
            known.status.memory,
        )


def live_text(ranks: list[LiveRank], height: int = 1000) -> str:
    """Return the lines for a terminal of this height; those that wait longest are kept."""
    room = max(1, height - 3)
    shown = sorted(sorted(ranks, key=lambda one: -one.seconds)[:room], key=lambda one: one.rank)
    rows = [
        (
            str(one.rank),
            str(one.calls),
            f"{one.call_rate:.0f}",
            f"{one.byte_rate / 1e6:.2f}",
            f"{one.memory / 1e6:.0f}",
            f"{one.seconds:.1f}",
            one.state + (f", at {one.where}" if one.where else ""),
        )
        for one in shown
    ]
    text = align([_COLUMNS, *rows])
    left_out = len(ranks) - len(shown)
    return f"{text}\nand {left_out} more ranks" if left_out else text
