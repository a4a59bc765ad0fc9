"""FMI's published cost model, errors included: it makes the C++ library's choice for the same ``fmi.json``.

Sources, in FMI's repository: ``get_operation_latency`` and ``get_operation_price`` of src/comm/ClientServer.cpp
(S3, Redis) and src/comm/PeerToPeer.cpp (Direct); ``get_latency`` and ``get_price`` of src/comm/S3.cpp, Redis.cpp
and Direct.cpp; ``get_faas_price`` of src/utils/ChannelPolicy.cpp. Errors that
`corrected` does not have: latencies add milliseconds (``overhead``, ``timeout``) to seconds (MB over MB/s) and are
charged as seconds; one function is charged instead of all; an object store moves any number of payloads in the time
of one; the price of a scan over objects is a sum of latencies; an allreduce has two rounds too many at any world size.

Shared memory, which FMI does not have, counts as a Direct channel with its bandwidth and overhead, free of charge.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from fmi_shim.config import ChannelName, DirectModel, Model, RedisModel, S3Model
from fmi_shim.selection.model import Estimate, Pattern, Task

Cost = Callable[[int, int, float], float]
"""A formula of the numbers of producers and consumers and the bytes of one message."""


def estimate(channel: ChannelName, task: Task, model: Model, memory_mib: int) -> Estimate:
    """Return FMI's latency and price of an operation on two or more ranks."""
    if channel is ChannelName.Direct:
        latency = _peer_to_peer_latency(task, lambda p, c, n: _direct_latency(model.direct, p, c, n))
        price = _peer_to_peer_price(task, lambda p, c, n: _direct_price(model.direct, p, c, n))
    elif channel is ChannelName.SharedMemory:
        as_direct = DirectModel(model.shared_memory.bandwidth, model.shared_memory.overhead)
        latency = _peer_to_peer_latency(task, lambda p, c, n: _direct_latency(as_direct, p, c, n))
        price = 0.0
    elif channel is ChannelName.Redis:
        latency = _client_server_latency(task, lambda p, c, n: _redis_latency(model.redis, p, c, n))
        price = _client_server_price(
            task,
            lambda p, c, n: _redis_price(model.redis, p, c, n),
            lambda p, c, n: _redis_latency(model.redis, p, c, n),
        )
    else:
        latency = _client_server_latency(task, lambda p, c, n: _s3_latency(model.s3, p, c, n))
        price = _client_server_price(
            task, lambda p, c, n: _s3_price(model.s3, p, c, n), lambda p, c, n: _s3_latency(model.s3, p, c, n)
        )
    return Estimate(latency, price, latency * memory_mib / 1024 * model.function.gib_second_price)


def _s3_latency(s3: S3Model, producers: int, consumers: int, size: float) -> float:
    """``log2(P + C) (overhead + timeout / 2) + P C n / (P C bandwidth)``: S3::get_latency."""
    overhead = s3.overhead + s3.timeout / 2
    return math.log2(producers + consumers) * overhead + size / 1e6 / s3.bandwidth


def _s3_price(s3: S3Model, producers: int, consumers: int, size: float) -> float:
    """``P (upload + n transfer) + P C (polls download + n transfer)``: S3::get_price.

    ``polls`` is half of ``max_timeout / timeout``, both divisions of integers.
    """
    transfer = size / 1e9 * s3.transfer_price
    polls = s3.max_timeout // s3.timeout // 2
    return producers * (s3.upload_price + transfer) + producers * consumers * (polls * s3.download_price + transfer)


def _redis_latency(redis: RedisModel, producers: int, consumers: int, size: float) -> float:
    """``log2(P + C) overhead + P C n / min(P C bandwidth_single, bandwidth_multiple)``: Redis::get_latency."""
    flows = producers * consumers
    bandwidth = min(flows * redis.bandwidth_single, redis.bandwidth_multiple)
    return math.log2(producers + consumers) * redis.overhead + flows * size / 1e6 / bandwidth


def _redis_price(redis: RedisModel, producers: int, consumers: int, size: float) -> float:
    """``(1 + C) P n transfer + instance / requests_per_hour``: Redis::get_price."""
    transfer = (1 + consumers) * producers * size / 1e9 * redis.transfer_price
    return transfer + _share(redis.include_infrastructure_costs, redis.instance_price, redis.requests_per_hour)


