"""Which of several ranks' failures is the cause, and which are only its consequence."""

# The errors of fmi_shim that tell of another rank's trouble, and what a rank that was stopped ends with.
_VICTIM_ERRORS = {
    "PeerLostError",
    "PeerTimeoutError",
    "PeerFailedError",
    "PeerOverflowError",
    "BrokenCommunicatorError",
    "Stopped",
}


def is_victim(error_type: str | None) -> bool:
    """Return whether an error says that another rank failed first.

    Parameters
    ----------
    error_type
        The exception's class, or the platform's name for what it did.
    """
    return error_type in _VICTIM_ERRORS
