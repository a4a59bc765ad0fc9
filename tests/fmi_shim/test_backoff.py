"""Deadlines, the pauses between two polls, and polling without sleep."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmi_shim.backoff import FIRST_PAUSE, Deadline, PollBackoff, jitter, pauses, poll_without_sleep, raise_limit


@given(st.floats(1e-4, 10))
def test_pauses_double_up_to_the_longest(longest: float) -> None:
    first = list(itertools.islice(pauses(longest), 8))
    assert first[0] == pytest.approx(longest / 16)
    assert [b / a for a, b in itertools.pairwise(first)][:4] == pytest.approx([2] * 4)
    assert first[4:] == pytest.approx([longest] * 4)


def test_a_restart_begins_with_the_first_pause_and_the_whole_time_again() -> None:
    slept: list[float] = []
    backoff = PollBackoff(1.6, 1000.0, slept.append)
    for restart in (False, False, False, True, False):
        assert backoff.pause(restart)
    assert slept == pytest.approx([0.1, 0.2, 0.4, 0.1, 0.2])


def test_pauses_end_after_the_longest_time_since_the_last_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    backoff = PollBackoff(16.0, 10.0, lambda _: None)
    now = 9.0
    assert backoff.pause(restart=True)
    now = 18.0
    assert backoff.pause()
    now = 19.0
    assert not backoff.pause()


@pytest.mark.parametrize(("true_at", "spins", "found"), [(1, 3, True), (3, 3, True), (4, 3, True), (10**9, 3, False)])
def test_polling_without_sleep_ends_when_ready_or_after_its_time(true_at: int, spins: int, found: bool) -> None:
    polls = 0

    def ready() -> bool:
        nonlocal polls
        polls += 1
        return polls >= true_at

    assert poll_without_sleep(ready, spins, 0.2) is found
    assert polls == true_at if found else polls > spins


def test_a_deadline_has_passed_when_its_seconds_are_over(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    deadline = Deadline(2.0)
    assert (deadline.end, deadline.remaining(), deadline.passed) == (102.0, 2.0, False)
    now = 101.5
    assert (deadline.remaining(), deadline.passed) == (0.5, False)
    now = 102.0
    assert (deadline.remaining(), deadline.passed) == (0.0, True)
    now = 110.0
    assert (deadline.remaining(), deadline.passed) == (0.0, True)


def test_a_deadline_of_no_seconds_never_passes() -> None:
    deadline = Deadline(None)
    assert (deadline.end, deadline.remaining(), deadline.passed) == (math.inf, None, False)


def test_the_first_pause_can_be_given() -> None:
    assert list(itertools.islice(pauses(10.0, 3.0), 4)) == [3.0, 6.0, 10.0, 10.0]
    assert list(itertools.islice(pauses(16.0), 3)) == [1.0, 2.0, 4.0]
    assert FIRST_PAUSE == 0.0625


def test_a_jitter_is_a_factor_between_its_bounds() -> None:
    assert jitter(3.0, 2.0, 2.0) == 6.0
    found = [jitter(10.0, 0.5, 1.5) for _ in range(100)]
    assert all(5.0 <= seconds <= 15.0 for seconds in found)
    assert len(set(found)) > 1


def test_a_pause_is_cut_at_the_end_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now, slept = 0.0, list[float]()
    monkeypatch.setattr("time.monotonic", lambda: now)
    backoff = PollBackoff(160.0, 11.0, slept.append)
    assert backoff.pause()
    now = 10.5
    assert backoff.pause()
    now = 11.0
    assert not backoff.pause()
    assert slept == [10.0, 0.5]


def test_polling_without_sleep_yields_the_processor_only_after_its_spins(monkeypatch: pytest.MonkeyPatch) -> None:
    now, yields = 0.0, 0

    def sched_yield() -> None:
        nonlocal now, yields
        now, yields = now + 1.0, yields + 1

    monkeypatch.setattr("time.monotonic", lambda: now)
    monkeypatch.setattr("os.sched_yield", sched_yield)
    assert poll_without_sleep(lambda: yields == 2, 3, 3.0) is True
    assert yields == 2
    assert poll_without_sleep(lambda: False, 3, 3.0) is False
    assert (yields, now) == (5, 5.0)
    assert poll_without_sleep(lambda: True, 1, 0.0) is True
    assert poll_without_sleep(lambda: True, 0, 0.0) is False


SECONDS = st.none() | st.floats(0, 1e6)


@given(SECONDS, SECONDS)
def test_the_earlier_of_two_deadlines_holds(call: float | None, wait: float | None) -> None:
    of_call = Deadline(call)
    joined = of_call.within(wait)
    assert joined.end <= of_call.end
    assert joined.seconds in (call, wait)
    assert joined.end == math.inf if call is None and wait is None else joined.end < math.inf
    assert joined.began >= of_call.began


@pytest.mark.parametrize(
    ("limit", "passed", "text"),
    [
        (2.0, 2.4, "2 s"),
        (0.5, 0.6, "0.5 s"),
        (100.0, 104.0, "100 s"),
        (5.0, 1.24, "1.2 s (limit 5 s)"),
        (5.0, 4.8, "4.8 s (limit 5 s)"),
        (5.0, 0.123, "0.12 s (limit 5 s)"),
        (1.0, 12.0, "12 s (limit 1 s)"),
        (None, 3.0, "3 s"),
    ],
)
def test_the_time_that_a_wait_took_is_said_and_its_limit(
    monkeypatch: pytest.MonkeyPatch, limit: float | None, passed: float, text: str
) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    waited = Deadline(limit)
    now += passed
    assert waited.elapsed == text


def test_a_wait_within_a_call_began_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    of_call = Deadline(5.0)
    now = 104.0
    waited = of_call.within(20.0)
    now = 105.0
    assert (waited.passed, waited.elapsed) == (True, "1 s (limit 5 s)")


def test_a_part_of_a_wait_ends_earlier_and_says_how_long_all_of_it_took(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    whole = Deadline(5.0)
    now = 102.0
    part = whole.shortened(2.0)
    assert (part.end, part.remaining(), whole.shortened(20.0).end) == (104.0, 2.0, 105.0)
    now = 104.0
    assert (part.passed, part.elapsed) == (True, "4 s (limit 5 s)")
    assert Deadline(None).shortened(2.0).end == 106.0


def test_the_limit_to_raise_is_that_which_passed() -> None:
    of_call = Deadline(1.0)
    assert raise_limit(of_call.within(None), of_call, "max_timeout") == "raise timeout if it needs longer"
    assert raise_limit(of_call.within(0.1), of_call, "max_timeout").startswith("raise max_timeout (ms, 0 for no limit)")


def test_progress_does_not_extend_the_last_instant() -> None:
    backoff = PollBackoff(1e-3, None, lambda seconds: None, last=Deadline(0.0))
    assert not backoff.pause()
    assert not backoff.pause(restart=True)
