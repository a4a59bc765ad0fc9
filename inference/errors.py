"""What can go wrong in the astronomy job, by name.

Every message says what was expected, what came, and what to do.
"""


class InferenceError(Exception):
    """Root of this package's errors."""


class CatalogError(InferenceError):
    """The shipped table of galaxies, or the file it is built from, is not what it should be."""


class PartitionError(InferenceError):
    """A partition is missing, truncated, foreign, or of the wrong shape or dtype."""


class CheckpointError(InferenceError):
    """A checkpoint is missing, damaged, or does not fit the network it names."""


class DeviceError(InferenceError):
    """The device that was asked for is not there."""


class MetricsError(InferenceError):
    """Redshifts from which no metric can be computed."""
