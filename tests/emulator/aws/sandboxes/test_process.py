"""The zygote and its workers as processes: output, exits, and clean-up after each kind of failure."""

import asyncio
import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import uuid
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from emulator.aws.sandboxes.base import SandboxExit, SandboxSpec
from emulator.aws.sandboxes.control_groups import ControlGroups
from emulator.aws.sandboxes.process import ProcessSandboxes, ZygoteConnection
from emulator.aws.sandboxes.zygote import Zygote
from emulator.errors import SandboxError

MIB = 1024 * 1024


def gone(pid: int) -> bool:
    """Return whether a process has ended, reaped or not."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_until_gone(pids: list[int]) -> None:
    _, alive = psutil.wait_procs([psutil.Process(pid) for pid in pids if not gone(pid)], timeout=20)
    assert [process for process in alive if not gone(process.pid)] == []


def spec(code: Path, runtime_api: str = "127.0.0.1:1") -> SandboxSpec:
    environment = {"AWS_LAMBDA_RUNTIME_API": runtime_api, "_HANDLER": "main.handler", "PATH": os.environ["PATH"]}
    return SandboxSpec(uuid.uuid4().hex, environment, code, 500 * MIB, 64 * MIB, vcpus=1.0)


def with_sandboxes(state: Path, body: Callable[[ProcessSandboxes], Awaitable[None]]) -> None:
    async def run() -> None:
        sandboxes = ProcessSandboxes(state)
        await sandboxes.start()
        try:
            await body(sandboxes)
        finally:
            await sandboxes.close()

    asyncio.run(run())


@pytest.fixture
def state() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="fmi-emulator-test-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def sleeper(state: Path) -> Path:
    """Code that starts a child which leaves its group, prints both pids and never ends."""
    folder = state / "code"
    folder.mkdir()
    (folder / "main.py").write_text(
        textwrap.dedent("""
        import os, subprocess, time
        child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
        print(os.getpid(), child.pid, flush=True)
        time.sleep(1000)
        """)
    )
    return folder


async def printed_pids(output: bytearray) -> list[int]:
    while b"\n" not in output:
        await asyncio.sleep(0.01)
    return [int(pid) for pid in output.split()]


def test_the_state_folder_is_removed_with_the_zygote(state: Path) -> None:
    async def body(_: ProcessSandboxes) -> None:
        assert state.exists()

    with_sandboxes(state, body)
    assert not state.exists()


def test_all_output_and_the_exit_status_are_reported(state: Path) -> None:
    folder = state / "code"
    folder.mkdir()
    (folder / "main.py").write_text(
        "import os\nprint('x' * 200_000)\nkept = bytearray(b'x') * (128 << 20)\nos._exit(7)"
    )
    output = bytearray()
    ends: list[SandboxExit] = []

    async def body(sandboxes: ProcessSandboxes) -> None:
        sandbox = await sandboxes.create(spec(folder), output.extend)
        ends.append(await sandbox.exited)

    with_sandboxes(state, body)
    assert bytes(output) == b"x" * 200_000 + b"\n"
    assert (ends[0].exit_status, ends[0].signal, ends[0].out_of_memory) == (7, None, False)
    assert ends[0].peak_memory_bytes > MIB


def test_close_kills_workers_and_their_children(state: Path, sleeper: Path) -> None:
    output = bytearray()
    pids: list[int] = []

    async def body(sandboxes: ProcessSandboxes) -> None:
        await sandboxes.create(spec(sleeper), output.extend)
        pids.extend(await printed_pids(output))

    with_sandboxes(state, body)
    assert len(pids) == 2
    wait_until_gone(pids)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets the supervisor adopt orphans")
def test_a_killed_zygote_is_replaced_and_its_processes_are_killed(state: Path, sleeper: Path) -> None:
    async def body(sandboxes: ProcessSandboxes) -> None:
        output = bytearray()
        sandbox = await sandboxes.create(spec(sleeper), output.extend)
        worker, child = await printed_pids(output)
        zygote = psutil.Process(worker).ppid()
        os.kill(zygote, signal.SIGKILL)
        end = await sandbox.exited
        assert end.signal == signal.SIGKILL
        wait_until_gone([zygote, worker, child])
        again = bytearray()
        sandbox, other = await asyncio.gather(
            sandboxes.create(spec(sleeper), again.extend), sandboxes.create(spec(sleeper), lambda _: None)
        )
        worker, _ = await printed_pids(again)
        assert psutil.Process(worker).ppid() != zygote
        other.kill()
        await other.exited

    with_sandboxes(state, body)
    assert not state.exists()


@pytest.mark.parametrize("also_the_supervisor", [False, True])
def test_a_stopped_zygote_is_continued(state: Path, sleeper: Path, also_the_supervisor: bool) -> None:
    async def body(sandboxes: ProcessSandboxes) -> None:
        output = bytearray()
        first = await sandboxes.create(spec(sleeper), output.extend)
        worker, _ = await printed_pids(output)
        zygote = psutil.Process(psutil.Process(worker).ppid())
        if also_the_supervisor:
            zygote.parent().suspend()
        zygote.suspend()
        second = await asyncio.wait_for(sandboxes.create(spec(sleeper), lambda _: None), 20)
        zygote.suspend()
        first.kill()
        second.kill()
        await asyncio.wait_for(asyncio.gather(first.exited, second.exited), 20)
        if also_the_supervisor:
            zygote.parent().suspend()
        zygote.suspend()  # while it is closed

    with_sandboxes(state, body)
    assert not state.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets the supervisor adopt orphans")
def test_killing_zygote_and_owner_together_leaves_no_process(state: Path, sleeper: Path) -> None:
    with owner_of(state, sleeper) as owner:
        pids = told_by(owner)
        zygote = psutil.Process(pids[0]).ppid()
        supervisor = psutil.Process(zygote).ppid()
        os.kill(zygote, signal.SIGSTOP)
        owner.kill()
        os.kill(zygote, signal.SIGKILL)
    wait_until_gone([*pids, zygote, supervisor])
    assert not state.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="orphans are identified by their mount namespace, on Linux only")
def test_orphans_in_another_session_are_killed_with_their_worker_only(state: Path, sleeper: Path) -> None:
    async def body(sandboxes: ProcessSandboxes) -> None:
        outputs = [bytearray(), bytearray()]
        first, second = [await sandboxes.create(spec(sleeper), output.extend) for output in outputs]
        (_, orphan), (_, other) = [await printed_pids(output) for output in outputs]
        first.kill()
        await first.exited
        if psutil.Process(other).status() != psutil.STATUS_ZOMBIE and b"no private /tmp" in outputs[0]:
            pytest.skip("without a private /tmp orphans cannot be identified")
        wait_until_gone([orphan])
        assert not gone(other)
        second.kill()
        await second.exited
        wait_until_gone([other])

    with_sandboxes(state, body)


def test_more_messages_than_the_socket_holds_do_not_block(state: Path) -> None:
    """The zygote reads no orders while it forks, and reports each fork: neither side may wait for the other."""
    folder = state / "code"
    folder.mkdir()
    (folder / "main.py").write_text("import os; os._exit(0)")
    large = replace(spec(folder), environment={**spec(folder).environment, "LARGE": "x" * 4000})

    async def body(sandboxes: ProcessSandboxes) -> None:
        specs = [replace(large, sandbox_id=str(number)) for number in range(120)]
        created = await asyncio.gather(*(sandboxes.create(one, lambda _: None) for one in specs))
        ends = await asyncio.gather(*(sandbox.exited for sandbox in created))
        assert {end.exit_status for end in ends} == {0}

    with_sandboxes(state, body)


def owner_of(state: Path, code: Path) -> subprocess.Popen[bytes]:
    """Start a process that has sandboxes, one of which runs the code, and prints its output."""
    source = f"""
