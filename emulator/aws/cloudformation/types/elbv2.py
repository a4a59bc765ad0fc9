"""AWS::ElasticLoadBalancingV2: load balancers, target groups and listeners.

Properties: https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/AWS_ElasticLoadBalancingV2.html
"""

from collections.abc import Mapping
from typing import Any

from emulator.aws.cloudformation.resource import Resource, ResourceRequest
from emulator.aws.cloudformation.types.api import ApiResource, tag_list


class LoadBalancer(ApiResource):
    """AWS::ElasticLoadBalancingV2::LoadBalancer."""

    service = "elbv2"
    replaced_by = frozenset(["Name", "Scheme", "Type"])

    async def create(self, request: ResourceRequest) -> Resource:
        """Create a load balancer."""
        properties = {name: value for name, value in request.properties.items() if name != "LoadBalancerAttributes"}
        properties.setdefault("Name", request.generated_name(32, "A-Za-z0-9-"))
        properties["Tags"] = tag_list(request)
        made = (await self.call(request, "CreateLoadBalancer", properties))["LoadBalancers"][0]
        arn = made["LoadBalancerArn"]
        await self._set_attributes(request, arn)
        return Resource(
            arn,
            {
                "LoadBalancerArn": arn,
                "CanonicalHostedZoneID": made.get("CanonicalHostedZoneId"),
                "DNSName": made["DNSName"],
                "LoadBalancerFullName": arn.partition(":loadbalancer/")[2],
                "LoadBalancerName": made["LoadBalancerName"],
                "SecurityGroups": made.get("SecurityGroups", []),
            },
        )

    async def update(self, request: ResourceRequest) -> Resource:
        """Change attributes, security groups and subnets."""
        key = {"LoadBalancerArn": request.physical_id}
        if request.changed("SecurityGroups"):
            groups = request.properties.get("SecurityGroups") or []
            await self.call(request, "SetSecurityGroups", {**key, "SecurityGroups": groups})
        if request.changed("Subnets", "SubnetMappings"):
            subnets = {name: request.properties.get(name) for name in ("Subnets", "SubnetMappings")}
            await self.call(request, "SetSubnets", {**key, **subnets})
        await self._set_attributes(request, request.physical_id)
        return request.current or Resource("")

    async def delete(self, request: ResourceRequest) -> None:
        """Delete the load balancer."""
        await self.call(request, "DeleteLoadBalancer", {"LoadBalancerArn": request.physical_id})

    async def _set_attributes(self, request: ResourceRequest, arn: str) -> None:
        attributes = request.properties.get("LoadBalancerAttributes")
        if attributes and request.changed("LoadBalancerAttributes"):
            changed = {"LoadBalancerArn": arn, "Attributes": attributes}
            await self.call(request, "ModifyLoadBalancerAttributes", changed)


class TargetGroup(ApiResource):
    """AWS::ElasticLoadBalancingV2::TargetGroup."""

    service = "elbv2"
    replaced_by = frozenset(["Name", "Port", "Protocol", "ProtocolVersion", "TargetType", "VpcId", "IpAddressType"])
    _health = (
        "HealthCheckEnabled",
        "HealthCheckIntervalSeconds",
        "HealthCheckPath",
        "HealthCheckPort",
        "HealthCheckProtocol",
        "HealthCheckTimeoutSeconds",
        "HealthyThresholdCount",
        "Matcher",
        "UnhealthyThresholdCount",
    )

    async def create(self, request: ResourceRequest) -> Resource:
        """Create a target group and register its targets."""
        own = ("Targets", "TargetGroupAttributes")
        properties = {name: value for name, value in request.properties.items() if name not in own}
        properties.setdefault("Name", request.generated_name(32, "A-Za-z0-9-"))
        properties["Tags"] = tag_list(request)
        made = (await self.call(request, "CreateTargetGroup", properties))["TargetGroups"][0]
        arn = made["TargetGroupArn"]
        await self._set(request, arn)
        return Resource(
            arn,
            {
                "TargetGroupArn": arn,
                "TargetGroupFullName": arn.rpartition(":")[2],
                "TargetGroupName": made["TargetGroupName"],
            },
        )

    async def update(self, request: ResourceRequest) -> Resource:
        """Change health check, attributes and targets."""
        if request.changed(*self._health):
            health = {name: request.properties.get(name) for name in self._health}
            await self.call(request, "ModifyTargetGroup", {"TargetGroupArn": request.physical_id, **health})
        await self._set(request, request.physical_id)
        return request.current or Resource("")

    async def delete(self, request: ResourceRequest) -> None:
        """Delete the target group."""
        await self.call(request, "DeleteTargetGroup", {"TargetGroupArn": request.physical_id})

    async def _set(self, request: ResourceRequest, arn: str) -> None:
        key = {"TargetGroupArn": arn}
        attributes = request.properties.get("TargetGroupAttributes")
        if attributes and request.changed("TargetGroupAttributes"):
            await self.call(request, "ModifyTargetGroupAttributes", {**key, "Attributes": attributes})
        before, after = request.previous.get("Targets") or [], request.properties.get("Targets") or []
        gone, added = [item for item in before if item not in after], [item for item in after if item not in before]
        if gone:
            await self.call(request, "DeregisterTargets", {**key, "Targets": gone})
        if added:
            await self.call(request, "RegisterTargets", {**key, "Targets": added})


class Listener(ApiResource):
    """AWS::ElasticLoadBalancingV2::Listener."""

    service = "elbv2"
    replaced_by = frozenset(["LoadBalancerArn"])

    async def create(self, request: ResourceRequest) -> Resource:
        """Create a listener."""
        made = (await self.call(request, "CreateListener", request.properties))["Listeners"][0]
        return Resource(made["ListenerArn"], {"ListenerArn": made["ListenerArn"]})

    async def update(self, request: ResourceRequest) -> Resource:
        """Change the listener."""
        changed: dict[str, Any] = {
            name: value for name, value in request.properties.items() if name != "LoadBalancerArn"
        }
        await self.call(request, "ModifyListener", {**changed, "ListenerArn": request.physical_id})
        return request.current or Resource("")

    async def delete(self, request: ResourceRequest) -> None:
        """Delete the listener."""
        await self.call(request, "DeleteListener", {"ListenerArn": request.physical_id})


TYPES: Mapping[str, type[ApiResource]] = {
    "AWS::ElasticLoadBalancingV2::Listener": Listener,
    "AWS::ElasticLoadBalancingV2::LoadBalancer": LoadBalancer,
    "AWS::ElasticLoadBalancingV2::TargetGroup": TargetGroup,
}
