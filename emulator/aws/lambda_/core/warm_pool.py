"""Execution environments that are kept warm between invocations, and ended when idle for long."""

import asyncio
from collections import defaultdict

from emulator.aws.lambda_.core.execution_environments import Environments, ExecutionEnvironment
from emulator.aws.lambda_.core.models import Function


class WarmPool:
    """The execution environments that wait for an invocation.

    Parameters
    ----------
    environments
        Ends them.
    idle_s
        How long an environment is kept without an invocation, seconds.
    """

    def __init__(self, environments: Environments, idle_s: float) -> None:
        self._environments = environments
        self._idle_s = idle_s
        self._idle: defaultdict[str, list[tuple[ExecutionEnvironment, asyncio.TimerHandle]]] = defaultdict(list)
        self._ending: set[asyncio.Task[None]] = set()
        self._discarded: set[str] = set()

    def take(self, function: Function) -> ExecutionEnvironment | None:
        """Return the function's environment that was used last, or None when there is none."""
        warm = self._idle[function.revision_id]
        while warm:
            environment, expiry = warm.pop()
            expiry.cancel()
            if not environment.sandbox.exited.done():
                return environment
            self._end_soon(environment)
        return None

    def put_back(self, environment: ExecutionEnvironment) -> None:
        """Keep an environment for the function's next invocation, unless the function has changed meanwhile."""
        if environment.function.revision_id in self._discarded:
            self._end_soon(environment)
            return
        expiry = asyncio.get_running_loop().call_later(self._idle_s, self._expire, environment)
        self._idle[environment.function.revision_id].append((environment, expiry))

    async def discard(self, function: Function) -> None:
        """End the environments of a function that has changed or is gone, once they wait."""
        self._discarded.add(function.revision_id)
        waiting = self._idle.pop(function.revision_id, [])
        for _, expiry in waiting:
            expiry.cancel()
        await asyncio.gather(*(self._environments.end(environment) for environment, _ in waiting))

    async def close(self) -> None:
        """End every waiting environment."""
        waiting = [entry for entries in self._idle.values() for entry in entries]
        self._idle.clear()
        for _, expiry in waiting:
            expiry.cancel()
        await asyncio.gather(*self._ending, *(self._environments.end(environment) for environment, _ in waiting))

    def _expire(self, environment: ExecutionEnvironment) -> None:
        waiting = self._idle[environment.function.revision_id]
        waiting[:] = [entry for entry in waiting if entry[0] is not environment]
        self._end_soon(environment)

    def _end_soon(self, environment: ExecutionEnvironment) -> None:
        task = asyncio.ensure_future(self._environments.end(environment))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
