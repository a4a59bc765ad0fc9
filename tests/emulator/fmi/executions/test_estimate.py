"""Estimates and limits of a run's cost."""

import pytest

from emulator.fmi.executions.estimate import CostLimitError, estimate, fixed_usd, run_usd, time_limit


def test_without_earlier_runs_the_band_reaches_to_the_time_limit() -> None:
    found = estimate(4, 1769, 900, [])
    assert (found.low_s, found.high_s, found.runs) == (2, 900, 0)
    assert found.low_usd < found.high_usd == run_usd(4, 1769, 900)
    # 4 ranks of 1769 MB for 900 s at 1.66667e-05 USD a GB-second, and 9.5 GB of /tmp at 3.09e-08.
    assert found.high_usd - fixed_usd(4) == pytest.approx(4 * 900 * (1769 / 1024 * 1.66667e-05 + 9.5 * 3.09e-08))


def test_earlier_runs_narrow_it() -> None:
    found = estimate(4, 1769, 900, [10.0, 20.0])
    assert (found.low_s, found.high_s, found.runs) == (8, 30, 2)
    assert "from 2 earlier runs" in str(found)
    assert estimate(4, 1769, 25, [10.0, 20.0]).high_s == 25


def test_a_limit_below_the_estimate_is_refused() -> None:
    with pytest.raises(CostLimitError, match=r"which is above --max-cost 0\.01: give a higher limit, fewer ranks"):
        time_limit(1000, 1769, 900, estimate(1000, 1769, 900, [10.0]), 0.01)


def test_ranks_end_before_they_cost_more_than_the_limit() -> None:
    expected = estimate(100, 1769, 900, [10.0])
    seconds = time_limit(100, 1769, 900, expected, 0.1)
    assert run_usd(100, 1769, seconds) <= 0.1 < run_usd(100, 1769, seconds + 1)
    assert time_limit(100, 1769, 900, expected, 1000.0) == 0
    assert time_limit(100, 1769, 900, expected, None) == 0
