"""Deployment packages: each archive is unpacked into a folder of its own; of an image only the URI is kept."""

import asyncio
import base64
import hashlib
import io
import lzma
import os
import shutil
import stat
import uuid
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from emulator.aws.disk_reserve import SMALL_WRITE_BYTES, DiskFullError, DiskReserve, is_disk_full, private_opener
from emulator.aws.lambda_.core.models import Function, FunctionSpec, ImageUri, Package, PackageType
from emulator.aws.lambda_.core.references import invalid_parameter
from emulator.aws.limits import UNZIPPED_CODE_BYTES

# GetFunction returns the archive.
_ARCHIVE = ".zip"


def sha256_base64(content: bytes) -> str:
    """Return the SHA-256 of a content as Lambda shows it."""
    return base64.b64encode(hashlib.sha256(content).digest()).decode()


class CodeStore:
    """Stores the code of functions: one folder for each archive.

    Parameters
    ----------
    folder
        An existing folder that holds nothing else.
    reserve
        Space for small archives on a full disk.
    """

    def __init__(self, folder: Path, reserve: DiskReserve) -> None:
        self._folder = folder
        self._reserve = reserve
        # An archive may have tens of thousands of files. What is left at a kill is removed at the next start.
        self._remover = ThreadPoolExecutor(1, thread_name_prefix="code-remover")

    def store(self, spec: FunctionSpec, code: bytes | ImageUri, doing: str = "creating") -> Package:
        """Unpack an archive; of an image, keep the URI.

        Parameters
        ----------
        spec
            The function.
        code
            Its code.
        doing
            What is done to the function, for messages.

        Raises
        ------
        ApiError
            When the code does not match the function's package type, the archive is invalid, or the disk is full.
        """
        if isinstance(code, ImageUri):
            if spec.package_type is PackageType.ZIP:
                raise invalid_parameter(f"Please don't provide ImageUri when {doing} a function with packageType Zip.")
            return Package(hashlib.sha256(code.text.encode()).hexdigest(), 0, image_uri=code.text)
        if spec.package_type is PackageType.IMAGE:
            raise invalid_parameter(f"Please provide ImageUri when {doing} a function with packageType Image.")
        root = self.unpack_new(spec.name, code)
        return Package(sha256_base64(code), len(code), root=root)

    def unpack_new(self, name: str, code: bytes) -> Path:
        """Unpack an archive into a new folder, and keep the archive beside it; return the folder.

        Raises
        ------
        ApiError
            When the archive is invalid, or the disk is full.
        """
        root = self._folder / f"{name}-{uuid.uuid4().hex[:8]}"
        if len(code) <= SMALL_WRITE_BYTES:
            self._reserve.write(lambda: _unpack_into(code, root))
        elif not self._reserve.leaves_room(len(code)):
            raise DiskFullError
        else:
            try:
                _unpack_into(code, root)
            except OSError as error:
                raise (DiskFullError() if is_disk_full(error) else error) from error
        return root

    async def store_in_thread(self, spec: FunctionSpec, code: bytes | ImageUri, doing: str = "creating") -> Package:
        """As `store`; the event loop continues meanwhile."""
        return await asyncio.to_thread(self.store, spec, code, doing)

    @contextmanager
    def adopted(self, package: Package) -> Iterator[None]:
        """Remove a new package if the block, which makes it a function's, fails."""
        try:
            yield
        except BaseException:
            if package.root is not None:
                self.remove_folder(package.root)
            raise

    def archive(self, root: Path) -> Path:
        """Return the file with the archive that was unpacked into a folder."""
        return root.with_suffix(_ARCHIVE)

    def remove(self, functions: Iterable[Function]) -> None:
        """Remove the code of deleted functions."""
        for function in functions:
            if function.package.root is not None:
                self.remove_folder(function.package.root)

    def remove_folder(self, root: Path) -> None:
        """Remove a folder and its archive soon, by a thread."""
        self._remover.submit(_remove, root)

    def keep_only(self, functions: Iterable[Function]) -> None:
        """Remove all code except that of the given functions."""
        self.keep_folders(function.package.root for function in functions if function.package.root is not None)

    def keep_folders(self, roots: Iterable[Path]) -> None:
        """Remove all folders and archives except the given folders and theirs."""
        used = set(roots)
        for found in list(self._folder.iterdir()):
            if found.with_suffix("") not in used:
                self.remove_folder(found.with_suffix(""))


def _remove(root: Path) -> None:
    shutil.rmtree(root, ignore_errors=True)
    root.with_suffix(_ARCHIVE).unlink(missing_ok=True)


def _unpack_into(archive: bytes, root: Path) -> None:
    """Unpack an archive into a new folder; if that fails, the folder is removed."""
    try:
        root.mkdir(mode=0o755)
        unpack(archive, root)
        with open(root.with_suffix(_ARCHIVE), "wb", opener=private_opener) as file:
            file.write(archive)
    except BaseException:
        _remove(root)
        raise


def unpack(archive: bytes, folder: Path) -> None:
    """Unpack a zip archive into a folder.

    Parameters
    ----------
    archive
        The zip file.
    folder
        An existing folder.

    Raises
    ------
    ApiError
        When the unpacked archive would be too large, or a member is a link or lies outside the folder: nothing is
        written. When the archive is not a zip file or is damaged: its valid members may have been written.
    OSError
        When the disk is full.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as opened:
            members = opened.infolist()
            _check_members(members)
            for member in members:
                written = Path(opened.extract(member, folder))
                # Keep the executable bit: the bootstrap of a custom runtime is a program.
                is_program = member.is_dir() or member.external_attr >> 16 & stat.S_IXUSR
                written.chmod(0o755 if is_program else 0o644)
            for directory, _, _ in os.walk(folder):
                Path(directory).chmod(0o755)
    # A member is damaged, encrypted, compressed by an unknown method, longer than its header or misplaced, or its name
    # cannot be decoded.
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, RuntimeError, NotImplementedError, EOFError, ValueError):
        raise invalid_parameter(
            "Could not unzip uploaded file. Please check your file, then try to upload again."
        ) from None
    except OSError as error:
        if is_disk_full(error):
            raise
        raise invalid_parameter(f"cannot unpack the archive: {error.strerror}") from None


def _check_members(members: list[zipfile.ZipInfo]) -> None:
    unzipped = sum(member.file_size for member in members)
    if unzipped > UNZIPPED_CODE_BYTES:
        raise invalid_parameter(f"Unzipped size must be smaller than {UNZIPPED_CODE_BYTES} bytes")
    for member in members:
        if not member.filename:
            raise invalid_parameter("invalid archive: expected a name for each member, one has none")
        path = PurePosixPath(member.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts:
            raise invalid_parameter(f"invalid archive: member {member.filename!r} lies outside the function's folder")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise invalid_parameter(f"invalid archive: member {member.filename!r} is a link")
