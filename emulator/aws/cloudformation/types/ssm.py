"""AWS::SSM: parameters.

Properties: https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/AWS_SSM.html
"""

from collections.abc import Mapping
from typing import Any

from emulator.aws.cloudformation.resource import Resource, ResourceRequest
from emulator.aws.cloudformation.types.api import ApiResource, SimpleResource


class Parameter(SimpleResource):
    """AWS::SSM::Parameter."""

    service = "ssm"
    create_operation = "PutParameter"
    update_operation = "PutParameter"
    delete_operation = "DeleteParameter"
    name_property = "Name"
    longest_name = 512
    creation_only = frozenset(["Tags"])

    async def update(self, request: ResourceRequest) -> Resource:
        """Overwrite the parameter."""
        properties = {name: value for name, value in request.properties.items() if name != "Tags"}
        await self.call(request, "PutParameter", {**properties, **self.key(request), "Overwrite": True})
        return _parameter(request.physical_id, request.properties)

    def key(self, request: ResourceRequest) -> dict[str, Any]:
        """Return the parameter's name."""
        return {"Name": request.physical_id}

    async def created(
        self, request: ResourceRequest, properties: Mapping[str, Any], response: Mapping[str, Any]
    ) -> Resource:
        """Return the parameter."""
        return _parameter(str(properties["Name"]), properties)


def _parameter(name: str, properties: Mapping[str, Any]) -> Resource:
    return Resource(name, {"Type": properties.get("Type", "String"), "Value": str(properties.get("Value", ""))})


TYPES: Mapping[str, type[ApiResource]] = {"AWS::SSM::Parameter": Parameter}
