"""The backend ``fmi`` of torch.distributed: a process group whose collectives are those of a communicator.

torch calls `register` when it is imported (entry point ``torch.backends``), so that a program needs no import of ours.
 torch's ``Backend`` cannot be subclassed in Python; ``ProcessGroup`` can, see
https://github.com/pytorch/pytorch/blob/main/torch/testing/_internal/distributed/multi_threaded_pg.py.

Where FMI_RENDEZVOUS is set or the working directory has ``fmi.json``, ranks connect through that rendezvous server.
Elsewhere, as under torchrun, rank 0 starts one, and tells the others through the group's store.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import json
import os
import queue
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import Store

from fmi_shim.backoff import pauses
from fmi_shim.communicator import Communicator
from fmi_shim.config import RENDEZVOUS_VARIABLE
from fmi_shim.operators import Operator, ReduceFunction
from fmi_shim.pairing.control_connection import SECRET_VARIABLE
from fmi_shim.requests import Request

_NAME = "fmi"
_CONFIG = "fmi.json"
_ENTRY = "fmi"
"""Key in the group's store: the communicator's name, and the server that rank 0 has started."""
_SERVER = """
import os, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
from rendezvous.__main__ import main
main()
"""
"""The rendezvous server, which ends when its standard input does."""
_LONGEST_TIMEOUT = timedelta(days=20)
"""fmi.json's limit, about."""
_LONGEST_LOOK_S = 0.1
"""Longest pause between two looks at the store."""
_rendezvous_count = itertools.count()
"""How often this process initialised torch.distributed: each time with a store of its own."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 2e-5, 1e-3
"""Pauses between two looks at posted messages, which no wait covers together with new ones."""

_FUNCTIONS = {
    dist.ReduceOp.SUM: ReduceFunction(Operator.sum),
    dist.ReduceOp.PRODUCT: ReduceFunction(Operator.prod),
    dist.ReduceOp.MIN: ReduceFunction(Operator.min),
    dist.ReduceOp.MAX: ReduceFunction(Operator.max),
    dist.ReduceOp.AVG: ReduceFunction(Operator.avg),
    dist.ReduceOp.BAND: ReduceFunction(Operator.band),
    dist.ReduceOp.BOR: ReduceFunction(Operator.bor),
    dist.ReduceOp.BXOR: ReduceFunction(Operator.bxor),
}
_WRAPPING = {
    dist.ReduceOp.SUM: ReduceFunction(Operator.sum, wrap=True),
    dist.ReduceOp.PRODUCT: ReduceFunction(Operator.prod, wrap=True),
}
"""What integers are combined with: torch's wrap."""
_INTEGERS = {1: torch.uint8, 2: torch.int16}
"""What elements without a numpy type are moved as, by their size."""
_WIDER = {
    torch.bfloat16: torch.float32,
    torch.float8_e4m3fn: torch.float32,
    torch.float8_e5m2: torch.float32,
}
"""What elements without a numpy type are reduced as."""


def register() -> None:
    """Register the backend ``fmi``, and a store for the ranks of a run; called by torch when it is imported."""
    if _NAME in dist.Backend.backend_list:
        return
    dist.Backend.register_backend(_NAME, _create_group, extended_api=True, devices=["cpu"])
    # No public function replaces a handler, and the package hides the module behind a function of its name.
    handlers = import_module("torch.distributed.rendezvous")._rendezvous_handlers  # noqa: SLF001
    handlers["env"] = partial(_rendezvous_in_s3, handlers["env"])


