"""The bytes of TCPunch's version 2."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rendezvous.protocol import Endpoint, ProtocolError
from rendezvous.protocol.v2 import (
    NO_TOKEN,
    REQUEST_BYTES,
    RESPONSE_BYTES,
    Request,
    Response,
    Status,
    decode_request,
    decode_response,
)

TOKEN = uuid.UUID("550e8400-e29b-41d4-a716-446655440000")
RECORDED_REQUEST = b"Test1_0" + bytes(93) + b"550e8400-e29b-41d4-a716-446655440000\0" + bytes(4)
RECORDED_PAIRED = bytes.fromhex("01 c0a80102 2710 cb007115 c351") + b"550e8400-e29b-41d4-a716-446655440000\0"
RECORDED_ERROR = bytes.fromhex("03 00000000 0000 00000000 0000") + b"00000000-0000-0000-0000-000000000000\0"

names = st.text(st.characters(blacklist_characters="\0", blacklist_categories=("Cs",)), min_size=1, max_size=24)
endpoints = st.builds(Endpoint, st.ip_addresses(v=4).map(str), st.integers(1, 65535))


def test_the_sizes_are_those_of_the_original() -> None:
    assert (REQUEST_BYTES, RESPONSE_BYTES) == (141, 50)


def test_a_recorded_request_is_decoded_and_encoded() -> None:
    assert decode_request(RECORDED_REQUEST) == Request(b"Test1_0", TOKEN)
    assert Request(b"Test1_0", TOKEN).encode() == RECORDED_REQUEST
    assert decode_request(RECORDED_REQUEST[:137] + b"\xff\xff\xff\xff") == Request(b"Test1_0", TOKEN)


def test_recorded_responses_are_encoded_and_decoded() -> None:
    paired = Response(Status.paired, Endpoint("192.168.1.2", 10000), Endpoint("203.0.113.21", 50001), TOKEN)
    assert paired.encode() == RECORDED_PAIRED
    assert decode_response(RECORDED_PAIRED) == paired
    assert Response(Status.error).encode() == RECORDED_ERROR
    assert decode_response(RECORDED_ERROR) == Response(Status.error)


@given(names, st.none() | st.uuids())
def test_requests_are_decoded_as_encoded(name: str, token: uuid.UUID | None) -> None:
    request = Request(name.encode(), token)
    assert decode_request(request.encode()) == request


@given(st.sampled_from(Status), st.none() | endpoints, st.none() | endpoints, st.uuids())
def test_responses_are_decoded_as_encoded(
    status: Status, own: Endpoint | None, peer: Endpoint | None, token: uuid.UUID
) -> None:
    response = Response(status, own, peer, token)
    assert decode_response(response.encode()) == response


@given(st.binary(max_size=160) | st.binary(min_size=141, max_size=141) | st.binary(min_size=50, max_size=50))
def test_any_bytes_are_a_message_or_a_protocol_error(data: bytes) -> None:
    for decode, size in ((decode_request, 141), (decode_response, 50)):
        try:
            decode(data)
        except ProtocolError:
            continue
        assert len(data) == size


def test_the_statuses_are_those_of_the_original() -> None:
    assert {status.name: status.value for status in Status} == {"waiting": 0, "paired": 1, "timeout": 2, "error": 3}


def test_a_request_without_a_token_has_zeros_in_its_place() -> None:
    assert Request(b"Test1_0").encode() == b"Test1_0" + bytes(134)
    assert decode_request(b"Test1_0" + bytes(134)) == Request(b"Test1_0", None)


def test_a_response_contains_an_endpoint_or_zeros() -> None:
    own = Endpoint("192.168.1.2", 10000)
    waiting = bytes.fromhex("00 c0a80102 2710 00000000 0000") + b"550e8400-e29b-41d4-a716-446655440000\0"
    assert Response(Status.waiting, own, None, TOKEN).encode() == waiting
    assert decode_response(waiting) == Response(Status.waiting, own, None, TOKEN)
    assert NO_TOKEN.int == 0


def test_a_name_of_99_bytes_is_the_longest() -> None:
    data = b"x" * 99 + bytes(42)
    assert Request(b"x" * 99).encode() == data
    assert decode_request(data) == Request(b"x" * 99)
    with pytest.raises(ProtocolError, match="at most 99 bytes, got 100"):
        decode_request(b"x" * 100 + bytes(41))
    with pytest.raises(ProtocolError, match="at most 99 bytes, got 100"):
        Request(b"x" * 100).encode()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (bytes(140), "expected 141 bytes, got 140"),
        (bytes(142), "expected 141 bytes, got 142"),
        (bytes(141), "expected 1 to 99 bytes, got 0"),
        (b"\xff\xfe" + bytes(139), "UTF-8"),
        (b"name" + bytes(96) + b"\xff" + bytes(40), "ASCII"),
        (b"name" + bytes(96) + b"no UUID" + bytes(34), "invalid token b'no UUID': expected a UUID"),
    ],
)
def test_an_invalid_request_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        decode_request(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (RECORDED_PAIRED[:49], "expected 50 bytes, got 49"),
        (RECORDED_PAIRED + b"\0", "expected 50 bytes, got 51"),
        (b"\4" + RECORDED_PAIRED[1:], "4 is not a valid Status"),
        (RECORDED_PAIRED[:5] + bytes(2) + RECORDED_PAIRED[7:], "expected a port from 1 to 65535, got 0"),
        (RECORDED_PAIRED[:13] + b"?" + RECORDED_PAIRED[14:], "invalid response"),
        (RECORDED_PAIRED[:13] + b"\xff" + RECORDED_PAIRED[14:], "invalid response"),
    ],
)
def test_an_invalid_response_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        decode_response(data)
