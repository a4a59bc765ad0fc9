"""Downloads a run's results from S3 to a local folder."""

import json
import os
import re
import tempfile
from collections.abc import Collection, Mapping
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from emulator.errors import EmulatorError
from emulator.fmi.functions.execute import UnsafeKeyError, file_paths

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

# The result of a rank in either generation.
_RANK_FILE = re.compile(r"(\d{1,9})\.json|(\d{1,9})/Results\.json")
_PUBLISHED_FOLDER = "results/"
# An object that was replaced, or deleted, since it was listed.
_CHANGED = frozenset(["PreconditionFailed", "NoSuchKey"])
_LISTINGS = 3


class ResultsError(EmulatorError):
    """The results cannot be downloaded to the given folder."""


def check_folder(folder: Path | None) -> None:
    """Check, before a run starts, that results can be written to a folder. It need not exist yet; None is accepted.

    Raises
    ------
    ResultsError
        If the path is not a folder, or is not writable.
    """
    if folder is None:
        return
    present = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not present.is_dir():
        raise ResultsError(f"cannot write results to {str(folder)!r}: {str(present)!r} is not a folder")
    if not os.access(present, os.W_OK):
        raise ResultsError(f"cannot write results to {str(folder)!r}: {str(present)!r} is not writable")


def fetch_results(s3: "S3Client", bucket: str, result_path: str, folder: Path) -> dict[int, dict[str, object]]:
    """Download all results. Each file appears under its name only when it is complete.

    An object that is written anew between its listing and its download is listed again.

    Parameters
    ----------
    s3
        boto3 client of S3.
    bucket, result_path
        Location of the results.
    folder
        Destination; created if it does not exist.

    Returns
    -------
    dict
        The content of each ``<rank>.json`` that is a JSON object, by rank.

    Raises
    ------
    ResultsError
        If a key leads outside of the folder, a file cannot be written, or an object changes again and again.
    """
    prefix = result_path.rstrip("/") + "/"
    for _ in range(_LISTINGS):
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        tags = {found["Key"]: found["ETag"] for page in pages for found in page.get("Contents", [])}
        try:
            return _download(s3, bucket, tags, prefix, folder)
        except ClientError as error:
            if error.response["Error"]["Code"] not in _CHANGED:
                raise
    raise ResultsError(f"results in s3://{bucket}/{prefix} are still being written: wait, and download them again")


def fetch_written(
    s3: "S3Client", bucket: str, since: datetime, excluded: Collection[str], folder: Path
) -> tuple[int, dict[int, dict[str, object]]]:
    """Download what a run without result path has written to its bucket, anywhere but at the excluded places.

    A first folder ``results/`` of the keys, which the published programs use, is not repeated below the local folder.

    Parameters
    ----------
    s3
        boto3 client of S3.
    bucket
        The run's bucket.
    since
        Start of the run.
    excluded
        Keys, and prefixes that end in a slash, that are not results.
    folder
        Destination; created if there is something to download.

    Returns
    -------
    int
        Number of files.
    dict
        The content of each ``<rank>/Results.json`` that is a JSON object, by rank.

    Raises
    ------
    ResultsError
        If a key leads outside of the folder, or a file cannot be written.
    """
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    tags = {
        found["Key"]: found["ETag"]
        for page in pages
        for found in page.get("Contents", [])
        if found["LastModified"] >= since
        and not any(
            found["Key"] == place or (place.endswith("/") and found["Key"].startswith(place)) for place in excluded
        )
    }
    return len(tags), _download(s3, bucket, tags, _PUBLISHED_FOLDER, folder)


def _is_at(key: str, places: Collection[str]) -> bool:
    return any(key == place or (place.endswith("/") and key.startswith(place)) for place in places)


def _download(
    s3: "S3Client", bucket: str, tags: Mapping[str, str], prefix: str, folder: Path
) -> dict[int, dict[str, object]]:
    """Download objects with these tags to their keys without the prefix; return the ranks' results among them."""
    found: dict[int, dict[str, object]] = {}
    try:
        paths = file_paths(bucket, list(tags))
        for key, path in paths.items():
            relative = PurePosixPath(str(path).removeprefix(prefix))
            content = s3.get_object(Bucket=bucket, Key=key, IfMatch=tags[key])["Body"].read()
            _write_atomically(folder / relative, content)
            if (match := _RANK_FILE.fullmatch(str(relative))) and (result := _json_object(content)) is not None:
                found[int(match[1] or match[2])] = result
    except UnsafeKeyError as error:
        raise ResultsError(f"cannot download results: {error}") from None
    except OSError as error:
        raise ResultsError(f"cannot write results to {str(folder)!r}: {error.strerror}") from None
    return found


def write_record(path: Path, record: dict[str, object]) -> None:
    """Write the record of a run as JSON; a reader finds the old file or the complete new one.

    Raises
    ------
    ResultsError
        If the file cannot be written.
    """
    write_whole(path, json.dumps(record, indent=1).encode())


def write_whole(path: Path, content: bytes) -> None:
    """Write a file; a reader finds the old one or the complete new one.

    Raises
    ------
    ResultsError
        If it cannot be written.
    """
    try:
        _write_atomically(path, content)
    except OSError as error:
        raise ResultsError(f"cannot write {str(path)!r}: {error.strerror}") from None


def _json_object(content: bytes) -> dict[str, object] | None:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _write_atomically(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with open(partial, "wb") as file:  # noqa: PTH123 - a descriptor
            file.write(content)
        Path(name).chmod(0o666 & ~_umask())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink()
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
