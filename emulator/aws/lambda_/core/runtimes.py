"""What a function's runtime is: the program that asks the runtime API for events."""

import importlib.util
import os
import platform
import sys

from emulator.aws.lambda_.core.models import Function
from emulator.aws.lambda_.core.settings import RuntimeClient
from emulator.errors import EmulatorError

# Where AWS would have it.
_BOOTSTRAPS = "[/var/task/bootstrap /opt/bootstrap]"


class InvalidEntrypointError(EmulatorError):
    """A custom runtime has no program that could be started; the message is AWS's."""


def check_installed(client: RuntimeClient) -> None:
    """Make sure that a runtime client can be used.

    Raises
    ------
    EmulatorError
        When it is not installed, saying how to.
    """
    if client is RuntimeClient.AWSLAMBDARIC and importlib.util.find_spec("awslambdaric") is None:
        raise EmulatorError("awslambdaric is not installed here: pip install 'fmi-emulator[awslambdaric]'")


def runtime_command(function: Function, client: RuntimeClient) -> tuple[str, ...]:
    """Return the program, with arguments, that serves a function; empty for the sandbox's own client in a fork.

    Raises
    ------
    InvalidEntrypointError
        When the archive of a custom runtime has no ``bootstrap``, or one that may not be executed.
    """
    if function.spec.runtime.startswith("provided"):
        bootstrap = function.code_root / "bootstrap"
        if not bootstrap.is_file():
            raise InvalidEntrypointError(f"Couldn't find valid bootstrap(s): {_BOOTSTRAPS}")
        if not os.access(bootstrap, os.X_OK):
            raise InvalidEntrypointError("fork/exec /var/task/bootstrap: permission denied")
        return (str(bootstrap),)
    if client is RuntimeClient.AWSLAMBDARIC:
        return (sys.executable, "-m", "awslambdaric", function.spec.handler)
    return ()


def runtime_version(function: Function) -> str:
    """Return what runs a function, for INIT_START: of Python this interpreter, whichever was asked for."""
    name, _, rest = function.spec.runtime.partition(".")
    return f"{name}:{rest}" if name == "provided" else f"python:{platform.python_version()}"
