"""Runs one rank: downloads the program's folder from S3 and runs the script as ``__main__``."""

import importlib
import io
import json
import os
import runpy
import shutil
import signal
import socket
import sys
import tempfile
import time
import uuid
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import boto3
from botocore.exceptions import ClientError

from fmi_shim.dropin import torchvision_stand_in
from fmi_shim.log_lines import Phase, is_recorded, rank_line

CONFIGURATION = "fmi.json"
_LARGEST_STATUS = 255

# Below the prefix of a run: what all ranks' payloads have in common; a rank's claim, and the mark of its success.
COMMON_KEY = "common.json"
CLAIMS = "claims/"
DONE = "done/"
FAILURES = "failures/"
# The function's variable with the name of the secret, and the name that the server's certificate is for.
SECRET_ID_VARIABLE = "RENDEZVOUS_SECRET_ID"  # noqa: S105 - a name
SERVER_NAME = "rendezvous.fmi-emulator.internal"
# The S3_OBJECT_TYPE of a program that is one zip archive.
ARCHIVE = "archive"
_NO_VARIABLES: Mapping[str, str] = {}

# The executor's image lists what its init phase imports; a zygote has preloaded modules before it forks.
for _module in os.environ.get("FMI_PRELOAD", "").split():
    importlib.import_module(_module)


class ScriptExit(Exception):  # noqa: N818 - users see this name in the answer
    """The script exited with a status other than 0."""


class TimeLimitReached(Exception):  # noqa: N818 - users see this name in the report
    """The run may not take more time, since it may not cost more."""


class UnsafeKeyError(Exception):
    """An S3 key that is not the path of a separate file within a folder."""


def handler(event: dict[str, Any], context: Any = None) -> dict[str, Any]:
    """Run one rank.

    Parameters
    ----------
    event
        A payload made by *initialize*. Its strings and numbers become environment variables, and so do the entries of
        ``SCRIPT_ENVIRONMENT``. ``SCRIPT_MODULE`` is run instead of the script, as by ``python -m``. ``CONSOLE`` is
        where standard input comes from. With ``RUN_PREFIX``, the payload's other entries are in S3 below that prefix,
        and each rank of that run is run once, whatever number of events names it.
    context
        Lambda's context. Its request id is logged with the rank, so that readers of the log know the rank.

    Returns
    -------
    dict
        ``statusCode`` 200 and the rank.
    """
    request_id = getattr(context, "aws_request_id", "")
    if event.get("RUN_PREFIX"):
        return _run_once(event, request_id)
    print(rank_line(event["RANK"], event["WORLD_SIZE"], request_id), flush=True)
    return _run_rank(boto3.client("s3"), event)


def _run_once(event: dict[str, Any], request_id: str) -> dict[str, Any]:
    """Run a rank unless an earlier invocation has claimed it, and record its success in S3."""
    s3, prefix, rank = boto3.client("s3"), event["RUN_PREFIX"], int(event["RANK"])
    event = {**_read_json(s3, event["S3_BUCKET"], prefix + COMMON_KEY), **event}
    if not claim(s3, event["S3_BUCKET"], f"{prefix}{CLAIMS}{rank}"):
        # Without the line that names the rank: the output belongs to the first invocation.
        print(f"rank {rank} of run {event['RUN_ID']} was started by an earlier event: this one does nothing")
        return {"statusCode": 200, "rank": rank, "repeated": True}
    print(rank_line(rank, event["WORLD_SIZE"], request_id, event["RUN_ID"]), flush=True)
    with _time_limit(float(event.get("TIME_LIMIT_S", 0))):
        answer = _run_rank(s3, event, _rendezvous_variables(event))
    s3.put_object(Bucket=event["S3_BUCKET"], Key=f"{prefix}{DONE}{rank}", Body=b"")
    return answer


def claim(s3: Any, bucket: str, key: str) -> bool:
    """Create an object; return whether this call created it. A retried request of this call counts as this call."""
    owner = uuid.uuid4().hex
    try:
        s3.put_object(Bucket=bucket, Key=key, Body=owner.encode(), IfNoneMatch="*")
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] not in (409, 412):
            raise
        return bool(s3.get_object(Bucket=bucket, Key=key)["Body"].read() == owner.encode())
    return True


