"""CloudWatch Logs' API.

Shapes: https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_Operations.html
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any

from aiohttp import web

from emulator.aws.disk_reserve import DiskFullError
from emulator.aws.json_requests import read_json, whole_number
from emulator.aws.limits import ACCOUNT_ID, LOG_EVENT_BYTES, MIB, REGION
from emulator.aws.logs.core import EventPosition, LogEvent, LogStore, compile_filter_pattern
from emulator.errors import ApiError

TARGET_PREFIX = "Logs_20140328."
_REQUEST_BYTES = 2 * MIB
# A page of events: https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/cloudwatch_limits_cwl.html
_PAGE_EVENTS, _PAGE_BYTES = 10_000, MIB
_EVENT_OVERHEAD_BYTES = 26
_DESCRIBED = 50
_FOREVER = 2**62
_Body = Mapping[str, Any]
_Answer = dict[str, Any]


class LogsApi:
    """The operations on log groups, streams and events.

    Parameters
    ----------
    logs
        The log store.
    """

    def __init__(self, logs: LogStore) -> None:
        self._logs = logs
        self._operations: dict[str, Callable[[_Body], _Answer | Awaitable[_Answer]]] = {
            "CreateLogGroup": self._create_group,
            "CreateLogStream": self._create_stream,
            "DeleteLogGroup": self._delete_group,
            "DeleteLogStream": self._delete_stream,
            "DeleteRetentionPolicy": self._set_retention,
            "DescribeLogGroups": self._describe_groups,
            "DescribeLogStreams": self._describe_streams,
            "FilterLogEvents": self._filter,
            "GetLogEvents": self._get_events,
            "ListTagsForResource": self._tags,
            "ListTagsLogGroup": self._tags,
            "PutLogEvents": self._put_events,
            "PutRetentionPolicy": self._set_retention,
            "TagLogGroup": self._tag,
            "TagResource": self._tag,
            "UntagLogGroup": self._untag,
            "UntagResource": self._untag,
        }

    def clear(self) -> None:
        """Delete all log groups."""
        self._logs.clear()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Respond to a request to CloudWatch Logs."""
        name = request.headers["X-Amz-Target"].removeprefix(TARGET_PREFIX)
        try:
            body = await read_json(request, _REQUEST_BYTES, _too_large)
            answer = self._operations.get(name, _not_emulated(name))(body)
            if isinstance(answer, Awaitable):
                answer = await answer
        except DiskFullError as error:
            return _json({"__type": "ServiceUnavailableException", "message": error.message}, error.status)
        except ApiError as error:
            refusal = {"__type": error.code, "message": error.message}
            return _json(refusal, error.status)
        return _json(answer, HTTPStatus.OK)

    def _create_group(self, body: _Body) -> dict[str, Any]:
        name, tags = _text(body, "logGroupName"), _tags(body)
        self._logs.create_group(name)
        self._logs.set_tags(name, tags)
        return {}

    def _tags(self, body: _Body) -> dict[str, Any]:
        return {"tags": self._logs.tags(_tagged(body))}

    def _tag(self, body: _Body) -> dict[str, Any]:
        self._logs.set_tags(_tagged(body), _tags(body))
        return {}

    def _untag(self, body: _Body) -> dict[str, Any]:
        keys = body.get("tagKeys") or body.get("tags") or []
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise _invalid(f"tagKeys: expected a list of strings, got {keys!r:.80}")
        self._logs.remove_tags(_tagged(body), keys)
        return {}

    def _create_stream(self, body: _Body) -> dict[str, Any]:
        self._logs.create_stream(_group(body), _text(body, "logStreamName"))
        return {}

    async def _delete_group(self, body: _Body) -> dict[str, Any]:
        await self._logs.delete_group(_group(body))
        return {}

    async def _delete_stream(self, body: _Body) -> dict[str, Any]:
        await self._logs.delete_stream(_group(body), _text(body, "logStreamName"))
        return {}

    def _set_retention(self, body: _Body) -> dict[str, Any]:
        days = body.get("retentionInDays")
        self._logs.set_retention(_group(body), None if days is None else _number(body, "retentionInDays"))
        return {}

    def _describe_groups(self, body: _Body) -> dict[str, Any]:
        prefix, pattern = _optional_text(body, "logGroupNamePrefix"), _optional_text(body, "logGroupNamePattern")
        described = []
        for group in self._logs.groups():
            if not group.name.startswith(prefix) or pattern.lower() not in group.name.lower():
                continue
            arn = f"arn:aws:logs:{REGION}:{ACCOUNT_ID}:log-group:{group.name}"
            description = {
                "logGroupName": group.name,
                "creationTime": group.created,
                "metricFilterCount": 0,
                "arn": f"{arn}:*",
                "logGroupArn": arn,
                "logGroupClass": "STANDARD",
                "storedBytes": group.size,
            }
            described.append(
                description if group.retention is None else {**description, "retentionInDays": group.retention}
            )
        return _description_page(body, "logGroups", described)

    def _describe_streams(self, body: _Body) -> dict[str, Any]:
        group, prefix = _group(body), _optional_text(body, "logStreamNamePrefix")
        streams = [stream for stream in self._logs.streams(group) if stream.name.startswith(prefix)]
        if body.get("orderBy") == "LastEventTime":
            streams.sort(key=lambda stream: stream.last or 0)
        if body.get("descending"):
            streams.reverse()
        described = []
        for stream in streams:
            times = {
                "firstEventTimestamp": stream.first,
                "lastEventTimestamp": stream.last,
                "lastIngestionTime": stream.ingested,
            }
            described.append(
                {
                    "logStreamName": stream.name,
                    "creationTime": stream.created,
                    "arn": f"arn:aws:logs:{REGION}:{ACCOUNT_ID}:log-group:{group}:log-stream:{stream.name}",
                    "uploadSequenceToken": "1",
                    "storedBytes": stream.size,
                    **{name: time for name, time in times.items() if time is not None},
                }
            )
        return _description_page(body, "logStreams", described)

    def _put_events(self, body: _Body) -> dict[str, Any]:
        group, stream, given = _group(body), _text(body, "logStreamName"), body.get("logEvents") or []
        try:
            events = [(_number(event, "timestamp"), _text(event, "message")) for event in given]
        except (TypeError, AttributeError):
            raise _invalid(f"logEvents: expected a list of {{timestamp, message}}, got {given!r:.80}") from None
        sizes = [len(message.encode(errors="replace")) + _EVENT_OVERHEAD_BYTES for _, message in events]
        if len(events) > _PAGE_EVENTS or sum(sizes) > _PAGE_BYTES:
            raise _invalid(f"Upload too large: {len(events)} events, {sum(sizes)} bytes exceed limit of {_PAGE_BYTES}")
        if max(sizes, default=0) > LOG_EVENT_BYTES + _EVENT_OVERHEAD_BYTES:
            raise _invalid(f"Log event too large: {max(sizes)} bytes exceed limit of {LOG_EVENT_BYTES}")
        if events != sorted(events, key=lambda event: event[0]):
            raise _invalid("Log events in a single PutLogEvents request must be in chronological order.")
        self._logs.put_events(group, stream, events)
        return {"nextSequenceToken": "1"}

    def _filter(self, body: _Body) -> dict[str, Any]:
        names, prefix = body.get("logStreamNames") or [], _optional_text(body, "logStreamNamePrefix")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise _invalid(f"logStreamNames: expected a list of strings, got {names!r:.80}")
        matches = compile_filter_pattern(_optional_text(body, "filterPattern"))
        events = self._logs.events_of_group(
            _group(body),
            start=_number(body, "startTime", 0),
            end=_number(body, "endTime", _FOREVER),
            after=_position(body["nextToken"]) if body.get("nextToken") else None,
            stream=lambda name: name.startswith(prefix) and (not names or name in names),
        )
        page, searched = _matching_page(events, matches, _number(body, "limit", _PAGE_EVENTS, least=1))
        answer: dict[str, Any] = {
            "events": [
                {
                    "logStreamName": event.stream,
                    "timestamp": event.position.timestamp,
                    "message": event.message,
                    "ingestionTime": event.ingested,
                    "eventId": f"{event.position.batch:048d}{event.position.index:08d}",
                }
                for event in page
            ],
            "searchedLogStreams": [],
        }
        return {**answer, "nextToken": _token(searched)} if searched is not None else answer

    def _get_events(self, body: _Body) -> dict[str, Any]:
        token = str(body.get("nextToken") or "")
        kind, _, place = token.partition("/")
        # Without a token, the page is the last one unless startFromHead is set.
        backward = kind == "b" if token else not body.get("startFromHead")
        position = _position(place) if place else None
        events = self._logs.events_of_stream(
            _group(body),
            _text(body, "logStreamName"),
            start=_number(body, "startTime", 0),
            end=_number(body, "endTime", _FOREVER),
            place=position,
            backward=backward,
        )
        page, _ = _page(events, _number(body, "limit", _PAGE_EVENTS, least=1))
        if backward:
            page.reverse()
        here = position or EventPosition(0, 0, 0)
        first, last = (page[0].position, page[-1].position) if page else (here, here)
        return {
            "events": [
                {
                    "timestamp": event.position.timestamp,
                    "message": event.message,
                    "ingestionTime": event.ingested,
                }
                for event in page
            ],
            # At an end of the stream the token stays the same: so clients detect the end.
            "nextForwardToken": f"f/{_token(last)}",
            "nextBackwardToken": f"b/{_token(first)}",
        }


