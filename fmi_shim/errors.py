"""What can go wrong in a communicator, by name.

Wrong arguments are Python's own `TypeError`, `ValueError` and `OverflowError`, raised before anything is
sent. The errors here come from outside the calling rank. After any of them, and after an exception in the
middle of an operation, the stream of messages is out of step: the communicator is closed and every further
call raises `BrokenCommunicatorError` with the first error as its cause.
"""

from __future__ import annotations


class FmiError(Exception):
    """Base of all errors of this package.

    Parameters
    ----------
    message
        One line that names the ranks.
    origin
        The rank where the trouble began, where that is known.
    teller
        The rank that told this one, when it did not find out itself.
    """

    def __init__(self, message: str, origin: int | None = None, teller: int | None = None) -> None:
        super().__init__(message, origin, teller)
        self.message = message
        self.origin = origin
        self.teller = teller

    def __str__(self) -> str:
        return self.message if self.teller is None else f"{self.message} (told by rank {self.teller})"


class ConfigError(FmiError, ValueError):
    """The configuration is missing, is no JSON, or has a value of a wrong type."""


class RendezvousError(FmiError, ConnectionError):
    """The rendezvous server cannot be reached, broke off or spoke another protocol."""


class StoreError(FmiError, ConnectionError):
    """S3 or Redis cannot be reached, or refused a request."""


class PeerTimeoutError(FmiError, TimeoutError):
    """A rank did not come, or did not go on, within ``max_timeout``."""


class PeerLostError(FmiError, ConnectionError):
    """A rank's process ended, or its connection broke, while others still depended on it."""


class MismatchError(FmiError):
    """Two ranks are in different calls, or in the same call with different arguments."""


class PeerFailedError(FmiError):
    """Another rank raised an exception in the middle of an operation."""


class PeerOverflowError(PeerFailedError, OverflowError):
    """Another rank's reduction left the range of its integer type."""


class BrokenCommunicatorError(FmiError):
    """An earlier call on this communicator failed, or it was closed; ``__cause__`` is the first error."""
