"""CloudWatch Logs over HTTP."""

import json
import time
import uuid
from typing import Any

import pytest
from botocore.exceptions import ClientError

# CloudWatch Logs rejects events of long ago.
PAST = int(time.time() * 1000) - 3_600_000


@pytest.fixture
def group(log_client: Any) -> str:
    name = f"/test/{uuid.uuid4().hex}"
    log_client.create_log_group(logGroupName=name)
    return name


def put(log_client: Any, group: str, stream: str, messages: list[str], first: int = 0) -> None:
    events = [{"timestamp": PAST + first + number, "message": message} for number, message in enumerate(messages)]
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
    assert (latest["logStreams"][1]["firstEventTimestamp"], latest["logStreams"][1]["storedBytes"]) == (PAST + 5000, 7)
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
        events = [{"timestamp": PAST + 2, "message": "b"}, {"timestamp": PAST, "message": "a"}]
        log_client.put_log_events(logGroupName=group, logStreamName="stream", logEvents=events)
    with pytest.raises(ClientError, match="the operation StartQuery is not emulated"):
        log_client.start_query(logGroupName=group, startTime=0, endTime=1, queryString="fields @message")


def test_filter_returns_events_of_all_streams_in_order_of_time(log_client: Any, group: str) -> None:
    for stream, first in (("a", 1000), ("b", 1001), ("other", 1002)):
        log_client.create_log_stream(logGroupName=group, logStreamName=stream)
        put(log_client, group, stream, [f"{stream}{number}" for number in range(3)], first)
    pages = log_client.get_paginator("filter_log_events").paginate(logGroupName=group, PaginationConfig={"PageSize": 2})
    found = [event for page in pages for event in page["events"]]
    assert [event["message"] for event in found] == ["a0", "a1", "b0", "a2", "b1", "other0", "b2", "other1", "other2"]
    assert len({event["eventId"] for event in found}) == 9
    some = log_client.filter_log_events(
        logGroupName=group, startTime=PAST + 1002, endTime=PAST + 1003, logStreamNames=["a", "b"]
    )
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
        events = [{"timestamp": PAST, "message": message} for message in messages[start : start + 4]]
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


def test_events_of_long_ago_and_of_the_future_are_rejected_and_counted(log_client: Any, group: str) -> None:
    log_client.create_log_stream(logGroupName=group, logStreamName="stream")
    hour = 3_600_000
    times = (PAST - 15 * 24 * hour, PAST, PAST + 1, PAST + 4 * hour)
    events = [{"timestamp": timestamp, "message": str(timestamp)} for timestamp in times]
    answer = log_client.put_log_events(logGroupName=group, logStreamName="stream", logEvents=events)
    assert answer["rejectedLogEventsInfo"] == {"tooOldLogEventEndIndex": 1, "tooNewLogEventStartIndex": 3}
    kept = log_client.filter_log_events(logGroupName=group)["events"]
    assert [event["timestamp"] for event in kept] == [PAST, PAST + 1]


def test_requests_are_checked_by_the_model(log_client: Any, group: str, raw: Any) -> None:
    """What no client would send is refused with AWS's wording."""
    streams = {"logGroupName": group, "logStreamName": "s"}
    for operation, body, expected in (
        ("CreateLogGroup", {}, "Value null at 'logGroupName' failed to satisfy constraint: Member must not be null"),
        (
            "CreateLogGroup",
            {"logGroupName": "a b"},
            "Value 'a b' at 'logGroupName' failed to satisfy constraint: Member must satisfy regular expression "
            r"pattern: [\.\-_/#A-Za-z0-9]+",
        ),
        (
            "GetLogEvents",
            {**streams, "limit": 10_001},
            "Value '10001' at 'limit' failed to satisfy constraint: Member must have value less than or equal to 10000",
        ),
        (
            "DescribeLogGroups",
            {"limit": 51},
            "Value '51' at 'limit' failed to satisfy constraint: Member must have value less than or equal to 50",
        ),
    ):
        code, message = raw("Logs_20140328", operation, body)
        assert (code, message) == ("InvalidParameterException", f"1 validation error detected: {expected}")
    assert raw("Logs_20140328", "CreateLogGroup", {"logGroupName": 1})[0] == "SerializationException"
    assert raw("Logs_20140328", "NoSuchThing", {})[0] == "UnknownOperationException"


def test_a_protected_group_is_not_deleted(log_client: Any, group: str) -> None:
    log_client.put_log_group_deletion_protection(logGroupIdentifier=group, deletionProtectionEnabled=True)
    (described,) = log_client.describe_log_groups(logGroupNamePrefix=group)["logGroups"]
    assert described["deletionProtectionEnabled"] is True
    with pytest.raises(ClientError, match="deletion protection"):
        log_client.delete_log_group(logGroupName=group)
    log_client.put_log_group_deletion_protection(
        logGroupIdentifier=described["logGroupArn"], deletionProtectionEnabled=False
    )
    log_client.delete_log_group(logGroupName=group)


def test_equal_names_of_two_regions_are_apart(client: Any, log_client: Any, group: str) -> None:
    ireland = client("logs", "eu-west-1")
    assert ireland.describe_log_groups(logGroupNamePrefix=group)["logGroups"] == []
    ireland.create_log_group(logGroupName=group)
    for logs, region in ((log_client, "us-east-1"), (ireland, "eu-west-1")):
        logs.create_log_stream(logGroupName=group, logStreamName="stream")
        event = {"timestamp": PAST, "message": region}
        logs.put_log_events(logGroupName=group, logStreamName="stream", logEvents=[event])
    for logs, region in ((log_client, "us-east-1"), (ireland, "eu-west-1")):
        (described,) = logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"]
        assert described["logGroupArn"] == f"arn:aws:logs:{region}:123456789012:log-group:{group}"
        (stream,) = logs.describe_log_streams(logGroupName=group)["logStreams"]
        assert stream["arn"].startswith(f"arn:aws:logs:{region}:")
        assert [event["message"] for event in logs.filter_log_events(logGroupName=group)["events"]] == [region]
    ireland.delete_log_group(logGroupName=group)
    assert [event["message"] for event in log_client.filter_log_events(logGroupName=group)["events"]] == ["us-east-1"]


def test_ten_resource_policies_are_kept(log_client: Any) -> None:
    document = json.dumps({"Version": "2012-10-17", "Statement": []})
    made = log_client.put_resource_policy(policyName="0", policyDocument='{"Version": "2008-10-17"}')["resourcePolicy"]
    assert (made["policyName"], made["policyScope"], made["policyDocument"]) == (
        "0",
        "ACCOUNT",
        '{"Version": "2008-10-17"}',
    )
    for number in range(10):
        log_client.put_resource_policy(policyName=str(number), policyDocument=document)
    found = log_client.describe_resource_policies()["resourcePolicies"]
    assert [policy["policyDocument"] for policy in found] == [document] * 10
    with pytest.raises(ClientError, match=r"LimitExceededException.*Resource limit exceeded"):
        log_client.put_resource_policy(policyName="10", policyDocument=document)
    with pytest.raises(ClientError, match=r"ResourceNotFoundException.*Policy with name \[none\] does not exist"):
        log_client.delete_resource_policy(policyName="none")
    for arguments in ({"policyName": "0", "policyDocument": "no"}, {"policyName": "0"}, {"resourceArn": "arn"}):
        with pytest.raises(ClientError, match="InvalidParameterException"):
            log_client.put_resource_policy(**arguments)
    for number in range(10):
        log_client.delete_resource_policy(policyName=str(number))
    assert log_client.describe_resource_policies()["resourcePolicies"] == []
