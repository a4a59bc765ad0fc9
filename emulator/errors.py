"""Every error the emulator raises on purpose."""

from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType


class EmulatorError(Exception):
    """A run or a command cannot go on; the message says why and what to do."""


class PortInUseError(EmulatorError):
    """A port that was asked for is taken."""

    def __init__(self, what: str, host: str, port: int) -> None:
        super().__init__(
            f"{what}: port {port} on {host} is in use; stop the program that holds it or choose another port"
        )


class AddressNotAvailableError(EmulatorError):
    """An address to listen on belongs to another machine."""

    def __init__(self, host: str) -> None:
        super().__init__(f"{host} is no address of this machine; 127.0.0.1 is for this machine alone, 0.0.0.0 for all")


class StateError(EmulatorError):
    """The folder for the state cannot be used."""


class SandboxError(EmulatorError):
    """The sandboxes cannot be started."""


class ApiError(EmulatorError):
    """An AWS API call that is refused, with the code AWS gives it.

    Parameters
    ----------
    code
        AWS's exception name, such as ``ResourceNotFoundException``.
    status
        The HTTP status that AWS answers with.
    message
        The text for the caller.
    details
        What else AWS's answer has.
    """

    def __init__(
        self, code: str, status: HTTPStatus, message: str, details: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        super().__init__(message)
        self.details = details
        self.code = code
        self.status = status
        self.message = message
