"""System tests of the Redis channel: a real server, real ranks, and a rank that only knows FMI's keys."""

import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import fmi_shim as fmi
from fmi_shim.config import RedisConfig
from fmi_shim.errors import (
    BrokenCommunicatorError,
    ConfigError,
    MismatchError,
    PeerFailedError,
    PeerLostError,
    PeerOverflowError,
    StoreError,
)
from fmi_shim.transports.objects.redis import RedisStore
from tests.fmi_shim import failing_programs, programs
from tests.fmi_shim.world import World

redis = pytest.importorskip("redis")


@pytest.fixture
def client(redis_port: int) -> Iterator[redis.Redis]:
    with redis.Redis(port=redis_port) as connection:
        connection.flushall()
        yield connection


@pytest.mark.parametrize("framed", [True, False], ids=["framed", "raw"])
@pytest.mark.parametrize("size", [1, 2, 4, 5])
def test_every_operation_is_correct_for_arrays_of_any_shape(
    redis_world: World, client: redis.Redis, size: int, framed: bool
) -> None:
    assert redis_world.values(programs.every_array_operation, size, framed, framed=framed) == [[]] * size
    assert client.keys() == []


def test_megabytes_are_exchanged(redis_world: World) -> None:
    assert redis_world.values(programs.big_exchange, 3, 2_000_000) == [(3.0, 3.0)] * 3


def test_objects_of_a_rank_that_closed_can_still_be_read(redis_world: World, client: redis.Redis) -> None:
    assert redis_world.values(programs.leave_after_writing, 4) == [6, None, None, None]
    assert client.keys() == []


def test_a_forked_child_that_exits_deletes_nothing(redis_world: World) -> None:
    assert redis_world.values(programs.fork_a_child, 2) == [1, 1]


def test_wrong_arguments_raise_before_anything_is_written(redis_world: World) -> None:
    assert [total for _, total in redis_world.values(programs.wrong_arguments, 2)] == [2, 2]


@pytest.mark.parametrize("framed", [True, False])
def test_all_other_ranks_detect_a_killed_rank_at_once(redis_world: World, framed: bool) -> None:
    outcomes = redis_world.run(failing_programs.die_while_awaited, 4, 1, framed=framed, max_timeout=0)
    for rank in (0, 2, 3):
        error = outcomes[rank].error
        assert isinstance(error, PeerLostError), outcomes
        assert "lost rank 1, its process ended" in str(error)
        assert error.origin == 1


def test_a_chain_of_waiting_ranks_detects_a_killed_rank(redis_world: World) -> None:
    for outcome in redis_world.run(failing_programs.chain_of_waits, 4, max_timeout=0)[:3]:
        assert isinstance(outcome.error, PeerLostError)
        assert outcome.error.origin == 3


def test_a_failed_ranks_objects_are_deleted(redis_world: World, client: redis.Redis) -> None:
    first, *others = redis_world.run(failing_programs.overflow, 3)
    assert isinstance(first.error, OverflowError)
    assert [type(outcome.error) for outcome in others] == [PeerOverflowError] * 2
    assert "sum of 1073741824 and" in str(others[0].error)
    (left,) = client.keys()
    assert left.endswith(b"_failed")
    assert 0 < client.ttl(left) <= 60


def test_mismatched_types_are_an_error_in_framed_mode(redis_world: World) -> None:
    first, second = redis_world.run(failing_programs.mismatched, 2, "type")
    errors = [outcome.error for outcome in (first, second)]
    assert any(isinstance(error, MismatchError) for error in errors)
    assert all(isinstance(error, MismatchError) for error in errors)


def test_ctrl_c_interrupts_a_wait(redis_world: World) -> None:
    first, second = redis_world.run(failing_programs.interrupted, 2, max_timeout=0)
    assert isinstance(first.error, KeyboardInterrupt)
    assert isinstance(second.error, PeerFailedError)
    assert "KeyboardInterrupt" in str(second.error)


