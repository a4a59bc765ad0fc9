"""The local cloud: composes gateway, page, sandboxes and rendezvous server; starts and stops them together."""

import asyncio
import shutil
import sys
import tempfile
import threading
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from emulator.aws.gateway.address import LOOPBACK, listen, local_address
from emulator.aws.lambda_.core.runtimes import check_installed
from emulator.aws.lambda_.core.settings import LambdaSettings
from emulator.aws.sandboxes.process import ProcessSandboxes
from emulator.aws.state import StateFolder
from emulator.aws.stepfunctions.core.records import ExecutionRecord
from emulator.fmi.event_rank import event_rank
from rendezvous.server import RendezvousServer

_Result = TypeVar("_Result")
# Requests go from thread to thread; at Python's default of 5 ms an S3 GET takes 18 ms instead of 6.
_SWITCH_INTERVAL_S = 0.0005
_SETTINGS = LambdaSettings()
# Imported once, by the process that forks the functions' processes.
_PRELOADED = ("numpy", "fmi_shim.communicator")


class LocalCloud:
    """A context manager within which there is an AWS endpoint on this machine.

    Everything runs in one thread with an event loop; functions run in processes of their own. Nothing is left
    behind at the end, even when this process is killed.

    Parameters
    ----------
    port
        The endpoint's port; 0 takes a free one.
    preload
        Modules to import before functions start, besides numpy and fmi_shim, such as ``torch``.
    settings
        How functions are run.
    host
        The IPv4 address that endpoint and rendezvous server listen on. Whoever reaches it can run programs here.
    state
        A folder in which buckets, functions, state machines and logs outlive this cloud, even when this process is
        killed. Without one, they are gone at the end.

    Attributes
    ----------
    endpoint_url
        For ``AWS_ENDPOINT_URL``.
    rendezvous
        ``host:port`` for ``FMI_RENDEZVOUS``.
    notes
        What cannot be emulated on this machine, a sentence each.
    """

    def __init__(
        self,
        port: int = 0,
        preload: Sequence[str] = (),
        settings: LambdaSettings = _SETTINGS,
        state: Path | None = None,
        host: str = LOOPBACK,
    ) -> None:
        self._settings = replace(settings, annotate_event=event_rank)
        self._state_path = state
        self._host = host
        self._port = port
        self._preload = preload
        self.endpoint_url = ""
        self.rendezvous = ""
        self.notes: list[str] = []

    def __enter__(self) -> Self:
        """Start everything.

        Raises
        ------
        PortInUseError
            When the endpoint's port is taken.
        AddressNotAvailableError
            When the host is no address of this machine.
        EmulatorError
            When the runtime client is not installed.
        StateError
            When the folder for the state cannot be used.
        """
        check_installed(self._settings.runtime_client)
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        self._loop = asyncio.new_event_loop()
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
        """Stop everything and wait until it is gone."""
        try:
            self._call(self._close())
        finally:
            self._stop_loop()

    def stop_functions(self) -> None:
        """End every running function at once; their callers get an error."""
        self._loop.call_soon_threadsafe(self._sandboxes.kill_all)

    def s3_requests(self) -> dict[str, int]:
        """Return how many S3 requests there have been, by HTTP method."""
        return dict(self._gateway.s3.requests)

    def executions(self) -> Sequence[ExecutionRecord]:
        """Return the state machines' executions as they stand, the last one to begin first."""

        async def read() -> Sequence[ExecutionRecord]:
            return self._gateway.step_functions.executions()

        return self._call(read())

    async def _start(self) -> None:
        async with AsyncExitStack() as started:
            # When this process is killed, it is the zygote's keeper that removes this folder.
            scratch = Path(tempfile.mkdtemp(prefix="fmi-emulator-"))
            started.callback(shutil.rmtree, scratch, ignore_errors=True)
            # What is refused is refused before anything runs.
            state = StateFolder(self._state_path or scratch / "state", lasting=self._state_path is not None)
            started.callback(state.close)
            self._sandboxes = ProcessSandboxes(scratch, (*_PRELOADED, *self._preload))
            await self._sandboxes.start()
            started.push_async_callback(self._sandboxes.close)
            if (reason := self._sandboxes.cpu_shares_missing) is not None:
                self.notes.append(f"CPU shares are not enforced here, every function may use every core: {reason}")
            # Moto takes as long to import as the zygote takes to get ready: on two cores, the one hides the other.
            from emulator.aws.gateway.app import Gateway
            from emulator.aws.logs.core import LogStore
            from emulator.page.phases import PhaseLog
            from emulator.page.views import Page

            listener = started.enter_context(listen(self._host, self._port))
            self.endpoint_url = f"http://{local_address(self._host)}:{listener.getsockname()[1]}"
            logs = LogStore(state)
            phases = PhaseLog(logs)
            self._gateway = gateway = Gateway(
                state, listener, self.endpoint_url, self._sandboxes, self._settings, logs, log_sink=phases
            )
            started.push_async_callback(gateway.close)
            page = Page(
                gateway.functions,
                gateway.lambda_service,
                gateway.step_functions.executions,
                phases,
                self.endpoint_url,
            )
            await gateway.start(page.routes())
            rendezvous = RendezvousServer(self._host, 0)
            await rendezvous.start()
            started.push_async_callback(rendezvous.close)
            self.rendezvous = f"{local_address(self._host)}:{rendezvous.port}"
            self._started = started.pop_all()

    async def _close(self) -> None:
        await self._started.aclose()

    def _call(self, coroutine: Coroutine[Any, Any, _Result]) -> _Result:
        future: Future[_Result] = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        return future.result()

    def _stop_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