def _direct_latency(direct: DirectModel, producers: int, consumers: int, size: float) -> float:
    """``log2(P + C) overhead + P C n / bandwidth``: Direct::get_latency."""
    return math.log2(producers + consumers) * direct.overhead + producers * consumers * size / 1e6 / direct.bandwidth


def _direct_price(direct: DirectModel, producers: int, consumers: int, size: float) -> float:
    """``2 P C n transfer + vm / requests_per_hour``: Direct::get_price."""
    transfer = 2 * producers * consumers * size / 1e9 * direct.transfer_price
    return transfer + _share(direct.include_infrastructure_costs, direct.vm_price, direct.requests_per_hour)


def _share(included: bool, hourly: float, requests_per_hour: int) -> float:
    return hourly / requests_per_hour if included else 0.0


def _client_server_latency(task: Task, latency: Cost) -> float:
    """ClientServer::get_operation_latency."""
    ranks, size = task.ranks, task.size_bytes
    match task.pattern:
        case Pattern.send:
            return latency(1, 1, size)
        case Pattern.bcast | Pattern.scatter:
            return latency(1, ranks - 1, size)
        case Pattern.barrier:
            return latency(ranks, 1, 1) + latency(1, ranks, 1)
        case Pattern.gather | Pattern.reduce | Pattern.scan:
            return latency(ranks - 1, 1, size)
        case Pattern.allreduce:
            return latency(ranks - 1, 1, size) + latency(1, ranks - 1, size)
        case Pattern.allgather:
            return latency(ranks - 1, 1, size) + latency(1, ranks - 1, ranks * size)


def _client_server_price(task: Task, price: Cost, latency: Cost) -> float:
    """ClientServer::get_operation_price; for a scan it adds latencies."""
    if task.pattern is Pattern.scan:
        return sum(latency(1, task.ranks - i, task.size_bytes) for i in range(1, task.ranks))
    if task.pattern is Pattern.barrier:
        return price(task.ranks, 1, 1) + price(1, task.ranks, 1)
    return _client_server_latency(task, price)


def _peer_to_peer_latency(task: Task, latency: Cost) -> float:
    """PeerToPeer::get_operation_latency."""
    ranks, size = task.ranks, task.size_bytes
    floor, ceil = ranks.bit_length() - 1, (ranks - 1).bit_length()
    doubling = sum(latency(1, 1, i * size) for i in range(1, floor + 1)) + latency(1, 1, (ranks - (1 << floor)) * size)
    match task.pattern:
        case Pattern.send:
            return latency(1, 1, size)
        case Pattern.bcast:
            return ceil * latency(1, 1, size)
        case Pattern.reduce if not task.left_to_right:
            return ceil * latency(1, 1, size)
        case Pattern.reduce | Pattern.gather | Pattern.scatter:
            return doubling
        case Pattern.allreduce if task.left_to_right:
            return doubling + ceil * latency(1, 1, size)
        case Pattern.allreduce:
            return (2 * floor + 2) * latency(1, 1, size)
        case Pattern.barrier:
            return (2 * floor + 2) * latency(1, 1, 1)
        case Pattern.scan:
            return 2 * floor * latency(1, 1, size)  # FMI's Communicator does not pass on that a scan keeps the order
        case Pattern.allgather:
            return doubling + ceil * latency(1, 1, ranks * size)


def _peer_to_peer_price(task: Task, price: Cost) -> float:
    """PeerToPeer::get_operation_price."""
    ranks, size = task.ranks, task.size_bytes
    floor, ceil = ranks.bit_length() - 1, (ranks - 1).bit_length()
    halving = sum(2.0 ** (floor - i) * price(1, 1, i * size) for i in range(1, ceil + 1))
    match task.pattern:
        case Pattern.send:
            return price(1, 1, size)
        case Pattern.bcast:
            return (ranks - 1) * price(1, 1, size)
        case Pattern.reduce if not task.left_to_right:
            return (ranks - 1) * price(1, 1, size)
        case Pattern.reduce | Pattern.gather | Pattern.scatter:
            return halving
        case Pattern.allreduce if task.left_to_right:
            return halving + (ranks - 1) * price(1, 1, size)
        case Pattern.allreduce:
            return 2 * (ranks - 1) * price(1, 1, size)
        case Pattern.barrier:
            return 2 * (ranks - 1) * price(1, 1, 1)
        case Pattern.scan:
            return 2 * ranks * price(1, 1, size)
        case Pattern.allgather:
            return halving + (ranks - 1) * price(1, 1, ranks * size)
