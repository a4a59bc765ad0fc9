"""AWS::Route53: hosted zones and records.

Properties: https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/AWS_Route53.html
"""

import uuid
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import ClientError

from emulator.aws.cloudformation.errors import ResourceFailedError
from emulator.aws.cloudformation.resource import Resource, ResourceRequest
from emulator.aws.cloudformation.types.api import ApiResource, is_code


class HostedZone(ApiResource):
    """AWS::Route53::HostedZone."""

    service = "route53"
    replaced_by = frozenset(["Name", "VPCs"])

    async def create(self, request: ResourceRequest) -> Resource:
        """Create a zone."""
        properties = request.properties
        made = await self.call(
            request,
            "CreateHostedZone",
            {
                "Name": properties["Name"],
                "CallerReference": str(uuid.uuid4()),
                "HostedZoneConfig": properties.get("HostedZoneConfig"),
                "VPC": (properties.get("VPCs") or [None])[0],
            },
        )
        zone = made["HostedZone"]["Id"].rpartition("/")[2]
        servers = made.get("DelegationSet", {}).get("NameServers", [])
        return Resource(zone, {"Id": zone, "NameServers": servers})

    async def update(self, request: ResourceRequest) -> Resource:
        """Change the zone's comment."""
        comment = (request.properties.get("HostedZoneConfig") or {}).get("Comment")
        await self.call(request, "UpdateHostedZoneComment", {"Id": request.physical_id, "Comment": comment})
        return request.current or Resource("")

    async def delete(self, request: ResourceRequest) -> None:
        """Delete the zone."""
        await self.call(request, "DeleteHostedZone", {"Id": request.physical_id})


class RecordSet(ApiResource):
    """AWS::Route53::RecordSet."""

    service = "route53"
    replaced_by = frozenset(["Name", "Type", "HostedZoneId", "HostedZoneName", "SetIdentifier"])

    async def create(self, request: ResourceRequest) -> Resource:
        """Create a record."""
        await self._change(request, "CREATE", request.properties)
        return Resource(str(request.properties["Name"]))

    async def update(self, request: ResourceRequest) -> Resource:
        """Replace the record's values."""
        await self._change(request, "UPSERT", request.properties)
        return request.current or Resource("")

    async def delete(self, request: ResourceRequest) -> None:
        """Delete the record, whatever its present values are."""
        zone = await self._zone(request, request.properties)
        name, kind = str(request.properties["Name"]).rstrip(".") + ".", request.properties["Type"]
        found = await self.call(
            request,
            "ListResourceRecordSets",
            {"HostedZoneId": zone, "StartRecordName": name, "StartRecordType": kind},
        )
        for record in found["ResourceRecordSets"]:
            is_same = record["Name"] == name and record["Type"] == kind
            if is_same and record.get("SetIdentifier") == request.properties.get("SetIdentifier"):
                batch = {"Changes": [{"Action": "DELETE", "ResourceRecordSet": record}]}
                await self.call(request, "ChangeResourceRecordSets", {"HostedZoneId": zone, "ChangeBatch": batch})

    async def _change(self, request: ResourceRequest, action: str, properties: Mapping[str, Any]) -> None:
        own = ("HostedZoneId", "HostedZoneName", "Comment", "ResourceRecords")
        record = {name: value for name, value in properties.items() if name not in own}
        if "AliasTarget" in properties:
            record["AliasTarget"] = {"EvaluateTargetHealth": False, **properties["AliasTarget"]}
        if "ResourceRecords" in properties:
            record["ResourceRecords"] = [{"Value": value} for value in properties["ResourceRecords"]]
        batch = {"Changes": [{"Action": action, "ResourceRecordSet": record}], "Comment": properties.get("Comment", "")}
        zone = await self._zone(request, properties)
        try:
            await self.call(request, "ChangeResourceRecordSets", {"HostedZoneId": zone, "ChangeBatch": batch})
        except ClientError as error:
            if is_code(error, "InvalidChangeBatch"):
                raise ResourceFailedError(error.response["Error"].get("Message", str(error))) from None
            raise

    async def _zone(self, request: ResourceRequest, properties: Mapping[str, Any]) -> str:
        if "HostedZoneId" in properties:
            return str(properties["HostedZoneId"])
        name = str(properties.get("HostedZoneName", "")).rstrip(".") + "."
        found = await self.call(request, "ListHostedZonesByName", {"DNSName": name})
        for zone in found["HostedZones"]:
            if zone["Name"] == name:
                return str(zone["Id"]).rpartition("/")[2]
        raise ResourceFailedError(f"no hosted zone named {name}: expected HostedZoneId or the name of a zone")


TYPES: Mapping[str, type[ApiResource]] = {
    "AWS::Route53::HostedZone": HostedZone,
    "AWS::Route53::RecordSet": RecordSet,
}
