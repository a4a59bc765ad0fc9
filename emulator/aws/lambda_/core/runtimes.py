"""What a sandbox runs for a function: the program that polls the runtime API, and its environment variables.

Variables: https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html
"""

import importlib.util
import os
import platform
import sys
from pathlib import Path

from emulator.aws.lambda_.core.models import Function
from emulator.aws.lambda_.core.settings import LambdaSettings, RuntimeClient
from emulator.aws.lambda_.log_lines import SandboxLog
from emulator.aws.sandboxes.base import ContainerImage, InvalidEntrypointError, SandboxPlace
from emulator.errors import EmulatorError

# The paths on AWS.
_BOOTSTRAPS = "[/var/task/bootstrap /opt/bootstrap]"
_LIBRARIES = "/var/lang/lib:/lib64:/usr/lib64:/var/runtime:/var/runtime/lib:/var/task:/var/task/lib:/opt/lib"
# X-Ray's daemon, which functions send traces to by UDP: there is none.
_XRAY_ADDRESS, _XRAY_PORT = "169.254.100.1", "2000"
# From this version of Python on, AWS sets LC_CTYPE.
_C_LOCALE_SINCE = 12
_OWN_CLIENT = "emulator.aws.sandboxes.runtime_client"


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


def container_image(function: Function) -> ContainerImage | None:
    """Return the image that a function runs, with its ``ImageConfig``; None for an archive."""
    if function.package.image_uri is None:
        return None
    config = function.spec.image or {}
    return ContainerImage(
        function.package.image_uri,
        tuple(config.get("EntryPoint") or ()),
        tuple(config.get("Command") or ()),
        config.get("WorkingDirectory") or "",
    )


def runtime_command(
    function: Function, client: RuntimeClient, opt_root: Path | None, place: SandboxPlace
) -> tuple[str, ...]:
    """Return the command that serves a function of an archive; empty for the sandbox's own client in a fork.

    Parameters
    ----------
    function
        The function.
    client
        What calls Python handlers.
    opt_root
        The folder with the files of its layers, if it has any.
    place
        Where it runs: a container has its own python3, with AWS's client.

    Raises
    ------
    InvalidEntrypointError
        When neither the archive of a custom runtime nor a layer has a ``bootstrap``, or it is not executable; when the
        runtime is not emulated.
    """
    spec = function.spec
    if spec.runtime.startswith("provided"):
        found = [
            root / "bootstrap" for root in (function.package.root, opt_root) if root and (root / "bootstrap").is_file()
        ]
        if not found:
            raise InvalidEntrypointError(f"Couldn't find valid bootstrap(s): {_BOOTSTRAPS}")
        if not os.access(found[0], os.X_OK):
            raise InvalidEntrypointError("fork/exec /var/task/bootstrap: permission denied")
        return (str(found[0]),)
    if not spec.runtime.startswith("python"):
        raise InvalidEntrypointError(
            f"the runtime {spec.runtime} is not emulated: expected python3.9 to 3.14, provided.al2 or provided.al2023"
        )
    wrapper = (spec.environment or {}).get("AWS_LAMBDA_EXEC_WRAPPER")
    if not uses_own_client(function, client, place):
        python = "python3" if place.is_container else sys.executable
        command: tuple[str, ...] = (python, "-m", "awslambdaric", spec.handler)
    else:
        command = (sys.executable, "-P", "-m", _OWN_CLIENT) if wrapper else ()
    return (wrapper, *command) if wrapper else command


def uses_own_client(function: Function, client: RuntimeClient, place: SandboxPlace) -> bool:
    """Return whether the emulator's own client polls the runtime API, and neither AWS's nor the function's own."""
    is_python = function.package.image_uri is None and function.spec.runtime.startswith("python")
    return is_python and client is not RuntimeClient.AWSLAMBDARIC and not place.is_container


