"""The endpoint: one HTTP port that is AWS to whoever is pointed at it."""

import errno
import socket
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from aiohttp import web

from emulator.endpoint.lambda_api import LambdaApi
from emulator.endpoint.moto_bridge import MotoBridge
from emulator.endpoint.page.phases import PhaseLog
from emulator.endpoint.page.views import Page
from emulator.endpoint.step_functions_api import TARGET, StepFunctionsApi
from emulator.errors import PortInUseError
from emulator.lambda_service.functions import FunctionRegistry
from emulator.lambda_service.invocations import LambdaService
from emulator.lambda_service.warm_pool import WarmPool
from emulator.sandboxes.base import SandboxFactory
from emulator.step_functions.records import ExecutionRecord
from emulator.step_functions.service import StepFunctionsService

_BACKLOG = 1024
# AWS names no time; sandboxes have been seen to be kept for five to fifteen minutes.
_IDLE_S = 300.0
# For answers under way; their functions have been ended by then.
_SHUTDOWN_S = 0.5


class Endpoint:
    """Our Lambda and Step Functions services, and moto for everything else, on one port.

    Parameters
    ----------
    state
        Folder for the functions' code and the state machines.
    sandboxes
        Where functions run.
    host, port
        Where to listen; port 0 takes a free one.
    retry_delays_s
        Waits before a failed event is tried again, seconds.
    """

    def __init__(
        self, state: Path, sandboxes: SandboxFactory, host: str, port: int, retry_delays_s: Sequence[float]
    ) -> None:
        self._retry_delays_s = retry_delays_s
        self._state = state
        self._sandboxes = sandboxes
        self._host = host
        self._port = port
        self.moto = MotoBridge()
        self._service: LambdaService | None = None
        self._step_functions: StepFunctionsService | None = None
        self._runner: web.AppRunner | None = None

    async def start(self) -> str:
        """Begin to listen; return the endpoint's URL.

        Raises
        ------
        PortInUseError
            When the port is taken.
        """
        listener = _listen(self._host, self._port)
        # Functions are told this address, so it must be known before the first of them starts.
        url = f"http://{self._host}:{listener.getsockname()[1]}"
        functions = FunctionRegistry(self._state / "functions")
        phases = PhaseLog(self.moto)
        pool = WarmPool(self._sandboxes, phases, url, _IDLE_S)
        self._service = LambdaService(functions, pool, self._retry_delays_s)
        self._step_functions = StepFunctionsService(self._state / "step_functions", self._service, url)
        # Bodies are limited where they are read, each by its own limit.
        app = web.Application(client_max_size=2**63)
        app.add_routes(LambdaApi(functions, self._service, self.moto.read_object).routes())
        app.router.add_route("POST", "/", _by_target(StepFunctionsApi(self._step_functions), self.moto))
        app.add_routes(Page(functions, self._service, self._step_functions.executions, phases, url).routes())
        app.router.add_route("*", "/{path:.*}", self.moto.handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_S, keepalive_timeout=3600)
        await self._runner.setup()
        await web.SockSite(self._runner, listener, backlog=_BACKLOG).start()
        return url

    def executions(self) -> Sequence[ExecutionRecord]:
        """Return the state machines' executions as they stand, the last one to begin first."""
        return self._step_functions.executions() if self._step_functions is not None else ()

    async def close(self) -> None:
        """Stop listening, end the warm sandboxes and forget all state."""
        if self._step_functions is not None:
            await self._step_functions.close()
        if self._service is not None:
            await self._service.close()
        if self._runner is not None:
            await self._runner.cleanup()
        self.moto.close()


def _by_target(
    step_functions: StepFunctionsApi, moto: MotoBridge
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Return a handler for the services that name their operation in a header."""

    async def handle(request: web.Request) -> web.StreamResponse:
        if request.headers.get("X-Amz-Target", "").startswith(TARGET):
            return await step_functions.handle(request)
        return await moto.handle(request)

    return handle


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUseError("the AWS endpoint", host, port) from None
        raise
    return listener
