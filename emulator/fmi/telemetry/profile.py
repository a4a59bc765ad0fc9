"""The profile of a run: where the time of its ranks went, and what to do about it. No I/O."""

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from emulator.fmi.report import align
from emulator.fmi.telemetry.history import Call, History, collectives
from emulator.fmi.telemetry.waits import Cause, Wait, by_pair, waits

_OPERATION_COLUMNS = ("calls", "in calls s", "waiting s", "spread ms", "last to begin", "operation")
_ALGORITHM_COLUMNS = ("channel", "calls", "bytes", "in calls s", "algorithm")
PROGRAM = "the program"
"""What a rank does between its calls."""
_MOST_PAIRS = 10
_MOST_RANKS_OF_PATH = 8
_SHORT_BYTES = 1024
_MANY_CALLS = 1000
_MUCH = 0.1
_MOST_OF_IT = 0.5
_HALF = 0.3


@dataclass(frozen=True)
class Segment:
    """A part of the critical path: what a rank did in a time, in nanoseconds by operation."""

    rank: int
    began: int
    ended: int
    parts: Mapping[str, int]


@dataclass(frozen=True)
class OperationProfile:
    """The calls of one operation, of all ranks.

    Parameters
    ----------
    operation
        Its name.
    calls
        Their number.
    seconds, waiting
        Their duration, and how much of it was waiting for a rank that had not begun.
    spread
        Mean time between the first and the last rank's begin, seconds; 0 for messages.
    last
        The rank that began last most often, and in which share of the calls; None for messages.
    """

    operation: str
    calls: int
    seconds: float
    waiting: float
    spread: float
    last: tuple[int, float] | None


@dataclass(frozen=True)
class AlgorithmProfile:
    """The calls that one algorithm executed through one channel, of all ranks."""

    channel: str
    operation: str
    algorithm: str
    calls: int
    bytes: int
    seconds: float


@dataclass(frozen=True)
class Profile:
    """Where the time of a run went.

    Parameters
    ----------
    ranks
        Number of ranks with calls.
    seconds
        From the first rank's first communicator to the end of the last call.
    in_calls, waiting
        The share of all ranks' time in calls, and in waits for ranks that had not begun theirs.
    pairs
        Seconds by waiting rank, late rank and cause, the longest first.
    path
        The critical path, from its end to its beginning.
    operations
        By operation, the longest first.
    algorithms
        By channel, operation and algorithm, most bytes first.
    dropped
        Calls that are missing, since ranks made more than could be recorded.
    """

    ranks: int
    seconds: float
    in_calls: float
    waiting: float
    pairs: Sequence[tuple[int, int, Cause, float]]
    path: Sequence[Segment]
    operations: Sequence[OperationProfile]
    algorithms: Sequence[AlgorithmProfile]
    dropped: int


def profile(history: History) -> Profile:
    """Return the profile of a run."""
    calls = {rank: sorted(history.calls(rank), key=lambda call: call.began) for rank in sorted(history.ranks)}
    calls = {rank: own for rank, own in calls.items() if own}
    if not calls:
        return Profile(0, 0.0, 0.0, 0.0, (), (), (), (), history.dropped + history.left_out)
    found = waits(history)
    began = min(min(history.ranks[rank].started, own[0].began) for rank, own in calls.items())
    ended = max(call.ended for own in calls.values() for call in own)
    # Calls of threads beside the program overlap: no more than the whole time is counted.
    time = max(1, (ended - began) * len(calls))
    in_calls = sum(call.ended - call.began for own in calls.values() for call in own)
    pairs = sorted(by_pair(found).items(), key=lambda item: -item[1])
    return Profile(
        len(calls),
        (ended - began) / 1e9,
        min(1.0, in_calls / time),
        min(1.0, sum(wait.duration for wait in found) / time),
        [(waiting, late, cause, duration / 1e9) for (waiting, late, cause), duration in pairs],
        _critical_path(calls, found, began),
        _by_operation(history, calls, found),
        _by_algorithm(calls),
        history.dropped + history.left_out,
    )


