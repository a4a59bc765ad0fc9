"""The history of one run: what its ranks have reported so far, with one clock and one numbering of ranks. No I/O."""

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from fmi_shim.telemetry.events import (
    ROW_FIELDS,
    Closed,
    Connected,
    Event,
    Failed,
    Message,
    Observed,
    Opened,
    Operations,
    Phase,
    Planned,
    Stacks,
    Started,
    Status,
)

MAX_CALLS = 4_000_000
"""Calls of all ranks that are kept, 40 bytes each; later ones are counted."""
Communicator = tuple[str, int]
"""Its name, and how many of that name were opened before."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a rank.

    Parameters
    ----------
    rank
        The rank in the run.
    plan
        What it was, see `Planned`; the communicator is in `communicator`.
    communicator
        The communicator.
    number
        Its number, see `Row`.
    began, ended
        Nanoseconds since 1970.
    size
        Bytes of this rank's part.
    """

    rank: int
    plan: Planned
    communicator: Communicator
    number: int
    began: int
    ended: int
    size: int


@dataclass
class RankHistory:
    """What one rank has reported.

    Attributes
    ----------
    size
        Number of ranks, 0 until it has started.
    epoch
        Nanoseconds from its monotonic clock to the time since 1970.
    communicators
        By number in its process: the communicator, the rank's number in it, and the number of ranks in it.
    plans
        By number in its process.
    rows
        Rows of five, one after another.
    status
        What it did last.
    operations
        Number of calls that have ended, and their bytes, by operation.
    last_end
        When its last call ended, ns since 1970; 0 before.
    plans_before, communicators_before, dropped_before
        Those of the records of this rank that have ended: it counts anew when it has closed all communicators.
    """

    rank: int
    size: int = 0
    pid: int = 0
    host: str = ""
    epoch: int = 0
    started: int = 0
    closed: int | None = None
    communicators: dict[int, tuple[Communicator, int, int]] = field(default_factory=dict)
    plans: dict[int, Planned] = field(default_factory=dict)
    rows: "array[int]" = field(default_factory=lambda: array("q"))
    status: Status | None = None
    memory: list[tuple[int, int]] = field(default_factory=list)
    connections: list[Connected] = field(default_factory=list)
    phases: list[Phase] = field(default_factory=list)
    failures: list[Failed] = field(default_factory=list)
    stacks: Stacks | None = None
    drops: list[tuple[int, int]] = field(default_factory=list)
    missing: int = 0
    operations: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)
    last_end: int = 0
    names: Counter[str] = field(default_factory=Counter)
    next_message: int = 0
    plans_before: int = 0
    communicators_before: int = 0
    dropped_before: int = 0

    @property
    def dropped(self) -> int:
        """Calls that the rank has dropped, since the bus was full."""
        return self.drops[-1][1] if self.drops else 0


