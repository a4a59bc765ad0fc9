"""Plots the comparison: time against size, both logarithmic, one panel per operation and world size."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from benchmarks.figures import Figure

_COLOURS = 24
_STYLES = {
    "direct": ("#1f77b4", "o", "FMI direct (TCP)"),
    "shm": ("#d62728", "s", "FMI shared memory"),
    "mpi": ("#2ca02c", "^", "mpi4py, OpenMPI"),
    "gloo": ("#7f7f7f", "v", "torch, gloo"),
}


def draw(figures: Sequence[Figure], path: Path) -> None:
    """Write a PNG of all operations that have a size."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from PIL import Image  # matplotlib's own dependency

    sized = [figure for figure in figures if figure.size_bytes]
    operations = list(dict.fromkeys(figure.operation for figure in sized))
    worlds = sorted({figure.world_size for figure in sized})
    if not sized:
        return
    chart, axes = plt.subplots(
        len(operations),
        len(worlds),
        figsize=(3.2 * len(worlds) + 0.8, 2.6 * len(operations) + 0.8),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for row, operation in enumerate(operations):
        for column, world in enumerate(worlds):
            panel = axes[row][column]
            chosen = [figure for figure in sized if (figure.operation, figure.world_size) == (operation, world)]
            for name, (colour, marker, label) in _STYLES.items():
                points = [
                    (figure.size_bytes, figure.seconds[name] * 1e6) for figure in chosen if name in figure.seconds
                ]
                if points:
                    panel.plot(
                        *zip(*points, strict=True), color=colour, marker=marker, markersize=3, lw=1.2, label=label
                    )
            panel.set_xscale("log", base=2)
            panel.set_yscale("log")
            panel.grid(visible=True, which="major", alpha=0.3)
            panel.set_title(f"{operation}, N = {world}", fontsize=9)
    for panel in axes[-1]:
        panel.set_xlabel("bytes per rank")
    for panel in axes[:, 0]:
        panel.set_ylabel("us per call")
    handles, labels = axes[0][0].get_legend_handles_labels()
    chart.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    drawn = io.BytesIO()
    chart.savefig(drawn, dpi=90)
    plt.close(chart)
    with Image.open(drawn) as picture:
        picture.convert("RGB").quantize(_COLOURS).save(path, optimize=True)  # a third of the bytes
