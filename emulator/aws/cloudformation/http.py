"""CloudFormation's API: requests and answers by AWS's own model of the service.

Operations: https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_Operations.html
"""

import inspect
import json
import urllib.parse
import uuid
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any
from xml.sax.saxutils import escape

from aiohttp import web
from botocore.exceptions import BotoCoreError, ClientError
from moto.core.parse import QueryParser
from moto.core.serialize import QuerySerializer
from moto.core.utils import get_service_model

from emulator.aws.cloudformation.errors import invalid
from emulator.aws.cloudformation.service import CloudFormationService, StackRequest
from emulator.aws.cloudformation.stacks import (
    Change,
    ChangeSet,
    Stack,
    StackEvent,
    StackOutput,
    StackResource,
    StackSettings,
)
from emulator.aws.cloudformation.template import ParameterValue, Template
from emulator.aws.cloudformation.template_urls import read_template
from emulator.aws.cloudformation.types.custom import RESPONSE_BYTES, RESPONSE_ROOT, ResponseUrls
from emulator.aws.json_requests import read_body
from emulator.aws.limits import MIB
from emulator.aws.sdk_client import AwsClient
from emulator.errors import ApiError

API_VERSION = "2010-05-15"
_REQUEST_BYTES = 2 * MIB
_PAGE = 100
_Parameters = Mapping[str, Any]
_NOT_EMULATED = (
    "DeletionMode",
    "DeploymentMode",
    "ImportExistingResources",
    "ResourcesToImport",
    "ResourceTypes",
    "RetainExceptOnCreate",
    "RollbackConfiguration",
    "StackPolicyDuringUpdateBody",
    "StackPolicyDuringUpdateURL",
    "StackPolicyURL",
)
_ON_FAILURE = ("ROLLBACK", "DELETE", "DO_NOTHING")


