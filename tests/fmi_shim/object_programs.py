"""Programs that send Python objects. They import no test tools, as in `programs`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import fmi_shim as fmi


@dataclass
class Galaxy:
    """An object with a small and a large array."""

    name: str
    magnitudes: np.ndarray
    stamp: np.ndarray

    @property
    def summary(self) -> tuple[str, list[int], int, bool]:
        return self.name, self.magnitudes.tolist(), int(self.stamp.sum()), self.stamp.flags.writeable


def galaxy(rank: int) -> Galaxy:
    return Galaxy(f"NGC {rank}", np.arange(rank + 1), np.full((40, 80), rank))


def every_call(comm: fmi.Communicator, rank: int, size: int) -> list[Any]:
    """Make every call with objects; return what was received."""
    last = size - 1
    found: list[Any] = [comm.bcast_object(galaxy(7) if rank == last else None, last).summary]
    gathered = comm.gather_object(galaxy(rank), 0)
    found.append(None if gathered is None else [each.summary for each in gathered])
    found.append(comm.scatter_object([{"to": r, "data": b"x" * 20_000 * r} for r in range(size)], last)["to"])
    found.append([each.summary for each in comm.allgather_object(galaxy(rank))])
    if rank == 0:
        comm.send_object(galaxy(3), last)
        comm.send_object({1, 2}, last)
        comm.send(np.arange(2), last)
    if rank == last:
        found.append((comm.recv_object(0).summary, comm.recv_object(0), comm.recv(0).tolist()))
    comm.send_object("mine", rank)
    found.append(comm.recv_object(rank))
    return found


def mixed_up(comm: fmi.Communicator, rank: int, size: int, what: str) -> Any:
    """Call another operation than the sender."""
    if what == "bcast":
        return comm.bcast_object(1, 0) if rank == 0 else comm.bcast(None, 0)
    if rank == 0:
        return comm.send(np.arange(3), 1)
    return comm.recv_object(0)


def with_other_secrets(comm: fmi.Communicator, rank: int, size: int) -> None:
    """Send an object whose reconstruction would be noticed."""
    import os

    if rank == 1:
        os.environ["FMI_SECRET"] = "another" * 3
    comm.bcast_object(Trap() if rank == 0 else None, 0)


class Trap:
    """Unpickling it ends the process."""

    def __reduce__(self) -> Any:
        import os

        return os._exit, (3,)


def not_picklable(comm: fmi.Communicator, rank: int, size: int) -> Any:
    """Send what cannot be pickled, then something else."""
    try:
        comm.bcast_object(lambda: 0, rank)
    except (AttributeError, TypeError) as error:
        kind = type(error).__name__
        return kind in ("AttributeError", "PicklingError"), comm.allgather_object(rank)
    except Exception as error:  # noqa: BLE001 - pickle's own
        return "pickle" in str(error).lower(), comm.allgather_object(rank)
    return None
