"""How long a rank waits for a rendezvous server that cannot be reached."""

import pytest

from fmi_shim.backoff import Deadline
from fmi_shim.pairing.control_connection import ReconnectBackoff, ServerLostError

LOST = ServerLostError("lost")


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses, at their longest, since chance may halve each."""
    monkeypatch.setattr("random.uniform", lambda low, high: high)
    return []


def pause(backoff: ReconnectBackoff, slept: list[float], times: int) -> None:
    for _ in range(times):
        backoff.pause(LOST, lambda interest, seconds: slept.append(seconds) or set())  # type: ignore[func-returns-value]


def test_pauses_double_up_to_a_second(slept: list[float]) -> None:
    pause(ReconnectBackoff(Deadline(None)), slept, 7)
    assert slept == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0])


def test_pauses_restart_after_an_answer(slept: list[float]) -> None:
    backoff = ReconnectBackoff(Deadline(None))
    pause(backoff, slept, 3)
    backoff.record_answer()
    pause(backoff, slept, 2)
    assert slept == pytest.approx([0.05, 0.1, 0.2, 0.05, 0.1])


@pytest.mark.parametrize(("known", "seconds"), [(False, 2.0), (True, 60.0)])
def test_a_server_that_has_answered_before_is_retried_for_longer(
    known: bool, seconds: float, slept: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    backoff = ReconnectBackoff(Deadline(None), known)
    pause(backoff, slept, 1)
    now = seconds
    pause(backoff, slept, 1)
    now = seconds + 0.1
    with pytest.raises(ServerLostError):
        pause(backoff, slept, 1)
