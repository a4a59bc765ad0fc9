"""The local cloud: composes gateway, page, sandboxes and rendezvous server; starts and stops them together."""

import asyncio
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as SigningKey
from botocore.httpsession import URLLib3Session

from emulator.aws.credentials import Credentials
from emulator.aws.gateway.address import LOOPBACK, RESET_PATH, listen, local_address
from emulator.aws.lambda_.core.runtimes import check_installed
from emulator.aws.lambda_.core.settings import LambdaSettings
from emulator.aws.limits import ACCOUNT_ID, REGION
from emulator.aws.sandboxes.containers.factory import ContainerSandboxes
from emulator.aws.sandboxes.nat import Nat
from emulator.aws.sandboxes.process import ProcessSandboxes
from emulator.aws.state import StateFolder
from emulator.aws.stepfunctions.core.records import ExecutionRecord
from emulator.errors import EmulatorError, TooManyOpenFilesError, is_too_many_open_files
from emulator.fmi.aws_session import AwsSession, session_with
from emulator.fmi.event_rank import event_rank
from emulator.fmi.rendezvous_container import RendezvousPrograms
from fmi_shim import dropin
from fmi_shim.config import RENDEZVOUS_VARIABLE
from fmi_shim.faults import Action, Fault
from fmi_shim.pairing.control_connection import SECRET_VARIABLE
from fmi_shim.telemetry import BUS_VARIABLE
from rendezvous.server import RendezvousServer

if TYPE_CHECKING:
    from emulator.fmi.telemetry.hub import Telemetry

_Result = TypeVar("_Result")
# Requests go from thread to thread; at Python's default of 5 ms an S3 GET takes 18 ms instead of 6.
_SWITCH_INTERVAL_S = 0.0005
_SETTINGS = LambdaSettings()
# Imported once, by the process that forks the functions' processes.
_PRELOADED = ("numpy", "fmi_shim.communicator")


class _ExceptionHandler:
    """Reports errors in callbacks of the event loop.

    asyncio reports a hundred times a second, each with a traceback, that no connection can be accepted because too many
    files are open. Once a second and without one is enough.
    """

    def __init__(self) -> None:
        self._quiet_until = 0.0

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, OSError) or not is_too_many_open_files(error):
            loop.default_exception_handler(context)
        elif loop.time() >= self._quiet_until:
            self._quiet_until = loop.time() + 1.0
            print(f"emulator: connections wait: {TooManyOpenFilesError()}", file=sys.stderr)


@dataclass(frozen=True)
class ContainerOptions:
    """How functions run in containers.

    Parameters
    ----------
    code_image
        The image that runs archives; None to run them in processes.
    shares_memory
        Whether containers share /dev/shm.
    """

    code_image: str | None = None
    shares_memory: bool = False


