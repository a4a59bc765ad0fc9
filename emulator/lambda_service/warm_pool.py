"""Execution environments: started cold, kept warm between invocations, ended when idle for long."""

import asyncio
import uuid
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from emulator import limits
from emulator.lambda_service.environment import function_environment
from emulator.lambda_service.function import Function
from emulator.lambda_service.runtime_api import RuntimeApi
from emulator.lambda_service.sandbox_log import LogSink, SandboxLog
from emulator.sandboxes.base import Sandbox, SandboxFactory, SandboxSpec


@dataclass(frozen=True)
class ExecutionEnvironment:
    """A sandbox with what belongs to it."""

    function: Function
    sandbox: Sandbox
    runtime: RuntimeApi
    log: SandboxLog


async def first_of(one: "asyncio.Future[Any]", other: "asyncio.Future[Any]", timeout_s: float) -> None:
    """Wait until one of two futures is done, or for the time given."""
    await asyncio.wait({one, other}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)


class WarmPool:
    """The execution environments that wait for an invocation.

    Parameters
    ----------
    sandboxes
        Makes new ones.
    sink
        Where their logs go.
    endpoint_url
        The AWS endpoint that functions see.
    idle_s
        How long an environment is kept without an invocation, seconds.
    """

    def __init__(self, sandboxes: SandboxFactory, sink: LogSink, endpoint_url: str, idle_s: float) -> None:
        self._sandboxes = sandboxes
        self._sink = sink
        self._endpoint_url = endpoint_url
        self._idle_s = idle_s
        self._idle: defaultdict[str, list[tuple[ExecutionEnvironment, asyncio.TimerHandle]]] = defaultdict(list)
        self._ending: set[asyncio.Task[None]] = set()

    def take(self, function: Function) -> ExecutionEnvironment | None:
        """Return the function's environment that was used last, or None when there is none."""
        warm = self._idle[function.revision_id]
        while warm:
            environment, expiry = warm.pop()
            expiry.cancel()
            if not environment.sandbox.exited.done():
                return environment
        return None

    def put_back(self, environment: ExecutionEnvironment) -> None:
        """Keep an environment for the function's next invocation."""
        expiry = asyncio.get_running_loop().call_later(self._idle_s, self._expire, environment)
        self._idle[environment.function.revision_id].append((environment, expiry))

    async def cold_start(self, function: Function) -> ExecutionEnvironment:
        """Start an environment and wait until it is ready, has failed, or the init phase is over."""
        runtime = RuntimeApi()
        address = await runtime.start()
        stream = f"{datetime.now(UTC):%Y/%m/%d}/[{function.version}]{uuid.uuid4().hex}"
        group = f"/aws/lambda/{function.spec.name}"
        log = SandboxLog(self._sink, group, stream)
        spec = SandboxSpec(
            sandbox_id=uuid.uuid4().hex,
            environment=function_environment(function, group, stream, address, self._endpoint_url),
            task_root=function.code_root,
            memory_bytes=function.spec.memory_mb * limits.MIB,
            ephemeral_storage_bytes=function.spec.ephemeral_storage_mb * limits.MIB,
            vcpus=function.spec.memory_mb / limits.MB_PER_VCPU,
        )
        try:
            sandbox = await self._sandboxes.create(spec, log.write)
        except BaseException:
            await runtime.close()
            raise
        environment = ExecutionEnvironment(function, sandbox, runtime, log)
        try:
            # An init that takes longer goes on within the invocation's time, as on AWS.
            await first_of(runtime.ready, sandbox.exited, limits.INIT_S)
        except asyncio.CancelledError:
            await asyncio.shield(self.end(environment))
            raise
        sandbox.init_done()
        return environment

    async def end(self, environment: ExecutionEnvironment) -> None:
        """End an environment and wait until it is gone."""
        environment.sandbox.kill()
        await environment.sandbox.exited
        await environment.runtime.close()

    async def discard(self, function: Function) -> None:
        """End the waiting environments of a function that has changed or is gone."""
        for environment, expiry in self._idle.pop(function.revision_id, []):
            expiry.cancel()
            await self.end(environment)

    async def close(self) -> None:
        """End every waiting environment."""
        for waiting in self._idle.values():
            for environment, expiry in waiting:
                expiry.cancel()
                await self.end(environment)
        self._idle.clear()
        await asyncio.gather(*self._ending)

    def _expire(self, environment: ExecutionEnvironment) -> None:
        waiting = self._idle[environment.function.revision_id]
        waiting[:] = [entry for entry in waiting if entry[0] is not environment]
        task = asyncio.ensure_future(self.end(environment))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
