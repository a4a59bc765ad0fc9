"""The table and the cost at the end of a run."""

import pytest

from emulator.log_lines import Report
from emulator.orchestration.job import Failure, RankOutcome, RunOutcome
from emulator.report.run_summary import cost_line, run_cost, run_table


def test_the_table_has_a_row_a_rank_in_order_and_the_sums() -> None:
    ranks = (
        RankOutcome(1, Report("b", 2000.4, 1769, 300, None), Failure("Timeout", "late")),
        RankOutcome(0, Report("a", 1000.0, 1769, 250, 41.2), None),
    )
    table = run_table(RunOutcome(ranks, (), ({"sample_persec": 410.4}, {"sample_persec": 395.0})))
    assert table.splitlines() == [
        "rank  cold start ms  duration ms  billed ms  memory MB  samples/s  exit",
        "   0             41         1000       1042   250/1769        410  ok",
        "   1           warm         2000       2001   300/1769        395  Timeout",
        " sum                                   3043                   805",
    ]


def test_without_rates_there_is_no_such_column() -> None:
    table = run_table(RunOutcome((RankOutcome(0, Report("a", 1.0, 128, 30, 20.0), None),), ()))
    assert table.splitlines()[0] == "rank  cold start ms  duration ms  billed ms  memory MB  exit"


def test_the_cost_is_time_by_memory_requests_tmp_and_s3() -> None:
    reports = [Report("a", 10_000.0, 1024, 1), Report("b", 9_000.0, 2048, 1, init_ms=1_000.0)]
    cost = run_cost(reports, 1536, {"PUT": 1000, "POST": 1, "GET": 10_000, "HEAD": 1, "DELETE": 5})
    assert cost.compute == pytest.approx((10 * 1 + 10 * 2) * 1.66667e-05 + 20 * 1 * 3.09e-08)
    assert cost.requests == pytest.approx(4e-07)
    assert cost.storage == pytest.approx(1001 * 5e-06 + 10_001 * 4e-07)
    assert cost_line(cost).startswith(f"on AWS, at these durations: {cost.total:.6f} USD")
