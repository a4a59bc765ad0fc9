"""The files that a run uploads: the archive of the deployed functions, the program's folder and the data."""

import importlib.util
import io
import itertools
import os
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from emulator.aws.limits import UNZIPPED_CODE_BYTES
from emulator.errors import EmulatorError

# Every rank downloads every file: a folder with more files is not only a program.
_MOST_FILES = 500
# To name what is large in a folder that is refused, so many of its files are looked at.
_FILES_MEASURED = 100_000
_ENTRIES_NAMED = 3
_UNNAMED = "program"
# With a constant date, equal code gives equal archives.
_DATE = (2020, 1, 1, 0, 0, 0)
_READABLE = 0o755 << 16


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


@dataclass(frozen=True)
class CodeFolder:
    """A folder of code.

    Parameters
    ----------
    files
        What is uploaded.
    links_outside
        Symbolic links, relative to the folder, that lead outside of it or nowhere. They are not uploaded.
    """

    files: list[UploadedFile]
    links_outside: list[str]

    def notes(self) -> list[str]:
        """Return one sentence for each link that is not uploaded."""
        return [
            f"link {name!r} is not uploaded: it leads outside of the program's folder; copy the file into the folder"
            for name in self.links_outside
        ]


def function_archive() -> bytes:
    """Return the zip of the deployed functions; see `function_files`."""
    return archive({name: path.read_bytes() for name, path in function_files().items()})


def function_files() -> dict[str, Path]:
    """Return the files of the deployed functions: handlers, fmi_shim, its wire protocol, ``fmi`` and ``fmilib``."""
    shim, pairing = _folder("fmi_shim"), _folder("rendezvous")
    members = {path.name: path for path in _folder("emulator.fmi.functions").glob("*.py") if path.name != "__init__.py"}
    members |= {f"fmi_shim/{path.relative_to(shim).as_posix()}": path for path in shim.rglob("*.py")}
    members |= {
        f"rendezvous/{path.relative_to(pairing).as_posix()}": path
        for path in [pairing / "__init__.py", *(pairing / "protocol").glob("*.py")]
    }
    members["fmi.json"] = _folder("emulator.fmi.functions") / "fmi.json"
    dropin = shim / "dropin"
    # By the files of the distribution, torch finds the backend that it has to register.
    found = [dropin / "fmi.py", *dropin.glob("fmilib/*.py"), *dropin.glob("*.dist-info/*")]
    members |= {path.relative_to(dropin).as_posix(): path for path in found}
    return members


def package_files(package: str) -> dict[str, Path]:
    """Return the Python files of an installed package, by their paths in an archive from which it can be imported."""
    folder = _folder(package)
    return {f"{package}/{path.relative_to(folder).as_posix()}": path for path in folder.rglob("*.py")}


