"""What a run will cost: a band before it starts, and the time that a limit of its cost leaves each rank."""

import json
import math
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from emulator.aws.prices import invocation_usd
from emulator.errors import EmulatorError
from emulator.fmi.deploy import EXECUTE_TMP_MB
from fmi_shim.prices import (
    USD_PER_LAMBDA_REQUEST,
    USD_PER_S3_GET,
    USD_PER_S3_PUT,
    USD_PER_SECRET_REQUEST,
    USD_PER_STATE_TRANSITION,
)

_HISTORY = "estimates/"
_KEPT = 10
# A rank without earlier runs to go by takes at least this long, s: its cold start and the download of the program.
_LEAST_S = 2.0
# Beside earlier runs, for what differs between two runs of one program.
_BELOW, _ABOVE = 0.8, 1.5
# Initialize, Size, the Map and Summarize; one state a rank.
_STATES = 4
_FUNCTIONS = 2
# Of each rank: its payload and its program are read, its claim and its success are written.
_GETS, _PUTS = 2, 2


class CostLimitError(EmulatorError):
    """The run would cost more than its limit."""


@dataclass(frozen=True)
class Estimate:
    """The cost of a run before it starts.

    Parameters
    ----------
    low_s, high_s
        A rank's time, seconds: from earlier runs of the same program, or from the least to the time limit.
    low_usd, high_usd
        The cost, USD.
    runs
        Number of earlier runs that it is derived from.
    """

    low_s: float
    high_s: float
    low_usd: float
    high_usd: float
    runs: int

    def __str__(self) -> str:
        """Return it in one line."""
        source = (
            f"from {self.runs} earlier runs" if self.runs else "no earlier run of this program; up to the time limit"
        )
        return (
            f"estimate: {self.low_s:.0f} to {self.high_s:.0f} s a rank, {self.low_usd:.4f} to {self.high_usd:.4f} USD "
            f"({source})"
        )


def fixed_usd(world_size: int) -> float:
    """Return what a run costs whatever its time, USD: requests, state transitions, S3 requests that are not its own."""
    return (
        (world_size + _FUNCTIONS) * USD_PER_LAMBDA_REQUEST
        + (world_size + _STATES) * USD_PER_STATE_TRANSITION
        + world_size * (_GETS * USD_PER_S3_GET + _PUTS * USD_PER_S3_PUT + USD_PER_SECRET_REQUEST)
    )


def run_usd(world_size: int, memory_mb: int, seconds: float) -> float:
    """Return the cost of a run whose ranks each take some seconds, USD."""
    return fixed_usd(world_size) + world_size * invocation_usd(memory_mb, math.ceil(seconds * 1000), EXECUTE_TMP_MB)


def estimate(world_size: int, memory_mb: int, timeout_s: int, earlier_s: list[float]) -> Estimate:
    """Return the estimate of a run.

    Parameters
    ----------
    world_size
        Number of ranks.
    memory_mb, timeout_s
        Memory (MB) and time limit (s) of a rank.
    earlier_s
        The mean times of a rank in earlier runs, seconds.
    """
    low_s = min(earlier_s) * _BELOW if earlier_s else min(_LEAST_S, timeout_s)
    high_s = min(max(earlier_s) * _ABOVE, timeout_s) if earlier_s else float(timeout_s)
    return Estimate(
        low_s,
        high_s,
        run_usd(world_size, memory_mb, low_s),
        run_usd(world_size, memory_mb, high_s),
        len(earlier_s),
    )


def time_limit(world_size: int, memory_mb: int, timeout_s: int, expected: Estimate, max_usd: float | None) -> int:
    """Return the time after which ranks stop themselves, seconds, since the run would cost more; 0 for no such limit.

    Raises
    ------
    CostLimitError
        If the run would cost more than `max_usd` even at the low end of the estimate.
    """
    if max_usd is None:
        return 0
    second = run_usd(world_size, memory_mb, 1) - fixed_usd(world_size)
    seconds = math.floor((max_usd - fixed_usd(world_size)) / second)
    if expected.low_usd > max_usd or seconds < 1:
        raise CostLimitError(
            f"{expected}, which is above --max-cost {max_usd}: give a higher limit, fewer ranks or less memory"
        )
    return 0 if seconds >= timeout_s else seconds


def read_earlier(s3: Any, bucket: str, key: str) -> list[float]:
    """Return the mean times of a rank in earlier runs with this key, seconds; none if there are none."""
    try:
        content = s3.get_object(Bucket=bucket, Key=f"{_HISTORY}{key}.json")["Body"].read()
        return [float(seconds) for seconds in json.loads(content)]
    except ClientError as error:
        if error.response["Error"]["Code"] != "NoSuchKey":
            raise
    except (ValueError, TypeError):
        pass  # Half written or foreign: without it the band is wider.
    return []


def write_earlier(s3: Any, bucket: str, key: str, seconds: float) -> None:
    """Add the mean time of a rank of a run that has succeeded, seconds."""
    known = [*read_earlier(s3, bucket, key), round(seconds, 3)][-_KEPT:]
    s3.put_object(Bucket=bucket, Key=f"{_HISTORY}{key}.json", Body=json.dumps(known).encode())
