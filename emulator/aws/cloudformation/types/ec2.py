"""AWS::EC2: networks and security groups.

Properties: https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/AWS_EC2.html
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from emulator.aws.cloudformation.resource import Resource, ResourceRequest
from emulator.aws.cloudformation.types.api import EVERY, ApiResource, tag_list


class SecurityGroup(ApiResource):
    """AWS::EC2::SecurityGroup."""

    service = "ec2"
    replaced_by = frozenset(["GroupName", "GroupDescription", "VpcId"])

    async def create(self, request: ResourceRequest) -> Resource:
        """Create a group with its rules."""
        properties = request.properties
        tags = tag_list(request)
        made = await self.call(
            request,
            "CreateSecurityGroup",
            {
                "GroupName": properties.get("GroupName") or request.generated_name(255),
                "Description": properties.get("GroupDescription", ""),
                "VpcId": properties.get("VpcId"),
                "TagSpecifications": [{"ResourceType": "security-group", "Tags": tags}] if tags else None,
            },
        )
        group = made["GroupId"]
        try:
            await self._set_rules(request, group)
        except Exception:
            # A failed resource has no id, so the rollback could not delete it.
            await self.call(request, "DeleteSecurityGroup", {"GroupId": group})
            raise
        found = (await self.call(request, "DescribeSecurityGroups", {"GroupIds": [group]}))["SecurityGroups"][0]
        return Resource(group, {"GroupId": group, "Id": group, "VpcId": found.get("VpcId", "")})

    async def update(self, request: ResourceRequest) -> Resource:
        """Replace the rules that change."""
        await self._set_rules(request, request.physical_id)
        return request.current or Resource("")

    async def delete(self, request: ResourceRequest) -> None:
        """Delete the group."""
        await self.call(request, "DeleteSecurityGroup", {"GroupId": request.physical_id})

    async def _set_rules(self, request: ResourceRequest, group: str) -> None:
        for member, direction in (("SecurityGroupIngress", "Ingress"), ("SecurityGroupEgress", "Egress")):
            before, after = request.previous.get(member) or [], request.properties.get(member) or []
            if after and not before and direction == "Egress":
                # A new group allows everything outwards; rules of its own replace that.
                everything = [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
                await self.call(request, "RevokeSecurityGroupEgress", {"GroupId": group, "IpPermissions": everything})
            for rule in before:
                if rule not in after:
                    gone = {"GroupId": group, "IpPermissions": [_permission(rule)]}
                    await self.call(request, f"RevokeSecurityGroup{direction}", gone)
            for rule in after:
                if rule not in before:
                    added = {"GroupId": group, "IpPermissions": [_permission(rule)]}
                    await self.call(request, f"AuthorizeSecurityGroup{direction}", added)


class _Rule(ApiResource):
    """A rule of a security group as a resource of its own."""

    service = "ec2"
    replaced_by = EVERY
    direction: str

    async def create(self, request: ResourceRequest) -> Resource:
        """Add the rule."""
        await self.call(request, f"AuthorizeSecurityGroup{self.direction}", self._rule(request))
        return Resource(request.generated_name())

    async def delete(self, request: ResourceRequest) -> None:
        """Remove the rule."""
        await self.call(request, f"RevokeSecurityGroup{self.direction}", self._rule(request))

    def _rule(self, request: ResourceRequest) -> dict[str, Any]:
        key = {name: request.properties.get(name) for name in ("GroupId", "GroupName")}
        return {**key, "IpPermissions": [_permission(request.properties)]}


class SecurityGroupIngress(_Rule):
    """AWS::EC2::SecurityGroupIngress."""

    direction = "Ingress"


class SecurityGroupEgress(_Rule):
    """AWS::EC2::SecurityGroupEgress."""

    direction = "Egress"


class _Tagged(ApiResource):
    """A resource of EC2 whose only operation besides is to delete it: any change replaces it."""

    service = "ec2"
    replaced_by = EVERY
    # Its name in responses and in tags, and the member of its id.
    response_member: str
    tag_type: str
    id_member: str
    attributes: ClassVar[Mapping[str, str]] = {}
    # Properties with operations of their own.
    set_later: ClassVar[Mapping[str, str]] = {}
    create_operation: str
    delete_operation: str

    async def create(self, request: ResourceRequest) -> Resource:
        """Create the resource with its tags."""
        properties = {name: value for name, value in request.properties.items() if name not in self.set_later}
        properties.pop("Tags", None)
        tags = tag_list(request)
        if tags:
            properties["TagSpecifications"] = [{"ResourceType": self.tag_type, "Tags": tags}]
        response = await self.call(request, self.create_operation, properties)
        made = response[self.response_member]
        physical_id = str(made[self.id_member])
        await self._set_later(request, physical_id)
        attributes = {name: made.get(member) for name, member in self.attributes.items()}
        return Resource(physical_id, {self.id_member: physical_id, "Id": physical_id, **attributes})

    async def _set_later(self, request: ResourceRequest, physical_id: str) -> None:
        for name, operation in self.set_later.items():
            if name in request.properties:
                key = {self.id_member: physical_id, name: {"Value": request.properties[name]}}
                await self.call(request, operation, key)

    async def delete(self, request: ResourceRequest) -> None:
        """Delete the resource."""
        await self.call(request, self.delete_operation, {self.id_member: request.physical_id})


class Vpc(_Tagged):
    """AWS::EC2::VPC."""

    create_operation = "CreateVpc"
    delete_operation = "DeleteVpc"
    response_member = "Vpc"
    tag_type = "vpc"
    id_member = "VpcId"
    attributes: ClassVar[Mapping[str, str]] = {"CidrBlock": "CidrBlock"}
    set_later: ClassVar[Mapping[str, str]] = {
        "EnableDnsHostnames": "ModifyVpcAttribute",
        "EnableDnsSupport": "ModifyVpcAttribute",
    }

    async def create(self, request: ResourceRequest) -> Resource:
        """Create a network; the name of its default security group is an attribute."""
        made = await super().create(request)
        filters = [
            {"Name": "vpc-id", "Values": [made.physical_id]},
            {"Name": "group-name", "Values": ["default"]},
        ]
        groups = (await self.call(request, "DescribeSecurityGroups", {"Filters": filters}))["SecurityGroups"]
        default = {"DefaultSecurityGroup": groups[0]["GroupId"]} if groups else {}
        return Resource(made.physical_id, {**made.attributes, **default})


class Subnet(_Tagged):
    """AWS::EC2::Subnet."""

    create_operation = "CreateSubnet"
    delete_operation = "DeleteSubnet"
    response_member = "Subnet"
    tag_type = "subnet"
    id_member = "SubnetId"
    attributes: ClassVar[Mapping[str, str]] = {
        "AvailabilityZone": "AvailabilityZone",
        "CidrBlock": "CidrBlock",
        "VpcId": "VpcId",
    }
    set_later: ClassVar[Mapping[str, str]] = {"MapPublicIpOnLaunch": "ModifySubnetAttribute"}


class InternetGateway(_Tagged):
    """AWS::EC2::InternetGateway."""

    create_operation = "CreateInternetGateway"
    delete_operation = "DeleteInternetGateway"
    response_member = "InternetGateway"
    tag_type = "internet-gateway"
    id_member = "InternetGatewayId"


class RouteTable(_Tagged):
    """AWS::EC2::RouteTable."""

    create_operation = "CreateRouteTable"
    delete_operation = "DeleteRouteTable"
    response_member = "RouteTable"
    tag_type = "route-table"
    id_member = "RouteTableId"


class VpcGatewayAttachment(ApiResource):
    """AWS::EC2::VPCGatewayAttachment."""

    service = "ec2"
    replaced_by = EVERY

    async def create(self, request: ResourceRequest) -> Resource:
        """Attach an internet gateway."""
        await self.call(request, "AttachInternetGateway", request.properties)
        return Resource(f"{request.properties['InternetGatewayId']}|{request.properties['VpcId']}")

    async def delete(self, request: ResourceRequest) -> None:
        """Detach it."""
        await self.call(request, "DetachInternetGateway", request.properties)


class Route(ApiResource):
    """AWS::EC2::Route."""

    service = "ec2"
    replaced_by = EVERY

    async def create(self, request: ResourceRequest) -> Resource:
        """Add a route."""
        await self.call(request, "CreateRoute", request.properties)
        properties = request.properties
        target = properties.get("DestinationCidrBlock") or properties.get("DestinationIpv6CidrBlock")
        return Resource(f"{properties['RouteTableId']}|{target}")

    async def delete(self, request: ResourceRequest) -> None:
        """Remove the route."""
        members = ("RouteTableId", "DestinationCidrBlock", "DestinationIpv6CidrBlock", "DestinationPrefixListId")
        await self.call(request, "DeleteRoute", {name: request.properties.get(name) for name in members})


class SubnetRouteTableAssociation(ApiResource):
    """AWS::EC2::SubnetRouteTableAssociation."""

    service = "ec2"
    replaced_by = EVERY

    async def create(self, request: ResourceRequest) -> Resource:
        """Associate a route table with a subnet."""
        made = await self.call(request, "AssociateRouteTable", request.properties)
        return Resource(made["AssociationId"], {"Id": made["AssociationId"]})

    async def delete(self, request: ResourceRequest) -> None:
        """End the association."""
        await self.call(request, "DisassociateRouteTable", {"AssociationId": request.physical_id})


class Eip(ApiResource):
    """AWS::EC2::EIP."""

    service = "ec2"
    replaced_by = EVERY

    async def create(self, request: ResourceRequest) -> Resource:
        """Allocate an address."""
        made = await self.call(request, "AllocateAddress", {"Domain": request.properties.get("Domain", "vpc")})
        address, allocation = made["PublicIp"], made["AllocationId"]
        if "InstanceId" in request.properties:
            instance = {"AllocationId": allocation, "InstanceId": request.properties["InstanceId"]}
            await self.call(request, "AssociateAddress", instance)
        return Resource(address, {"AllocationId": allocation, "PublicIp": address})

    async def delete(self, request: ResourceRequest) -> None:
        """Release the address."""
        allocation = (request.current or Resource("")).attributes["AllocationId"]
        await self.call(request, "ReleaseAddress", {"AllocationId": allocation})


def _permission(rule: Mapping[str, Any]) -> dict[str, Any]:
    """Return the API's form of a rule.

    Raises
    ------
    KeyError
        When the rule names no protocol.
    """
    permission = {name: rule[name] for name in ("FromPort", "ToPort") if name in rule}
    permission["IpProtocol"] = str(rule["IpProtocol"])
    description = {"Description": rule["Description"]} if rule.get("Description") else {}
    group = rule.get("SourceSecurityGroupId") or rule.get("DestinationSecurityGroupId")
    prefixes = rule.get("SourcePrefixListId") or rule.get("DestinationPrefixListId")
    if "CidrIp" in rule:
        permission["IpRanges"] = [{"CidrIp": rule["CidrIp"], **description}]
    if "CidrIpv6" in rule:
        permission["Ipv6Ranges"] = [{"CidrIpv6": rule["CidrIpv6"], **description}]
    if group:
        permission["UserIdGroupPairs"] = [{"GroupId": group, **description}]
    if prefixes:
        permission["PrefixListIds"] = [{"PrefixListId": prefixes, **description}]
    return permission


TYPES: Mapping[str, type[ApiResource]] = {
    "AWS::EC2::EIP": Eip,
    "AWS::EC2::InternetGateway": InternetGateway,
    "AWS::EC2::Route": Route,
    "AWS::EC2::RouteTable": RouteTable,
    "AWS::EC2::SecurityGroup": SecurityGroup,
    "AWS::EC2::SecurityGroupEgress": SecurityGroupEgress,
    "AWS::EC2::SecurityGroupIngress": SecurityGroupIngress,
    "AWS::EC2::Subnet": Subnet,
    "AWS::EC2::SubnetRouteTableAssociation": SubnetRouteTableAssociation,
    "AWS::EC2::VPC": Vpc,
    "AWS::EC2::VPCGatewayAttachment": VpcGatewayAttachment,
}
