"""The Lambda service without the endpoint around it: real sandboxes, a log that is a list."""

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from emulator.lambda_service.function_spec import FunctionSpec
from emulator.lambda_service.functions import FunctionRegistry
from emulator.lambda_service.invocations import LambdaService
from emulator.lambda_service.warm_pool import WarmPool
from emulator.sandboxes.process import ProcessSandboxes
from tests.emulator.conftest import ROLE, archive


class Lines:
    """A log sink that keeps what it is given."""

    def __init__(self) -> None:
        self.kept: list[str] = []

    def append(self, group: str, stream: str, messages: Sequence[str]) -> None:
        self.kept += messages


class Service:
    """A Lambda service with what it stands on."""

    def __init__(self, state: Path, sandboxes: ProcessSandboxes, retry_delays_s: Sequence[float] = ()) -> None:
        self.log = Lines()
        self.sandboxes = sandboxes
        self.functions = FunctionRegistry(state / "functions")
        self.pool = WarmPool(sandboxes, self.log, "http://127.0.0.1:1", idle_s=300.0)
        self.service = LambdaService(self.functions, self.pool, retry_delays_s)

    def deploy(self, name: str, source: str, **settings: Any) -> None:
        request = {"FunctionName": name, "Runtime": "python3.11", "Handler": "main.handler", "Role": ROLE, **settings}
        self.functions.create(FunctionSpec.from_api({"Timeout": 20, **request}), archive(main=source))


@pytest.fixture
def state() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="fmi-emulator-test-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.asynccontextmanager
async def running_service(state: Path) -> AsyncIterator[Service]:
    sandboxes = ProcessSandboxes(state)
    await sandboxes.start()
    running = Service(state, sandboxes)
    try:
        yield running
    finally:
        await running.service.close()
        await sandboxes.close()


@pytest.fixture
def with_service(state: Path) -> Callable[[Callable[[Service], Coroutine[Any, Any, None]]], None]:
    """Run a coroutine with a service that is there as long as it runs."""

    def run(body: Callable[[Service], Coroutine[Any, Any, None]]) -> None:
        async def whole() -> None:
            async with running_service(state) as running:
                await body(running)

        asyncio.run(whole())

    return run
