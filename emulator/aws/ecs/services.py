"""Services: keep as many tasks running as they want, and replace them by those of a new task definition.

Deployments: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-type-ecs.html
"""

import asyncio
import logging
import math
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from emulator.aws.ecs.tasks import RUNNING, Task

_log = logging.getLogger(__name__)
# After this many tasks of a deployment that ended before they ran, its circuit breaker fails it.
_BREAKER_FAILURES = 3
_PAUSES_S = (0.2, 1.0, 5.0, 15.0)
_EVENTS_KEPT = 100


@dataclass
class ServiceDeployment:
    """The tasks of one task definition."""

    definition_arn: str
    id: str = field(default_factory=lambda: f"ecs-svc/{uuid.uuid4().int % 10**19}")
    rollout: str = "IN_PROGRESS"
    reason: str = ""
    failures: int = 0
    created: float = field(default_factory=time.time)
    updated: float = field(default_factory=time.time)
    tasks: list[Task] = field(default_factory=list)

    @property
    def alive(self) -> list[Task]:
        """The tasks that have not been asked to stop."""
        return [task for task in self.tasks if task.desired == RUNNING and not task.is_stopped]

    @property
    def running(self) -> list[Task]:
        """The tasks that run, and whose containers are not unhealthy."""
        return [task for task in self.alive if task.status == RUNNING]


@dataclass
class Service:
    """A service.

    Parameters
    ----------
    request
        The settings in force, as in CreateService.
    """

    arn: str
    name: str
    region: str
    cluster: str
    request: dict[str, Any]
    desired: int
    deployments: list[ServiceDeployment]
    status: str = "ACTIVE"
    created: float = field(default_factory=time.time)
    events: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=_EVENTS_KEPT))
    completed_definition: str | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def primary(self) -> ServiceDeployment:
        """The deployment that is wanted."""
        return self.deployments[0]

    def record(self, text: str) -> None:
        """Record an event."""
        message = f"(service {self.name}) {text}"
        self.events.appendleft({"id": str(uuid.uuid4()), "createdAt": time.time(), "message": message})


