"""The encoding of events."""

import json
import struct
from base64 import b64encode
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmi_shim.telemetry.events import (
    KINDS,
    MAX_MESSAGE_BYTES,
    MAX_ROWS,
    Closed,
    Command,
    Event,
    EventError,
    Message,
    Operations,
    decode,
    decode_command,
    encode,
    encode_command,
)

NATURAL = st.integers(0, 2**62 - 1)
TEXT = st.text(max_size=20)
VALUES = {
    "int": NATURAL,
    "str": TEXT,
    "int | None": st.none() | NATURAL,
    "array[int]": st.lists(st.tuples(NATURAL, NATURAL, NATURAL, NATURAL, NATURAL), max_size=5).map(
        lambda rows: Operations.of(rows).numbers
    ),
    "tuple[tuple[str, ...], ...]": st.lists(st.lists(TEXT, max_size=3).map(tuple), max_size=3).map(tuple),
}
EVENTS: st.SearchStrategy[Event] = st.one_of(
    *(st.builds(kind, *(VALUES[str(field.type)] for field in fields(kind))) for kind in KINDS.values())
)
MESSAGES = st.builds(Message, TEXT, st.none() | NATURAL, NATURAL, NATURAL, st.lists(EVENTS, max_size=5).map(tuple))


@given(MESSAGES)
def test_a_message_is_what_was_encoded(message: Message) -> None:
    data = encode(message)
    assert b"\n" not in data
    assert decode(data) == message
    assert decode(data.decode()) == message


@given(st.binary(max_size=200) | st.text(max_size=200))
def test_any_other_bytes_raise_one_error(data: bytes | str) -> None:
    with pytest.raises(EventError):
        decode(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=10,
)


@given(MESSAGES, st.data())
def test_a_damaged_message_raises_or_is_another_message(message: Message, data: st.DataObject) -> None:
    parts = json.loads(encode(message))
    place = data.draw(st.integers(0, len(parts) - 1))
    if place == 5 and parts[5] and data.draw(st.booleans()):
        parts = [*parts[:5], [*parts[5], data.draw(JSON)]]
    else:
        parts[place] = data.draw(JSON)
    damaged = json.dumps(parts).encode()
    try:
        read = decode(damaged)
    except EventError as error:
        assert len(str(error)) < 400
    else:
        assert json.loads(encode(read)) == parts


def rows_text(*numbers: int) -> str:
    return b64encode(struct.pack(f"<{len(numbers)}q", *numbers)).decode()


def test_an_unknown_version_says_what_to_do() -> None:
    newer = json.dumps([2, "job", 0, 0, 0, []])
    with pytest.raises(EventError, match="unknown version 2 of telemetry events: expected 1: install the same release"):
        decode(newer)
    with pytest.raises(EventError, match="unknown version 7"):
        decode_command(b'[7, 1, "stacks", ""]')


@pytest.mark.parametrize(
    ("events", "complaint"),
    [
        ([["exploded", 1]], "unknown event .*expected an array that begins with one of started"),
        ([["closed"]], "expected 1 values"),
        ([["closed", True]], "invalid number True"),
        ([["closed", -1]], "invalid number -1"),
        ([["closed", 2**62]], "invalid number"),
        ([["operations", "AAAA"]], "expected 64-bit numbers in base64"),
        ([["operations", [1, 2, 3, 4, 5]]], "expected 64-bit numbers in base64"),
        ([["operations", rows_text(0, 1, 2, 3)]], "expected at most 2048 of 5 numbers from 0"),
        ([["operations", rows_text(0, 1, 2, 3, -4)]], "expected at most 2048 of 5 numbers from 0"),
        ([["operations", rows_text(0, 1, 2**62, 3, 4)]], "expected at most 2048 of 5 numbers from 0"),
        ([["operations", rows_text(*[0] * 5 * (MAX_ROWS + 1))]], "expected at most 2048 of 5 numbers from 0"),
        ({}, "expected an array"),
    ],
)
def test_invalid_events_are_named(events: object, complaint: str) -> None:
    with pytest.raises(EventError, match=complaint):
        decode(json.dumps([1, "", 0, 0, 0, events]))


def test_a_message_that_is_too_long_is_not_parsed() -> None:
    with pytest.raises(EventError, match="expected at most"):
        decode(b" " * (MAX_MESSAGE_BYTES + 1))


def test_the_largest_batch_fits_into_a_message_and_a_log_line() -> None:
    rows = ((2**20, 2**40, 2**60, 2**40, 2**40),) * MAX_ROWS
    assert len(encode(Message("0" * 32, 1000, 2**40, 2**40, (Closed(2**60), Operations.of(rows))))) < 200_000


@given(NATURAL, st.sampled_from(["stacks", "fault", "ping"]), TEXT)
def test_a_command_is_what_was_encoded(request: int, action: str, text: str) -> None:
    assert decode_command(encode_command(Command(request, action, text))) == Command(request, action, text)


def test_an_unknown_command_is_refused() -> None:
    with pytest.raises(EventError, match="unknown command 'explode': expected stacks, fault or ping"):
        decode_command(b'[1, 1, "explode", ""]')
