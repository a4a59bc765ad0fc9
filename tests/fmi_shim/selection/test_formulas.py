"""The formulas of both models on six ranks, with parameters that make every term a round number.

One message of 1 MB takes one second of overhead and one second of transfer. A world of six ranks is not a power of two.
"""

import math

import pytest

from fmi_shim.config import (
    ChannelName,
    DirectModel,
    Formulas,
    FunctionModel,
    Model,
    RedisModel,
    S3Model,
    SharedMemoryModel,
)
from fmi_shim.selection import compat, corrected
from fmi_shim.selection.model import Estimate, Pattern, Task
from fmi_shim.selection.policy import Hint, choose, estimates
from fmi_shim.transports.shm.layout import WINDOW_BYTES

RANKS, MB = 6, 10**6
LOG6, LOG7, LOG720 = math.log2(6), math.log2(7), math.log2(720)  # 720 = 6 * 5 * 4 * 3 * 2
BYTE = 1e-6  # MB

# Units: ms (added to seconds by this model), MB/s, USD for a GB.
COMPAT = Model(
    Formulas.compat,
    FunctionModel(8.0),
    DirectModel(1.0, 1.0, 1.0, 500.0, 500),
    RedisModel(1.0, 3.0, 1.0, 1.0, 500.0, 500),
    S3Model(1.0, 1.0, 1.0, 100.0, 10.0, 2, 11),
    SharedMemoryModel(1.0, 1.0),
)
# A request of an object store takes 1 s, a look begins 0, 2, 5, 10, 19 and 36 s after the call.
CORRECTED = Model(
    Formulas.corrected,
    FunctionModel(8.0),
    DirectModel(1.0, 1000.0, 1000.0, 500.0, 500),
    RedisModel(1.0, 4.0, 2000.0, 1000.0, 500.0, 500, timeout=16000),
    S3Model(1.0, 2000.0, 1000.0, 100.0, 10.0, 16000, 10**6),
    SharedMemoryModel(1.0, 1000.0),
)


def estimate(model: Model, channel: ChannelName, task: Task, memory_mib: int = 1024) -> Estimate:
    return estimates((channel,), task, model, memory_mib)[channel]


def task_of(pattern: Pattern, ordered: bool = False) -> Task:
    return Task(pattern, 0 if pattern is Pattern.barrier else MB, RANKS, ordered)


@pytest.mark.parametrize(
    ("pattern", "ordered", "latency", "price"),
    [
        (Pattern.send, False, 2, 1.002),
        (Pattern.bcast, False, 6, 5.01),
        (Pattern.reduce, False, 6, 5.01),
        (Pattern.reduce, True, 8, 3.511),  # latencies of 1, 2 and 2 MB; prices of 1, 2 and 3 MB, 2, 1 and 1/2 times
        (Pattern.gather, False, 8, 3.511),
        (Pattern.scatter, False, 8, 3.511),
        (Pattern.allreduce, True, 14, 8.521),
        (Pattern.allreduce, False, 12, 10.02),
        (Pattern.barrier, False, 6 * (1 + BYTE), 10 * (1 + 0.002 * BYTE)),
        (Pattern.scan, False, 8, 12.024),
        (Pattern.allgather, False, 29, 8.571),
    ],
)
def test_the_published_formulas_of_peer_to_peer(pattern: Pattern, ordered: bool, latency: float, price: float) -> None:
    direct = estimate(COMPAT, ChannelName.Direct, task_of(pattern, ordered))
    assert (direct.latency, direct.channel_usd) == (pytest.approx(latency, rel=1e-9), pytest.approx(price, rel=1e-9))
    shared = estimate(COMPAT, ChannelName.SharedMemory, task_of(pattern, ordered))
    assert (shared.latency, shared.channel_usd) == (direct.latency, 0)


