"""Tasks: their life from PROVISIONING to STOPPED, with the events of each state.

States: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-lifecycle-explanation.html
"""

import asyncio
import contextlib
import json
import logging
import re
import shlex
import time
import uuid
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from botocore.exceptions import BotoCoreError, ClientError

from emulator.aws.ecs.container_process import STOP_S, ContainerProcess
from emulator.aws.ecs.programs import Container, Program, Programs
from emulator.aws.sdk_client import AwsClient
from emulator.errors import EmulatorError

_log = logging.getLogger(__name__)
STOPPED, RUNNING = "STOPPED", "RUNNING"
_LOG_PAUSE_S = 0.2
# A connection of a health check to the task itself.
_LOOPBACK = re.compile(r"\b(127\.0\.0\.1|localhost)\b")


class Network(Protocol):
    """Gives tasks their addresses and network interfaces, and registers them at load balancers."""

    async def attach(self, region: str, configuration: Mapping[str, Any]) -> "Interface":
        """Make an interface."""

    async def detach(self, region: str, interface: "Interface") -> None:
        """Remove an interface."""

    async def register(self, region: str, balancers: Sequence[Mapping[str, Any]], address: str) -> None:
        """Make a task a target of its service's load balancers."""

    async def deregister(self, region: str, balancers: Sequence[Mapping[str, Any]], address: str) -> None:
        """Undo `register`."""


@dataclass(frozen=True)
class Interface:
    """A network interface of a task.

    Parameters
    ----------
    id, subnet, mac
        As EC2 describes it.
    address
        Where programs of this machine reach the task.
    """

    id: str
    subnet: str
    mac: str
    address: str


@dataclass
class ContainerState:
    """A container of a task."""

    definition: Mapping[str, Any]
    name: str
    image: str
    is_essential: bool
    process: ContainerProcess | None = None
    status: str = "PENDING"
    exit_code: int | None = None
    reason: str | None = None
    health: str = "UNKNOWN"
    runtime_id: str = field(default_factory=lambda: uuid.uuid4().hex)


@dataclass
class Task:
    """A task.

    Parameters
    ----------
    arn, cluster
        Their ARNs.
    definition
        The task definition, as ECS describes it.
    request
        What RunTask, or the service, asked for.
    """

    arn: str
    region: str
    cluster: str
    definition: Mapping[str, Any]
    request: Mapping[str, Any]
    containers: list[ContainerState]
    group: str
    started_by: str | None = None
    tags: Sequence[Mapping[str, str]] = ()
    status: str = "PROVISIONING"
    desired: str = RUNNING
    stop_code: str | None = None
    reason: str | None = None
    interface: Interface | None = None
    version: int = 1
    times: dict[str, float] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def id(self) -> str:
        """The last part of its ARN."""
        return self.arn.rpartition("/")[2]

    @property
    def balancers(self) -> Sequence[Mapping[str, Any]]:
        """Target groups and ports of its service's load balancers."""
        found: Sequence[Mapping[str, Any]] = self.request.get("loadBalancers") or []
        return found

    @property
    def is_stopped(self) -> bool:
        """Whether it has ended."""
        return self.status == STOPPED

    @property
    def health(self) -> str:
        """UNHEALTHY if an essential container is, HEALTHY if all that are checked are."""
        checked = [item.health for item in self.containers if item.is_essential and "healthCheck" in item.definition]
        if "UNHEALTHY" in checked:
            return "UNHEALTHY"
        return "HEALTHY" if checked and set(checked) == {"HEALTHY"} else "UNKNOWN"


