"""ECS's API for tasks and services, in AWS JSON 1.1; moto serves its other operations.

Operations: https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_Operations.html
"""

import asyncio
import inspect
import json
import re
import uuid
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from aiohttp import web
from botocore.exceptions import ClientError

from emulator.aws.ecs.programs import Programs
from emulator.aws.ecs.services import Reconciler, Service, ServiceDeployment, describe_deployments
from emulator.aws.ecs.tasks import RUNNING, STOPPED, ContainerState, Network, Task, TaskRunner
from emulator.aws.json_requests import read_json
from emulator.aws.limits import MIB
from emulator.aws.sdk_client import AwsClient
from emulator.errors import ApiError

TARGET = "AmazonEC2ContainerServiceV20141113."
DESCRIBE_CLUSTERS = f"{TARGET}DescribeClusters"
_REQUEST_BYTES = MIB
_Request = Mapping[str, Any]
# Emits an event: region, detail type, resources and detail.
EmitEvent = Callable[[str, str, list[str], Mapping[str, Any]], None]
# AWS describes stopped tasks for an hour; this many fit into memory.
_STOPPED_KEPT = 1000
_CLUSTER_COUNTS = ("runningTasksCount", "pendingTasksCount", "activeServicesCount")
_UPDATABLE = (
    "deploymentConfiguration",
    "networkConfiguration",
    "platformVersion",
    "healthCheckGracePeriodSeconds",
    "enableExecuteCommand",
    "enableECSManagedTags",
    "loadBalancers",
    "propagateTags",
    "serviceRegistries",
    "capacityProviderStrategy",
    "placementConstraints",
    "placementStrategy",
)


# A change of these needs new tasks.
_OF_TASKS = ("loadBalancers", "networkConfiguration")