def archive(members: Mapping[str, bytes]) -> bytes:
    """Return a zip archive. Equal members give equal archives.

    Parameters
    ----------
    members
        The content of each file, by its path in the archive.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as written:
        for name in sorted(members):
            info = zipfile.ZipInfo(name, _DATE)
            # Lambda runs functions as another user than the one who unpacks them.
            info.external_attr = _READABLE
            written.writestr(info, members[name], zipfile.ZIP_DEFLATED, compresslevel=1)
    return buffer.getvalue()


def program_files(script: Path) -> CodeFolder:
    """Return the files of a script's folder with their keys below the folder's name.

    Hidden files, byte code and virtual environments are excluded. Symbolic links are followed if they lead to a file or
    folder within the folder.

    Raises
    ------
    ProgramError
        If the script does not exist, or its folder is larger than a program can be.
    """
    if not script.is_file():
        raise ProgramError(f"script {str(script)!r} does not exist: expected the path of a Python file")
    return folder_files(script.resolve().parent, program_name(script))


def module_files(module: str, folder: Path) -> CodeFolder:
    """Return the files of the folder that contains a module, as `program_files` does.

    Parameters
    ----------
    module
        Its dotted name. It may also be installed, as with ``python -m``.
    folder
        The folder that becomes the first entry of ``sys.path``.

    Raises
    ------
    ProgramError
        If there is no such module, or the folder is larger than a program can be.
    """
    first = module.partition(".")[0]
    if not all(part.isidentifier() for part in module.split(".")) or not (
        (folder / first).is_dir() or (folder / f"{first}.py").is_file() or importlib.util.find_spec(first)
    ):
        raise ProgramError(
            f"module {module!r} does not exist: expected the name of a module in {str(folder)!r}, for example "
            "package.module, or of an installed one"
        )
    return folder_files(folder, folder.name or _UNNAMED)


def folder_files(folder: Path, prefix: str) -> CodeFolder:
    """Return the files of a folder of code, with their keys below a prefix; see `program_files`.

    Raises
    ------
    ProgramError
        If it is larger than a program can be.
    """
    files: list[UploadedFile] = []
    links_outside: list[str] = []
    size = 0
    for path in _walk(folder, links_outside):
        files.append(UploadedFile(path, f"{prefix}/{path.relative_to(folder).as_posix()}"))
        size += path.stat().st_size
        if len(files) > _MOST_FILES or size > UNZIPPED_CODE_BYTES:
            raise ProgramError(
                f"folder {str(folder)!r} has more than {_MOST_FILES} files or {UNZIPPED_CODE_BYTES // 10**6} MB, and "
                f"every rank would download it (largest: {_largest_entries(folder)}): move the script to a folder of "
                "its own"
            )
    return CodeFolder(files, links_outside)


def program_name(script: Path) -> str:
    """Return the name of a script's folder, which is its prefix in the bucket."""
    return script.resolve().parent.name or _UNNAMED


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


def _walk(folder: Path, links_outside: list[str]) -> Iterator[Path]:
    """Yield the files of a folder of code; append to `links_outside` the links that are not followed."""
    root = folder.resolve()

    def is_inside(path: Path) -> bool:
        if path.is_symlink() and not (path.exists() and path.resolve().is_relative_to(root)):
            links_outside.append(path.relative_to(folder).as_posix())
            return False
        return True

    for walked, folders, names in os.walk(folder, followlinks=True):
        here = Path(walked)
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".")
            and name != "__pycache__"
            and not (here / name / "pyvenv.cfg").exists()
            and is_inside(here / name)
            and not ((here / name).is_symlink() and (here / name).resolve() in _resolved(here, folder))
        )
        for name in sorted(names):
            path = here / name
            if not name.startswith(".") and is_inside(path) and path.is_file():
                yield path


def _resolved(path: Path, root: Path) -> set[Path]:
    """Return the real paths of a walked folder and those above it: a link to one of them would be followed for ever."""
    return {folder.resolve() for folder in (path, *path.parents) if folder.is_relative_to(root)}


def _largest_entries(folder: Path) -> str:
    """Return the entries of a folder that have most bytes or, of equally many, most files."""
    sizes: Counter[str] = Counter()
    numbers: Counter[str] = Counter()
    for path in itertools.islice(_walk(folder, []), _FILES_MEASURED):
        entry = path.relative_to(folder).parts[0] + ("/" if path.parent != folder else "")
        sizes[entry] += path.stat().st_size
        numbers[entry] += 1
    largest = sorted(sizes, key=lambda entry: (-sizes[entry], -numbers[entry], entry))[:_ENTRIES_NAMED]
    return ", ".join(
        f"{entry} {sizes[entry] / 1e6:.1f} MB" + (f" in {numbers[entry]} files" if entry.endswith("/") else "")
        for entry in largest
    )


def _folder(package: str) -> Path:
    """Return the folder of a package without importing it."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise ProgramError(f"package {package} is not installed: reinstall fmi-emulator")
    return Path(found.origin).parent
