"""The init phase: its time limit, second try and log lines, and cold starts with AWS's durations."""

import asyncio
import json
import re
import statistics

from emulator.aws.lambda_.core.cold_starts import ColdStarts
from emulator.aws.lambda_.core.history import InvocationStatus
from emulator.aws.lambda_.core.settings import LambdaSettings
from tests.emulator.aws.lambda_.core.conftest import Service, WithService


def test_a_slow_init_phase_times_out_and_runs_again_within_the_invocation(with_service: WithService) -> None:
    source = """
        import socket, time
        # A sandbox keeps nothing for the next one: the test tells the second try that it is one.
        if socket.create_connection(("127.0.0.1", {port})).recv(1) == b"1":
            time.sleep(1000)
        def handler(event, context): return "second try"
    """
    tries = iter(b"12")

    async def count(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(bytes([next(tries)]))
        await writer.drain()
        writer.close()

    async def body(running: Service) -> None:
        server = await asyncio.start_server(count, "127.0.0.1", 0)
        running.deploy("f", source.format(port=server.sockets[0].getsockname()[1]))
        result = await running.service.invoke("f", None, b"{}")
        server.close()
        assert json.loads(result.payload) == "second try"
        cut_off, start, _, report = [
            line.rstrip("\n") for line in running.log.kept if not line.startswith("INIT_START")
        ]
        assert re.fullmatch(r"INIT_REPORT Init Duration: [\d.]+ ms\tPhase: init\tStatus: timeout", cut_off)
        assert start.startswith("START RequestId: ")
        assert "Init Duration" not in report

    with_service(body, LambdaSettings(init_s=0.5))


def test_a_second_init_phase_that_outlasts_the_invocation_is_a_timeout(with_service: WithService) -> None:
    async def body(running: Service) -> None:
        running.deploy("f", "import time\ntime.sleep(1000)", Timeout=1)
        result = await running.service.invoke("f", None, b"{}")
        answer = json.loads(result.payload)
        assert answer["errorType"] == "Sandbox.Timedout"
        assert answer["errorMessage"].endswith("Error: Task timed out after 1.00 seconds")
        lines = result.log_tail.decode().splitlines()
        assert re.fullmatch(r"INIT_REPORT Init Duration: 1\d{3}\.\d\d ms\tPhase: invoke\tStatus: timeout", lines[0])
        assert lines[1].startswith("START RequestId: ")
        assert lines[2].endswith("Task timed out after 1.00 seconds")
        assert lines[-1].endswith("Status: timeout\t")
        assert running.service.recent()[0].status is InvocationStatus.TIMED_OUT

    with_service(body, LambdaSettings(init_s=0.1))


def test_cold_starts_last_as_long_as_drawn_and_are_billed(with_service: WithService) -> None:
    async def body(running: Service) -> None:
        running.deploy("f", "def handler(event, context): return 1", MemorySize=1769)
        await asyncio.gather(*(running.service.invoke("f", None, b"{}") for _ in range(3)))
        await running.service.invoke("f", None, b"{}")
        *cold, warm = running.service.recent()
        assert all(record.init_ms is not None and record.init_ms >= 1500 for record in cold)
        assert not warm.cold
        assert warm.billed_ms is not None
        assert cold[0].billed_ms is not None
        assert cold[0].billed_ms >= 1500, "the init phase is billed"

    with_service(body, LambdaSettings(cold_starts=ColdStarts({1769: [1500.0]})))


def test_measured_cold_starts_are_those_of_the_nearest_memory_size_and_repeat_with_the_seed() -> None:
    small = [ColdStarts.measured(seed=1).draw_s(memory_mb) for memory_mb in (128, 512)]
    assert small[0] == small[1]
    draws = ColdStarts.measured(seed=2)
    assert 0.08 < statistics.median(draws.draw_s(128) for _ in range(200)) < 0.15
    assert 0.8 < statistics.median(draws.draw_s(10240) for _ in range(200)) < 1.1
    once, again = ([measured.draw_s(10240) for _ in range(5)] for measured in map(ColdStarts.measured, (3, 3)))
    assert once == again
