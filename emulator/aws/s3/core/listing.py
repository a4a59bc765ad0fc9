"""Listings of a bucket, page by page.

Keys with a delimiter after the prefix are rolled up into one common prefix each; what is rolled up is not read.
Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-prefixes.html
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from emulator.aws.s3.core.objects import COLUMNS, version_of
from emulator.aws.s3.core.tables import ObjectVersion, Tables

# AWS lists no more at once, whatever is asked for.
MAX_KEYS = 1000


@dataclass(frozen=True)
class ListingQuery:
    """What to list.

    Parameters
    ----------
    bucket, prefix, delimiter
        As in the API; empty means all, and none rolled up.
    limit
        The most entries of a page, versions and common prefixes together.
    """

    bucket: str
    prefix: str = ""
    delimiter: str = ""
    limit: int = MAX_KEYS

    def common_prefix(self, key: str) -> str:
        """Return what a key that begins with the prefix is rolled up into, or an empty text."""
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


# The answer to who asks for no entries.
_NOTHING = ListingPage([], [], is_truncated=False)


class Listing:
    """The bucket's objects in the order of their keys' bytes.

    Parameters
    ----------
    tables
        Where the objects are kept.
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
            The key, or common prefix, after which the page begins.
        """
        if listing_query.limit == 0:
            return _NOTHING
        start = after.encode() + b"\0" if after else b""
        if after and listing_query.common_prefix(after) == after:
            start = _successor(after.encode())
        query = (
            f"SELECT {COLUMNS} FROM versions WHERE bucket = ? AND latest AND body IS NOT NULL"  # noqa: S608 - constants
            " AND key >= ? AND (? IS NULL OR key < ?) ORDER BY key LIMIT ?"
        )
        return self._page(listing_query, start, lambda *bounds: self._versions(query, listing_query, *bounds))

    def all_versions(self, listing_query: ListingQuery, key_marker: str = "", version_marker: str = "") -> ListingPage:
        """List all versions and delete markers, of each key the newest first.

        Parameters
        ----------
        listing_query
            What to list.
        key_marker, version_marker
            The last entry of the page before: a key with a version's id, or a key or common prefix alone.
        """
        if listing_query.limit == 0:
            return _NOTHING
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
        """Return a key's versions that are older than the one given."""
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
        """Fill a page from a position on; each common prefix ends a query, and the next one begins behind it."""
        prefix = listing_query.prefix.encode()
        end = _successor(prefix) if prefix else None
        start = max(start, prefix)
        found: list[ObjectVersion] = []
        rolled_up: list[str] = []
        while True:
            # One more than the page holds tells whether there are more.
            missing = listing_query.limit + 1 - len(found) - len(rolled_up)
            for version in versions(start, end, missing):
                if len(found) + len(rolled_up) == listing_query.limit:
                    return ListingPage(found, rolled_up, is_truncated=True)
                common = listing_query.common_prefix(version.key)
                if common:
                    rolled_up.append(common)
                    start = _successor(common.encode())
                    break
                found.append(version)
            else:
                return ListingPage(found, rolled_up, is_truncated=False)


def _successor(prefix: bytes) -> bytes:
    """Return the first bytes after all that begin with a prefix: UTF-8 has no byte 255, so the last can grow."""
    return prefix[:-1] + bytes([prefix[-1] + 1])
