"""The sums in the line of times."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmi_shim.telemetry.phase_line import Intervals


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=400))
def test_the_sums_are_exact_and_the_intervals_bounded_and_in_order(steps: list[tuple[float, float]]) -> None:
    intervals, now, total = Intervals(), 0.0, 0.0
    for pause, length in steps:
        intervals.add(now + pause, now + pause + length)
        now += pause + length
        total += length
    assert intervals.count == len(steps)
    assert intervals.seconds == pytest.approx(total)
    assert len(intervals.merged) <= 100
    assert intervals.merged == sorted(intervals.merged)
    assert sum(end - start for start, end in intervals.merged) >= total - 1e-6


def test_an_interval_within_the_last_one_does_not_shorten_it() -> None:
    intervals = Intervals()
    intervals.add(1.0, 5.0)
    intervals.add(2.0, 3.0)
    assert intervals.merged == [(1.0, 5.0)]
