"""Deployment packages: each archive is unpacked into a folder of its own; of an image only the URI is kept."""

import base64
import hashlib
import io
import lzma
import shutil
import stat
import uuid
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from emulator.aws.lambda_.core.constraints import invalid_parameter
from emulator.aws.lambda_.core.models import Function, FunctionSpec, ImageUri, Package, PackageType
from emulator.aws.limits import UNZIPPED_CODE_BYTES


class CodeStore:
    """The folder with a folder for each archive.

    Parameters
    ----------
    folder
        An existing folder, nobody else's.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def store(self, spec: FunctionSpec, code: bytes | ImageUri) -> Package:
        """Unpack an archive, or take note of an image.

        Raises
        ------
        ApiError
            When the code is not of the function's package type, or the archive is refused.
        """
        if isinstance(code, ImageUri):
            if spec.package_type is PackageType.ZIP:
                raise invalid_parameter("Please do not provide ImageUri when creating a function with packageType Zip.")
            return Package(hashlib.sha256(code.text.encode()).hexdigest(), 0, image_uri=code.text)
        if spec.package_type is PackageType.IMAGE:
            raise invalid_parameter("Please provide ImageUri when creating a function with packageType Image.")
        root = self._folder / f"{spec.name}-{uuid.uuid4().hex[:8]}"
        root.mkdir()
        try:
            unpack(code, root)
        except BaseException:
            shutil.rmtree(root)
            raise
        return Package(base64.b64encode(hashlib.sha256(code).digest()).decode(), len(code), root=root)

    def remove(self, functions: Iterable[Function]) -> None:
        """Remove the code of functions that are gone."""
        for function in functions:
            if function.package.root is not None:
                shutil.rmtree(function.package.root, ignore_errors=True)

    def keep_only(self, functions: Iterable[Function]) -> None:
        """Remove all code but that of some functions."""
        used = {function.package.root for function in functions}
        for unused in set(self._folder.iterdir()) - used:
            shutil.rmtree(unused, ignore_errors=True)


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
        raise invalid_parameter(
            "Could not unzip uploaded file. Please check your file, then try to upload again."
        ) from None
    except OSError as error:
        raise invalid_parameter(f"The archive's members cannot be written: {error.strerror}") from None


def _check_members(members: list[zipfile.ZipInfo]) -> None:
    unzipped = sum(member.file_size for member in members)
    if unzipped > UNZIPPED_CODE_BYTES:
        raise invalid_parameter(f"Unzipped size must be smaller than {UNZIPPED_CODE_BYTES} bytes")
    for member in members:
        if not member.filename:
            raise invalid_parameter("The archive has a member without a name")
        path = PurePosixPath(member.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts:
            raise invalid_parameter(f"The archive's member {member.filename!r} lies outside of the function's folder")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise invalid_parameter(f"The archive's member {member.filename!r} is a link")
