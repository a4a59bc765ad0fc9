"""Body files exist exactly as long as they are referenced."""

import os
import threading
from hashlib import md5
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.aws.s3.core.bodies import SMALL_BYTES, Body, FileRange
from emulator.aws.s3.core.checksums import ChecksumType
from emulator.aws.s3.core.store import ObjectStore
from emulator.aws.s3.core.tables import ObjectMetadata, ObjectVersion, Versioning
from emulator.errors import ApiError

LARGE = bytes(range(256)) * (SMALL_BYTES // 256 + 1)


def put(store: ObjectStore, key: str, content: bytes) -> ObjectVersion:
    writer = store.bodies.writer()
    writer.write([content])
    body = writer.finish()
    with store.bodies.retained(body):
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
    with store.bodies.retained(version.body):
        store.objects.delete("bucket", "key")
        assert store.bodies.read(version.body) == LARGE
    assert files(tmp_path) == 0


def test_many_files_are_deleted_beside_the_calling_thread(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An object of many parts: the event loop must not wait for the deletion of all its files."""
    deleting: list[int] = []
    unlink = os.unlink

    def observed(path: str) -> None:
        deleting.append(threading.get_ident())
        unlink(path)

    monkeypatch.setattr(os, "unlink", observed)
    upload = store.uploads.create("bucket", "key", ObjectMetadata(), None, ChecksumType.FULL_OBJECT)
    for number in range(1, 301):
        writer = store.bodies.writer(small_bytes=0)
        writer.write([b"part"])
        store.uploads.put_part(upload, number, writer.finish())
    store.uploads.abort(upload)
    store.close()
    assert files(tmp_path) == 0
    assert 0 < deleting.count(threading.get_ident()) <= 100
    assert len(deleting) == 300


def test_a_body_without_an_object_is_removed(store: ObjectStore, tmp_path: Path) -> None:
    writer = store.bodies.writer()
    writer.write([LARGE])
    body = writer.finish()
    with pytest.raises(ApiError, match="bucket does not exist"), store.bodies.retained(body):
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