class EcsApi:
    """The operations on tasks and services.

    Parameters
    ----------
    aws
        Describes clusters and task definitions.
    programs
        What containers run as.
    network
        Gives tasks their addresses.
    account
        The account.
    emit
        Receives the events of tasks and deployments.
    """

    def __init__(self, aws: AwsClient, programs: Programs, network: Network, account: str, emit: EmitEvent) -> None:
        self._aws = aws
        self._account = account
        self._emit = emit
        self._tasks: dict[str, Task] = {}
        self._services: dict[str, Service] = {}
        self._runner = TaskRunner(aws, programs, network, self._changed)
        self._reconciler = Reconciler(self._start_for_service, self._runner.stop, self._deployment_changed)
        self._operations: dict[str, Callable[[str, _Request], Any]] = {
            "CreateService": self._create_service,
            "DeleteService": self._delete_service,
            "DescribeServices": self._describe_services,
            "DescribeTasks": self._describe_tasks,
            "ListServices": self._list_services,
            "ListTasks": self._list_tasks,
            "RunTask": self._run_task,
            "StopTask": self._stop_task,
            "UpdateService": self._update_service,
        }

    def serves(self, target: str) -> bool:
        """Return whether an X-Amz-Target names an operation on tasks or services."""
        return target.startswith(TARGET) and target.removeprefix(TARGET) in self._operations

    async def handle(self, request: web.BaseRequest, region: str) -> web.StreamResponse:
        """Respond to a request."""
        name = request.headers["X-Amz-Target"].removeprefix(TARGET)
        try:
            body = await read_json(request, _REQUEST_BYTES, lambda: _invalid("the request is too large"))
            answer = self._operations[name](region, body)
            if inspect.isawaitable(answer):
                answer = await answer
        except ApiError as error:
            return _json({"__type": error.code, "message": error.message}, error.status)
        except ClientError as error:
            found = error.response["Error"]
            status = HTTPStatus(error.response["ResponseMetadata"]["HTTPStatusCode"])
            return _json({"__type": found["Code"], "message": found["Message"]}, status)
        return _json(answer, HTTPStatus.OK)

    def counted(self, response: web.Response) -> web.Response:
        """Return moto's response to DescribeClusters with the numbers of tasks and services."""
        if response.status != HTTPStatus.OK or not isinstance(response.body, bytes):
            return response
        body = json.loads(response.body)
        for cluster in body.get("clusters", []):
            tasks = [task for task in self._tasks.values() if task.cluster == cluster["clusterArn"]]
            services = [item for item in self._services.values() if item.cluster == cluster["clusterArn"]]
            counts = (
                sum(task.status == RUNNING for task in tasks),
                sum(task.status not in (RUNNING, STOPPED) for task in tasks),
                sum(service.status == "ACTIVE" for service in services),
            )
            cluster.update(zip(_CLUSTER_COUNTS, counts, strict=True))
        return _json(body, HTTPStatus.OK)

    async def reset(self) -> None:
        """Stop all tasks and forget all services."""
        await self.close()
        self._tasks.clear()
        self._services.clear()

    async def close(self) -> None:
        """Stop all tasks."""
        await self._reconciler.close()
        await self._runner.close()

    async def _run_task(self, region: str, request: _Request) -> dict[str, Any]:
        cluster = await self._cluster(region, request)
        definition = await self._definition(region, request.get("taskDefinition"))
        count = request.get("count", 1)
        if not isinstance(count, int) or not 1 <= count <= 10:
            raise _invalid(f"invalid count {count!r}: expected 1 to 10")
        self._check_network(definition, request)
        tasks = [self._new_task(region, cluster, definition, request) for _ in range(count)]
        for task in tasks:
            self._runner.start(task)
        # They have their first state when they are described here.
        await asyncio.sleep(0)
        return {"tasks": [_described_task(task) for task in tasks], "failures": []}

    async def _stop_task(self, region: str, request: _Request) -> dict[str, Any]:
        cluster = await self._cluster(region, request)
        task = self._find_task(cluster, str(request.get("task")))
        if task is None:
            raise _invalid("The referenced task was not found.")
        self._runner.stop(task, str(request.get("reason") or "Task stopped by user"), "UserInitiated")
        return {"task": _described_task(task)}

    async def _describe_tasks(self, region: str, request: _Request) -> dict[str, Any]:
        cluster = await self._cluster(region, request)
        tasks, failures = [], []
        for name in request.get("tasks") or []:
            task = self._find_task(cluster, str(name))
            if task is not None:
                tasks.append(_described_task(task, with_tags="TAGS" in request.get("include", [])))
            else:
                missing = name if str(name).startswith("arn:") else _task_arn(cluster, str(name))
                failures.append({"arn": missing, "reason": "MISSING"})
        return {"tasks": tasks, "failures": failures}

    async def _list_tasks(self, region: str, request: _Request) -> dict[str, Any]:
        cluster = await self._cluster(region, request)
        wanted = request.get("desiredStatus", RUNNING)
        service, family, by = request.get("serviceName"), request.get("family"), request.get("startedBy")
        arns = [
            task.arn
            for task in self._tasks.values()
            if task.cluster == cluster
            and task.desired == wanted
            and (not service or task.group == f"service:{str(service).rpartition('/')[2]}")
            and (not family or task.definition["family"] == family)
            and (not by or task.started_by == by)
            and request.get("launchType", "FARGATE") == task.request.get("launchType", "FARGATE")
        ]
        return _page("taskArns", arns, request)

    async def _create_service(self, region: str, request: _Request) -> dict[str, Any]:
        name = str(request.get("serviceName") or "")
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,255}", name):
            raise _invalid(f"invalid serviceName {name!r:.80}: expected letters, digits, - and _")
        cluster = await self._cluster(region, request)
        definition = await self._definition(region, request.get("taskDefinition"))
        self._check_network(definition, request)
        arn = f"arn:aws:ecs:{region}:{self._account}:service/{cluster.rpartition('/')[2]}/{name}"
        existing = self._services.get(arn)
        if existing is not None and existing.status != "INACTIVE":
            raise _invalid("Creation of service was not idempotent.")
        desired = _count(request.get("desiredCount", 1))
        deployment = ServiceDeployment(definition["taskDefinitionArn"])
        service = Service(arn, name, region, cluster, dict(request), desired, [deployment])
        self._services[arn] = service
        self._reconciler.follow(service)
        return {"service": self._described_service(service)}

    async def _update_service(self, region: str, request: _Request) -> dict[str, Any]:
        service = self._service(await self._cluster(region, request), request.get("service"))
        if service.status != "ACTIVE":
            raise ApiError("ServiceNotActiveException", HTTPStatus.BAD_REQUEST, "Service was not ACTIVE.")
        definition_arn = service.primary.definition_arn
        if request.get("taskDefinition"):
            definition_arn = (await self._definition(region, request["taskDefinition"]))["taskDefinitionArn"]
        changed = {name: request[name] for name in _UPDATABLE if name in request}
        replaces = any(service.request.get(name) != value for name, value in changed.items() if name in _OF_TASKS)
        service.request.update(changed)
        if request.get("desiredCount") is not None:
            service.desired = _count(request["desiredCount"])
        if definition_arn != service.primary.definition_arn or request.get("forceNewDeployment") or replaces:
            self._reconciler.deploy(service, definition_arn)
        service.changed.set()
        return {"service": self._described_service(service)}

    async def _delete_service(self, region: str, request: _Request) -> dict[str, Any]:
        service = self._service(await self._cluster(region, request), request.get("service"))
        if service.desired and not request.get("force"):
            raise _invalid("The service cannot be stopped while it is scaled above 0.")
        if service.status == "ACTIVE":
            service.desired, service.status = 0, "DRAINING"
            service.changed.set()
        return {"service": self._described_service(service)}

    async def _describe_services(self, region: str, request: _Request) -> dict[str, Any]:
        cluster = await self._cluster(region, request)
        services, failures = [], []
        for name in request.get("services") or []:
            try:
                services.append(self._described_service(self._service(cluster, name)))
            except ApiError:
                arn = f"arn:aws:ecs:{region}:{self._account}:service/{cluster.rpartition('/')[2]}/{name}"
                failures.append({"arn": name if str(name).startswith("arn:") else arn, "reason": "MISSING"})
        return {"services": services, "failures": failures}

    async def _list_services(self, region: str, request: _Request) -> dict[str, Any]:
        cluster = await self._cluster(region, request)
        arns = [
            service.arn
            for service in self._services.values()
            if service.cluster == cluster and service.status != "INACTIVE"
        ]
        return _page("serviceArns", arns, request)

    def _start_for_service(self, service: Service, deployment: ServiceDeployment) -> "asyncio.Future[Task]":
        async def start() -> Task:
            definition = await self._definition(service.region, deployment.definition_arn)
            request = {**service.request, "group": f"service:{service.name}", "startedBy": deployment.id}
            task = self._new_task(service.region, service.cluster, definition, request)
            self._runner.start(task)
            return task

        return asyncio.ensure_future(start())

    def _new_task(self, region: str, cluster: str, definition: Mapping[str, Any], request: _Request) -> Task:
        arn = f"arn:aws:ecs:{region}:{self._account}:task/{cluster.rpartition('/')[2]}/{uuid.uuid4().hex}"
        containers = [
            ContainerState(item, item["name"], item["image"], item.get("essential", True))
            for item in definition["containerDefinitions"]
        ]
        group = str(request.get("group") or f"family:{definition['family']}")
        tags = request.get("tags") or []
        task = Task(arn, region, cluster, definition, request, containers, group, request.get("startedBy"), tags)
        self._tasks[arn] = task
        stopped = [other.arn for other in self._tasks.values() if other.is_stopped]
        for old in stopped[: max(0, len(stopped) - _STOPPED_KEPT)]:
            del self._tasks[old]
        return task

    def _check_network(self, definition: Mapping[str, Any], request: _Request) -> None:
        kind = request.get("launchType", "FARGATE")
        if kind != "FARGATE":
            raise _invalid(f"launch type {kind} is not emulated: expected FARGATE")
        if definition.get("networkMode") == "awsvpc":
            configuration = request.get("networkConfiguration", {}).get("awsvpcConfiguration", {})
            if not configuration.get("subnets"):
                raise _invalid("Network Configuration must be provided when networkMode 'awsvpc' is specified.")

    async def _cluster(self, region: str, request: _Request) -> str:
        """Return the ARN of the cluster that a request names.

        Raises
        ------
        ApiError
            ClusterNotFoundException.
        """
        name = str(request.get("cluster") or "default")
        found = await self._aws.call("ecs", "DescribeClusters", {"clusters": [name]}, region)
        for cluster in found["clusters"]:
            if cluster["status"] == "ACTIVE":
                return str(cluster["clusterArn"])
        raise ApiError("ClusterNotFoundException", HTTPStatus.BAD_REQUEST, "Cluster not found.")

    async def _definition(self, region: str, name: Any) -> Mapping[str, Any]:
        found = await self._aws.call("ecs", "DescribeTaskDefinition", {"taskDefinition": str(name)}, region)
        definition: Mapping[str, Any] = found["taskDefinition"]
        return definition

    def _find_task(self, cluster: str, name: str) -> Task | None:
        task = self._tasks.get(name if name.startswith("arn:") else _task_arn(cluster, name))
        return task if task is not None and task.cluster == cluster else None

    def _service(self, cluster: str, name: Any) -> Service:
        """Return a service of a cluster by name or ARN.

        Raises
        ------
        ApiError
            ServiceNotFoundException.
        """
        short = str(name).rpartition("/")[2]
        for service in self._services.values():
            if service.cluster == cluster and service.name == short:
                return service
        raise ApiError("ServiceNotFoundException", HTTPStatus.BAD_REQUEST, "Service not found.")

    def _changed(self, task: Task) -> None:
        """Emit the event of a task's new state, and let its service look."""
        self._emit(task.region, "ECS Task State Change", [task.arn], _described_task(task))
        for service in self._services.values():
            if task.group == f"service:{service.name}" and service.cluster == task.cluster:
                service.changed.set()

    def _deployment_changed(self, service: Service, deployment: ServiceDeployment, name: str) -> None:
        detail = {
            "eventType": "ERROR" if name.endswith("FAILED") else "INFO",
            "eventName": name,
            "deploymentId": deployment.id,
            "updatedAt": deployment.updated,
            "reason": deployment.reason or f"ECS deployment {deployment.id} in progress.",
        }
        self._emit(service.region, "ECS Deployment State Change", [service.arn], detail)

    def _described_service(self, service: Service) -> dict[str, Any]:
        tasks = [task for deployment in service.deployments for task in deployment.alive]
        running = sum(task.status == RUNNING for task in tasks)
        request = service.request
        return {
            "serviceArn": service.arn,
            "serviceName": service.name,
            "clusterArn": service.cluster,
            "loadBalancers": request.get("loadBalancers", []),
            "serviceRegistries": request.get("serviceRegistries", []),
            "status": service.status,
            "desiredCount": service.desired,
            "runningCount": running,
            "pendingCount": len(tasks) - running,
            "launchType": request.get("launchType", "FARGATE"),
            "platformVersion": request.get("platformVersion", "LATEST"),
            "platformFamily": "Linux",
            "taskDefinition": service.primary.definition_arn,
            "deploymentConfiguration": {
                "maximumPercent": 200,
                "minimumHealthyPercent": 100,
                **request.get("deploymentConfiguration", {}),
            },
            "deployments": describe_deployments(service),
            "events": list(service.events),
            "createdAt": service.created,
            "createdBy": f"arn:aws:iam::{self._account}:root",
            "placementConstraints": request.get("placementConstraints", []),
            "placementStrategy": request.get("placementStrategy", []),
            "networkConfiguration": request.get("networkConfiguration", {}),
            "schedulingStrategy": request.get("schedulingStrategy", "REPLICA"),
            "deploymentController": request.get("deploymentController", {"type": "ECS"}),
            "enableECSManagedTags": request.get("enableECSManagedTags", False),
            "propagateTags": request.get("propagateTags", "NONE"),
            "enableExecuteCommand": request.get("enableExecuteCommand", False),
            "tags": request.get("tags", []),
        }


