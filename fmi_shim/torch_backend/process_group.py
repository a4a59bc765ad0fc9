"""The process group: torch's collectives, each on a communicator."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

import torch
import torch.distributed as dist

from fmi_shim.communicator import Communicator
from fmi_shim.config import Config
from fmi_shim.requests import Request
from fmi_shim.torch_backend.elements import joined, movable, reducible, reduction, restore, rows, scatter_into
from fmi_shim.torch_backend.works import Messages, Worker

NAME = "fmi"
"""The backend's name."""
_TIMEOUT_ADVICE = "the timeout of this process group is over: pass a longer one to init_process_group or new_group"
_ProcessGroup: Any = dist.ProcessGroup
"""Its stubs describe what callers may pass, in several overloads, and not what torch calls in a subclass."""


class FmiProcessGroup(_ProcessGroup):  # type: ignore[misc]
    """The collectives of torch.distributed on one communicator, and messages on another one for each tag.

    Operations of one group are run in the order of their calls: in the caller's thread if it waits for the result at
    once, else in a thread of the group. Tensors are on the CPU. Contiguous ones are sent from and received into their
    own memory; others, and lists of tensors, are copied once each way. bfloat16 and float8 are reduced as float32.

    Parameters
    ----------
    rank, size
        This rank and the number of ranks of the group.
    name
        Name of the communicator, of this group alone.
    config
        How its ranks connect.
    sets_timeout
        Whether the group's timeout is the longest wait for a rank, instead of one that the program's ``fmi.json`` has.
    """

    def __init__(self, rank: int, size: int, name: str, config: Config, *, sets_timeout: bool) -> None:
        super().__init__(rank, size)
        self._rank_in_group = rank
        self._group_size = size
        self._name = name
        self._config = config
        self._group_name = ""
        self._comm = Communicator(rank, size, config, name)
        self._worker = Worker(name, _TIMEOUT_ADVICE if sets_timeout else "")
        self._messages: dict[int, Messages] = {}

    # Names and sizes ---------------------------------------------------------------------------------------------

    def rank(self) -> int:
        """Return this rank in the group."""
        return self._rank_in_group

    def size(self) -> int:
        """Return the number of ranks."""
        return self._group_size

    def getBackendName(self) -> str:  # noqa: N802 - torch's name
        """Return ``fmi``."""
        return NAME

    def name(self) -> str:
        """Return ``fmi``."""
        return NAME

    def getGroupName(self) -> str:  # noqa: N802 - torch's name
        """Return the name that torch has given to the group."""
        return self._group_name

    def setGroupName(self, name: str) -> None:  # noqa: N802 - torch's name
        """Set the name that torch has given to the group."""
        self._group_name = name

    @property
    def group_name(self) -> str:
        """The name that torch has given to the group."""
        return self._group_name or dist.distributed_c10d._world.pg_names.get(self, "")  # noqa: SLF001 - as torch's groups

    # Collectives -------------------------------------------------------------------------------------------------

    def allreduce(self, tensors: list[torch.Tensor], opts: Any = None) -> dist.Work:
        """Replace each tensor by the combination of all ranks' ones; sparse tensors by their sum."""
        op = reduction(opts)

        def allreduce() -> None:
            for tensor in tensors:
                if tensor.is_sparse:
                    self._allreduce_sparse(tensor, op)
                else:
                    self._allreduce(tensor, op)

        return self._run(allreduce, tensors, opts)

    def allreduce_coalesced(self, tensors: list[torch.Tensor], opts: Any = None) -> dist.Work:
        """Do as `allreduce`."""
        return self.allreduce(tensors, opts)

    def reduce(self, tensors: list[torch.Tensor], opts: Any) -> dist.Work:
        """Replace the root's tensor by the combination of all ranks' ones."""
        (tensor,), op, root = tensors, reduction(opts), opts.rootRank

        def reduce() -> None:
            function, operand = reducible(tensor, op)
            is_root = self._rank_in_group == root
            self._comm.reduce(operand, root, function, out=operand if is_root else None)
            if is_root:
                restore(tensor, operand)

        return self._run(reduce, tensors, opts)

    def broadcast(self, tensors: list[torch.Tensor], opts: Any) -> dist.Work:
        """Replace the tensor by the root's one."""
        (tensor,), root = tensors, opts.rootRank

        def broadcast() -> None:
            flat = movable(tensor)
            self._comm.bcast(flat, root)
            if self._rank_in_group != root:
                restore(tensor, flat)

        return self._run(broadcast, tensors, opts)

    def allgather(self, outputs: list[list[torch.Tensor]], inputs: list[torch.Tensor], opts: Any = None) -> dist.Work:
        """Fill the list of tensors with those of all ranks."""
        (parts,), (own,) = outputs, inputs
        self._require_parts(parts, own)

        def allgather() -> None:
            scatter_into(parts, self._allgather(own))

        return self._run(allgather, outputs, opts)

    def allgather_coalesced(
        self, outputs: list[list[torch.Tensor]], inputs: list[torch.Tensor], opts: Any = None
    ) -> dist.Work:
        """Fill ``outputs[rank][i]`` with that rank's ``inputs[i]``."""

        def allgather() -> None:
            for index, own in enumerate(inputs):
                scatter_into([parts[index] for parts in outputs], self._allgather(own))

        return self._run(allgather, outputs, opts)

    def all_gather_single(self, output: torch.Tensor, own: torch.Tensor, opts: Any = None) -> dist.Work:
        """Fill `output` with all ranks' tensors, one after another."""
        _require_size("output", output, own.numel() * self._group_size)

        def allgather() -> None:
            flat = movable(output)
            self._comm.allgather(movable(own), out=flat)
            restore(output, flat)

        return self._run(allgather, [output], opts)

    _allgather_base = all_gather_single

    def all_gather_single_coalesced(
        self, outputs: list[torch.Tensor], inputs: list[torch.Tensor], opts: Any = None
    ) -> dist.Work:
        """Do as `all_gather_single` for each pair of tensors."""
        works = [self.all_gather_single(output, own, opts) for output, own in zip(outputs, inputs, strict=True)]
        return works[-1]

    allgather_into_tensor_coalesced = all_gather_single_coalesced

    def gather(self, outputs: list[list[torch.Tensor]], inputs: list[torch.Tensor], opts: Any) -> dist.Work:
        """Fill the root's list of tensors with those of all ranks."""
        (own,), root = inputs, opts.rootRank

        def gather() -> None:
            flat = movable(own)
            whole = self._comm.gather(flat, root)
            if self._rank_in_group == root:
                scatter_into(outputs[0], whole.reshape(self._group_size, -1))

        return self._run(gather, outputs, opts)

    def scatter(self, outputs: list[torch.Tensor], inputs: list[list[torch.Tensor]], opts: Any) -> dist.Work:
        """Fill the tensor with the root's one for this rank."""
        (own,), root = outputs, opts.rootRank
        if self._rank_in_group == root:
            self._require_parts(inputs[0], own)

        def scatter() -> None:
            flat = movable(own)
            whole = joined(inputs[0]) if self._rank_in_group == root else flat
            self._comm.scatter(whole, root, out=flat)
            restore(own, flat)

        return self._run(scatter, outputs, opts)

    def reduce_scatter(
        self, outputs: list[torch.Tensor], inputs: list[list[torch.Tensor]], opts: Any = None
    ) -> dist.Work:
        """Fill the tensor with the combination of all ranks' tensors for this rank."""
        (output,), (parts,), op = outputs, inputs, reduction(opts)
        self._require_parts(parts, output)
        return self._run(
            lambda: self._reduce_scatter(output, torch.cat([p.reshape(-1) for p in parts]), op), outputs, opts
        )

    def reduce_scatter_single(self, output: torch.Tensor, whole: torch.Tensor, opts: Any = None) -> dist.Work:
        """Fill `output` with this rank's part of the combination of all ranks' tensors."""
        _require_size("input", whole, output.numel() * self._group_size)
        op = reduction(opts)
        return self._run(lambda: self._reduce_scatter(output, whole.reshape(-1), op), [output], opts)

    _reduce_scatter_base = reduce_scatter_single

    def reduce_scatter_single_coalesced(
        self, outputs: list[torch.Tensor], inputs: list[torch.Tensor], opts: Any = None
    ) -> dist.Work:
        """Do as `reduce_scatter_single` for each pair of tensors."""
        works = [self.reduce_scatter_single(output, whole, opts) for output, whole in zip(outputs, inputs, strict=True)]
        return works[-1]

    reduce_scatter_tensor_coalesced = reduce_scatter_single_coalesced

    def alltoall(self, outputs: list[torch.Tensor], inputs: list[torch.Tensor], opts: Any = None) -> dist.Work:
        """Send ``inputs[rank]`` to each rank, and fill ``outputs[rank]`` with what it sends."""
        return self._run(lambda: self._exchange(outputs, inputs), outputs, opts)

    def all_to_all_single(
        self,
        output: torch.Tensor,
        whole: torch.Tensor,
        output_sizes: Sequence[int],
        input_sizes: Sequence[int],
        opts: Any = None,
    ) -> dist.Work:
        """Send each rank its rows of `whole`, and receive rows of `output`; without sizes all have as many."""

        def alltoall() -> None:
            if not output_sizes and not input_sizes:
                flat = movable(output)
                self._comm.alltoall(movable(whole), out=flat)
                restore(output, flat)
                return
            target = output.contiguous()
            self._exchange(rows(target, output_sizes, self._group_size), rows(whole, input_sizes, self._group_size))
            restore(output, target)

        return self._run(alltoall, [output], opts)

    alltoall_base = all_to_all_single

    def barrier(self, opts: Any = None) -> dist.Work:
        """Complete when all ranks have called it."""
        return self._run(self._comm.barrier, [], opts)

    def monitored_barrier(self, timeout: timedelta | None = None, wait_all_ranks: bool = False) -> None:
        """Block until all ranks have called it; the error of a rank that does not names that rank.

        Raises
        ------
        PeerTimeoutError
            If they have not within `timeout`.
        """
        self._run(lambda: self._comm.barrier(timeout.total_seconds() if timeout else None), [], None).wait()

    # Messages ----------------------------------------------------------------------------------------------------

    def send(self, tensors: list[torch.Tensor], dst: int, tag: int = 0) -> dist.Work:
        """Send the tensor to rank `dst`, which receives it with the same tag."""
        return self._tagged(tag).post(tensors[0], dst, sends=True)

    def recv(self, tensors: list[torch.Tensor], src: int, tag: int = 0) -> dist.Work:
        """Receive the next tensor that rank `src` sends with this tag."""
        return self._tagged(tag).post(tensors[0], src, sends=False)

    def recv_anysource(self, tensors: list[torch.Tensor], tag: int = 0) -> dist.Work:
        """Raise: FMI receives from a given rank."""
        raise NotImplementedError("recv without src is not supported by the backend fmi: give the rank as src")

    # The end -----------------------------------------------------------------------------------------------------

    def shutdown(self) -> None:
        """Complete the operations that were called, then close the communicators."""
        for messages in self._messages.values():
            messages.close()
        self._messages.clear()
        self._worker.close()
        self._comm.close()

    abort = shutdown

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # nobody could handle it
            self.shutdown()

    def _run(self, operation: Callable[[], object], tensors: object, opts: Any) -> dist.Work:
        return self._worker.run(operation, tensors, in_thread=opts is not None and opts.asyncOp)

    def _tagged(self, tag: int) -> Messages:
        if tag not in self._messages:
            name = f"{self._name}t{tag}m"
            open_communicator = partial(Communicator, self._rank_in_group, self._group_size, self._config, name)
            self._messages[tag] = Messages(name, open_communicator)
        return self._messages[tag]

    def _allreduce(self, tensor: torch.Tensor, op: Any) -> None:
        function, operand = reducible(tensor, op)
        array = operand.numpy()  # the same memory; the plan of an array's last call is found at once
        self._comm.allreduce(array, function, out=array)
        if operand is not tensor:
            restore(tensor, operand)

    def _allreduce_sparse(self, tensor: torch.Tensor, op: Any) -> None:
        """Gather the indices and values of all ranks, each with a number of its own, and sum those of equal indices."""
        if op.op != dist.ReduceOp.SUM:
            raise NotImplementedError(
                f"reduction {op.op} of sparse tensors: expected SUM, the only one of torch's gloo"
            )
        own = tensor.detach().coalesce()
        values = own.values().contiguous()
        counts = self._comm.allgather(torch.tensor([values.shape[0]])).tolist()
        indices = self._comm.allgatherv(own.indices().t().contiguous(), counts)
        gathered = self._comm.allgatherv(movable(values).reshape(values.shape), counts)
        whole = gathered.view(values.dtype)
        with torch.no_grad():  # a detached one would have indices and values of its own
            tensor.copy_(torch.sparse_coo_tensor(indices.t(), whole, tensor.shape).coalesce())

    def _allgather(self, own: torch.Tensor) -> torch.Tensor:
        flat = movable(own)
        whole = torch.empty(self._group_size * flat.numel(), dtype=flat.dtype)
        self._comm.allgather(flat, out=whole)
        return whole.reshape(self._group_size, -1)

    def _reduce_scatter(self, output: torch.Tensor, whole: torch.Tensor, op: Any) -> None:
        function, operand = reducible(whole.clone(), op)
        own = torch.empty(output.numel(), dtype=operand.dtype)
        self._comm.reduce_scatter(operand.reshape(-1), function, out=own)
        restore(output, own)

    def _exchange(self, outputs: Sequence[torch.Tensor], inputs: Sequence[torch.Tensor]) -> None:
        """Send and receive one tensor, of any size, for each rank."""
        incoming = [movable(tensor) for tensor in outputs]
        outgoing = [movable(tensor) for tensor in inputs]
        incoming[self._rank_in_group].copy_(outgoing[self._rank_in_group])
        others = [rank for rank in range(self._group_size) if rank != self._rank_in_group]
        requests = [self._comm.irecv(rank, out=incoming[rank]) for rank in others if incoming[rank].numel()]
        requests += [self._comm.isend(outgoing[rank], rank) for rank in others if outgoing[rank].numel()]
        Request.waitall(requests)
        for tensor, flat in zip(outputs, incoming, strict=True):
            restore(tensor, flat)

    def _require_parts(self, parts: Sequence[torch.Tensor], own: torch.Tensor) -> None:
        if len(parts) != self._group_size:
            raise ValueError(f"invalid list of {len(parts)} tensors: expected {self._group_size}, one for each rank")
        for rank, part in enumerate(parts):
            if part.numel() != own.numel() or part.dtype != own.dtype:
                raise ValueError(
                    f"invalid tensor of {part.numel()} x {part.dtype} for rank {rank}: expected {own.numel()} x "
                    f"{own.dtype}, as this rank's"
                )


def _require_size(name: str, tensor: torch.Tensor, expected: int) -> None:
    if tensor.numel() != expected:
        raise ValueError(f"invalid {name} of {tensor.numel()} elements: expected {expected}, for all ranks")
