"""Retriers: their delays and the errors they match."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.aws.stepfunctions.asl.retrying import Retrier, RetryCounts, matches

few = settings(max_examples=50)

retriers = st.builds(
    Retrier,
    st.just(("States.ALL",)),
    st.integers(1, 100),
    st.integers(0, 6),
    st.floats(1, 10),
    st.none() | st.integers(1, 1000),
    st.booleans(),
)


@few
@given(retriers)
def test_retries_are_limited_and_delays_grow_up_to_the_maximum(retrier: Retrier) -> None:
    counts = RetryCounts((retrier,))
    waits = []
    while (wait := counts.next_delay_s("Any")) is not None:
        waits.append(wait)
    assert len(waits) == retrier.max_attempts
    longest = [retrier.base_delay_s(retries) for retries in range(len(waits))]
    assert longest == sorted(longest)
    if retrier.max_delay_s is not None:
        assert all(wait <= retrier.max_delay_s for wait in longest)
    if retrier.jitter:
        assert all(0 <= wait <= most for wait, most in zip(waits, longest, strict=True))
    else:
        assert waits == longest


def test_a_delay_is_the_interval_times_the_rate_to_the_power_of_the_retries() -> None:
    retrier = Retrier(("E",), interval_s=3, max_attempts=4, backoff_rate=2.0, max_delay_s=20)
    counts = RetryCounts((retrier,))
    assert [counts.next_delay_s("E") for _ in range(5)] == [3, 6, 12, 20, None]
    assert Retrier(("E",), backoff_rate=1e9, max_delay_s=7).base_delay_s(10**6) == 7


def test_each_retrier_counts_its_own_retries_and_the_first_match_decides() -> None:
    counts = RetryCounts((Retrier(("A",), max_attempts=1), Retrier(("States.ALL",), interval_s=9, max_attempts=2)))
    assert [counts.next_delay_s(error) for error in ("A", "B", "A", "B", "B")] == [1, 9, None, 18, None]


@pytest.mark.parametrize(
    ("names", "error", "expected"),
    [
        (("A", "B"), "B", True),
        (("A",), "B", False),
        (("States.ALL",), "A", True),
        (("States.ALL",), None, True),
        (("States.ALL",), "States.Timeout", True),
        (("States.ALL",), "States.DataLimitExceeded", False),
        (("States.DataLimitExceeded",), "States.DataLimitExceeded", True),
        (("States.ALL", "States.Runtime"), "States.Runtime", False),
        (("States.TaskFailed",), "A", True),
        (("States.TaskFailed",), "States.Timeout", False),
        (("States.TaskFailed",), "States.HeartbeatTimeout", False),
        (("States.Timeout",), "States.HeartbeatTimeout", True),
    ],
)
def test_error_names_match_as_on_aws(names: tuple[str, ...], error: str | None, expected: bool) -> None:
    assert matches(names, error) is expected