def _described_task(task: Task, *, with_tags: bool = True) -> dict[str, Any]:
    definition, interface = task.definition, task.interface
    attachments = []
    if interface is not None:
        details = {
            "subnetId": interface.subnet,
            "networkInterfaceId": interface.id,
            "macAddress": interface.mac,
            "privateIPv4Address": interface.address,
        }
        attachments.append(
            {
                "id": interface.id.removeprefix("eni-"),
                "type": "ElasticNetworkInterface",
                "status": "DELETED" if task.is_stopped else "ATTACHED",
                "details": [{"name": name, "value": value} for name, value in details.items()],
            }
        )
    described = {
        "taskArn": task.arn,
        "clusterArn": task.cluster,
        "taskDefinitionArn": definition["taskDefinitionArn"],
        "group": task.group,
        "startedBy": task.started_by,
        "lastStatus": task.status,
        "desiredStatus": task.desired,
        "healthStatus": task.health,
        "connectivity": "CONNECTED" if task.status == RUNNING else None,
        "cpu": definition.get("cpu"),
        "memory": definition.get("memory"),
        "launchType": "FARGATE",
        "platformVersion": "1.4.0",
        "platformFamily": "Linux",
        "availabilityZone": f"{task.region}a",
        "attachments": attachments,
        "containers": [_described_container(task, state) for state in task.containers],
        "overrides": task.request.get("overrides", {"containerOverrides": []}),
        "stopCode": task.stop_code,
        "stoppedReason": task.reason,
        "tags": list(task.tags) if with_tags else None,
        "version": task.version,
        "enableExecuteCommand": False,
        **task.times,
    }
    return {name: value for name, value in described.items() if value is not None}


