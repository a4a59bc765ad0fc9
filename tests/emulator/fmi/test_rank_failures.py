"""Which of several ranks' failures is the cause, and which are only its consequence."""

import pytest

from emulator.fmi.outcomes import STOPPED, is_victim
from fmi_shim import errors

CONSEQUENCES = {
    errors.PeerLostError,
    errors.PeerTimeoutError,
    errors.PeerFailedError,
    errors.PeerOverflowError,
    errors.BrokenCommunicatorError,
}
CAUSES = {errors.FmiError, errors.ConfigError, errors.RendezvousError, errors.StoreError, errors.MismatchError}
CAUSES |= {errors.ConcurrentCallError}


def test_every_error_of_the_library_is_a_cause_or_a_consequence() -> None:
    found = {value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)}
    assert found == CAUSES | CONSEQUENCES


@pytest.mark.parametrize("error", sorted(CONSEQUENCES, key=str))
def test_an_error_that_another_ranks_failure_raises_is_a_consequence(error: type[Exception]) -> None:
    assert is_victim(error.__name__)


@pytest.mark.parametrize("error", [*sorted(CAUSES, key=str), ValueError, OverflowError, TimeoutError])
def test_any_other_error_is_a_cause(error: type[Exception]) -> None:
    assert not is_victim(error.__name__)


def test_a_stopped_rank_is_a_consequence_and_a_rank_without_an_error_is_not() -> None:
    assert is_victim(STOPPED)
    assert not is_victim(None)
