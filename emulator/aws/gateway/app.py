"""The gateway: one HTTP port for all AWS services and the routes added to it."""

import socket
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any

from aiohttp import web

from emulator.aws.account import Account
from emulator.aws.cloudformation.catalog import Catalog
from emulator.aws.cloudformation.http import CloudFormationApi
from emulator.aws.cloudformation.service import CloudFormationService
from emulator.aws.cloudformation.stack_records import StackRecords
from emulator.aws.cloudformation.types.custom import ResponseUrls
from emulator.aws.cloudformation.types.nested_stack import NestedStack
from emulator.aws.credentials import Credentials
from emulator.aws.ecs.http import DESCRIBE_CLUSTERS, EcsApi
from emulator.aws.ecs.network import LoopbackNetwork
from emulator.aws.ecs.programs import Programs
from emulator.aws.gateway.address import LOOPBACK, RESET_PATH, listen
from emulator.aws.gateway.admission import Admission, PageAccess
from emulator.aws.gateway.browser_requests import OwnNames
from emulator.aws.gateway.host_names import addresses, records_of_moto
from emulator.aws.gateway.key_ring import KeyRing
from emulator.aws.gateway.moto_bridge import MotoBridge
from emulator.aws.gateway.moto_state import MotoState
from emulator.aws.gateway.request_faults import RequestFaults
from emulator.aws.lambda_.code_downloads import CodeDownloads
from emulator.aws.lambda_.core.code_signing import CodeSigningConfigs
from emulator.aws.lambda_.core.event_outcomes import EventObserver, EventOutcome
from emulator.aws.lambda_.core.execution_environments import ExecutionEnvironments
from emulator.aws.lambda_.core.function_records import FunctionRecords
from emulator.aws.lambda_.core.function_registry import FunctionRegistry
from emulator.aws.lambda_.core.function_urls import FunctionUrls
from emulator.aws.lambda_.core.invocations import LambdaService
from emulator.aws.lambda_.core.layers import Layers
from emulator.aws.lambda_.core.references import Reference, account_of
from emulator.aws.lambda_.core.settings import LambdaSettings
from emulator.aws.lambda_.http.api import LambdaApi
from emulator.aws.lambda_.log_lines import LogSink
from emulator.aws.lambda_.url_requests import FunctionUrlRequests
from emulator.aws.limits import MIB
from emulator.aws.logs.core import LogStore
from emulator.aws.logs.http import LogsApi
from emulator.aws.logs.resource_policies import ResourcePolicies
from emulator.aws.protocol.credential_scope import credential_scope
from emulator.aws.s3.core.store import ObjectStore
from emulator.aws.s3.http.api import S3Api
from emulator.aws.sandboxes.base import SandboxFactory
from emulator.aws.sdk_client import AwsClient
from emulator.aws.state import StateFolder
from emulator.aws.stepfunctions.core.service import StepFunctionsService
from emulator.aws.stepfunctions.http.api import StepFunctionsApi
from emulator.aws.triggers.destinations import Destinations
from emulator.aws.triggers.event_bus import EventBus
from emulator.aws.triggers.event_sources import EventSources
from emulator.aws.triggers.event_sources_http import EventSourcesApi
from emulator.aws.triggers.log_subscriptions import LogSubscriptions
from emulator.aws.triggers.notifications import Notifications
from emulator.aws.triggers.schedules import Schedules
from emulator.aws.triggers.subscriptions import FunctionSubscriptions
from emulator.aws.triggers.targets import Targets

_BACKLOG = 1024
# For responses in progress; their functions have ended by then.
_SHUTDOWN_S = 0.5
# Requests to moto are held in memory as a whole; all other bodies are limited where they are read.
_MOTO_BYTES = 64 * MIB
# Roles and groups have AWS's own policies, those of templates, too.
_NEED_MANAGED_POLICIES = ("cloudformation", "iam")
# Larger reads pause a large body less often.
_READ_BUFFER_BYTES = 1024 * 1024
# A key may have 1024 bytes, percent-encoded, and a presigned URL also has a token.
_LINE_BYTES = 16 * 1024


