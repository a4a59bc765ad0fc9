"""Faults in worlds: each happens at its moment, and the ranks end with the right result or the right error."""

import time

import boto3
import numpy as np
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError, IncompleteReadError, ResponseStreamingError
from urllib3.exceptions import ProtocolError

import fmi_shim as fmi
from emulator.testing import World, WorldError, WorldTimeoutError
from emulator.testing.launch import shared_services
from emulator.testing.services import WorldChannel
from fmi_shim.faults import FaultError, parse_faults

SUM = fmi.func(fmi.op.sum)
INT = fmi.types(fmi.datatypes.int)


def world(size: int, *faults: str, **settings: object) -> World:
    return World(size, shared_services(), faults=faults, **settings)  # type: ignore[arg-type]


def five_sums(comm: fmi.Communicator) -> int:
    return [comm.allreduce(number, SUM, INT) for number in range(5)][-1]


def test_kill_at_a_call_of_an_operation() -> None:
    killed = world(3)
    killed.kill(2, at="allreduce 3")
    with pytest.raises(WorldError) as raised:
        killed(five_sums)
    error = raised.value
    assert (error.origin, error.first.kind) == (2, "Killed")
    assert all("call 2" in failure.message for failure in error.failures[1:])
    assert "kill rank 2 at allreduce 3 (seed " in str(error)


def test_a_seed_replays_to_the_same_outcome() -> None:
    origins = []
    for _ in range(2):
        with pytest.raises(WorldError) as raised:
            world(3, "kill rank any at random 5", seed=11)(five_sums)
        origins.append((raised.value.origin, raised.value.failures[1].message.split(",")[0][8:]))
    assert origins[0] == origins[1]


def test_a_fault_that_does_not_happen_is_named_in_the_ranks_output() -> None:
    spared = world(2, "kill rank 1 at barrier 2; cut link 0-1 at 100s")
    assert spared(five_sums) == [8, 8]
    line = "fault 'kill rank 1 at barrier 2' did not happen: rank 1 made 0 calls of barrier: choose an earlier moment"
    assert line in spared.output[1]
    assert "fault 'cut link 0-1 at 100s' did not happen: rank 0 ended before" in spared.output[0]


def test_stopped_and_delayed_ranks_continue() -> None:
    late = world(2, "stop rank 1 at call 2 for 0.4s")
    late.delay(0, "300ms")
    began = time.monotonic()
    assert late(five_sums) == [8, 8]
    assert time.monotonic() - began > 0.7


def test_a_rank_that_stays_stopped_is_named() -> None:
    with pytest.raises(WorldError) as raised:
        world(2, "stop rank 1 at call 2", max_timeout_s=0.5, limit_s=20)(five_sums)
    kinds = {failure.rank: failure.kind for failure in raised.value.failures}
    assert kinds == {0: "PeerTimeoutError", 1: "Hung"}


@pytest.mark.parametrize("framed", [True, False])
@pytest.mark.parametrize(
    ("fault", "least"), [("slow link all by 20ms", 0.1), ("slow link 0-1 by 10ms jitter 5ms", 0.05)]
)
def test_slow_links(fault: str, least: float, framed: bool) -> None:
    def timed(comm: fmi.Communicator) -> float:
        comm.barrier()
        began = time.monotonic()
        assert five_sums(comm) == 8
        return time.monotonic() - began

    # One of the two may have begun a delay later than the other.
    assert max(world(2, fault, framed=framed)(timed)) >= least


def test_bandwidth_and_loss_change_no_result() -> None:
    def timed(comm: fmi.Communicator) -> float:
        sample = np.arange(50_000, dtype=np.float64)
        comm.barrier()
        began = time.monotonic()
        np.testing.assert_array_equal(comm.allreduce(sample, SUM), 2 * sample)
        return time.monotonic() - began

    seconds = world(2, "limit link all to 16mbit; lose link all 1%", seed=1)(timed)
    assert max(seconds) >= 0.2


def test_a_cut_that_ends_and_one_that_does_not() -> None:
    def exchange(comm: fmi.Communicator) -> int:
        comm.barrier()
        comm.send(comm.rank, 1 - comm.rank, INT)
        received: int = comm.recv(1 - comm.rank, INT)
        return received

    began = time.monotonic()
    assert world(2, "cut link 0-1 at send 1 for 0.5s")(exchange) == [1, 0]
    assert time.monotonic() - began > 0.5
    with pytest.raises(WorldError) as raised:
        world(2, "cut link 0-1 at call 3", max_timeout_s=0.5)(five_sums)
    assert {failure.kind for failure in raised.value.failures} == {"PeerTimeoutError"}


def test_a_server_that_restarts_and_one_that_is_gone() -> None:
    def late(comm: fmi.Communicator) -> int:
        comm.barrier()
        time.sleep(0.6)
        return five_sums(comm)

    assert world(3, "restart server at 0.2s after 0.1s")(late) == [12] * 3
    with pytest.raises(WorldError) as raised:
        world(2, "drop server", max_timeout_s=0.5)(five_sums)
    assert not isinstance(raised.value, WorldTimeoutError)
    assert {failure.kind for failure in raised.value.failures} <= {"ServerLostError", "PeerTimeoutError"}


def test_requests_to_s3_fail_late_and_torn() -> None:
    cloud = shared_services().cloud
    config = Config(retries={"total_max_attempts": 1})
    s3 = boto3.Session(region_name="us-east-1", **cloud.credentials.for_boto3()).client(
        "s3", endpoint_url=cloud.endpoint_url, config=config
    )
    s3.create_bucket(Bucket="faults")
    cloud.plan_faults(parse_faults("fail s3 at put 2; tear s3 at get 1; slow s3 by 50ms", 1, 0))
    began = time.monotonic()
    s3.put_object(Bucket="faults", Key="a", Body=b"text")
    assert time.monotonic() - began > 0.05
    with pytest.raises(ClientError, match="SlowDown"):
        s3.put_object(Bucket="faults", Key="a", Body=b"text")
    with pytest.raises((ResponseStreamingError, IncompleteReadError, ConnectionClosedError, ProtocolError)):
        s3.get_object(Bucket="faults", Key="a")["Body"].read()
    cloud.plan_faults(())
    assert s3.get_object(Bucket="faults", Key="a")["Body"].read() == b"text"


def test_a_world_over_s3_survives_errors_that_boto3_retries() -> None:
    assert world(2, "fail s3 at put 2; slow s3 by 5ms", channel=WorldChannel.S3)(five_sums) == [8, 8]


def test_ranks_that_hang_or_exhaust_their_memory() -> None:
    with pytest.raises(WorldError) as raised:
        world(2, "exhaust rank 1 at call 3")(five_sums)
    assert (raised.value.origin, raised.value.first.kind) == (1, "MemoryError")
    with pytest.raises(WorldTimeoutError) as hung:
        world(1, "hang rank 0 at call 2", limit_s=2)(five_sums)
    assert hung.value.origin == 0


def test_a_rank_that_is_not_there_is_refused_at_once() -> None:
    with pytest.raises(FaultError, match="there is no rank 4: expected 0 to 3"):
        world(4).kill(4)
