"""The published cost model with its errors corrected; see `compat` for what they are.

All times are in seconds and all sizes in bytes. p is the number of ranks, n the payload. Assumptions:

- All ranks call at the same time, and each is charged until the last one is done: p functions' GiB-seconds, two for a
  message. (A rank that is done early waits for the others in its next call.)
- A function's network card transfers `FUNCTION_BYTES_PER_SECOND` in all, on every channel. This limits a root that
  reads p - 1 payloads, and Direct's published 400 MB/s.
- ``overhead`` is the time of a message of one byte. On the object channels one half is the write, the other the read.
- A reader polls for objects with the pauses of `fmi_shim.backoff.pauses`. A read of a missing object is a request. (In
  waits of more than a quarter of a second, the read of failure records is one more request, four times a second. Ranks
  that call at the same time wait that long only for payloads of megabytes, where these requests are a small part.)
- A listing costs as much as a write (S3's price list: "PUT, COPY, POST, LIST").
- A server's hour is shared by ``requests_per_hour`` operations; FMI charges the share for each message.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from fmi_shim.backoff import FIRST_PAUSE
from fmi_shim.config import ChannelName, DirectModel, Model, RedisModel, S3Model, SharedMemoryModel
from fmi_shim.selection.model import Estimate, Pattern, Task
from fmi_shim.transports.shm.layout import WINDOW_BYTES

FUNCTION_BYTES_PER_SECOND = 75e6
"""0.6 Gbit/s: sustained by one Lambda function, at any memory (github.com/sjakthol/aws-network-benchmark, 2024;
function to function 621 Mbit/s: M. Wawrzoniak et al., "Boxer", CIDR 2021)."""

S3_REQUESTS_AT_ONCE = 16
"""How many requests one rank sends to S3 at the same time; see `transports.objects.s3`."""

_LISTED_AT_ONCE = 1000  # ListObjectsV2's page


def estimate(channel: ChannelName, task: Task, model: Model, memory_mib: int) -> Estimate:
    """Return the latency and price of an operation on two or more ranks."""
    if channel is ChannelName.Direct:
        latency, channel_usd = _direct(model.direct, task)
    elif channel is ChannelName.SharedMemory:
        latency, channel_usd = _shared_memory(model.shared_memory, task), 0.0
    else:
        store = _redis_store(model.redis) if channel is ChannelName.Redis else _s3_store(model.s3)
        usage = _store_usage(store, task)
        latency, channel_usd = usage.seconds, store.price(usage, task)
    charged = 2 if task.pattern is Pattern.send else task.ranks
    return Estimate(latency, channel_usd, charged * latency * memory_mib / 1024 * model.function.gib_second_price)


@dataclass(frozen=True, slots=True)
class StoreUsage:
    """The requests of an operation to an object store, and its time.

    Attributes
    ----------
    seconds
        Time until the last rank is done.
    writes, reads
        Objects written and read.
    empty_reads
        Reads of objects that do not exist yet.
    listings
        Listings of up to 1000 keys.
    """

    seconds: float
    writes: int
    reads: int
    empty_reads: int
    listings: int = 0

    def then(self, later: StoreUsage) -> StoreUsage:
        """Return this usage followed by `later`, whose seconds count from the beginning of this one."""
        return StoreUsage(
            later.seconds,
            self.writes + later.writes,
            self.reads + later.reads,
            self.empty_reads + later.empty_reads,
            self.listings + later.listings,
        )


@dataclass(frozen=True, slots=True)
class StoreModel:
    """The speed and the prices of an object store: seconds, bytes/s, and USD.

    Attributes
    ----------
    request
        Seconds of a write or a read of no bytes.
    flow, all_flows
        Bytes/s of one transfer, and of all ranks together.
    at_once
        Requests of one rank at the same time.
    longest_pause
        Longest pause between two polls, seconds.
    write_usd, read_usd, byte_usd, operation_usd
        USD for a write or listing, a read, a byte, and the server's share.
    """

    request: float
    flow: float
    all_flows: float
    at_once: float
    longest_pause: float
    write_usd: float
    read_usd: float
    byte_usd: float
    operation_usd: float

    def transfer_seconds(self, objects: int, size: float, ranks: int) -> float:
        """Return the seconds in which each of `ranks` writes or reads `objects` of `size` at the same time.

        ``max(1, ceil(k / at_once)) request + k n / min(k flow, card, all_flows / ranks)``.
        """
        rate = min(objects * self.flow, FUNCTION_BYTES_PER_SECOND, self.all_flows / ranks)
        return max(1, math.ceil(objects / self.at_once)) * self.request + objects * size / rate

    def first_success(self, ready: float) -> tuple[int, float]:
        """Return the number of empty reads, and the start of the first read of an object that exists from `ready` on.

        Read k begins at ``k request + the first k pauses``.
        """
        empty_reads, start, pause = 0, 0.0, self.longest_pause * FIRST_PAUSE
        while start < ready:
            step = self.request + pause
            if pause < self.longest_pause:
                count, pause = 1, min(2 * pause, self.longest_pause)
            else:
                count = math.ceil((ready - start) / step)
            empty_reads, start = empty_reads + count, start + count * step
        return empty_reads, start

    def collect(self, objects: int, size: float, ranks: int, empty_reads: int) -> tuple[float, int]:
        """Return the seconds in which each of `ranks` reads all objects after `empty_reads` polls, and its empty reads.

        The first poll requests all objects, each further one a single object; the others are requested once that one
        exists (see `transports.objects.polling`).
        """
        if not empty_reads or objects == 1:
            return self.transfer_seconds(objects, size, ranks), objects * empty_reads
        seconds = self.transfer_seconds(1, size, ranks) + self.transfer_seconds(objects - 1, size, ranks)
        return seconds, objects + empty_reads - 1

    def price(self, usage: StoreUsage, task: Task) -> float:
        """Return the price of `usage`, USD."""
        requests = (usage.writes + usage.listings) * self.write_usd + (usage.reads + usage.empty_reads) * self.read_usd
        return requests + (usage.writes + usage.reads) * task.size_bytes * self.byte_usd + self.operation_usd


def _s3_store(s3: S3Model) -> StoreModel:
    return StoreModel(
        request=s3.overhead / 2000,
        flow=s3.bandwidth * 1e6,
        all_flows=math.inf,
        at_once=S3_REQUESTS_AT_ONCE,
        longest_pause=s3.timeout / 1000,
        write_usd=s3.upload_price,
        read_usd=s3.download_price,
        byte_usd=s3.transfer_price / 1e9,
        operation_usd=0.0,
    )


def _redis_store(redis: RedisModel) -> StoreModel:
    return StoreModel(
        request=redis.overhead / 2000,
        flow=redis.bandwidth_single * 1e6,
        all_flows=redis.bandwidth_multiple * 1e6,
        at_once=math.inf,
        longest_pause=redis.timeout / 1000,
        write_usd=0.0,
        read_usd=0.0,
        byte_usd=redis.transfer_price / 1e9,
        operation_usd=_share(redis.include_infrastructure_costs, redis.instance_price, redis.requests_per_hour),
    )


def _store_usage(store: StoreModel, task: Task) -> StoreUsage:
    """Return the requests of the schedules in `transports.objects.schedules`, and their time."""
    ranks, size = task.ranks, task.size_bytes
    match task.pattern:
        case Pattern.send:
            return _one_to_all(store, 2, size, 0.0)
        case Pattern.bcast:
            return _one_to_all(store, ranks, size, 0.0)
        case Pattern.scatter:
            empty_reads, start = store.first_success(store.transfer_seconds(ranks - 1, size, 1))
            return StoreUsage(
                start + store.transfer_seconds(1, size, ranks - 1), ranks - 1, ranks - 1, (ranks - 1) * empty_reads
            )
        case Pattern.gather | Pattern.reduce:
            return _all_to_one(store, ranks, size)
        case Pattern.barrier:
            empty_reads, start = store.first_success(store.transfer_seconds(1, 1, ranks))
            pages = math.ceil(ranks / _LISTED_AT_ONCE)
            return StoreUsage(start + pages * store.request, ranks, 0, 0, ranks * (empty_reads + 1) * pages)
        case Pattern.scan:
            empty_reads, start = store.first_success(store.transfer_seconds(1, size, ranks - 1))
            collected = [store.collect(below, size, ranks - 1, empty_reads) for below in range(1, ranks)]
            all_empty_reads = sum(empty for _, empty in collected)
            return StoreUsage(start + collected[-1][0], ranks - 1, ranks * (ranks - 1) // 2, all_empty_reads)
        case Pattern.allreduce:
            reduced = _all_to_one(store, ranks, size)
            return reduced.then(_one_to_all(store, ranks, size, reduced.seconds))
        case Pattern.allgather:
            gathered = _all_to_one(store, ranks, size)
            return gathered.then(_one_to_all(store, ranks, ranks * size, gathered.seconds))


def _one_to_all(store: StoreModel, ranks: int, size: float, begun: float) -> StoreUsage:
    """One writer, p - 1 readers, which poll from the beginning."""
    empty_reads, start = store.first_success(begun + store.transfer_seconds(1, size, 1))
    return StoreUsage(start + store.transfer_seconds(1, size, ranks - 1), 1, ranks - 1, (ranks - 1) * empty_reads)


def _all_to_one(store: StoreModel, ranks: int, size: float) -> StoreUsage:
    """P - 1 writers, one reader of all objects."""
    empty_reads, start = store.first_success(store.transfer_seconds(1, size, ranks - 1))
    seconds, empty_reads = store.collect(ranks - 1, size, 1, empty_reads)
    return StoreUsage(start + seconds, ranks - 1, ranks - 1, empty_reads)


def _direct(direct: DirectModel, task: Task) -> tuple[float, float]:
    """Return seconds and USD of the message-passing schedules; the docstrings of `collectives` have the formulas.

    A message takes ``overhead + n / min(bandwidth, card)``; a raw exchange sends in one direction at a time.
    """
    alpha, beta = direct.overhead / 1000, 1 / min(direct.bandwidth * 1e6, FUNCTION_BYTES_PER_SECOND)
    ranks = task.ranks
    size = 1 if task.pattern is Pattern.barrier else task.size_bytes
    floor, ceil = ranks.bit_length() - 1, (ranks - 1).bit_length()
    tree, tree_bytes = ceil * (alpha + size * beta), float((ranks - 1) * size)
    gathered, gathered_bytes = ceil * alpha + (ranks - 1) * size * beta, ceil * ranks / 2 * size
    match task.pattern:
        case Pattern.send:
            seconds, moved = alpha + size * beta, float(size)
        case Pattern.bcast:
            seconds, moved = tree, tree_bytes
        case Pattern.reduce if not task.left_to_right:
            seconds, moved = tree, tree_bytes
        case Pattern.reduce | Pattern.gather | Pattern.scatter:
            seconds, moved = gathered, gathered_bytes
        case Pattern.allreduce if task.left_to_right:
            seconds, moved = gathered + tree, gathered_bytes + tree_bytes
        case Pattern.allreduce | Pattern.barrier:
            seconds, moved = _allreduce(direct, alpha, beta, ranks, size)
        case Pattern.scan:
            rounds = ranks - 1 if task.left_to_right else 2 * floor
            seconds, moved = rounds * (alpha + size * beta), 2.0 * ranks * size
        case Pattern.allgather:
            seconds, moved = gathered + ceil * (alpha + ranks * size * beta), gathered_bytes + ranks * tree_bytes
    share = _share(direct.include_infrastructure_costs, direct.vm_price, direct.requests_per_hour)
    return seconds, 2 * moved * direct.transfer_price / 1e9 + share


def _shared_memory(shared: SharedMemoryModel, task: Task) -> float:
    """Return seconds of the schedules of `transports.shm.schedules`: rounds of all ranks, and copies one after another.

    Each rank reads the other ranks' data itself. A reduction passes twice over the n bytes of each rank, and begins on
    a rank when the rank below is one window ahead. Of less than a window each rank combines everything.
    """
    alpha, beta = shared.overhead / 1000, 1 / (shared.bandwidth * 1e6)
    ranks, size = task.ranks, task.size_bytes
    ceil = (ranks - 1).bit_length()
    match task.pattern:
        case Pattern.barrier:
            return alpha
        case Pattern.send | Pattern.bcast:
            return alpha + 2 * size * beta
        case Pattern.reduce | Pattern.allreduce if not task.left_to_right:
            return 2 * alpha + (2 * size + (ranks - 1) * min(size, WINDOW_BYTES)) * beta
        case Pattern.scan:
            return 2 * ceil * (alpha + 2 * size * beta)
        case Pattern.allreduce:
            return 2 * alpha + (ranks + 2) * size * beta
        case Pattern.gather | Pattern.scatter | Pattern.reduce | Pattern.allgather:
            return alpha + (ranks + 1) * size * beta


def _allreduce(direct: DirectModel, alpha: float, beta: float, ranks: int, size: int) -> tuple[float, float]:
    """Return seconds and bytes of recursive doubling or, if it is faster and the channel full duplex, of halving."""
    floor = ranks.bit_length() - 1
    core = 1 << floor
    outside = 0 if ranks == core else 2
    ways = 1 if direct.full_duplex else 2
    doubling = (ways * floor + outside) * (alpha + size * beta)
    doubling_bytes = float((core * floor + (ranks - core) * 2) * size)
    halving = 2 * floor * alpha + 2 * (1 - 1 / core) * size * beta + outside * (alpha + size * beta)
    if direct.full_duplex and halving < doubling:
        return halving, float((2 * (core - 1) + (ranks - core) * 2) * size)
    return doubling, doubling_bytes


def _share(included: bool, hourly: float, requests_per_hour: int) -> float:
    return hourly / requests_per_hour if included else 0.0
