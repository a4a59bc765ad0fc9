"""The handles of operations (`torch.distributed.Work`), and the threads that run collectives and move messages."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from fmi_shim.communicator import Communicator
from fmi_shim.errors import PeerTimeoutError
from fmi_shim.requests import Request
from fmi_shim.torch_backend.elements import movable, restore

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 2e-5, 1e-3
"""Pauses between two looks at posted messages, which no wait covers together with new ones."""


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


class Worker:
    """Runs operations one after another in a thread, which is started with the first one.

    An operation that is waited for at once runs in its caller's thread if no other is queued.

    Parameters
    ----------
    name
        Name of the thread.
    timeout_advice
        What the error of an operation that has reached its time limit says besides; empty for nothing.
    """

    def __init__(self, name: str, timeout_advice: str) -> None:
        self._name = name
        self._timeout_advice = timeout_advice
        self._queue: queue.SimpleQueue[tuple[RunningWork, Callable[[], object], object] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._queued = 0
        self._thread: threading.Thread | None = None

    def run(self, operation: Callable[[], object], tensors: object, *, in_thread: bool) -> dist.Work:
        """Run an operation, in the thread if it is asked for or others are queued; return its handle."""
        if not in_thread and self._queued == 0 and self._lock.acquire(blocking=False):
            try:
                self._execute(operation)
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
        """Complete the queued operations and end the thread."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None

    def _execute(self, operation: Callable[[], object]) -> None:
        try:
            operation()
        except PeerTimeoutError as error:
            if self._timeout_advice:
                error.message = f"{error.message}; {self._timeout_advice}"
            raise

    def _serve(self) -> None:
        while (item := self._queue.get()) is not None:
            work, operation, tensors = item
            error: BaseException | None = None
            try:
                with self._lock:
                    self._execute(operation)
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


class Messages:
    """The messages between ranks with one tag. A thread posts and moves them: no call of the program blocks another.

    Parameters
    ----------
    name
        Name of the thread.
    open_communicator
        Opens the communicator of the messages, when the first one is posted.
    """

    def __init__(self, name: str, open_communicator: Callable[[], Communicator]) -> None:
        self._queue: queue.SimpleQueue[tuple[RunningWork, torch.Tensor, int, bool] | None] = queue.SimpleQueue()
        self._open = open_communicator
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def post(self, tensor: torch.Tensor, peer: int, *, sends: bool) -> RunningWork:
        """Post a message to or from `peer`; return its handle."""
        work = RunningWork()
        self._queue.put((work, tensor, peer, sends))
        return work

    def close(self) -> None:
        """Complete the posted messages, close the communicator and end the thread."""
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
                work, tensor, peer, sends = item
                try:
                    comm = comm or self._open()
                    flat = movable(tensor)
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
                        restore(entry.tensor, entry.flat)
                    entry.work.finish([entry.tensor])
                    return True
            except Exception as error:  # noqa: BLE001 - whatever it is, the waiting threads raise it
                for failed in active:
                    failed.work.finish(None, error)
                active.clear()
                return True
        return False
