"""Listings against a model: sort all keys, group by delimiter, split into pages."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.aws.s3.core.bodies import Body
from emulator.aws.s3.core.listing import ListingQuery
from emulator.aws.s3.core.store import ObjectStore
from emulator.aws.s3.core.tables import ObjectVersion, Versioning
from emulator.aws.state import StateFolder

# Few letters, so that prefixes collide; the last ones are where UTF-8 and UTF-16 sort differently.
KEYS = st.sets(st.text(alphabet="ab/é\uffff\U0001f600", min_size=1, max_size=6), max_size=20)
TEXTS = st.text(alphabet="ab/é", max_size=2)


@contextmanager
def filled(keys: set[str], versioning: Versioning = Versioning.OFF) -> Iterator[ObjectStore]:
    with tempfile.TemporaryDirectory() as folder:
        state = StateFolder(Path(folder), lasting=False)
        store = ObjectStore(state)
        for bucket in ("bucket", "bucket2", "a-bucket"):
            store.buckets.create(bucket, "us-east-1")
            store.buckets.set_versioning(bucket, versioning)
            for key in keys if bucket == "bucket" else {"other"}:
                store.objects.put(bucket, ObjectVersion(key, "", 0, Body(0, "")))
        yield store
        state.close()


def model(keys: set[str], prefix: str, delimiter: str) -> list[str]:
    """Return what is listed, keys and common prefixes, in the order of their bytes."""
    entries = set()
    for key in keys:
        if key.startswith(prefix):
            _, found, _ = key[len(prefix) :].partition(delimiter) if delimiter else ("", "", "")
            end = key.index(delimiter, len(prefix)) + len(delimiter) if found else len(key)
            entries.add((key[:end], bool(found)))
    return [entry for entry, _ in sorted(entries, key=lambda entry: entry[0].encode())]


@settings(max_examples=60)
@given(KEYS, TEXTS, st.sampled_from(["", "/", "a", "é/"]), st.integers(1, 4))
def test_the_pages_of_a_listing_add_up_to_the_whole(keys: set[str], prefix: str, delimiter: str, limit: int) -> None:
    expected = model(keys, prefix, delimiter)
    with filled(keys) as store:
        found: list[str] = []
        after, truncated = "", True
        while truncated:
            page = store.listing.objects(ListingQuery("bucket", prefix, delimiter, limit), after)
            entries = [*(version.key for version in page.versions), *page.common_prefixes]
            assert len(entries) <= limit
            found += sorted(entries, key=str.encode)
            after, truncated = page.last, page.is_truncated
        assert found == expected


@settings(max_examples=40)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=12), st.integers(1, 5))
def test_versions_are_listed_newest_first_across_pages(writes: list[tuple[str, bool]], limit: int) -> None:
    with filled(set(), Versioning.ENABLED) as store:
        expected: dict[str, list[tuple[str, bool]]] = {"a": [], "b": [], "c": []}
        for key, deletes in writes:
            if deletes:
                made = store.objects.delete("bucket", key).version_id
            else:
                made = store.objects.put("bucket", ObjectVersion(key, "", 0, Body(0, ""))).version_id
            expected[key].insert(0, (made, deletes))
        found: dict[str, list[tuple[str, bool]]] = {"a": [], "b": [], "c": []}
        key_marker = version_marker = ""
        truncated = True
        while truncated:
            page = store.listing.all_versions(ListingQuery("bucket", limit=limit), key_marker, version_marker)
            assert len(page.versions) <= limit
            for version in page.versions:
                found[version.key].append((version.version_id, version.body is None))
                assert version.is_latest == (len(found[version.key]) == 1)
            key_marker, truncated = page.last, page.is_truncated
            version_marker = page.versions[-1].version_id if page.versions else ""
        assert found == expected


def test_a_page_of_zero_entries_is_empty_and_not_truncated() -> None:
    with filled({"a"}) as store:
        page = store.listing.objects(ListingQuery("bucket", limit=0))
        assert (list(page.versions), page.is_truncated) == ([], False)
