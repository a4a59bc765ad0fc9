"""CloudWatch Logs over HTTP."""

import time
import uuid
from typing import Any

import pytest
from botocore.exceptions import ClientError


@pytest.fixture
def group(log_client: Any) -> str:
    name = f"/test/{uuid.uuid4().hex}"
    log_client.create_log_group(logGroupName=name)
    return name


def put(log_client: Any, group: str, stream: str, messages: list[str], first: int = 1000) -> None:
    events = [{"timestamp": first + number, "message": message} for number, message in enumerate(messages)]
    log_client.put_log_events(logGroupName=group, logStreamName=stream, logEvents=events)


def test_groups_and_streams_are_created_described_and_deleted(log_client: Any, group: str) -> None:
    log_client.put_retention_policy(logGroupName=group, retentionInDays=7)
    (described,) = log_client.describe_log_groups(logGroupNamePrefix=group)["logGroups"]
    assert (described["logGroupName"], described["retentionInDays"]) == (group, 7)
    assert abs(described["creationTime"] / 1000 - time.time()) < 60
    for stream in ("a", "b", "c"):
        log_client.create_log_stream(logGroupName=group, logStreamName=stream)
    put(log_client, group, "a", ["late"], 9000)
    put(log_client, group, "c", ["early", "ä"], 5000)
    order = {"logGroupName": group, "orderBy": "LastEventTime", "descending": True}
    latest = log_client.describe_log_streams(**order, limit=2)
    assert [stream["logStreamName"] for stream in latest["logStreams"]] == ["a", "c"]
    assert (latest["logStreams"][1]["firstEventTimestamp"], latest["logStreams"][1]["storedBytes"]) == (5000, 7)
    rest = log_client.describe_log_streams(
        logGroupName=group, nextToken=latest["nextToken"], orderBy="LastEventTime", descending=True
    )
    assert [stream["logStreamName"] for stream in rest["logStreams"]] == ["b"]
    log_client.delete_log_stream(logGroupName=group, logStreamName="a")
    assert [event["message"] for event in log_client.filter_log_events(logGroupName=group)["events"]] == ["early", "ä"]
    log_client.delete_log_group(logGroupName=group)
    assert log_client.describe_log_groups(logGroupNamePrefix=group)["logGroups"] == []


def test_missing_and_existing_groups_and_streams_raise_errors(log_client: Any, group: str) -> None:
    errors = log_client.exceptions
    with pytest.raises(errors.ResourceAlreadyExistsException):
        log_client.create_log_group(logGroupName=group)
    with pytest.raises(errors.ResourceNotFoundException, match="The specified log group does not exist"):
        log_client.filter_log_events(logGroupName="/no/such/group")
    with pytest.raises(errors.ResourceNotFoundException, match="The specified log stream does not exist"):
        log_client.get_log_events(logGroupName=group, logStreamName="none")
    log_client.create_log_stream(logGroupName=group, logStreamName="stream")
    with pytest.raises(errors.InvalidParameterException, match="chronological order"):
        events = [{"timestamp": 2, "message": "b"}, {"timestamp": 1, "message": "a"}]
        log_client.put_log_events(logGroupName=group, logStreamName="stream", logEvents=events)
    with pytest.raises(ClientError, match="StartQuery is not emulated"):
        log_client.start_query(logGroupName=group, startTime=0, endTime=1, queryString="fields @message")


def test_filter_returns_events_of_all_streams_in_order_of_time(log_client: Any, group: str) -> None:
    for stream, first in (("a", 1000), ("b", 1001), ("other", 1002)):
        log_client.create_log_stream(logGroupName=group, logStreamName=stream)
        put(log_client, group, stream, [f"{stream}{number}" for number in range(3)], first)
    pages = log_client.get_paginator("filter_log_events").paginate(logGroupName=group, PaginationConfig={"PageSize": 2})
    found = [event for page in pages for event in page["events"]]
    assert [event["message"] for event in found] == ["a0", "a1", "b0", "a2", "b1", "other0", "b2", "other1", "other2"]
    assert len({event["eventId"] for event in found}) == 9
    some = log_client.filter_log_events(logGroupName=group, startTime=1002, endTime=1003, logStreamNames=["a", "b"])
    assert [event["message"] for event in some["events"]] == ["a2", "b1", "b2"]
    prefixed = log_client.filter_log_events(logGroupName=group, logStreamNamePrefix="oth", filterPattern="-other1")
    assert [event["message"] for event in prefixed["events"]] == ["other0", "other2"]


def test_a_stream_is_read_forward_and_backward(log_client: Any, group: str) -> None:
    log_client.create_log_stream(logGroupName=group, logStreamName="stream")
    place = {"logGroupName": group, "logStreamName": "stream"}
    put(log_client, group, "stream", [str(number) for number in range(5)])

    def messages(page: dict[str, Any]) -> list[str]:
        return [event["message"] for event in page["events"]]

    page = log_client.get_log_events(**place, startFromHead=True, limit=3)
    assert messages(page) == ["0", "1", "2"]
    page = log_client.get_log_events(**place, nextToken=page["nextForwardToken"])
    assert messages(page) == ["3", "4"]
    end = log_client.get_log_events(**place, nextToken=page["nextForwardToken"])
    assert (messages(end), end["nextForwardToken"]) == ([], page["nextForwardToken"])
    put(log_client, group, "stream", ["5"], 2000)
    assert messages(log_client.get_log_events(**place, nextToken=end["nextForwardToken"])) == ["5"]
    page = log_client.get_log_events(**place, limit=2)
    assert messages(page) == ["4", "5"]
    assert messages(log_client.get_log_events(**place, nextToken=page["nextBackwardToken"], limit=2)) == ["2", "3"]


def test_events_with_equal_timestamps_keep_their_order_across_pages(log_client: Any, group: str) -> None:
    log_client.create_log_stream(logGroupName=group, logStreamName="stream")
    place = {"logGroupName": group, "logStreamName": "stream"}
    messages = [str(number) for number in range(7)]
    for start in (0, 4):
        events = [{"timestamp": 1000, "message": message} for message in messages[start : start + 4]]
        log_client.put_log_events(**place, logEvents=events)
    pages = log_client.get_paginator("filter_log_events").paginate(logGroupName=group, PaginationConfig={"PageSize": 3})
    found = [event for page in pages for event in page["events"]]
    assert [event["message"] for event in found] == messages
    assert len({event["eventId"] for event in found}) == 7
    page = log_client.get_log_events(**place, limit=3)
    assert [event["message"] for event in page["events"]] == messages[4:]
    page = log_client.get_log_events(**place, limit=3, nextToken=page["nextBackwardToken"])
    assert [event["message"] for event in page["events"]] == messages[1:4]
    page = log_client.get_log_events(**place, nextToken=page["nextForwardToken"])
    assert [event["message"] for event in page["events"]] == messages[4:]


def test_a_large_log_is_returned_in_pages_of_a_megabyte(log_client: Any, group: str) -> None:
    log_client.create_log_stream(logGroupName=group, logStreamName="stream")
    for number in range(3):
        put(log_client, group, "stream", [f"{number}" * 200_000] * 4, 1000 * (number + 1))
    page = log_client.filter_log_events(logGroupName=group)
    assert (len(page["events"]), "nextToken" in page) == (5, True)
    pages = log_client.get_paginator("filter_log_events").paginate(logGroupName=group)
    assert sum(len(page["events"]) for page in pages) == 12
