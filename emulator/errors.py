"""The errors that the emulator raises."""

import errno
import os
import resource
from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType


class EmulatorError(Exception):
    """A run or a command failed; the message states the cause and what to do."""


class PortInUseError(EmulatorError):
    """The requested port is in use."""

    def __init__(self, what: str, host: str, port: int) -> None:
        super().__init__(
            f"{what}: port {port} on {host} is in use; stop the program that uses it or choose another port"
        )


class AddressNotAvailableError(EmulatorError):
    """The address to listen on is not one of this machine."""

    def __init__(self, host: str) -> None:
        super().__init__(
            f"{host} is not an address of this machine; use 127.0.0.1 to accept connections from this machine only, "
            "0.0.0.0 from all"
        )


class StateError(EmulatorError):
    """The state folder cannot be used."""


class SandboxError(EmulatorError):
    """The sandboxes cannot start."""


class TooManyOpenFilesError(SandboxError):
    """As many files are open as this process, or the machine, may have."""

    def __init__(self) -> None:
        most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        super().__init__(
            f"too many open files: the limit is {most}: raise it (ulimit -n); a running function takes four"
        )


def is_too_many_open_files(error: OSError) -> bool:
    """Return whether a system call failed because of the limit of open files."""
    return error.errno in (errno.EMFILE, errno.ENFILE)


def require_free_files(count: int) -> None:
    """Raise `TooManyOpenFilesError` if this process can open fewer than `count` further files, or about so many."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.open(os.devnull, os.O_RDONLY)  # a file gets the lowest number that is free
    os.close(lowest_free)
    if lowest_free + count > most:
        raise TooManyOpenFilesError


class ApiError(EmulatorError):
    """An AWS API call failed, with AWS's error code.

    Parameters
    ----------
    code
        AWS's exception name, such as ``ResourceNotFoundException``.
    status
        The HTTP status of AWS's response.
    message
        The message for the caller.
    details
        Further members of AWS's response.
    """

    def __init__(
        self, code: str, status: HTTPStatus, message: str, details: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        super().__init__(message)
        self.details = details
        self.code = code
        self.status = status
        self.message = message
