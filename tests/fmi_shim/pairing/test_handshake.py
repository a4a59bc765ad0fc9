import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmi_shim.pairing.handshake import PEER_HELLO_BYTES, InvalidHelloError, PeerHello, decode_peer_hello

names = st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=24)
hellos = st.builds(PeerHello, names, st.integers(1, 2**31 - 1), st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1))


@given(hellos, st.integers(0, PEER_HELLO_BYTES - 1))
def test_a_hello_is_decoded_once_it_is_complete(hello: PeerHello, cut: int) -> None:
    data = hello.encode()
    assert len(data) == PEER_HELLO_BYTES
    assert decode_peer_hello(data[:cut]) is None
    assert decode_peer_hello(data) == hello


@given(st.binary(max_size=2 * PEER_HELLO_BYTES))
def test_any_bytes_are_a_hello_or_none_or_an_error(data: bytes) -> None:
    try:
        decode_peer_hello(data)
    except InvalidHelloError:
        assert data


def test_the_expected_reply_has_no_mismatch() -> None:
    hello = PeerHello("job", 4, 0, 1)
    assert hello.mismatch(PeerHello("job", 4, 1, 0)) is None


@pytest.mark.parametrize(
    ("answer", "objection"),
    [
        (PeerHello("job", 4, 0, 1), "two processes run as rank 0"),
        (PeerHello("job", 5, 1, 0), "rank 0 was started with 4 ranks, rank 1 with 5"),
        (PeerHello("job1", 4, 1, 0), "was connected to rank 1 of 'job1': FMI's pairing names are ambiguous"),
        (PeerHello("job", 4, 2, 0), "rank 0 expected rank 1, got rank 2"),
    ],
)
def test_an_unexpected_reply_is_explained(answer: PeerHello, objection: str) -> None:
    text = PeerHello("job", 4, 0, 1).mismatch(answer)
    assert text is not None
    assert objection in text
