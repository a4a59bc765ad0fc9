"""The table of a sweep: one row per run, as CSV that every statistics program reads."""

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emulator.errors import EmulatorError
from emulator.fmi.sweep.grid import AXES, Point
from fmi_shim.prices import USD_PER_GB_SECOND

OK = "ok"
FAILED = "failed"


class SweepError(EmulatorError):
    """A sweep cannot be run or resumed."""


@dataclass(frozen=True)
class Row:
    """One run.

    Parameters
    ----------
    point
        Its settings.
    status
        ``ok`` or ``failed``.
    ranks
        Number of ranks; 0 if the run failed.
    seconds
        Duration of the whole command.
    duration_mean_s, duration_max_s
        Duration of the ranks' invocations, without cold starts.
    billed_s
        Billed time of all ranks.
    max_memory_mb
        The largest memory that a rank used.
    usd_total
        Price of the run on AWS: memory, requests, S3 and Step Functions.
    usd_configured, usd_used
        Price of the ranks' memory alone: of the memory that is configured, as AWS bills it, and of the memory that each
        rank used, as the published cost table has it.
    samples_per_s, throughput_bps
        Sums over the ranks' results; 0 if they have none.
    error
        The last line of a failed run.
    """

    point: Point
    status: str
    ranks: int = 0
    seconds: float = 0.0
    duration_mean_s: float = 0.0
    duration_max_s: float = 0.0
    billed_s: float = 0.0
    max_memory_mb: int = 0
    usd_total: float = 0.0
    usd_configured: float = 0.0
    usd_used: float = 0.0
    samples_per_s: float = 0.0
    throughput_bps: float = 0.0
    error: str = ""


_MEASURES = tuple(field.name for field in dataclasses.fields(Row) if field.name != "point")
_KINDS: dict[str, type[int] | type[float] | type[str]] = {
    name: type(getattr(Row(Point(None), OK), name)) for name in _MEASURES
}
COLUMNS = (*AXES, *_MEASURES)


def row_of(point: Point, record: Mapping[str, Any]) -> Row:
    """Return the row of a run that succeeded.

    Parameters
    ----------
    point
        Its settings.
    record
        Its `emulator.fmi.report.run_record`.
    """
    # On AWS, the line with a rank's measures may arrive after the end of the run, or never.
    ranks = [rank for rank in record["ranks"] if rank["duration_ms"] is not None]
    if not ranks:
        return Row(point, FAILED, error="no rank has a REPORT line")
    results = list(record["results"].values())
    return Row(
        point,
        OK,
        ranks=len(ranks),
        seconds=record["seconds"],
        duration_mean_s=sum(rank["duration_ms"] for rank in ranks) / len(ranks) / 1000,
        duration_max_s=max(rank["duration_ms"] for rank in ranks) / 1000,
        billed_s=sum(rank["billed_ms"] for rank in ranks) / 1000,
        max_memory_mb=max(rank["max_memory_mb"] for rank in ranks),
        usd_total=record["usd"]["total"],
        usd_configured=sum(_usd(rank, rank["memory_mb"]) for rank in ranks),
        usd_used=sum(_usd(rank, rank["max_memory_mb"]) for rank in ranks),
        samples_per_s=sum(_number(result, "sample_persec") for result in results),
        throughput_bps=sum(_number(result, "throughput_bps") for result in results),
    )


def to_csv(rows: Sequence[Row]) -> str:
    """Return the table as CSV; an axis that was not set is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        axes = ["" if value is None else value for value in dataclasses.astuple(row.point)]
        writer.writerow([*axes, *(_cell(getattr(row, name)) for name in _MEASURES)])
    return text.getvalue()


def read_csv(path: Path) -> list[Row]:
    """Read a table; none are the rows of a file that does not exist.

    Raises
    ------
    SweepError
        The file is not a sweep's table.
    """
    if not path.exists():
        return []
    try:
        return parse_csv(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, KeyError, csv.Error) as error:
        raise SweepError(
            f"{path}: expected the table of a sweep, got {error!r}: choose another --out, or delete the file"
        ) from None


def parse_csv(text: str) -> list[Row]:
    """Return the rows of a table; the inverse of `to_csv` up to nine digits."""
    return [_row(entry) for entry in csv.DictReader(io.StringIO(text, newline=""))]


def summary(rows: Sequence[Row]) -> str:
    """Return the rows that succeeded as text: time, memory and both costs."""
    lines = [
        f"{'run':<44} {'s':>8} {'rank s':>8} {'used MB':>8} {'configured USD':>15} {'used USD':>10} {'samples/s':>10}"
    ]
    lines += [
        f"{row.point!s:<44} {row.seconds:8.2f} {row.duration_mean_s:8.2f} {row.max_memory_mb:8d} "
        f"{row.usd_configured:15.6f} {row.usd_used:10.6f} {row.samples_per_s:10.0f}"
        for row in rows
        if row.status == OK
    ]
    return "\n".join(lines)


def _row(entry: dict[str, str]) -> Row:
    numbers = {name: int(entry[name]) if entry[name] else None for name in AXES if name != "data_gb"}
    point = Point(**{**numbers, "data_gb": float(entry["data_gb"]) if entry["data_gb"] else None})  # type: ignore[arg-type]
    if entry["status"] not in (OK, FAILED):
        raise ValueError(f"its status is {entry['status']!r}")
    measures: dict[str, Any] = {name: kind(entry[name]) for name, kind in _KINDS.items()}
    return Row(point, **measures)


def _cell(value: object) -> object:
    return f"{value:.9g}" if isinstance(value, float) else value


def _usd(rank: Mapping[str, Any], memory_mb: int) -> float:
    return float(rank["billed_ms"] / 1000 * memory_mb / 1024 * USD_PER_GB_SECOND)


def _number(result: Mapping[str, Any], key: str) -> float:
    value = result.get(key)
    return float(value) if isinstance(value, int | float) else 0.0
