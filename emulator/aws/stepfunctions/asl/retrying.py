"""Retriers and catchers: which errors they match, and the delay before each retry."""

import random
from dataclasses import dataclass

from emulator.aws.stepfunctions.asl.expressions import Expression, ReferencePath
from emulator.aws.stepfunctions.asl.failures import (
    ALL,
    DATA_LIMIT_EXCEEDED,
    HEARTBEAT_TIMEOUT,
    RUNTIME,
    TASK_FAILED,
    TIMEOUT,
)

# The language's defaults: https://states-language.net/#errors
DEFAULT_INTERVAL_S = 1
DEFAULT_MAX_ATTEMPTS = 3
DEFAULT_BACKOFF_RATE = 2.0


@dataclass(frozen=True)
class Retrier:
    """One entry of a state's Retry.

    Parameters
    ----------
    errors
        The names of the errors it matches.
    interval_s
        Delay before the first retry, seconds.
    max_attempts
        Maximum number of retries.
    backoff_rate
        The factor from each delay to the next.
    max_delay_s
        Maximum delay, seconds, or None.
    jitter
        Whether a delay is chosen at random between 0 and its full length.
    """

    errors: tuple[str, ...]
    interval_s: float = DEFAULT_INTERVAL_S
    max_attempts: int = DEFAULT_MAX_ATTEMPTS
    backoff_rate: float = DEFAULT_BACKOFF_RATE
    max_delay_s: float | None = None
    jitter: bool = False

    def base_delay_s(self, retries: int) -> float:
        """Return the delay before the next retry after `retries` retries, without jitter, in seconds."""
        try:
            delay_s = self.interval_s * self.backoff_rate**retries
        except OverflowError:
            delay_s = float("inf")
        return delay_s if self.max_delay_s is None else min(delay_s, self.max_delay_s)


class RetryCounts:
    """The number of retries by each retrier of a state, in one execution of the state.

    Parameters
    ----------
    retriers
        The state's retriers, in their order.
    """

    def __init__(self, retriers: tuple[Retrier, ...]) -> None:
        self._retriers = retriers
        self._used = [0] * len(retriers)

    def next_delay_s(self, error: str | None) -> float | None:
        """Return the delay before the next retry, in seconds, or None if the state is not retried.

        The first retrier that matches the error decides, even if its attempts are used up.
        """
        for index, retrier in enumerate(self._retriers):
            if matches(retrier.errors, error):
                if self._used[index] >= retrier.max_attempts:
                    return None
                delay_s = retrier.base_delay_s(self._used[index])
                self._used[index] += 1
                return random.uniform(0, delay_s) if retrier.jitter else delay_s  # noqa: S311 - spreads load
        return None


@dataclass(frozen=True)
class Catcher:
    """One entry of a state's Catch.

    Parameters
    ----------
    errors
        The names of the errors it matches.
    next
        The next state.
    result_path
        The path in the state's input at which Error and Cause are inserted; None leaves the input unchanged.
    assign
        Sets variables from Error and Cause, or None.
    """

    errors: tuple[str, ...]
    next: str
    result_path: ReferencePath | None
    assign: Expression | None = None


def matches(names: tuple[str, ...], error: str | None) -> bool:
    """Return whether the ErrorEquals of a retrier or catcher match an error.

    Source: https://docs.aws.amazon.com/step-functions/latest/dg/concepts-error-handling.html. States.Runtime never
    matches, States.ALL does not match States.DataLimitExceeded, and States.TaskFailed matches all but timeouts.
    """
    if error == RUNTIME:
        return False
    if error in names:
        return True
    if error == DATA_LIMIT_EXCEEDED:
        return False
    if error == HEARTBEAT_TIMEOUT and TIMEOUT in names:
        return True
    return ALL in names or (TASK_FAILED in names and error not in (TIMEOUT, HEARTBEAT_TIMEOUT))
