"""The files that a run uploads: the archive of the deployed functions, the program's folder and the data."""

import importlib.util
import io
import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from emulator.aws.limits import UNZIPPED_CODE_BYTES
from emulator.errors import EmulatorError

# Every rank downloads every file: a folder with more files is not only a program.
_MOST_FILES = 500
# With a constant date, equal code gives equal archives.
_DATE = (2020, 1, 1, 0, 0, 0)


class ProgramError(EmulatorError):
    """The program or its data cannot be uploaded."""


@dataclass(frozen=True)
class UploadedFile:
    """A file and its S3 key."""

    path: Path
    key: str

    def read(self) -> bytes:
        """Return its content.

        Raises
        ------
        ProgramError
            If it cannot be read.
        """
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise ProgramError(f"cannot upload {str(self.path)!r}: {error.strerror}") from None


def function_archive() -> bytes:
    """Return the zip of the deployed functions: their handlers, fmi_shim, its wire protocol and ``import fmi``."""
    shim, pairing = _folder("fmi_shim"), _folder("rendezvous")
    members = {path.name: path for path in _folder("emulator.fmi.functions").glob("*.py") if path.name != "__init__.py"}
    members |= {f"fmi_shim/{path.relative_to(shim).as_posix()}": path for path in shim.rglob("*.py")}
    members |= {
        f"rendezvous/{path.relative_to(pairing).as_posix()}": path
        for path in [pairing / "__init__.py", *(pairing / "protocol").glob("*.py")]
    }
    members["fmi.py"] = shim / "dropin" / "fmi.py"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name in sorted(members):
            archive.writestr(zipfile.ZipInfo(name, _DATE), members[name].read_bytes())
    return buffer.getvalue()


def program_files(script: Path) -> list[UploadedFile]:
    """Return the files of a script's folder with their keys below the folder's name.

    Hidden files, byte code, virtual environments and symbolic links are excluded.

    Raises
    ------
    ProgramError
        If the script does not exist, or its folder is larger than a program can be.
    """
    if not script.is_file():
        raise ProgramError(f"script {str(script)!r} does not exist: expected the path of a Python file")
    return folder_files(script.resolve().parent, program_name(script))


def folder_files(folder: Path, prefix: str) -> list[UploadedFile]:
    """Return the files of a folder of code, with their keys below a prefix; see `program_files`.

    Raises
    ------
    ProgramError
        If it is larger than a program can be.
    """
    files: list[UploadedFile] = []
    size = 0
    for path in _walk(folder):
        files.append(UploadedFile(path, f"{prefix}/{path.relative_to(folder).as_posix()}"))
        size += path.stat().st_size
        if len(files) > _MOST_FILES or size > UNZIPPED_CODE_BYTES:
            raise ProgramError(
                f"folder {str(folder)!r} has more than {_MOST_FILES} files or {UNZIPPED_CODE_BYTES} bytes, and every "
                "rank would download it: move the script to a folder of its own"
            )
    return files


def program_name(script: Path) -> str:
    """Return the name of a script's folder, which is its prefix in the bucket."""
    return script.resolve().parent.name or "program"


def data_files(folder: Path, prefix: str) -> list[UploadedFile]:
    """Return the files of a data folder, sorted by name.

    Raises
    ------
    ProgramError
        If the folder does not exist or contains no file.
    """
    if not folder.is_dir():
        raise ProgramError(f"data folder {str(folder)!r} does not exist")
    paths = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    if not paths:
        raise ProgramError(f"data folder {str(folder)!r} contains no files: write the partitions first")
    return [UploadedFile(path, prefix + path.name) for path in paths]


def _walk(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        here = Path(root)
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and name != "__pycache__" and not (here / name / "pyvenv.cfg").exists()
        )
        for name in sorted(names):
            path = here / name
            if not name.startswith(".") and not path.is_symlink() and path.is_file():
                yield path


def _folder(package: str) -> Path:
    """Return the folder of a package without importing it."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise ProgramError(f"package {package} is not installed: reinstall fmi-emulator")
    return Path(found.origin).parent
