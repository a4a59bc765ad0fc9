from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fmi_shim.world import World, rendezvous_server


@pytest.fixture(scope="session")
def rendezvous_address() -> Iterator[str]:
    with rendezvous_server() as address:
        yield address


@pytest.fixture
def world(rendezvous_address: str, tmp_path: Path) -> World:
    return World(rendezvous_address, tmp_path)