class History:
    """The history of one run.

    Attributes
    ----------
    job
        The run, which FMI_JOB names.
    ranks
        The ranks that have reported anything.
    is_past
        Whether it is the record of a run that has ended with an earlier endpoint.
    observed
        What the emulator has seen of the run, besides its ranks, by who has seen it.
    left_out
        Calls beyond `MAX_CALLS`.
    latest
        Time of the latest event, ns since 1970.
    """

    def __init__(self, job: str = "") -> None:
        self.job = job
        self.is_past = False
        self.ranks: dict[int, RankHistory] = {}
        self.left_out = 0
        self.latest = 0
        self.observed: dict[str, list[Phase]] = {}
        self._epochs: dict[str, int] = {}
        self._kept = 0
        self._members: defaultdict[Communicator, dict[int, int]] = defaultdict(dict)

    @property
    def world_size(self) -> int:
        """Number of ranks of the run, as far as known."""
        return max((rank.size for rank in self.ranks.values()), default=0)

    @property
    def has_ended(self) -> bool:
        """Whether all ranks have closed their communicators, or failed, or the run is of an earlier process."""
        return self.is_past or (bool(self.ranks) and all(rank.closed is not None for rank in self.ranks.values()))

    @property
    def dropped(self) -> int:
        """Calls that ranks have dropped."""
        return sum(rank.dropped for rank in self.ranks.values())

    def apply(self, message: Message) -> None:
        """Add the events of a message."""
        if message.rank is None:
            for event in message.events:
                if isinstance(event, Observed):
                    self.observe(event)
            return
        rank = self.ranks.get(message.rank)
        if rank is None:
            rank = self.ranks[message.rank] = RankHistory(message.rank)
        restarted = any(isinstance(event, Started) for event in message.events) and message.number == 0
        if restarted:
            # The rank counts anew.
            rank.plans_before = max(rank.plans, default=-1) + 1
            rank.communicators_before = max(rank.communicators, default=-1) + 1
            rank.dropped_before = rank.dropped
        elif message.number > rank.next_message:
            rank.missing += message.number - rank.next_message - (message.dropped > rank.dropped)
        rank.next_message = message.number + 1
        for event in message.events:
            self._apply(rank, event)
        dropped = rank.dropped_before + message.dropped
        if dropped > rank.dropped:
            rank.drops.append((self.latest, dropped))

    def observe(self, event: Observed) -> None:
        """Add what the emulator has seen."""
        phase = Phase(event.name, event.began, event.ended)
        if event.rank is None:
            self.observed.setdefault(event.source, []).append(phase)
        else:
            self.ranks.setdefault(event.rank, RankHistory(event.rank)).phases.append(phase)

    def calls(self, rank: int) -> Iterator[Call]:
        """Return the calls of a rank in the order in which they ended, without waits for posted messages' arrivals."""
        return (call for call in self._rows(rank) if call.plan.operation != "arrived")

    def arrivals(self, rank: int) -> Iterator[Call]:
        """Return the waits in which posted messages arrived, as calls of their receipts."""
        return (call for call in self._rows(rank) if call.plan.operation == "arrived")

    def peer(self, rank: int, plan: Planned, own: int | None) -> int | None:
        """Return the rank in the run of a rank of a plan's communicator; None if it is unknown."""
        found = self.ranks[rank].communicators.get(plan.communicator)
        return None if found is None or own is None else self._members[found[0]].get(own)

    def member(self, communicator: Communicator, own: int) -> int | None:
        """Return the rank in the run of a communicator's rank; None if it is unknown."""
        return self._members[communicator].get(own)

    def in_call(self, rank: int) -> Planned | None:
        """Return the call that a rank is in; None between calls, and if that is unknown."""
        known = self.ranks.get(rank)
        if known is None or known.status is None or known.status.plan is None or known.closed is not None:
            return None
        return known.plans.get(known.status.plan)

    def awaited(self, rank: int) -> int | None:
        """Return the rank that a rank waits for; None if it waits for none, or that is unknown."""
        plan = self.in_call(rank)
        status = self.ranks[rank].status if plan is not None else None
        return None if plan is None or status is None else self.peer(rank, plan, status.awaited)

    def _rows(self, rank: int) -> Iterator[Call]:
        known = self.ranks[rank]
        rows = known.rows
        for at in range(0, len(rows), ROW_FIELDS):
            plan, number, began, duration, size = rows[at : at + ROW_FIELDS]
            found = known.plans.get(plan)
            if found is not None and found.communicator in known.communicators:
                communicator = known.communicators[found.communicator][0]
                yield Call(rank, found, communicator, number, began, began + duration, size)

    def _apply(self, rank: RankHistory, event: Event) -> None:
        match event:
            case Started():
                # Clocks are compared as of one instant on each machine: steps of the clock do not part its ranks.
                rank.epoch = self._epochs.setdefault(event.host, event.epoch)
                rank.size, rank.pid, rank.host = event.size, event.pid, event.host
                rank.started, rank.closed = rank.epoch + event.at, None
            case Opened():
                name = event.name, rank.names[event.name]
                rank.names[event.name] += 1
                number = rank.communicators_before + event.communicator
                rank.communicators[number] = name, event.rank, event.size
                self._members[name][event.rank] = rank.rank
            case Planned():
                plan, number = rank.plans_before + event.plan, rank.communicators_before + event.communicator
                rank.plans[plan] = replace(event, plan=plan, communicator=number)
            case Operations():
                self._add_rows(rank, event)
            case Connected():
                rank.connections.append(replace(event, at=rank.epoch + event.at))
            case Status():
                in_call = None if event.plan is None else rank.plans_before + event.plan
                rank.status = replace(event, at=rank.epoch + event.at, since=rank.epoch + event.since, plan=in_call)
                rank.memory.append((rank.status.at, event.memory))
                self.latest = max(self.latest, rank.status.at)
            case Phase():
                rank.phases.append(Phase(event.name, rank.epoch + event.began, rank.epoch + event.ended))
            case Failed():
                rank.failures.append(replace(event, at=rank.epoch + event.at))
            case Stacks():
                rank.stacks = replace(event, at=rank.epoch + event.at)
            case Closed():
                rank.closed = rank.epoch + event.at
                self.latest = max(self.latest, rank.closed)

    def _add_rows(self, rank: RankHistory, event: Operations) -> None:
        """Add rows. With numpy, since a loop over them would take most of the endpoint's time."""
        rows = np.array(event.numbers).reshape(-1, ROW_FIELDS)
        rows[:, 0] += rank.plans_before
        rows[:, 2] += rank.epoch
        plans, row_plans, counts = np.unique(rows[:, 0], return_inverse=True, return_counts=True)
        sizes = np.zeros(len(plans), np.int64)
        np.add.at(sizes, row_plans, rows[:, 4])
        for plan, count, size in zip(plans.tolist(), counts.tolist(), sizes.tolist(), strict=True):
            known = rank.plans.get(plan)
            if known is None:
                rank.missing += count
                rows = rows[rows[:, 0] != plan]
            elif known.operation != "arrived":
                rank.operations[known.operation] += count
                rank.bytes[known.operation] += size
        kept = rows[: max(0, MAX_CALLS - self._kept)]
        self.left_out += len(rows) - len(kept)
        self._kept += len(kept)
        rank.rows.frombytes(kept.tobytes())
        rank.last_end = max(rank.last_end, int((rows[:, 2] + rows[:, 3]).max(initial=0)))
        self.latest = max(self.latest, rank.last_end)