def _read_json(s3: Any, bucket: str, key: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
    return content


def _rendezvous_variables(event: dict[str, Any]) -> dict[str, str]:
    """Return the variables of the connection to the rendezvous server, with the secret that the run's role may read."""
    secret_id = os.environ.get(SECRET_ID_VARIABLE)
    if not secret_id:
        return {}
    value = json.loads(boto3.client("secretsmanager").get_secret_value(SecretId=secret_id)["SecretString"])
    folder = Path(tempfile.gettempdir())
    certificate, secret = folder / "rendezvous.pem", folder / "rendezvous.secret"
    certificate.write_text(value["certificate"])
    # Programs print their environment. Only this function's user can read the file.
    secret.unlink(missing_ok=True)
    with os.fdopen(os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(value["secret"])
    return {
        "FMI_RENDEZVOUS": event["FMI_RENDEZVOUS"],
        "FMI_RENDEZVOUS_SECRET_FILE": str(secret),
        "FMI_RENDEZVOUS_CERTIFICATE": str(certificate),
        "FMI_RENDEZVOUS_SERVER_NAME": SERVER_NAME,
    }


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise an error in the main thread after some seconds; 0 means no limit."""
    if not seconds:
        yield
        return

    def stop(*_: object) -> None:
        raise TimeLimitReached(f"{seconds:.0f} s: the run would cost more than --max-cost")

    former = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


def _run_rank(s3: Any, event: dict[str, Any], variables: Mapping[str, str] = _NO_VARIABLES) -> dict[str, Any]:
    # If /tmp cannot be made private, each sandbox has its own directory for temporary files.
    root = Path(tempfile.gettempdir())
    began = time.time()
    if event.get("S3_OBJECT_TYPE") == ARCHIVE:
        fetch_archive(s3, event["S3_BUCKET"], event["S3_OBJECT_NAME"], root)
    else:
        fetch_folder(s3, event["S3_BUCKET"], event["S3_OBJECT_NAME"], root)
    if is_recorded({**os.environ, **event.get("SCRIPT_ENVIRONMENT", {})}):
        ended = time.time()
        print(Phase("download", ((began, ended),), round(ended - began, 6), 1).line(), flush=True)
    script = root / event["SCRIPT"].removeprefix("/tmp/")  # noqa: S108 - published payloads contain it
    module = event.get("SCRIPT_MODULE", "")
    if not module and not script.is_file():
        raise FileNotFoundError(
            f"script {event['SCRIPT']!r} does not exist in s3://{event['S3_BUCKET']}/{event['S3_OBJECT_NAME']}/"
        )
    # The published container has a configuration where programs start.
    if not (script.parent / CONFIGURATION).exists():
        shutil.copy(Path(__file__).with_name(CONFIGURATION), script.parent)
    torchvision_stand_in.install()
    with _as_main(script, event, variables), _console(event.get("CONSOLE")):
        _run(script, module)
    return {"statusCode": 200, "rank": int(event["RANK"])}


def fetch_folder(s3: Any, bucket: str, folder: str, root: Path) -> None:
    """Download all objects below a prefix to the same paths below a directory.

    Raises
    ------
    FileNotFoundError
        If there is no such object.
    UnsafeKeyError
        If a key leads outside of the directory, or two keys conflict; no file is written in this case.
    """
    prefix = folder.rstrip("/") + "/"
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    keys = [found["Key"] for page in pages for found in page.get("Contents", [])]
    if not keys:
        raise FileNotFoundError(f"no objects below s3://{bucket}/{prefix}: upload the program first")
    for key, path in file_paths(bucket, keys).items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(s3.get_object(Bucket=bucket, Key=key)["Body"].read())


def fetch_archive(s3: Any, bucket: str, key: str, root: Path) -> None:
    """Download a zip archive and extract it below a directory.

    Raises
    ------
    UnsafeKeyError
        If a name leads outside of the directory, or two names conflict; no file is written in this case.
    """
    content = io.BytesIO()
    s3.download_fileobj(bucket, key, content)
    with zipfile.ZipFile(content) as archive:
        for name, path in file_paths(f"{bucket}/{key}", archive.namelist()).items():
            target = root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(archive.read(name))


def file_paths(bucket: str, keys: list[str]) -> dict[str, PurePosixPath]:
    """Return the path of each key that is a file. Keys that end in a slash are folders.

    Raises
    ------
    UnsafeKeyError
        If a key leads outside of the folder, or two keys cannot be files at the same time.
    """
    paths: dict[str, PurePosixPath] = {}
    key_of: dict[PurePosixPath, str] = {}
    for key in keys:
        path = PurePosixPath(key)
        if path.is_absolute() or ".." in path.parts or "\0" in key:
            raise UnsafeKeyError(f"key {key!r} in bucket {bucket} leads outside of its folder: remove the object")
        if key.endswith("/"):
            continue
        if path in key_of:
            raise UnsafeKeyError(
                f"keys {key_of[path]!r} and {key!r} in bucket {bucket} are the same file: remove one of the objects"
            )
        paths[key], key_of[path] = path, key
    for path, key in key_of.items():
        for folder in path.parents:
            if folder in key_of:
                raise UnsafeKeyError(
                    f"key {key_of[folder]!r} in bucket {bucket} is a file, but {key!r} needs a folder there: "
                    "remove one of the objects"
                )
    return paths


@contextmanager
def _as_main(script: Path, event: dict[str, Any], variables: Mapping[str, str]) -> Iterator[None]:
    """Set up the process like ``python script arguments`` in the script's folder; undo this for the next event."""
    environment, directory, arguments, path = dict(os.environ), Path.cwd(), sys.argv, list(sys.path)
    hook, sys.excepthook = sys.excepthook, _print_nothing
    os.environ.update({name: str(value) for name, value in event.items() if isinstance(value, str | int)})
    if isinstance(event.get("DATA_PATH"), list):
        os.environ["DATA_PATH"] = json.dumps(event["DATA_PATH"])
    os.environ.update(event.get("SCRIPT_ENVIRONMENT", {}))
    os.environ.update(variables)
    os.chdir(script.parent)
    sys.argv = [str(script), *event.get("SCRIPT_ARGUMENTS", [])]
    sys.path.insert(0, str(script.parent))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(directory)
        sys.argv = arguments
        sys.path[:] = path
        sys.excepthook = hook


def _print_nothing(*_: object) -> None:
    """Replace the exception hook: the runtime logs the exceptions of a handler."""


@contextmanager
def _console(console: dict[str, Any] | None) -> Iterator[None]:
    """Connect standard input to the command that started the run; with ``debugger``, ``breakpoint()``, too."""
    if console is None:
        yield
        return
    hook, standard_input = sys.breakpointhook, sys.stdin
    with (
        socket.create_connection((console["host"], console["port"])) as connection,
        connection.makefile("r", encoding="utf-8", errors="backslashreplace") as reader,
        connection.makefile("w", encoding="utf-8", errors="backslashreplace") as writer,
    ):
        connection.sendall(f"{console['token']}\n".encode())
        # Programs that the script starts read the descriptor.
        former = os.dup(0)
        os.dup2(connection.fileno(), 0)
        sys.stdin = reader
        if console["debugger"]:
            import pdb  # noqa: T100 - the user asked for it; other cold starts do not pay for the import

            debugger = pdb.Pdb(stdin=reader, stdout=writer)
            sys.breakpointhook = lambda *_, **__: debugger.set_trace(sys._getframe(1))  # noqa: SLF001 - the frame that pdb.set_trace() takes
        try:
            yield
        finally:
            sys.breakpointhook, sys.stdin = hook, standard_input
            os.dup2(former, 0)
            os.close(former)


def _run(script: Path, module: str) -> None:
    try:
        if module:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(str(script), run_name="__main__")
    except SystemExit as end:
        if isinstance(end.code, int) or end.code is None:
            # As the kernel does, but a failure stays one.
            status = 0 if not end.code else end.code & _LARGEST_STATUS or 1
        else:
            print(end.code, file=sys.stderr, flush=True)
            status = 1
        if status:
            # With the traceback of the exit: the place of the failure is the script's line.
            exited = ScriptExit(f"the script exited with status {status}")
            raise exited.with_traceback(end.__traceback__) from None
    except BaseException:
        sys.excepthook(*sys.exc_info())  # as the interpreter does: libraries may have set a hook
        raise
    finally:
        # The sandbox stays; so this is the program's end. Only a program that has imported the library has faults.
        injection = sys.modules.get("fmi_shim.injection")
        if injection is not None:
            injection.print_missed()
