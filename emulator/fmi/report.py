"""The report at the end of a run: a table with one row per rank, the cost, and the relayed pairs of ranks."""

from collections.abc import Collection, Sequence

from emulator.aws.lambda_.log_lines import Report
from emulator.aws.prices import Cost, invocation_usd, s3_usd
from emulator.fmi.outcomes import RankOutcome, RunOutcome
from fmi_shim.log_lines import RelayNotice
from fmi_shim.prices import USD_PER_LAMBDA_REQUEST

_RATE = "sample_persec"


def run_cost(reports: Sequence[Report], tmp_mb: int, s3_requests: dict[str, int], orchestration: float = 0.0) -> Cost:
    """Return the cost of a run's invocations and S3 requests at AWS's list prices.

    Parameters
    ----------
    reports
        One report per invocation.
    tmp_mb
        Size of the functions' /tmp, MB.
    s3_requests
        Number of S3 requests by HTTP method.
    orchestration
        Cost of Step Functions, USD.
    """
    return Cost(
        compute=sum(invocation_usd(report.memory_mb, report.billed_ms, tmp_mb) for report in reports),
        requests=len(reports) * USD_PER_LAMBDA_REQUEST,
        storage=s3_usd(s3_requests),
        orchestration=orchestration,
    )


def run_table(outcome: RunOutcome) -> str:
    """Return the table of the ranks: cold start, duration, billed time, memory, rate and how each ended."""
    with_rate = any(_RATE in result for result in outcome.rank_results.values())
    header = ["rank", "cold start ms", "duration ms", "billed ms", "memory MB"]
    header += ["samples/s"] if with_rate else []
    rows = [[*header, "exit"]]
    rows += [
        [*_measures(rank), *(_rate(outcome, rank.rank) if with_rate else []), _exit(rank)]
        for rank in sorted(outcome.ranks, key=lambda rank: rank.rank)
    ]
    if with_rate:
        total = sum(_number(result.get(_RATE)) for result in outcome.rank_results.values())
        rows.append(["sum", "", "", str(_billed(outcome)), "", f"{total:.0f}", ""])
    return align(rows)


def cost_line(cost: Cost) -> str:
    """Return the cost in one line."""
    states = f", Step Functions {cost.orchestration:.6f}" if cost.orchestration else ""
    return (
        f"on AWS, at these durations: {cost.total:.6f} USD (Lambda {cost.compute:.6f}, "
        f"its requests {cost.requests:.6f}, S3 requests {cost.storage:.6f}{states})"
    )


def relays_line(notices: Collection[RelayNotice]) -> str:
    """Return one line that lists the relayed pairs of ranks, of which there is at least one."""
    pairs = {tuple(sorted((notice.rank, notice.peer))) for notice in notices}
    listed = ", ".join(f"{low}-{high}" for low, high in sorted(pairs))
    what = "1 pair of ranks was" if len(pairs) == 1 else f"{len(pairs)} pairs of ranks were"
    return f"{what} relayed through the rendezvous server, slower than a direct connection: {listed}"


def sanitize(text: str) -> str:
    """Replace characters that could control a terminal by spaces. Newlines are kept."""
    return "".join(character if character.isprintable() or character == "\n" else " " for character in text)


def align(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of strings as a table; all columns but the last are right-aligned."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row[:-1], widths, strict=False)]
        lines.append("  ".join([*cells, row[-1]]).rstrip())
    return "\n".join(lines)


def _measures(outcome: RankOutcome) -> list[str]:
    report = outcome.report
    if report is None:
        return [str(outcome.rank), "-", "-", "-", "-"]
    cold = "warm" if report.init_ms is None else f"{report.init_ms:.0f}"
    memory = f"{report.max_memory_mb}/{report.memory_mb}"
    return [str(outcome.rank), cold, f"{report.duration_ms:.0f}", str(report.billed_ms), memory]


def _rate(outcome: RunOutcome, rank: int) -> list[str]:
    return [f"{_number(outcome.rank_results.get(rank, {}).get(_RATE)):.0f}"]


def _exit(outcome: RankOutcome) -> str:
    return "ok" if outcome.failure is None else outcome.failure.error_type


def _billed(outcome: RunOutcome) -> int:
    return sum(rank.report.billed_ms for rank in outcome.ranks if rank.report is not None)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def run_record(outcome: RunOutcome, cost: Cost, seconds: float) -> dict[str, object]:
    """Return what `run_table` and `cost_line` show as JSON, for other programs.

    Parameters
    ----------
    outcome
        The ranks.
    cost
        Of the run.
    seconds
        Duration of the whole command.
    """
    return {
        "seconds": seconds,
        "ranks": [_rank_record(rank) for rank in sorted(outcome.ranks, key=lambda rank: rank.rank)],
        "usd": {
            "total": cost.total,
            "compute": cost.compute,
            "requests": cost.requests,
            "storage": cost.storage,
            "orchestration": cost.orchestration,
        },
        "results": {str(rank): dict(result) for rank, result in sorted(outcome.rank_results.items())},
    }


def _rank_record(outcome: RankOutcome) -> dict[str, object]:
    report = outcome.report
    measures = {
        "cold_start_ms": None if report is None else report.init_ms,
        "duration_ms": None if report is None else report.duration_ms,
        "billed_ms": None if report is None else report.billed_ms,
        "memory_mb": None if report is None else report.memory_mb,
        "max_memory_mb": None if report is None else report.max_memory_mb,
    }
    return {"rank": outcome.rank, **measures, "failure": None if outcome.failure is None else str(outcome.failure)}
