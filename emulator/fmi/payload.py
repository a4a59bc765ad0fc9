"""The input of the published state machine, in either generation: what it says, and the local files that it names."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emulator.aws.limits import CONCURRENT_EXECUTIONS, STATE_DATA_BYTES
from emulator.errors import EmulatorError
from emulator.fmi.bundle import UploadedFile, data_files, folder_files

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
# Where Lambda may write: published payloads name the script by where *execute* puts it.
_TMP = "/tmp/"  # noqa: S108 - see above
_MOST = 2**31 - 1
# What to do when the code is not found.
GIVE_FOLDER = "give the folder that the payload calls S3_object_name with --script-folder"


class PayloadError(EmulatorError):
    """A payload that no state machine could be started with."""


class MissingCodeError(EmulatorError):
    """What a payload names is neither in a local folder nor in S3."""


@dataclass(frozen=True)
class PipelinePayload:
    """What a state machine's input says.

    Parameters
    ----------
    event
        The input as it is.
    bucket
        For code, ``payload.json`` and results.
    folder
        The code's prefix in the bucket (S3_object_name), without slash at the end.
    script
        The script's path within that folder.
    world_size
        Number of ranks, or None: as many as there are data files.
    data_bucket, data_prefix
        Where the data lies; both are empty in payloads that name none.
    result_path
        Prefix of the results; empty in the first generation.
    """

    event: Mapping[str, Any]
    bucket: str
    folder: str
    script: str
    world_size: int | None
    data_bucket: str
    data_prefix: str
    result_path: str


def read_payload(path: Path) -> PipelinePayload:
    """Read and check a payload file.

    Raises
    ------
    PayloadError
        Naming the file, the key, its value and what is allowed.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise PayloadError(f"the payload {str(path)!r} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise PayloadError(f"the payload {str(path)!r} is no text, expected JSON in UTF-8") from None
    try:
        event = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PayloadError(f"the payload {str(path)!r} is no JSON: {error}") from None
    try:
        return parse_payload(event)
    except PayloadError as error:
        raise PayloadError(f"{path}: {error}") from None


def parse_payload(event: object) -> PipelinePayload:
    """Check a state machine's input.

    Parameters
    ----------
    event
        The input, parsed.

    Raises
    ------
    PayloadError
        Naming the key, its value and what is allowed.
    """
    if not isinstance(event, dict):
        raise PayloadError(f"expected a JSON object, got {json.dumps(event)[:60]}")
    size = len(json.dumps(event).encode())
    if size > STATE_DATA_BYTES:
        raise PayloadError(f"it has {size} bytes, Step Functions takes at most {STATE_DATA_BYTES}")
    kind = event.get("object_type", "folder")
    if kind != "folder":
        raise PayloadError(f'object_type is {kind!r}, allowed is "folder"')
    folder = _text(event, "S3_object_name").strip("/")
    for name in ("file_limit", "batch_size"):
        _number(event, name, _MOST)
    world_size = _number(event, "world_size", CONCURRENT_EXECUTIONS)
    if world_size is None and "data_prefix" not in event:
        raise PayloadError(
            "world_size is missing, and so is data_prefix: one of them must say how many ranks there are"
        )
    bucket = _bucket(event, "bucket")
    return PipelinePayload(
        event,
        bucket,
        folder,
        _script(_text(event, "script"), folder),
        world_size,
        (_bucket(event, "data_bucket") if "data_bucket" in event else bucket) if "data_prefix" in event else "",
        _optional_text(event, "data_prefix"),
        _optional_text(event, "result_path").rstrip("/"),
    )


def code_folder(payload: PipelinePayload, given: Path | None, near: Path) -> Path | None:
    """Return the local folder with the code that a payload names; None when there is none.

    Parameters
    ----------
    payload
        The payload.
    given
        The folder that the user named, or None: it is then looked for below the working directory, below the
        payload's folder, and below the folders above that one.
    near
        The payload's folder.

    Raises
    ------
    MissingCodeError
        When the folder that the user named has no such script.
    """
    if given is not None:
        if not (given / payload.script).is_file():
            raise MissingCodeError(f"the script {payload.script!r} that the payload names is not in {str(given)!r}")
        return given
    names = dict.fromkeys([payload.folder, payload.folder.rpartition("/")[2]])
    above = [Path.cwd(), near.resolve(), *list(near.resolve().parents)[:2]]
    candidates = (folder / name for folder in above for name in names)
    return next((folder for folder in candidates if (folder / payload.script).is_file()), None)


def required_code_folder(payload: PipelinePayload, given: Path | None, near: Path) -> Path:
    """Return the local folder with the code, which is not in S3 yet; see `code_folder`.

    Raises
    ------
    MissingCodeError
        When there is none.
    """
    folder = code_folder(payload, given, near)
    if folder is None:
        looked = f"{payload.folder!r} in {Path.cwd()}, beside the payload and above it"
        raise MissingCodeError(f"there is no folder {looked}, with {payload.script!r} in it; {GIVE_FOLDER}")
    return folder


def uploads(payload: PipelinePayload, code: Path | None, data: Path | None) -> dict[str, list[UploadedFile]]:
    """Return what goes to which bucket.

    Parameters
    ----------
    payload
        Names the buckets and prefixes.
    code, data
        The local folders, or None for what lies in S3 already.

    Raises
    ------
    ProgramError, MissingCodeError
        When a folder cannot be uploaded.
    """
    files: dict[str, list[UploadedFile]] = {}
    if code is not None:
        files.setdefault(payload.bucket, []).extend(folder_files(code, payload.folder))
    if data is not None:
        if not payload.data_bucket:
            raise MissingCodeError("the payload names no data_prefix, so --data has nowhere to go; add one to it")
        prefix = payload.data_prefix + ("/" if payload.data_prefix and not payload.data_prefix.endswith("/") else "")
        files.setdefault(payload.data_bucket, []).extend(data_files(data, prefix))
    return files


def _script(script: str, folder: str) -> str:
    within = script.removeprefix(_TMP)
    inner = within.removeprefix(folder + "/")
    if inner == within or ".." in inner.split("/") or not inner:
        raise PayloadError(
            f"script is {script!r}, expected a file in the folder that S3_object_name names, such as "
            f"{f'{_TMP}{folder}/main.py'!r}"
        )
    return inner


def _text(event: Mapping[str, Any], name: str) -> str:
    value = _optional_text(event, name)
    if not value.strip("/"):
        said = f"is {event[name]!r}" if name in event else "is missing"
        raise PayloadError(f"{name} {said}, expected a text that is not empty")
    return value


def _optional_text(event: Mapping[str, Any], name: str) -> str:
    value = event.get(name, "")
    if not isinstance(value, str):
        raise PayloadError(f"{name} is {value!r}, expected a text")
    return value


def _bucket(event: Mapping[str, Any], name: str) -> str:
    value = _text(event, name)
    if not _BUCKET.fullmatch(value):
        raise PayloadError(
            f"{name} is {value!r}, a bucket's name has 3 to 63 lower-case letters, digits, dots and dashes"
        )
    return value


def _number(event: Mapping[str, Any], name: str, most: int) -> int | None:
    """Return a number that may be written as a text; None when it is left out or empty."""
    value = event.get(name)
    if value is None or value == "":
        return None
    is_whole = (isinstance(value, int) and not isinstance(value, bool)) or (
        isinstance(value, str) and value.strip().isascii() and value.strip().isdigit()
    )
    if not is_whole or not 1 <= int(value) <= most:
        raise PayloadError(f"{name} is {value!r}, allowed is a whole number from 1 to {most}, also as a text")
    return int(value)