@pytest.mark.parametrize(
    ("pattern", "latency", "price"),
    [
        (Pattern.send, 3, 210.002),
        (Pattern.bcast, 2 * LOG6 + 1, 1010.006),
        (Pattern.scatter, 2 * LOG6 + 1, 1010.006),
        (Pattern.gather, 2 * LOG6 + 1, 1050.01),
        (Pattern.reduce, 2 * LOG6 + 1, 1050.01),
        (Pattern.barrier, 4 * LOG7 + 2 * BYTE, 2470),
        (Pattern.scan, 2 * LOG6 + 1, 2 * LOG720 + 5),
        (Pattern.allreduce, 4 * LOG6 + 2, 2060.016),
        (Pattern.allgather, 4 * LOG6 + 7, 2060.046),
    ],
)
def test_the_published_formulas_of_s3(pattern: Pattern, latency: float, price: float) -> None:
    found = estimate(COMPAT, ChannelName.S3, task_of(pattern))
    assert (found.latency, found.channel_usd) == (pytest.approx(latency, rel=1e-9), pytest.approx(price, rel=1e-9))


@pytest.mark.parametrize(
    ("pattern", "latency", "price"),
    [
        (Pattern.send, 2, 1.002),
        (Pattern.bcast, LOG6 + 5 / 3, 1.006),
        (Pattern.scatter, LOG6 + 5 / 3, 1.006),
        (Pattern.gather, LOG6 + 5 / 3, 1.01),
        (Pattern.reduce, LOG6 + 5 / 3, 1.01),
        (Pattern.barrier, 2 * LOG7 + 4 * BYTE, 2 + 0.019 * BYTE),
        (Pattern.scan, LOG6 + 5 / 3, LOG720 + 6),
        (Pattern.allreduce, 2 * (LOG6 + 5 / 3), 2.016),
        (Pattern.allgather, 2 * LOG6 + 5 / 3 + 10, 2.046),
    ],
)
def test_the_published_formulas_of_redis(pattern: Pattern, latency: float, price: float) -> None:
    found = estimate(COMPAT, ChannelName.Redis, task_of(pattern))
    assert (found.latency, found.channel_usd) == (pytest.approx(latency, rel=1e-9), pytest.approx(price, rel=1e-9))


@pytest.mark.parametrize(
    ("pattern", "ordered", "seconds", "price"),
    [
        (Pattern.send, False, 2, 3),
        (Pattern.bcast, False, 6, 11),
        (Pattern.reduce, False, 6, 11),
        (Pattern.reduce, True, 8, 19),
        (Pattern.gather, False, 8, 19),
        (Pattern.scatter, False, 8, 19),
        (Pattern.allreduce, True, 14, 29),
        (Pattern.allreduce, False, 12, 25),
        (Pattern.barrier, False, 6 * (1 + BYTE), 1 + 24 * BYTE),
        (Pattern.scan, True, 10, 25),
        (Pattern.scan, False, 8, 25),
        (Pattern.allgather, False, 29, 79),
    ],
)
def test_the_corrected_formulas_of_direct(pattern: Pattern, ordered: bool, seconds: float, price: float) -> None:
    found = estimate(CORRECTED, ChannelName.Direct, task_of(pattern, ordered))
    assert (found.latency, found.channel_usd) == (pytest.approx(seconds, rel=1e-9), pytest.approx(price, rel=1e-9))


@pytest.mark.parametrize(
    ("ranks", "size", "seconds", "price"),
    [(6, MB, 8, 25), (6, 10 * MB, 41, 201), (4, 10 * MB, 19, 121), (4, MB, 4, 17)],
)
def test_an_allreduce_over_full_duplex_connections_takes_the_faster_algorithm(
    ranks: int, size: int, seconds: float, price: float
) -> None:
    duplex = Model(direct=DirectModel(1.0, 1000.0, 1000.0, 500.0, 500, full_duplex=True))
    found = estimate(duplex, ChannelName.Direct, Task(Pattern.allreduce, size, ranks))
    assert (found.latency, found.channel_usd) == (pytest.approx(seconds), pytest.approx(price))


