"""At most a thousand concurrent executions, tested with sandboxes that poll the runtime API in this process."""

import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path

from emulator.aws.lambda_.core.execution_environments import ExecutionEnvironments
from emulator.aws.lambda_.core.function_records import FunctionRecords
from emulator.aws.lambda_.core.function_registry import FunctionRegistry
from emulator.aws.lambda_.core.history import InvocationStatus
from emulator.aws.lambda_.core.invocations import LambdaService
from emulator.aws.lambda_.core.models import FunctionSpec
from emulator.aws.lambda_.core.settings import LambdaSettings
from emulator.aws.sandboxes.base import SandboxExit, SandboxPlace, SandboxSpec
from emulator.aws.state import StateFolder
from emulator.errors import ApiError
from tests.emulator.aws.lambda_.core.conftest import Lines, url_at
from tests.emulator.conftest import ROLE, archive

NEXT = b"GET %s/2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: x\r\n\r\n"
RESPONSE = b"POST %s/2018-06-01/runtime/invocation/%s/response HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s"


class TaskSandbox:
    """A sandbox that is a task: it returns every event as the result, once `may_answer` is set."""

    def __init__(self, spec: SandboxSpec, may_answer: asyncio.Event) -> None:
        self.exited: asyncio.Future[SandboxExit] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._serve(spec.environment["AWS_LAMBDA_RUNTIME_API"], may_answer))

    async def _serve(self, address: str, may_answer: asyncio.Event) -> None:
        host_and_port, _, path = address.partition("/")
        reader, writer = await asyncio.open_connection(*host_and_port.split(":"))
        root = b"/" + path.encode()
        while True:
            writer.write(NEXT % root)
            head = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
            headers = dict(line.lower().split(b": ", 1) for line in head[1:] if line)
            event = await reader.readexactly(int(headers[b"content-length"]))
            await may_answer.wait()
            writer.write(RESPONSE % (root, headers[b"lambda-runtime-aws-request-id"], len(event), event))
            length = (await reader.readuntil(b"\r\n\r\n")).lower().partition(b"content-length: ")[2].split()[0]
            await reader.readexactly(int(length))

    def init_done(self) -> None:
        """Nothing to limit."""

    def peak_memory(self) -> int:
        return 0

    async def drain_output(self) -> None:
        """There is none."""

    def suspend(self) -> None:
        """Nothing to stop."""

    async def resume(self) -> None:
        """Nothing to continue."""

    def kill(self) -> None:
        self._task.cancel()
        if not self.exited.done():
            self.exited.set_result(SandboxExit(None, 9, out_of_memory=False, peak_memory_bytes=0))


class TaskSandboxes:
    """Creates and counts such sandboxes."""

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()
        self.made = 0

    async def place(self) -> SandboxPlace:
        return SandboxPlace("127.0.0.1", is_container=False)

    async def create(self, spec: SandboxSpec, on_output: Callable[[bytes], None]) -> TaskSandbox:
        self.made += 1
        return TaskSandbox(spec, self.may_answer)


def test_of_1200_concurrent_calls_200_are_throttled_and_1000_return(tmp_path: Path) -> None:
    async def run() -> None:
        sandboxes = TaskSandboxes()
        functions = FunctionRegistry(FunctionRecords(StateFolder(tmp_path / "state", lasting=False)))
        settings = LambdaSettings()
        service = LambdaService(
            functions, ExecutionEnvironments(sandboxes, sandboxes, Lines(), url_at, settings), settings
        )
        spec = FunctionSpec.from_api(
            {"FunctionName": "f", "Runtime": "python3.11", "Handler": "m.h", "Role": ROLE, "Timeout": 60}
        )
        functions.create(spec, functions.code_store.store(spec, archive()))

        async def call(number: int) -> int | str:
            try:
                return int((await service.invoke("f", None, str(number).encode())).payload)
            except ApiError as error:
                assert error.details == {"Reason": "ConcurrentInvocationLimitExceeded"}
                return error.code

        calls = [asyncio.create_task(call(number)) for number in range(1200)]
        while sum(record.started is not None for record in service.recent()) < 1000:
            await asyncio.sleep(0.05)
        sandboxes.may_answer.set()
        outcomes = await asyncio.gather(*calls)
        assert outcomes[:1000] == list(range(1000))
        assert outcomes[1000:] == ["TooManyRequestsException"] * 200
        statuses = [record.status for record in service.recent()]
        assert statuses.count(InvocationStatus.SUCCEEDED) == 1000
        assert statuses.count(InvocationStatus.THROTTLED) == 200
        again = await asyncio.gather(*(call(number) for number in itertools.repeat(7, 1000)))
        assert again == [7] * 1000, "the places are free again"
        assert sandboxes.made == 1000, "and the sandboxes are warm"
        await service.close()

    asyncio.run(run())
