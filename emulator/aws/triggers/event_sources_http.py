"""Lambda's operations on event source mappings.

Operations: https://docs.aws.amazon.com/lambda/latest/api/API_CreateEventSourceMapping.html
"""

import json
import uuid
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any

from aiohttp import web
from botocore.exceptions import ClientError

from emulator.aws.json_requests import read_json
from emulator.aws.limits import MIB
from emulator.aws.sdk_client import AwsClient
from emulator.aws.triggers.event_sources import PARTIAL, EventSource, EventSources, new_id
from emulator.errors import ApiError

ROOT = "/2015-03-31/event-source-mappings"
# The tags of a mapping, by its ARN.
_TAGS = "/2017-03-31/tags/arn:aws:lambda:{place:[^/]*}:event-source-mapping:{id}"
_PAGE = 100
_SETTINGS = frozenset(
    [
        "BatchSize",
        "FilterCriteria",
        "FunctionResponseTypes",
        "MaximumBatchingWindowInSeconds",
        "MetricsConfig",
        "ScalingConfig",
        "Tags",
    ]
)
# Members that a request may have besides its settings, and those that only streams have.
_OTHERS = frozenset(["Enabled", "EventSourceArn", "FunctionName", "KMSKeyArn"])
_OF_STREAMS = frozenset(
    [
        "BisectBatchOnFunctionError",
        "DestinationConfig",
        "MaximumRecordAgeInSeconds",
        "MaximumRetryAttempts",
        "ParallelizationFactor",
        "StartingPosition",
        "StartingPositionTimestamp",
        "TumblingWindowInSeconds",
    ]
)
# Returns the region that a request is signed for.
RegionOf = Callable[[web.BaseRequest], str]
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class EventSourcesApi:
    """The operations on event source mappings.

    Parameters
    ----------
    sources
        The mappings.
    aws
        Finds functions and queues.
    account
        The account.
    region_of
        Returns the region of a request.
    """

    def __init__(self, sources: EventSources, aws: AwsClient, account: str, region_of: RegionOf) -> None:
        self._sources = sources
        self._aws = aws
        self._account = account
        self._region_of = region_of

    def routes(self) -> list[web.AbstractRouteDef]:
        """Return the operations' routes."""
        one = ROOT + "/{id}"
        return [
            web.post(ROOT, _aws_errors(self._create)),
            web.post(ROOT + "/", _aws_errors(self._create)),
            web.get(ROOT, _aws_errors(self._list)),
            web.get(ROOT + "/", _aws_errors(self._list)),
            web.get(one, _aws_errors(self._get)),
            web.put(one, _aws_errors(self._update)),
            web.delete(one, _aws_errors(self._delete)),
            web.get(_TAGS, _aws_errors(self._list_tags)),
            web.post(_TAGS, _aws_errors(self._tag)),
            web.delete(_TAGS, _aws_errors(self._untag)),
        ]

    async def _create(self, request: web.Request) -> web.StreamResponse:
        body, region = await _body(request), self._region_of(request)
        _check_members(body)
        source = str(body.get("EventSourceArn") or "")
        parts = source.split(":")
        if len(parts) < 6 or parts[2] != "sqs":
            raise _invalid(f"event source {source or 'none'} is not emulated: expected the ARN of an SQS queue")
        function = await self._function(body.get("FunctionName"), region)
        attributes = await self._queue(source)
        _check_settings(body, source)
        timeout_s = int(function.get("Timeout", 3))
        if int(attributes["VisibilityTimeout"]) < timeout_s:
            raise _invalid(
                f"Queue visibility timeout: {attributes['VisibilityTimeout']} seconds is less than Function timeout: "
                f"{timeout_s} seconds"
            )
        arn = function["FunctionArn"]
        for other in self._sources.all(region):
            if other.source == source and other.function == arn:
                raise ApiError(
                    "ResourceConflictException",
                    HTTPStatus.CONFLICT,
                    f'An event source mapping with SQS arn ("{source}") and function ("{function["FunctionName"]}") '
                    f"already exists. Please update or delete the existing mapping with UUID {other.id}",
                )
        mapping_id = new_id()
        mapping = EventSource(
            mapping_id,
            f"arn:aws:lambda:{region}:{self._account}:event-source-mapping:{mapping_id}",
            region,
            source,
            arn,
            {name: body[name] for name in _SETTINGS if body.get(name) is not None},
            is_enabled=body.get("Enabled") is not False,
        )
        self._sources.add(mapping)
        described = _described(mapping)
        mapping.state = "Enabled" if mapping.is_enabled else "Disabled"
        return _json(described, HTTPStatus.ACCEPTED)

    async def _list(self, request: web.Request) -> web.StreamResponse:
        region, source = self._region_of(request), request.query.get("EventSourceArn")
        name = request.query.get("FunctionName")
        function = (await self._function(name, region))["FunctionArn"] if name else None
        found = [
            _described(mapping)
            for mapping in self._sources.all(region)
            if source in (None, mapping.source) and function in (None, mapping.function)
        ]
        marker = request.query.get("Marker", "0")
        start = int(marker) if marker.isdecimal() else 0
        limit = request.query.get("MaxItems", "")
        end = start + (min(_PAGE, int(limit)) if limit.isdecimal() and int(limit) else _PAGE)
        following = {"NextMarker": str(end)} if end < len(found) else {}
        return _json({"EventSourceMappings": found[start:end], **following}, HTTPStatus.OK)

    async def _get(self, request: web.Request) -> web.StreamResponse:
        return _json(_described(self._find(request)), HTTPStatus.OK)

    async def _update(self, request: web.Request) -> web.StreamResponse:
        mapping, body = self._find(request), await _body(request)
        _check_members(body)
        _check_settings({**mapping.settings, **body}, mapping.source)
        if body.get("FunctionName"):
            mapping.function = (await self._function(body["FunctionName"], mapping.region))["FunctionArn"]
        mapping.settings.update({name: body[name] for name in _SETTINGS if body.get(name) is not None})
        if body.get("Enabled") is not None:
            mapping.is_enabled = bool(body["Enabled"])
        self._sources.apply(mapping)
        mapping.state = "Updating"
        described = _described(mapping)
        mapping.state = "Enabled" if mapping.is_enabled else "Disabled"
        return _json(described, HTTPStatus.ACCEPTED)

    async def _delete(self, request: web.Request) -> web.StreamResponse:
        mapping = self._find(request)
        self._sources.remove(mapping)
        mapping.state = "Deleting"
        return _json(_described(mapping), HTTPStatus.ACCEPTED)

    async def _list_tags(self, request: web.Request) -> web.StreamResponse:
        return _json({"Tags": self._find(request).settings.get("Tags", {})}, HTTPStatus.OK)

    async def _tag(self, request: web.Request) -> web.StreamResponse:
        mapping, body = self._find(request), await _body(request)
        mapping.settings["Tags"] = {**mapping.settings.get("Tags", {}), **(body.get("Tags") or {})}
        return web.Response(status=HTTPStatus.NO_CONTENT)

    async def _untag(self, request: web.Request) -> web.StreamResponse:
        mapping, removed = self._find(request), request.query.getall("tagKeys", [])
        tags = mapping.settings.get("Tags", {})
        mapping.settings["Tags"] = {key: value for key, value in tags.items() if key not in removed}
        return web.Response(status=HTTPStatus.NO_CONTENT)

    def _find(self, request: web.Request) -> EventSource:
        mapping = self._sources.get(request.match_info["id"])
        if mapping is None or mapping.region != self._region_of(request):
            message = "The resource you requested does not exist."
            raise ApiError("ResourceNotFoundException", HTTPStatus.NOT_FOUND, message)
        return mapping

    async def _function(self, name: Any, region: str) -> Mapping[str, Any]:
        """Return the configuration of a function; its ARN has the version or alias that the name has.

        Raises
        ------
        ApiError
            InvalidParameterValueException when it does not exist.
        """
        try:
            found = await self._aws.call("lambda", "GetFunctionConfiguration", {"FunctionName": str(name)}, region)
        except ClientError as error:
            if error.response["Error"]["Code"] == "ResourceNotFoundException":
                raise ApiError(
                    "InvalidParameterValueException", HTTPStatus.BAD_REQUEST, "Function does not exist"
                ) from None
            raise
        plain = f"arn:aws:lambda:{region}:{self._account}:function:{found['FunctionName']}"
        rest = str(name).rpartition(found["FunctionName"])[2]
        return {**found, "FunctionArn": plain + rest}

    async def _queue(self, arn: str) -> Mapping[str, str]:
        """Return the attributes of a queue.

        Raises
        ------
        ApiError
            InvalidParameterValueException when it does not exist.
        """
        region, name = arn.split(":")[3], arn.rpartition(":")[2]
        try:
            url = (await self._aws.call("sqs", "GetQueueUrl", {"QueueName": name}, region))["QueueUrl"]
        except ClientError:
            raise _invalid(
                f"Error occurred while ReceiveMessage. SQS Error Code: AWS.SimpleQueueService.NonExistentQueue. "
                f"SQS Error Message: The specified queue does not exist: {arn}"
            ) from None
        wanted = {"QueueUrl": url, "AttributeNames": ["VisibilityTimeout"]}
        found: Mapping[str, str] = (await self._aws.call("sqs", "GetQueueAttributes", wanted, region))["Attributes"]
        return found