def runtime_version(function: Function) -> str | None:
    """Return the runtime version for INIT_START, for Python that of this interpreter; None for an image."""
    if function.package.root is None:
        return None
    name, _, rest = function.spec.runtime.partition(".")
    return f"{name}:{rest}" if name == "provided" else f"python:{platform.python_version()}"


def function_environment(
    function: Function,
    log: SandboxLog,
    runtime_api: str,
    endpoint_url: str,
    settings: LambdaSettings,
    place: SandboxPlace,
    *,
    provisioned: bool,
) -> dict[str, str]:
    """Return the environment of the function's process, to which an image adds its own variables.

    It contains nothing of the emulator's own environment.

    Parameters
    ----------
    function
        The function.
    log
        Its log stream.
    runtime_api
        The address of its runtime API.
    endpoint_url
        Its ``AWS_ENDPOINT_URL``, unless it has another one.
    settings
        Its key, and further variables.
    place
        Where it runs: an image has its own search paths.
    provisioned
        Whether the environment belongs to the function's provisioned concurrency.
    """
    spec = function.spec
    # A function may override these; the others are reserved.
    defaults = {
        "AWS_ENDPOINT_URL": endpoint_url,
        "AWS_XRAY_CONTEXT_MISSING": "LOG_ERROR",
        "LANG": "en_US.UTF-8",
        "TZ": ":UTC",
    }
    if not place.is_container:
        defaults |= {
            "LD_LIBRARY_PATH": _LIBRARIES,
            "PATH": "/var/lang/bin:/usr/local/bin:/usr/bin/:/bin:/opt/bin",
            "PWD": "/var/task",
            "SHLVL": "0",
        }
    if (minor := _python_minor(spec.runtime)) is not None:
        if not place.is_container:
            defaults["PYTHONPATH"] = "/var/runtime"
        if minor >= _C_LOCALE_SINCE:
            defaults["LC_CTYPE"] = "C.UTF-8"
    image = container_image(function)
    handler = spec.handler if image is None else (*image.command, "")[0]
    reserved = {
        **({"_HANDLER": handler} if handler else {}),
        "_AWS_XRAY_DAEMON_ADDRESS": _XRAY_ADDRESS,
        "_AWS_XRAY_DAEMON_PORT": _XRAY_PORT,
        "AWS_REGION": spec.account.region,
        "AWS_DEFAULT_REGION": spec.account.region,
        "AWS_LAMBDA_FUNCTION_NAME": spec.name,
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(spec.memory_mb),
        "AWS_LAMBDA_FUNCTION_VERSION": function.version,
        "AWS_LAMBDA_INITIALIZATION_TYPE": "provisioned-concurrency" if provisioned else "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": log.group,
        "AWS_LAMBDA_LOG_STREAM_NAME": log.stream,
        "AWS_LAMBDA_RUNTIME_API": runtime_api,
        "AWS_XRAY_DAEMON_ADDRESS": f"{_XRAY_ADDRESS}:{_XRAY_PORT}",
        **settings.credentials.environment(),
        "LAMBDA_RUNTIME_DIR": "/var/runtime",
        "LAMBDA_TASK_ROOT": "/var/task",
    }
    if image is None and not spec.runtime.startswith("provided"):
        reserved["AWS_EXECUTION_ENV"] = f"AWS_Lambda_{spec.runtime}"
    if minor is not None and settings.runtime_client is RuntimeClient.AWSLAMBDARIC:
        # It frames the records of `logging`, here in its output, and removes the variable.
        reserved["_LAMBDA_TELEMETRY_LOG_FD"] = "1"
    if spec.logs_json:
        reserved |= {"AWS_LAMBDA_LOG_FORMAT": "JSON", "AWS_LAMBDA_LOG_LEVEL": spec.logging["ApplicationLogLevel"]}
    return {**defaults, **settings.variables, **(spec.environment or {}), **reserved}


def _python_minor(runtime: str) -> int | None:
    name, _, minor = runtime.partition("3.")
    return int(minor) if name == "python" else None