class Reconciler:
    """Brings services to what they want.

    Parameters
    ----------
    start_task
        Starts a task of a deployment of a service.
    stop_task
        Stops a task, for a reason.
    on_deployment
        Called with the name of an event of a deployment: ``SERVICE_DEPLOYMENT_COMPLETED`` and the like.
    """

    def __init__(
        self,
        start_task: Callable[[Service, ServiceDeployment], Awaitable[Task]],
        stop_task: Callable[[Task, str, str], None],
        on_deployment: Callable[[Service, ServiceDeployment, str], None],
    ) -> None:
        self._start_task = start_task
        self._stop_task = stop_task
        self._on_deployment = on_deployment
        self._loops: dict[str, asyncio.Task[None]] = {}

    def follow(self, service: Service) -> None:
        """Keep a service as it wants to be, until it is deleted."""
        loop = asyncio.get_running_loop().create_task(self._follow(service), name=service.arn)
        self._loops[service.arn] = loop
        self._on_deployment(service, service.primary, "SERVICE_DEPLOYMENT_IN_PROGRESS")

    def deploy(self, service: Service, definition_arn: str) -> None:
        """Replace a service's tasks by those of a task definition."""
        service.deployments.insert(0, ServiceDeployment(definition_arn))
        self._on_deployment(service, service.primary, "SERVICE_DEPLOYMENT_IN_PROGRESS")
        service.changed.set()

    async def close(self) -> None:
        """Stop to follow services."""
        for loop in self._loops.values():
            loop.cancel()
        await asyncio.gather(*self._loops.values(), return_exceptions=True)

    async def _follow(self, service: Service) -> None:
        while True:
            service.changed.clear()
            try:
                pause_s = await self._step(service)
            except Exception:  # noqa: BLE001 - an error in the emulator must not end the service
                _log.exception("service %s", service.arn)
                pause_s = _PAUSES_S[-1]
            if service.status == "INACTIVE":
                self._loops.pop(service.arn, None)
                return
            try:
                async with asyncio.timeout(pause_s):
                    await service.changed.wait()
            except TimeoutError:
                continue

    async def _step(self, service: Service) -> float | None:
        """Do what is possible now; return when to try again, s, or None for the next change."""
        self._count_failures(service)
        primary, others = service.primary, service.deployments[1:]
        if service.status == "DRAINING":
            for deployment in service.deployments:
                self._stop_some(service, deployment.alive, "Scaling activity initiated by deployment")
            if all(task.is_stopped for deployment in service.deployments for task in deployment.tasks):
                service.status = "INACTIVE"
            return None
        for task in primary.running:
            if task.health == "UNHEALTHY":
                self._stop_task(task, "Task failed container health checks", "ServiceSchedulerInitiated")
        least, most = _bounds(service.request, service.desired)
        surplus = primary.alive[service.desired :]
        self._stop_some(service, surplus, "Scaling activity initiated by deployment")
        old = [task for deployment in others for task in deployment.alive]
        old_running = [task for task in old if task.status == RUNNING]
        stoppable = len(primary.running) + len(old_running) - least
        idle = [task for task in old if task.status != RUNNING]
        self._stop_some(service, [*idle, *old_running[: max(0, stoppable)]], "Scaling activity initiated by deployment")
        ending = [task for item in service.deployments for task in item.tasks if not task.is_stopped]
        pause_s: float | None = None
        if primary.rollout != "FAILED":
            while len(primary.alive) < service.desired and len(ending) < max(1, most):
                if primary.failures and time.time() < primary.updated + _pause(primary.failures):
                    pause_s = _pause(primary.failures)
                    break
                task = await self._start_task(service, primary)
                primary.tasks.append(task)
                ending.append(task)
                service.record(f"has started 1 tasks: (task {task.id}).")
        service.deployments = [
            primary,
            *(item for item in others if any(not task.is_stopped for task in item.tasks)),
        ]
        self._complete(service, primary)
        return pause_s

    def _complete(self, service: Service, primary: ServiceDeployment) -> None:
        """Record that the primary deployment is complete, if it is."""
        is_steady = len(primary.running) == service.desired == len(primary.alive) and len(service.deployments) == 1
        if not is_steady or primary.rollout != "IN_PROGRESS":
            return
        primary.rollout, primary.updated = "COMPLETED", time.time()
        primary.reason = f"ECS deployment {primary.id} completed."
        service.completed_definition = primary.definition_arn
        service.record("has reached a steady state.")
        service.record(f"(deployment {primary.id}) deployment completed.")
        self._on_deployment(service, primary, "SERVICE_DEPLOYMENT_COMPLETED")

    def _count_failures(self, service: Service) -> None:
        """Count tasks that have ended by themselves; fail a deployment whose tasks never ran."""
        for deployment in service.deployments:
            for task in [task for task in deployment.tasks if task.is_stopped]:
                deployment.tasks.remove(task)
                if task.stop_code not in ("ServiceSchedulerInitiated", "UserInitiated"):
                    deployment.failures += 1
                    deployment.updated = time.time()
                    service.record(f"was unable to keep a task running: (task {task.id}) {task.reason}")
        primary = service.primary
        settings = service.request.get("deploymentConfiguration", {}).get("deploymentCircuitBreaker", {})
        is_failed = primary.rollout == "IN_PROGRESS" and primary.failures >= _BREAKER_FAILURES
        if not is_failed or not settings.get("enable"):
            return
        primary.rollout, primary.updated = "FAILED", time.time()
        primary.reason = "ECS deployment circuit breaker: tasks failed to start."
        service.record(f"(deployment {primary.id}) deployment failed: tasks failed to start.")
        self._on_deployment(service, primary, "SERVICE_DEPLOYMENT_FAILED")
        if settings.get("rollback") and service.completed_definition not in (None, primary.definition_arn):
            service.record(f"rolling back to {service.completed_definition}.")
            self.deploy(service, str(service.completed_definition))

    def _stop_some(self, service: Service, tasks: list[Task], reason: str) -> None:
        for task in tasks:
            service.record(f"has stopped 1 running tasks: (task {task.id}).")
            self._stop_task(task, f"{reason} {service.primary.id}", "ServiceSchedulerInitiated")


def describe_deployments(service: Service) -> list[dict[str, Any]]:
    """Return a service's deployments, as ECS describes them."""
    described = []
    for index, item in enumerate(service.deployments):
        described.append(
            {
                "id": item.id,
                "status": "PRIMARY" if index == 0 else "ACTIVE",
                "taskDefinition": item.definition_arn,
                "desiredCount": service.desired if index == 0 else 0,
                "pendingCount": len(item.alive) - len(item.running),
                "runningCount": len(item.running),
                "failedTasks": item.failures,
                "createdAt": item.created,
                "updatedAt": item.updated,
                "launchType": service.request.get("launchType", "FARGATE"),
                "platformVersion": "1.4.0",
                "platformFamily": "Linux",
                "networkConfiguration": service.request.get("networkConfiguration", {}),
                "rolloutState": item.rollout,
                "rolloutStateReason": item.reason or f"ECS deployment {item.id} in progress.",
            }
        )
    return described


def _bounds(request: Mapping[str, Any], desired: int) -> tuple[int, int]:
    """Return how many tasks must run during a deployment, and how many may."""
    settings = request.get("deploymentConfiguration", {})
    least = math.ceil(desired * settings.get("minimumHealthyPercent", 100) / 100)
    most = math.floor(desired * settings.get("maximumPercent", 200) / 100)
    return least, most


def _pause(failures: int) -> float:
    return _PAUSES_S[min(failures, len(_PAUSES_S)) - 1]
