"""Which of several ranks' failures is the cause, and which are only its consequence."""

from collections.abc import Iterable

_PROGRAMS = "/tmp/"  # noqa: S108 - where Lambda lets programs be put
_LIBRARY = "/fmi_shim/"
# What a rank's failure is called that did not fail, but was ended when another one had.
STOPPED = "Stopped"
# The errors of fmi_shim that tell of another rank's trouble, and what a rank that was stopped ends with.
_VICTIM_ERRORS = {
    "PeerLostError",
    "PeerTimeoutError",
    "PeerFailedError",
    "PeerOverflowError",
    "BrokenCommunicatorError",
    STOPPED,
}


def is_victim(error_type: str | None) -> bool:
    """Return whether an error says that another rank failed first.

    Parameters
    ----------
    error_type
        The exception's class, or the platform's name for what it did.
    """
    return error_type in _VICTIM_ERRORS


def place_of(frames: Iterable[tuple[str, str]]) -> str:
    """Return where a program's error was raised, as ``file:line``; empty when that is not known.

    Parameters
    ----------
    frames
        File and line of each frame of the traceback, outermost first. The program's own are below /tmp; those of
        FMI, which may be there, too, tell the user nothing.
    """
    own = [f"{file}:{line}" for file, line in frames if file.startswith(_PROGRAMS) and _LIBRARY not in file]
    return own[-1] if own else ""
