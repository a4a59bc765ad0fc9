"""Builds the executor's image: wheels, functions, rendezvous server; its name has the digest of all that is in it."""

import contextlib
import hashlib
import importlib.metadata
import importlib.resources
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from emulator.aws.sandboxes.containers.daemon import Daemon, DaemonError
from emulator.errors import EmulatorError
from emulator.fmi.bundle import archive, function_files, package_files

DEFAULT_BASE_IMAGE = "public.ecr.aws/lambda/python:3.12"
REPOSITORY = "fmi-executor"
_LABEL = "fmi-emulator.executor"
# What the functions, programs and the rendezvous server import.
_PACKAGES = ("awslambdaric", "boto3", "numpy", "aiohttp", "prometheus-client")
_DIGITS = 16
_VERSION = "import platform, sys; print(*sys.version_info[:2], platform.machine(), *platform.libc_ver()[1:], sep='.')"
_PIP_TIMEOUT_S = 3600


class ImageBuildError(EmulatorError):
    """The executor's image cannot be built."""


@dataclass(frozen=True)
class ImageRequest:
    """An executor's image.

    Parameters
    ----------
    base_image
        The image to build on; it has python3.
    requirements
        A file of further packages, in pip's format; None for no others.
    preload
        Modules that are installed, too, and imported in the init phase.
    tag
        A further name for the image; None for none.
    """

    base_image: str = DEFAULT_BASE_IMAGE
    requirements: Path | None = None
    preload: tuple[str, ...] = ()
    tag: str | None = None


def executor_image(daemon: Daemon, request: ImageRequest, on_progress: Callable[[str], None]) -> str:
    """Return the name of the executor's image; build it if the daemon has none with this content.

    Parameters
    ----------
    daemon
        Builds it.
    request
        What it contains.
    on_progress
        Receives lines while it is built.

    Raises
    ------
    DaemonError
        If the daemon cannot build it, or the base image cannot be had.
    ImageBuildError
        If packages or the file of requirements cannot be had.
    """
    base = _base_id(daemon, request.base_image, on_progress)
    requirements = _requirements(request)
    task, dockerfile = _task(), _dockerfile()
    parts = (dockerfile, base.encode(), requirements.encode(), task, "\0".join(request.preload).encode())
    digest = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:_DIGITS]
    name = f"{REPOSITORY}:{digest}"
    if not daemon.has_image(name):
        python = python_of(daemon, request.base_image)
        on_progress(f"packages for Python {python.version} on {python.machine}: {', '.join(requirements.split())}")
        wheelhouse = wheelhouse_of(requirements, python)
        with tempfile.TemporaryFile() as context:
            _write_context(context, dockerfile, wheelhouse, task)
            context.seek(0)
            arguments = {"BASE_IMAGE": request.base_image, "PRELOAD": " ".join(request.preload)}
            for line in daemon.build(context, name, arguments, {_LABEL: digest}, "Dockerfile"):
                on_progress(line)
    if request.tag is not None:
        daemon.tag(name, request.tag)
    return name


@dataclass(frozen=True)
class ImagePython:
    """The interpreter of a base image: ``3.12``, ``x86_64``, and the minor version of its C library."""

    version: str
    machine: str
    libc_minor: int

    @property
    def platforms(self) -> list[str]:
        """The platform tags of wheels that it can use, as PEP 600 defines them."""
        return [f"manylinux_2_{minor}_{self.machine}" for minor in range(self.libc_minor, 4, -1)] + [
            f"manylinux2014_{self.machine}"
        ]


def _base_id(daemon: Daemon, base_image: str, on_progress: Callable[[str], None]) -> str:
    if not daemon.has_image(base_image):
        on_progress(f"base image {base_image} is not here: pulling it")
        try:
            for line in daemon.pull(base_image):
                on_progress(line)
        except DaemonError as error:
            raise DaemonError(
                f"{error}. Without a registry: docker import a root file system that has python3, and name it with "
                "--base-image"
            ) from None
    return daemon.image_id(base_image)


def python_of(daemon: Daemon, base_image: str) -> ImagePython:
    """Return the interpreter of an image.

    Raises
    ------
    ImageBuildError
        If it has none that wheels exist for.
    """
    output = daemon.run(base_image, ["python3", "-c", _VERSION])
    try:
        major, minor, machine, _, libc_minor = output.split(".")[:5]
        return ImagePython(f"{int(major)}.{int(minor)}", machine, int(libc_minor))
    except ValueError:
        raise ImageBuildError(
            f"base image {base_image!r} has no usable python3 (it printed {output!r}): expected one with the GNU C "
            "library, for example AWS's Lambda images or Debian's"
        ) from None