def test_a_name_with_special_characters_is_not_a_pattern(
    redis_world: World, client: redis.Redis, tmp_path: Path
) -> None:
    client.set("abc0_barrier_0", b"of others")
    done = []

    def rank(number: int) -> None:
        comm = fmi.Communicator(number, 2, redis_world.config(), "a*[c]?\\")
        comm.barrier()
        comm.close()
        done.append(number)

    threads = [threading.Thread(target=rank, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == [0, 1]
    assert client.keys() == [b"abc0_barrier_0"]


def test_fast_selects_direct_and_cheap_selects_redis(
    rendezvous_address: str, redis_port: int, client: redis.Redis, tmp_path: Path
) -> None:
    host, _, rendezvous_port = rendezvous_address.rpartition(":")
    backends: dict[str, dict[str, object]] = {
        "Direct": {"host": host, "port": rendezvous_port},
        "Redis": {"port": redis_port},
        "S3": {"bucket_name": "never-opened"},
    }
    world = World(rendezvous_address, tmp_path, backends, {"FMI_CHANNEL": "network"})
    assert world.values(programs.channels_by_hint, 3) == [([["Direct"], ["Direct", "Redis"]], 3)] * 3
    assert client.keys() == []


class FmiRank:
    """A rank of the C++ library: its keys and contents, written from the specification."""

    def __init__(self, client: redis.Redis, name: str, rank: int) -> None:
        self.client, self.name, self.rank = client, name, rank

    def upload(self, what: str, *values: float) -> None:
        self.client.set(f"{self.name}{self.rank}_{what}", np.array(values).tobytes())

    def download(self, other: int, what: str) -> list[float]:
        while (content := self.client.get(f"{self.name}{other}_{what}")) is None:
            time.sleep(0.001)
        return np.frombuffer(content).tolist()


def test_a_rank_that_uses_only_fmis_keys_is_compatible(redis_world: World, client: redis.Redis) -> None:
    double, total = programs.DOUBLE, fmi.func(fmi.op.sum)
    other, results, passed = FmiRank(client, "mixed", 1), [], threading.Event()

    def ours() -> None:
        comm = fmi.Communicator(0, 2, redis_world.config(framed=False, max_timeout=20_000), "mixed")
        comm.send(1.0, 1, double)
        results.append(comm.recv(1, double))
        results.append(comm.bcast(3.0, 0, double))
        results.append(comm.bcast(None, 1, double))
        results.append(comm.reduce(5.0, 0, total, double))
        results.append(comm.reduce(6.0, 1, total, double))
        results.append(comm.allreduce(7.0, total, double))
        results.append(comm.scan(8.0, total, double))
        results.append(comm.gather(9.0, 0, double))
        results.append(comm.scatter([10.0, 11.0], 0, programs.doubles(2)))
        comm.barrier()
        passed.set()
        comm.close()

    rank = threading.Thread(target=ours)
    rank.start()
    assert other.download(0, "1_0") == [1.0]
    other.upload("0_0", 2.0)
    assert other.download(0, "bcast_0") == [3.0]
    other.upload("bcast_1", 4.0)
    other.upload("reduce_0", 50.0)
    assert other.download(0, "reduce_1") == [6.0]
    other.upload("reduce_2", 70.0)
    assert other.download(0, "bcast_2") == [77.0]
    assert other.download(0, "scan_0") == [8.0]
    other.upload("0_1", 90.0)
    assert other.download(0, "1_1") == [11.0]
    client.set("mixed1_barrier_0", b"1")
    assert passed.wait(10)
    assert client.get("mixed0_barrier_0") == b"1"
    written = client.keys("mixed1_*")
    client.delete(*written)  # as a C++ rank does at its end
    rank.join(5)  # it does not wait for max_timeout
    assert results == [2.0, 3.0, 4.0, 55.0, None, 77.0, 8.0, [9.0, 90.0], [10.0]]
    assert client.keys() == []


def test_a_reader_of_the_cpp_library_that_wrote_nothing_is_not_waited_for_long(
    redis_world: World, client: redis.Redis
) -> None:
    comm = fmi.Communicator(0, 2, redis_world.config(framed=False, max_timeout=60_000), "reader")
    comm.send(1.0, 1, programs.DOUBLE)
    began = time.monotonic()
    comm.close()
    assert 1.9 < time.monotonic() - began < 20
    assert client.keys() == []


def test_objects_of_a_killed_rank_expire(redis_port: int, client: redis.Redis) -> None:
    store = RedisStore(RedisConfig(0.001, 1.0, True, "127.0.0.1", redis_port))
    store.put({"one": b"1", "two": b"2"})
    store.close()  # as its process ends: the rank's close deletes them
    assert [0 < client.ttl(key) <= 86_400 for key in ("one", "two")] == [True, True]


def test_an_unreachable_server_is_named(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        world = World("", tmp_path, {"Redis": {"host": "127.0.0.1", "port": free.getsockname()[1]}})
    comm = fmi.Communicator(0, 2, world.config(), "name")
    with pytest.raises(StoreError, match=r"Redis at 127.0.0.1:\d+: cannot register as 'name0': .*refused"):
        comm.barrier()
    with pytest.raises(BrokenCommunicatorError):
        comm.barrier()


def test_a_missing_client_library_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ConfigError, match=r"Redis is enabled and chosen, but .*: pip install 'fmi-emulator\[redis\]'"):
        RedisStore(RedisConfig(0.001, 1.0, False, "127.0.0.1", 6379))
