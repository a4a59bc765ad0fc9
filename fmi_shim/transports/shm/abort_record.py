"""The abort record of a segment: the first rank that fails writes its error once, and all others read it."""

from __future__ import annotations

import mmap
import struct

from fmi_shim.error_codec import MAX_ABORT_BYTES, decode_abort, encode_abort
from fmi_shim.errors import MismatchError
from fmi_shim.frames import FrameError
from fmi_shim.transports.shm.layout import ABORT_CLAIM, ABORT_READY, ABORT_RECORD, Layout
from fmi_shim.transports.shm.semaphores import Semaphore
from rendezvous.protocol.messages import Abort

_PREFIX = struct.Struct("<iI")  # the rank that reports the error, and the length of the encoded abort


class AbortRecord:
    """The abort record in `memory`."""

    def __init__(self, memory: mmap.mmap, plan: Layout) -> None:
        self._memory = memory
        self._plan = plan
        self._words = memoryview(memory).cast("Q")
        self._claim = Semaphore(memory, ABORT_CLAIM)
        self._ready = Semaphore(memory, ABORT_READY)

    def publish_error(self, abort: Abort) -> None:
        """Write `abort` and notify all ranks, unless another rank has already published one."""
        if self._claim.try_wait():
            encoded = encode_abort(abort)
            record = _PREFIX.pack(abort.reported_by, len(encoded)) + encoded
            self._memory[ABORT_RECORD : ABORT_RECORD + len(record)] = record
            for other in range(self._plan.size):
                self._words[self._plan.notifications(other) // 8] = 1
            for _ in range(self._plan.size):  # one for each rank: several may read, and hold one, at the same time
                self._ready.post()

    def read_error(self) -> Abort | None:
        """Return the published abort; None if there is none.

        Raises
        ------
        MismatchError
            If the record is not one that a rank can have written.
        """
        if not self._ready.try_wait():
            return None
        self._ready.post()
        start = ABORT_RECORD + _PREFIX.size
        reported_by, length = _PREFIX.unpack(self._memory[ABORT_RECORD:start])
        try:
            return decode_abort(self._memory[start : start + min(length, MAX_ABORT_BYTES)], reported_by)
        except FrameError as error:
            raise MismatchError(f"shared memory is damaged: {error}") from None
