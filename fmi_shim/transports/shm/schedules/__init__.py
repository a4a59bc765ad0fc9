"""Which schedule a collective takes in shared memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fmi_shim.channel import Schedule
from fmi_shim.frames import OBJECTS, Call, Operation
from fmi_shim.operators import Combine, ReduceFunction
from fmi_shim.transports.shm.schedules import cma, exchange, messages, reduce, scan
from fmi_shim.transports.shm.schedules.exchange import SegmentChannel

_EXCHANGES: Mapping[Operation, Callable[[SegmentChannel, Call], Schedule]] = {
    Operation.barrier: exchange.barrier,
    Operation.bcast: exchange.bcast,
    Operation.gather: exchange.gather,
    Operation.scatter: exchange.scatter,
    Operation.allgather: cma.allgather,
    Operation.alltoall: cma.alltoall,
    Operation.gatherv: messages.gatherv,
    Operation.scatterv: messages.scatterv,
    Operation.allgatherv: messages.allgatherv,
    Operation.alltoallv: messages.alltoallv,
}
_REDUCTIONS: Mapping[Operation, Callable[[SegmentChannel, Call, ReduceFunction, Combine], Schedule]] = {
    Operation.reduce: reduce.reduce,
    Operation.allreduce: reduce.allreduce,
    Operation.reduce_scatter: reduce.reduce_scatter,
    Operation.scan: scan.scan,
    Operation.exscan: scan.exscan,
    Operation.reduce_scatterv: messages.reduce_scatterv,
}


def prepare(channel: SegmentChannel, call: Call, function: ReduceFunction | None, combine: Combine | None) -> Schedule:
    """Return the schedule of `call`; see `Channel.prepare`."""
    if call.operation in OBJECTS:
        return messages.objects(channel, call)
    if function is None or combine is None:
        return _EXCHANGES[call.operation](channel, call)
    return _REDUCTIONS[call.operation](channel, call, function, combine)