def message_key(call: Call, history: History) -> tuple[Communicator, int, int, int] | None:
    """Return what a send and its receipt have in common: communicator, sender, receiver and number; None otherwise."""
    plan = call.plan
    own = history.ranks[call.rank].communicators[plan.communicator][1]
    if plan.peer is None:
        return None
    if plan.operation in ("send", "isend"):
        return call.communicator, own, plan.peer, call.number
    if plan.operation in ("recv", "irecv", "arrived"):
        return call.communicator, plan.peer, own, call.number
    return None


def collectives(history: History) -> dict[tuple[Communicator, int], dict[int, Call]]:
    """Return the collectives, by communicator and number: each rank's call of it."""
    found: defaultdict[tuple[Communicator, int], dict[int, Call]] = defaultdict(dict)
    for rank in history.ranks:
        for call in history.calls(rank):
            if call.plan.peer is None and call.plan.operation != "wait":
                found[call.communicator, call.number][rank] = call
    return dict(found)


def messages(history: History) -> Iterator[tuple[Call, Call]]:
    """Return each message whose both ends are known: the send, and the call in which it was received."""
    sends: dict[object, Call] = {}
    receipts: dict[object, Call] = {}
    for rank in history.ranks:
        for call in history.calls(rank):
            key = message_key(call, history)
            if key is not None:
                (sends if call.plan.operation in ("send", "isend") else receipts)[key] = call
        for call in history.arrivals(rank):
            receipts[message_key(call, history)] = call
    for sent, send in sends.items():
        if sent in receipts:
            yield send, receipts[sent]
