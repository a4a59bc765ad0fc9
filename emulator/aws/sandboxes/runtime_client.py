"""The client of the Lambda runtime API: fetch an event, call the handler, post the result.

It also runs by other versions of Python, since 3.9.

Protocol: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
"""

from __future__ import annotations

import contextlib
import decimal
import gc
import http.client
import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emulator.aws.sandboxes import runtime_logging
from emulator.aws.sandboxes.own_packages import package_folders

_API = "/2018-06-01/runtime"
# From this version of Python on, results are UTF-8 on AWS.
_UTF8_SINCE = 12
_NO_HEADERS: dict[str, str] = {}
# The argument that hides all packages but AWS's; further ones name modules of those that stay visible.
HIDE_PACKAGES = "--packages=aws"
Handler = Callable[[Any, "LambdaContext"], Any]


@dataclass
class CognitoIdentity:
    """Who invoked the function by a mobile SDK: nobody, here."""

    cognito_identity_id: str | None = None
    cognito_identity_pool_id: str | None = None


@dataclass
class Client:
    """The application of a client context."""

    installation_id: str | None = None
    app_title: str | None = None
    app_version_name: str | None = None
    app_version_code: str | None = None
    app_package_name: str | None = None


@dataclass
class ClientContext:
    """What the caller sent as ClientContext."""

    custom: Any = None
    env: Any = None
    client: Client | None = None

    @classmethod
    def parse(cls, text: str) -> ClientContext | None:
        """Parse the header of an invocation; return None if it is missing."""
        if not text:
            return None
        sent = json.loads(text)
        client = sent.get("client")
        known = {name: client.get(name) for name in Client.__dataclass_fields__} if client else None
        return cls(sent.get("custom"), sent.get("env"), None if known is None else Client(**known))