class CloudFormationApi:
    """The operations on stacks, change sets, templates and exports.

    Parameters
    ----------
    service
        The stacks.
    aws
        Reads templates from S3.
    urls
        Take the reports of custom resources.
    """

    def __init__(self, service: CloudFormationService, aws: AwsClient, urls: ResponseUrls) -> None:
        self._urls = urls
        self._service = service
        self._aws = aws
        self._model = get_service_model("cloudformation")
        self._operations: dict[str, Callable[[str, _Parameters], Any]] = {
            "CreateChangeSet": self._create_change_set,
            "CreateStack": self._create_stack,
            "DeleteChangeSet": self._delete_change_set,
            "DeleteStack": self._delete_stack,
            "DescribeAccountLimits": lambda *_: {"AccountLimits": [{"Name": "StackLimit", "Value": 2000}]},
            "DescribeChangeSet": self._describe_change_set,
            "DescribeStackEvents": self._describe_events,
            "DescribeStackResource": self._describe_resource,
            "DescribeStackResources": self._describe_resources,
            "DescribeStacks": self._describe_stacks,
            "ExecuteChangeSet": self._execute_change_set,
            "GetStackPolicy": self._get_policy,
            "GetTemplate": self._get_template,
            "GetTemplateSummary": self._summarize,
            "ListChangeSets": self._list_change_sets,
            "ListExports": self._list_exports,
            "ListImports": self._list_imports,
            "ListStackResources": self._list_resources,
            "ListStacks": self._list_stacks,
            "SetStackPolicy": self._set_policy,
            "UpdateStack": self._update_stack,
            "UpdateTerminationProtection": self._protect,
            "ValidateTemplate": self._validate,
        }

    async def handle(self, request: web.BaseRequest, region: str) -> web.StreamResponse:
        """Respond to a request to CloudFormation.

        Parameters
        ----------
        request
            The request.
        region
            The region that it is signed for.
        """
        content = await read_body(request, _REQUEST_BYTES)
        values = dict(request.query) | dict(urllib.parse.parse_qsl(content.decode(errors="replace"), True))
        name = values.get("Action", "")
        try:
            operation = self._operation(name, len(content))
            model = self._model.operation_model(name)
            parameters = _parse(QueryParser(model), values, model.input_shape)
            _check_emulated(parameters)
            answer = operation(region, parameters)
            if inspect.isawaitable(answer):
                answer = await answer
        except ApiError as error:
            return _error(error)
        except (ClientError, BotoCoreError) as error:
            return _error(invalid(str(error)))
        answered = QuerySerializer(model).serialize(answer or {})
        return web.Response(body=str(answered["body"]).encode(), content_type="text/xml")

    def routes(self) -> list[web.AbstractRouteDef]:
        """Return the route that custom resources report to."""
        return [web.put(RESPONSE_ROOT + "{token}", self._report)]

    async def _report(self, request: web.Request) -> web.Response:
        content = await read_body(request, RESPONSE_BYTES)
        try:
            is_known = self._urls.report(request.match_info["token"], content)
        except ValueError as error:
            return web.Response(status=HTTPStatus.BAD_REQUEST, text=f"{error}\n")
        if not is_known:
            return web.Response(status=HTTPStatus.FORBIDDEN, text="no custom resource waits for this report\n")
        return web.Response()

    def _operation(self, name: str, size: int) -> Callable[[str, _Parameters], Any]:
        """Return an operation by name, for a request of a number of bytes.

        Raises
        ------
        ApiError
            When AWS has no such operation, it is not emulated, or the request is too large.
        """
        if size > _REQUEST_BYTES:
            raise invalid(f"request of {size} bytes: expected at most {_REQUEST_BYTES}")
        if name not in self._model.operation_names:
            raise ApiError("InvalidAction", HTTPStatus.BAD_REQUEST, f"Could not find operation {name!r:.100}")
        if name not in self._operations:
            message = f"CloudFormation: {name} is not emulated: expected one of {', '.join(self._operations)}"
            raise ApiError("UnsupportedOperation", HTTPStatus.BAD_REQUEST, message)
        return self._operations[name]

    async def _create_stack(self, region: str, given: _Parameters) -> dict[str, Any]:
        request = await self._stack_request(region, given)
        stack = await self._service.create_stack(
            region,
            given["StackName"],
            request,
            termination_protection=bool(given.get("EnableTerminationProtection")),
        )
        stack.policy = given.get("StackPolicyBody")
        self._service.changed(stack)
        return {"StackId": stack.id}

    async def _update_stack(self, region: str, given: _Parameters) -> dict[str, Any]:
        stack = self._service.get(region, given["StackName"])
        request = await self._stack_request(region, given, stack)
        return {"StackId": (await self._service.update_stack(region, given["StackName"], request)).id}

    def _delete_stack(self, region: str, given: _Parameters) -> None:
        self._service.delete_stack(region, given["StackName"], given.get("RetainResources", ()))

    async def _create_change_set(self, region: str, given: _Parameters) -> dict[str, Any]:
        kind = given.get("ChangeSetType", "UPDATE")
        stack = self._service.get(region, given["StackName"]) if kind == "UPDATE" else None
        request = await self._stack_request(region, given, stack)
        change_set = await self._service.create_change_set(
            region, given["StackName"], given["ChangeSetName"], kind, request, given.get("Description")
        )
        return {"Id": change_set.id, "StackId": change_set.stack.id}

    def _execute_change_set(self, region: str, given: _Parameters) -> None:
        change_set = self._change_set(region, given)
        self._service.execute_change_set(change_set, disable_rollback=bool(given.get("DisableRollback")))

    def _delete_change_set(self, region: str, given: _Parameters) -> None:
        self._service.delete_change_set(self._change_set(region, given))

    def _describe_change_set(self, region: str, given: _Parameters) -> dict[str, Any]:
        change_set = self._change_set(region, given)
        return {
            **_change_set_summary(change_set),
            "Parameters": _described_parameters(change_set.parameters),
            "NotificationARNs": list(change_set.settings.notification_arns),
            "Capabilities": list(change_set.settings.capabilities),
            "Tags": _tags(change_set.settings.tags),
            "Changes": [_described_change(change) for change in change_set.changes],
        }

    def _list_change_sets(self, region: str, given: _Parameters) -> dict[str, Any]:
        stack = self._service.get(region, given["StackName"])
        return _page("Summaries", [_change_set_summary(item) for item in self._service.change_sets(stack)], given)

    def _describe_stacks(self, region: str, given: _Parameters) -> dict[str, Any]:
        name = given.get("StackName")
        if name:
            return {"Stacks": [_described_stack(self._service.get(region, name))]}
        stacks = [stack for stack in self._service.all(region) if not stack.is_deleted]
        return _page("Stacks", [_described_stack(stack) for stack in stacks], given)

    def _list_stacks(self, region: str, given: _Parameters) -> dict[str, Any]:
        wanted = given.get("StackStatusFilter")
        stacks = [stack for stack in self._service.all(region) if not wanted or stack.status in wanted]
        summaries = [
            {
                "StackId": stack.id,
                "StackName": stack.name,
                "TemplateDescription": stack.template.description,
                "CreationTime": stack.created_at,
                "LastUpdatedTime": stack.updated_at,
                "DeletionTime": stack.deleted_at,
                "StackStatus": stack.status,
                "StackStatusReason": stack.reason,
                "ParentId": stack.parent,
                "RootId": stack.root,
                "DriftInformation": {"StackDriftStatus": "NOT_CHECKED"},
            }
            for stack in stacks
        ]
        return _page("StackSummaries", summaries, given)

    def _describe_events(self, region: str, given: _Parameters) -> dict[str, Any]:
        stack = self._service.get(region, given["StackName"])
        return _page("StackEvents", [_described_event(stack, event) for event in reversed(stack.events)], given)

    def _describe_resource(self, region: str, given: _Parameters) -> dict[str, Any]:
        stack, name = self._service.get(region, given["StackName"]), given["LogicalResourceId"]
        if name not in stack.resources:
            raise invalid(f"Resource {name} does not exist for stack {stack.name}")
        resource = stack.resources[name]
        metadata = stack.template.resources.get(name, {}).get("Metadata")
        return {
            "StackResourceDetail": {
                **_described_resource(stack, resource),
                "LastUpdatedTimestamp": resource.updated_at,
                "Metadata": None if metadata is None else json.dumps(metadata),
            }
        }

    def _describe_resources(self, region: str, given: _Parameters) -> dict[str, Any]:
        name, physical = given.get("StackName"), given.get("PhysicalResourceId")
        if name:
            stacks = [self._service.get(region, name)]
        else:
            stacks = [stack for stack in self._service.all(region) if not stack.is_deleted]
        found = [
            (stack, resource)
            for stack in stacks
            for resource in stack.resources.values()
            if physical in (None, resource.physical_id)
            and given.get("LogicalResourceId") in (None, resource.logical_id)
        ]
        if physical and not found:
            raise invalid(f"Stack for {physical} does not exist")
        if physical and not name:
            found = [(stack, resource) for stack, _ in found[:1] for resource in stack.resources.values()]
        return {
            "StackResources": [
                {**_described_resource(stack, resource), "Timestamp": resource.updated_at} for stack, resource in found
            ]
        }

    def _list_resources(self, region: str, given: _Parameters) -> dict[str, Any]:
        stack = self._service.get(region, given["StackName"])
        summaries = [
            {**_described_resource(stack, resource), "LastUpdatedTimestamp": resource.updated_at}
            for resource in stack.resources.values()
        ]
        return _page("StackResourceSummaries", summaries, given)

    def _get_template(self, region: str, given: _Parameters) -> dict[str, Any]:
        if given.get("ChangeSetName"):
            change_set = self._change_set(region, given)
            original, template = change_set.original, change_set.template
        else:
            stack = self._service.get(region, given["StackName"])
            original, template = stack.original, stack.template
        is_processed = given.get("TemplateStage") == "Processed" and template is not original
        return {
            "TemplateBody": json.dumps(template.body) if is_processed else original.text,
            "StagesAvailable": ["Original", "Processed"],
        }

    async def _validate(self, region: str, given: _Parameters) -> dict[str, Any]:
        text = await self._template_text(region, given)
        if text is None:
            raise invalid("Either Template URL or Template Body must be specified.")
        template = Template.parse(text)
        if not template.transforms:
            template.check()
        return {
            "Description": template.description,
            "Parameters": [
                {
                    "ParameterKey": name,
                    "DefaultValue": None if "Default" not in slot else str(slot["Default"]),
                    "NoEcho": str(slot.get("NoEcho", "")).lower() == "true",
                    "Description": slot.get("Description"),
                }
                for name, slot in template.parameters.items()
            ],
            **_capabilities(template),
            "DeclaredTransforms": template.transforms,
        }

    async def _summarize(self, region: str, given: _Parameters) -> dict[str, Any]:
        text = await self._template_text(region, given)
        if text is None and given.get("StackName"):
            text = self._service.get(region, given["StackName"]).original.text
        if not text:
            raise invalid("Either Template URL or Template Body must be specified.")
        template = Template.parse(text)
        return {
            "Parameters": [
                {
                    "ParameterKey": name,
                    "DefaultValue": None if "Default" not in slot else str(slot["Default"]),
                    "ParameterType": slot.get("Type", "String"),
                    "NoEcho": str(slot.get("NoEcho", "")).lower() == "true",
                    "Description": slot.get("Description"),
                    "ParameterConstraints": {"AllowedValues": [str(value) for value in slot.get("AllowedValues", ())]},
                }
                for name, slot in template.parameters.items()
            ],
            "Description": template.description,
            **_capabilities(template),
            "ResourceTypes": sorted({str(resource.get("Type")) for resource in template.resources.values()}),
            "Version": template.body.get("AWSTemplateFormatVersion"),
            "Metadata": None if "Metadata" not in template.body else json.dumps(template.body["Metadata"]),
            "DeclaredTransforms": template.transforms,
        }

    def _list_exports(self, region: str, given: _Parameters) -> dict[str, Any]:
        exports = [
            {"ExportingStackId": stack.id, "Name": output.export, "Value": output.value}
            for stack, output in self._service.exports(region)
        ]
        return _page("Exports", exports, given)

    def _list_imports(self, region: str, given: _Parameters) -> dict[str, Any]:
        importers = self._service.importers(region, given["ExportName"])
        if not importers:
            raise invalid(f"Export '{given['ExportName']}' is not imported by any stack.")
        return _page("Imports", importers, given)

    def _get_policy(self, region: str, given: _Parameters) -> dict[str, Any]:
        return {"StackPolicyBody": self._service.get(region, given["StackName"]).policy}

    def _set_policy(self, region: str, given: _Parameters) -> None:
        if given.get("StackPolicyURL"):
            raise invalid("StackPolicyURL is not emulated: expected StackPolicyBody")
        stack = self._service.get(region, given["StackName"])
        stack.policy = given.get("StackPolicyBody")
        self._service.changed(stack)

    def _protect(self, region: str, given: _Parameters) -> dict[str, Any]:
        stack = self._service.get(region, given["StackName"])
        stack.termination_protection = bool(given["EnableTerminationProtection"])
        self._service.changed(stack)
        return {"StackId": stack.id}

    def _change_set(self, region: str, given: _Parameters) -> ChangeSet:
        return self._service.change_set(region, given["ChangeSetName"], given.get("StackName"))

    async def _template_text(self, region: str, given: _Parameters) -> str | None:
        """Return the template in a request, or in the object of S3 that it names."""
        body, url = given.get("TemplateBody"), given.get("TemplateURL")
        return await read_template(url, region, self._aws) if url else body

    async def _stack_request(self, region: str, given: _Parameters, stack: Stack | None = None) -> StackRequest:
        text = await self._template_text(region, given)
        if text is None and not given.get("UsePreviousTemplate"):
            raise invalid("Either Template URL or Template Body must be specified.")
        parameters, previous = {}, set()
        for parameter in given.get("Parameters", ()):
            if parameter.get("UsePreviousValue"):
                previous.add(parameter["ParameterKey"])
            else:
                parameters[parameter["ParameterKey"]] = parameter.get("ParameterValue", "")
        on_failure = given.get("OnFailure") or given.get("OnStackFailure") or "ROLLBACK"
        if on_failure not in _ON_FAILURE:
            raise invalid(f"invalid OnFailure {on_failure!r}: expected one of {', '.join(_ON_FAILURE)}")
        tags = {tag["Key"]: tag["Value"] for tag in given.get("Tags", ())}
        if stack is not None and "Tags" not in given:
            tags = dict(stack.settings.tags)
        settings = StackSettings(
            tags,
            tuple(given.get("Capabilities", ())),
            tuple(given.get("NotificationARNs", () if stack is None else stack.settings.notification_arns)),
            given.get("RoleARN"),
            "DO_NOTHING" if given.get("DisableRollback") else on_failure,
            given["TimeoutInMinutes"] * 60 if given.get("TimeoutInMinutes") else None,
            given.get("ClientRequestToken"),
        )
        return StackRequest(text, parameters, frozenset(previous), settings)


