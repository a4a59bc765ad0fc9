"""The Lambda service used from inside the emulator: records, cancellation, retries."""

import asyncio
import json
from pathlib import Path
from typing import Any

import psutil
import pytest

from emulator.aws.lambda_.core.history import InvocationStatus
from emulator.aws.lambda_.core.references import Reference
from emulator.aws.lambda_.core.settings import LambdaSettings
from emulator.aws.sandboxes.control_groups import _hierarchies
from emulator.aws.sandboxes.process import ProcessSandbox
from emulator.errors import ApiError, SandboxError
from tests.emulator.aws.lambda_.core.conftest import Service, WithService

PRINTS_PIDS_AND_SLEEPS = """
    import os, subprocess, time
    child = subprocess.Popen(["sleep", "1000"])
    def handler(event, context):
        print("pids", os.getpid(), child.pid)
        time.sleep(1000)
"""


async def printed_pids(running: Service) -> list[int]:
    while not (printed := [line for line in running.log.kept if line.startswith("pids ")]):
        await asyncio.sleep(0.01)
    return [int(pid) for pid in printed[0].split()[1:]]


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def until_gone(pids: list[int]) -> None:
    while not all(map(is_gone, pids)):
        await asyncio.sleep(0.01)


def test_a_cancelled_call_ends_its_sandbox_with_all_its_processes(with_service: WithService) -> None:
    async def body(running: Service) -> None:
        running.deploy("f", PRINTS_PIDS_AND_SLEEPS)
        call = asyncio.create_task(running.service.invoke("f", None, b"{}"))
        pids = await printed_pids(running)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await until_gone(pids)
        assert [record.status for record in running.service.recent()] == [InvocationStatus.STOPPED]

    with_service(body)


def test_a_call_that_is_cancelled_while_it_fails_logs_its_error(with_service: WithService) -> None:
    """A rank tells the others of its failure first, and all are given up as soon as one of them has failed of it."""

    async def body(running: Service) -> None:
        running.deploy(
            "f",
            """
            import os, time
            def handler(event, context):
                print("pids", os.getpid())
                time.sleep(0.05)
                raise ValueError("the cause")
            """,
        )
        call = asyncio.create_task(running.service.invoke("f", None, b"{}"))
        await printed_pids(running)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert any("ValueError: the cause" in line for line in running.log.kept)

    with_service(body)


def test_a_call_that_is_cancelled_during_its_cold_start_leaves_no_process(with_service: WithService) -> None:
    async def body(running: Service) -> None:
        running.deploy("f", "import os, time\nprint('pids', os.getpid(), flush=True)\ntime.sleep(1000)")
        call = asyncio.create_task(running.service.invoke("f", None, b"{}"))
        pids = await printed_pids(running)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await until_gone(pids)
        early = asyncio.create_task(running.service.invoke("f", None, b"{}"))
        await asyncio.sleep(0)
        early.cancel()
        with pytest.raises(asyncio.CancelledError):
            await early

    with_service(body)


def test_records_have_status_cold_start_annotation_log_and_times(with_service: WithService) -> None:
    async def body(running: Service) -> None:
        running.deploy("f", "def handler(event, context): return 1 / event['RANK']", MemorySize=256)
        await running.service.invoke("f", None, b'{"RANK": 1}')
        await running.service.invoke("f", None, b'{"RANK": 0}')
        running.functions.reserve(Reference.parse("f"), 0)
        with pytest.raises(ApiError):
            await running.service.invoke("f", None, b"{}")
        cold, warm, throttled = running.service.recent()
        assert (cold.status, cold.cold, cold.annotation) == (InvocationStatus.SUCCEEDED, True, 1)
        assert (warm.status, warm.cold, warm.error_type) == (InvocationStatus.FAILED, False, "ZeroDivisionError")
        assert (throttled.status, throttled.error_type) == (InvocationStatus.THROTTLED, "TooManyRequestsException")
        assert (cold.log_group, cold.log_stream) == ("/aws/lambda/f", warm.log_stream)
        assert cold.memory_mb == 256
        assert cold.peak_memory_mb is not None
        assert throttled.started is None
        for record in (cold, warm):
            assert record.started is not None
            assert record.ended is not None
            assert record.received <= record.started <= record.ended

    with_service(body, LambdaSettings(annotate_event=lambda event: event.get("RANK")))


