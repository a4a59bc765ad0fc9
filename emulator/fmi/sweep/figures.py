"""The figures of a sweep as PNG: each axis that was varied against time, rate, memory and cost."""

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from emulator.fmi.sweep.fit import Fit, fit_world_size
from emulator.fmi.sweep.grid import AXES, Point
from emulator.fmi.sweep.published import COSMIC, HELLO, MEMORY, PublishedRun
from emulator.fmi.sweep.table import OK, Row

_LABELS = {
    "world_size": "ranks",
    "memory_mb": "memory of a rank, MB",
    "batch_size": "batch size",
    "partition_mb": "partition, MB",
    "data_gb": "data set, GB",
}
_COLOURS = ("#2b5c8a", "#d9772b", "#3d8f5f", "#8a3b6e", "#6b6b6b", "#b59a2a")
_MARKERS = "osD^v"


@dataclass(frozen=True)
class _Panel:
    title: str
    value: Callable[[Row], float]
    published: bool = False


def varied_axes(rows: Sequence[Row]) -> list[str]:
    """Return the axes that have several values among the runs that succeeded, without repetitions."""
    points = [row.point for row in rows if row.status == OK]
    return [name for name in _LABELS if len({getattr(point, name) for point in points} - {None}) > 1]


def world_size_fit(rows: Sequence[Row]) -> Fit | None:
    """Fit time against world size, over the runs that differ in nothing else from the largest such group."""
    groups: dict[Point, list[Row]] = {}
    for row in rows:
        if row.status == OK and row.point.world_size is not None:
            groups.setdefault(replace(row.point, world_size=None, repeat=1), []).append(row)
    if not groups:
        return None
    largest = max(groups.values(), key=len)
    return fit_world_size([row.ranks for row in largest], [row.seconds for row in largest])


def draw_axis(rows: Sequence[Row], axis: str) -> bytes:
    """Draw time, rate, memory and cost against one axis, one line for each setting of the others; return PNG.

    Published runs are drawn where they vary the same axis: those of the hello job and of one invocation are other
    programs, and show the shape alone.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    succeeded = [row for row in rows if row.status == OK and getattr(row.point, axis) is not None]
    panels = [_Panel("seconds", lambda row: row.seconds, published=True)]
    if any(row.samples_per_s for row in succeeded):
        panels.append(_Panel("samples/s, all ranks", lambda row: row.samples_per_s))
    panels.append(_Panel("memory used, MB, largest rank", lambda row: row.max_memory_mb))
    panels.append(_Panel("USD of memory, as configured", lambda row: row.usd_configured))
    figure = Figure(figsize=(4.6 * len(panels), 4.4), dpi=110, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False).flat, panels, strict=True):
        _lines(axes, succeeded, axis, panel)
        if panel.published:
            _published(axes, axis)
            if axis == "world_size" and (fit := world_size_fit(succeeded)) is not None:
                _fit(axes, fit, [row.ranks for row in succeeded])
        values = sorted(
            {float(place) for line in axes.get_lines() if line.get_marker() != "None" for place in line.get_xdata()}
        )
        axes.set_xscale("log", base=2)
        axes.set_xticks(values, [f"{value:g}" for value in values])
        axes.minorticks_off()
        axes.set(xlabel=_LABELS[axis], title=panel.title)
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=7)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _lines(axes: Any, rows: Sequence[Row], axis: str, panel: _Panel) -> None:
    groups: dict[Point, list[Row]] = {}
    for row in rows:
        others: dict[str, Any] = {axis: None, "repeat": 1}
        groups.setdefault(replace(row.point, **others), []).append(row)
    for number, (settings, group) in enumerate(groups.items()):
        colour, marker = _COLOURS[number % len(_COLOURS)], _MARKERS[number % len(_MARKERS)]
        places = [getattr(row.point, axis) for row in group]
        axes.plot(places, [panel.value(row) for row in group], marker, color=colour, ms=5)
        middles = sorted(set(places))
        means = [_mean([panel.value(row) for row in group if getattr(row.point, axis) == place]) for place in middles]
        axes.plot(middles, means, color=colour, lw=1.3, label=str(settings) or "measured")


def _published(axes: Any, axis: str) -> None:
    runs: Sequence[PublishedRun] = {"world_size": HELLO, "memory_mb": MEMORY}.get(axis, COSMIC)
    groups: dict[tuple[object, ...], list[PublishedRun]] = {}
    for run in runs:
        if getattr(run, axis) is not None:
            # One rank per partition: with the data set the world size varies, too.
            others = (run.source, *(getattr(run, name) for name in AXES[2:5] if name != axis))
            groups.setdefault(others, []).append(run)
    for number, (key, group) in enumerate(groups.items()):
        if len(group) < 2:
            continue
        source, settings = key[0], ", ".join(f"{value:g}" for value in key[1:] if isinstance(value, int | float))
        axes.plot(
            [getattr(run, axis) for run in group],
            [run.seconds for run in group],
            ":" + _MARKERS[number % len(_MARKERS)],
            color="#9aa0a6",
            ms=4,
            mfc="none",
            label=f"{source}{f' ({settings})' if settings else ''}",
        )


def _fit(axes: Any, fit: Fit, world_sizes: Sequence[int]) -> None:
    low, high = min(world_sizes), max(world_sizes)
    places = [low * (high / low) ** (step / 40) for step in range(41)]
    axes.plot(places, [fit.time(place) for place in places], "--", color="black", lw=1, label="a + b log2 N")
    axes.plot([low, high], [fit.mean, fit.mean], "-.", color="black", lw=1, label="constant")
    for size, residual in zip(world_sizes, fit.residuals, strict=False):
        if math.isfinite(residual):
            axes.plot([size, size], [fit.time(size), fit.time(size) + residual], color="#9aa0a6", lw=0.8)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
