"""Fixture: an object store in a temporary folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from emulator.aws.s3.core.store import ObjectStore
from emulator.aws.state import StateFolder


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ObjectStore]:
    state = StateFolder(tmp_path / "state", lasting=False)
    store = ObjectStore(state)
    store.buckets.create("bucket", "us-east-1")
    yield store
    state.close()