def _not_emulated(name: str) -> Callable[[_Body], dict[str, Any]]:
    def refuse(_: _Body) -> dict[str, Any]:
        message = f"CloudWatch Logs: {name} is not emulated"
        raise ApiError("UnknownOperationException", HTTPStatus.BAD_REQUEST, message)

    return refuse


def _page(events: Iterable[LogEvent], limit: int) -> tuple[list[LogEvent], bool]:
    """Return the first events that fit on a page, and whether more follow."""
    page: list[LogEvent] = []
    size = 0
    for event in events:
        size += len(event.message) + _EVENT_OVERHEAD_BYTES
        if page and (size > _PAGE_BYTES or len(page) >= min(limit, _PAGE_EVENTS)):
            return page, True
        page.append(event)
    return page, False


def _matching_page(
    events: Iterable[LogEvent], matches: Callable[[str], bool], limit: int
) -> tuple[list[LogEvent], EventPosition | None]:
    """Return the first matching events that fit on a page, and how far was searched if more may follow.

    As on AWS, a page may have fewer events than fit, or none: only so many are searched for it.
    """
    page: list[LogEvent] = []
    size, searched = 0, None
    for number, event in enumerate(events):
        if number == _PAGE_EVENTS:
            return page, searched
        if matches(event.message):
            size += len(event.message) + _EVENT_OVERHEAD_BYTES
            if page and (size > _PAGE_BYTES or len(page) >= min(limit, _PAGE_EVENTS)):
                return page, searched
            page.append(event)
        searched = event.position
    return page, None


