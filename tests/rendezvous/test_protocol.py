"""The bytes of TCPunch's version 1."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rendezvous.protocol import (
    DEFAULT_PORT,
    MAX_NAME_BYTES,
    RECORD_BYTES,
    Endpoint,
    ProtocolError,
    Replies,
    check_name,
    decode_record,
    encode_record,
    pair_name,
)
from rendezvous.protocol.endpoints import decode_endpoint

endpoints = st.builds(Endpoint, st.ip_addresses(v=4).map(str), st.integers(1, 65535))


def test_a_record_is_a_c_struct_of_address_and_port_in_network_order() -> None:
    assert encode_record(Endpoint("192.168.1.2", 10000)) == bytes([192, 168, 1, 2, 0x27, 0x10, 0, 0])


def test_the_constants_are_those_of_the_original() -> None:
    assert (DEFAULT_PORT, MAX_NAME_BYTES, RECORD_BYTES) == (10000, 99, 8)


def test_an_endpoint_has_its_usual_notation_and_6_bytes() -> None:
    endpoint = Endpoint("192.168.1.2", 10000)
    assert str(endpoint) == "192.168.1.2:10000"
    assert endpoint.encode() == bytes([192, 168, 1, 2, 0x27, 0x10])
    assert decode_endpoint(endpoint.encode()) == endpoint
    assert decode_endpoint(bytes([10, 0, 0, 1, 0, 1])) == Endpoint("10.0.0.1", 1)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (bytes([10, 0, 0, 1, 0]), "invalid address: expected 6 bytes, got 5"),
        (bytes([10, 0, 0, 1, 0, 1, 0]), "invalid address: expected 6 bytes, got 7"),
        (bytes([10, 0, 0, 1, 0, 0]), "invalid address 0a0000010000: expected a port from 1 to 65535, got 0"),
    ],
)
def test_an_invalid_address_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        decode_endpoint(data)


@pytest.mark.parametrize("length", [0, 7, 9])
def test_a_record_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(ProtocolError, match=f"invalid address record: expected 8 bytes, got {length}"):
        decode_record(b"\1" * length)


@given(endpoints, st.binary(min_size=2, max_size=2))
def test_a_record_is_decoded_whatever_its_padding_contains(endpoint: Endpoint, padding: bytes) -> None:
    assert decode_record(encode_record(endpoint)[:6] + padding) == endpoint


@given(st.binary(max_size=20))
def test_any_bytes_are_an_endpoint_or_a_protocol_error(data: bytes) -> None:
    try:
        endpoint = decode_record(data)
    except ProtocolError:
        assert len(data) != 8 or data[4:6] == b"\0\0"
    else:
        assert encode_record(endpoint)[:6] == data[:6]


def test_a_pair_is_named_by_its_first_message() -> None:
    assert pair_name("Test", 1, 0) == b"Test1_0"
    assert pair_name("Größe", 12, 3) == "Größe12_3".encode()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (b"", "expected 1 to 99 bytes, got 0"),
        (b"x" * 100, "expected at most 99 bytes, got 100"),
        (b"a\0b", "expected no NUL byte"),
    ],
)
def test_an_invalid_name_is_refused(name: bytes, message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        check_name(name)


def test_the_name_of_a_pair_is_refused_if_it_is_too_long() -> None:
    with pytest.raises(ProtocolError, match="at most 99 bytes, got 100"):
        pair_name("x" * 97, 1, 0)


def test_a_name_of_exactly_99_bytes_is_allowed() -> None:
    assert check_name(b"x" * MAX_NAME_BYTES) == b"x" * MAX_NAME_BYTES


@given(endpoints, endpoints, st.lists(st.integers(0, 16)))
def test_replies_are_decoded_however_they_are_split(own: Endpoint, peer: Endpoint, cuts: list[int]) -> None:
    data = encode_record(own) + encode_record(peer)
    bounds = sorted({0, 16, *cuts})
    replies = Replies()
    for start, stop in itertools.pairwise(bounds):
        assert replies.peer is None
        replies.feed(data[start:stop])
        assert (replies.own == own) is (stop >= 8)
    assert replies.peer == peer


def test_more_than_two_records_are_a_protocol_error() -> None:
    replies = Replies()
    with pytest.raises(ProtocolError, match="expected two records"):
        replies.feed(encode_record(Endpoint("1.2.3.4", 5)) * 2 + b"!")
