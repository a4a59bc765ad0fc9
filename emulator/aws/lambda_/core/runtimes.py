"""What a sandbox runs for a function: the program that polls the runtime API, and its environment variables.

Variables: https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html
"""

import importlib.util
import os
import sys
from pathlib import Path

from emulator.aws.lambda_.core.interpreters import NODE_CLIENT, Interpreter, python_client
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
    function: Function,
    settings: LambdaSettings,
    opt_root: Path | None,
    place: SandboxPlace,
    interpreter: Interpreter | None,
) -> tuple[str, ...]:
    """Return the command that serves a function of an archive; empty for the sandbox's own client in a fork.

    Parameters
    ----------
    function
        The function.
    settings
        What calls Python handlers, and which packages they may import.
    opt_root
        The folder with the files of its layers, if it has any.
    place
        Where it runs: a container has its own python3, with AWS's client.
    interpreter
        What runs handlers of its runtime on this machine, as returned by `find_interpreter`.

    Raises
    ------
    InvalidEntrypointError
        When neither the archive of a custom runtime nor a layer has a ``bootstrap``, or it is not executable; when the
        runtime cannot run here.
    """
    spec = function.spec
    if spec.runtime.startswith("provided"):
        return (_bootstrap(function, opt_root),)
    if interpreter is None or (place.is_container and not spec.runtime.startswith("python")):
        raise InvalidEntrypointError(
            f"the runtime {spec.runtime} cannot run here: expected python3.8 to 3.14, provided.al2 or provided.al2023, "
            "or nodejs in a process, which takes node"
        )
    wrapper = (spec.environment or {}).get("AWS_LAMBDA_EXEC_WRAPPER")
    if spec.runtime.startswith("nodejs"):
        command: tuple[str, ...] = (str(interpreter.program), str(NODE_CLIENT))
    elif not uses_own_client(function, settings.runtime_client, place):
        python = "python3" if place.is_container else sys.executable
        command = (python, "-m", "awslambdaric", spec.handler)
    elif wrapper or not interpreter.is_own:
        command = python_client(interpreter, settings.packages)
    else:
        command = ()
    return (wrapper, *command) if wrapper else command


def _bootstrap(function: Function, opt_root: Path | None) -> str:
    """Return the program of a custom runtime."""
    found = [
        root / "bootstrap" for root in (function.package.root, opt_root) if root and (root / "bootstrap").is_file()
    ]
    if not found:
        raise InvalidEntrypointError(f"Couldn't find valid bootstrap(s): {_BOOTSTRAPS}")
    if not os.access(found[0], os.X_OK):
        raise InvalidEntrypointError("fork/exec /var/task/bootstrap: permission denied")
    return str(found[0])


def uses_own_client(function: Function, client: RuntimeClient, place: SandboxPlace) -> bool:
    """Return whether a client of the emulator's polls the runtime API, and neither AWS's nor the function's own."""
    if function.package.image_uri is not None or place.is_container:
        return False
    runtime = function.spec.runtime
    return runtime.startswith("nodejs") or (runtime.startswith("python") and client is not RuntimeClient.AWSLAMBDARIC)


def runtime_version(function: Function, interpreter: Interpreter | None) -> str | None:
    """Return the runtime version for INIT_START, that of the interpreter here; None for an image."""
    if function.package.root is None:
        return None
    name, _, rest = function.spec.runtime.partition(".")
    if interpreter is None:
        return f"{name}:{rest}"
    found = f"{'nodejs' if name.startswith('nodejs') else 'python'}:{interpreter.version}"
    if interpreter.version.startswith(f"{_language_version(function.spec.runtime)}."):
        return found
    return f"{found} ({function.spec.runtime} is not installed here)"


def _language_version(runtime: str) -> str:
    """Return the version in the name of a runtime: 3.12 for python3.12, 20 for nodejs20.x."""
    return runtime.removeprefix("python").removeprefix("nodejs").removesuffix(".x")


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
    elif spec.runtime.startswith("nodejs"):
        defaults |= _node_paths(_language_version(spec.runtime))
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


def _node_paths(version: str) -> dict[str, str]:
    """Return the variables of a runtime of Node."""
    folders = ("/opt/nodejs/node_modules", "/var/runtime/node_modules", "/var/runtime", "/var/task")
    return {"NODE_PATH": ":".join((f"/opt/nodejs/node{version}/node_modules", *folders))}


def _python_minor(runtime: str) -> int | None:
    name, _, minor = runtime.partition("3.")
    return int(minor) if name == "python" else None