def _description_page(body: _Body, name: str, described: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a page of descriptions; a token is the number of entries before the page."""
    start, limit = _number(body, "nextToken", 0), _number(body, "limit", _DESCRIBED, least=1)
    page = {name: described[start : start + limit]}
    return {**page, "nextToken": str(start + limit)} if start + limit < len(described) else page


def _token(position: EventPosition) -> str:
    return f"{position.timestamp}/{position.batch}/{position.index}"


def _position(token: object) -> EventPosition:
    match [whole_number(part) for part in str(token).split("/")]:
        case [int(timestamp), int(batch), int(index)]:
            return EventPosition(timestamp, batch, index)
    raise _invalid(f"The specified nextToken is invalid: {token!r:.80}")


def _group(body: _Body) -> str:
    """Return the name of the log group, given by name or ARN."""
    identifier = body.get("logGroupIdentifier")
    if identifier:
        return str(identifier).rpartition(":log-group:")[2].removesuffix(":*")
    return _text(body, "logGroupName")


def _tagged(body: _Body) -> str:
    """Return the name of the log group that tags belong to, given by ARN or, in the older operations, by name."""
    arn = body.get("resourceArn")
    if arn is None:
        return _text(body, "logGroupName")
    _, marker, name = str(arn).rpartition(":log-group:")
    if not marker:
        raise _invalid(f"resourceArn: expected the ARN of a log group, got {arn!r:.80}")
    return name.removesuffix(":*")


def _tags(body: _Body) -> dict[str, str]:
    tags = body.get("tags") or {}
    if not isinstance(tags, dict) or not all(isinstance(value, str) for value in tags.values()):
        raise _invalid(f"tags: expected an object of strings, got {tags!r:.80}")
    return tags


def _text(body: _Body, name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise _invalid(f"{name}: expected a string, got {value!r}")
    return value


def _optional_text(body: _Body, name: str) -> str:
    return _text(body, name) if body.get(name) else ""


def _number(body: _Body, name: str, default: int | None = None, least: int = 0) -> int:
    """Return a number; without a default it is required."""
    value = body.get(name)
    if value is None and default is not None:
        return default
    number = whole_number(str(value))
    if number is None or number < least:
        raise _invalid(f"{name}: expected a whole number from {least}, got {value!r:.80}")
    return number


def _invalid(message: str) -> ApiError:
    return ApiError("InvalidParameterException", HTTPStatus.BAD_REQUEST, message)


def _too_large() -> ApiError:
    return _invalid(f"Upload too large: more than {_REQUEST_BYTES} bytes")


def _json(body: _Body, status: HTTPStatus) -> web.Response:
    return web.json_response(body, status=status, content_type="application/x-amz-json-1.1")
