"""What is uploaded for a run: the functions' own code as an archive, and the program's folder."""

import importlib.util
import io
import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from emulator.aws.limits import UNZIPPED_CODE_BYTES
from emulator.errors import EmulatorError

# More files than this are hardly a program; every rank would download each.
_MOST_FILES = 500
# A constant date makes equal code an equal archive.
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
            When it cannot be read.
        """
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise ProgramError(f"{str(self.path)!r} cannot be uploaded: {error.strerror}") from None


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

    Hidden files, byte code and virtual environments stay behind, and so do links.

    Raises
    ------
    ProgramError
        When there is no such script, or its folder is too large to be a program.
    """
    if not script.is_file():
        raise ProgramError(f"there is no script {str(script)!r}; give the path of a Python file")
    return folder_files(script.resolve().parent, program_name(script))


def folder_files(folder: Path, prefix: str) -> list[UploadedFile]:
    """Return the files of a folder of code, with their keys below a prefix; see `program_files`.

    Raises
    ------
    ProgramError
        When it is too large to be a program.
    """
    files: list[UploadedFile] = []
    size = 0
    for path in _walk(folder):
        files.append(UploadedFile(path, f"{prefix}/{path.relative_to(folder).as_posix()}"))
        size += path.stat().st_size
        if len(files) > _MOST_FILES or size > UNZIPPED_CODE_BYTES:
            raise ProgramError(
                f"the script's folder {folder} has more than {_MOST_FILES} files or {UNZIPPED_CODE_BYTES} bytes, "
                "and every rank would download it; move the script to a folder of its own"
            )
    return files


def program_name(script: Path) -> str:
    """Return the name of a script's folder, which is its prefix in the bucket."""
    return script.resolve().parent.name or "program"


def data_files(folder: Path, prefix: str) -> list[UploadedFile]:
    """Return the files that lie in a data folder, by name.

    Raises
    ------
    ProgramError
        When there is no such folder or no file in it.
    """
    if not folder.is_dir():
        raise ProgramError(f"there is no data folder {str(folder)!r}")
    paths = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    if not paths:
        raise ProgramError(f"the data folder {str(folder)!r} holds no files; write the partitions first")
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
    """Return where a package lies, without the time that importing it takes."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise ProgramError(f"the package {package} is not installed; install fmi-emulator anew")
    return Path(found.origin).parent
