"""The exceptions that a communicator raises.

Invalid arguments raise Python's own `TypeError`, `ValueError` and `OverflowError` before anything is sent. The errors
in this module have their cause outside the calling rank. After any of them, and after an exception in the middle of an
operation, the streams of messages are inconsistent: the communicator is closed, and every further call raises
`BrokenCommunicatorError` with the first error as its ``__cause__``. Only a `PeerTimeoutError` of a ``send`` or ``recv``
of which nothing was moved leaves it open.
"""

from __future__ import annotations


class FmiError(RuntimeError):
    """Base of all errors of this package. It is a `RuntimeError`, which the original library raises.

    Parameters
    ----------
    message
        One line that names the ranks.
    origin
        The rank where the failure began, if that is known.
    reported_by
        The rank that reported the error, if this rank did not detect it itself.
    """

    def __init__(self, message: str, origin: int | None = None, reported_by: int | None = None) -> None:
        super().__init__(message, origin, reported_by)
        self.message = message
        self.origin = origin
        self.reported_by = reported_by

    def __str__(self) -> str:
        return self.message if self.reported_by is None else f"{self.message} (reported by rank {self.reported_by})"


class ConfigError(FmiError, ValueError):
    """The configuration is missing, is not valid JSON, or has an invalid value."""


class RendezvousError(FmiError, ConnectionError):
    """The rendezvous server cannot be reached, closed the connection, or speaks another protocol."""


class StoreError(FmiError, ConnectionError):
    """S3 or Redis cannot be reached, or refused a request."""


class PeerTimeoutError(FmiError, TimeoutError):
    """A rank did not connect, or made no progress, within a time limit.

    Attributes
    ----------
    repeatable
        Whether nothing of the awaited message was sent or received. A ``send`` or ``recv`` that raised it may then be
        called again; the communicator stays open.
    """

    repeatable = False


class PeerLostError(FmiError, ConnectionError):
    """A rank's process ended, or its connection broke, while other ranks still depended on it."""


class MismatchError(FmiError):
    """Two ranks are in different calls, or in the same call with different arguments."""


class PeerFailedError(FmiError):
    """Another rank raised an exception in the middle of an operation."""


class PeerOverflowError(PeerFailedError, OverflowError):
    """A reduction on another rank overflowed its integer type."""


class ConcurrentCallError(FmiError):
    """A call began while another one was running in the same communicator; both raise it."""


class BrokenCommunicatorError(FmiError):
    """An earlier call on this communicator failed, or it was closed; ``__cause__`` is the first error."""


VICTIM_ERRORS: tuple[type[FmiError], ...] = (
    PeerLostError,
    PeerTimeoutError,
    PeerFailedError,
    PeerOverflowError,
    BrokenCommunicatorError,
)
"""The errors that a rank raises because another rank failed first. They are never the cause of a run's failure."""
