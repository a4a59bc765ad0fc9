"""The published model to the number, the corrected one by its laws, and the table."""

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fmi_shim.__main__ import main
from fmi_shim.backoff import pauses
from fmi_shim.config import ChannelName, DirectModel, Formulas, FunctionModel, Model
from fmi_shim.frames import Operation
from fmi_shim.selection import compat, corrected
from fmi_shim.selection.model import Pattern, Task
from fmi_shim.selection.policy import Hint, choose, estimates
from fmi_shim.transports.shm.layout import WINDOW_BYTES

EVERY = tuple(ChannelName)
COMPAT = Model(Formulas.compat)
CORRECTED = Model()
MODELS = [COMPAT, CORRECTED]

models = st.sampled_from(MODELS)
patterns = st.sampled_from(list(Pattern))
channels = st.sampled_from(EVERY)
sizes = st.integers(0, 2**32)
worlds = st.integers(2, 2000)
orders = st.booleans()
tasks = st.builds(Task, patterns, sizes, worlds, orders)


def said(model: Model, channel: ChannelName, task: Task, memory: int = 128) -> tuple[float, float]:
    estimate = estimates((channel,), task, model, memory)[channel]
    return estimate.latency, estimate.channel_usd


# Worked by hand from FMI's sources with its published parameters.
S3_MESSAGE = 40.4 + 100 / 2  # overhead + timeout / 2
S3_PUT, S3_GETS = 5.4e-6, (1000 // 100 // 2) * 4.3e-7
REDIS_SHARE, VM_SHARE = 0.0038 / 1000, 0.0134 / 1000


@pytest.mark.parametrize(
    ("channel", "task", "latency", "price"),
    [
        (ChannelName.S3, Task(Pattern.send, 10**6, 2), S3_MESSAGE + 1 / 50, S3_PUT + S3_GETS),
        (ChannelName.S3, Task(Pattern.bcast, 10**6, 8), 3 * S3_MESSAGE + 1 / 50, S3_PUT + 7 * S3_GETS),
        (ChannelName.S3, Task(Pattern.gather, 0, 8), 3 * S3_MESSAGE, 7 * S3_PUT + 7 * S3_GETS),
        (ChannelName.S3, Task(Pattern.allreduce, 0, 4), 4 * S3_MESSAGE, 4 * S3_PUT + 6 * S3_GETS),
        (
            ChannelName.S3,
            Task(Pattern.barrier, 0, 3),
            4 * S3_MESSAGE + 2e-6 / 50,
            4 * S3_PUT + 6 * S3_GETS,
        ),
        (ChannelName.S3, Task(Pattern.scan, 0, 4), 2 * S3_MESSAGE, (2 + math.log2(3) + 1) * S3_MESSAGE),
        (ChannelName.Redis, Task(Pattern.send, 10**8, 2), 5.2 + 1, REDIS_SHARE),
        (ChannelName.Redis, Task(Pattern.scatter, 10**8, 8), 3 * 5.2 + 7 / 4, REDIS_SHARE),
        (ChannelName.Redis, Task(Pattern.allreduce, 10**8, 4), 4 * 5.2 + 2, 2 * REDIS_SHARE),
        (ChannelName.Direct, Task(Pattern.send, 4 * 10**8, 2), 0.34 + 1, VM_SHARE),
        (ChannelName.Direct, Task(Pattern.bcast, 0, 5), 3 * 0.34, 4 * VM_SHARE),
        (ChannelName.Direct, Task(Pattern.reduce, 4 * 10**8, 5), 3 * 1.34, 4 * VM_SHARE),
        (
            ChannelName.Direct,
            Task(Pattern.reduce, 4 * 10**8, 5, left_to_right=True),
            (0.34 + 1) + (0.34 + 2) + (0.34 + 1),
            (2 + 1 + 0.5) * VM_SHARE,
        ),
        (ChannelName.Direct, Task(Pattern.allreduce, 0, 4), 6 * 0.34, 6 * VM_SHARE),
        (ChannelName.Direct, Task(Pattern.barrier, 99, 4), 6 * (0.34 + 1e-6 / 400), 6 * VM_SHARE),
        (ChannelName.Direct, Task(Pattern.scan, 0, 9), 6 * 0.34, 18 * VM_SHARE),
        (ChannelName.Direct, Task(Pattern.allgather, 0, 4), 3 * 0.34 + 2 * 0.34, (2 + 1 + 3) * VM_SHARE),
    ],
)
def test_the_published_model_is_reproduced(channel: ChannelName, task: Task, latency: float, price: float) -> None:
    assert said(COMPAT, channel, task) == (pytest.approx(latency), pytest.approx(price))


def test_the_published_model_charges_one_functions_latency_as_seconds() -> None:
    estimate = compat.estimate(ChannelName.Direct, Task(Pattern.send, 0, 2), Model(), 512)
    assert estimate.function_usd == pytest.approx(0.34 * 0.5 * 0.0000166667)


@pytest.mark.parametrize(
    ("channel", "task", "latency", "price"),
    [
        # a message of nothing: the write, the first look after it, the read
        (ChannelName.S3, Task(Pattern.send, 0, 2), 0.0202 + 0.00625 + 0.0202, S3_PUT + 2 * 4.3e-7),
        (ChannelName.Redis, Task(Pattern.send, 0, 2), 0.0026 + 1 / 16000 + 0.0026, REDIS_SHARE),
        (ChannelName.Direct, Task(Pattern.send, 0, 2), 0.00034, VM_SHARE),
        # the card is the limit of Direct's 400 MB/s, of a root that reads 7 payloads, of one that writes them
        (ChannelName.Direct, Task(Pattern.send, 75 * 10**6, 2), 1.00034, VM_SHARE),
        (ChannelName.Direct, Task(Pattern.gather, 75 * 10**6, 8), 7 + 3 * 0.00034, VM_SHARE),
        # every rank writes at once, and lists once in vain
        (ChannelName.S3, Task(Pattern.barrier, 0, 3), 0.0202 + 0.00625 + 0.0202, 3 * S3_PUT + 3 * 2 * S3_PUT),
    ],
)
def test_the_corrected_model_counts_what_the_channels_do(
    channel: ChannelName, task: Task, latency: float, price: float
) -> None:
    assert said(CORRECTED, channel, task) == (pytest.approx(latency, rel=1e-4), pytest.approx(price, rel=1e-4))


def test_only_the_hint_fast_selects_shared_memory() -> None:
    for pattern in Pattern:
        for size in (8, 2**20, 2**26):
            task = Task(pattern, size, 16)
            assert choose(EVERY, task, CORRECTED, 128, Hint.fast) is ChannelName.SharedMemory
            assert choose(EVERY, task, CORRECTED, 128, Hint.cheap) is not ChannelName.SharedMemory
            assert said(CORRECTED, ChannelName.SharedMemory, task)[1] == 0


def test_a_reduction_in_shared_memory_passes_twice_over_each_ranks_bytes_and_once_over_all_of_less_than_a_window() -> (
    None
):
    def copies(size: int) -> float:
        shared = CORRECTED.shared_memory
        latency = said(CORRECTED, ChannelName.SharedMemory, Task(Pattern.allreduce, size, 16))[0]
        return (latency - 2 * shared.overhead / 1000) * shared.bandwidth * 1e6

    assert copies(1000) == pytest.approx(17 * 1000)
    assert copies(2**26) == pytest.approx(2 * 2**26 + 15 * WINDOW_BYTES)


def test_all_ranks_time_is_charged() -> None:
    estimate = corrected.estimate(ChannelName.Direct, Task(Pattern.bcast, 0, 8), Model(), 2048)
    assert estimate.function_usd == pytest.approx(8 * 3 * 0.00034 * 2 * 0.0000166667)


def test_half_duplex_exchanges_take_twice_as_long() -> None:
    duplex = replace(CORRECTED, direct=replace(DirectModel(), full_duplex=True))
    task = Task(Pattern.allreduce, 8, 16)
    once, twice = (said(model, ChannelName.Direct, task)[0] for model in (duplex, CORRECTED))
    assert twice == pytest.approx(2 * once)


@given(tasks, channels, models, sizes)
def test_more_bytes_are_never_faster_nor_cheaper(task: Task, channel: ChannelName, model: Model, more: int) -> None:
    small = estimates((channel,), task, model, 128)[channel]
    large = estimates((channel,), replace(task, size_bytes=task.size_bytes + more), model, 128)[channel]
    assert 0 < small.latency <= large.latency
    assert 0 < small.price <= large.price


@given(tasks, channels)
def test_more_ranks_are_never_cheaper_in_the_corrected_model(task: Task, channel: ChannelName) -> None:
    few = estimates((channel,), task, CORRECTED, 128)[channel]
    many = estimates((channel,), replace(task, ranks=2 * task.ranks), CORRECTED, 128)[channel]
    assert few.latency <= many.latency
    assert few.price <= many.price * (1 + 1e-9)


@given(tasks, channels, st.integers(128, 10240))
def test_only_the_functions_share_grows_with_their_memory(task: Task, channel: ChannelName, memory: int) -> None:
    one, two = (estimates((channel,), task, CORRECTED, size)[channel] for size in (memory, 2 * memory))
    assert two.function_usd == pytest.approx(2 * one.function_usd)
    assert (two.latency, two.channel_usd) == (one.latency, one.channel_usd)


@settings(max_examples=60)
@given(tasks, models, st.sets(channels, min_size=1))
def test_the_hint_selects_the_smallest_estimate(task: Task, model: Model, enabled: set[ChannelName]) -> None:
    names = tuple(name for name in EVERY if name in enabled)
    numbers = estimates(names, task, model, 256)
    fast, cheap = (choose(names, task, model, 256, hint) for hint in (Hint.fast, Hint.cheap))
    assert numbers[fast].latency == min(each.latency for each in numbers.values())
    services = [name for name in names if name is not ChannelName.SharedMemory] or names
    assert numbers[cheap].price == min(numbers[name].price for name in services)


@given(st.floats(0, 1000), st.integers(1, 1000))
def test_the_corrected_model_has_the_poll_times_of_the_channel(ready: float, longest_ms: int) -> None:
    store = replace(corrected._redis_store(CORRECTED.redis), longest_pause=longest_ms / 1000, request=0.01)
    empty_reads, start = store.first_success(ready)
    moment, count, pause = 0.0, 0, pauses(longest_ms / 1000)
    while moment < ready - 1e-6 * ready:
        moment, count = moment + 0.01 + next(pause), count + 1
    assert abs(count - empty_reads) <= 1
    assert start >= ready


@pytest.mark.parametrize(("empty_reads", "all_empty_reads", "rounds"), [(0, 0, 1), (1, 7, 2), (3, 9, 2)])
def test_after_the_first_poll_of_several_objects_one_alone_is_polled(
    empty_reads: int, all_empty_reads: int, rounds: int
) -> None:
    """As `transports/objects/test_channel` tests of the channel; the others are read in a round of their own."""
    store = corrected._redis_store(CORRECTED.redis)
    assert store.collect(7, 0, 1, empty_reads) == (pytest.approx(rounds * store.request), all_empty_reads)
    assert store.collect(1, 0, 1, empty_reads) == (store.request, empty_reads)


def test_a_single_rank_gets_the_first_channel() -> None:
    for model in MODELS:
        assert choose(EVERY, Task(Pattern.bcast, 8, 1), model, 128, Hint.fast) is ChannelName.Direct


def test_without_function_and_server_prices_the_requests_remain() -> None:
    free = replace(
        CORRECTED,
        function=FunctionModel(0.0),
        redis=replace(CORRECTED.redis, include_infrastructure_costs=False),
    )
    assert choose((ChannelName.Redis, ChannelName.S3), Task(Pattern.send, 8, 2), free, 128, Hint.cheap) is (
        ChannelName.Redis
    )


def test_every_operation_has_a_pattern() -> None:
    assert {Pattern.of(operation) for operation in Operation} >= set(Pattern) - {Pattern.allgather}
    assert Pattern.of(Operation.reduce) is Pattern.reduce


def test_the_table_has_choice_and_reason(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-o", "allreduce", "-n", "2", "128", "-s", "8", "16MiB", "--hint", "fast"]) == 0
    head, columns, *rows = capsys.readouterr().out.splitlines()
    assert head.startswith("corrected model, hint fast, 128 MiB a function; latency in ms")
    assert columns.split()[3:] == [
        "Direct",
        "latency",
        "price",
        "Redis",
        "latency",
        "price",
        "S3",
        "latency",
        "price",
        "SharedMemory",
        "latency",
        "price",
        "choice",
    ]
    assert [row.split()[:3] for row in rows] == [
        ["allreduce", "2", "8"],
        ["allreduce", "2", "16777216"],
        ["allreduce", "128", "8"],
        ["allreduce", "128", "16777216"],
    ]
    assert all("SharedMemory: " in row and "times faster than" in row and row.count("*") == 1 for row in rows)


def test_the_table_reads_the_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "fmi.json"
    path.write_text(
        '{"backends": {"Redis": {"enabled": true}, "S3": {"enabled": "true", "bucket_name": "b"}},'
        ' "model": {"formulas": "compat", "Redis": {"instance_price": "99"}}}'
    )
    assert main(["--config", str(path), "-n", "2", "-s", "8"]) == 0
    head, columns, row = capsys.readouterr().out.splitlines()
    assert head.startswith("compat model, hint cheap")
    assert "Direct" not in columns
    assert "SharedMemory" not in columns  # its ranks meet as Direct's do
    assert "S3: " in row
    assert main(["--config", str(tmp_path / "none.json")]) == 2
    assert "none.json: the configuration cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [["-n", "1"], ["-n", "x"], ["-s", "8Q"], ["-o", "dance"], ["--hint", "best"]])
def test_wrong_options_are_refused(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(wrong)
    assert caught.value.code == 2
    assert wrong[1] in capsys.readouterr().err


def test_help_explains_the_models() -> None:
    shown = subprocess.run([sys.executable, "-m", "fmi_shim", "--help"], capture_output=True, text=True, check=True)
    assert "corrected  the published formulas with their errors corrected" in shown.stdout


def test_neither_boto3_nor_redis_is_imported_before_its_channel_is_used() -> None:
    program = "import fmi_shim.communicator, sys; sys.exit(bool({'boto3', 'redis'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_an_operation_that_the_models_lack_is_estimated_as_the_one_nearest_to_it() -> None:
    nearest = {Operation.exscan: Pattern.scan, Operation.reduce_scatter: Pattern.allreduce}
    nearest |= dict.fromkeys((Operation.alltoall, Operation.alltoallv, Operation.attach), Pattern.allgather)
    nearest |= {Operation.gatherv: Pattern.gather, Operation.scatterv: Pattern.scatter}
    nearest |= {Operation.allgatherv: Pattern.allgather, Operation.reduce_scatterv: Pattern.allreduce}
    nearest |= {Operation.send_object: Pattern.send, Operation.bcast_object: Pattern.bcast}
    nearest |= {Operation.gather_object: Pattern.gather, Operation.scatter_object: Pattern.scatter}
    nearest |= {Operation.allgather_object: Pattern.allgather}
    for operation in Operation:
        expected = Pattern[operation.name] if operation.name in Pattern.__members__ else nearest[operation]
        assert Pattern.of(operation) is expected
