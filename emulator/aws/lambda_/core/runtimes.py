"""What a sandbox runs for a function: the program that polls the runtime API, and its environment variables.

Variables: https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html
"""

import importlib.util
import os
import platform
import sys
from pathlib import Path

from emulator.aws.credentials import Credentials
from emulator.aws.lambda_.core.models import Function
from emulator.aws.lambda_.core.settings import RuntimeClient
from emulator.aws.limits import REGION
from emulator.errors import EmulatorError

# The paths on AWS.
_BOOTSTRAPS = "[/var/task/bootstrap /opt/bootstrap]"


class InvalidEntrypointError(EmulatorError):
    """A custom runtime has no executable ``bootstrap``; the message is AWS's."""


def check_installed(client: RuntimeClient) -> None:
    """Check that a runtime client is installed.

    Raises
    ------
    EmulatorError
        When it is not; the message says how to install it.
    """
    if client is RuntimeClient.AWSLAMBDARIC and importlib.util.find_spec("awslambdaric") is None:
        raise EmulatorError(
            "the runtime client awslambdaric is not installed: run pip install 'fmi-emulator[awslambdaric]'"
        )


def runtime_command(function: Function, client: RuntimeClient) -> tuple[str, ...]:
    """Return the command that serves a function; empty for the sandbox's own client in a fork.

    Raises
    ------
    InvalidEntrypointError
        When the archive of a custom runtime has no ``bootstrap``, or the ``bootstrap`` is not executable.
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
    """Return the runtime version for INIT_START; for Python that of this interpreter, which runs all versions."""
    name, _, rest = function.spec.runtime.partition(".")
    return f"{name}:{rest}" if name == "provided" else f"python:{platform.python_version()}"


def function_environment(
    function: Function, log_group: str, log_stream: str, runtime_api: str, endpoint_url: str, credentials: Credentials
) -> dict[str, str]:
    """Return the complete environment of the function's process.

    It contains nothing of the emulator's own environment.
    """
    spec = function.spec
    # A function may override these; the others are reserved.
    defaults = {
        "AWS_ENDPOINT_URL": endpoint_url,
        "LANG": "en_US.UTF-8",
        "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
        "TZ": ":UTC",
    }
    reserved = {
        "_HANDLER": spec.handler,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EXECUTION_ENV": f"AWS_Lambda_{spec.runtime}",
        "AWS_LAMBDA_FUNCTION_NAME": spec.name,
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(spec.memory_mb),
        "AWS_LAMBDA_FUNCTION_VERSION": function.version,
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": log_group,
        "AWS_LAMBDA_LOG_STREAM_NAME": log_stream,
        "AWS_LAMBDA_RUNTIME_API": runtime_api,
        **credentials.environment(),
        "LAMBDA_TASK_ROOT": str(function.code_root),
    }
    return {**defaults, **spec.environment, **reserved}
