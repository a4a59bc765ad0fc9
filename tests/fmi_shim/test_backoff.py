"""How long a rank pauses between two looks at a store."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmi_shim.backoff import PollBackoff, pauses, poll_without_sleep


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