def _check_members(body: Mapping[str, Any]) -> None:
    """Check that a request has no members that are not emulated.

    Raises
    ------
    ApiError
        InvalidParameterValueException.
    """
    for name, value in body.items():
        if value is None or name in _SETTINGS or name in _OTHERS:
            continue
        if name in _OF_STREAMS:
            raise _invalid(f"Unsupported {name} parameter for given event source mapping type.")
        raise _invalid(f"{name} is not emulated: expected one of {', '.join(sorted(_SETTINGS | _OTHERS))}")


def _check_settings(body: Mapping[str, Any], source: str) -> None:
    batch, window = body.get("BatchSize") or 10, body.get("MaximumBatchingWindowInSeconds") or 0
    most = 10 if source.endswith(".fifo") else 10_000
    if not isinstance(batch, int) or not 1 <= batch <= most:
        raise _invalid(f"invalid BatchSize {batch!r}: expected 1 to {most}")
    if not isinstance(window, int) or not 0 <= window <= 300:
        raise _invalid(f"invalid MaximumBatchingWindowInSeconds {window!r}: expected 0 to 300")
    if window and source.endswith(".fifo"):
        raise _invalid("Batching window is not supported for FIFO queues")
    if batch > 10 and not window:
        raise _invalid(
            "Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10"
        )
    types = body.get("FunctionResponseTypes") or []
    if any(kind != PARTIAL for kind in types):
        raise _invalid(f"invalid FunctionResponseTypes {types!r}: expected {PARTIAL}")
    concurrency = (body.get("ScalingConfig") or {}).get("MaximumConcurrency")
    if concurrency is not None and not (isinstance(concurrency, int) and 2 <= concurrency <= 1000):
        raise _invalid(f"invalid MaximumConcurrency {concurrency!r}: expected 2 to 1000")
    for item in (body.get("FilterCriteria") or {}).get("Filters") or []:
        try:
            is_object = isinstance(json.loads(item.get("Pattern") or "{}"), dict)
        except ValueError:
            is_object = False
        if not is_object:
            raise _invalid("Invalid filter pattern definition.")