def test_an_event_that_is_not_json_is_an_error(with_service: WithService) -> None:
    async def body(running: Service) -> None:
        running.deploy("f", "def handler(event, context): pass")
        for payload in (b"{", b"NaN", b'{"x": -Infinity}', b"\xff", b"[" * 100_000):
            with pytest.raises(ApiError) as raised:
                await running.service.invoke("f", None, payload)
            assert (raised.value.code, raised.value.status) == ("InvalidRequestContentException", 400)

    with_service(body)


def test_an_event_is_retried_when_no_sandbox_could_be_created(
    with_service: WithService, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(running: Service) -> None:
        running.deploy("f", "def handler(event, context): return 1")
        create, refusals = running.sandboxes.create, [SandboxError("no room"), SandboxError("no room")]

        async def create_at_last(*arguments: Any) -> ProcessSandbox:
            if refusals:
                raise refusals.pop()
            return await create(*arguments)

        monkeypatch.setattr(running.sandboxes, "create", create_at_last)
        running.service.enqueue("f", None, b"{}")
        while not any(record.status is InvocationStatus.SUCCEEDED for record in running.service.recent()):
            await asyncio.sleep(0.01)
        assert len(running.service.recent()) == 3

    with_service(body, LambdaSettings(retry_delays_s=(0.0, 0.0)))


def test_a_sandbox_of_a_changed_function_is_ended_after_its_invocation(with_service: WithService) -> None:
    async def body(running: Service) -> None:
        source = "import os, time\ndef handler(event, context):\n    print('pids', os.getpid())\n    time.sleep(1)"
        running.deploy("f", source)
        before = running.functions.get(Reference.parse("f"))
        call = asyncio.create_task(running.service.invoke("f", None, b"{}"))
        pids = await printed_pids(running)
        running.functions.update_configuration(Reference.parse("f"), {"Timeout": 19})
        await running.service.discard(before)
        assert not (await call).is_error
        await until_gone(pids)

    with_service(body)


def test_a_function_has_its_cpu_share_after_the_init_phase(with_service: WithService) -> None:
    source = """
        def groups(): return open("/proc/self/cgroup").read()
        def handler(event, context): return groups()
    """

    async def body(running: Service) -> None:
        if running.sandboxes.cpu_shares_missing is not None:
            pytest.skip(running.sandboxes.cpu_shares_missing)
        running.deploy("f", source, MemorySize=885)
        memberships = json.loads((await running.service.invoke("f", None, b"{}")).payload)
        assert _cpu_quota(memberships) == pytest.approx(885 / 1769, rel=0.01)

    with_service(body)


def _cpu_quota(memberships: str) -> float:
    """Return the CPU seconds a second of the group that a process is in, by version 1 or 2 of the interface."""
    own = {controllers: path for _, controllers, path in (line.split(":", 2) for line in memberships.splitlines())}
    for hierarchy in _hierarchies(Path("/proc/self/mountinfo").read_text(), "cpu"):
        for controllers, path in own.items():
            group = hierarchy.mount_point / path.removeprefix(hierarchy.root).lstrip("/")
            if "fmi-emulator" not in path or hierarchy.unified != (controllers == ""):
                continue
            if hierarchy.unified:
                quota, period = (group / "cpu.max").read_text().split()
            else:
                quota, period = (group / "cpu.cfs_quota_us").read_text(), (group / "cpu.cfs_period_us").read_text()
            return int(quota) / int(period)
    raise AssertionError(f"no group of the emulator's in {memberships!r}")


REWRITES_ITSELF = """
    import os
    def handler(event, context):
        seen = []
        for path, mode in ((__file__, "w"), (__file__, "a"), (os.environ["LAMBDA_TASK_ROOT"] + "/other.py", "w")):
            try:
                open(path, mode).close()
                seen.append("written")
            except OSError as error:
                seen.append(error.strerror)
        return seen
"""


def test_a_function_cannot_change_its_code(with_service: WithService) -> None:
    async def body(running: Service) -> None:
        running.deploy("f", REWRITES_ITSELF)
        seen = json.loads((await running.service.invoke("f", None, b"{}")).payload)
        if seen == ["written"] * 3:
            # Without mount namespaces this is not possible, which the log says.
            assert any("the function can change its own code" in line for line in running.log.kept)
        else:
            assert seen == ["Read-only file system"] * 3

    with_service(body)
