"""The published model with its mistakes mended; see `compat` for what they are.

All times are seconds and all sizes bytes inside. p ranks, payload n. What is assumed:

- Every rank calls at the same moment and is charged until the last one is done: p functions' GiB-seconds,
  two for a message. (A rank that is done early waits for the others in its next call.)
- A function's network card moves `FUNCTION_BYTES_PER_SECOND` in all, whatever a channel could do; this is
  what a root that reads p - 1 payloads, and Direct's published 400 MB/s, run into.
- ``overhead`` is the time of a message of one byte: on the object channels half of it the write, half the read.
- A reader of objects looks at the times of `channels.patience.pauses`; a look that finds nothing is a request. (From
  a wait of a quarter of a second on, the look for a failed rank's last word is one more, four times a second: no wait
  of ranks that call at the same moment is so long, but for payloads of megabytes, of which it is a small part.)
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
"""`channels.s3` sends so many requests of one rank at the same time."""

_LISTED_AT_ONCE = 1000  # ListObjectsV2's page


def estimate(channel: ChannelName, task: Task, model: Model, memory_mib: int) -> Estimate:
    """Return the latency and price of an operation on two or more ranks."""
    if channel is ChannelName.Direct:
        latency, channel_usd = _direct(model.direct, task)
    elif channel is ChannelName.SharedMemory:
        latency, channel_usd = _shared_memory(model.shared_memory, task), 0.0
    else:
        terms = _redis_terms(model.redis) if channel is ChannelName.Redis else _s3_terms(model.s3)
        use = _use(terms, task)
        latency, channel_usd = use.seconds, terms.price(use, task)
    charged = 2 if task.pattern is Pattern.send else task.ranks
    return Estimate(latency, channel_usd, charged * latency * memory_mib / 1024 * model.function.gib_second_price)


@dataclass(frozen=True, slots=True)
class Use:
    """What an operation does with an object store.

    Attributes
    ----------
    seconds
        Until the last rank is done.
    writes, reads
        Objects written and read.
    looks
        Reads that find nothing.
    listings
        Listings of up to 1000 keys.
    """

    seconds: float
    writes: int
    reads: int
    looks: int
    listings: int = 0

    def then(self, later: Use) -> Use:
        """Return this use followed by another, whose seconds count from the beginning."""
        return Use(
            later.seconds,
            self.writes + later.writes,
            self.reads + later.reads,
            self.looks + later.looks,
            self.listings + later.listings,
        )


@dataclass(frozen=True, slots=True)
class Terms:
    """An object store's terms: seconds, bytes/s, and USD.

    Attributes
    ----------
    request
        Seconds of a write or a read of nothing.
    flow, all_flows
        Bytes/s of one transfer, and of all ranks' together.
    at_once
        Requests that one rank has under way at the same time.
    longest_pause
        Longest pause between two looks, seconds.
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

    def moved(self, objects: int, size: float, ranks: int) -> float:
        """Return how long each of `ranks` takes to write or to read `objects` of `size` at the same time.

        ``max(1, ceil(k / at_once)) request + k n / min(k flow, card, all_flows / ranks)``.
        """
        rate = min(objects * self.flow, FUNCTION_BYTES_PER_SECOND, self.all_flows / ranks)
        return max(1, math.ceil(objects / self.at_once)) * self.request + objects * size / rate

    def found(self, ready: float) -> tuple[int, float]:
        """Return how many looks find nothing, and when the first begins that finds what is there from `ready` on.

        Looks begin at ``k request + the first k pauses``.
        """
        looks, start, pause = 0, 0.0, self.longest_pause * FIRST_PAUSE
        while start < ready:
            step = self.request + pause
            if pause < self.longest_pause:
                count, pause = 1, min(2 * pause, self.longest_pause)
            else:
                count = math.ceil((ready - start) / step)
            looks, start = looks + count, start + count * step
        return looks, start

    def collected(self, objects: int, size: float, ranks: int, looks: int) -> tuple[float, int]:
        """Return how long each of `ranks` takes to read objects found after `looks` in vain, and reads in vain.

        All are looked for at first, then one alone, and the others once that is there (`channels.arrivals`).
        """
        if not looks or objects == 1:
            return self.moved(objects, size, ranks), objects * looks
        return self.moved(1, size, ranks) + self.moved(objects - 1, size, ranks), objects + looks - 1

    def price(self, use: Use, task: Task) -> float:
        """Return USD for `use`."""
        requests = (use.writes + use.listings) * self.write_usd + (use.reads + use.looks) * self.read_usd
        return requests + (use.writes + use.reads) * task.size_bytes * self.byte_usd + self.operation_usd