class TaskRunner:
    """Starts and stops tasks.

    Parameters
    ----------
    aws
        Writes logs and reads secrets.
    programs
        What containers run as.
    network
        Gives tasks addresses.
    on_change
        Called at each new state of a task.
    """

    def __init__(self, aws: AwsClient, programs: Programs, network: Network, on_change: Callable[[Task], None]) -> None:
        self._aws = aws
        self._programs = programs
        self._network = network
        self._on_change = on_change
        self._running: dict[str, asyncio.Task[None]] = {}
        self._followers: set[asyncio.Task[None]] = set()

    def start(self, task: Task) -> None:
        """Start a task; it goes on by itself until it is stopped, or an essential container ends."""
        task.times["createdAt"] = time.time()
        run = asyncio.get_running_loop().create_task(self._run(task), name=task.arn)
        self._running[task.arn] = run
        run.add_done_callback(lambda _: self._running.pop(task.arn, None))

    def stop(self, task: Task, reason: str, code: str) -> None:
        """Ask a task to stop."""
        if task.desired == STOPPED:
            return
        task.desired, task.reason, task.stop_code = STOPPED, reason, code
        task.changed.set()

    async def close(self) -> None:
        """End all tasks and wait for their ends."""
        for runs in (list(self._running.values()), list(self._followers)):
            for run in runs:
                run.cancel()
            await asyncio.gather(*runs, return_exceptions=True)

    async def _run(self, task: Task) -> None:
        try:
            await self._live(task)
        finally:
            # At the end of everything, there is no time to end in order.
            for state in task.containers:
                if state.process is not None:
                    state.process.kill()

    async def _live(self, task: Task) -> None:
        """Bring a task through all its states."""
        try:
            self._move(task, "PROVISIONING")
            if task.definition.get("networkMode") == "awsvpc":
                configuration = task.request.get("networkConfiguration", {}).get("awsvpcConfiguration", {})
                task.interface = await self._network.attach(task.region, configuration)
            self._move(task, "PENDING", "pullStartedAt")
            await self._start_containers(task)
            if task.interface is not None and task.balancers:
                await self._network.register(task.region, task.balancers, task.interface.address)
            self._move(task, RUNNING, "pullStoppedAt", "startedAt")
            await self._watch(task)
        except (EmulatorError, ClientError, BotoCoreError, OSError) as error:
            task.reason, task.stop_code = f"ResourceInitializationError: {error}", "TaskFailedToStart"
        except Exception as error:  # noqa: BLE001 - an error in the emulator must end the task
            _log.exception("task %s failed", task.arn)
            task.reason, task.stop_code = f"internal error: {error}", "TaskFailedToStart"
        task.desired = STOPPED
        self._move(task, "DEACTIVATING", "stoppingAt")
        if task.interface is not None and task.balancers:
            with contextlib.suppress(ClientError, BotoCoreError):
                await self._network.deregister(task.region, task.balancers, task.interface.address)
        await self._stop_containers(task, STOP_S)
        self._move(task, "DEPROVISIONING", "executionStoppedAt")
        if task.interface is not None:
            with contextlib.suppress(ClientError, BotoCoreError):
                await self._network.detach(task.region, task.interface)
        self._move(task, STOPPED, "stoppedAt")

    async def _start_containers(self, task: Task) -> None:
        address = task.interface.address if task.interface is not None else "127.0.0.1"
        overrides = {item["name"]: item for item in task.request.get("overrides", {}).get("containerOverrides", [])}
        for state in task.containers:
            container = await self._container(task, state, overrides.get(state.name, {}))
            program = self._programs.find(container, address)
            if program is None:
                state.reason = (
                    f"image {state.image} cannot run here: expected a container that runs fmi-rendezvous; other "
                    "containers are not emulated"
                )
                raise EmulatorError(f"CannotPullContainerError: {state.reason}")
            log = _ContainerLog(self._aws, task, state)
            state.process = ContainerProcess(program, log.write)
            await state.process.start()
            state.status = RUNNING
            self._follow(log.send(state.process))
            self._check_health(task, state, program, address)

    async def _container(self, task: Task, state: ContainerState, override: Mapping[str, Any]) -> Container:
        definition = state.definition
        environment = {"AWS_EXECUTION_ENV": "AWS_ECS_FARGATE"}
        environment |= dict.fromkeys(("AWS_REGION", "AWS_DEFAULT_REGION"), task.region)
        environment |= {item["name"]: item["value"] for item in definition.get("environment", [])}
        environment |= {item["name"]: item["value"] for item in override.get("environment", [])}
        for secret in definition.get("secrets", []):
            environment[secret["name"]] = await self._secret(task.region, secret["valueFrom"])
        command = tuple(override.get("command") or definition.get("command") or ())
        return Container(state.name, state.image, (*(definition.get("entryPoint") or ()), *command), environment)

    async def _secret(self, region: str, source: str) -> str:
        """Return the value of a secret, or of a parameter, that a container names."""
        if ":ssm:" in source or not source.startswith("arn:"):
            name = source.partition(":parameter")[2] or source
            found = await self._aws.call("ssm", "GetParameter", {"Name": name, "WithDecryption": True}, region)
            return str(found["Parameter"]["Value"])
        parts = source.split(":")
        key, stage, version = [*parts[7:], "", "", ""][:3]
        request = {"SecretId": ":".join(parts[:7]), "VersionStage": stage, "VersionId": version}
        found = await self._aws.call(
            "secretsmanager", "GetSecretValue", {name: value for name, value in request.items() if value}, region
        )
        if not key:
            return str(found["SecretString"])
        try:
            return str(json.loads(found["SecretString"])[key])
        except (ValueError, KeyError, TypeError):
            raise EmulatorError(f"retrieved secret {':'.join(parts[:7])} did not contain json key {key}") from None

    async def _watch(self, task: Task) -> None:
        """Wait until the task is asked to stop, or an essential container ends."""
        exits = {item.process.exited: item for item in task.containers if item.process is not None}
        while task.desired == RUNNING:
            waiting = asyncio.get_running_loop().create_task(task.changed.wait())
            awaited: set[asyncio.Future[Any]] = {waiting, *(future for future in exits if not future.done())}
            await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            task.changed.clear()
            for future, state in exits.items():
                if future.done() and state.status != STOPPED:
                    state.status, state.exit_code = STOPPED, future.result()
                    if state.is_essential and task.desired == RUNNING:
                        self.stop(task, "Essential container in task exited", "EssentialContainerExited")

    async def _stop_containers(self, task: Task, timeout_s: float) -> None:
        processes = [state for state in task.containers if state.process is not None]

        async def stop(state: ContainerState) -> None:
            if state.process is None:
                return
            if not state.process.exited.done():
                await state.process.stop(min(timeout_s, float(state.definition.get("stopTimeout", timeout_s))))
            state.status, state.exit_code = STOPPED, state.process.exited.result()

        await asyncio.gather(*(stop(state) for state in processes))
        for state in task.containers:
            state.status = STOPPED

    def _check_health(self, task: Task, state: ContainerState, program: Program, address: str) -> None:
        check = state.definition.get("healthCheck")
        if not check or state.process is None:
            return
        run = self._follow(self._follow_health(task, state, program, check, address))
        state.process.exited.add_done_callback(lambda _: run.cancel())

    def _follow(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do something beside the task, until it is done or everything is closed."""
        run = asyncio.get_running_loop().create_task(work)
        self._followers.add(run)
        run.add_done_callback(self._followers.discard)
        return run

    async def _follow_health(
        self, task: Task, state: ContainerState, program: Program, check: Mapping[str, Any], address: str
    ) -> None:
        """Run a container's health check, until it ends; https://docs.docker.com/reference/dockerfile/#healthcheck."""
        kind, *command = check["command"]
        if kind == "NONE":
            return
        # In the task's own network, its loopback address is its own.
        arguments = [_LOOPBACK.sub(address, argument) for argument in command]
        if kind == "CMD-SHELL":
            arguments = ["/bin/sh", "-c", " ".join(arguments)]
        started, failures = time.monotonic(), 0
        while state.status == RUNNING:
            is_starting = time.monotonic() - started < check.get("startPeriod", 0)
            passed = await _passes(arguments, program.environment, check.get("timeout", 5))
            failures = 0 if passed else failures + 1
            before = state.health
            if passed:
                state.health = "HEALTHY"
            elif failures >= check.get("retries", 3) and not is_starting:
                state.health = "UNHEALTHY"
            if state.health != before:
                self._move(task, task.status)
            # A container that is not healthy yet is asked more often: users wait for it.
            await asyncio.sleep(check.get("interval", 30) if state.health == "HEALTHY" else 0.5)

    def _move(self, task: Task, status: str, *times: str) -> None:
        task.status = status
        task.version += 1
        now = time.time()
        for name in times:
            task.times[name] = now
        if status == STOPPED:
            for state in task.containers:
                state.status = STOPPED
        self._on_change(task)


async def _passes(arguments: Sequence[str], environment: Mapping[str, str], timeout_s: float) -> bool:
    """Return whether a program exits with 0 in time."""
    try:
        process = await asyncio.create_subprocess_exec(
            *arguments,
            env=dict(environment),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError as error:
        _log.info("health check %s cannot run: %s", shlex.join(arguments), error)
        return False
    try:
        async with asyncio.timeout(timeout_s):
            return await process.wait() == 0
    except (TimeoutError, asyncio.CancelledError) as error:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        if isinstance(error, asyncio.CancelledError):
            raise
        return False


class _ContainerLog:
    """Sends a container's lines to CloudWatch Logs, as the driver awslogs does."""

    def __init__(self, aws: AwsClient, task: Task, state: ContainerState) -> None:
        configuration = state.definition.get("logConfiguration", {})
        options = configuration.get("options", {})
        is_sent = configuration.get("logDriver") == "awslogs"
        self._group = options.get("awslogs-group") if is_sent else None
        self._region = options.get("awslogs-region", task.region)
        self._creates_group = str(options.get("awslogs-create-group", "")).lower() == "true"
        prefix = options.get("awslogs-stream-prefix")
        self._stream = f"{prefix}/{state.name}/{task.id}" if prefix else state.runtime_id
        self._aws = aws
        self._lines: deque[tuple[int, str]] = deque(maxlen=100_000)

    def write(self, line: str) -> None:
        """Keep a line until it is sent."""
        if self._group is not None and line:
            self._lines.append((int(time.time() * 1000), line))

    async def send(self, process: ContainerProcess) -> None:
        """Send lines until the process has ended."""
        if self._group is None:
            return
        key = {"logGroupName": self._group, "logStreamName": self._stream}
        try:
            if self._creates_group:
                with contextlib.suppress(ClientError):
                    await self._aws.call("logs", "CreateLogGroup", {"logGroupName": self._group}, self._region)
            await self._aws.call("logs", "CreateLogStream", key, self._region)
            while self._lines or not process.exited.done():
                lines = [self._lines.popleft() for _ in range(min(1000, len(self._lines)))]
                if lines:
                    events = [{"timestamp": timestamp, "message": message} for timestamp, message in lines]
                    await self._aws.call("logs", "PutLogEvents", {**key, "logEvents": events}, self._region)
                else:
                    await asyncio.sleep(_LOG_PAUSE_S)
        except (ClientError, BotoCoreError) as error:
            _log.warning("the log of %s was not sent: %s", self._stream, error)
