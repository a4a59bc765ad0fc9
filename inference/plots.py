"""The figures of a run as PNG: predicted against spectroscopic redshifts, and the stamps with their predictions."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from inference.catalog import Floats
from inference.metrics import OUTLIER, Metrics, compute_metrics, residuals, sigma_nmad
from inference.stamps import Images

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, BLUE, ORANGE, GREY = "#22272e", "#2b5c8a", "#d9772b", "#8b949e"
CREDIT = "SDSS photometry and redshifts real; stamps rendered"
TREND_RESAMPLES = 100
MAX_DRAWN = 10_000  # galaxies of a bin in the bootstrap; the error of more is scaled
MIN_BIN_COUNT = 10  # galaxies in a bin that is drawn


def draw(
    z_spec: Floats,
    z_phot: Floats,
    r: Floats,
    title: str = "Photometric redshifts of SDSS galaxies",
    credit: str = CREDIT,
) -> bytes:
    """Draw the redshifts and return the figure as PNG.

    Parameters
    ----------
    z_spec, z_phot, r : float64 [n]
        Both redshifts, and the r magnitude.
    title, credit : str
        The credit says where the galaxies are from.

    Raises
    ------
    MetricsError
        There is no galaxy, or a redshift is not finite.
    """
    # Imported here: only one rank draws, and the import takes longer than a cold start.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    metrics = compute_metrics(z_spec, z_phot)
    dz = residuals(z_spec, z_phot)
    figure = Figure(figsize=(14.0, 7.0), dpi=110, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    panels = figure.subplot_mosaic(
        [["scatter", "scatter", "residuals", "counts"], ["scatter", "scatter", "redshift", "magnitude"]],
        width_ratios=[1.05, 1.05, 1.0, 1.0],
    )
    top = float(np.percentile(z_spec, 99.5)) * 1.1 if len(z_spec) > 1 else float(z_spec[0]) * 1.5 + 0.01
    points = _scatter(panels["scatter"], z_spec, z_phot, top, metrics)
    scale = figure.colorbar(points, cax=panels["scatter"].inset_axes((0.955, 0.25, 0.018, 0.3)))
    scale.set_label("galaxies per cell", fontsize=8, color=INK)
    scale.ax.yaxis.set_ticks_position("left")
    scale.ax.yaxis.set_label_position("left")
    scale.ax.tick_params(labelsize=8)
    scale.outline.set_visible(False)
    _residuals(panels["residuals"], dz, metrics)
    _counts(panels["counts"], z_spec, z_phot, top)
    panels["magnitude"].sharey(panels["redshift"])
    # Against z_spec every regression is biased towards the mean; in use only z_phot is known.
    _trend(panels["redshift"], z_phot, dz, "photometric redshift")
    _trend(panels["magnitude"], r, dz, "r magnitude")
    for panel in panels.values():
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(colors=INK, labelsize=9)
    figure.suptitle(title, fontsize=15, color=INK, x=0.01, ha="left", weight="bold")
    figure.supxlabel(
        f"{credit}   ·   dz = (z_phot - z_spec) / (1 + z_spec)", fontsize=9, color=GREY, x=0.99, ha="right"
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _scatter(panel: Axes, z_spec: Floats, z_phot: Floats, top: float, metrics: Metrics) -> Any:
    """Draw z_phot over z_spec as a density with the one-to-one line and the outlier limits; return the image."""
    from matplotlib.colors import LogNorm

    cells = int(np.clip(1.6 * np.sqrt(metrics.n), 40, 150))
    _, _, _, image = panel.hist2d(
        z_spec, z_phot, bins=cells, range=((0.0, top), (0.0, top)), cmin=1, norm=LogNorm(vmin=1), cmap="viridis"
    )
    line = np.array([0.0, top])
    panel.plot(line, line, color=INK, lw=1.0, label="one to one")
    for sign in (-1.0, 1.0):
        limit = line + sign * OUTLIER * (1.0 + line)
        label = f"± {OUTLIER} (1 + z)" if sign > 0 else None
        panel.plot(line, limit, color=ORANGE, lw=1.2, ls="--", label=label)
    panel.set(xlim=(0.0, top), ylim=(0.0, top), xlabel="spectroscopic redshift", ylabel="photometric redshift")
    panel.set_aspect("equal", anchor="W")
    panel.legend(loc="lower right", frameon=False, fontsize=9, borderaxespad=1.0)
    text = "\n".join(
        [
            f"N = {metrics.n:,}",
            f"MAE = {metrics.mae:.4f}",
            rf"$\sigma_{{NMAD}}$ = {metrics.sigma_nmad:.4f}",
            f"bias = {metrics.bias:+.4f}",
            rf"$\eta_{{{OUTLIER}}}$ = {metrics.outliers:.1%}",
            rf"$R^2$ = {metrics.r2:.3f}",
        ]
    )
    panel.text(0.03, 0.97, text, transform=panel.transAxes, va="top", fontsize=11, color=INK, linespacing=1.5)
    return image


def _residuals(panel: Axes, dz: Floats, metrics: Metrics) -> None:
    """Draw the distribution of dz with the Gaussian of the same median and sigma_NMAD."""
    limit = max(5.0 * metrics.sigma_nmad, 1e-3)
    edges = np.linspace(-limit, limit, 51)
    panel.hist(dz, bins=edges.tolist(), color=BLUE, alpha=0.85)
    if metrics.sigma_nmad > 0:
        height = metrics.n * (edges[1] - edges[0]) / (metrics.sigma_nmad * np.sqrt(2.0 * np.pi))
        curve = height * np.exp(-0.5 * ((edges - metrics.median_bias) / metrics.sigma_nmad) ** 2)
        panel.plot(edges, curve, color=ORANGE, lw=1.6, label=r"Gaussian of $\sigma_{NMAD}$")
        panel.legend(loc="upper right", frameon=False, fontsize=8)
        panel.set_ylim(top=1.25 * max(float(curve.max()), float(np.histogram(dz, edges)[0].max())))
    panel.axvline(0.0, color=INK, lw=0.8)
    panel.set(xlim=(-limit, limit), xlabel="dz", ylabel="galaxies", title="Residuals")
    panel.locator_params(axis="x", nbins=5)


def _counts(panel: Axes, z_spec: Floats, z_phot: Floats, top: float) -> None:
    """Draw the distributions of both redshifts in one panel."""
    edges = np.linspace(0.0, top, 41)
    panel.hist(z_spec, bins=edges.tolist(), color=GREY, alpha=0.45, label="spectroscopic")
    panel.hist(z_phot, bins=edges.tolist(), histtype="step", color=BLUE, lw=1.6, label="photometric")
    panel.legend(frameon=False, fontsize=8)
    panel.set(xlim=(0.0, top), xlabel="redshift", ylabel="galaxies", title="N(z)")


def _trend(panel: Axes, quantity: Floats, dz: Floats, label: str) -> None:
    """Draw the median of dz and sigma_NMAD with bootstrap errors in ten bins with equal numbers of galaxies."""
    edges = np.unique(np.percentile(quantity, np.linspace(0.0, 100.0, 11)))
    inside = [(quantity >= low) & (quantity <= high) for low, high in itertools.pairwise(edges)]
    full = [rows for rows in inside if rows.sum() >= MIN_BIN_COUNT]
    middles = [float(np.median(quantity[rows])) for rows in full]
    statistics: list[tuple[str, str, float, Callable[[Floats], float]]] = [
        ("median dz", ORANGE, 0.003, lambda values: float(np.median(values))),
        (r"$\sigma_{NMAD}$", BLUE, 0.02, sigma_nmad),
    ]
    generator = np.random.default_rng(0)
    for name, colour, required, statistic in statistics:
        values = [statistic(dz[rows]) for rows in full]
        errors = [_bootstrap_error(dz[rows], statistic, generator) for rows in full]
        panel.errorbar(middles, values, errors, fmt="o-", color=colour, ms=4, lw=1.4, capsize=2, label=name)
        panel.axhline(required, color=colour, lw=0.8, ls=":")
    panel.axhline(0.0, color=INK, lw=0.8)
    panel.legend(frameon=False, fontsize=8)
    panel.set(xlabel=label, title="Bias and scatter (dotted: LSST)")


def _bootstrap_error(values: Floats, statistic: Callable[[Floats], float], generator: np.random.Generator) -> float:
    drawn = values if len(values) <= MAX_DRAWN else values[:MAX_DRAWN]
    resamples = [statistic(drawn[generator.integers(0, len(drawn), len(drawn))]) for _ in range(TREND_RESAMPLES)]
    return float(np.std(resamples) * np.sqrt(len(drawn) / len(values)))


def draw_stamps(images: Images, z_spec: Floats, z_phot: Floats, credit: str = CREDIT) -> bytes:
    """Draw stamps as colour images with their redshifts, and return the figure as PNG.

    Parameters
    ----------
    images : float32 [k, 5, 32, 32], nanomaggies
        The first half are the best predictions, the second half the worst; k is even.
    z_spec, z_phot : float64 [k]
    credit : str
        Where the galaxies are from.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = max(1, len(images) // 2)
    figure = Figure(figsize=(max(6.0, 2.1 * columns), 5.6), dpi=110, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    dz = residuals(z_spec, z_phot)
    panels = figure.subplots(2, columns, squeeze=False)
    for panel in panels.flat:
        panel.set_axis_off()
    for panel, image, spectroscopic, photometric, residual in zip(
        panels.flat, images, z_spec, z_phot, dz, strict=False
    ):
        panel.imshow(colour_image(image), origin="lower", interpolation="nearest")
        panel.set_title(f"spec {spectroscopic:.3f}  phot {photometric:.3f}\ndz {residual:+.4f}", fontsize=9, color=INK)
    figure.suptitle("Best predictions (above) and worst (below)", fontsize=14, color=INK, x=0.01, ha="left")
    figure.supxlabel(f"{credit}   ·   i, r, g as red, green, blue", fontsize=8, color=GREY, x=0.99, ha="right")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def colour_image(image: Images) -> Images:
    """Return a stamp [5, 32, 32] as red, green and blue [32, 32, 3] from 0 to 1: bands i, r and g.

    One arcsinh stretch of the mean intensity keeps colours, as Lupton et al. (2004, PASP 116, 133).
    """
    bands = np.maximum(image[[3, 2, 1]].astype(np.float64), 0.0)
    intensity = bands.mean(axis=0)
    softening = max(3.0 * float(np.median(np.abs(image[1:4]))), 1e-6)
    stretched = np.arcsinh(intensity / softening) / max(1e-6, float(np.arcsinh(intensity.max() / softening)))
    colours = bands * np.where(intensity > 0, stretched / np.where(intensity > 0, intensity, 1.0), 0.0)
    largest = np.maximum(colours.max(axis=0), 1.0)
    return np.asarray(np.moveaxis(colours / largest, 0, 2), dtype=np.float32)
