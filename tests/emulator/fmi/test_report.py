"""The table and the cost at the end of a run."""

import pytest

from emulator.aws.lambda_.log_lines import Report
from emulator.aws.prices import step_functions_usd
from emulator.fmi.outcomes import FunctionFailure, RankOutcome, RunOutcome
from emulator.fmi.report import cost_line, relays_line, run_cost, run_table, sanitize
from fmi_shim.log_lines import RelayNotice


def test_the_table_has_a_row_a_rank_in_order_and_the_sums() -> None:
    ranks = (
        RankOutcome(1, Report("b", 2000.4, 1769, 300, None), FunctionFailure("Timeout", "late")),
        RankOutcome(0, Report("a", 1000.0, 1769, 250, 41.2), None),
    )
    table = run_table(RunOutcome(ranks, (), {0: {"sample_persec": 410.4}, 1: {"sample_persec": 395.0}}))
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


def test_a_rank_that_was_stopped_has_no_figures() -> None:
    table = run_table(RunOutcome((RankOutcome(0, None, FunctionFailure("Stopped", "late")),), ()))
    assert table.splitlines()[1].split() == ["0", "-", "-", "-", "-", "Stopped"]


def test_state_transitions_and_express_executions_are_priced() -> None:
    assert step_functions_usd(1000) == pytest.approx(0.025)
    # Two EXPRESS executions of 1 ms and 250 ms: four steps of 100 ms with 64 MB.
    express = 2 * 1e-06 + 0.4 * 64 / 1024 * 1.667e-05
    assert step_functions_usd(3, [1.0, 250.0]) == pytest.approx(3 * 2.5e-05 + express)
    cost = run_cost([], 512, {}, orchestration=0.5)
    assert cost.total == 0.5
    assert cost_line(cost).endswith("S3 requests 0.000000, Step Functions 0.500000)")


def test_the_relay_line_lists_each_relayed_pair_once() -> None:
    server = "203.0.113.10:10000"
    notices = {RelayNotice(2, 11, server), RelayNotice(11, 2, server), RelayNotice(3, 2, server)}
    assert relays_line(notices) == (
        "2 pairs of ranks were relayed through the rendezvous server, slower than a direct connection: 2-3, 2-11"
    )
    assert relays_line({RelayNotice(1, 0, server)}).startswith("1 pair of ranks was relayed")


def test_control_characters_are_replaced_by_spaces_except_newlines() -> None:
    assert sanitize("a\x1b[31mb\r\tc\nd é") == "a [31mb  c\nd é"
