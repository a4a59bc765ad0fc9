"""What happens to objects, for those who want to know."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class ObjectEvent:
    """An object was created or deleted.

    Parameters
    ----------
    name
        The type of the event, such as ``ObjectCreated:Put``.
    bucket, region, key, version_id
        Which object.
    size, etag
        Its size, bytes, and ETag without quotes; None if it was deleted.
    request_id
        The request that did it.
    """

    name: str
    bucket: str
    region: str
    key: str
    version_id: str
    size: int | None
    etag: str | None
    request_id: str


class ObjectObserver(Protocol):
    """Is told of events, and checks how buckets want them to be notified."""

    def happened(self, event: ObjectEvent) -> None:
        """Take note of an event."""

    async def check(self, document: bytes) -> None:
        """Check a bucket's configuration of notifications; raises ApiError."""
