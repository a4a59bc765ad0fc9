"""The object store: its parts, composed."""

from emulator.aws.s3.core.errors import no_such_key
from emulator.aws.s3.core.listing import Listing
from emulator.aws.s3.core.object_events import ObjectObserver
from emulator.aws.s3.core.objects import Buckets, Objects
from emulator.aws.s3.core.tables import Tables
from emulator.aws.s3.core.uploads import Uploads
from emulator.aws.state import StateFolder


class ObjectStore:
    """Buckets, objects and uploads. Every method commits its changes before it returns.

    Parameters
    ----------
    state
        The folder that stores them.

    Attributes
    ----------
    buckets, objects, uploads, listing, bodies
        The parts of the store.
    observer
        Is told of events of objects; None if nobody wants to know.

    Raises
    ------
    StateError
        When the content of the folder is inconsistent.
    """

    def __init__(self, state: StateFolder) -> None:
        tables = Tables(state)
        self.bodies = tables.bodies
        self.buckets = Buckets(tables)
        self.objects = Objects(tables, self.buckets)
        self.uploads = Uploads(tables, self.objects)
        self.listing = Listing(tables)
        self.observer: ObjectObserver | None = None

    def close(self) -> None:
        """Wait until the files of deleted objects are gone."""
        self.bodies.close()

    def read(self, bucket: str, key: str) -> bytes:
        """Return the whole content of an object. Use it for small objects.

        Raises
        ------
        ApiError
            NoSuchBucket or NoSuchKey.
        """
        found = self.objects.find(bucket, key)
        if found is None or found.body is None:
            raise no_such_key(key)
        return self.bodies.read(found.body)
