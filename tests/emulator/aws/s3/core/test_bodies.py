"""Body files exist exactly as long as they are referenced."""

from hashlib import md5
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.aws.s3.core.bodies import SMALL_BYTES, Body, FileRange
from emulator.aws.s3.core.store import ObjectStore
from emulator.aws.s3.core.tables import ObjectVersion, Versioning
from emulator.errors import ApiError

LARGE = bytes(range(256)) * (SMALL_BYTES // 256 + 1)


def put(store: ObjectStore, key: str, content: bytes) -> ObjectVersion:
    writer = store.bodies.writer()
    writer.write([content])
    body = writer.finish()
    with store.bodies.retained(body.file_ranges):
        return store.objects.put("bucket", ObjectVersion(key, "", 0, body))


def files(tmp_path: Path) -> int:
    return len(list((tmp_path / "state" / "bodies").iterdir()))


@pytest.mark.parametrize("size", [0, 1, SMALL_BYTES, SMALL_BYTES + 1, len(LARGE)])
def test_an_object_is_read_as_it_was_written(store: ObjectStore, tmp_path: Path, size: int) -> None:
    version = put(store, "key", LARGE[:size])
    assert version.body is not None
    assert (version.body.size, version.body.etag) == (size, md5(LARGE[:size], usedforsecurity=False).hexdigest())
    assert store.read("bucket", "key") == LARGE[:size]
    assert files(tmp_path) == (size > SMALL_BYTES)


def test_overwriting_and_deleting_remove_the_file(store: ObjectStore, tmp_path: Path) -> None:
    put(store, "key", LARGE)
    put(store, "key", LARGE)
    assert files(tmp_path) == 1
    store.objects.delete("bucket", "key")
    assert files(tmp_path) == 0


def test_a_copy_keeps_the_shared_file(store: ObjectStore, tmp_path: Path) -> None:
    original = put(store, "key", LARGE)
    store.objects.put("bucket", ObjectVersion("copy", "", 0, original.body))
    store.objects.delete("bucket", "key")
    assert (files(tmp_path), store.read("bucket", "copy")) == (1, LARGE)
    store.objects.delete("bucket", "copy")
    assert files(tmp_path) == 0


def test_a_reader_keeps_the_file_of_a_deleted_object(store: ObjectStore, tmp_path: Path) -> None:
    version = put(store, "key", LARGE)
    assert version.body is not None
    with store.bodies.retained(version.body.file_ranges):
        store.objects.delete("bucket", "key")
        assert store.bodies.read(version.body) == LARGE
    assert files(tmp_path) == 0


def test_a_body_without_an_object_is_removed(store: ObjectStore, tmp_path: Path) -> None:
    writer = store.bodies.writer()
    writer.write([LARGE])
    body = writer.finish()
    with pytest.raises(ApiError, match="bucket does not exist"), store.bodies.retained(body.file_ranges):
        store.objects.put("no-bucket", ObjectVersion("key", "", 0, body))
    assert files(tmp_path) == 0


def test_a_version_keeps_its_file_until_it_is_deleted(store: ObjectStore, tmp_path: Path) -> None:
    store.buckets.set_versioning("bucket", Versioning.ENABLED)
    first, second = put(store, "key", LARGE), put(store, "key", LARGE + b"2")
    assert store.objects.delete("bucket", "key").is_marker
    assert files(tmp_path) == 2
    store.objects.delete("bucket", "key", first.version_id)
    assert files(tmp_path) == 1
    assert store.objects.find("bucket", "key", second.version_id) is not None


@given(st.lists(st.binary(min_size=1, max_size=9), min_size=1, max_size=5), st.data())
def test_slice_returns_the_bytes_of_the_range(pieces: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(pieces)
    file_ranges = tuple(FileRange(str(number), 3, len(piece)) for number, piece in enumerate(pieces))
    start = data.draw(st.integers(0, len(whole)))
    size = data.draw(st.integers(0, len(whole) - start))
    cut = Body(len(whole), "", file_ranges).slice(start, size)
    got = b"".join(pieces[int(part.file)][part.start - 3 : part.start - 3 + part.size] for part in cut.file_ranges)
    assert (got, cut.size) == (whole[start : start + size], size)