def _described_container(task: Task, state: ContainerState) -> dict[str, Any]:
    interfaces = []
    if task.interface is not None:
        attachment = task.interface.id.removeprefix("eni-")
        interfaces.append({"attachmentId": attachment, "privateIpv4Address": task.interface.address})
    described = {
        "containerArn": f"{task.arn.replace(':task/', ':container/')}/{state.runtime_id[:12]}",
        "taskArn": task.arn,
        "name": state.name,
        "image": state.image,
        "runtimeId": state.runtime_id,
        "lastStatus": state.status,
        "exitCode": state.exit_code,
        "reason": state.reason,
        "networkBindings": [],
        "networkInterfaces": interfaces,
        "healthStatus": state.health,
        "cpu": str(state.definition.get("cpu", 0)),
    }
    return {name: value for name, value in described.items() if value is not None}


def _task_arn(cluster: str, name: str) -> str:
    return f"{cluster.replace(':cluster/', ':task/')}/{name.rpartition('/')[2]}"


def _count(value: Any) -> int:
    if not isinstance(value, int) or not 0 <= value <= 1000:
        raise _invalid(f"invalid desiredCount {value!r}: expected 0 to 1000")
    return value


def _page(name: str, items: list[str], request: _Request) -> dict[str, Any]:
    token = str(request.get("nextToken") or "0")
    start = int(token) if token.isdecimal() else 0
    end = start + min(100, int(request.get("maxResults") or 100))
    following = {"nextToken": str(end)} if end < len(items) else {}
    return {name: items[start:end], **following}


def _invalid(message: str) -> ApiError:
    return ApiError("InvalidParameterException", HTTPStatus.BAD_REQUEST, message)


def _json(body: Mapping[str, Any], status: HTTPStatus) -> web.Response:
    return web.json_response(body, status=status, content_type="application/x-amz-json-1.1")