def _critical_path(calls: Mapping[int, list[Call]], found: Sequence[Wait], began: int) -> list[Segment]:
    """Walk back from the end of the last call: where a rank waited, the path is that of the rank it waited for."""
    of_rank: defaultdict[int, list[Wait]] = defaultdict(list)
    for wait in sorted(found, key=lambda wait: wait.released):
        of_rank[wait.waiting.rank].append(wait)
    releases = {rank: [wait.released for wait in own] for rank, own in of_rank.items()}
    # Calls that a thread makes beside others are not in the way of a path.
    begins = {rank: [call.began for call in own] for rank, own in calls.items()}
    rank = max(calls, key=lambda rank: max(call.ended for call in calls[rank]))
    time = max(call.ended for call in calls[rank])
    path: list[Segment] = []
    while True:
        at = bisect_left(releases.get(rank, []), time) - 1
        since = of_rank[rank][at].released if at >= 0 else began
        path.append(Segment(rank, since, time, _parts(calls.get(rank, []), begins.get(rank, []), since, time)))
        if at < 0:
            return path
        rank, time = of_rank[rank][at].late.rank, since


def _parts(calls: Sequence[Call], begins: Sequence[int], since: int, until: int) -> dict[str, int]:
    parts: Counter[str] = Counter()
    first = max(0, bisect_right(begins, since) - 1)
    last = bisect_left(begins, until)
    covered = since
    for call in calls[first:last]:
        start, end = max(covered, call.began), min(until, call.ended)
        if end > start:
            parts[call.plan.operation] += end - start
            covered = end
    rest = until - since - sum(parts.values())
    if rest > 0:
        parts[PROGRAM] = rest
    return dict(parts)


def _by_operation(history: History, calls: Mapping[int, list[Call]], found: Sequence[Wait]) -> list[OperationProfile]:
    durations: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for own in calls.values():
        for call in own:
            durations[call.plan.operation] += call.ended - call.began
            counts[call.plan.operation] += 1
    waiting: Counter[str] = Counter()
    for wait in found:
        # A posted receipt waits in its "wait".
        name = "wait" if wait.waiting.plan.operation == "arrived" else wait.waiting.plan.operation
        waiting[name] += wait.duration
    spreads: defaultdict[str, list[int]] = defaultdict(list)
    lasts: defaultdict[str, Counter[int]] = defaultdict(Counter)
    for group in collectives(history).values():
        if len(group) > 1:
            last = max(group.values(), key=lambda call: call.began)
            spreads[last.plan.operation].append(last.began - min(call.began for call in group.values()))
            lasts[last.plan.operation][last.rank] += 1
    profiles = []
    for operation, duration in durations.most_common():
        spread, last_ranks = spreads.get(operation, []), lasts.get(operation)
        profiles.append(
            OperationProfile(
                operation,
                counts[operation],
                duration / 1e9,
                waiting[operation] / 1e9,
                sum(spread) / len(spread) / 1e9 if spread else 0.0,
                (last_ranks.most_common(1)[0][0], last_ranks.most_common(1)[0][1] / len(spread))
                if last_ranks
                else None,
            )
        )
    return profiles


def _by_algorithm(calls: Mapping[int, list[Call]]) -> list[AlgorithmProfile]:
    counts: Counter[tuple[str, str, str]] = Counter()
    sizes: Counter[tuple[str, str, str]] = Counter()
    durations: Counter[tuple[str, str, str]] = Counter()
    for own in calls.values():
        for call in own:
            if call.plan.operation != "wait":
                key = call.plan.channel, call.plan.operation, call.plan.algorithm
                counts[key] += 1
                sizes[key] += call.size
                durations[key] += call.ended - call.began
    return [AlgorithmProfile(*key, counts[key], size, durations[key] / 1e9) for key, size in sizes.most_common()]


