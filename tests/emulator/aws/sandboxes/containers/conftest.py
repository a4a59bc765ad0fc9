"""A cloud whose functions run in containers, for all tests here."""

import io
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from emulator.cloud import ContainerOptions, LocalCloud
from tests import containers
from tests.emulator.conftest import ROLE


@pytest.fixture(scope="module")
def cloud() -> Iterator[LocalCloud]:
    with LocalCloud(containers=ContainerOptions(containers.executor())) as running:
        yield running


@pytest.fixture
def bash_runtime(functions: Any) -> Iterator[str]:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        member = zipfile.ZipInfo("bootstrap")
        member.external_attr = 0o755 << 16
        archive.writestr(member, containers.BASH_BOOTSTRAP)
    functions.create_function(
        FunctionName="bash",
        Role=ROLE,
        Runtime="provided.al2023",
        Handler="any",
        Timeout=30,
        MemorySize=512,
        Code={"ZipFile": buffer.getvalue()},
    )
    yield "bash"
    functions.delete_function(FunctionName="bash")


@pytest.fixture
def deploy_image(functions: Any) -> Iterator[Callable[..., str]]:
    """Create a function of an image; it is deleted at the end."""
    names: list[str] = []

    def create(image: str, **settings: Any) -> str:
        name = f"image-{len(names)}"
        functions.create_function(
            **{
                "FunctionName": name,
                "Role": ROLE,
                "PackageType": "Image",
                "Code": {"ImageUri": image},
                "Timeout": 30,
                "MemorySize": 512,
                **settings,
            }
        )
        names.append(name)
        return name

    yield create
    for name in names:
        functions.delete_function(FunctionName=name)
