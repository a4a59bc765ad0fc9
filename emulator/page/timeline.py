"""A run's timeline: one row per invocation, with its phases as SVG shapes."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from emulator.aws.lambda_.core.history import InvocationRecord, InvocationStatus
from emulator.fmi.event_rank import rank_of
from fmi_shim.log_lines import Phase

# Width of the drawing, which the browser stretches to the width of the page.
WIDTH = 10_000
# About one pixel: shapes closer together are merged, and no shape is narrower.
_PIXEL = 9
_MOST_ROWS = 1000
# Height of the rows in pixels, by the maximum number of rows.
_HEIGHTS = ((20, 24), (60, 16), (250, 6), (500, 4), (_MOST_ROWS, 2))
_LABEL_HEIGHT = 14
_LABEL_STEPS = (1, 5, 10)
_MOST_TICKS = 8

PhasesOf = Callable[[InvocationRecord], Sequence[Phase]]


class Activity(Enum):
    """What an invocation spent its time on."""

    WAIT = "wait"
    COLD_START = "cold start"
    DOWNLOAD = "download"
    COMPUTE = "compute"
    COMMUNICATION = "communication"

    @property
    def css(self) -> str:
        """Its class in the style sheet."""
        return self.value.replace(" ", "-")


@dataclass(frozen=True)
class Times:
    """The time that an invocation spent on each activity, seconds.

    Parameters
    ----------
    cold
        Its cold start; None if the sandbox was warm, or is not ready yet.
    download, communication
        None if the function did not write them.
    compute
        The rest of the handler's time; None before the handler runs.
    calls
        Number of communication calls.
    """

    cold: float | None
    download: float | None
    communication: float | None
    compute: float | None
    calls: int


@dataclass(frozen=True)
class Shape:
    """A part of a row: an SVG path."""

    part: Activity
    path: str


@dataclass(frozen=True)
class Row:
    """One invocation.

    Parameters
    ----------
    call
        The invocation.
    label
        Its rank, or its function.
    times
        Its times.
    y, height
        Position, pixels.
    is_labelled
        Whether its label fits.
    shapes
        The shapes; later ones are drawn over earlier ones.
    """

    call: InvocationRecord
    label: str
    times: Times
    y: int
    height: int
    is_labelled: bool
    shapes: tuple[Shape, ...]

    @property
    def has_failed(self) -> bool:
        """Whether it failed."""
        return self.call.status in (InvocationStatus.FAILED, InvocationStatus.TIMED_OUT, InvocationStatus.THROTTLED)


@dataclass(frozen=True)
class Tick:
    """A mark of the time axis: its position in percent, and its label."""

    percent: float
    text: str


@dataclass(frozen=True)
class Timeline:
    """A drawing of invocations over time.

    Parameters
    ----------
    rows
        One per invocation, at most a thousand.
    left_out
        Number of invocations without a row.
    height
        Height of the drawing, pixels.
    ticks
        The time axis.
    parts
        The activities that occur, in the order of the legend.
    spread
        Seconds from the first start of a rank to the last; None for fewer than two ranks.
    """

    rows: tuple[Row, ...]
    left_out: int
    height: int
    ticks: tuple[Tick, ...]
    parts: tuple[Activity, ...]
    spread: float | None


def timeline(calls: Sequence[InvocationRecord], phases_of: PhasesOf, start: float, end: float) -> Timeline:
    """Lay out invocations between two times.

    Parameters
    ----------
    calls
        The invocations, in the order of the rows.
    phases_of
        Returns the phases of an invocation.
    start, end
        Range of the time axis, seconds since 1970. Running invocations extend to its end.
    """
    shown = calls[:_MOST_ROWS]
    height = next(pixels for most, pixels in _HEIGHTS if len(shown) <= most)
    every = next(step for step in _LABEL_STEPS if step * height >= _LABEL_HEIGHT)
    scale = _Scale(start, max(end, start + 0.001))
    rows = []
    for index, call in enumerate(shown):
        phases = phases_of(call)
        gap = 2 if height > 4 else 0
        shapes = tuple(_shapes(call, phases, scale, index * height + gap // 2, height - gap))
        labelled = index % every == 0
        rows.append(Row(call, _label(call), times(call, phases, end), index * height, height, labelled, shapes))
    occurring = {shape.part for row in rows for shape in row.shapes}
    return Timeline(
        tuple(rows),
        len(calls) - len(shown),
        max(height, len(shown) * height),
        tuple(_ticks(scale.span)),
        tuple(part for part in Activity if part in occurring),
        start_spread(calls),
    )


def times(call: InvocationRecord, phases: Sequence[Phase], now: float) -> Times:
    """Return the time that an invocation spent on each activity.

    Parameters
    ----------
    call, phases
        The invocation and its phases.
    now
        Used as the end of a running invocation, seconds since 1970.
    """
    download = _sum(phases, "download")
    communication = _sum(phases, "communication")
    compute = None
    if (span := handler_span(call, now)) is not None:
        compute = max(0.0, span[1] - span[0] - (download or 0.0) - (communication or 0.0))
    calls = sum(phase.calls for phase in phases if phase.name == "communication")
    return Times(None if call.init_ms is None else call.init_ms / 1000, download, communication, compute, calls)


def handler_span(call: InvocationRecord, now: float) -> tuple[float, float] | None:
    """Return start and end of an invocation's handler, seconds since 1970; None if it has not started.

    The times of the record include the endpoint's own work. The duration of the handler is the billed time without the
    cold start.

    Parameters
    ----------
    call
        The invocation.
    now
        Used as the end of a running invocation.
    """
    if call.started is None:
        return None
    if call.ended is None or call.billed_ms is None:
        return call.started, call.ended or now
    return max(call.started, call.ended - (call.billed_ms - (call.init_ms or 0.0)) / 1000), call.ended


def start_spread(calls: Iterable[InvocationRecord]) -> float | None:
    """Return the time from the first start of a rank to the last, seconds; None if fewer than two have started."""
    starts = [call.started for call in calls if rank_of(call).rank is not None and call.started is not None]
    return max(starts) - min(starts) if len(starts) > 1 else None


@dataclass(frozen=True)
class _Scale:
    start: float
    end: float

    @property
    def span(self) -> float:
        return self.end - self.start

    def x(self, time: float) -> int:
        return round(min(max((time - self.start) / self.span, 0.0), 1.0) * WIDTH)


def _shapes(call: InvocationRecord, phases: Sequence[Phase], scale: _Scale, y: int, height: int) -> Iterable[Shape]:
    span = handler_span(call, scale.end)
    ready = call.started if call.started is not None else (call.ended or scale.end)
    cold_from = ready - (call.init_ms or 0.0) / 1000
    waits = [(call.received, max(call.received, cold_from))]
    parts: list[tuple[Activity, list[tuple[float, float]]]] = [(Activity.WAIT, waits)]
    if call.init_ms is not None:
        parts.append((Activity.COLD_START, [(cold_from, ready)]))
    if span is not None:
        begun, ended = span
        waits.append((ready, begun))
        parts.append((Activity.COMPUTE, [span]))
        for part in (Activity.DOWNLOAD, Activity.COMMUNICATION):
            said = [interval for phase in phases if phase.name == part.value for interval in phase.intervals]
            parts.append((part, [(max(begun, low), min(ended, high)) for low, high in said]))
    for part, spans in parts:
        merged = _merged([(scale.x(low), scale.x(high)) for low, high in spans if high > low])
        if part is Activity.WAIT:
            # A thin line: nothing runs, and nothing is billed.
            seen = [(low, high) for low, high in merged if high - low > _PIXEL]
            path = "".join(f"M{low} {y + height // 2}h{high - low}v1h{low - high}z" for low, high in seen)
        else:
            path = "".join(f"M{low} {y}h{high - low}v{height}h{low - high}z" for low, high in merged)
        if path:
            yield Shape(part, path)


def _merged(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return spans at least a pixel wide and a pixel apart."""
    merged: list[tuple[int, int]] = []
    for low, high in sorted(spans):
        high = max(high, low + _PIXEL)
        if merged and low - merged[-1][1] < _PIXEL:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return merged


def _ticks(span: float) -> Iterable[Tick]:
    """Yield the marks of the axis, whose distance is 1, 2 or 5 times a power of ten."""
    power = 1e-3
    steps = [factor * power * 10**exponent for exponent in range(9) for factor in (1, 2, 5)]
    step = next((step for step in steps if span / step <= _MOST_TICKS), steps[-1])
    for index in range(int(span / step) + 1):
        yield Tick(100 * index * step / span, _time(index * step, step))


def _time(seconds: float, step: float) -> str:
    if not seconds:
        return "0"
    if step < 0.1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if step < 1 else f"{seconds:.0f} s"


def _label(call: InvocationRecord) -> str:
    rank = rank_of(call).rank
    return call.function if rank is None else f"rank {rank}"


def _sum(phases: Sequence[Phase], name: str) -> float | None:
    found = [phase.seconds for phase in phases if phase.name == name]
    return sum(found) if found else None