def _s3_terms(s3: S3Model) -> Terms:
    return Terms(
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


def _redis_terms(redis: RedisModel) -> Terms:
    return Terms(
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


def _use(terms: Terms, task: Task) -> Use:
    """Return what the schedules of `collectives.objects` do with a store."""
    ranks, size = task.ranks, task.size_bytes
    match task.pattern:
        case Pattern.send:
            return _one_to_all(terms, 2, size, 0.0)
        case Pattern.bcast:
            return _one_to_all(terms, ranks, size, 0.0)
        case Pattern.scatter:
            looks, start = terms.found(terms.moved(ranks - 1, size, 1))
            return Use(start + terms.moved(1, size, ranks - 1), ranks - 1, ranks - 1, (ranks - 1) * looks)
        case Pattern.gather | Pattern.reduce:
            return _all_to_one(terms, ranks, size)
        case Pattern.barrier:
            looks, start = terms.found(terms.moved(1, 1, ranks))
            pages = math.ceil(ranks / _LISTED_AT_ONCE)
            return Use(start + pages * terms.request, ranks, 0, 0, ranks * (looks + 1) * pages)
        case Pattern.scan:
            looks, start = terms.found(terms.moved(1, size, ranks - 1))
            collected = [terms.collected(below, size, ranks - 1, looks) for below in range(1, ranks)]
            in_vain = sum(looks_in_vain for _, looks_in_vain in collected)
            return Use(start + collected[-1][0], ranks - 1, ranks * (ranks - 1) // 2, in_vain)
        case Pattern.allreduce:
            reduced = _all_to_one(terms, ranks, size)
            return reduced.then(_one_to_all(terms, ranks, size, reduced.seconds))
        case Pattern.allgather:
            gathered = _all_to_one(terms, ranks, size)
            return gathered.then(_one_to_all(terms, ranks, ranks * size, gathered.seconds))


def _one_to_all(terms: Terms, ranks: int, size: float, begun: float) -> Use:
    """One writer, p - 1 readers, who have looked from the beginning on."""
    looks, start = terms.found(begun + terms.moved(1, size, 1))
    return Use(start + terms.moved(1, size, ranks - 1), 1, ranks - 1, (ranks - 1) * looks)


def _all_to_one(terms: Terms, ranks: int, size: float) -> Use:
    """P - 1 writers, one reader of all."""
    looks, start = terms.found(terms.moved(1, size, ranks - 1))
    seconds, in_vain = terms.collected(ranks - 1, size, 1, looks)
    return Use(start + seconds, ranks - 1, ranks - 1, in_vain)


def _direct(direct: DirectModel, task: Task) -> tuple[float, float]:
    """Return seconds and USD of the message-passing schedules; the formulas are in the text of each of `collectives`.

    A message takes ``overhead + n / min(bandwidth, card)``; raw exchanges go one way after the other.
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
            seconds, moved = _exchanged(direct, alpha, beta, ranks, size)
        case Pattern.scan:
            rounds = ranks - 1 if task.left_to_right else 2 * floor
            seconds, moved = rounds * (alpha + size * beta), 2.0 * ranks * size
        case Pattern.allgather:
            seconds, moved = gathered + ceil * (alpha + ranks * size * beta), gathered_bytes + ranks * tree_bytes
    share = _share(direct.include_infrastructure_costs, direct.vm_price, direct.requests_per_hour)
    return seconds, 2 * moved * direct.transfer_price / 1e9 + share


def _shared_memory(shared: SharedMemoryModel, task: Task) -> float:
    """Return seconds of the schedules of `transports.shm.schedules`: rounds of all ranks, and copies one after another.

    What a rank reads of all others it reads by itself. A reduction passes twice over the n bytes of each rank, and
    begins at a rank when the one below is a window ahead; of less than a window each rank combines all.
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


def _exchanged(direct: DirectModel, alpha: float, beta: float, ranks: int, size: int) -> tuple[float, float]:
    """Return seconds and bytes of the faster of recursive doubling and, both ways at once, of halving."""
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
