"""An account in a region: what ARNs name, and what keeps equal names of resources apart."""

from dataclasses import dataclass

from emulator.aws.limits import ACCOUNT_ID, REGION


@dataclass(frozen=True)
class Account:
    """An account in a region.

    Parameters
    ----------
    region
        AWS's name of the region.
    number
        Twelve digits.
    """

    region: str = REGION
    number: str = ACCOUNT_ID

    def arn(self, service: str, resource: str) -> str:
        """Return the ARN of a resource, such as ``function:name`` of the service ``lambda``."""
        return f"arn:aws:{service}:{self.region}:{self.number}:{resource}"
