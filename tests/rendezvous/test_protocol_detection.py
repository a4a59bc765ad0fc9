"""The protocol of a client, from its first bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rendezvous.protocol import ProtocolError
from rendezvous.protocol.extension import Preamble, Purpose
from rendezvous.protocol.protocol_detection import WireProtocol, detect_protocol
from rendezvous.protocol.v2 import Request

names = st.binary(min_size=1, max_size=99).filter(lambda name: b"\0" not in name)


@given(names)
def test_a_name_is_version_1(name: bytes) -> None:
    assert detect_protocol(name) is WireProtocol.v1


@given(names)
def test_a_request_is_version_2_as_soon_as_it_reaches_beyond_the_name(name: bytes) -> None:
    whole = Request(name).encode()
    assert all(detect_protocol(whole[:end]) is WireProtocol.v2 for end in range(len(name) + 1, len(whole) + 1))


@given(st.sampled_from(Purpose), st.binary(min_size=32, max_size=32), st.integers(1, 141))
def test_any_beginning_of_a_preamble_is_the_extension(purpose: Purpose, token: bytes, end: int) -> None:
    assert detect_protocol(Preamble(purpose, token).encode()[:end]) is WireProtocol.extension


@given(st.binary(min_size=1, max_size=300))
def test_any_bytes_have_a_protocol_or_are_a_protocol_error(data: bytes) -> None:
    try:
        detect_protocol(data)
    except ProtocolError:
        assert b"\0" not in data
        assert len(data) > 99


@pytest.mark.parametrize("wrong", [b"x" * 100, b"GET / HTTP/1.1\r\n" * 10])
def test_bytes_longer_than_a_name_without_a_nul_are_a_protocol_error(wrong: bytes) -> None:
    with pytest.raises(ProtocolError):
        detect_protocol(wrong)