@pytest.mark.parametrize(
    ("pattern", "seconds", "price"),
    [
        (Pattern.send, 4, 212),
        (Pattern.bcast, 4, 1016),
        (Pattern.scatter, 4, 1060),
        (Pattern.gather, 6, 1060),
        (Pattern.reduce, 6, 1060),
        (Pattern.barrier, 3, 180),
        (Pattern.scan, 6, 3070),
        (Pattern.allreduce, 12, 3076),
        (Pattern.allgather, 26, 3576),
    ],
)
def test_the_corrected_formulas_of_s3(pattern: Pattern, seconds: float, price: float) -> None:
    found = estimate(CORRECTED, ChannelName.S3, task_of(pattern))
    assert (found.latency, found.channel_usd) == (pytest.approx(seconds), pytest.approx(price))


@pytest.mark.parametrize(
    ("pattern", "ranks", "seconds"),
    [
        (Pattern.gather, 33, 2 + 2 + 3),  # 1 object, then 31 in two rounds of 16 requests
        (Pattern.gather, 34, 2 + 2 + 3),
        (Pattern.gather, 35, 2 + 2 + 4),
        (Pattern.scatter, 151, 19 + 2),  # 10 rounds and 150 MB at 75 MB/s: found 19 s after the call
        (Pattern.barrier, 1000, 2 + 1),
        (Pattern.barrier, 1001, 2 + 2),  # two pages of a listing
    ],
)
def test_a_rank_of_s3_has_16_requests_and_75_mb_per_second(pattern: Pattern, ranks: int, seconds: float) -> None:
    task = Task(pattern, 0 if pattern is Pattern.barrier else MB, ranks)
    assert estimate(CORRECTED, ChannelName.S3, task).latency == pytest.approx(seconds, rel=1e-4)


def test_every_rank_lists_every_page_of_a_barrier_twice() -> None:
    assert estimate(CORRECTED, ChannelName.S3, Task(Pattern.barrier, 0, 1001)).channel_usd == (1001 + 1001 * 2 * 2) * 10


@pytest.mark.parametrize(
    ("pattern", "seconds", "price"),
    [
        (Pattern.send, 4, 3),
        (Pattern.bcast, 4.25, 7),
        (Pattern.scatter, 7.25, 11),
        (Pattern.gather, 9, 11),
        (Pattern.reduce, 9, 11),
        (Pattern.barrier, 3, 1),
        (Pattern.scan, 13.25, 21),
        (Pattern.allreduce, 21.25, 17),
        (Pattern.allgather, 27.5, 17),
    ],
)
def test_the_corrected_formulas_of_redis(pattern: Pattern, seconds: float, price: float) -> None:
    found = estimate(CORRECTED, ChannelName.Redis, task_of(pattern))
    assert (found.latency, found.channel_usd) == (pytest.approx(seconds), pytest.approx(price))


@pytest.mark.parametrize(
    ("pattern", "ordered", "seconds"),
    [
        (Pattern.barrier, False, 1),
        (Pattern.send, False, 3),
        (Pattern.bcast, False, 3),
        (Pattern.reduce, False, 9),
        (Pattern.allreduce, False, 9),
        (Pattern.scan, False, 18),
        (Pattern.allreduce, True, 10),
        (Pattern.reduce, True, 8),
        (Pattern.gather, False, 8),
        (Pattern.scatter, False, 8),
        (Pattern.allgather, False, 8),
    ],
)
def test_the_corrected_formulas_of_shared_memory(pattern: Pattern, ordered: bool, seconds: float) -> None:
    assert WINDOW_BYTES > MB, "a reduction combines whole arrays"
    found = estimate(CORRECTED, ChannelName.SharedMemory, task_of(pattern, ordered))
    assert (found.latency, found.channel_usd) == (pytest.approx(seconds), 0)


@pytest.mark.parametrize("pattern", list(Pattern))
@pytest.mark.parametrize("ordered", [False, True])
def test_three_times_the_overhead_and_a_third_of_the_bandwidth_take_three_times_as_long(
    pattern: Pattern, ordered: bool
) -> None:
    slow = Model(direct=DirectModel(1 / 3, 3000.0), shared_memory=SharedMemoryModel(1 / 3, 3000.0))
    for channel in (ChannelName.Direct, ChannelName.SharedMemory):
        fast = estimate(CORRECTED, channel, task_of(pattern, ordered))
        assert estimate(slow, channel, task_of(pattern, ordered)).latency == pytest.approx(3 * fast.latency)