@dataclass
class LambdaContext:
    """The second argument of a handler, as AWS documents it for Python."""

    aws_request_id: str
    invoked_function_arn: str
    deadline_ms: int
    function_name: str = field(default_factory=lambda: os.environ["AWS_LAMBDA_FUNCTION_NAME"])
    function_version: str = field(default_factory=lambda: os.environ["AWS_LAMBDA_FUNCTION_VERSION"])
    memory_limit_in_mb: str = field(default_factory=lambda: os.environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"])
    log_group_name: str = field(default_factory=lambda: os.environ["AWS_LAMBDA_LOG_GROUP_NAME"])
    log_stream_name: str = field(default_factory=lambda: os.environ["AWS_LAMBDA_LOG_STREAM_NAME"])
    client_context: ClientContext | None = None
    identity: CognitoIdentity = field(default_factory=lambda: CognitoIdentity())

    def get_remaining_time_in_millis(self) -> int:
        """Return the time left until the invocation times out, ms."""
        return max(0, self.deadline_ms - int(time.time() * 1000))


def serve(task_root: Path, opt_root: Path) -> int:
    """Load the handler, then serve invocations until the process is killed.

    Parameters
    ----------
    task_root
        Folder of the function's code; it becomes the first entry of ``sys.path``.
    opt_root
        Folder of the function's layers, whose Python packages follow.

    Returns
    -------
    int
        The exit status of the process: 1 when the handler cannot be loaded.
    """
    address, slash, path = os.environ["AWS_LAMBDA_RUNTIME_API"].partition("/")
    host, _, port = address.partition(":")
    connection, api = http.client.HTTPConnection(host, int(port)), f"{slash}{path}{_API}"
    sys.path[:0] = [str(task_root), *(str(folder) for folder in package_folders(opt_root) if folder.is_dir())]
    runtime_logging.set_up(os.environ.get("AWS_LAMBDA_LOG_FORMAT"), os.environ.get("AWS_LAMBDA_LOG_LEVEL"))
    try:
        handler = _load_handler(os.environ["_HANDLER"])
    except Exception as error:  # noqa: BLE001 - every failure of the user's module is reported as the init error
        body, headers = _log_error(error)
        flush_output()
        _post(connection, f"{api}/init/error", body, headers)
        return 1
    while True:
        _serve_one(connection, api, handler)


class _RuntimeFaultError(Exception):
    """An error of the runtime, not of the function's code; the names are those of AWS's client."""

    def __init__(self, kind: str, message: str, frames: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.kind = kind
        self.frames = list(frames)


class _Encoder(json.JSONEncoder):
    """Encodes decimal numbers, too, as AWS's client does: DynamoDB returns them."""

    def default(self, o: Any) -> Any:
        return float(o) if isinstance(o, decimal.Decimal) else super().default(o)


def _load_handler(name: str) -> Handler:
    module, dot, function = name.rpartition(".")
    if not dot:
        raise _RuntimeFaultError("Runtime.MalformedHandlerName", f"Bad handler '{name}': expected module.function")
    try:
        loaded = importlib.import_module(module.replace("/", "."))
    except ImportError as error:
        raise _RuntimeFaultError("Runtime.ImportModuleError", f"Unable to import module '{module}': {error}") from None
    except SyntaxError as error:
        frames = [f'  File "{error.filename}" Line {error.lineno}\n    {error.text}']
        message = f"Syntax error in module '{module}': {error}"
        raise _RuntimeFaultError("Runtime.UserCodeSyntaxError", message, frames) from None
    try:
        handler: Handler = getattr(loaded, function)
    except AttributeError:
        message = f"Handler '{function}' missing on module '{module}'"
        raise _RuntimeFaultError("Runtime.HandlerNotFound", message) from None
    return handler


def _serve_one(connection: http.client.HTTPConnection, api: str, handler: Handler) -> None:
    connection.request("GET", f"{api}/invocation/next")
    response = connection.getresponse()
    body = response.read()
    request_id = response.headers["Lambda-Runtime-Aws-Request-Id"]
    os.environ["_X_AMZN_TRACE_ID"] = response.headers.get("Lambda-Runtime-Trace-Id", "")
    context = LambdaContext(
        request_id,
        response.headers["Lambda-Runtime-Invoked-Function-Arn"],
        int(response.headers["Lambda-Runtime-Deadline-Ms"]),
        client_context=ClientContext.parse(response.headers.get("Lambda-Runtime-Client-Context", "")),
    )
    runtime_logging.current_request_id = request_id
    path, headers, runtime_pid = f"{api}/invocation/{request_id}/response", _NO_HEADERS, os.getpid()
    # sys.exit in a handler ends the runtime, as on AWS; every other exception is returned as an error.
    try:
        result = _marshal(handler(json.loads(body), context))
    except Exception as error:  # noqa: BLE001 - every exception of the handler is returned
        path = f"{api}/invocation/{request_id}/error"
        result, headers = _log_error(error, request_id)
    if os.getpid() != runtime_pid:
        # This is a process that the handler has forked; the connection belongs to its parent.
        os._exit(0)
    # Release what the handler has left in reference cycles, such as open connections, before the response is sent:
    # peers at the other end must notice now, not at the next invocation.
    gc.collect()
    flush_output()
    _post(connection, path, result, headers)


def _marshal(result: object) -> bytes:
    """Return a handler's result as JSON; bytes are returned unchanged, as by AWS's client."""
    if isinstance(result, bytes):
        return result
    try:
        return json.dumps(result, cls=_Encoder, ensure_ascii=_escapes_non_ascii()).encode()
    except Exception as error:  # noqa: BLE001 - cycles, depth, keys, values: one error for all
        raise _RuntimeFaultError("Runtime.MarshalError", f"Unable to marshal response: {error}") from None


def _escapes_non_ascii() -> bool:
    """Return whether the result is ASCII, as up to Python 3.11 on AWS."""
    minor = os.environ.get("AWS_EXECUTION_ENV", "").rpartition(".")[2]
    return minor.isdigit() and int(minor) < _UTF8_SINCE


def _log_error(error: Exception, request_id: str = "") -> tuple[bytes, dict[str, str]]:
    """Log an error as Lambda does; return the body and headers of the response."""
    if isinstance(error, _RuntimeFaultError):
        kind, frames = error.kind, error.frames
    else:
        # As AWS's client: without the frames of this file, and without marks below the lines.
        found = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
        frames = traceback.format_list([(at.filename, at.lineno or 0, at.name, at.line) for at in found])
        kind = type(error).__name__
    if os.environ.get("AWS_LAMBDA_LOG_FORMAT") == "JSON":
        text = runtime_logging.json_error(kind, str(error), frames, request_id)
    else:
        text = f"[ERROR] {kind}: {error}\nTraceback (most recent call last):\n{''.join(frames)}"
    _log(text)
    body = {"errorMessage": str(error), "errorType": kind, "requestId": request_id, "stackTrace": frames}
    return json.dumps(body).encode(), {"Lambda-Runtime-Function-Error-Type": kind}


def _log(text: str) -> None:
    flush_output()
    runtime_logging.write_frame(text)


def _post(connection: http.client.HTTPConnection, path: str, body: bytes, headers: dict[str, str]) -> None:
    connection.request("POST", path, body, {"Content-Type": "application/json", **headers})
    connection.getresponse().read()


def main() -> None:
    """Serve the function of this process's environment: what is run where a fork cannot serve it."""
    if sys.argv[1:2] == [HIDE_PACKAGES]:
        # Only this interpreter has packages to hide.
        from emulator.aws.sandboxes.package_filter import PackageFilter

        PackageFilter(sys.argv[2:], os.environ.get("PYTHONPATH", "").split(os.pathsep)).install()
    sys.exit(serve(Path(os.environ["LAMBDA_TASK_ROOT"]), Path("/opt")))


def flush_output() -> None:
    """Flush the output: it must reach the log before the response ends the invocation."""
    for stream in (sys.stdout, sys.stderr):
        # As in `_log`.
        with contextlib.suppress(Exception):
            stream.flush()


if __name__ == "__main__":
    main()