class LocalCloud:
    """An AWS endpoint and a rendezvous server on this machine, as a context manager.

    Everything runs on an event loop in one thread; functions run in processes of their own. No process and no
    temporary file remains at the end, even if this process is killed.

    Parameters
    ----------
    port
        The endpoint's port; 0 selects a free one.
    preload
        Modules to import before functions start, besides numpy and fmi_shim, such as ``torch``.
    packages
        Modules that functions may import besides their own packages, those of AWS's runtime, numpy, fmi and what
        `preload` names; None for all that are installed here.
    hide_shared_memory
        Whether functions of archives have no POSIX semaphores and shared memory, as on AWS.
    settings
        How functions run.
    host
        The IPv4 address that the endpoint listens on; None for the loopback or, with containers, the address at which
        they reach this machine. Anybody who can connect to it can run programs on this machine.
    host_names
        Further names that a request's Host header may contain, besides those that `OwnNames` lists.
    credentials
        The key that requests must be signed with; None for a random one.
    state
        The folder that keeps buckets, functions, state machines and logs, even if this process is killed. Without
        one, they are deleted at the end.
    containers
        How functions run in containers; None to run archives in processes. Images run in containers in either case.
    rendezvous_secret
        The secret that the rendezvous server asks for, 16 bytes or more, which functions have in their environment;
        empty for none.
    is_open
        Whether requests are answered without a signature, too, so that whoever can connect can run programs here.
    telemetry
        Whether ranks may send their events to this cloud, see `telemetry` below.
    nat
        The NAT that each sandbox is behind; None for none. It takes root.
    account
        The number of the account, twelve digits: part of all ARNs.

    Attributes
    ----------
    endpoint_url
        For ``AWS_ENDPOINT_URL``.
    credentials
        The key for requests.
    page_url
        The page, with the token that opens it.
    rendezvous
        ``host:port`` for ``FMI_RENDEZVOUS``.
    notes
        One sentence for each feature that this machine does not support.
    telemetry
        The histories of runs whose ranks have FMI_TELEMETRY; None without telemetry.
    """

    def __init__(
        self,
        port: int = 0,
        preload: Sequence[str] = (),
        settings: LambdaSettings = _SETTINGS,
        state: Path | None = None,
        host: str | None = None,
        host_names: Sequence[str] = (),
        credentials: Credentials | None = None,
        containers: ContainerOptions | None = None,
        nat: Nat | None = None,
        *,
        rendezvous_secret: str = "",
        packages: Sequence[str] | None = None,
        hide_shared_memory: bool = False,
        is_open: bool = False,
        telemetry: bool = False,
        account: str = ACCOUNT_ID,
    ) -> None:
        self._is_open = is_open
        self.credentials = credentials or Credentials.random()
        self._functions_key = Credentials.random_session()
        self._packages = None if packages is None else (*packages, *preload)
        self._settings = replace(
            settings, annotate_event=event_rank, credentials=self._functions_key, packages=self._packages
        )
        self._state_path = state
        self._host = host
        self._container_options = containers
        self._nat = nat
        self._rendezvous: RendezvousServer
        self._rendezvous_secret = rendezvous_secret
        self._host_names = host_names
        self._port = port
        self._preload = preload
        self._hide_shared_memory = hide_shared_memory
        self._has_telemetry = telemetry
        self._account = account
        self.telemetry: Telemetry | None = None
        self.endpoint_url = ""
        self.rendezvous = ""
        self.page_url = ""
        self.notes: list[str] = []

    def __enter__(self) -> Self:
        """Start everything.

        Raises
        ------
        PortInUseError
            When the endpoint's port is in use.
        AddressNotAvailableError
            When the host is not an address of this machine.
        EmulatorError
            When the runtime client is not installed.
        StateError
            When the state folder cannot be used.
        """
        check_installed(self._settings.runtime_client)
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(_ExceptionHandler())
        self._thread = threading.Thread(target=self._loop.run_forever, name="local-cloud", daemon=True)
        self._thread.start()
        try:
            self._call(self._start())
        except BaseException:
            self._stop_loop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop everything and wait until it has ended."""
        try:
            self._call(self._close())
        finally:
            self._stop_loop()

    def stop_functions(self) -> None:
        """Kill every running function; their callers receive an error."""
        self._loop.call_soon_threadsafe(self._processes.kill_all)
        self._loop.call_soon_threadsafe(self._containers.kill_all)

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which boto3 and the other AWS SDKs use this endpoint."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            **self.credentials.environment(),
        }

    def client(self, service: str) -> Any:
        """Return a boto3 client of this endpoint, for example ``client("s3")``."""
        return AwsSession(session_with(self.credentials), self.endpoint_url).client(service)

    def reset(self) -> None:
        """Empty every service, and end what is running."""
        request = AWSRequest("POST", f"{self.endpoint_url}{RESET_PATH}", data=b"")
        key = self.credentials
        signer = SigV4Auth(SigningKey(key.access_key_id, key.secret_access_key, key.session_token), "moto-api", REGION)
        signer.add_auth(request)
        response = URLLib3Session().send(request.prepare())
        if response.status_code != HTTPStatus.OK:
            raise EmulatorError(f"the local cloud cannot be reset: {response.status_code} {response.text[:200]}")

    def s3_requests(self) -> dict[str, int]:
        """Return the number of S3 requests so far, by HTTP method."""
        return dict(self._gateway.s3.requests)

    def plan_faults(self, faults: Sequence[Fault], seed: int = 0) -> None:
        """Have the endpoint and the rendezvous server fail as the faults say; other faults are the ranks'.

        They replace those of an earlier call. Requests and times are counted from now; the seed decides which of the
        requests fail where a share of them is given.
        """
        self._loop.call_soon_threadsafe(self._gateway.faults.plan, faults, seed)
        for fault in faults:
            if fault.of_server:
                at = 0.0 if fault.moment is None else fault.moment.seconds or 0.0
                asyncio.run_coroutine_threadsafe(self._fail_server(fault, at), self._loop)

    def missed_faults(self) -> list[str]:
        """Return a line for each planned fault of a request that was never made."""
        return self._gateway.faults.missed()

    async def _close_rendezvous(self) -> None:
        await self._rendezvous.close()

    async def _fail_server(self, fault: Fault, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self._rendezvous.close()
        if fault.action is Action.RESTART_SERVER:
            await asyncio.sleep(fault.lasts or 0.0)
            self._rendezvous = self._rendezvous_server(self._rendezvous.host, self._rendezvous.port)
            await self._rendezvous.start()

    def _rendezvous_server(self, host: str, port: int) -> RendezvousServer:
        observer = self._observe_server if self._has_telemetry else None
        return RendezvousServer(host, port, secret=self._rendezvous_secret.encode(), observer=observer)

    def _observe_server(self, job: str, what: str) -> None:
        from fmi_shim.telemetry.events import Observed  # a cloud without telemetry does not pay for the import

        now = time.time_ns()
        if self.telemetry is not None:
            event = Observed("rendezvous server", None, what, now, now)
            # The history may be busy for a while; the event loop must not wait for it.
            self._loop.run_in_executor(None, self.telemetry.observe, job, event)

    def executions(self) -> Sequence[ExecutionRecord]:
        """Return the executions of all state machines, newest first."""

        async def read() -> Sequence[ExecutionRecord]:
            return self._gateway.step_functions.executions()

        return self._call(read())

    async def _start(self) -> None:
        async with AsyncExitStack() as started:
            # When this process is killed, the zygote's supervisor removes this folder.
            scratch = Path(tempfile.mkdtemp(prefix="fmi-emulator-"))
            started.callback(shutil.rmtree, scratch, ignore_errors=True)
            # An unusable state folder is reported before any process starts.
            state = StateFolder(
                self._state_path or scratch / "state", lasting=self._state_path is not None, account=self._account
            )
            started.callback(state.close)
            address = await self._start_sandboxes(started, scratch)
            host = self._host or address
            listener = started.enter_context(listen(host, self._port))
            self.endpoint_url = f"http://{local_address(host)}:{listener.getsockname()[1]}"
            await self._start_rendezvous(started, address)
            await self._start_gateway(started, state, listener)
            self._started = started.pop_all()

    async def _start_sandboxes(self, started: AsyncExitStack, scratch: Path) -> str:
        """Start what runs functions; return the address at which they reach this machine."""
        options = self._container_options
        # With containers alone, the processes' supervisor removes the scratch folder and idles.
        bus = ("fmi_shim.telemetry.bus", "fmi_shim.tracing") if self._has_telemetry else ()
        preload = () if options is not None and options.code_image else (*_PRELOADED, *bus, *self._preload)
        self._processes = ProcessSandboxes(
            scratch,
            preload,
            Path(dropin.__file__).parent,
            self._nat if options is None else None,
            packages=self._packages,
            hide_shared_memory=self._hide_shared_memory,
        )
        await self._processes.start()
        started.push_async_callback(self._processes.close)
        in_containers = options or ContainerOptions()
        self._containers = ContainerSandboxes(
            scratch, in_containers.code_image, self._nat, shares_memory=in_containers.shares_memory
        )
        started.push_async_callback(self._containers.close)
        if options is not None:
            place = await self._containers.place()
            self.notes.extend(self._containers.notes)
            return place.address
        if (reason := self._processes.cpu_shares_missing) is not None:
            self.notes.append(f"CPU shares are not enforced, every function may use every core: {reason}")
        return self._host or LOOPBACK if self._nat is None else (await self._processes.place()).address

    async def _start_rendezvous(self, started: AsyncExitStack, host: str) -> None:
        """Start the rendezvous server and, where it is asked for, what collects the ranks' events."""
        self._rendezvous = self._rendezvous_server(host, 0)
        await self._rendezvous.start()
        started.push_async_callback(self._close_rendezvous)
        self.rendezvous = f"{local_address(host)}:{self._rendezvous.port}"
        if self._has_telemetry:
            # A cloud without it does not pay for the import.
            from emulator.fmi.telemetry.hub import Telemetry
            from emulator.fmi.telemetry.kept import KeptRuns

            kept = None if self._state_path is None else KeptRuns(self._state_path / "telemetry")
            self.telemetry = started.enter_context(Telemetry(host, local_address(host), kept=kept))

    async def _start_gateway(self, started: AsyncExitStack, state: StateFolder, listener: socket.socket) -> None:
        """Start the services and the page."""
        # Importing moto takes as long as starting the zygote: on two cores, both run in parallel.
        from emulator.aws.gateway.admission import PageAccess
        from emulator.aws.gateway.app import Gateway
        from emulator.aws.gateway.browser_requests import PAGE_ROOT, OwnNames
        from emulator.aws.gateway.key_ring import KeyRing
        from emulator.aws.logs.core import LogStore
        from emulator.page.archive import RunArchive
        from emulator.page.phases import PhaseLog
        from emulator.page.recordings import Recordings
        from emulator.page.views import Page

        page_access = None if self._is_open else PageAccess()
        self.page_url = f"{self.endpoint_url}{PAGE_ROOT}{page_access.query if page_access else ''}"
        self._settings = replace(self._settings, variables=self._function_variables())
        logs = LogStore(state)
        phases = PhaseLog(logs)
        self._gateway = gateway = Gateway(
            state,
            listener,
            self.endpoint_url,
            self._containers if self._container_options and self._container_options.code_image else self._processes,
            self._containers,
            self._settings,
            logs,
            log_sink=phases,
            names=OwnNames(self._host_names),
            keys=None if self._is_open else KeyRing([self.credentials, self._functions_key]),
            page_access=page_access,
            own=self.credentials,
            programs=RendezvousPrograms(self.endpoint_url, self._functions_key),
            account=self._account,
        )
        started.push_async_callback(gateway.close)
        self._processes.hosts.names = gateway.host_names
        archive = None if self._state_path is None else RunArchive(self._state_path / "runs", phases)
        page = Page(
            gateway.functions,
            gateway.lambda_service,
            gateway.step_functions.executions,
            phases,
            self.endpoint_url,
            self.credentials,
            self.telemetry.jobs if self.telemetry is not None else tuple,
            archive,
        )
        if archive is not None:
            gateway.on_reset.append(archive.clear)
            started.callback(page.archive_ended_runs)
            started.callback(asyncio.ensure_future(page.archive_runs()).cancel)
        recordings = Recordings(page.templates, self.telemetry)
        started.push_async_callback(recordings.close)
        self.notes.extend(await gateway.start([*recordings.routes(), *page.routes()]))

    def _function_variables(self) -> dict[str, str]:
        """Return the variables by which functions find the rendezvous server and the collector of their events."""
        variables = {RENDEZVOUS_VARIABLE: self.rendezvous}
        if self._rendezvous_secret:
            variables[SECRET_VARIABLE] = self._rendezvous_secret
        if self.telemetry is not None:
            variables[BUS_VARIABLE] = self.telemetry.variable
        return variables

    async def _close(self) -> None:
        await self._started.aclose()

    def _call(self, coroutine: Coroutine[Any, Any, _Result]) -> _Result:
        future: Future[_Result] = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        return future.result()

    def _stop_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
