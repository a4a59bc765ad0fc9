"""The exceptions of the astronomy job.

Every message says what was wrong, what was expected and, where it helps, what to do.
"""


class InferenceError(Exception):
    """Base class of this package's exceptions."""


class CatalogError(InferenceError):
    """The table of galaxies, or the wheel that it is built from, is missing or invalid."""


class PartitionError(InferenceError):
    """A partition is missing, truncated, of another format, or of the wrong shape or dtype."""


class CheckpointError(InferenceError):
    """A checkpoint is missing or damaged, or its tensors do not match its metadata."""


class DeviceError(InferenceError):
    """The requested device is unknown or unavailable."""


class MetricsError(InferenceError):
    """The metrics cannot be computed from these redshifts or sums."""
