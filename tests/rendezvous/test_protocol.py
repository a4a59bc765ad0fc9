import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rendezvous.protocol import (
    MAX_NAME_BYTES,
    Endpoint,
    ProtocolError,
    Replies,
    check_name,
    decode_record,
    encode_record,
    pair_name,
)

endpoints = st.builds(Endpoint, st.ip_addresses(v=4).map(str), st.integers(1, 65535))


def test_a_record_is_a_c_struct_of_address_and_port_in_network_order() -> None:
    assert encode_record(Endpoint("192.168.1.2", 10000)) == bytes([192, 168, 1, 2, 0x27, 0x10, 0, 0])


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


@pytest.mark.parametrize("name", [b"", b"x" * (MAX_NAME_BYTES + 1), b"a\0b"])
def test_an_invalid_name_is_refused(name: bytes) -> None:
    with pytest.raises(ProtocolError):
        check_name(name)


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
