"""The input of the published state machine, in either generation: what it says, and the local files that it names."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emulator.aws.limits import STATE_DATA_BYTES
from emulator.errors import EmulatorError
from emulator.fmi.bundle import UploadedFile, data_files, folder_files

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
# The folder that Lambda can write to: published payloads give the path where *execute* stores the script.
_TMP = "/tmp/"  # noqa: S108 - see above
_MOST = 2**31 - 1
# 1 TB in partitions of 25 MB are 41,944 ranks. *initialize* holds the payloads of all of them.
_MOST_RANKS = 100_000
# The advice when the code is not found.
GIVE_FOLDER = "pass the folder that the payload calls S3_object_name with --script-folder"


class PayloadError(EmulatorError):
    """The payload is invalid."""


class MissingCodeError(EmulatorError):
    """The code or data that a payload names is neither in a local folder nor in S3."""


@dataclass(frozen=True)
class PipelinePayload:
    """A state machine's input, checked.

    Parameters
    ----------
    event
        The input, unchanged.
    bucket
        For code, ``payload.json`` and results.
    folder
        The code's prefix in the bucket (S3_object_name), without slash at the end.
    script
        The script's path within that folder.
    world_size
        Number of ranks; None for one rank per data file.
    data_bucket, data_prefix
        Location of the data; both are empty if the payload names none.
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
        If it is invalid. The message names the file, the key, its value and what was expected.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise PayloadError(f"cannot read payload {str(path)!r}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise PayloadError(f"payload {str(path)!r} is not text: expected JSON in UTF-8") from None
    try:
        event = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PayloadError(f"payload {str(path)!r} is not valid JSON: {error}") from None
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
        If it is invalid. The message names the key, its value and what was expected.
    """
    if not isinstance(event, dict):
        raise PayloadError(f"must be a JSON object, got {json.dumps(event)[:60]}")
    size = len(json.dumps(event).encode())
    if size > STATE_DATA_BYTES:
        raise PayloadError(f"payload of {size} bytes is too large: Step Functions accepts at most {STATE_DATA_BYTES}")
    kind = event.get("object_type", "folder")
    if kind != "folder":
        raise PayloadError(f'invalid object_type {kind!r}: expected "folder"')
    folder = _text(event, "S3_object_name").strip("/")
    for name in ("file_limit", "batch_size"):
        _number(event, name, _MOST)
    world_size = _number(event, "world_size", _MOST_RANKS)
    if world_size is None and "data_prefix" not in event:
        raise PayloadError(
            "missing world_size: give it, or a data_prefix, below which there is one data file for each rank"
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
    """Return the local folder with the code that a payload names; None if it is not found.

    Parameters
    ----------
    payload
        The payload.
    given
        The folder that the user gave. If None, it is searched for in the working directory, in the payload's folder,
        and in the two folders above that one.
    near
        The payload's folder.

    Raises
    ------
    MissingCodeError
        If the given folder does not contain the script.
    """
    if given is not None:
        if not (given / payload.script).is_file():
            raise MissingCodeError(
                f"folder {str(given)!r} does not contain the script {payload.script!r} that the payload names"
            )
        return given
    names = dict.fromkeys([payload.folder, payload.folder.rpartition("/")[2]])
    above = [Path.cwd(), near.resolve(), *list(near.resolve().parents)[:2]]
    candidates = (folder / name for folder in above for name in names)
    return next((folder for folder in candidates if (folder / payload.script).is_file()), None)


def required_code_folder(payload: PipelinePayload, given: Path | None, near: Path) -> Path:
    """Return the local folder with the code, which must exist; see `code_folder`.

    Raises
    ------
    MissingCodeError
        If it is not found.
    """
    folder = code_folder(payload, given, near)
    if folder is None:
        searched = f"in {Path.cwd()}, beside the payload or above it"
        raise MissingCodeError(
            f"no folder {payload.folder!r} with the script {payload.script!r} {searched}: {GIVE_FOLDER}"
        )
    return folder


def uploads(
    payload: PipelinePayload, code: Path | None, data: Path | None, on_note: Callable[[str], None]
) -> dict[str, list[UploadedFile]]:
    """Return the files to upload, by bucket.

    Parameters
    ----------
    payload
        Gives the buckets and prefixes.
    code, data
        The local folders; None for what is already in S3.
    on_note
        Called with one sentence for each file that is not uploaded.

    Raises
    ------
    ProgramError, MissingCodeError
        If a folder cannot be uploaded.
    """
    files: dict[str, list[UploadedFile]] = {}
    if code is not None:
        folder = folder_files(code, payload.folder)
        for note in folder.notes():
            on_note(note)
        files.setdefault(payload.bucket, []).extend(folder.files)
    if data is not None:
        if not payload.data_bucket:
            raise MissingCodeError("missing data_prefix in the payload: --data requires it as the destination; add one")
        prefix = payload.data_prefix + ("/" if payload.data_prefix and not payload.data_prefix.endswith("/") else "")
        files.setdefault(payload.data_bucket, []).extend(data_files(data, prefix))
    return files


def _script(script: str, folder: str) -> str:
    within = script.removeprefix(_TMP)
    inner = within.removeprefix(folder + "/")
    if inner == within or ".." in inner.split("/") or not inner:
        raise PayloadError(
            f"invalid script {script!r}: expected a file in the folder that S3_object_name names, for example "
            f"{f'{_TMP}{folder}/main.py'!r}"
        )
    return inner


def _text(event: Mapping[str, Any], name: str) -> str:
    value = _optional_text(event, name)
    if not value.strip("/"):
        wrong = f"invalid {name} {event[name]!r}" if name in event else f"missing {name}"
        raise PayloadError(f"{wrong}: expected a string that is not empty")
    return value


def _optional_text(event: Mapping[str, Any], name: str) -> str:
    value = event.get(name, "")
    if not isinstance(value, str):
        raise PayloadError(f"invalid {name} {value!r}: expected a string")
    return value


def _bucket(event: Mapping[str, Any], name: str) -> str:
    value = _text(event, name)
    if not _BUCKET.fullmatch(value):
        works = re.sub(r"[^a-z0-9.-]+", "-", value.lower()).strip(".-")[:63]
        advice = f"; AWS refuses it, too: use {works!r}" if _BUCKET.fullmatch(works) else ""
        raise PayloadError(
            f"invalid {name} {value!r}: expected 3 to 63 lower-case letters, digits, dots and dashes{advice}"
        )
    return value


def _number(event: Mapping[str, Any], name: str, most: int) -> int | None:
    """Return a number, which may be given as a string; None if it is missing or empty."""
    value = event.get(name)
    if value is None or value == "":
        return None
    is_whole = (isinstance(value, int) and not isinstance(value, bool)) or (
        isinstance(value, str) and value.strip().isascii() and value.strip().isdigit()
    )
    if not is_whole or not 1 <= int(value) <= most:
        raise PayloadError(
            f"invalid {name} {value!r}: expected a whole number from 1 to {most}, as a number or a string"
        )
    return int(value)