def advice(found: Profile) -> str | None:
    """Return one sentence on what would shorten the run; None where the figures allow none."""
    by_late: Counter[int] = Counter()
    for _, late, _, seconds in found.pairs:
        by_late[late] += round(seconds * 1e9)
    total = sum(by_late.values())
    if found.waiting > _MUCH and total:
        rank, most = by_late.most_common(1)[0]
        if most > _MOST_OF_IT * total:
            share = f"{most / total:.0%} of all waiting is for rank {rank}"
            return f"{share}: give rank {rank} less work, or shorten what it does before it calls {_calls_of(found)}"
        return (
            f"the ranks wait for each other in turn during {found.waiting:.0%} of their time: distribute the work more "
            f"evenly, or call {_calls_of(found)} less often"
        )
    working = found.in_calls - found.waiting
    if working <= _HALF or not found.algorithms:
        return None
    longest = max(found.algorithms, key=lambda one: one.seconds)
    mean = longest.bytes / longest.calls
    if longest.channel in ("S3", "Redis"):
        return (
            f"{working:.0%} of the time is spent in messages through {longest.channel}: enable Direct, which is faster "
            "by orders of magnitude"
        )
    if mean <= _SHORT_BYTES and longest.calls >= _MANY_CALLS:
        return (
            f"{working:.0%} of the time is spent in calls, most in {longest.calls} of {longest.operation} of "
            f"{mean:.0f} bytes each: combine their values into fewer, larger calls"
        )
    if mean > _SHORT_BYTES:
        return (
            f"{working:.0%} of the time is spent in calls, most in {longest.operation} of {_size(round(mean))} each: "
            "send less, in a shorter type, or while the program computes (iallreduce, isend)"
        )
    return None


def _calls_of(found: Profile) -> str:
    return max(found.operations, key=lambda one: one.waiting).operation


def profile_text(found: Profile) -> str:
    """Return the profile as text for a terminal."""
    if not found.ranks:
        return "profile: no calls were recorded"
    lines = [
        f"profile of {found.ranks} ranks over {found.seconds:.3f} s: {1 - found.in_calls:.0%} in the program, "
        f"{found.in_calls - min(found.waiting, found.in_calls):.0%} in calls, {found.waiting:.0%} waiting for a rank "
        "that had not begun its call"
    ]
    if found.dropped:
        lines.append(f"{found.dropped} calls are missing: the ranks made more than could be recorded")
    lines += ["", *_pairs_text(found), "", *_path_text(found), ""]
    lines += [align([_OPERATION_COLUMNS, *map(_operation_row, found.operations)]), ""]
    lines.append(align([_ALGORITHM_COLUMNS, *map(_algorithm_row, found.algorithms)]))
    sentence = advice(found)
    if sentence is not None:
        lines += ["", f"advice: {sentence}"]
    return "\n".join(lines)


def _operation_row(one: OperationProfile) -> tuple[str, ...]:
    spread, last = (
        ("", "") if one.last is None else (f"{one.spread * 1e3:.3f}", f"rank {one.last[0]} ({one.last[1]:.0%})")
    )
    return str(one.calls), f"{one.seconds:.3f}", f"{one.waiting:.3f}", spread, last, one.operation


def _algorithm_row(way: AlgorithmProfile) -> tuple[str, ...]:
    return way.channel, str(way.calls), _size(way.bytes), f"{way.seconds:.3f}", f"{way.operation}: {way.algorithm}"


def _pairs_text(found: Profile) -> list[str]:
    if not found.pairs:
        return ["no rank waited for another one that had not begun its call"]
    rows = [
        (f"rank {waiting}", f"rank {late}", f"{seconds:.3f}", cause.value)
        for waiting, late, cause, seconds in found.pairs[:_MOST_PAIRS]
    ]
    lines = [align([("waiting", "for", "s", "why"), *rows])]
    rest = found.pairs[_MOST_PAIRS:]
    if rest:
        lines.append(f"and {len(rest)} more pairs with {sum(pair[3] for pair in rest):.3f} s")
    return lines


def _path_text(found: Profile) -> list[str]:
    length, changes = sum(segment.ended - segment.began for segment in found.path), len(found.path) - 1
    by_rank: Counter[int] = Counter()
    parts: Counter[str] = Counter()
    for segment in found.path:
        by_rank[segment.rank] += segment.ended - segment.began
        parts.update(segment.parts)
    shares = ", ".join(
        f"rank {rank} {time / max(1, length):.0%}" for rank, time in by_rank.most_common(_MOST_RANKS_OF_PATH)
    )
    what = ", ".join(f"{name} {time / max(1, length):.0%}" for name, time in parts.most_common())
    return [
        f"critical path: {length / 1e9:.3f} s with {changes} change{'' if changes == 1 else 's'} of rank",
        f"  by rank: {shares}",
        f"  by what: {what}",
    ]


def _size(count: int) -> str:
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} B"