class CompletedWork(dist.Work):
    """The handle of an operation that is complete. It is made for each short call: its future only on request.

    Parameters
    ----------
    tensors
        The operation's tensors.
    """

    def __init__(self, tensors: object) -> None:
        super().__init__()
        self._tensors = tensors

    def wait(self, timeout: timedelta | None = None) -> bool:
        """Return at once."""
        return True

    def is_completed(self) -> bool:
        """Return True."""
        return True

    def is_success(self) -> bool:
        """Return True."""
        return True

    def exception(self) -> BaseException | None:
        """Return None."""
        return None

    def result(self) -> Any:
        """Return the operation's tensors."""
        return self._tensors

    def get_future(self) -> torch.futures.Future[Any]:
        """Return a future that has the operation's tensors."""
        future: torch.futures.Future[Any] = torch.futures.Future()
        future.set_result(self._tensors)
        return future


class RunningWork(dist.Work):
    """The handle of an operation that a thread runs."""

    def __init__(self) -> None:
        super().__init__()
        self._future: torch.futures.Future[Any] = torch.futures.Future()
        self._tensors: object = None
        self._error: BaseException | None = None
        self._done = threading.Event()

    def finish(self, tensors: object, error: BaseException | None = None) -> None:
        """Set the operation's tensors, or the error that `wait` raises."""
        self._tensors, self._error = tensors, error
        self._done.set()
        if error is None:
            self._future.set_result(tensors)
        else:
            self._future.set_exception(error)

    def wait(self, timeout: timedelta | None = None) -> bool:
        """Block until the operation is complete.

        Raises
        ------
        FmiError
            The operation's error.
        TimeoutError
            If it is not complete within `timeout`.
        """
        seconds = timeout.total_seconds() if timeout else None  # torch passes 0 for no limit
        if not self._done.wait(seconds or None):
            raise TimeoutError(f"operation not complete after {seconds:g} s: check that all ranks have called it")
        if self._error is not None:
            raise self._error
        return True

    def is_completed(self) -> bool:
        """Whether the operation is complete."""
        return self._done.is_set()

    def is_success(self) -> bool:
        """Whether the operation is complete and has not failed."""
        return self._done.is_set() and self._error is None

    def exception(self) -> BaseException | None:
        """Return the operation's error, or None."""
        return self._error

    def result(self) -> Any:
        """Wait for the operation; return its tensors."""
        self.wait()
        return self._tensors

    def get_future(self) -> torch.futures.Future[Any]:
        """Return the future of the operation's tensors."""
        return self._future


