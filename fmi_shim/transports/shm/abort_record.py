"""The alarm of a segment: the first rank to fail says why, once, and all others hear it."""

from __future__ import annotations

import mmap
import struct

from fmi_shim.error_codec import MAX_ABORT_BYTES, decode_abort, encode_abort
from fmi_shim.errors import MismatchError
from fmi_shim.frames import FrameError
from fmi_shim.transports.shm.layout import ABORT, CLAIM, GATE, Layout
from fmi_shim.transports.shm.semaphores import Semaphore
from rendezvous.protocol.messages import Abort

_PREFIX = struct.Struct("<iI")  # the rank that tells, and the length of what follows


class Alarm:
    """The abort record in `memory`."""

    def __init__(self, memory: mmap.mmap, plan: Layout) -> None:
        self._memory = memory
        self._plan = plan
        self._words = memoryview(memory).cast("Q")
        self._claim = Semaphore(memory, CLAIM)
        self._gate = Semaphore(memory, GATE)

    def ring(self, abort: Abort) -> None:
        """Tell all of `abort`, unless a rank has told them of another one."""
        if self._claim.try_wait():
            record = encode_abort(abort)
            told = _PREFIX.pack(abort.reported_by, len(record)) + record
            self._memory[ABORT : ABORT + len(told)] = told
            for other in range(self._plan.size):
                self._words[self._plan.news(other) // 8] = 1
            self._gate.post()

    def heard(self) -> Abort | None:
        """Return which rank has told of what, None if all is well.

        Raises
        ------
        MismatchError
            If there is no record that a rank could have written.
        """
        if not self._gate.try_wait():
            return None
        self._gate.post()
        start = ABORT + _PREFIX.size
        reported_by, length = _PREFIX.unpack(self._memory[ABORT:start])
        try:
            return decode_abort(self._memory[start : start + min(length, MAX_ABORT_BYTES)], reported_by)
        except FrameError as error:
            raise MismatchError(f"the shared memory is damaged: {error}") from None
