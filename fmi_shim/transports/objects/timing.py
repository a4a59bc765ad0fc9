"""The time constants of the object transports. All values are seconds; pauses between polls are configured."""

CHECK = 0.25
"""Interval at which a waiting rank checks whether the other ranks are alive and whether one has failed."""

MAX_CLOSE_WAIT = 60.0
"""How long a closing rank waits for its readers if ``max_timeout`` is longer, or has no limit."""

REDIS_FAILURE_RECORD = 60
"""How long the record of a failed rank exists on Redis, which deletes it."""
S3_FAILURE_RECORD = 2.0
"""How long the record of a failed rank exists on S3, where the rank itself deletes it: several checks of the others,
also on a busy machine."""
