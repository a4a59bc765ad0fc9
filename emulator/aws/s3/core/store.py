"""The object store as a whole."""

from emulator.aws.s3.core.listing import Listing
from emulator.aws.s3.core.objects import Buckets, Objects
from emulator.aws.s3.core.tables import Tables
from emulator.aws.s3.core.uploads import Uploads
from emulator.aws.state import StateFolder


class ObjectStore:
    """Buckets, objects and uploads; every change is committed when its method returns.

    Parameters
    ----------
    state
        Where they are kept.

    Attributes
    ----------
    buckets, objects, uploads, listing, bodies
        Its parts.

    Raises
    ------
    StateError
        When what the folder has does not fit together.
    """

    def __init__(self, state: StateFolder) -> None:
        tables = Tables(state)
        self.bodies = tables.bodies
        self.buckets = Buckets(tables)
        self.objects = Objects(tables, self.buckets)
        self.uploads = Uploads(tables, self.objects)
        self.listing = Listing(tables)

    def read(self, bucket: str, key: str) -> bytes | None:
        """Return an object's whole content, or None when there is no such object: for small ones."""
        found = self.objects.find(bucket, key) if self.buckets.exists(bucket) else None
        return None if found is None or found.body is None else self.bodies.read(found.body)
