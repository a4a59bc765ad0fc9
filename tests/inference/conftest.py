from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from moto.server import ThreadedMotoServer

from inference import catalog, checkpoint
from inference.catalog import Catalog
from inference.estimator import Estimator
from inference.partition import Partition


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def galaxies() -> Catalog:
    return catalog.held_out(300)


@pytest.fixture(scope="session")
def partition(galaxies: Catalog) -> Partition:
    return Partition.render(galaxies)


@pytest.fixture(scope="session")
def shipped() -> Estimator:
    return checkpoint.load()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    moto = ThreadedMotoServer("127.0.0.1", port=0)
    moto.start()
    host, port = moto.get_host_and_port()
    yield f"http://{host}:{port}"
    moto.stop()