class _Worker:
    """Runs operations one after another in a thread, which is started with the first one.

    An operation that is waited for at once runs in its caller's thread if no other is queued.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._queue: queue.SimpleQueue[tuple[RunningWork, Callable[[], object], object] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._queued = 0
        self._thread: threading.Thread | None = None

    def run(self, operation: Callable[[], object], tensors: object, *, in_thread: bool) -> dist.Work:
        if not in_thread and self._queued == 0 and self._lock.acquire(blocking=False):
            try:
                operation()
            finally:
                self._lock.release()
            return CompletedWork(tensors)
        work = RunningWork()
        self._queued += 1
        self._queue.put((work, operation, tensors))
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
            self._thread.start()
        return work

    def close(self) -> None:
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None

    def _serve(self) -> None:
        while (item := self._queue.get()) is not None:
            work, operation, tensors = item
            error: BaseException | None = None
            try:
                with self._lock:
                    operation()
            except Exception as raised:  # noqa: BLE001 - whatever it is, the waiting thread raises it
                error = raised
            self._queued -= 1
            work.finish(tensors, error)


@dataclass(eq=False)
class _Active:
    """A posted message, and the memory that is sent or received."""

    request: Request
    work: RunningWork
    tensor: torch.Tensor
    flat: torch.Tensor
    sends: bool


class _Messages:
    """The messages between ranks with one tag. A thread posts and moves them: no call of the program blocks another."""

    def __init__(self, name: str, open_communicator: Callable[[], Communicator]) -> None:
        self._queue: queue.SimpleQueue[tuple[RunningWork, torch.Tensor, int, bool] | None] = queue.SimpleQueue()
        self._open = open_communicator
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def post(self, tensor: torch.Tensor, peer: int, *, sends: bool) -> RunningWork:
        work = RunningWork()
        self._queue.put((work, tensor, peer, sends))
        return work

    def close(self) -> None:
        self._queue.put(None)
        self._thread.join()

    def _serve(self) -> None:
        active: list[_Active] = []
        pause = _FIRST_PAUSE_S
        comm: Communicator | None = None
        closing = False
        while active or not closing:
            try:
                item = self._queue.get(block=not active)
                if item is None:
                    closing = True
                    continue
                comm = comm or self._open()
                work, tensor, peer, sends = item
                try:
                    flat = _moved(tensor)
                    request = comm.isend(flat, peer) if sends else comm.irecv(peer, out=flat)
                    active.append(_Active(request, work, tensor, flat, sends))
                except Exception as error:  # noqa: BLE001 - whatever it is, the waiting thread raises it
                    work.finish(None, error)
                pause = _FIRST_PAUSE_S
            except queue.Empty:
                moved = self._advance(active)
                pause = _FIRST_PAUSE_S if moved else min(2 * pause, _LONGEST_PAUSE_S)
                if not moved:
                    time.sleep(pause)
        if comm is not None:
            with contextlib.suppress(Exception):  # it failed before, which the works have raised
                comm.close()

    @staticmethod
    def _advance(active: list[_Active]) -> bool:
        """Move messages; complete those that are done, all of them if one fails."""
        for entry in list(active):
            try:
                if entry.request.test():
                    entry.request.wait()
                    active.remove(entry)
                    if not entry.sends:
                        _restore(entry.tensor, entry.flat)
                    entry.work.finish([entry.tensor])
                    return True
            except Exception as error:  # noqa: BLE001 - whatever it is, the waiting threads raise it
                for failed in active:
                    failed.work.finish(None, error)
                active.clear()
                return True
        return False


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
        Path of ``fmi.json``.
    """

    def __init__(self, rank: int, size: int, name: str, config: Path) -> None:
        super().__init__(rank, size)
        self._rank_in_group = rank
        self._group_size = size
        self._name = name
        self._config = config
        self._group_name = ""
        self._comm = Communicator(rank, size, config, name)
        self._worker = _Worker(name)
        self._messages: dict[int, _Messages] = {}

    # Names and sizes ---------------------------------------------------------------------------------------------

    def rank(self) -> int:
        """Return this rank in the group."""
        return self._rank_in_group

    def size(self) -> int:
        """Return the number of ranks."""
        return self._group_size

    def getBackendName(self) -> str:  # noqa: N802 - torch's name
        """Return ``fmi``."""
        return _NAME

    def name(self) -> str:
        """Return ``fmi``."""
        return _NAME

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
        """Replace each tensor by the combination of all ranks' ones."""
        op = _operator(opts)

        def allreduce() -> None:
            for tensor in tensors:
                self._allreduce(tensor, op)

        return self._run(allreduce, tensors, opts)

    def allreduce_coalesced(self, tensors: list[torch.Tensor], opts: Any = None) -> dist.Work:
        """Do as `allreduce`."""
        return self.allreduce(tensors, opts)

    def reduce(self, tensors: list[torch.Tensor], opts: Any) -> dist.Work:
        """Replace the root's tensor by the combination of all ranks' ones."""
        (tensor,), op, root = tensors, _operator(opts), opts.rootRank

        def reduce() -> None:
            function, operand = _operand(tensor, op)
            is_root = self._rank_in_group == root
            self._comm.reduce(operand, root, function, out=operand if is_root else None)
            if is_root:
                _restore(tensor, operand)

        return self._run(reduce, tensors, opts)

    def broadcast(self, tensors: list[torch.Tensor], opts: Any) -> dist.Work:
        """Replace the tensor by the root's one."""
        (tensor,), root = tensors, opts.rootRank

        def broadcast() -> None:
            flat = _moved(tensor)
            self._comm.bcast(flat, root)
            if self._rank_in_group != root:
                _restore(tensor, flat)

        return self._run(broadcast, tensors, opts)

    def allgather(self, outputs: list[list[torch.Tensor]], inputs: list[torch.Tensor], opts: Any = None) -> dist.Work:
        """Fill the list of tensors with those of all ranks."""
        (parts,), (own,) = outputs, inputs
        self._require_parts(parts, own)

        def allgather() -> None:
            _scatter_into(parts, self._allgather(own))

        return self._run(allgather, outputs, opts)

    def allgather_coalesced(
        self, outputs: list[list[torch.Tensor]], inputs: list[torch.Tensor], opts: Any = None
    ) -> dist.Work:
        """Fill ``outputs[rank][i]`` with that rank's ``inputs[i]``."""

        def allgather() -> None:
            for index, own in enumerate(inputs):
                _scatter_into([parts[index] for parts in outputs], self._allgather(own))

        return self._run(allgather, outputs, opts)

    def all_gather_single(self, output: torch.Tensor, own: torch.Tensor, opts: Any = None) -> dist.Work:
        """Fill `output` with all ranks' tensors, one after another."""
        _require_size("output", output, own.numel() * self._group_size)

        def allgather() -> None:
            flat = _moved(output)
            self._comm.allgather(_moved(own), out=flat)
            _restore(output, flat)

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
            flat = _moved(own)
            whole = self._comm.gather(flat, root)
            if self._rank_in_group == root:
                _scatter_into(outputs[0], whole.reshape(self._group_size, -1))

        return self._run(gather, outputs, opts)

    def scatter(self, outputs: list[torch.Tensor], inputs: list[list[torch.Tensor]], opts: Any) -> dist.Work:
        """Fill the tensor with the root's one for this rank."""
        (own,), root = outputs, opts.rootRank
        if self._rank_in_group == root:
            self._require_parts(inputs[0], own)

        def scatter() -> None:
            flat = _moved(own)
            whole = _joined(inputs[0]) if self._rank_in_group == root else flat
            self._comm.scatter(whole, root, out=flat)
            _restore(own, flat)

        return self._run(scatter, outputs, opts)

    def reduce_scatter(
        self, outputs: list[torch.Tensor], inputs: list[list[torch.Tensor]], opts: Any = None
    ) -> dist.Work:
        """Fill the tensor with the combination of all ranks' tensors for this rank."""
        (output,), (parts,), op = outputs, inputs, _operator(opts)
        self._require_parts(parts, output)
        return self._run(
            lambda: self._reduce_scatter(output, torch.cat([p.reshape(-1) for p in parts]), op), outputs, opts
        )

    def reduce_scatter_single(self, output: torch.Tensor, whole: torch.Tensor, opts: Any = None) -> dist.Work:
        """Fill `output` with this rank's part of the combination of all ranks' tensors."""
        _require_size("input", whole, output.numel() * self._group_size)
        op = _operator(opts)
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
                flat = _moved(output)
                self._comm.alltoall(_moved(whole), out=flat)
                _restore(output, flat)
                return
            target = output.contiguous()
            self._exchange(_rows(target, output_sizes, self._group_size), _rows(whole, input_sizes, self._group_size))
            _restore(output, target)

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

    def _tagged(self, tag: int) -> _Messages:
        if tag not in self._messages:
            name = f"{self._name}t{tag}m"
            open_communicator = partial(Communicator, self._rank_in_group, self._group_size, self._config, name)
            self._messages[tag] = _Messages(name, open_communicator)
        return self._messages[tag]

    def _allreduce(self, tensor: torch.Tensor, op: Any) -> None:
        function, operand = _operand(tensor, op)
        self._comm.allreduce(operand, function, out=operand)
        if operand is not tensor:
            _restore(tensor, operand)

    def _allgather(self, own: torch.Tensor) -> torch.Tensor:
        flat = _moved(own)
        whole = torch.empty(self._group_size * flat.numel(), dtype=flat.dtype)
        self._comm.allgather(flat, out=whole)
        return whole.reshape(self._group_size, -1)

    def _reduce_scatter(self, output: torch.Tensor, whole: torch.Tensor, op: Any) -> None:
        function, operand = _operand(whole.clone(), op)
        own = torch.empty(output.numel(), dtype=operand.dtype)
        self._comm.reduce_scatter(operand.reshape(-1), function, out=own)
        _restore(output, own)

    def _exchange(self, outputs: Sequence[torch.Tensor], inputs: Sequence[torch.Tensor]) -> None:
        """Send and receive one tensor, of any size, for each rank."""
        incoming = [_moved(tensor) for tensor in outputs]
        outgoing = [_moved(tensor) for tensor in inputs]
        incoming[self._rank_in_group].copy_(outgoing[self._rank_in_group])
        others = [rank for rank in range(self._group_size) if rank != self._rank_in_group]
        requests = [self._comm.irecv(rank, out=incoming[rank]) for rank in others if incoming[rank].numel()]
        requests += [self._comm.isend(outgoing[rank], rank) for rank in others if outgoing[rank].numel()]
        Request.waitall(requests)
        for tensor, flat in zip(outputs, incoming, strict=True):
            _restore(tensor, flat)

    def _require_parts(self, parts: Sequence[torch.Tensor], own: torch.Tensor) -> None:
        if len(parts) != self._group_size:
            raise ValueError(f"invalid list of {len(parts)} tensors: expected {self._group_size}, one for each rank")
        for rank, part in enumerate(parts):
            if part.numel() != own.numel() or part.dtype != own.dtype:
                raise ValueError(
                    f"invalid tensor of {part.numel()} x {part.dtype} for rank {rank}: expected {own.numel()} x "
                    f"{own.dtype}, as this rank's"
                )


