"""CloudWatch Logs' operations by their names in AWS's model, which reads and checks requests and writes answers.

Shapes: https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_Operations.html
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from emulator.aws.account import Account
from emulator.aws.json_requests import whole_number
from emulator.aws.limits import LOG_EVENT_BYTES, MIB
from emulator.aws.logs.core import (
    EventPosition,
    LogEvent,
    LogGroup,
    LogStore,
    LogStream,
    SubscriptionFilter,
    compile_filter_pattern,
)
from emulator.aws.logs.resource_policies import ResourcePolicies
from emulator.aws.protocol.json_api import JsonApi, Parameters
from emulator.errors import ApiError

_INVALID = "InvalidParameterException"
_REQUEST_BYTES = 2 * MIB
# A page of events: https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/cloudwatch_limits_cwl.html
_PAGE_EVENTS, _PAGE_BYTES = 10_000, MIB
# More would hold the event loop for 100 ms.
_SEARCHED_EVENTS = 5_000
_EVENT_OVERHEAD_BYTES = 26
_DESCRIBED = 50
_FOREVER = 2**62
# Events may be so old, and so far in the future: API_PutLogEvents.
_OLDEST_MS, _NEWEST_MS = 14 * 24 * 3600 * 1000, 2 * 3600 * 1000
_RETENTIONS = (
    *(1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653),
)


class LogsApi(JsonApi):
    """The operations on log groups, streams and events, and on resource policies.

    Parameters
    ----------
    logs
        The log store.
    policies
        The resource policies.
    has_function
        Returns whether there is a function with an ARN.
    account_number
        The number of the account.
    """

    def __init__(
        self, logs: LogStore, policies: ResourcePolicies, has_function: Callable[[str], bool], account_number: str
    ) -> None:
        self._logs = logs
        self._policies = policies
        self._has_function = has_function
        operations = {
            "AssociateKmsKey": self._set_kms_key,
            "CreateLogGroup": self._create_group,
            "CreateLogStream": self._create_stream,
            "DeleteLogGroup": self._delete_group,
            "DeleteLogStream": self._delete_stream,
            "DeleteResourcePolicy": policies.delete,
            "DeleteRetentionPolicy": self._delete_retention,
            "DeleteSubscriptionFilter": self._delete_filter,
            "DescribeLogGroups": self._describe_groups,
            "DescribeLogStreams": self._describe_streams,
            "DescribeResourcePolicies": policies.describe,
            "DescribeSubscriptionFilters": self._describe_filters,
            "DisassociateKmsKey": self._set_kms_key,
            "FilterLogEvents": self._filter,
            "GetLogEvents": self._get_events,
            "ListTagsForResource": self._tags,
            "ListTagsLogGroup": self._tags,
            "PutLogEvents": self._put_events,
            "PutLogGroupDeletionProtection": self._protect,
            "PutResourcePolicy": policies.put,
            "PutRetentionPolicy": self._set_retention,
            "PutSubscriptionFilter": self._put_filter,
            "TagLogGroup": self._tag,
            "TagResource": self._tag,
            "UntagLogGroup": self._untag,
            "UntagResource": self._untag,
        }
        super().__init__(
            "logs",
            operations,
            account_number,
            request_bytes=_REQUEST_BYTES,
            invalid=_INVALID,
            disk_full="ServiceUnavailableException",
        )

    def clear(self) -> None:
        """Delete all log groups and policies."""
        self._logs.clear()
        self._policies.clear()

    def _create_group(self, request: Parameters, account: Account) -> None:
        name, logs = request["logGroupName"], self._logs.region(account.region)
        is_protected = request.get("deletionProtectionEnabled", False)
        logs.create_group(
            name, request.get("logGroupClass", "STANDARD"), request.get("kmsKeyId"), is_protected=is_protected
        )
        logs.set_tags(name, request.get("tags", {}))

    def _tags(self, request: Parameters, account: Account) -> Mapping[str, Any]:
        return {"tags": self._logs.region(account.region).tags(_tagged(request))}

    def _tag(self, request: Parameters, account: Account) -> None:
        self._logs.region(account.region).set_tags(_tagged(request), request["tags"])

    def _untag(self, request: Parameters, account: Account) -> None:
        keys = request["tagKeys"] if "tagKeys" in request else request["tags"]
        self._logs.region(account.region).remove_tags(_tagged(request), keys)

    def _create_stream(self, request: Parameters, account: Account) -> None:
        self._logs.region(account.region).create_stream(request["logGroupName"], request["logStreamName"])

    async def _delete_group(self, request: Parameters, account: Account) -> None:
        await self._logs.region(account.region).delete_group(request["logGroupName"])

    async def _delete_stream(self, request: Parameters, account: Account) -> None:
        await self._logs.region(account.region).delete_stream(request["logGroupName"], request["logStreamName"])

    def _set_retention(self, request: Parameters, account: Account) -> None:
        days = request["retentionInDays"]
        if days not in _RETENTIONS:
            expected = ", ".join(map(str, _RETENTIONS))
            raise _invalid(f"invalid retentionInDays {days}: expected one of {expected}")
        self._logs.region(account.region).set_retention(request["logGroupName"], days)

    def _delete_retention(self, request: Parameters, account: Account) -> None:
        self._logs.region(account.region).set_retention(request["logGroupName"], None)

    def _set_kms_key(self, request: Parameters, account: Account) -> None:
        group = request.get("logGroupName") or _name_of(request.get("resourceIdentifier", ""))
        self._logs.region(account.region).set_kms_key(group, request.get("kmsKeyId"))

    def _protect(self, request: Parameters, account: Account) -> None:
        is_protected = request["deletionProtectionEnabled"]
        logs = self._logs.region(account.region)
        logs.protect(_name_of(request["logGroupIdentifier"]), is_protected=is_protected)

    def _put_filter(self, request: Parameters, account: Account) -> None:
        for name in ("applyOnTransformedLogs", "fieldSelectionCriteria", "emitSystemFields"):
            if request.get(name):
                raise _invalid(f"{name} is not emulated: leave it out")
        destination = request["destinationArn"]
        logs = self._logs.region(account.region)
        logs.filters(request["logGroupName"])
        if not destination.startswith("arn:aws:lambda:"):
            raise _invalid(f"destination {destination} is not emulated: expected the ARN of a Lambda function")
        if not self._has_function(destination):
            raise _invalid(
                "Could not execute the lambda function. Make sure you have given CloudWatch Logs permission to execute "
                "your function."
            )
        distribution = request.get("distribution", "ByLogStream")
        wanted = SubscriptionFilter(
            request["filterName"], request["filterPattern"], destination, distribution, int(time.time() * 1000)
        )
        logs.put_filter(request["logGroupName"], wanted)

    def _describe_filters(self, request: Parameters, account: Account) -> Mapping[str, Any]:
        group, prefix = request["logGroupName"], request.get("filterNamePrefix", "")
        described = [
            {
                "filterName": found.name,
                "logGroupName": group,
                "filterPattern": found.pattern,
                "destinationArn": found.destination,
                "distribution": found.distribution,
                "applyOnTransformedLogs": False,
                "creationTime": found.created,
            }
            for found in self._logs.region(account.region).filters(group)
            if found.name.startswith(prefix)
        ]
        return _description_page(request, "subscriptionFilters", described)

    def _delete_filter(self, request: Parameters, account: Account) -> None:
        self._logs.region(account.region).delete_filter(request["logGroupName"], request["filterName"])

    def _describe_groups(self, request: Parameters, account: Account) -> Mapping[str, Any]:
        _check_exclusive(request, "logGroupNamePrefix", "logGroupNamePattern")
        prefix, pattern = request.get("logGroupNamePrefix", ""), request.get("logGroupNamePattern", "")
        named = {_name_of(identifier) for identifier in request.get("logGroupIdentifiers", ())}
        wanted = request.get("logGroupClass")
        groups = [
            group
            for group in self._logs.region(account.region).groups()
            if group.name.startswith(prefix)
            and pattern.lower() in group.name.lower()
            and (not named or group.name in named)
            and wanted in (None, group.log_class)
        ]
        described = [_group_description(group, account, is_brief=bool(pattern)) for group in groups]
        return _description_page(request, "logGroups", described)

    def _describe_streams(self, request: Parameters, account: Account) -> Mapping[str, Any]:
        group, prefix = _group(request), request.get("logStreamNamePrefix", "")
        by_time = request.get("orderBy") == "LastEventTime"
        if by_time and prefix:
            raise _invalid("Cannot order by LastEventTime with a logStreamNamePrefix.")
        found = self._logs.region(account.region).streams(group)
        streams = [stream for stream in found if stream.name.startswith(prefix)]
        if by_time:
            streams.sort(key=lambda stream: stream.last or 0)
        if request.get("descending"):
            streams.reverse()
        described = [_stream_description(group, stream, account) for stream in streams]
        return _description_page(request, "logStreams", described)

    def _put_events(self, request: Parameters, account: Account) -> Mapping[str, Any]:
        events = [(event["timestamp"], event["message"]) for event in request["logEvents"]]
        sizes = [len(message.encode(errors="replace")) + _EVENT_OVERHEAD_BYTES for _, message in events]
        if sum(sizes) > _PAGE_BYTES:
            raise _invalid(f"Upload too large: {len(events)} events, {sum(sizes)} bytes exceed limit of {_PAGE_BYTES}")
        if max(sizes) > LOG_EVENT_BYTES + _EVENT_OVERHEAD_BYTES:
            raise _invalid(f"Log event too large: {max(sizes)} bytes exceed limit of {LOG_EVENT_BYTES}")
        if events != sorted(events, key=lambda event: event[0]):
            raise _invalid("Log events in a single PutLogEvents request must be in chronological order.")
        now = int(time.time() * 1000)
        old = sum(timestamp < now - _OLDEST_MS for timestamp, _ in events)
        new = sum(timestamp > now + _NEWEST_MS for timestamp, _ in events)
        kept = events[old : len(events) - new]
        self._logs.region(account.region).put_events(request["logGroupName"], request["logStreamName"], kept)
        rejected = {
            "tooOldLogEventEndIndex": old or None,
            "tooNewLogEventStartIndex": len(events) - new if new else None,
        }
        return {"nextSequenceToken": "1", "rejectedLogEventsInfo": rejected if old or new else None}

    def _filter(self, request: Parameters, account: Account) -> Mapping[str, Any]:
        _check_exclusive(request, "logStreamNames", "logStreamNamePrefix")
        names, prefix = request.get("logStreamNames"), request.get("logStreamNamePrefix", "")
        matches = compile_filter_pattern(request.get("filterPattern", ""))
        events = self._logs.region(account.region).events_of_group(
            _group(request),
            start=request.get("startTime", 0),
            end=request.get("endTime", _FOREVER),
            after=_position(request["nextToken"]) if "nextToken" in request else None,
            stream=lambda name: name.startswith(prefix) and (names is None or name in names),
        )
        page, searched = _matching_page(events, matches, request.get("limit", _PAGE_EVENTS))
        return {
            "events": [
                {
                    **_event_description(event),
                    "logStreamName": event.stream,
                    "eventId": f"{event.position.batch:048d}{event.position.index:08d}",
                }
                for event in page
            ],
            "searchedLogStreams": [],
            "nextToken": None if searched is None else _token(searched),
        }

    def _get_events(self, request: Parameters, account: Account) -> Mapping[str, Any]:
        token = request.get("nextToken", "")
        kind, _, place = token.partition("/")
        # Without a token, the page is the last one unless startFromHead is set.
        backward = kind == "b" if token else not request.get("startFromHead")
        position = _position(place) if token else None
        events = self._logs.region(account.region).events_of_stream(
            _group(request),
            request["logStreamName"],
            start=request.get("startTime", 0),
            end=request.get("endTime", _FOREVER),
            place=position,
            backward=backward,
        )
        page, _ = _page(events, request.get("limit", _PAGE_EVENTS))
        if backward:
            page.reverse()
        here = position or EventPosition(0, 0, 0)
        first, last = (page[0].position, page[-1].position) if page else (here, here)
        return {
            "events": [_event_description(event) for event in page],
            # At an end of the stream the token stays the same: so clients detect the end.
            "nextForwardToken": f"f/{_token(last)}",
            "nextBackwardToken": f"b/{_token(first)}",
        }


def _group_description(group: LogGroup, account: Account, *, is_brief: bool) -> dict[str, Any]:
    """Return a log group as DescribeLogGroups shows it, with fewer members where it was found by a pattern."""
    arn = account.arn("logs", f"log-group:{group.name}")
    details = {} if is_brief else {"storedBytes": group.size, "deletionProtectionEnabled": group.is_protected}
    return {
        "logGroupName": group.name,
        "creationTime": group.created,
        "retentionInDays": group.retention,
        "metricFilterCount": 0,
        "arn": f"{arn}:*",
        "logGroupArn": arn,
        "logGroupClass": group.log_class,
        "kmsKeyId": group.kms_key,
        **details,
    }


def _stream_description(group: str, stream: LogStream, account: Account) -> dict[str, Any]:
    return {
        "logStreamName": stream.name,
        "creationTime": stream.created,
        "arn": account.arn("logs", f"log-group:{group}:log-stream:{stream.name}"),
        "storedBytes": stream.size,
        "firstEventTimestamp": stream.first,
        "lastEventTimestamp": stream.last,
        "lastIngestionTime": stream.ingested,
        "uploadSequenceToken": None if stream.ingested is None else "1",
    }


def _event_description(event: LogEvent) -> dict[str, Any]:
    return {"timestamp": event.position.timestamp, "message": event.message, "ingestionTime": event.ingested}


def _page(events: Iterable[LogEvent], limit: int) -> tuple[list[LogEvent], bool]:
    """Return the first events that fit on a page, and whether more follow."""
    page: list[LogEvent] = []
    size = 0
    for event in events:
        size += len(event.message) + _EVENT_OVERHEAD_BYTES
        if page and (size > _PAGE_BYTES or len(page) >= limit):
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
        if number == _SEARCHED_EVENTS:
            return page, searched
        if matches(event.message):
            size += len(event.message) + _EVENT_OVERHEAD_BYTES
            if page and (size > _PAGE_BYTES or len(page) >= limit):
                return page, searched
            page.append(event)
        searched = event.position
    return page, None


def _description_page(request: Parameters, name: str, described: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return a page of descriptions; a token is the number of entries before the page."""
    start, limit = whole_number(request.get("nextToken", "0")), request.get("limit", _DESCRIBED)
    if start is None:
        raise _invalid_token(request["nextToken"])
    is_truncated = start + limit < len(described)
    return {name: described[start : start + limit], "nextToken": str(start + limit) if is_truncated else None}