class Gateway:
    """Serves Lambda, Step Functions, S3 and CloudWatch Logs by services of our own, all others by moto, on one port.

    Parameters
    ----------
    state
        The folder that stores functions, objects, logs and state machines.
    listener
        A bound socket; `start` listens on it.
    url
        Its URL, for functions' ``AWS_ENDPOINT_URL``.
    sandboxes
        Starts what functions of archives run in.
    containers
        Starts the containers that functions of images run in.
    settings
        How functions run.
    logs
        The log store that CloudWatch Logs serves.
    log_sink
        Receives the functions' log lines: `logs`, or an observer in front of it.
    names
        The names that a request's Host header may contain.
    keys
        The keys that requests must be signed with; None if signatures are not checked.
    page_access
        Opens the page; None if everybody may see it.
    own
        The key of the endpoint's own requests.
    programs
        What the containers of ECS run as.
    account
        The number of the account.

    Attributes
    ----------
    functions, lambda_service, step_functions, s3
        The services behind the port.
    lambda_api
        Lambda's operations by their names, for other services.
    on_reset
        Called when every store is emptied.
    """

    def __init__(
        self,
        state: StateFolder,
        listener: socket.socket,
        url: str,
        sandboxes: SandboxFactory,
        containers: SandboxFactory,
        settings: LambdaSettings,
        logs: LogStore,
        log_sink: LogSink,
        names: OwnNames,
        keys: KeyRing | None,
        page_access: PageAccess | None,
        own: Credentials,
        programs: Programs,
        account: str,
    ) -> None:
        self.on_reset: list[Callable[[], None]] = []
        self._listener = listener
        self._urls = {LOOPBACK: url}
        self._account = account
        # Without a lasting folder there is nothing to keep.
        self._moto_state = MotoState(state.folder("moto")) if state.is_lasting else None
        self._moto = MotoBridge(account, self._moto_state.changed if self._moto_state is not None else lambda: None)
        self._objects = ObjectStore(state)
        self.s3 = S3Api(self._objects, self._moto.configure_bucket, account)
        records = FunctionRecords(state)
        self.functions = FunctionRegistry(records)
        self._layers = Layers(state, self.functions.layer_uses())
        self._code_signing = CodeSigningConfigs(state.database)
        environments = ExecutionEnvironments(sandboxes, containers, log_sink, self._url_at, settings)
        self.lambda_service = LambdaService(self.functions, environments, settings)
        urls = FunctionUrls(self.functions, url)
        self._url_requests = FunctionUrlRequests(urls, self.lambda_service)
        self._downloads = CodeDownloads(url, records.folder, records.layers_folder)
        self.lambda_api = LambdaApi(
            self.functions,
            self.lambda_service,
            self._layers,
            self._code_signing,
            urls,
            self._objects.read,
            self._moto.vpc_of,
            self._downloads,
            account,
        )
        machines = state.folder("step_functions")
        self._aws = AwsClient(url, own)
        self.step_functions = StepFunctionsService(machines, state.reserve, self.lambda_service, self._aws)
        response_urls = ResponseUrls(url)
        types = Catalog(self._aws, response_urls)
        self._cloudformation = CloudFormationService(StackRecords(state), self._aws, types, account)
        types.serve_stacks(NestedStack(self._cloudformation, self._cloudformation.deploy_nested))
        self._stacks = CloudFormationApi(self._cloudformation, self._aws, response_urls)
        self._targets = Targets(self._aws)
        self._event_bus = EventBus(self._targets, account)
        self._subscriptions = FunctionSubscriptions(self._targets)
        self._schedules = Schedules(self._event_bus, self._targets, account)
        # What takes moto's place in a service, before that is first used.
        self._before_moto: Mapping[str, Callable[[], None]] = {
            "events": self._open_events,
            "scheduler": self._schedules.open,
            "sns": self._subscriptions.open,
        }
        self._event_sources = EventSources(state.database, self._aws, self._targets, account)
        mappings = EventSourcesApi(self._event_sources, self.functions, self._aws)
        self.lambda_api.add_operations(mappings.operations())
        self.lambda_api.add_tagged("event-source-mapping", mappings)
        observers = (Destinations(self._targets).ended, response_urls.event_ended)
        self.lambda_service.on_event_ended = partial(_tell_all, observers)
        read = partial(self._objects.buckets.configuration, part="notification")
        self._objects.observer = Notifications(self._targets, self._aws, self._event_bus.emit, read)
        self._network = network = LoopbackNetwork(self._aws, account)
        self._ecs = EcsApi(self._aws, programs, network, account, self._emit_of_ecs)
        self._logs = LogsApi(logs, ResourcePolicies(state.database), self._has_function, account)
        logs.subscriber = LogSubscriptions(self._targets, account).publish
        self.faults = RequestFaults(lambda request: "path" in request.match_info and self.s3.is_s3(request))
        self._admission = Admission(names, self.s3, self._url_requests, keys, page_access, self.faults)
        self._runner: web.AppRunner | None = None

    async def start(self, extra_routes: Iterable[web.AbstractRouteDef] = ()) -> list[str]:
        """Start to serve.

        Parameters
        ----------
        extra_routes
            Routes that take precedence over the services that are not identified by their paths.

        Returns
        -------
        list of str
            One sentence for each thing that an earlier run left and that is not as it was.
        """
        notes = self._restore()
        app = web.Application(client_max_size=_MOTO_BYTES)
        app.add_routes(self.lambda_api.routes())
        app.add_routes(self._downloads.routes())
        app.add_routes(self._url_requests.routes())
        app.add_routes(extra_routes)
        app.router.add_post(RESET_PATH, self._reset)
        app.add_routes(self._stacks.routes())
        by_service = _by_service(
            StepFunctionsApi(self.step_functions, self._account),
            self._logs,
            self._stacks,
            self._ecs,
            self.s3,
            self._moto,
            self._before_moto,
        )
        # A key may contain any character, line feeds included.
        app.router.add_route("*", "/{path:(?s:.*)}", by_service)
        self._admission.install(app)
        app.middlewares.append(self._url_requests.serve_hosts)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            shutdown_timeout=_SHUTDOWN_S,
            keepalive_timeout=3600,
            read_bufsize=_READ_BUFFER_BYTES,
            max_line_size=_LINE_BYTES,
            max_field_size=_LINE_BYTES,
            # S3 stores the body as sent, whatever its Content-Encoding.
            auto_decompress=False,
        )
        await self._runner.setup()
        await web.SockSite(self._runner, self._listener, backlog=_BACKLOG).start()
        self._event_sources.resume()
        return notes

    def _restore(self) -> list[str]:
        """Bring back what an earlier run has stored; return notes on what is not as it was."""
        self._moto.restore(self._objects.buckets.configurations())
        notes = self._cloudformation.resume()
        if self._moto_state is not None and self._moto_state.exists:
            note = self._moto_state.restore()
            notes += [] if note is None else [note]
            for module, begin in self._before_moto.items():
                if f"moto.{module}.models" in sys.modules:
                    begin()
        return notes

    def host_names(self) -> dict[str, str]:
        """Return the address of each name with a record in Route 53."""
        return addresses(records_of_moto(), self._network.balancer_addresses)

    async def _url_at(self, address: str) -> str:
        """Return the endpoint's URL for functions that reach this machine at an address; listen there, too."""
        host, port = self._listener.getsockname()[:2]
        if address not in self._urls:
            self._urls[address] = f"http://{address}:{port}"
            if host not in (address, "0.0.0.0"):  # noqa: S104 - compared
                assert self._runner is not None  # noqa: S101 - functions run after start
                site = web.SockSite(self._runner, listen(address, port), backlog=_BACKLOG)
                await site.start()
        return self._urls[address]

    async def _reset(self, request: web.Request) -> web.StreamResponse:
        """Empty every store: what is running is stopped first, so that it stores nothing afterwards."""
        await self._cloudformation.reset()
        await self._ecs.reset()
        await self._event_sources.reset()
        await self.step_functions.reset()
        await self.lambda_service.reset()
        self._layers.clear()
        self._code_signing.clear()
        self._logs.clear()
        for follow in self.on_reset:
            follow()
        return await self.s3.reset(lambda: self._moto.reset(request))

    def _has_function(self, arn: str) -> bool:
        return self.functions.exists(Reference.parse(arn, account=account_of(arn, Account(number=self._account))))

    def _open_events(self) -> None:
        self._event_bus.open()
        self._schedules.open()

    def _emit_of_ecs(self, region: str, kind: str, resources: list[str], detail: Mapping[str, Any]) -> None:
        self._event_bus.emit(region, "aws.ecs", kind, resources, detail)

    async def close(self) -> None:
        """End executions, queued events and warm sandboxes, and stop listening."""
        await self._cloudformation.close()
        await self._ecs.close()
        await self._event_sources.close()
        await self._schedules.close()
        self._subscriptions.close()
        self._event_bus.close()
        await self._targets.close()
        await self.step_functions.close()
        await self.lambda_service.close()
        if self._runner is not None:
            await self._runner.cleanup()
        self._aws.close()
        self.s3.close()
        self._objects.close()
        if self._moto_state is not None:
            await self._moto_state.close()
        self._moto.close()


def _tell_all(observers: Iterable[EventObserver], outcome: EventOutcome) -> None:
    for observer in observers:
        observer(outcome)


def _by_service(
    step_functions: StepFunctionsApi,
    logs: LogsApi,
    stacks: CloudFormationApi,
    ecs: EcsApi,
    s3: S3Api,
    moto: MotoBridge,
    before_moto: Mapping[str, Callable[[], None]],
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Return a handler for the services that are identified by their headers, not their paths."""

    async def handle(request: web.Request) -> web.StreamResponse:
        target = request.headers.get("X-Amz-Target", "")
        if step_functions.serves(target):
            return await step_functions.handle(request)
        if logs.serves(target):
            return await logs.handle(request)
        if s3.is_s3(request):
            return await s3.handle(request)
        scope = credential_scope(request)
        if scope.service in _NEED_MANAGED_POLICIES:
            await moto.load_managed_policies()
        if scope.service == "cloudformation":
            return await stacks.handle(request, scope.region)
        if scope.service in before_moto:
            before_moto[scope.service]()
        if ecs.serves(target):
            return await ecs.handle(request, scope.region)
        response = await moto.handle(request)
        return ecs.counted(response) if target == DESCRIBE_CLUSTERS else response

    return handle
