"""How the Lambda service runs functions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from emulator.aws.lambda_.core.cold_starts import ColdStarts
from emulator.aws.limits import ASYNC_RETRY_DELAYS_S, INIT_S

# AWS names no time; sandboxes have been seen to be kept for five to fifteen minutes.
_IDLE_S = 300.0


class RuntimeClient(Enum):
    """What calls Python handlers: the sandbox's own client in a fork, or AWS's client in a process that starts anew."""

    FORK = "fork"
    AWSLAMBDARIC = "awslambdaric"


@dataclass(frozen=True)
class LambdaSettings:
    """How the Lambda service runs functions.

    Parameters
    ----------
    retry_delays_s
        Waits before an event that failed is tried again, seconds; AWS waits one minute and then two.
    runtime_client
        What calls Python handlers.
    cold_starts
        How long cold starts take; None for as long as they take here.
    idle_s
        How long a sandbox is kept without an invocation, seconds.
    init_s
        When an init phase is cut off, seconds.
    annotate_event
        Called with each event, parsed; the result, which should be small, is kept in the invocation's record. None
        keeps nothing.
    """

    retry_delays_s: Sequence[float] = ASYNC_RETRY_DELAYS_S
    runtime_client: RuntimeClient = RuntimeClient.FORK
    cold_starts: ColdStarts | None = None
    idle_s: float = _IDLE_S
    init_s: float = INIT_S
    annotate_event: Callable[[Any], object] | None = None
