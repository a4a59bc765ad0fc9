"""Programs with tensors of elements that numpy lacks. They import no test tools, as in `programs`."""

from __future__ import annotations

from typing import Any

import fmi_shim as fmi

SUM = fmi.func(fmi.op.sum)


def every_operation(comm: fmi.Communicator, rank: int, size: int, kind: str, framed: bool) -> list[str]:
    """Move tensors of an element type by every operation that combines nothing; return what was wrong."""
    import torch

    dtype = getattr(torch, kind)
    wrong: list[str] = []

    def check(name: str, got: Any, expected: Any) -> None:
        if got.dtype != dtype or got.float().tolist() != expected.float().tolist():
            wrong.append(f"{name}: {got!r}, not {expected!r}")

    parts = [torch.arange(4).add(r).to(dtype).reshape(2, 2) for r in range(size)]
    own, joined = parts[rank], torch.cat([part.float() for part in parts]).to(dtype)
    check("bcast", comm.bcast(own if rank == 0 else torch.empty(2, 2, dtype=dtype), 0), parts[0])
    check("gather", comm.gather(own, 0), joined if rank == 0 else joined[:0])
    check("allgather", comm.allgather(own), joined)
    check("alltoall", comm.alltoall(own.repeat_interleave(size, 0)[:size]), _turned(parts, rank, size))
    check("scatter", comm.scatter(joined if rank == 0 else torch.empty_like(own), 0), own)
    check("allgatherv", comm.allgatherv(own, [2] * size), joined)
    place = torch.empty(2, 2, dtype=dtype)
    check("sendrecv", comm.sendrecv(own, (rank + 1) % size, (rank - 1) % size, out=place), parts[rank - 1])
    comm.send(own, rank)
    check("to itself", comm.recv(rank, out=place), own)
    if framed:
        check("announced bcast", comm.bcast(own if rank == 0 else None, 0), parts[0])
        request = comm.irecv((rank - 1) % size)
        comm.isend(own, (rank + 1) % size).wait()
        check("announced message", request.wait(), parts[rank - 1])
    return wrong


def _turned(parts: list[Any], rank: int, size: int) -> Any:
    import torch

    rows = [part.repeat_interleave(size, 0)[rank] for part in parts]
    return torch.stack([row.float() for row in rows]).to(parts[0].dtype)


def reductions(comm: fmi.Communicator, rank: int, size: int) -> list[str]:
    """Reduce bfloat16 tensors; return what was wrong."""
    import torch

    wrong: list[str] = []
    # 2^8 and more have no odd numbers: partial sums are rounded, in an order that is not checked here.
    for count in (3, 3000, 200_000):
        own = torch.full((count,), rank + 1.0, dtype=torch.bfloat16)
        ranks = range(1, size + 1)
        for name, got, expected in [
            ("sum", comm.allreduce(own, SUM), sum(ranks)),
            ("avg", comm.allreduce(own, fmi.func(fmi.op.avg)), sum(ranks) / size),
            ("max", comm.reduce(own, 0, fmi.func(fmi.op.max)), size if rank == 0 else None),
            ("prod", comm.scan(own, fmi.func(fmi.op.prod)), torch.tensor(range(1, rank + 2)).prod().item()),
            ("custom", comm.allreduce(own, fmi.func(fmi.op.custom, torch.add, True, True)), sum(ranks)),
        ]:
            if expected is None:
                wrong += [] if got is None else [f"{name} returned {got!r}"]
            elif got.dtype != torch.bfloat16 or not torch.all(got == expected):
                wrong.append(f"{name} of {count}: {got[:3]!r}, not {expected}")
        place = own.clone()
        comm.allreduce(place, SUM, out=place)
        if not torch.all(place == sum(ranks)):
            wrong.append("in place")
    return wrong
