"""What published programs import from ``fmilib.fmi_operations``."""

from fmi_shim import Communicator, hints

_NAME = "fmi_pair"
_MEMORY_MB = 512


def fmi_communicator(world_size: int, rank: int) -> Communicator:
    """Return the communicator of the published programs: all ranks, with the hint for fast operations.

    Its configuration is ``fmi.json`` in the working directory.
    """
    communicator = Communicator(rank, world_size, "fmi.json", _NAME, _MEMORY_MB)
    communicator.hint(hints.fast)
    return communicator
