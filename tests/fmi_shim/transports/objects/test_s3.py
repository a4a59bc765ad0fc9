"""System tests of the S3 channel: real ranks and moto's S3 over HTTP."""

import sys
from collections.abc import Iterator
from typing import Any

import boto3
import pytest

from fmi_shim.config import S3Config
from fmi_shim.errors import ConfigError, PeerOverflowError, PeerTimeoutError, StoreError
from fmi_shim.transports.objects.s3 import S3Store
from tests.fmi_shim import failing_programs, programs
from tests.fmi_shim.conftest import BUCKET
from tests.fmi_shim.world import World


@pytest.fixture
def bucket(s3_access: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The empty bucket, which this process's boto3 uses, too."""
    for name, value in s3_access.items():
        monkeypatch.setenv(name, value)
    found = boto3.resource("s3", region_name="us-east-1").Bucket(BUCKET)
    found.objects.delete()
    yield found
    found.objects.delete()


def keys(bucket: Any) -> list[str]:
    return [found.key for found in bucket.objects.all()]


def test_every_operation_is_correct_for_arrays_of_any_shape(s3_world: World, bucket: Any) -> None:
    assert s3_world.values(programs.every_array_operation, 2, True) == [[]] * 2
    assert keys(bucket) == []


def test_megabytes_are_exchanged(s3_world: World) -> None:
    assert s3_world.values(programs.big_exchange, 2, 1_000_000) == [(1.0, 1.0)] * 2


def test_objects_of_a_rank_that_closed_can_still_be_read(s3_world: World, bucket: Any) -> None:
    assert s3_world.values(programs.leave_after_writing, 3) == [3, None, None]
    assert keys(bucket) == []


def test_only_own_objects_are_deleted(s3_world: World, bucket: Any) -> None:
    foreign = ["data/partition_0.npy", f"{s3_world.folder.name}-11_barrier_0", "zz"]
    for key in foreign:
        bucket.put_object(Key=key, Body=b"x")
    assert s3_world.values(programs.sum_of_ranks, 2) == [1, 1]
    assert keys(bucket) == sorted(foreign)


def test_ranks_that_wait_for_a_killed_rank_name_it(s3_world: World) -> None:
    first, _ = s3_world.run(failing_programs.die_before_second_call, 2, 1, max_timeout=4000)
    assert isinstance(first.error, PeerTimeoutError)
    assert "rank 0 in barrier (call 2): " in str(first.error)
    assert "1_barrier_2' in S3 bucket 'exchange' did not appear for 4 s: check that rank 1" in str(first.error)


def test_waiting_ranks_raise_the_error_of_a_failed_rank(s3_world: World, bucket: Any) -> None:
    first, second = s3_world.run(failing_programs.overflow, 2)
    assert isinstance(first.error, OverflowError)
    assert isinstance(second.error, PeerOverflowError)
    assert keys(bucket) == []


def store(bucket_name: str = BUCKET) -> S3Store:
    return S3Store(S3Config(0.02, 1.0, False, bucket_name, "us-east-1"))


@pytest.mark.usefixtures("bucket")
def test_the_store_does_not_overwrite() -> None:
    opened = store()
    assert opened.put({"old": memoryview(b"first"), "empty": b""}) == []
    assert opened.put({"old": b"second", "new": b"n"}) == ["old"]
    assert opened.get(["old", "missing", "empty", "new"]) == [b"first", None, b"", b"n"]
    opened.close()


@pytest.mark.usefixtures("bucket")
def test_the_store_lists_and_deletes_past_a_page() -> None:
    names = [f"many{i:04}" for i in range(1005)]
    opened = store()
    opened.put(dict.fromkeys([*names, "other"], b"x"))
    assert opened.present({*names, "manyfold"}, "many") == set(names)
    opened.delete([*names, "missing"])
    assert opened.present({"other", names[0], names[-1]}, "") == {"other"}


@pytest.mark.usefixtures("bucket")
def test_a_missing_bucket_is_named() -> None:
    opened = store("no-such-bucket")
    for request, action in (
        (lambda: opened.get(["key"]), "read"),
        (lambda: opened.put({"key": b""}), "write"),
        (lambda: opened.present({"key"}, "key"), "list"),
        (lambda: opened.delete(["key"]), "delete"),
    ):
        with pytest.raises(StoreError, match=f"S3 bucket 'no-such-bucket': cannot {action} 'key': .*NoSuchBucket"):
            request()


def test_an_unreachable_endpoint_is_an_error(monkeypatch: pytest.MonkeyPatch, s3_access: dict[str, str]) -> None:
    for name, value in (s3_access | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StoreError, match="cannot read 'key': Could not connect to the endpoint URL"):
        store().get(["key"])


def test_a_missing_client_library_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(ConfigError, match=r"S3 is enabled and chosen, but .*: pip install boto3"):
        store()
