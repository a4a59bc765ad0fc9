"""The time constants of the object transports. All values are seconds; pauses between polls are configured."""

CHECK = 0.25
"""Interval at which a waiting rank checks whether the other ranks are alive and whether one has failed."""

MAX_CLOSE_WAIT = 60.0
"""How long a closing rank waits for its readers if ``max_timeout`` is longer, or has no limit."""

UNREGISTERED_READER_WAIT = 2.0
"""How long a closing rank of a raw world waits for a reader that has not registered on Redis. A rank of the C++ library
never does; it deletes its own objects at once when it ends, whether they were read or not."""

REDIS_OBJECT = 86_400
"""How long an object exists on Redis that a killed rank has left. No rank may wait for longer until it reads."""

REDIS_FAILURE_RECORD = 60
"""How long the record of a failed rank exists on Redis, which deletes it."""
S3_FAILURE_RECORD = 2.0
"""How long the record of a failed rank exists on S3, where the rank itself deletes it: several checks of the others,
also on a busy machine."""