def _described(mapping: EventSource) -> dict[str, Any]:
    described = {
        "UUID": mapping.id,
        "BatchSize": mapping.batch_size,
        "MaximumBatchingWindowInSeconds": mapping.window_s,
        "EventSourceArn": mapping.source,
        "EventSourceMappingArn": mapping.arn,
        "FunctionArn": mapping.function,
        "LastModified": mapping.modified,
        "State": mapping.state,
        "StateTransitionReason": mapping.reason,
        "FunctionResponseTypes": mapping.settings.get("FunctionResponseTypes") or [],
    }
    for name in ("FilterCriteria", "ScalingConfig", "MetricsConfig"):
        if mapping.settings.get(name):
            described[name] = mapping.settings[name]
    return described


def _aws_errors(handler: _Handler) -> _Handler:
    async def call(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except ApiError as error:
            response = _json({"Type": "User", "message": error.message, "Message": error.message}, error.status)
            response.headers["x-amzn-ErrorType"] = error.code
            return response
        except ClientError as error:
            found = error.response["Error"]
            status = HTTPStatus(error.response["ResponseMetadata"]["HTTPStatusCode"])
            response = _json({"Type": "User", "message": found["Message"], "Message": found["Message"]}, status)
            response.headers["x-amzn-ErrorType"] = found["Code"]
            return response

    return call


async def _body(request: web.Request) -> dict[str, Any]:
    return await read_json(request, MIB, lambda: _invalid("the request is too large"))


def _json(body: Mapping[str, Any], status: HTTPStatus) -> web.Response:
    return web.json_response(body, status=status, headers={"x-amzn-RequestId": str(uuid.uuid4())})


def _invalid(message: str) -> ApiError:
    return ApiError("InvalidParameterValueException", HTTPStatus.BAD_REQUEST, message)
