"""The endpoint: one HTTP port that is AWS to whoever is pointed at it."""

from collections.abc import Awaitable, Callable, Sequence

from aiohttp import web

from emulator.aws.gateway.address import listen, seen_from_here
from emulator.aws.gateway.moto_bridge import MotoBridge
from emulator.aws.lambda_.core.execution_environments import Environments
from emulator.aws.lambda_.core.function_records import FunctionRecords
from emulator.aws.lambda_.core.function_registry import FunctionRegistry
from emulator.aws.lambda_.core.invocations import LambdaService
from emulator.aws.lambda_.core.settings import LambdaSettings
from emulator.aws.lambda_.http.api import LambdaApi
from emulator.aws.limits import MIB
from emulator.aws.logs.core.store import LogStore
from emulator.aws.logs.http import TARGET as LOGS
from emulator.aws.logs.http import LogsApi
from emulator.aws.s3.core.store import ObjectStore
from emulator.aws.s3.http.api import S3Api
from emulator.aws.sandboxes.base import SandboxFactory
from emulator.aws.state import StateFolder
from emulator.aws.stepfunctions.core.records import ExecutionRecord
from emulator.aws.stepfunctions.core.service import StepFunctionsService
from emulator.aws.stepfunctions.http.api import TARGET as STEP_FUNCTIONS
from emulator.aws.stepfunctions.http.api import StepFunctionsApi
from emulator.page.phases import PhaseLog
from emulator.page.views import Page

_BACKLOG = 1024
# For answers under way; their functions have been ended by then.
_SHUTDOWN_S = 0.5
# What goes to moto is held in memory as a whole; all other bodies are limited where they are read.
_MOTO_BYTES = 64 * MIB
# Larger reads mean fewer pauses of a large body.
_READ_BUFFER_BYTES = 1024 * 1024
# A key may be 1024 bytes, percent-encoded; a presigned URL has a token besides.
_LINE_BYTES = 16 * 1024


class Endpoint:
    """Our Lambda, Step Functions, S3 and CloudWatch Logs services, and moto for everything else, on one port.

    Parameters
    ----------
    state
        Where functions, objects, logs and state machines are kept.
    sandboxes
        Where functions run.
    host, port
        Where to listen; port 0 takes a free one.
    settings
        How functions are run.
    """

    def __init__(
        self, state: StateFolder, sandboxes: SandboxFactory, host: str, port: int, settings: LambdaSettings
    ) -> None:
        self._settings = settings
        self._state = state
        self._sandboxes = sandboxes
        self._host = host
        self._port = port
        self._moto = MotoBridge()
        self._objects = ObjectStore(state)
        self.s3 = S3Api(self._objects, self._moto.handle)
        self._logs = LogStore(state)
        self._service: LambdaService | None = None
        self._step_functions: StepFunctionsService | None = None
        self._runner: web.AppRunner | None = None

    async def start(self) -> str:
        """Begin to listen; return the endpoint's URL.

        Raises
        ------
        PortInUseError
            When the port is taken.
        AddressNotHereError
            When the host is no address of this machine.
        """
        listener = listen(self._host, self._port)
        # Functions are told this address, so it must be known before the first of them starts.
        url = f"http://{seen_from_here(self._host)}:{listener.getsockname()[1]}"
        self._moto.restore(self._objects.buckets.configurations())
        functions = FunctionRegistry(FunctionRecords(self._state))
        phases = PhaseLog(self._logs)
        environments = Environments(self._sandboxes, phases, url, self._settings)
        self._service = LambdaService(functions, environments, self._settings)
        self._step_functions = StepFunctionsService(self._state.folder("step_functions"), self._service, url)
        app = web.Application(client_max_size=_MOTO_BYTES)
        app.add_routes(LambdaApi(functions, self._service, self._objects.read).routes())
        app.add_routes(Page(functions, self._service, self._step_functions.executions, phases, url).routes())
        by_service = _by_service(StepFunctionsApi(self._step_functions), LogsApi(self._logs), self.s3, self._moto)
        # Of a key, anything may be part of the path, line feeds too.
        app.router.add_route("*", "/{path:(?s:.*)}", by_service)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            shutdown_timeout=_SHUTDOWN_S,
            keepalive_timeout=3600,
            read_bufsize=_READ_BUFFER_BYTES,
            max_line_size=_LINE_BYTES,
            max_field_size=_LINE_BYTES,
            # An object is kept as it was sent, whatever its Content-Encoding.
            auto_decompress=False,
        )
        await self._runner.setup()
        await web.SockSite(self._runner, listener, backlog=_BACKLOG).start()
        return url

    def executions(self) -> Sequence[ExecutionRecord]:
        """Return the state machines' executions as they stand, the last one to begin first."""
        return self._step_functions.executions() if self._step_functions is not None else ()

    async def close(self) -> None:
        """End the executions, the events that wait and the warm sandboxes, and stop listening."""
        if self._step_functions is not None:
            await self._step_functions.close()
        if self._service is not None:
            await self._service.close()
        if self._runner is not None:
            await self._runner.cleanup()
        self.s3.close()
        self._moto.close()


def _by_service(
    step_functions: StepFunctionsApi, logs: LogsApi, s3: S3Api, moto: MotoBridge
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Return a handler for the services that are not told by their paths."""

    async def handle(request: web.Request) -> web.StreamResponse:
        target = request.headers.get("X-Amz-Target", "")
        if target.startswith(STEP_FUNCTIONS):
            return await step_functions.handle(request)
        if target.startswith(LOGS):
            return await logs.handle(request)
        return await (s3.handle(request) if s3.is_s3(request) else moto.handle(request))

    return handle
