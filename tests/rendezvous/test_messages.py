"""The extension's bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rendezvous.protocol import Endpoint, ProtocolError
from rendezvous.protocol.extension import (
    NO_PROOF,
    PREAMBLE_BYTES,
    Challenge,
    Demand,
    Preamble,
    Proof,
    Purpose,
    decode_challenge,
    decode_preamble,
)
from rendezvous.protocol.messages import (
    MAX_JOB_BYTES,
    Abort,
    Announce,
    Deadlock,
    Decoder,
    Introduction,
    Leave,
    Message,
    PeerEnded,
    ProbeRequest,
    Refusal,
    RefusalReason,
    Register,
    Registration,
    Welcome,
    Withdraw,
    encode,
)
from rendezvous.protocol.waiting import Awaited, Counts, Waiting, pack_counts

u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
counts = st.builds(Counts, u32, u64, u64)
ports = st.integers(1, 65535)
tickets = st.binary(min_size=32, max_size=32)
endpoints = st.builds(Endpoint, st.ip_addresses(v=4).map(str), ports)
texts = st.text(st.characters(blacklist_categories=("Cs",)), max_size=200)
registrations = st.integers(1, 65536).flatmap(
    lambda size: st.builds(
        Registration,
        st.text(st.characters(codec="ascii"), max_size=MAX_JOB_BYTES),
        st.text(st.characters(codec="ascii"), max_size=99),
        st.integers(0, size - 1),
        st.just(size),
        st.binary(min_size=16, max_size=16),
        endpoints,
    )
)
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(Register, registrations, tickets),
    st.builds(Welcome, endpoints, tickets),
    st.builds(Announce, u32, ports),
    st.builds(ProbeRequest, u32, tickets),
    st.builds(Introduction, u32, st.lists(endpoints, min_size=1, max_size=2).map(tuple), tickets),
    st.builds(Withdraw, u32),
    st.builds(Abort, u32, u32, st.integers(0, 255), texts),
    st.builds(Refusal, st.sampled_from(RefusalReason), texts),
    st.builds(Waiting, u32, st.sampled_from(Awaited), u64, st.lists(counts, max_size=5).map(pack_counts), texts),
    st.builds(Deadlock, texts),
    st.just(Leave()),
    st.builds(PeerEnded, u32, st.booleans()),
)


@given(st.lists(messages, max_size=5), st.integers(1, 50))
def test_messages_are_decoded_however_they_are_split(sent: list[Message], piece: int) -> None:
    data = b"".join(encode(message) for message in sent)
    decoder = Decoder()
    received = []
    for start in range(0, len(data), piece):
        received += decoder.feed(data[start : start + piece])
    assert received == sent


@given(st.binary(max_size=200))
def test_any_bytes_are_messages_or_a_protocol_error(data: bytes) -> None:
    try:
        found = Decoder().feed(data)
    except ProtocolError:
        return
    assert data.startswith(b"".join(encode(message) for message in found)) or any(
        isinstance(message, Abort | Refusal | Waiting | Deadlock | PeerEnded) for message in found
    )


@given(messages, st.integers(3, 100), st.integers(0, 255))
def test_a_damaged_message_is_another_one_or_a_protocol_error(message: Message, place: int, value: int) -> None:
    data = bytearray(encode(message))
    data[place % len(data)] = value
    try:
        Decoder().feed(bytes(data))
    except ProtocolError as error:
        assert str(error)


def test_a_wait_report_has_a_largest_number_of_counts() -> None:
    with pytest.raises(ProtocolError, match="at most 1024"):
        Decoder().feed(
            encode(Waiting(1, Awaited.sending, 0, pack_counts([Counts(rank, 1, 1) for rank in range(1025)]), ""))
        )


def test_a_message_with_too_large_a_length_is_refused_before_it_arrives() -> None:
    with pytest.raises(ProtocolError, match="at most"):
        Decoder().feed(b"\xff\xff\x01")


def test_a_preamble_has_the_size_of_a_version_2_request_and_begins_with_nul() -> None:
    hello = Preamble(Purpose.relay, bytes(range(32)))
    assert len(hello.encode()) == PREAMBLE_BYTES == 141
    assert hello.encode()[:6] == b"\0FMI\x01\x02"
    assert decode_preamble(hello.encode()) == hello


@given(st.binary(max_size=60))
def test_a_challenge_is_recognised_by_its_first_bytes(data: bytes) -> None:
    whole = Challenge(Demand.secret | Demand.tls, bytes(range(32))).encode()
    for end in range(len(whole)):
        assert decode_challenge(whole[:end]) is None
    assert decode_challenge(whole) == Challenge(Demand.secret | Demand.tls, bytes(range(32)))
    if not whole.startswith(data[:5]):
        with pytest.raises(ProtocolError):
            decode_challenge(data)


def test_a_proof_is_valid_for_one_secret_connection_direction_and_registration() -> None:
    proof = Proof(b"correct horse battery staple", b"c" * 32, b"s" * 32)
    others = [
        Proof(b"correct horse battery stable", b"c" * 32, b"s" * 32).of_client(b"registration"),
        Proof(b"correct horse battery staple", b"C" * 32, b"s" * 32).of_client(b"registration"),
        Proof(b"correct horse battery staple", b"c" * 32, b"S" * 32).of_client(b"registration"),
        proof.of_client(b"another"),
        proof.of_server(),
    ]
    assert proof.of_client(b"registration") not in others
    assert len(set(others)) == len(others)
    assert Proof(b"", b"c" * 32, b"s" * 32).of_client(b"registration") == NO_PROOF