def _operator(opts: Any) -> Any:
    return dist.ReduceOp(dist.ReduceOp.SUM) if opts is None else opts.reduceOp


def _operand(tensor: torch.Tensor, op: Any) -> tuple[ReduceFunction, torch.Tensor]:
    """Return the function, and contiguous memory to reduce in place: the tensor itself where possible."""
    tensor = tensor.detach() if tensor.requires_grad else tensor
    if op.op == dist.ReduceOp.PREMUL_SUM:
        return _FUNCTIONS[dist.ReduceOp.SUM], tensor.contiguous() * op.factor
    if op.op not in _FUNCTIONS:
        raise NotImplementedError(f"reduction {op.op} is not supported by the backend fmi")
    wider = _WIDER.get(tensor.dtype)
    is_integer = not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype is torch.bool)
    function = (_WRAPPING if is_integer and op.op in _WRAPPING else _FUNCTIONS)[op.op]
    return function, tensor.contiguous() if wider is None else tensor.to(wider)


def _moved(tensor: torch.Tensor) -> torch.Tensor:
    """Return the elements of a tensor in one row, which may be its memory, as a type that numpy has."""
    flat = tensor.detach().contiguous().reshape(-1)
    return flat.view(_INTEGERS[flat.element_size()]) if flat.dtype in _WIDER else flat