def _parse(parser: QueryParser, values: Mapping[str, str], shape: Any) -> dict[str, Any]:
    """Parse a request.

    Raises
    ------
    ApiError
        ValidationError when a required parameter is missing, or a number is none.
    """
    try:
        parsed: dict[str, Any] = parser.parse({"values": values}) if shape is not None else {}  # type: ignore[typeddict-item]
    except ValueError as error:
        raise invalid(f"invalid request: {error}") from None
    missing = [name for name in (shape.required_members if shape is not None else ()) if name not in parsed]
    if missing:
        constraints = "; ".join(
            f"Value null at '{name[0].lower()}{name[1:]}' failed to satisfy constraint: Member must not be null"
            for name in missing
        )
        raise invalid(f"{len(missing)} validation error{'s' * (len(missing) > 1)} detected: {constraints}")
    return parsed


def _check_emulated(given: _Parameters) -> None:
    """Check that a request has no parameter that would have no effect here.

    Raises
    ------
    ApiError
        ValidationError when it has.
    """
    for name in _NOT_EMULATED:
        value = given.get(name)
        if name == "RollbackConfiguration":
            value = (value or {}).get("RollbackTriggers")
        if value and value != "STANDARD":
            raise invalid(f"{name} is not emulated: omit it")


def _page(name: str, items: list[Any], given: _Parameters) -> dict[str, Any]:
    token = given.get("NextToken", "0")
    start = int(token) if token.isdecimal() else 0
    following = str(start + _PAGE) if start + _PAGE < len(items) else None
    return {name: items[start : start + _PAGE], "NextToken": following}