import asyncio, sys
from pathlib import Path
from emulator.errors import SandboxError
from emulator.aws.sandboxes.base import SandboxSpec
from emulator.aws.sandboxes.process import ZygoteConnection
from emulator.aws.sandboxes.process import ProcessSandboxes
from emulator.aws.sandboxes.zygote import Zygote

async def main():
    sandboxes = ProcessSandboxes(Path({str(state)!r}))
    await sandboxes.start()
    environment = {{"AWS_LAMBDA_RUNTIME_API": "127.0.0.1:1", "_HANDLER": "main.handler"}}
    code = SandboxSpec("1", environment, Path({str(code)!r}), 500 << 20, 64 << 20, 1.0)
    await sandboxes.create(code, lambda data: print(data.decode(), end="", flush=True))
    await asyncio.sleep(1000)

asyncio.run(main())
"""
    return subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE)


def told_by(owner: subprocess.Popen[bytes]) -> list[int]:
    assert owner.stdout is not None
    return [int(pid) for pid in owner.stdout.readline().split()]


def test_a_zygote_that_blocks_in_an_import_is_killed_after_its_owner(state: Path) -> None:
    (state / "hangs.py").write_text("import os, time\nprint(os.getpid(), os.getppid(), flush=True)\ntime.sleep(1000)")
    source = f"""
import asyncio
from pathlib import Path
from emulator.aws.sandboxes.process import ProcessSandboxes

async def main():
    await ProcessSandboxes(Path({str(state)!r}), ["hangs"]).start()
    await asyncio.sleep(1000)

asyncio.run(main())
"""
    environment = {**os.environ, "PYTHONPATH": str(state)}
    with subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, env=environment) as owner:
        pids = told_by(owner)
        owner.kill()
    wait_until_gone(pids)
    assert not state.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets the zygote inherit orphans")
def test_a_killed_owner_leaves_no_process_and_no_folder(state: Path, sleeper: Path) -> None:
    with owner_of(state, sleeper) as owner:
        pids = told_by(owner)
        zygote = psutil.Process(pids[0]).parent()
        assert zygote is not None
        supervisor = zygote.ppid()
        owner.kill()
    wait_until_gone([*pids, zygote.pid, supervisor])
    assert not state.exists()


def test_without_control_groups_the_reason_is_available(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = ControlGroups(None, None, "may not")
    monkeypatch.setattr("emulator.aws.sandboxes.process.make_control_groups", lambda _: refused)

    async def body(sandboxes: ProcessSandboxes) -> None:
        assert sandboxes.cpu_shares_missing == "may not"

    with_sandboxes(state, body)


def test_a_failed_fork_is_a_sandbox_error(state: Path, sleeper: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root is held to no number of processes: the refusal is made up, the rest is not."""

    def refuse() -> int:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    async def run() -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            sandboxes = ProcessSandboxes(state)
            sandboxes._connection = ZygoteConnection(ours, sandboxes._on_message, sandboxes._on_zygote_closed)
            creating = asyncio.create_task(sandboxes.create(spec(sleeper), lambda _: None))
            monkeypatch.setattr(os, "fork", refuse)
            assert await asyncio.to_thread(Zygote(theirs, None, None, None)._receive)
            with pytest.raises(SandboxError, match="cannot fork a sandbox: Resource temporarily unavailable"):
                await creating
            await sandboxes.close()

    asyncio.run(run())
