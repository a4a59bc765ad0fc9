"""Custom resources: a function, or a subscriber of a topic, makes them and reports to a URL.

Protocol: https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/crpg-ref.html
"""

import asyncio
import json
import uuid
from collections.abc import Mapping
from typing import Any

from emulator.aws.cloudformation.errors import ResourceFailedError
from emulator.aws.cloudformation.resource import Resource, ResourceRequest
from emulator.aws.lambda_.core.event_outcomes import EventCondition, EventOutcome
from emulator.aws.sdk_client import AwsClient

# The path of the URLs; their random tokens are the permission to report, as the signature of AWS's URLs is.
RESPONSE_ROOT = "/2010-05-15/custom-resources/"
# AWS's limit of a report.
RESPONSE_BYTES = 4096
_TIMEOUT_S = 3600
PREFIXES = ("Custom::", "AWS::CloudFormation::CustomResource")


class ResponseUrls:
    """The URLs that custom resources report to, each for one report.

    Parameters
    ----------
    endpoint_url
        The endpoint that takes the reports.
    """

    def __init__(self, endpoint_url: str) -> None:
        self._endpoint_url = endpoint_url
        self._waiting: dict[str, asyncio.Future[Mapping[str, Any]]] = {}

    def open(self) -> tuple[str, str, "asyncio.Future[Mapping[str, Any]]"]:
        """Return a token, its URL, and the future of its report."""
        token = uuid.uuid4().hex
        future: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[token] = future
        return token, f"{self._endpoint_url}{RESPONSE_ROOT}{token}", future

    def close(self, token: str) -> None:
        """Forget a token."""
        self._waiting.pop(token, None)

    def report(self, token: str, content: bytes) -> bool:
        """Take a report; return whether the token was waiting.

        Raises
        ------
        ValueError
            When the report is not a JSON object, or is larger than 4 KB.
        """
        if len(content) > RESPONSE_BYTES:
            raise ValueError(f"report of {len(content)} bytes: expected at most {RESPONSE_BYTES}")
        body = json.loads(content)
        if not isinstance(body, dict):
            raise ValueError("invalid report: expected a JSON object")  # noqa: TRY004 - of a caller's JSON
        future = self._waiting.get(token)
        if future is None or future.done():
            return False
        future.set_result(body)
        return True

    def event_ended(self, outcome: EventOutcome) -> None:
        """Fail the resource whose request no attempt of its function has handled.

        AWS waits for the whole time limit, an hour, although no report can come any more.
        """
        if outcome.condition is EventCondition.SUCCESS or RESPONSE_ROOT.encode() not in outcome.event:
            return
        event = json.loads(outcome.event)
        url = str(event.get("ResponseURL", "")) if isinstance(event, dict) else ""
        future = self._waiting.get(url.removeprefix(self._endpoint_url + RESPONSE_ROOT))
        if future is not None and not future.done():
            answer = (outcome.response or b"no response").decode(errors="replace")
            reason = f"function {outcome.function_arn} failed without a report, {outcome.condition}: {answer:.1000}"
            future.set_result({"Status": "FAILED", "Reason": reason})


class CustomResource:
    """Resources whose ServiceToken names who makes them.

    Parameters
    ----------
    aws
        Invokes functions and publishes to topics.
    urls
        Where they report to.
    """

    def __init__(self, aws: AwsClient, urls: ResponseUrls) -> None:
        self._aws = aws
        self._urls = urls

    def replaces(self, request: ResourceRequest) -> bool:
        """Return whether another provider takes over."""
        return request.changed("ServiceToken")

    async def create(self, request: ResourceRequest) -> Resource:
        """Ask the provider to create the resource."""
        return await self._ask(request, "Create", {})

    async def update(self, request: ResourceRequest) -> Resource:
        """Ask the provider to update the resource; another physical id means that it has replaced it."""
        previous = {"OldResourceProperties": _texts(request.previous), "PhysicalResourceId": request.physical_id}
        return await self._ask(request, "Update", previous)

    async def delete(self, request: ResourceRequest) -> None:
        """Ask the provider to delete the resource."""
        await self._ask(request, "Delete", {"PhysicalResourceId": request.physical_id})

    async def _ask(self, request: ResourceRequest, kind: str, more: Mapping[str, Any]) -> Resource:
        provider = str(request.properties.get("ServiceToken", ""))
        timeout_s = int(request.properties.get("ServiceTimeout", _TIMEOUT_S))
        token, url, report = self._urls.open()
        event = {
            "RequestType": kind,
            "ServiceToken": provider,
            "ResponseURL": url,
            "StackId": request.stack.arn,
            "RequestId": str(uuid.uuid4()),
            "LogicalResourceId": request.logical_id,
            "ResourceType": request.type,
            "ResourceProperties": _texts(request.properties),
            **more,
        }
        try:
            await self._send(provider, event, request.stack.region)
            async with asyncio.timeout(timeout_s):
                response = await report
        except TimeoutError:
            raise ResourceFailedError(
                f"{request.logical_id} did not respond within {timeout_s} s: check the log of {provider}"
            ) from None
        finally:
            self._urls.close(token)
        reason = str(response.get("Reason") or "no reason given")
        if response.get("Status") != "SUCCESS":
            raise ResourceFailedError(
                f"Received response status [FAILED] from custom resource. Message returned: {reason}"
            )
        physical_id = response.get("PhysicalResourceId") or request.physical_id
        if not physical_id:
            raise ResourceFailedError("Invalid PhysicalResourceId: the report has none")
        return Resource(str(physical_id), dict(response.get("Data") or {}))

    async def _send(self, provider: str, event: Mapping[str, Any], region: str) -> None:
        message = json.dumps(event)
        if ":lambda:" in provider:
            invocation = {"FunctionName": provider, "InvocationType": "Event", "Payload": message.encode()}
            await self._aws.call("lambda", "Invoke", invocation, region)
        elif ":sns:" in provider:
            publication = {"TopicArn": provider, "Subject": "AWS CloudFormation custom resource request"}
            await self._aws.call("sns", "Publish", {**publication, "Message": message}, region)
        else:
            raise ResourceFailedError(
                f"invalid ServiceToken {provider!r}: expected the ARN of a Lambda function or an SNS topic"
            )


def _texts(value: Any) -> Any:
    """Return a value with its numbers and booleans as strings, as CloudFormation sends them."""
    if isinstance(value, Mapping):
        return {name: _texts(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_texts(item) for item in value]
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) or value is None else str(value)
