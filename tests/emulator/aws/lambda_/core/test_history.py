"""The history of invocations: updates of a record, and the bound on the number of records."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.aws.lambda_.core.history import (
    InvocationHistory,
    InvocationRecord,
    InvocationStatus,
    error_type_of,
)
from emulator.aws.lambda_.log_lines import Report
from emulator.errors import SandboxError


def record(request_id: str) -> InvocationRecord:
    return InvocationRecord(request_id, "function", "$LATEST", 128, received=0.0)


def test_a_record_is_updated_in_its_place() -> None:
    history = InvocationHistory()
    with history.record(record("first")) as first:
        history.add(record("second"))
        first.mark_started("group", "stream", 12.5)
        assert [(seen.request_id, seen.status) for seen in history.recent()] == [
            ("first", InvocationStatus.RUNNING),
            ("second", InvocationStatus.RUNNING),
        ]
        first.mark_ended(InvocationStatus.FAILED, Report("first", 10.0, 128, 50, 12.5), "ValueError")
    seen = history.recent()[0]
    assert (seen.status, seen.error_type, seen.billed_ms, seen.peak_memory_mb) == (
        InvocationStatus.FAILED,
        "ValueError",
        23,
        50,
    )
    assert seen.cold
    assert (seen.log_group, seen.log_stream) == ("group", "stream")
    assert seen.started is not None
    assert seen.ended is not None
    assert seen.received <= seen.started <= seen.ended


@pytest.mark.parametrize(
    ("error", "status", "error_type"),
    [
        (asyncio.CancelledError(), InvocationStatus.STOPPED, None),
        (SandboxError("no room"), InvocationStatus.FAILED, "ServiceException"),
    ],
)
def test_an_exception_marks_the_record_as_stopped_or_failed(
    error: BaseException, status: InvocationStatus, error_type: str | None
) -> None:
    history = InvocationHistory()
    with pytest.raises(type(error)), history.record(record("first")):
        raise error
    assert (history.recent()[0].status, history.recent()[0].error_type) == (status, error_type)
    assert history.recent()[0].ended is not None


@given(st.lists(st.text(max_size=3), max_size=30), st.integers(1, 10))
def test_the_oldest_records_are_dropped_and_replacing_them_does_nothing(ids: list[str], capacity: int) -> None:
    history = InvocationHistory(capacity)
    keys = [history.add(record(request_id)) for request_id in ids]
    for key, request_id in zip(keys, ids, strict=True):
        history.replace(key, record(f"{request_id}!"))
    assert [seen.request_id for seen in history.recent()] == [f"{request_id}!" for request_id in ids][-capacity:]


@pytest.mark.parametrize(
    ("payload", "kind"),
    [
        (b'{"errorType": "E"}', "E"),
        (b'{"errorType": 1}', None),
        (b"[]", None),
        (b"\xff", None),
        (b"", None),
        (b"[" * 100_000, None),
    ],
)
def test_the_error_type_is_read_from_any_bytes(payload: bytes, kind: str | None) -> None:
    assert error_type_of(payload) == kind
