"""A function's code on disk: a zip archive taken apart, and nothing written outside its folder."""

import io
import lzma
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from emulator.aws.lambda_.core.constraints import invalid
from emulator.aws.limits import UNZIPPED_CODE_BYTES


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
        When the archive is too large unpacked, or has a member that is a link, is absolute or points outside: nothing
        is written then. When it is no zip file, or damaged: what was whole may have been written.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as opened:
            members = opened.infolist()
            _check_members(members)
            for member in members:
                written = Path(opened.extract(member, folder))
                # What the archive says may be executed stays so: a custom runtime's bootstrap is a program.
                if not member.is_dir() and member.external_attr >> 16 & stat.S_IXUSR:
                    written.chmod(0o755)
    # A member that is damaged, encrypted, compressed in an unknown way, longer than it says, or somewhere else; a name
    # that is no text.
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, RuntimeError, NotImplementedError, EOFError, ValueError):
        raise invalid("Could not unzip uploaded file. Please check your file, then try to upload again.") from None
    except OSError as error:
        raise invalid(f"The archive's members cannot be written: {error.strerror}") from None


def _check_members(members: list[zipfile.ZipInfo]) -> None:
    unzipped = sum(member.file_size for member in members)
    if unzipped > UNZIPPED_CODE_BYTES:
        raise invalid(f"Unzipped size must be smaller than {UNZIPPED_CODE_BYTES} bytes")
    for member in members:
        if not member.filename:
            raise invalid("The archive has a member without a name")
        path = PurePosixPath(member.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts:
            raise invalid(f"The archive's member {member.filename!r} lies outside of the function's folder")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise invalid(f"The archive's member {member.filename!r} is a link")
