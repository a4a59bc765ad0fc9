"""A function's code on disk: a zip archive taken apart, and nothing written outside its folder."""

import io
import stat
import zipfile
from http import HTTPStatus
from pathlib import Path, PurePosixPath

from emulator.errors import ApiError
from emulator.limits import UNZIPPED_CODE_BYTES, ZIPPED_CODE_BYTES


def unpack(archive: bytes, folder: Path) -> None:
    """Write an archive's files below a folder.

    Parameters
    ----------
    archive
        The zip file.
    folder
        An existing folder.

    Raises
    ------
    ApiError
        When the archive is too large, no zip file, or has a member that is a link, is absolute or points outside;
        nothing is written then.
    """
    if len(archive) > ZIPPED_CODE_BYTES:
        raise _refused(f"Zipped size must be smaller than {ZIPPED_CODE_BYTES} bytes, got {len(archive)}")
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as opened:
            members = opened.infolist()
            _check_members(members)
            opened.extractall(folder)
    except zipfile.BadZipFile as error:
        raise _refused(
            f"Could not unzip uploaded file. Please check your file, then try to upload again ({error})."
        ) from None


def _check_members(members: list[zipfile.ZipInfo]) -> None:
    unzipped = sum(member.file_size for member in members)
    if unzipped > UNZIPPED_CODE_BYTES:
        raise _refused(f"Unzipped size must be smaller than {UNZIPPED_CODE_BYTES} bytes, got {unzipped}")
    for member in members:
        path = PurePosixPath(member.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts:
            raise _refused(f"The archive's member {member.filename!r} lies outside of the function's folder")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise _refused(f"The archive's member {member.filename!r} is a link")


def _refused(message: str) -> ApiError:
    return ApiError("InvalidParameterValueException", HTTPStatus.BAD_REQUEST, message)
