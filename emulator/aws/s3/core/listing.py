"""Listings of a bucket, page by page.

Keys that contain the delimiter after the prefix are grouped into common prefixes, without reading the grouped keys.
Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-prefixes.html
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from emulator.aws.s3.core.objects import COLUMNS, version_of
from emulator.aws.s3.core.tables import ObjectVersion, Tables

# AWS's limit for a page.
MAX_KEYS = 1000


@dataclass(frozen=True)
class ListingQuery:
    """What to list.

    Parameters
    ----------
    bucket, prefix, delimiter
        As in the API; an empty prefix selects all keys, an empty delimiter groups none.
    limit
        Maximum number of versions and common prefixes of a page together.
    """

    bucket: str
    prefix: str = ""
    delimiter: str = ""
    limit: int = MAX_KEYS

    def common_prefix(self, key: str) -> str:
        """Return the common prefix of a key that starts with the prefix, or an empty string."""
        end = key.find(self.delimiter, len(self.prefix)) if self.delimiter else -1
        return key[: end + len(self.delimiter)] if end >= 0 else ""


@dataclass(frozen=True)
class ListingPage:
    """A page of a listing.

    Parameters
    ----------
    versions, common_prefixes
        Its entries.
    is_truncated
        Whether there are more.
    """

    versions: Sequence[ObjectVersion]
    common_prefixes: Sequence[str]
    is_truncated: bool

    @property
    def last(self) -> str:
        """The last key or common prefix of the page."""
        keys = [*(version.key for version in self.versions[-1:]), *self.common_prefixes[-1:]]
        return max(keys, key=str.encode, default="")


_EMPTY_PAGE = ListingPage([], [], is_truncated=False)


class Listing:
    """Lists a bucket's objects, ordered by the bytes of their keys.

    Parameters
    ----------
    tables
        Where the objects are stored.
    """

    def __init__(self, tables: Tables) -> None:
        self._database = tables.database

    def objects(self, listing_query: ListingQuery, after: str = "") -> ListingPage:
        """List the latest versions.

        Parameters
        ----------
        listing_query
            What to list.
        after
            The key or common prefix before the first entry of the page.
        """
        if listing_query.limit == 0:
            return _EMPTY_PAGE
        start = after.encode() + b"\0" if after else b""
        if after and listing_query.common_prefix(after) == after:
            start = _successor(after.encode())
        query = (
            f"SELECT {COLUMNS} FROM versions WHERE bucket = ? AND latest AND body IS NOT NULL"  # noqa: S608 - constants
            " AND key >= ? AND (? IS NULL OR key < ?) ORDER BY key LIMIT ?"
        )
        return self._page(listing_query, start, lambda *bounds: self._versions(query, listing_query, *bounds))

    def all_versions(self, listing_query: ListingQuery, key_marker: str = "", version_marker: str = "") -> ListingPage:
        """List all versions and delete markers, each key's newest first.

        Parameters
        ----------
        listing_query
            What to list.
        key_marker, version_marker
            The last entry of the previous page: a key with a version ID, or a key or common prefix only.
        """
        if listing_query.limit == 0:
            return _EMPTY_PAGE
        query = (
            f"SELECT {COLUMNS} FROM versions WHERE bucket = ? AND key >= ?"  # noqa: S608 - constants
            " AND (? IS NULL OR key < ?) ORDER BY key, latest DESC, number DESC LIMIT ?"
        )
        start = key_marker.encode() + b"\0" if key_marker else b""
        if key_marker and listing_query.common_prefix(key_marker) == key_marker:
            start = _successor(key_marker.encode())
        if not version_marker:
            return self._page(listing_query, start, lambda *bounds: self._versions(query, listing_query, *bounds))
        rest = self._older_versions(listing_query, key_marker, version_marker)
        if len(rest) > listing_query.limit:
            return ListingPage(rest[: listing_query.limit], [], is_truncated=True)
        others = ListingQuery(
            listing_query.bucket, listing_query.prefix, listing_query.delimiter, listing_query.limit - len(rest)
        )
        page = self._page(others, start, lambda *bounds: self._versions(query, others, *bounds))
        return ListingPage([*rest, *page.versions], page.common_prefixes, page.is_truncated)

    def _older_versions(self, listing_query: ListingQuery, key: str, version_id: str) -> list[ObjectVersion]:
        """Return the versions of a key that are older than `version_id`."""
        marker = "SELECT number FROM versions WHERE bucket = ?1 AND key = ?2 AND version_id = ?3"
        query = (
            f"SELECT {COLUMNS} FROM versions WHERE bucket = ?1 AND key = ?2 AND number < ({marker})"  # noqa: S608 - constants
            " ORDER BY number DESC LIMIT ?4"
        )
        rows = self._database.execute(query, (listing_query.bucket, key.encode(), version_id, listing_query.limit + 1))
        return [version_of(row) for row in rows]

    def _versions(
        self, query: str, listing_query: ListingQuery, start: bytes, end: bytes | None, limit: int
    ) -> Iterator[ObjectVersion]:
        rows = self._database.execute(query, (listing_query.bucket, start, end, end, limit))
        return map(version_of, rows)

    def _page(
        self,
        listing_query: ListingQuery,
        start: bytes,
        versions: Callable[[bytes, bytes | None, int], Iterator[ObjectVersion]],
    ) -> ListingPage:
        """Collect a page from `start`; at each common prefix, a new query starts after it."""
        prefix = listing_query.prefix.encode()
        end = _successor(prefix) if prefix else None
        start = max(start, prefix)
        found: list[ObjectVersion] = []
        common_prefixes: list[str] = []
        while True:
            # One entry more than fits shows whether the page is truncated.
            missing = listing_query.limit + 1 - len(found) - len(common_prefixes)
            for version in versions(start, end, missing):
                if len(found) + len(common_prefixes) == listing_query.limit:
                    return ListingPage(found, common_prefixes, is_truncated=True)
                common = listing_query.common_prefix(version.key)
                if common:
                    common_prefixes.append(common)
                    start = _successor(common.encode())
                    break
                found.append(version)
            else:
                return ListingPage(found, common_prefixes, is_truncated=False)


def _successor(prefix: bytes) -> bytes:
    """Return the smallest bytes after all that start with `prefix`: UTF-8 has no byte 255 that could overflow."""
    return prefix[:-1] + bytes([prefix[-1] + 1])