def _tags(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def _described_parameters(parameters: Mapping[str, ParameterValue]) -> list[dict[str, Any]]:
    described = []
    for name, parameter in parameters.items():
        item = {"ParameterKey": name, "ParameterValue": "****" if parameter.no_echo else parameter.text}
        resolved = parameter.value if isinstance(parameter.value, str) else ",".join(parameter.value)
        if not parameter.no_echo and resolved.replace(" ", "") != parameter.text.replace(" ", ""):
            item["ResolvedValue"] = resolved
        described.append(item)
    return described


def _described_output(output: StackOutput) -> dict[str, Any]:
    return {
        "OutputKey": output.key,
        "OutputValue": output.value,
        "Description": output.description,
        "ExportName": output.export,
    }


def _described_stack(stack: Stack) -> dict[str, Any]:
    return {
        "StackId": stack.id,
        "StackName": stack.name,
        "ChangeSetId": stack.change_set_id,
        "Description": stack.template.description,
        "Parameters": _described_parameters(stack.parameters) or None,
        "CreationTime": stack.created_at,
        "LastUpdatedTime": stack.updated_at,
        "DeletionTime": stack.deleted_at,
        "RollbackConfiguration": {},
        "StackStatus": stack.status,
        "StackStatusReason": stack.reason,
        "DisableRollback": stack.settings.on_failure == "DO_NOTHING",
        "NotificationARNs": list(stack.settings.notification_arns),
        "TimeoutInMinutes": None if stack.settings.timeout_s is None else int(stack.settings.timeout_s // 60),
        "Capabilities": list(stack.settings.capabilities) or None,
        "Outputs": [_described_output(output) for output in stack.outputs.values()] or None,
        "RoleARN": stack.settings.role_arn,
        "Tags": _tags(stack.settings.tags),
        "EnableTerminationProtection": stack.termination_protection,
        "ParentId": stack.parent,
        "RootId": stack.root,
        "DriftInformation": {"StackDriftStatus": "NOT_CHECKED"},
    }


def _described_event(stack: Stack, event: StackEvent) -> dict[str, Any]:
    return {
        "StackId": stack.id,
        "EventId": event.id,
        "StackName": stack.name,
        "LogicalResourceId": event.logical_id,
        "PhysicalResourceId": event.physical_id,
        "ResourceType": event.type,
        "Timestamp": event.timestamp,
        "ResourceStatus": event.status,
        "ResourceStatusReason": event.reason,
        "ResourceProperties": event.properties,
        "ClientRequestToken": event.token,
    }


def _described_resource(stack: Stack, resource: StackResource) -> dict[str, Any]:
    return {
        "StackName": stack.name,
        "StackId": stack.id,
        "LogicalResourceId": resource.logical_id,
        "PhysicalResourceId": resource.physical_id or None,
        "ResourceType": resource.type,
        "ResourceStatus": resource.status,
        "ResourceStatusReason": resource.reason,
        "DriftInformation": {"StackResourceDriftStatus": "NOT_CHECKED"},
    }


def _change_set_summary(change_set: ChangeSet) -> dict[str, Any]:
    return {
        "ChangeSetName": change_set.name,
        "ChangeSetId": change_set.id,
        "StackId": change_set.stack.id,
        "StackName": change_set.stack.name,
        "Description": change_set.description,
        "CreationTime": change_set.created_at,
        "ExecutionStatus": change_set.execution_status,
        "Status": change_set.status,
        "StatusReason": change_set.reason,
        "IncludeNestedStacks": False,
    }


def _described_change(change: Change) -> dict[str, Any]:
    is_modified = change.action == "Modify"
    return {
        "Type": "Resource",
        "ResourceChange": {
            "Action": change.action,
            "LogicalResourceId": change.logical_id,
            "PhysicalResourceId": change.physical_id or None,
            "ResourceType": change.type,
            "Replacement": change.replacement,
            "Scope": ["Properties"] if is_modified else [],
            "Details": [
                {
                    "Target": {
                        "Attribute": "Properties",
                        "Name": name,
                        "RequiresRecreation": "Always" if change.replacement == "True" else "Never",
                    },
                    "Evaluation": "Static",
                    "ChangeSource": "DirectModification",
                }
                for name in change.properties
            ],
        },
    }


def _capabilities(template: Template) -> dict[str, Any]:
    """Return the capabilities that a template needs on AWS."""
    named = [
        name
        for name, resource in template.resources.items()
        if str(resource.get("Type", "")).startswith("AWS::IAM::")
        and any(member.endswith("Name") for member in resource.get("Properties", {}))
    ]
    has_iam = any(str(resource.get("Type", "")).startswith("AWS::IAM::") for resource in template.resources.values())
    capabilities = [
        *(["CAPABILITY_NAMED_IAM" if named else "CAPABILITY_IAM"] if has_iam else []),
        *(["CAPABILITY_AUTO_EXPAND"] if template.transforms else []),
    ]
    if not capabilities:
        return {"Capabilities": []}
    return {"Capabilities": capabilities, "CapabilitiesReason": "The template contains IAM resources or transforms"}


def _error(error: ApiError) -> web.Response:
    body = (
        f'<ErrorResponse xmlns="http://cloudformation.amazonaws.com/doc/{API_VERSION}/"><Error><Type>Sender</Type>'
        f"<Code>{escape(error.code)}</Code><Message>{escape(error.message)}</Message></Error>"
        f"<RequestId>{uuid.uuid4()}</RequestId></ErrorResponse>"
    )
    return web.Response(status=error.status, body=body.encode(), content_type="text/xml")