@pytest.mark.parametrize(("ready", "looks", "start"), [(0, 0, 0), (0.5, 1, 2), (2, 1, 2), (2.1, 2, 5), (19, 4, 19)])
def test_the_pauses_between_looks_double_up_to_the_longest(ready: float, looks: int, start: float) -> None:
    assert corrected._s3_store(CORRECTED.s3).first_success(ready) == (looks, start)
    # From the longest pause of 16 s on, a look begins every 17 s.
    assert corrected._s3_store(CORRECTED.s3).first_success(19 + 17 * 1000) == (1004, 19 + 17 * 1000)
    assert corrected._s3_store(CORRECTED.s3).first_success(19 + 17 * 1000 + 1) == (1005, 19 + 17 * 1001)


def test_two_ranks_are_charged_for_a_message_and_all_for_a_collective() -> None:
    for pattern, ranks in ((Pattern.send, 2), (Pattern.bcast, 6), (Pattern.scan, 6)):
        found = estimate(CORRECTED, ChannelName.Direct, task_of(pattern), 512)
        assert found.function_usd == pytest.approx(ranks * found.latency * 0.5 * 8)
        assert found.price == found.function_usd + found.channel_usd
        published = estimate(COMPAT, ChannelName.Direct, task_of(pattern), 512)
        assert published.function_usd == pytest.approx(published.latency * 0.5 * 8)


@pytest.mark.parametrize("formulas", [compat, corrected])
def test_a_server_without_infrastructure_costs_charges_the_transfer_alone(formulas: object) -> None:
    kind = Formulas.compat if formulas is compat else Formulas.corrected
    free = Model(
        kind,
        direct=DirectModel(include_infrastructure_costs=False),
        redis=RedisModel(include_infrastructure_costs=False),
    )
    for channel in (ChannelName.Direct, ChannelName.Redis):
        assert estimate(free, channel, task_of(Pattern.bcast)).channel_usd == 0
        assert estimate(Model(kind), channel, task_of(Pattern.bcast)).channel_usd > 0


def test_shared_memory_is_cheap_only_where_nothing_else_is_enabled() -> None:
    only, both = (ChannelName.SharedMemory,), (ChannelName.SharedMemory, ChannelName.S3)
    assert choose(only, task_of(Pattern.bcast), CORRECTED, 128, Hint.cheap) is ChannelName.SharedMemory
    assert choose(both, task_of(Pattern.bcast), CORRECTED, 128, Hint.cheap) is ChannelName.S3
    lone = Task(Pattern.bcast, MB, 1)
    assert choose(both, lone, CORRECTED, 128, Hint.fast) is ChannelName.SharedMemory
    assert choose((ChannelName.S3, ChannelName.Direct), lone, CORRECTED, 128, Hint.cheap) is ChannelName.S3


def test_fast_and_cheap_differ_where_the_faster_channel_costs_more() -> None:
    costly = Model(direct=DirectModel(vm_price=1e9), s3=S3Model(overhead=1.0, timeout=1))
    both = (ChannelName.S3, ChannelName.Direct)
    assert choose(both, task_of(Pattern.bcast), costly, 128, Hint.fast) is ChannelName.Direct
    assert choose(both, task_of(Pattern.bcast), costly, 128, Hint.cheap) is ChannelName.S3


def test_of_equal_channels_the_first_is_chosen() -> None:
    task = task_of(Pattern.bcast)
    equal = Model(Formulas.compat, direct=DirectModel(1.0, 1.0, 0.0, 0.0), shared_memory=SharedMemoryModel(1.0, 1.0))
    for names in ((ChannelName.Direct, ChannelName.SharedMemory), (ChannelName.SharedMemory, ChannelName.Direct)):
        assert choose(names, task, equal, 128, Hint.fast) is names[0]
