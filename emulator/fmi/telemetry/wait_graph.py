"""Where each rank of a run is now, and who waits for whom, in words. No I/O."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import fmi_shim
from emulator.fmi.telemetry.history import History, RankHistory

_SILENT_NS = 5_000_000_000
_MOST_FRAMES = 3
_MOST_LISTED = 12
_LIBRARY = str(Path(fmi_shim.__file__).parent)


def waiting_text(history: History, now: int) -> str:
    """Return a line for each rank that has not ended, and a line for each rank or circle that others wait for.

    Parameters
    ----------
    history
        The run.
    now
        The time, ns since 1970.
    """
    ranks = range(max(history.world_size, max(history.ranks, default=-1) + 1))
    if not ranks:
        return "no rank has opened a communicator"
    awaited = {rank: _awaited(history, rank) for rank in ranks}
    lines = [_line(history, rank, awaited[rank], now) for rank in ranks if not _has_ended(history, rank)]
    ended = [rank for rank in ranks if _has_ended(history, rank) and not history.ranks[rank].failures]
    lines += [
        f"rank {rank} has failed: {history.ranks[rank].failures[0].error}"
        for rank in ranks
        if _has_ended(history, rank) and rank not in ended
    ]
    if ended:
        lines.append(f"{named(ended)} {'has' if len(ended) == 1 else 'have'} closed the communicator")
    return "\n".join([*lines, *_conclusions(history, awaited)])


def state_words(history: History, rank: int) -> str:
    """Return what a rank does, in a few words: the call, or that it is in none."""
    known = history.ranks.get(rank)
    if known is None or not known.started:
        return "has not opened a communicator"
    if known.closed is not None:
        return "has failed" if known.failures else "has closed the communicator"
    plan, status = history.in_call(rank), known.status
    if plan is None or status is None:
        return "is in no call"
    name = known.communicators[plan.communicator][0][0] if plan.communicator in known.communicators else ""
    return f"is in {plan.operation} {status.number} of {name!r}"


def named(ranks: Sequence[int]) -> str:
    """Return ``rank 3``, or ``ranks 1, 2 and 5``."""
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    if len(ranks) > _MOST_LISTED:
        listed = ", ".join(map(str, ranks[:_MOST_LISTED]))
        return f"ranks {listed} and {len(ranks) - _MOST_LISTED} more"
    return f"ranks {', '.join(map(str, ranks[:-1]))} and {ranks[-1]}"


def _has_ended(history: History, rank: int) -> bool:
    return rank in history.ranks and history.ranks[rank].closed is not None


def _awaited(history: History, rank: int) -> int | None:
    """Return the rank that this one waits for: as its channel says, else one that is not in its collective."""
    found = history.awaited(rank)
    if found is not None:
        return found
    plan, known = history.in_call(rank), history.ranks.get(rank)
    if plan is None or known is None or known.status is None or plan.communicator not in known.communicators:
        return None
    if plan.peer is not None:
        return history.peer(rank, plan, plan.peer)
    communicator = known.communicators[plan.communicator][0]
    for own in range(known.communicators[plan.communicator][2]):
        other = history.member(communicator, own)
        if other is not None and other != rank and not _has_reached(history, other, communicator, known.status.number):
            return other
    return None


def _has_reached(history: History, rank: int, communicator: tuple[str, int], number: int) -> bool:
    """Return whether a rank is in this collective of the communicator, or beyond it."""
    known = history.ranks[rank]
    plan = history.in_call(rank)
    if plan is None or known.status is None or plan.communicator not in known.communicators:
        return False
    return known.communicators[plan.communicator][0] == communicator and known.status.number >= number


def _line(history: History, rank: int, awaited: int | None, now: int) -> str:
    known = history.ranks.get(rank)
    words = state_words(history, rank)
    if known is None or not known.started or known.status is None:
        return f"rank {rank} {words}"
    status, plan = known.status, history.in_call(rank)
    seconds = max(0, now - status.since) / 1e9
    if plan is not None:
        waits = f"waits for rank {awaited}" if awaited is not None else "works"
        words = f"{waits} in {plan.call}, call {status.number}"
    line = f"rank {rank} {words}, for {seconds:.1f} s, at {_place(known)}"
    silent = now - max(status.at, known.last_end)
    if silent > _SILENT_NS:
        line += f"; it has reported nothing for {silent / 1e9:.0f} s: its process has ended, is stopped or is in C code"
    return line


def _place(known: RankHistory) -> str:
    """Return the lines of the program that a rank is in, the innermost first."""
    status = known.status
    assert status is not None  # noqa: S101 - it has reported
    if known.stacks is None or known.stacks.at < status.since or not known.stacks.threads:
        return status.where
    frames = [frame for frame in known.stacks.threads[0] if not frame.startswith(_LIBRARY)]
    # What runs the program as __main__ is not its own.
    starts = [at for at, frame in enumerate(frames, 1) if frame.startswith("<frozen runpy>")]
    inner = list(reversed(frames[max(starts, default=0) :]))[:_MOST_FRAMES]
    return ", called from ".join(inner) or status.where


def _conclusions(history: History, awaited: Mapping[int, int | None]) -> list[str]:
    """Return who is at the end of each chain of waits, and which ranks wait in a circle."""
    ends: defaultdict[int, list[int]] = defaultdict(list)
    circles: dict[frozenset[int], list[int]] = {}
    waits_in_circle: defaultdict[frozenset[int], list[int]] = defaultdict(list)
    for rank in awaited:
        if awaited[rank] is None or _has_ended(history, rank):
            continue
        way = [rank]
        while (following := awaited.get(way[-1])) is not None and following not in way:
            way.append(following)
        if following is None:
            ends[way[-1]].append(rank)
        else:
            circle = way[way.index(following) :]
            key = frozenset(circle)
            circles.setdefault(key, circle)
            if rank not in key:
                waits_in_circle[key].append(rank)
    lines = []
    for last, waiting in sorted(ends.items(), key=lambda item: -len(item[1])):
        state = state_words(history, last)
        lines.append(f"{named(waiting)} {_wait(waiting)}, directly or through others, for rank {last}, which {state}")
    for key, circle in circles.items():
        start = circle.index(min(circle))
        ordered = circle[start:] + circle[:start]
        chain = ", which waits for ".join(f"rank {rank}" for rank in [*ordered[1:], ordered[0]])
        lines.append(f"deadlock: rank {ordered[0]} waits for {chain}")
        outside = waits_in_circle[key]
        if outside:
            lines.append(f"{named(outside)} {_wait(outside)} for that circle")
    return lines


def _wait(ranks: Sequence[int]) -> str:
    return "waits" if len(ranks) == 1 else "wait"
