"""How many items of a distributed Map may fail."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Tolerance:
    """What a Map tolerates; where both are given, both hold. Where nothing is said, nothing is tolerated.

    Source: https://docs.aws.amazon.com/step-functions/latest/dg/state-map-distributed.html#maprun-fail-threshold

    Parameters
    ----------
    count
        How many items may fail, or None.
    percentage
        How many of a hundred, or None.
    """

    count: int | None = None
    percentage: float | None = None

    def exceeded(self, failed: int, total: int) -> bool:
        """Tell whether more have failed than is tolerated."""
        if self.count is None and self.percentage is None:
            return failed > 0
        if self.count is not None and failed > self.count:
            return True
        return self.percentage is not None and 100 * failed > self.percentage * total
