"""AWS::ECS: clusters, task definitions and services.

Properties: https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/AWS_ECS.html
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from emulator.aws.cloudformation.errors import ResourceFailedError
from emulator.aws.cloudformation.resource import Resource, ResourceRequest
from emulator.aws.cloudformation.types.api import EVERY, ApiResource, SimpleResource, wait_until


class Cluster(SimpleResource):
    """AWS::ECS::Cluster."""

    service = "ecs"
    create_operation = "CreateCluster"
    update_operation = "UpdateCluster"
    delete_operation = "DeleteCluster"
    name_property = "ClusterName"
    renamed: ClassVar[Mapping[str, str]] = {"ClusterSettings": "settings"}
    creation_only = frozenset(["ClusterName", "Tags", "CapacityProviders", "DefaultCapacityProviderStrategy"])

    def key(self, request: ResourceRequest) -> dict[str, Any]:
        """Return the cluster's name."""
        return {"cluster": request.physical_id}

    async def created(
        self, request: ResourceRequest, properties: Mapping[str, Any], response: Mapping[str, Any]
    ) -> Resource:
        """Return the cluster."""
        return Resource(str(properties["ClusterName"]), {"Arn": response["cluster"]["clusterArn"]})


class TaskDefinition(ApiResource):
    """AWS::ECS::TaskDefinition."""

    service = "ecs"
    replaced_by = EVERY

    async def create(self, request: ResourceRequest) -> Resource:
        """Register a revision."""
        family = request.properties.get("Family") or request.generated_name(255)
        made = await self.call(request, "RegisterTaskDefinition", {**request.properties, "Family": family})
        arn = made["taskDefinition"]["taskDefinitionArn"]
        return Resource(arn, {"TaskDefinitionArn": arn})

    async def delete(self, request: ResourceRequest) -> None:
        """Deregister the revision."""
        await self.call(request, "DeregisterTaskDefinition", {"taskDefinition": request.physical_id})


class Service(ApiResource):
    """AWS::ECS::Service."""

    service = "ecs"
    replaced_by = frozenset(["ServiceName", "Cluster", "LaunchType", "SchedulingStrategy", "Role"])
    _creation_only = frozenset(["ServiceName", "LaunchType", "SchedulingStrategy", "Role", "Tags", "ClientToken"])

    async def create(self, request: ResourceRequest) -> Resource:
        """Create a service, and wait until it is stable."""
        name = request.properties.get("ServiceName") or request.generated_name(255)
        cluster = request.properties.get("Cluster")
        made = await self.call(request, "CreateService", {**request.properties, "ServiceName": name})
        arn = made["service"]["serviceArn"]
        try:
            await self._stable(request, arn, cluster)
        except Exception:
            # A failed resource has no id, so the rollback could not delete it.
            await self.call(request, "DeleteService", {"service": arn, "cluster": cluster, "force": True})
            raise
        return Resource(arn, {"Name": name, "ServiceArn": arn})

    async def update(self, request: ResourceRequest) -> Resource:
        """Change the service, and wait until it is stable."""
        changed = {name: value for name, value in request.properties.items() if name not in self._creation_only}
        await self.call(request, "UpdateService", {**changed, "service": request.physical_id})
        await self._stable(request, request.physical_id, request.properties.get("Cluster"))
        return request.current or Resource("")

    async def delete(self, request: ResourceRequest) -> None:
        """Stop the service's tasks, and delete it."""
        key = {"service": request.physical_id, "cluster": request.properties.get("Cluster"), "force": True}
        await self.call(request, "DeleteService", key)

    async def _stable(self, request: ResourceRequest, arn: str, cluster: Any) -> None:
        """Wait until as many tasks run as the service wants, of the wanted task definition alone."""
        wanted = str(request.properties.get("TaskDefinition", ""))

        async def is_stable() -> bool:
            found = await self.call(request, "DescribeServices", {"services": [arn], "cluster": cluster})
            if not found["services"]:
                raise ResourceFailedError(f"service {arn} does not exist any more")
            service = found["services"][0]
            deployments = service.get("deployments", [])
            is_failed = any(deployment.get("rolloutState") == "FAILED" for deployment in deployments)
            # A circuit breaker goes back to the task definition before.
            is_rolled_back = wanted.startswith("arn:") and service["taskDefinition"] != wanted
            if is_failed or is_rolled_back:
                messages = [event["message"] for event in service.get("events", [])]
                reasons = [text for text in messages if "unable" in text] or ["its tasks failed to start"]
                raise ResourceFailedError(f"service {arn} failed: {reasons[0]}")
            return len(deployments) <= 1 and service["runningCount"] == service["desiredCount"]

        await wait_until(is_stable, f"service {arn}")


TYPES: Mapping[str, type[ApiResource]] = {
    "AWS::ECS::Cluster": Cluster,
    "AWS::ECS::Service": Service,
    "AWS::ECS::TaskDefinition": TaskDefinition,
}
