"""What a run costs at the list prices of `fmi_shim.prices`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fmi_shim.prices import (
    USD_PER_EXPRESS_GB_SECOND,
    USD_PER_EXPRESS_REQUEST,
    USD_PER_GB_SECOND,
    USD_PER_S3_GET,
    USD_PER_S3_PUT,
    USD_PER_STATE_TRANSITION,
    USD_PER_TMP_GB_SECOND,
)

FREE_TMP_MB = 512
# The minimum charge of an EXPRESS execution: memory, and the granularity of time.
EXPRESS_MEMORY_MB = 64
EXPRESS_STEP_MS = 100


@dataclass(frozen=True)
class Cost:
    """The cost of a run, USD.

    Parameters
    ----------
    compute
        Memory times billed time.
    requests
        Invocations.
    storage
        S3 requests.
    orchestration
        Step Functions: state transitions, and EXPRESS executions.
    """

    compute: float
    requests: float
    storage: float
    orchestration: float = 0.0

    @property
    def total(self) -> float:
        """The sum."""
        return self.compute + self.requests + self.storage + self.orchestration


def invocation_usd(memory_mb: int, billed_ms: int, tmp_mb: int = FREE_TMP_MB) -> float:
    """Return the price of one invocation's duration: memory, and /tmp above the free 512 MB.

    Parameters
    ----------
    memory_mb, tmp_mb
        The function's memory and /tmp, MB.
    billed_ms
        Billed duration, ms.
    """
    seconds = billed_ms / 1000
    memory_gb, extra_tmp_gb = memory_mb / 1024, max(0, tmp_mb - FREE_TMP_MB) / 1024
    return seconds * (memory_gb * USD_PER_GB_SECOND + extra_tmp_gb * USD_PER_TMP_GB_SECOND)


def s3_usd(requests_by_method: dict[str, int]) -> float:
    """Return the price of S3 requests: PUT and POST at one price, GET and HEAD at another, DELETE free.

    A listing is an HTTP GET but costs as much as a PUT; it is counted as a GET, 0.0005 cents too low.
    """
    writes = requests_by_method.get("PUT", 0) + requests_by_method.get("POST", 0)
    reads = requests_by_method.get("GET", 0) + requests_by_method.get("HEAD", 0)
    return writes * USD_PER_S3_PUT + reads * USD_PER_S3_GET


def step_functions_usd(transitions: int, express_ms: Sequence[float] = ()) -> float:
    """Return the price of a run of a state machine.

    Parameters
    ----------
    transitions
        States entered in STANDARD executions, and retries.
    express_ms
        Durations of the EXPRESS executions, ms. Each is assumed to need 64 MB, the minimum charge.
    """
    steps = sum(math.ceil(duration / EXPRESS_STEP_MS) for duration in express_ms)
    gb_seconds = steps * EXPRESS_STEP_MS / 1000 * EXPRESS_MEMORY_MB / 1024
    return (
        transitions * USD_PER_STATE_TRANSITION
        + len(express_ms) * USD_PER_EXPRESS_REQUEST
        + gb_seconds * USD_PER_EXPRESS_GB_SECOND
    )
