"""One rank of a run: fetch the program's folder from S3 and run the script as ``__main__``."""

import os
import runpy
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import boto3

from fmi_shim.log_lines import Phase, is_traced, rank_line


class ScriptExit(Exception):  # noqa: N818 - its name is what the user reads in the answer
    """The script ended itself with a status other than 0."""


class UnsafeKeyError(Exception):
    """An S3 key that is no path of a file of its own within a folder."""


def handler(event: dict[str, Any], context: Any = None) -> dict[str, Any]:
    """Run one rank.

    Parameters
    ----------
    event
        A payload of *initialize*'s. Its entries that are texts or numbers become environment variables.
    context
        Lambda's context; its request id is logged with the rank, so that a log stream can be told by rank.

    Returns
    -------
    dict
        ``statusCode`` 200 and the rank.
    """
    request_id = getattr(context, "aws_request_id", "")
    print(rank_line(event["RANK"], event["WORLD_SIZE"], request_id), flush=True)
    # Where /tmp cannot be made private, each sandbox has a directory of its own for temporary files.
    root = Path(tempfile.gettempdir())
    began = time.time()
    fetch_folder(boto3.client("s3"), event["S3_BUCKET"], event["S3_OBJECT_NAME"], root)
    if is_traced():
        ended = time.time()
        print(Phase("download", ((began, ended),), round(ended - began, 6), 1).line(), flush=True)
    script = root / event["SCRIPT"].removeprefix("/tmp/")  # noqa: S108 - published payloads name it so
    if not script.is_file():
        raise FileNotFoundError(
            f"script {event['SCRIPT']!r} is not in s3://{event['S3_BUCKET']}/{event['S3_OBJECT_NAME']}/"
        )
    with _as_main(script, event):
        _run(script)
    return {"statusCode": 200, "rank": int(event["RANK"])}


def fetch_folder(s3: Any, bucket: str, folder: str, root: Path) -> None:
    """Download all objects below a prefix to the same paths below a directory.

    Raises
    ------
    FileNotFoundError
        When there is no such object.
    UnsafeKeyError
        When a key leads outside of the directory, or two lead to the same place; nothing is written then.
    """
    prefix = folder.rstrip("/") + "/"
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    keys = [found["Key"] for page in pages for found in page.get("Contents", [])]
    if not keys:
        raise FileNotFoundError(f"there is nothing in S3 below s3://{bucket}/{prefix}; upload the program first")
    for key, path in file_paths(bucket, keys).items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(s3.get_object(Bucket=bucket, Key=key)["Body"].read())


def file_paths(bucket: str, keys: list[str]) -> dict[str, PurePosixPath]:
    """Return the path of each key that is a file's; keys that end in a slash only stand for folders.

    Raises
    ------
    UnsafeKeyError
        When a key leads outside of the folder that the paths are below, or two cannot be files beside each other.
    """
    paths: dict[str, PurePosixPath] = {}
    key_of: dict[PurePosixPath, str] = {}
    for key in keys:
        path = PurePosixPath(key)
        if path.is_absolute() or ".." in path.parts or "\0" in key:
            raise UnsafeKeyError(f"the key {key!r} in bucket {bucket} leads outside of its folder; remove the object")
        if key.endswith("/"):
            continue
        if path in key_of:
            raise UnsafeKeyError(
                f"the keys {key_of[path]!r} and {key!r} in bucket {bucket} are the same file; remove one of the objects"
            )
        paths[key], key_of[path] = path, key
    for path, key in key_of.items():
        for folder in path.parents:
            if folder in key_of:
                raise UnsafeKeyError(
                    f"the key {key_of[folder]!r} in bucket {bucket} is a file, but {key!r} needs a folder there; "
                    "remove one of the objects"
                )
    return paths


@contextmanager
def _as_main(script: Path, event: dict[str, Any]) -> Iterator[None]:
    """Let the process look like ``python script arguments`` in the script's folder; undo it for the next event."""
    environment, directory, arguments, path = dict(os.environ), Path.cwd(), sys.argv, list(sys.path)
    hook, sys.excepthook = sys.excepthook, _left_to_the_runtime
    os.environ.update({name: str(value) for name, value in event.items() if isinstance(value, str | int)})
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


def _left_to_the_runtime(*_: object) -> None:
    """Print nothing: the runtime logs what the handler raises."""


def _run(script: Path) -> None:
    try:
        runpy.run_path(str(script), run_name="__main__")
    except SystemExit as end:
        if end.code not in (None, 0):
            raise ScriptExit(f"the script ended itself with status {end.code}") from None
    except BaseException:
        sys.excepthook(*sys.exc_info())  # as the interpreter does, for libraries that want to know
        raise
