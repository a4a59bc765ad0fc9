"""The backend ``fmi`` of torch.distributed: on ranks that torchrun starts, and torch's store in a bucket."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.fmi_shim import torch_checks
from tests.fmi_shim.conftest import BUCKET

torch = pytest.importorskip("torch")

from fmi_shim.torch_backend.store import S3Store  # noqa: E402 - needs torch

# Four interpreters import torch.
pytestmark = pytest.mark.timeout(180)
RANKS = 3
ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def errors(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """The error of each check on each rank. The ranks have no rendezvous server: rank 0 starts one."""
    folder = tmp_path_factory.mktemp("ranks")
    names = [name for name in os.environ if name.startswith("FMI_")]
    environment = {name: value for name, value in os.environ.items() if name not in names}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(RANKS)]
    ended = subprocess.run(
        [*command, "-m", "tests.fmi_shim.torch_checks", folder],
        cwd=ROOT,
        env={**environment, "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path_factory.mktemp("temporary"))},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(RANKS)]


@pytest.mark.parametrize("name", torch_checks.CHECKS)
def test_every_operation_gives_torchs_result(errors: list[dict[str, str]], name: str) -> None:
    for rank, found in enumerate(errors):
        assert not found[name], f"rank {rank}: {found[name]}"


@pytest.fixture
def store(emulated_s3_access: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    for name, value in emulated_s3_access.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3", region_name="us-east-1")
    return S3Store(client, BUCKET, f"{tmp_path.name}/", timedelta(seconds=5))


def test_a_store_in_a_bucket_has_the_operations_of_torchs(store: Any) -> None:
    prefixed = torch.distributed.PrefixStore("group", store)  # as torch calls it
    prefixed.set("key", "value")
    assert prefixed.get("key") == b"value"
    assert store.check(["group/key"])
    assert not store.check(["group/key", "group/other"])
    assert [prefixed.add("sum", 2), prefixed.add("sum", 3)] == [2, 5]
    assert store.compare_set("new", "", "first") == b"first"
    assert store.compare_set("new", "other", "second") == b"first"
    assert store.compare_set("new", "first", "second") == b"second"
    assert store.num_keys() == 3
    assert store.delete_key("new")
    assert not store.delete_key("new")


def test_a_store_in_a_bucket_waits_for_keys_and_names_those_that_are_missing(store: Any) -> None:
    writer = threading.Timer(0.1, store.set, ("late", b"1"))
    writer.start()
    assert store.get("late") == b"1"
    with pytest.raises(torch.distributed.DistStoreError, match=r"keys \['never'\] not stored within 0.2 s"):
        store.wait(["late", "never"], timedelta(seconds=0.2))


def test_no_increment_is_lost_between_ranks(store: Any) -> None:
    threads = [threading.Thread(target=lambda: [store.add("sum", 1) for _ in range(5)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.add("sum", 0) == 20
