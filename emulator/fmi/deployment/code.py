"""The archives that a stack runs: the functions with the packages of their programs, and the rendezvous server."""

import hashlib
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from emulator.aws.limits import UNZIPPED_CODE_BYTES
from emulator.errors import EmulatorError
from emulator.fmi.bundle import archive, function_files, package_files

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

_PREFIX = "deployment/"
_NUMPY = "numpy>=1.26,<3"
_OF_SERVER = ("aiohttp>=3.10,<4", "prometheus-client>=0.20,<1")
# Wheels for a newer C library are installed on Lambda's older one only if they say so.
_MANYLINUX = ("manylinux_2_28", "manylinux_2_17", "manylinux2014")
_PIP_S = 900
# Files of a wheel that Python does not import.
_UNUSED = re.compile(r"(^|/)(tests?|__pycache__)/|\.(pyi|pyx|pxd|h|a)$")
_DATA = re.compile(r"^[^/]+\.data/(?:purelib|platlib)/")


class CodeError(EmulatorError):
    """The archive of the functions cannot be made."""


class Architecture(Enum):
    """A processor architecture, by Lambda's name."""

    X86_64 = "x86_64"
    ARM64 = "arm64"

    @property
    def wheel(self) -> str:
        """The architecture's name in a wheel's file name."""
        return "aarch64" if self is Architecture.ARM64 else "x86_64"


@dataclass(frozen=True)
class BundleInfo:
    """What a functions' archive contains: the run's preflight compares it with a program's imports.

    Parameters
    ----------
    python
        Version of Python, for example ``3.13``.
    architecture
        Lambda's name of the processor architecture.
    packages
        Version of each distribution, by its name.
    modules
        The top-level modules that can be imported, besides the standard library and boto3.
    """

    python: str
    architecture: str
    packages: dict[str, str]
    modules: list[str]


@dataclass(frozen=True)
class Archive:
    """An archive and its key in the stack's bucket, which contains its digest.

    Parameters
    ----------
    key, content
        The key and the bytes.
    """

    key: str
    content: bytes


def functions_archive(
    python: str, architecture: Architecture, requirements: Sequence[str] = ()
) -> tuple[Archive, BundleInfo]:
    """Return the functions' archive with numpy and further packages, and what it contains.

    Parameters
    ----------
    python
        Version of Python, for example ``3.13``.
    architecture
        Of the functions.
    requirements
        Further packages, as for pip. They and what they require must have wheels for manylinux.

    Raises
    ------
    CodeError
        If a package cannot be downloaded, or the archive would be larger than Lambda accepts.
    """
    members = {name: path.read_bytes() for name, path in function_files().items()}
    own = {name.partition("/")[0].removesuffix(".py") for name in members}
    installed, packages = _wheel_files(python, architecture, [_NUMPY, *requirements])
    members |= installed
    size = sum(map(len, members.values()))
    if size > UNZIPPED_CODE_BYTES:
        listed = ", ".join(f"{name} {version}" for name, version in sorted(packages.items()))
        raise CodeError(
            f"the functions' archive has {size / 1e6:.0f} MB unpacked, Lambda accepts {UNZIPPED_CODE_BYTES / 1e6:.0f} "
            f"({listed}): give fewer --with, or deploy an image with --image-uri"
        )
    found = {name.partition("/")[0] for name in members if "/" in name} | own
    modules = sorted(name for name in found if name.isidentifier())
    info = BundleInfo(python, architecture.value, dict(sorted(packages.items())), modules)
    members["fmi-bundle.json"] = json.dumps(asdict(info), sort_keys=True).encode()
    return _named("functions", archive(members)), info


def server_archive(python: str, architecture: Architecture) -> Archive:
    """Return the archive of the rendezvous server with the packages that it needs.

    Raises
    ------
    CodeError
        If a package cannot be downloaded.
    """
    members, _ = _wheel_files(python, architecture, _OF_SERVER)
    members |= {name: path.read_bytes() for name, path in package_files("rendezvous").items()}
    return _named("rendezvous", archive(members))


def upload_archive(s3: "S3Client", bucket: str, made: Archive) -> bool:
    """Upload an archive unless it is there; return whether it was uploaded."""
    try:
        s3.head_object(Bucket=bucket, Key=made.key)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
            raise
        s3.put_object(Bucket=bucket, Key=made.key, Body=made.content)
        return True
    return False


def info_key(code_key: str) -> str:
    """Return the key of the `BundleInfo` of an archive."""
    return code_key.removesuffix(".zip") + ".json"


def read_info(s3: "S3Client", bucket: str, code_key: str) -> BundleInfo | None:
    """Return what the archive of a stack contains; None if the stack runs an image."""
    if not code_key.startswith(_PREFIX):
        return None
    content = json.loads(s3.get_object(Bucket=bucket, Key=info_key(code_key))["Body"].read())
    return BundleInfo(**content)


def _named(name: str, content: bytes) -> Archive:
    return Archive(f"{_PREFIX}{name}-{hashlib.sha256(content).hexdigest()[:32]}.zip", content)


def _wheel_files(
    python: str, architecture: Architecture, requirements: Sequence[str]
) -> tuple[dict[str, bytes], dict[str, str]]:
    """Return the files of packages, and the version of each package."""
    members: dict[str, bytes] = {}
    packages: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="fmi-wheels-") as folder:
        for wheel in _download(Path(folder), python, architecture, requirements):
            name, version = wheel.name.split("-")[:2]
            packages[name.replace("_", "-").lower()] = version
            with zipfile.ZipFile(wheel) as opened:
                for member in opened.namelist():
                    target = _DATA.sub("", member)
                    if not member.endswith("/") and not _UNUSED.search(target) and ".data/" not in target:
                        members[target] = opened.read(member)
    return members, packages


def _download(folder: Path, python: str, architecture: Architecture, requirements: Sequence[str]) -> list[Path]:
    """Download wheels for Lambda with pip, which takes its index and its proxy from the user's configuration."""
    platforms = [option for tag in _MANYLINUX for option in ("--platform", f"{tag}_{architecture.wheel}")]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--only-binary=:all:", "--implementation", "cp", "--python-version", python, *platforms]
    command += ["--dest", str(folder), *requirements]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PIP_S, check=False)  # noqa: S603 - no shell
    except subprocess.TimeoutExpired:
        raise CodeError(f"pip did not download the packages within {_PIP_S} s: check the network") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")] or done.stderr.splitlines()
        reason = lines[-1].removeprefix("ERROR: ") if lines else f"pip ended with status {done.returncode}"
        raise CodeError(
            f"cannot download {', '.join(requirements)} for Python {python} on {architecture.value}: {reason}: check "
            "the names and the network; packages without a manylinux wheel need an image (--image-uri)"
        )
    return sorted(folder.glob("*.whl"))
