"""Histories with given times, in milliseconds from their beginning."""

from collections.abc import Sequence
from dataclasses import dataclass

from emulator.fmi.telemetry.history import History
from fmi_shim.telemetry.events import Closed, Message, Opened, Operations, Planned, Stacks, Started, Status

MS = 1_000_000
EPOCH = 10**18


@dataclass(frozen=True)
class Made:
    """A call: what the rank does, from when to when (ms), its number, and the peer or the root."""

    operation: str
    began: float
    ended: float
    number: int = 0
    peer: int | None = None
    root: int | None = None
    size: int = 8
    channel: str = "Direct"


def made_history(*ranks: Sequence[Made], epochs: Sequence[int] = ()) -> History:
    """Return the history of ranks that made these calls in one communicator, each call with a plan of its own."""
    history = History("made")
    for rank, calls in enumerate(ranks):
        epoch = epochs[rank] if epochs else EPOCH
        plans = tuple(
            Planned(at, 0, call.operation, call.peer, call.root, "ring", call.channel, call.operation)
            for at, call in enumerate(calls)
        )
        rows = tuple(
            (at, call.number, round(call.began * MS), round((call.ended - call.began) * MS), call.size)
            for at, call in enumerate(calls)
        )
        host = f"host-{rank}" if epochs else "host"
        start = Started(0, len(ranks), 100 + rank, host, epoch), Opened(0, 0, "world", rank, len(ranks))
        history.apply(Message("made", rank, 0, 0, (*start, *plans, Operations.of(rows))))
    return history


def now_in(history: History, rank: int, plan: int | None, awaited: int | None, since: float, at: float) -> None:
    """Add that a rank is in the call of a plan, or in none, at a time, and waits for another rank."""
    status = Status(round(at * MS), plan, 0, round(since * MS), awaited, f"program.py:{rank} in main", 50_000_000)
    history.apply(Message("made", rank, history.ranks[rank].next_message, 0, (status,)))


def closed(history: History, rank: int, at: float) -> None:
    """Add that a rank has closed its communicator."""
    history.apply(Message("made", rank, history.ranks[rank].next_message, 0, (Closed(round(at * MS)),)))


def answered(history: History, rank: int, at: float, *frames: str) -> None:
    """Add the stack of a rank's main thread."""
    stacks = Stacks(round(at * MS), 1, (frames,))
    history.apply(Message("made", rank, history.ranks[rank].next_message, 0, (stacks,)))
