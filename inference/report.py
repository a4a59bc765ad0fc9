"""The report of a run over all ranks: metrics with errors, figures and tables, as files."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from inference import metrics, plots
from inference.catalog import Floats
from inference.histogram import BIN_WIDTH, DzHistogram
from inference.metrics import Metrics, PartialSums
from inference.objects import CREDIT, Objects, to_ecsv, to_fits
from inference.stamps import Images


@dataclass(frozen=True, slots=True)
class Report:
    """Text for the terminal, and the content of the files by name."""

    text: str
    files: dict[str, bytes]


def make_report(
    sums: PartialSums,
    histogram: DzHistogram,
    tables: Sequence[Objects] | None,
    keys: Sequence[Sequence[str]],
    *,
    total_time: float,
    origins: Collection[str],
    examples: tuple[Images, Floats],
) -> Report:
    """Return the report of a run.

    Parameters
    ----------
    sums, histogram
        Over all galaxies, of which there is at least one.
    tables
        One table per rank; None if the galaxies were not gathered. The medians are then those of the histogram, and
        there is neither a table nor a figure of the redshifts.
    keys
        The partitions of each rank.
    total_time
        Of the slowest rank, seconds.
    origins
        What the partitions say of where their galaxies are from.
    examples
        Stamps of the best and worst predictions, float32 [k, 5, 32, 32], and their dz, z_spec and z_phot, [k, 3].
    """
    credit = "; ".join(sorted(origins)) or CREDIT
    files: dict[str, bytes] = {}
    details: dict[str, object] = {}
    lines = []
    if tables is not None:
        whole = Objects.concatenate(tables)
        found = metrics.compute_metrics(whole.z_spec, whole.z_phot, sums)
        errors = metrics.bootstrap(whole.z_spec, whole.z_phot)
        bins = metrics.tomographic_bins(whole.z_spec, whole.z_phot)
        details["medians_from"] = "gathered values"
        details["tomographic_bins"] = [dataclasses.asdict(one) for one in bins]
        lines = ["", metrics.format_bins(bins)]
        files["inference.png"] = plots.draw(whole.z_spec, whole.z_phot, whole.r, credit=credit)
        files["objects/redshifts.ecsv"] = to_ecsv(tables, keys, origins).encode()
        files["objects/redshifts.fits"] = to_fits(tables, keys, origins)
    else:
        found = metrics.combine(sums, histogram.spread())
        errors = _errors_without_values(sums, histogram)
        details["medians_from"] = f"histogram with bins of {BIN_WIDTH:g}"
        lines = [
            f"medians are from a histogram of dz with bins of {BIN_WIDTH:g}; the table and the figure of the galaxies, "
            "which needs all values, are left out"
        ]
    images, values = examples
    if len(images):
        files["stamps.png"] = plots.draw_stamps(images, values[:, 1], values[:, 2], credit)
    details["errors"] = {name: value for name, value in _finite(errors).items() if name != "n"}
    details["lsst_requirements"] = [
        {**dataclasses.asdict(one), "is_met": one.is_met} for one in metrics.lsst_requirements(found)
    ]
    reduced = {"total_time": total_time, **_finite(found), **details, "origins": sorted(origins)}
    files["ResultsReduce.json"] = json.dumps(reduced, indent=1).encode()
    return Report("\n".join([metrics.format_table(found, errors), *lines]), files)


def _errors_without_values(sums: PartialSums, histogram: DzHistogram) -> Metrics:
    """Return the standard errors that sums and histogram give: of mean absolute error, fractions, medians; else NaN."""
    means, n = sums.means(), sums.n
    spread = histogram.spread_errors()
    unknown = math.nan
    return Metrics(
        n=n,
        mae=math.sqrt(max(0.0, means["mse"] - means["mae"] ** 2) / n),
        mse=unknown,
        rmse=unknown,
        bias=unknown,
        outliers=math.sqrt(means["outliers"] * (1 - means["outliers"]) / n),
        catastrophic=math.sqrt(means["catastrophic"] * (1 - means["catastrophic"]) / n),
        r2=unknown,
        **dataclasses.asdict(spread),
    )


def _finite(values: Metrics) -> dict[str, float | None]:
    """Return the fields; None, JSON's null, for what is undefined, such as R2 without variance."""
    return {name: value if math.isfinite(value) else None for name, value in dataclasses.asdict(values).items()}