def _token(position: EventPosition) -> str:
    return f"{position.timestamp}/{position.batch}/{position.index}"


def _position(token: str) -> EventPosition:
    match [whole_number(part) for part in token.split("/")]:
        case [int(timestamp), int(batch), int(index)]:
            return EventPosition(timestamp, batch, index)
    raise _invalid_token(token)


def _group(request: Parameters) -> str:
    """Return the name of the log group, given by its name or by an identifier."""
    if "logGroupName" in request and "logGroupIdentifier" in request:
        message = "LogGroup name and LogGroup ARN are mutually exclusive parameters."
        raise ApiError("ValidationException", HTTPStatus.BAD_REQUEST, message)
    if "logGroupName" not in request and "logGroupIdentifier" not in request:
        raise _invalid("At least one of logGroupName or logGroupIdentifier must be specified.")
    return str(request.get("logGroupName")) if "logGroupName" in request else _name_of(request["logGroupIdentifier"])


def _tagged(request: Parameters) -> str:
    """Return the name of the log group that tags belong to, given by ARN or, in the older operations, by name."""
    if "logGroupName" in request:
        return str(request["logGroupName"])
    arn = request["resourceArn"]
    if ":log-group:" not in arn:
        raise _invalid(f"resourceArn: expected the ARN of a log group, got {arn!r:.80}")
    return _name_of(arn)


def _name_of(identifier: str) -> str:
    """Return the name of a log group given by its name or ARN."""
    return identifier.rpartition(":log-group:")[2].removesuffix(":*")


def _check_exclusive(request: Parameters, first: str, second: str) -> None:
    if first in request and second in request:
        raise _invalid(f"{first} and {second} are mutually exclusive parameters.")


def _invalid_token(token: str) -> ApiError:
    return _invalid(f"The specified nextToken is invalid: {token!r:.80}")


def _invalid(message: str) -> ApiError:
    return ApiError(_INVALID, HTTPStatus.BAD_REQUEST, message)
