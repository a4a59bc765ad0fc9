"""The Lambda service without the endpoint, with real sandboxes and a list as the log."""

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from emulator.aws.lambda_.core.execution_environments import ExecutionEnvironments
from emulator.aws.lambda_.core.function_records import FunctionRecords
from emulator.aws.lambda_.core.function_registry import FunctionRegistry
from emulator.aws.lambda_.core.interpreters import OWN_RUNTIME
from emulator.aws.lambda_.core.invocations import LambdaService
from emulator.aws.lambda_.core.models import FunctionSpec
from emulator.aws.lambda_.core.settings import LambdaSettings
from emulator.aws.sandboxes.process import ProcessSandboxes
from emulator.aws.state import StateFolder
from tests.emulator.conftest import ROLE, archive


class Lines:
    """A log sink that keeps all lines."""

    def __init__(self) -> None:
        self.kept: list[str] = []

    def append(self, region: str, group: str, stream: str, messages: Sequence[str]) -> None:
        self.kept += messages


async def url_at(address: str) -> str:
    """Return the URL of an endpoint that these functions do not use."""
    return f"http://{address}:1"


class Service:
    """A Lambda service with its dependencies."""

    def __init__(self, state: Path, sandboxes: ProcessSandboxes, settings: LambdaSettings) -> None:
        self.log = Lines()
        self.sandboxes = sandboxes
        self.functions = FunctionRegistry(FunctionRecords(StateFolder(state / "state", lasting=False)))
        environments = ExecutionEnvironments(sandboxes, sandboxes, self.log, url_at, settings)
        self.service = LambdaService(self.functions, environments, settings)

    def deploy(self, name: str, source: str, **settings: Any) -> None:
        request = {"FunctionName": name, "Runtime": OWN_RUNTIME, "Handler": "main.handler", "Role": ROLE, **settings}
        spec = FunctionSpec.from_api({"Timeout": 20, **request})
        self.functions.create(spec, self.functions.code_store.store(spec, archive(main=source)))


DEFAULTS = LambdaSettings()
WithService = Callable[..., None]


@pytest.fixture
def state() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="fmi-emulator-test-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.asynccontextmanager
async def running_service(state: Path, settings: LambdaSettings) -> AsyncIterator[Service]:
    sandboxes = ProcessSandboxes(state)
    await sandboxes.start()
    running = Service(state, sandboxes, settings)
    try:
        yield running
    finally:
        await running.service.close()
        await sandboxes.close()


@pytest.fixture
def with_service(state: Path) -> WithService:
    """Run a coroutine with a service that is closed afterwards."""

    def run(body: Callable[[Service], Coroutine[Any, Any, None]], settings: LambdaSettings = DEFAULTS) -> None:
        async def whole() -> None:
            async with running_service(state, settings) as running:
                await body(running)

        asyncio.run(whole())

    return run
