"""Events over ZeroMQ between real processes: who may send, what is lost, and what comes back."""

import json
import threading
import time
from pathlib import Path

import pytest
import zmq

from emulator.fmi.telemetry.collector import CommandError
from emulator.fmi.telemetry.hub import Telemetry
from emulator.fmi.telemetry.wait_graph import state_words, waiting_text
from fmi_shim.faults import FaultError
from fmi_shim.telemetry.bus import Bus, BusAddress
from fmi_shim.telemetry.events import Planned
from fmi_shim.telemetry.recording import Recorder
from tests.emulator.fmi.telemetry import programs
from tests.emulator.fmi.telemetry.conftest import observed
from tests.fmi_shim.world import World


def until(condition: object) -> None:
    """Wait until a state is reached, without a limit but the test's."""
    assert callable(condition)
    while not condition():
        time.sleep(0.01)


def test_every_call_of_every_rank_arrives(world: World, telemetry: Telemetry, complaints: list[str]) -> None:
    assert world.values(programs.many_short_calls, 2, 3000) == [0, 0]
    telemetry.wait_for_last_events(frozenset(range(2)))
    with telemetry.history() as history:
        assert (history.job, history.world_size, history.dropped) == ("job", 2, 0)
        for rank in history.ranks.values():
            assert rank.operations == {"allreduce": 3000}
            assert rank.bytes == {"allreduce": 24_000}
            assert rank.missing == 0
            assert rank.closed is not None
            assert [way.way for way in rank.connections] == ["direct"]
    assert complaints == []


def test_closing_takes_no_time_and_leaves_nothing(world: World, telemetry: Telemetry) -> None:
    for _, seconds in world.values(programs.leaves_no_thread, 2):
        assert seconds < 5
    telemetry.wait_for_last_events(frozenset(range(2)))
    with telemetry.history() as history:
        assert all(rank.closed for rank in history.ranks.values())


def test_a_sender_with_another_key_is_not_heard(telemetry: Telemetry) -> None:
    right = BusAddress.parse(telemetry.variable)
    public, secret = zmq.curve_keypair()
    wrong = BusAddress(right.events, right.commands, right.server_key, public.decode(), secret.decode())
    context = zmq.Context()
    foreign = context.socket(zmq.PUSH)
    monitor = foreign.get_monitor_socket(zmq.EVENT_HANDSHAKE_FAILED_AUTH)
    foreign.setsockopt_string(zmq.CURVE_SERVERKEY, wrong.server_key)
    foreign.setsockopt_string(zmq.CURVE_PUBLICKEY, wrong.client_key)
    foreign.setsockopt_string(zmq.CURVE_SECRETKEY, wrong.client_secret)
    foreign.connect(wrong.events)
    foreign.send(b'[1, "forged", 0, 0, 0, []]')
    assert monitor.poll(20_000), "the authenticator has refused nobody"
    context.destroy(linger=0)
    assert telemetry.jobs() == []


def test_an_unknown_version_is_reported_once(telemetry: Telemetry, complaints: list[str]) -> None:
    address = BusAddress.parse(telemetry.variable)
    context = zmq.Context()
    sender = context.socket(zmq.PUSH)
    sender.setsockopt_string(zmq.CURVE_SERVERKEY, address.server_key)
    sender.setsockopt_string(zmq.CURVE_PUBLICKEY, address.client_key)
    sender.setsockopt_string(zmq.CURVE_SECRETKEY, address.client_secret)
    sender.connect(address.events)
    for _ in range(3):
        sender.send(json.dumps([9, "job", 0, 0, 0, []]).encode())
    sender.send(b'[1, "job", 0, 0, 0, []]')
    until(telemetry.jobs)
    context.destroy(linger=0)
    (complaint,) = complaints
    assert complaint.startswith("unknown version 9 of telemetry events: expected 1: install the same release")


