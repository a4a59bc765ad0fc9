"""The extension's bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rendezvous.protocol import Endpoint, ProtocolError
from rendezvous.protocol.extension import (
    CHALLENGE_BYTES,
    MIN_SECRET_BYTES,
    NO_PROOF,
    PREAMBLE_BYTES,
    Challenge,
    Demand,
    Preamble,
    Proof,
    Purpose,
    decode_challenge,
    decode_preamble,
    same_proof,
)
from rendezvous.protocol.messages import (
    MAX_ENDPOINTS,
    MAX_JOB_BYTES,
    MAX_WORLD_SIZE,
    Abort,
    AbortReason,
    Announce,
    Cause,
    Deadlock,
    Decoder,
    FindCause,
    Introduction,
    Leave,
    Message,
    PeerEnded,
    ProbeRequest,
    Refusal,
    RefusalReason,
    Register,
    Registration,
    State,
    StateRequest,
    WatchPeers,
    Welcome,
    Withdraw,
    encode,
)
from rendezvous.protocol.waiting import Awaited, Counts, Waiting, describe, pack_counts

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
    st.builds(WatchPeers, st.lists(u32, max_size=5).map(tuple)),
    st.builds(FindCause, u32),
    st.builds(StateRequest, u32),
    st.builds(State, u32, st.none() | st.integers(0, 2**32 - 2), texts),
    st.builds(Cause, st.none() | st.integers(0, 2**32 - 2), texts),
)


REGISTRATION = Registration("job", "comm", 1, 4, bytes(range(16)), Endpoint("10.0.0.1", 0x1234))
REGISTRATION_BYTES = (
    bytes.fromhex("00000001 00000004 000102030405060708090a0b0c0d0e0f 0a000001 1234 03 04") + b"jobcomm"
)
TICKET = b"t" * 32
EXAMPLES: list[tuple[Message, str]] = [
    (Register(REGISTRATION, TICKET), "0047 01" + TICKET.hex() + REGISTRATION_BYTES.hex()),
    (Welcome(Endpoint("192.168.1.2", 10000), TICKET), "0026 02 c0a80102 2710" + TICKET.hex()),
    (Announce(5, 0x1234), "0006 03 00000005 1234"),
    (Announce(5, 1), "0006 03 00000005 0001"),
    (ProbeRequest(5, TICKET), "0024 04 00000005" + TICKET.hex()),
    (
        Introduction(5, (Endpoint("192.168.1.2", 10000), Endpoint("10.0.0.1", 0x1234)), TICKET),
        "0030 05 00000005" + TICKET.hex() + "c0a80102 2710 0a000001 1234",
    ),
    (Introduction(5, (Endpoint("10.0.0.1", 1),), TICKET), "002a 05 00000005" + TICKET.hex() + "0a000001 0001"),
    (Withdraw(5), "0004 06 00000005"),
    (Abort(1, 2, AbortReason.mismatch, "text"), "000d 07 00000001 00000002 03 74657874"),
    (Abort(1, 2, 77, ""), "0009 07 00000001 00000002 4d"),
    (Refusal(RefusalReason.busy, "full"), "0005 08 03 66756c6c"),
    (Refusal(RefusalReason.mismatch, ""), "0001 08 01"),
    (
        Waiting(5, Awaited.receiving, 7, pack_counts([Counts(1, 2, 3), Counts(4, 5, 6)]), "recv"),
        "003b 09 00000005 02 0000000000000007 0002"
        "00000001 0000000000000002 0000000000000003 00000004 0000000000000005 0000000000000006 72656376",
    ),
    (
        Waiting(5, Awaited.round, 0, pack_counts([Counts(1, 2, 3)]), ""),
        "0023 09 00000005 03 0000000000000000 0001 00000001 0000000000000002 0000000000000003",
    ),
    (Waiting(5, Awaited.connecting, 0, b"", "recv"), "0013 09 00000005 00 0000000000000000 0000 72656376"),
    (Deadlock("text"), "0004 0a 74657874"),
    (Leave(), "0000 0b"),
    (PeerEnded(5, True), "0005 0c 00000005 01"),
    (PeerEnded(5, False), "0005 0c 00000005 00"),
    (WatchPeers((5, 6)), "0008 0d 00000005 00000006"),
    (WatchPeers(()), "0000 0d"),
    (FindCause(5), "0004 0e 00000005"),
    (StateRequest(5), "0004 0f 00000005"),
    (State(5, 6, "recv"), "000c 10 00000005 00000006 72656376"),
    (State(5, None, ""), "0008 10 00000005 ffffffff"),
    (Cause(6, "text"), "0008 11 00000006 74657874"),
    (Cause(None, ""), "0004 11 ffffffff"),
]


@pytest.mark.parametrize(("message", "expected"), EXAMPLES, ids=lambda value: type(value).__name__)
def test_the_bytes_of_each_message_do_not_change(message: Message, expected: str) -> None:
    assert encode(message) == bytes.fromhex(expected)
    assert Decoder().feed(bytes.fromhex(expected)) == [message]


def test_the_numbers_of_the_protocol_do_not_change() -> None:
    assert [(each.name, each.value) for each in RefusalReason] == [("mismatch", 1), ("forbidden", 2), ("busy", 3)]
    assert [(each.name, each.value) for each in AbortReason] == [
        ("lost", 1),
        ("timeout", 2),
        ("mismatch", 3),
        ("overflow", 4),
        ("failed", 5),
    ]
    assert [(each.name, each.value) for each in Awaited] == [
        ("connecting", 0),
        ("sending", 1),
        ("receiving", 2),
        ("round", 3),
        ("writing", 4),
    ]
    assert [(each.name, each.value) for each in Purpose] == [("control", 0), ("probe", 1), ("relay", 2)]
    assert {name: each.value for name, each in Demand.__members__.items()} == {"nothing": 0, "secret": 1, "tls": 2}
    assert (MAX_ENDPOINTS, MAX_JOB_BYTES, MAX_WORLD_SIZE, MIN_SECRET_BYTES) == (2, 64, 65_536, 16)


def framed(kind: int, body: bytes) -> bytes:
    """Return a message of any body."""
    return len(body).to_bytes(2, "big") + bytes([kind]) + body


@pytest.mark.parametrize(
    ("kind", "body", "message"),
    [
        (0, b"", "unknown kind"),
        (18, b"", "unknown kind"),
        (13, bytes(5), "of kind 13"),
        (14, bytes(5), "of kind 14"),
        (15, b"", "of kind 15"),
        (16, bytes(7), "of kind 16"),
        (17, bytes(3), "of kind 17"),
        (1, TICKET + REGISTRATION_BYTES[:-1], "expected 7 bytes, got 6"),
        (1, TICKET + REGISTRATION_BYTES + b"!", "expected 7 bytes, got 8"),
        (1, TICKET + REGISTRATION_BYTES[:20], "of kind 1"),
        (2, Endpoint("10.0.0.1", 1).encode() + TICKET[1:], "expected 32 bytes, got 31"),
        (2, Endpoint("10.0.0.1", 1).encode() + TICKET + b"!", "expected 32 bytes, got 33"),
        (2, bytes(6) + TICKET, "expected a port from 1 to 65535, got 0"),
        (3, bytes(6), "expected a port from 1 to 65535, got 0"),
        (3, bytes(5), "of kind 3"),
        (4, bytes(4) + TICKET[1:], "expected 32 bytes, got 31"),
        (4, bytes(4) + TICKET + b"!", "expected 32 bytes, got 33"),
        (5, bytes(4) + TICKET, "expected 1 to 2 addresses, got 0 bytes"),
        (5, bytes(4) + TICKET + Endpoint("10.0.0.1", 1).encode() * 3, "expected 1 to 2 addresses, got 18 bytes"),
        (5, bytes(4) + TICKET + Endpoint("10.0.0.1", 1).encode() + b"!", "expected 6 bytes, got 1"),
        (6, bytes(3), "of kind 6"),
        (6, bytes(5), "of kind 6"),
        (7, bytes(8), "of kind 7"),
        (8, b"", "expected 1 bytes, got 0"),
        (8, b"\0text", "0 is not a valid RefusalReason"),
        (8, b"\4text", "4 is not a valid RefusalReason"),
        (9, bytes(14), "of kind 9"),
        (9, bytes(4) + b"\5" + bytes(10), "5 is not a valid Awaited"),
        (9, bytes(13) + b"\0\2" + bytes(39), "got 2"),
        (11, b"!", "expected 0 bytes, got 1"),
        (12, bytes(4), "of kind 12"),
    ],
)
def test_an_invalid_body_is_refused_with_its_kind(kind: int, body: bytes, message: str) -> None:
    with pytest.raises(ProtocolError, match=message) as caught:
        Decoder().feed(framed(kind, body))
    assert f"of kind {kind}: " in str(caught.value)


def registered(rank: int = 0, size: int = 1, job: bytes = b"", name: bytes = b"") -> bytes:
    """Return a message of kind 1 with these fields, valid or not."""
    fixed = rank.to_bytes(4, "big") + size.to_bytes(4, "big") + bytes(16) + Endpoint("10.0.0.1", 1).encode()
    return framed(1, TICKET + fixed + bytes([len(job), len(name)]) + job + name)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (registered(job=b"x" * 65), "at most 64 bytes of job and 99 of communicator name"),
        (registered(name=b"x" * 100), "at most 64 bytes of job and 99 of communicator name"),
        (registered(1, 1), "invalid rank 1 of 1"),
        (registered(0, 0), "invalid rank 0 of 0"),
        (registered(2, 1), "invalid rank 2 of 1"),
        (registered(0, 65_537), "invalid rank 0 of 65537"),
        (registered(65_536, 65_536), "invalid rank 65536 of 65536"),
        (registered(job=b"\xff"), "utf-8"),
    ],
)
def test_an_invalid_registration_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        Decoder().feed(data)


@pytest.mark.parametrize(("rank", "size", "job", "name"), [(0, 1, "", ""), (65_535, 65_536, "j" * 64, "n" * 99)])
def test_a_registration_at_its_limits_is_decoded(rank: int, size: int, job: str, name: str) -> None:
    (found,) = Decoder().feed(registered(rank, size, job.encode(), name.encode()))
    assert isinstance(found, Register)
    assert found.registration == Registration(job, name, rank, size, bytes(16), Endpoint("10.0.0.1", 1))


def test_a_text_is_cut_at_1000_bytes() -> None:
    for message in (Deadlock("x" * 1001), Refusal(RefusalReason.busy, "x" * 1001), Abort(1, 2, 3, "x" * 1001)):
        (found,) = Decoder().feed(encode(message))
        assert isinstance(found, Deadlock | Refusal | Abort)
        assert found.text == "x" * 1000


@pytest.mark.parametrize(("kind", "longest"), [(7, 1009), (10, 1009), (9, 21_495)])
def test_a_body_longer_than_its_kind_allows_is_refused_before_it_arrives(kind: int, longest: int) -> None:
    assert Decoder().feed(longest.to_bytes(2, "big") + bytes([kind])) == []
    with pytest.raises(ProtocolError, match=f"kind {kind}: expected at most {longest} bytes, {longest + 1} announced"):
        Decoder().feed((longest + 1).to_bytes(2, "big") + bytes([kind]))


def test_the_longest_wait_report_is_decoded() -> None:
    report = Waiting(
        1, Awaited.sending, 2**64 - 1, pack_counts([Counts(rank, 1, 2) for rank in range(1024)]), "x" * 1000
    )
    data = encode(report)
    assert len(data) == 3 + 21_495
    assert Decoder().feed(data) == [report]


def test_a_wait_report_has_the_counts_of_the_ranks_it_is_connected_to() -> None:
    report = Waiting(5, Awaited.sending, 0, pack_counts([Counts(1, 2, 3), Counts(4, 5, 6)]), "recv")
    assert [report.counts(peer) for peer in (1, 4, 5)] == [Counts(1, 2, 3), Counts(4, 5, 6), None]


def test_a_deadlock_is_described_with_its_first_6_ranks() -> None:
    cycle = [(rank, Waiting(rank + 1, Awaited.sending, 0, b"", "recv")) for rank in range(7)]
    six = ", ".join(f"rank {rank} in recv waits for rank {rank + 1}" for rank in range(6))
    advice = "make matching calls, or use sendrecv or isend"
    assert describe(cycle[:6]) == f"deadlock: 6 ranks wait for each other: {six}; {advice}"
    assert describe(cycle) == f"deadlock: 7 ranks wait for each other: {six}, and 1 more ranks; {advice}"
    sending = Waiting(0, Awaited.receiving, 0, b"", "send")
    assert describe([(0, Waiting(1, Awaited.writing, 0, b"", "bcast")), (1, sending)]) == (
        "deadlock: 2 ranks wait for each other: "
        f"rank 0 in bcast waits for rank 1, rank 1 in send sends to rank 0; {advice}"
    )


def test_a_decoder_keeps_an_incomplete_message() -> None:
    data = encode(Withdraw(5)) + encode(Deadlock("text"))
    decoder = Decoder()
    assert decoder.feed(data[:6]) == []
    assert decoder.feed(data[6:9]) == [Withdraw(5)]
    assert decoder.feed(data[9:]) == [Deadlock("text")]
    assert decoder.feed(b"") == []


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
    assert hello.encode()[:6] == b"\0FMI\x02\x02"
    assert decode_preamble(hello.encode()) == hello


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\0FMI\2\1" + bytes(134), "expected 141 bytes, got 140"),
        (b"\0FMI\2\1" + bytes(136), "expected 141 bytes, got 142"),
        (b"\0FMI\1\1" + bytes(135), "version 2, got 00464d490101"),
        (b"\0FMI\0\1" + bytes(135), "version 2, got 00464d490001"),
        (b"\0FMJ\2\1" + bytes(135), "version 2, got 00464d4a0201"),
        (b"\0FMI\2\3" + bytes(135), "unknown purpose 3"),
    ],
)
def test_an_invalid_preamble_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        decode_preamble(data)


@pytest.mark.parametrize("demand", [Demand.nothing, Demand.secret, Demand.tls, Demand.secret | Demand.tls])
def test_the_bytes_of_a_challenge_do_not_change(demand: Demand) -> None:
    data = b"\0FMI\2" + bytes([demand.value]) + TICKET
    assert len(data) == CHALLENGE_BYTES == 38
    assert Challenge(demand, TICKET).encode() == data
    assert decode_challenge(data) == Challenge(demand, TICKET)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\1", "got 01"),
        (b"\0FMJ", "got 00464d4a"),
        (b"\0FMI\1", "got 00464d4901"),
        (b"\0FMI\1\0" + TICKET, "got 00464d490100"),
        (b"\0FMI\2\0" + TICKET + b"!", "got 00464d490200"),
        (b"\0FMI\2\4" + TICKET, "demands 0x4"),
        (b"\0FMI\2\7" + TICKET, "demands 0x7"),
    ],
)
def test_bytes_that_are_no_challenge_are_refused_at_once(data: bytes, message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        decode_challenge(data)


@given(st.binary(max_size=60))
def test_a_challenge_is_recognised_by_its_first_bytes(data: bytes) -> None:
    whole = Challenge(Demand.secret | Demand.tls, bytes(range(32))).encode()
    for end in range(len(whole)):
        assert decode_challenge(whole[:end]) is None
    assert decode_challenge(whole) == Challenge(Demand.secret | Demand.tls, bytes(range(32)))
    if not whole.startswith(data[:5]):
        with pytest.raises(ProtocolError):
            decode_challenge(data)


def test_a_proof_is_an_hmac_over_the_side_the_nonces_and_the_registration() -> None:
    """The digests were computed with ``openssl dgst -sha256 -mac HMAC``."""
    proof = Proof(b"correct horse battery staple", b"c" * 32, b"s" * 32)
    assert proof.of_client(b"registration").hex() == (
        "a96ca60d66de5e68cc257fdcd3ca1182185d4317ed517c650e9bf027e314bb3c"
    )
    assert proof.of_server().hex() == "8fe55dd5f238bc7f1f2ceb1c5099e514c96a7998fc8ffaf5cef72d5c24097575"
    assert same_proof(proof.of_server(), bytes(proof.of_server())) is True
    assert same_proof(proof.of_server(), proof.of_client(b"")) is False
    assert Proof(b"", b"c" * 32, b"s" * 32).of_server() == bytes(32)


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