def _requirements(request: ImageRequest) -> str:
    """Return the packages, each with the version that is installed here, so that local and image runs agree."""
    preloaded = (module for module in request.preload if module.partition(".")[0] not in sys.stdlib_module_names)
    names = [*_PACKAGES, *(_distribution_of(module) for module in preloaded)]
    lines = []
    for name in dict.fromkeys(names):
        try:
            lines.append(f"{name}=={importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            lines.append(name)
    if request.requirements is not None:
        try:
            lines.append(request.requirements.read_text())
        except OSError as error:
            raise ImageBuildError(
                f"cannot read the requirements {str(request.requirements)!r}: {error.strerror}; expected a file with "
                "one package a line"
            ) from None
    return "\n".join(lines) + "\n"


def _distribution_of(module: str) -> str:
    first = module.partition(".")[0]
    return (importlib.metadata.packages_distributions().get(first) or [first])[0]


def wheelhouse_of(requirements: str, python: ImagePython) -> Path:
    """Return a folder with the wheels, from the user's cache if they were downloaded before."""
    digest = hashlib.sha256(f"{python} {requirements}".encode()).hexdigest()[:_DIGITS]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fmi-emulator" / "wheels"
    wheelhouse = cache / digest
    if not wheelhouse.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="download-", dir=cache) as folder:
            downloaded = Path(folder) / digest
            downloaded.mkdir()
            (downloaded / "requirements.txt").write_text(requirements)
            _download(downloaded, python)
            # Another process may have downloaded the same.
            with contextlib.suppress(OSError):
                downloaded.rename(wheelhouse)
    return wheelhouse


def _download(wheelhouse: Path, python: ImagePython) -> None:
    """Download wheels for the interpreter of the base image."""
    digits = python.version.replace(".", "")
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
        *("--only-binary", ":all:", "--dest", str(wheelhouse), "--implementation", "cp"),
        *("--python-version", python.version, "--abi", f"cp{digits}", "--abi", "abi3", "--abi", "none"),
        *(option for tag in python.platforms for option in ("--platform", tag)),
        # pip itself installs the others, in a base image that may have none.
        *("pip", "--requirement", str(wheelhouse / "requirements.txt")),
    ]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=_PIP_TIMEOUT_S, check=False)  # noqa: S603 - our own arguments
    if ended.returncode != 0:
        errors = [line for line in ended.stderr.splitlines() if line.startswith("ERROR")] or [ended.stderr.strip()]
        raise ImageBuildError(
            f"pip cannot download the wheels of the image: {errors[-1]}; check the network and the requirements, and "
            "set PIP_EXTRA_INDEX_URL for packages of another index"
        )


def _task() -> bytes:
    """Return the zip of the functions and of the rendezvous server, which a task on Fargate runs."""
    return archive(
        {name: path.read_bytes() for name, path in {**function_files(), **package_files("rendezvous")}.items()}
    )


def _write_context(target: IO[bytes], dockerfile: bytes, wheelhouse: Path, task: bytes) -> None:
    """Write the build context: Dockerfile, wheelhouse/ and task/."""
    with tarfile.open(fileobj=target, mode="w") as context:
        _add(context, "Dockerfile", dockerfile)
        for path in sorted(wheelhouse.iterdir()):
            context.add(path, f"wheelhouse/{path.name}", filter=_readable)
        with zipfile.ZipFile(io.BytesIO(task)) as members:
            for name in members.namelist():
                _add(context, f"task/{name}", members.read(name))


def _add(context: tarfile.TarFile, name: str, content: bytes) -> None:
    context.addfile(_readable(tarfile.TarInfo(name), len(content)), io.BytesIO(content))


def _readable(member: tarfile.TarInfo, size: int | None = None) -> tarfile.TarInfo:
    member.mode, member.uid, member.gid, member.mtime = 0o644, 0, 0, 0
    if size is not None:
        member.size = size
    return member


def _dockerfile() -> bytes:
    return importlib.resources.files("emulator.fmi.executor").joinpath("Dockerfile").read_bytes()