def test_a_rank_whose_emulator_does_not_read_drops_and_counts_without_blocking() -> None:
    with Telemetry("127.0.0.1", "127.0.0.1") as telemetry:
        address = BusAddress.parse(telemetry.variable)
    recorder = Recorder(0, 1, [])  # the emulator is gone: nobody listens there
    bus = Bus(address, recorder)
    recorder.sinks.append(bus)
    recorder.has_thread = True
    plan = recorder.planned(0, "allreduce", None, None, "ring", "Direct", "allreduce")
    total = 4000
    done = threading.Event()

    def record() -> None:
        for number in range(total):
            recorder.rows.extend((plan, number, 1, 1, 8))
            recorder.flush()
        done.set()

    thread = threading.Thread(target=record, daemon=True)
    thread.start()
    assert done.wait(60), "a rank has blocked"
    # A queue holds 1,000 messages, the thread may have taken rows of several calls at once.
    assert 0 < recorder.dropped < total
    recorder.on_close(bus)
    recorder.close()


class _Refusing:
    """A sink that takes nothing until it is told to."""

    def __init__(self) -> None:
        self.messages: list[object] = []
        self.open = False

    def take(self, message: object) -> bool:
        if self.open:
            self.messages.append(message)
        return self.open

    def finish(self) -> None:
        pass


def test_plans_survive_a_full_queue_and_the_next_message_has_the_count() -> None:
    sink = _Refusing()
    recorder = Recorder(0, 1, [sink])
    plan = recorder.planned(0, "allreduce", None, None, "ring", "Direct", "allreduce")
    recorder.rows.extend((plan, 0, 1, 1, 8))
    recorder.flush()
    assert (recorder.dropped, recorder.rows) == (1, [])
    sink.open = True
    recorder.rows.extend((plan, 1, 1, 1, 8))
    recorder.flush()
    (message,) = sink.messages
    assert message.dropped == 1  # type: ignore[attr-defined]
    assert isinstance(message.events[0], Planned)  # type: ignore[attr-defined]
    assert list(message.events[1].rows) == [(plan, 1, 1, 1, 8)]  # type: ignore[attr-defined]


def test_ranks_answer_with_their_stacks_and_fail_on_command(server: str, tmp_path: Path, telemetry: Telemetry) -> None:
    world = observed(server, tmp_path, telemetry)
    with world.begun(programs.waits_in_a_chain, [(rank, 2) for rank in range(2)]):

        def both_in_place() -> bool:
            with telemetry.history() as history:
                return history.awaited(0) == 1 and history.in_call(1) is None and len(history.ranks) == 2

        until(both_in_place)
        telemetry.request_stacks()
        with telemetry.history() as history:
            stacks = {rank: history.ranks[rank].stacks for rank in range(2)}
            status = history.ranks[1].status
        assert stacks[0] is not None
        assert stacks[1] is not None
        assert any("programs.py" in frame and "waits_in_a_chain" in frame for frame in stacks[0].threads[0])
        assert stacks[1].threads[0][-1].endswith("in waits_in_a_chain")
        assert status is not None
        assert status.where.endswith("in waits_in_a_chain")
        assert status.memory > 10_000_000
        for text, complaint in {
            "kill rank 7": "rank 7",
            "cut link 0-1": "cannot be applied now: expected 'kill rank N'",
            "explode": "explode",
        }.items():
            with pytest.raises(FaultError, match=complaint):
                telemetry.strike(text)
        telemetry.strike("kill rank 1")

        def rank_0_has_failed() -> bool:
            with telemetry.history() as history:
                return bool(history.ranks[0].failures)

        until(rank_0_has_failed)
        with telemetry.history() as history:
            assert history.ranks[0].failures[0].origin == 1

        def refused() -> bool:
            try:
                telemetry.strike("kill rank 1")
            except CommandError as error:
                assert "rank 1 receives no commands: expected a running rank" in str(error)
                return True
            return False

        until(refused)

        def rank_1_has_ended() -> bool:
            with telemetry.history() as history:
                return history.ranks[1].closed is not None

        until(rank_1_has_ended)
        with telemetry.history() as history:
            (failure,) = history.ranks[1].failures
            assert failure.error.startswith("its process has ended without closing its communicators: it was killed")
            assert history.ranks[1].missing == 0
            assert state_words(history, 1) == "has failed"
            assert f"rank 1 has failed: {failure.error}" in waiting_text(history, time.time_ns())