def _restore(tensor: torch.Tensor, flat: torch.Tensor) -> None:
    """Copy elements that were received back into their tensor, unless they are its memory."""
    if flat.data_ptr() == tensor.data_ptr() and flat.element_size() == tensor.element_size():
        return
    is_moved = tensor.dtype in _WIDER and flat.dtype == _INTEGERS[tensor.element_size()]
    values = flat.view(tensor.dtype) if is_moved else flat
    tensor.detach().copy_(values.reshape(tensor.shape))


def _joined(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat([_moved(part) for part in parts])


def _scatter_into(parts: Sequence[torch.Tensor], rows: torch.Tensor) -> None:
    for part, row in zip(parts, rows, strict=True):
        _restore(part, row)


def _rows(tensor: torch.Tensor, sizes: Sequence[int], ranks: int) -> list[torch.Tensor]:
    """Return each rank's rows of a contiguous tensor."""
    return list(torch.split(tensor, list(sizes) or tensor.shape[0] // ranks))


def _require_size(name: str, tensor: torch.Tensor, expected: int) -> None:
    if tensor.numel() != expected:
        raise ValueError(f"invalid {name} of {tensor.numel()} elements: expected {expected}, for all ranks")


def _create_group(options: Any, backend_options: object) -> FmiProcessGroup:
    """Create a process group; called by torch on each of its ranks."""
    rank, size, store = options.group_rank, options.group_size, options.store
    server: dict[str, str] | None
    if rank == 0:
        server = None if os.environ.get(RENDEZVOUS_VARIABLE) or Path(_CONFIG).is_file() else _server()
        name = f"torch{secrets.token_hex(8)}/"
        store.set(_ENTRY, json.dumps({"name": name, "server": server}))
    else:
        entry = json.loads(store.get(_ENTRY))
        name, server = entry["name"], entry["server"]
    return FmiProcessGroup(rank, size, name, _config(server, options.timeout))


@functools.cache
def _server() -> dict[str, str]:
    """Start a rendezvous server for the groups whose rank 0 this process is; it ends with this process.

    It listens where the group's store does: on MASTER_ADDR, or on the loopback address.
    """
    host = socket.gethostbyname(os.environ.get("MASTER_ADDR") or "localhost")
    secret = secrets.token_hex(16)
    server = subprocess.Popen(  # noqa: S603 - this project's server
        [sys.executable, "-c", _SERVER, "--host", host, "--port", "0"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, SECRET_VARIABLE: secret},
    )
    atexit.register(server.kill)
    assert server.stdout is not None  # noqa: S101 - a pipe
    address = server.stdout.readline().split()[-1:]
    if not address:
        raise RuntimeError(
            f"cannot start a rendezvous server on {host}, see above: install fmi-emulator there, or set "
            f"{RENDEZVOUS_VARIABLE} to the host:port of a running one"
        )
    return {"address": address[0], "secret": secret}


def _config(server: dict[str, str] | None, timeout: timedelta) -> Path:
    """Return the path of fmi.json: the program's, or one for a given server or that of the environment."""
    if server is None and Path(_CONFIG).is_file():
        return Path(_CONFIG).resolve()
    if server is not None:
        os.environ[SECRET_VARIABLE] = server["secret"]
    address = os.environ[RENDEZVOUS_VARIABLE] if server is None else server["address"]
    host, _, port = address.rpartition(":")
    milliseconds = int(min(timeout, _LONGEST_TIMEOUT).total_seconds() * 1000)
    direct = {"enabled": True, "host": host, "port": int(port), "max_timeout": milliseconds, "framed": True}
    path = Path(_folder().name) / f"{host}-{port}-{milliseconds}.json"
    path.write_text(json.dumps({"backends": {"Direct": direct}}))
    return path


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """Return the folder of the configurations, which is removed with this object, at the end of the process."""
    return tempfile.TemporaryDirectory(prefix="fmi-torch-")


class S3Store(Store):
    """torch's key-value store in a bucket, for ranks that can connect to no other rank's port, such as Lambdas.

    Parameters
    ----------
    client
        boto3 client of S3.
    bucket, prefix
        Where the entries are stored, an object each.
    timeout
        How long `get` and `wait` wait for an entry.
    """

    def __init__(self, client: Any, bucket: str, prefix: str, timeout: timedelta = timedelta(minutes=5)) -> None:
        super().__init__()
        self._client = client
        self._bucket = bucket
        self._prefix = prefix
        self._timeout = timeout

    def set(self, key: str, value: str | bytes) -> None:
        """Store a value."""
        self._put(key, _encoded(value))

    def get(self, key: str) -> bytes:
        """Return a value; wait until it is stored.

        Raises
        ------
        DistStoreError
            If it is not stored within the time limit.
        """
        self.wait([key], self._timeout)
        found = self._found(key)
        if found is None:
            raise dist.DistStoreError(f"key {key!r} was deleted while it was read")
        return found[0]

    def add(self, key: str, amount: int) -> int:
        """Add to a number, 0 if there is none yet; return the sum."""
        while True:
            found = self._found(key)
            total = int(found[0]) + amount if found else amount
            if self._put_if(key, str(total).encode(), found[1] if found else None):
                return total

    def compare_set(self, key: str, expected: str | bytes, desired: str | bytes) -> bytes:
        """Store `desired` if the value is `expected`, or if there is none and `expected` is empty; return the value."""
        while True:
            found = self._found(key)
            current = found[0] if found else b""
            if current != _encoded(expected):
                return current if found else _encoded(expected)
            if self._put_if(key, _encoded(desired), found[1] if found else None):
                return _encoded(desired)

    def check(self, keys: list[str]) -> bool:
        """Return whether all keys are stored."""
        return all(self._found(key) is not None for key in keys)

    def wait(self, keys: list[str], timeout: timedelta | None = None) -> None:
        """Wait until all keys are stored.

        Raises
        ------
        DistStoreError
            If they are not stored within the time limit.
        """
        seconds = (timeout or self._timeout).total_seconds()
        end = time.monotonic() + seconds
        for pause in pauses(_LONGEST_LOOK_S):
            missing = [key for key in keys if self._found(key) is None]
            if not missing:
                return
            if time.monotonic() >= end:
                raise dist.DistStoreError(f"keys {missing} not stored within {seconds:g} s: check that all ranks run")
            time.sleep(pause)

    def delete_key(self, key: str) -> bool:
        """Delete a value; return whether there was one."""
        existed = self._found(key) is not None
        self._client.delete_object(Bucket=self._bucket, Key=self._prefix + key)
        return existed

    def num_keys(self) -> int:
        """Return the number of keys."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
        return sum(page.get("KeyCount", 0) for page in pages)

    @property
    def timeout(self) -> timedelta:
        """How long `get` waits."""
        return self._timeout

    def set_timeout(self, timeout: timedelta) -> None:
        """Set how long `get` waits."""
        self._timeout = timeout

    def _found(self, key: str) -> tuple[bytes, str] | None:
        """Return a value and its ETag."""
        try:
            found = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key)
        except self._client.exceptions.NoSuchKey:
            return None
        return found["Body"].read(), found["ETag"]

    def _put(self, key: str, value: bytes, **condition: str) -> None:
        self._client.put_object(Bucket=self._bucket, Key=self._prefix + key, Body=value, **condition)

    def _put_if(self, key: str, value: bytes, etag: str | None) -> bool:
        """Store a value if the present one has this ETag, or if there is none; return whether it was stored."""
        try:
            self._put(key, value, **({"IfNoneMatch": "*"} if etag is None else {"IfMatch": etag}))
        except self._client.exceptions.ClientError as error:
            if error.response["Error"]["Code"] in ("PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey"):
                return False
            raise
        return True


def _encoded(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)


def _rendezvous_in_s3(
    otherwise: Callable[..., Iterator[tuple[Store, int, int]]], url: str, **settings: Any
) -> Iterator[tuple[Store, int, int]]:
    """Give the ranks of a run a store in its bucket; do as torch's ``env://`` where the environment is not a run's."""
    environment = os.environ
    if environment.get("MASTER_ADDR") or not (environment.get("S3_BUCKET") and environment.get(RENDEZVOUS_VARIABLE)):
        yield from otherwise(url, **settings)
        return
    import boto3

    job = environment.get("FMI_JOB", "")
    prefix = f"torch-store/{job}/{next(_rendezvous_count)}/"
    store = S3Store(boto3.client("s3"), environment["S3_BUCKET"], prefix)
    yield store, int(environment["RANK"]), int(environment["WORLD_SIZE"])
