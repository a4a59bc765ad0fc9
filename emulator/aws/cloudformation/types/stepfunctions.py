"""AWS::StepFunctions: state machines.

Properties: https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/AWS_StepFunctions.html
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from emulator.aws.cloudformation.errors import ResourceFailedError
from emulator.aws.cloudformation.resource import Resource, ResourceRequest
from emulator.aws.cloudformation.types.api import ApiResource

_DEFINITIONS = ("DefinitionString", "Definition", "DefinitionS3Location", "DefinitionSubstitutions")
_SUBSTITUTION = re.compile(r"\$\{([A-Za-z0-9_]+)\}")
_RENAMED = {"StateMachineName": "name", "StateMachineType": "type"}


class StateMachine(ApiResource):
    """AWS::StepFunctions::StateMachine."""

    service = "stepfunctions"
    replaced_by = frozenset(["StateMachineName", "StateMachineType"])
    renamed = _RENAMED

    async def create(self, request: ResourceRequest) -> Resource:
        """Create a state machine."""
        name = request.properties.get("StateMachineName") or request.generated_name(80)
        tags = {**request.stack.tags, **{tag["Key"]: tag["Value"] for tag in request.properties.get("Tags") or []}}
        made = await self.call(
            request,
            "CreateStateMachine",
            {
                **await self._settings(request),
                "StateMachineName": name,
                "StateMachineType": request.properties.get("StateMachineType"),
                "Tags": [{"Key": key, "Value": value} for key, value in tags.items()] or None,
            },
        )
        arn = made["stateMachineArn"]
        return Resource(arn, {"Arn": arn, "Name": name, "StateMachineRevisionId": "INITIAL"})

    async def update(self, request: ResourceRequest) -> Resource:
        """Change definition, role, logging and tags."""
        settings = {**await self._settings(request), "stateMachineArn": request.physical_id}
        updated = await self.call(request, "UpdateStateMachine", settings)
        if request.changed("Tags"):
            before = {tag["Key"] for tag in request.previous.get("Tags") or []}
            after = request.properties.get("Tags") or []
            gone = sorted(before - {tag["Key"] for tag in after})
            if gone:
                await self.call(request, "UntagResource", {"resourceArn": request.physical_id, "tagKeys": gone})
            if after:
                await self.call(request, "TagResource", {"resourceArn": request.physical_id, "tags": after})
        attributes = dict((request.current or Resource("")).attributes)
        revision = updated.get("revisionId", attributes.get("StateMachineRevisionId"))
        return Resource(request.physical_id, {**attributes, "StateMachineRevisionId": revision})

    async def delete(self, request: ResourceRequest) -> None:
        """Delete the state machine."""
        await self.call(request, "DeleteStateMachine", {"stateMachineArn": request.physical_id})

    async def _settings(self, request: ResourceRequest) -> dict[str, Any]:
        settings = {
            name: value for name, value in request.properties.items() if name not in (*_DEFINITIONS, *_RENAMED, "Tags")
        }
        return {**settings, "definition": await self._definition(request)}

    async def _definition(self, request: ResourceRequest) -> str:
        """Return the definition, from the template or from S3, with its substitutions made."""
        properties = request.properties
        text: str
        if "DefinitionString" in properties:
            text = str(properties["DefinitionString"])
        elif "Definition" in properties:
            text = json.dumps(properties["Definition"])
        elif "DefinitionS3Location" in properties:
            place = properties["DefinitionS3Location"]
            given = {"Bucket": place["Bucket"], "Key": place["Key"], "VersionId": place.get("Version")}
            found = await self.call(request, "GetObject", given, service="s3")
            text = found["Body"].decode()
        else:
            raise ResourceFailedError(f"no definition: expected one of {', '.join(_DEFINITIONS[:3])}")
        substitutions = properties.get("DefinitionSubstitutions") or {}

        def replace(match: re.Match[str]) -> str:
            if match[1] not in substitutions:
                return match[0]
            value = substitutions[match[1]]
            return str(value).lower() if isinstance(value, bool) else json.dumps(str(value))[1:-1]

        return _SUBSTITUTION.sub(replace, text)


TYPES: Mapping[str, type[ApiResource]] = {"AWS::StepFunctions::StateMachine": StateMachine}
