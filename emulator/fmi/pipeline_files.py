"""The local files that a pipeline uploads: the code that a payload names, and its data."""

from pathlib import Path

from emulator.errors import EmulatorError
from emulator.fmi.bundle import UploadedFile, data_files, folder_files
from emulator.fmi.payload import Payload

# What to do when the code is not found.
GIVE_FOLDER = "give the folder that the payload calls S3_object_name with --script-folder"


class MissingCodeError(EmulatorError):
    """What a payload names is neither in a local folder nor in S3."""


def code_folder(payload: Payload, given: Path | None, near: Path) -> Path | None:
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


def required_code_folder(payload: Payload, given: Path | None, near: Path) -> Path:
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


def uploads(payload: Payload, code: Path | None, data: Path | None) -> dict[str, list[UploadedFile]]:
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
