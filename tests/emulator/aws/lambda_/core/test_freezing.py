"""The processes of a function stand still between its invocations, as on AWS."""

import asyncio
import json
import signal
from pathlib import Path

import psutil
import pytest

from emulator.aws.lambda_.core.references import Reference
from emulator.aws.sandboxes.control_groups import ControlGroups, make_control_groups
from tests.emulator.aws.lambda_.core.conftest import Service, WithService
from tests.emulator.aws.lambda_.core.test_invocations import until_gone

# A thread and a child of another session that never rest: they sleep for a short time, and leave the CPU to others.
NEVER_RESTS = """
    import os, subprocess, sys, threading, time
    sleeps = "import time\\nwhile True: time.sleep(0.005)"
    child = subprocess.Popen([sys.executable, "-S", "-c", sleeps], start_new_session=True)
    def spin():
        while True: time.sleep(0.005)
    threading.Thread(target=spin, daemon=True).start()
    def handler(event, context):
        time.sleep(event["s"])
        return [os.getpid(), child.pid]
"""


@pytest.fixture(params=["control groups", "signals"])
def freezer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "signals":
        monkeypatch.setattr(
            "emulator.aws.sandboxes.process.make_control_groups", lambda _: ControlGroups(None, None, "may not")
        )
        return
    groups = make_control_groups("fmi-emulator-test-freezing")
    groups.remove()
    if groups.freezer is None:
        pytest.skip("this machine's control groups have no freezer for this user")


async def pids_of(running: Service) -> list[int]:
    pids: list[int] = json.loads((await running.service.invoke("f", None, b'{"s": 0}')).payload)
    return pids


def used_ns(pids: list[int]) -> int:
    """Return the time that the processes' threads have had the CPU: https://docs.kernel.org/scheduler/sched-stats.html."""
    threads = (thread for pid in pids for thread in Path(f"/proc/{pid}/task").glob("*/schedstat"))
    return sum(int(thread.read_text().split()[0]) for thread in threads)


async def until_at_rest(pids: list[int]) -> None:
    """Return when the processes use no more time of the CPU; without a freezer they always do."""
    async with asyncio.timeout(20):
        before = -1
        while (now := used_ns(pids)) != before:
            before = now
            await asyncio.sleep(0.1)


@pytest.mark.usefixtures("freezer")
def test_a_function_rests_between_invocations_and_goes_on_in_the_next_one(with_service: WithService) -> None:
    async def body(running: Service) -> None:
        running.deploy("f", NEVER_RESTS, MemorySize=3538)
        pids = await pids_of(running)
        await until_at_rest(pids)
        before = used_ns(pids)
        assert json.loads((await running.service.invoke("f", None, b'{"s": 0.1}')).payload) == pids
        assert used_ns(pids) > before

    with_service(body)


@pytest.mark.usefixtures("freezer")
def test_a_function_that_has_rested_still_times_out(with_service: WithService) -> None:
    async def body(running: Service) -> None:
        running.deploy("f", NEVER_RESTS, Timeout=1)
        pids = await pids_of(running)
        await until_at_rest(pids)
        timed_out = json.loads((await running.service.invoke("f", None, b'{"s": 60}')).payload)
        assert timed_out["errorType"] == "Sandbox.Timedout"
        await until_gone(pids)

    with_service(body)


@pytest.mark.usefixtures("freezer")
def test_a_resting_function_ends_when_it_is_changed_and_when_the_service_closes(with_service: WithService) -> None:
    left: list[int] = []

    async def body(running: Service) -> None:
        running.deploy("f", NEVER_RESTS)
        pids = await pids_of(running)
        await until_at_rest(pids)
        before = running.functions.get(Reference.parse("f"))
        running.functions.update_configuration(Reference.parse("f"), {"Timeout": 19})
        await running.service.discard(before)
        await until_gone(pids)
        left.extend(await pids_of(running))
        await until_at_rest(left)

    with_service(body)
    asyncio.run(until_gone(left))


@pytest.mark.usefixtures("freezer")
def test_resting_functions_end_with_a_killed_zygote(with_service: WithService) -> None:
    async def body(running: Service) -> None:
        running.deploy("f", NEVER_RESTS)
        pids = await pids_of(running)
        await until_at_rest(pids)
        psutil.Process(psutil.Process(pids[0]).ppid()).send_signal(signal.SIGKILL)
        await until_gone(pids)
        assert set(await pids_of(running)).isdisjoint(pids)

    with_service(body)
