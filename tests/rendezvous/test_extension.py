"""The extension on real sockets: who gets in, who meets whom, and what it costs at most."""

import asyncio
import secrets
import ssl
from pathlib import Path

import pytest

from rendezvous.counters import Refused
from rendezvous.protocol import Endpoint
from rendezvous.protocol.extension import CHALLENGE_BYTES, Challenge, Demand, Preamble, Proof, Purpose, decode_challenge
from rendezvous.protocol.messages import (
    Abort,
    Announce,
    Decoder,
    Introduction,
    Message,
    Refusal,
    RefusalReason,
    Register,
    Registration,
    Welcome,
    Withdraw,
    encode,
)
from rendezvous.protocol.v2 import RESPONSE_BYTES, Request, Status, decode_response
from rendezvous.server import RendezvousServer
from tests.certificates import loopback_certificate
from tests.rendezvous.test_server import Reader, Writer, client, own_endpoint, until, with_server

SECRET = b"correct horse battery staple"


class Rank:
    """A rank's end of a control connection."""

    def __init__(self, reader: Reader, writer: Writer, challenge: Challenge, nonce: bytes) -> None:
        self.reader = reader
        self.writer = writer
        self.challenge = challenge
        self.nonce = nonce
        self._decoder = Decoder()
        self._messages: list[Message] = []

    @classmethod
    async def connect(cls, server: RendezvousServer) -> "Rank":
        nonce = secrets.token_bytes(32)
        reader, writer = await client(server, Preamble(Purpose.control, nonce).encode())
        challenge = decode_challenge(await reader.readexactly(CHALLENGE_BYTES))
        assert challenge is not None
        return cls(reader, writer, challenge, nonce)

    @classmethod
    async def registered(cls, server: RendezvousServer, rank: int, job: str = "", secret: bytes = b"") -> "Rank":
        self = await cls.connect(server)
        self.register(rank, job, secret)
        assert isinstance(await self.receive(), Welcome)
        return self

    def register(self, rank: int, job: str = "", secret: bytes = b"") -> Proof:
        registration = Registration(job, "comm", rank, 4, secrets.token_bytes(16), own_endpoint(self.writer))
        proof = Proof(secret, self.nonce, self.challenge.nonce)
        self.send(Register(registration, proof.of_client(registration.encode())))
        return proof

    def send(self, message: Message) -> None:
        self.writer.write(encode(message))

    async def receive(self) -> Message:
        while not self._messages:
            data = await self.reader.read(4096)
            assert data, "the server closed the connection"
            self._messages = self._decoder.feed(data)
        return self._messages.pop(0)

    async def ended(self) -> bool:
        try:
            return not self._messages and await self.reader.read() == b""
        except ConnectionError:
            return True

    async def introduction(self) -> Introduction:
        message = await self.receive()
        assert isinstance(message, Introduction)
        return message


async def introduced(server: RendezvousServer) -> tuple[Rank, Rank, bytes, bytes]:
    """Two ranks that have announced themselves to each other, and their relay tickets."""
    first, second = await Rank.registered(server, 0), await Rank.registered(server, 1)
    first.send(Announce(1, 50_001))
    second.send(Announce(0, 50_002))
    to_second, to_first = await first.introduction(), await second.introduction()
    assert to_second.endpoints == (Endpoint("127.0.0.1", 50_002),)
    assert to_first.endpoints == (Endpoint("127.0.0.1", 50_001),)
    return first, second, to_second.ticket, to_first.ticket


def test_ranks_of_different_jobs_are_never_introduced() -> None:
    async def scenario(server: RendezvousServer) -> None:
        ranks = [await Rank.registered(server, rank, job) for job in ("x", "y") for rank in (0, 1)]
        ranks[0].send(Announce(1, 1000))
        ranks[3].send(Announce(0, 2000))
        ranks[1].send(Announce(0, 3000))
        assert (await ranks[0].introduction()).endpoints == (Endpoint("127.0.0.1", 3000),)
        assert (await ranks[1].introduction()).endpoints == (Endpoint("127.0.0.1", 1000),)
        ranks[2].send(Announce(1, 4000))
        assert (await ranks[3].introduction()).endpoints == (Endpoint("127.0.0.1", 4000),)
        for rank in ranks:
            rank.writer.close()

    with_server(scenario)


def test_an_abort_is_forwarded_to_all_others() -> None:
    async def scenario(server: RendezvousServer) -> None:
        ranks = [await Rank.registered(server, rank) for rank in range(3)]
        abort = Abort(1, 3, 2, "rank 1 gave up")
        ranks[1].send(abort)
        assert await ranks[0].receive() == await ranks[2].receive() == abort
        late = await Rank.registered(server, 3)
        assert await late.receive() == abort

    with_server(scenario)


def test_a_rank_with_the_secret_registers_and_the_server_proves_that_it_knows_it() -> None:
    async def scenario(server: RendezvousServer) -> None:
        rank = await Rank.connect(server)
        assert rank.challenge.demand is Demand.secret
        proof = rank.register(0, secret=SECRET)
        assert await rank.receive() == Welcome(own_endpoint(rank.writer), proof.of_server())

    with_server(scenario, secret=SECRET)


def test_a_rank_without_the_secret_is_refused_without_further_data(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(server: RendezvousServer) -> None:
        member = await Rank.registered(server, 0, "hush", SECRET)
        member.send(Announce(1, 50_001))
        for secret in (b"", b"correct horse battery stable"):
            stranger = await Rank.connect(server)
            stranger.register(1, "hush", secret)
            refusal = await stranger.receive()
            assert isinstance(refusal, Refusal)
            assert refusal.reason is RefusalReason.forbidden
            assert "hush" not in refusal.text
            assert await stranger.ended()
        for message in (Announce(0, 50_002), Withdraw(0), Abort(1, 1, 1, "")):
            stranger = await Rank.connect(server)
            stranger.send(message)
            assert await stranger.ended()
        for purpose in (Purpose.probe, Purpose.relay):
            reader, _ = await client(server, Preamble(purpose, bytes(32)).encode())
            assert await reader.read() == b""
        reader, _ = await client(server, b"comm1_0")
        assert await reader.read() == b""
        reader, _ = await client(server, Request(b"comm1_0").encode())
        assert decode_response(await reader.read()).status is Status.error
        assert server.counters.refused[Refused.secret] == 6
        assert SECRET.decode() not in caplog.text

    with caplog.at_level("DEBUG"):
        with_server(scenario, secret=SECRET)


def test_a_proof_of_another_connection_is_invalid() -> None:
    async def scenario(server: RendezvousServer) -> None:
        overheard, thief = await Rank.connect(server), await Rank.connect(server)
        registration = Registration("", "comm", 0, 4, bytes(16), own_endpoint(thief.writer))
        proof = Proof(SECRET, overheard.nonce, overheard.challenge.nonce)
        thief.send(Register(registration, proof.of_client(registration.encode())))
        assert isinstance(await thief.receive(), Refusal)

    with_server(scenario, secret=SECRET)


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="expected at least 16 random bytes, got 6"):
        RendezvousServer(port=0, secret=b"sesame")


def test_connections_of_one_address_and_ranks_in_all_have_a_limit() -> None:
    async def addresses(server: RendezvousServer) -> None:
        ranks = [await Rank.registered(server, rank) for rank in range(3)]
        reader, _ = await client(server, b"one too many")
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        reader, _ = await client(server, Request(b"one too many").encode())
        assert decode_response(await reader.readexactly(RESPONSE_BYTES)).status is Status.error
        other = await Rank.connect(server)
        other.register(3)
        refusal = await other.receive()
        assert isinstance(refusal, Refusal)
        assert refusal.reason is RefusalReason.busy
        assert "3 connections from 127.0.0.1" in refusal.text
        assert "raise --max-connections-per-address" in refusal.text
        await until(lambda: server.connections == 3)
        ranks[0].writer.close()
        await until(lambda: server.connections == 2)
        await Rank.registered(server, 0)

    async def storm(server: RendezvousServer) -> None:
        _first = await Rank.registered(server, 0)
        silent = [await client(server) for _ in range(100)]
        await until(lambda: server.counters.refused[Refused.address_limit] == 100)
        assert server.connections <= 65  # the others were closed at once
        for _, writer in silent:
            writer.close()
        await until(lambda: server.connections == 1)

    async def waiters(server: RendezvousServer) -> None:
        _first = await Rank.registered(server, 0)
        other = await Rank.connect(server)
        other.register(1)
        refusal = await other.receive()
        assert isinstance(refusal, Refusal)
        assert refusal.reason is RefusalReason.busy
        assert "raise --max-waiters" in refusal.text

    with_server(addresses, connections_per_address=3)
    with_server(storm, connections_per_address=1)
    with_server(waiters, waiters=1)


def test_silent_ranks_and_ranks_that_send_invalid_messages_are_disconnected() -> None:
    async def scenario(server: RendezvousServer) -> None:
        silent = await Rank.connect(server)
        for nonsense in (b"\xff" * 50, encode(Welcome(Endpoint("1.2.3.4", 5), bytes(32))), encode(Announce(1, 1))):
            rank = await Rank.connect(server)
            rank.writer.write(nonsense)
            assert await rank.ended()
        twice = await Rank.registered(server, 0)
        twice.register(0)
        assert await twice.ended()
        assert await silent.ended()
        await until(lambda: server.connections == 0)

    with_server(scenario, silence_seconds=0.2)


def test_a_rank_that_is_silent_for_long_is_disconnected() -> None:
    async def scenario(server: RendezvousServer) -> None:
        rank = await Rank.registered(server, 0)
        assert await rank.ended()
        assert server.waiting == 0

    with_server(scenario, waiting_seconds=0.1)


def test_with_a_certificate_the_control_connection_is_encrypted(tmp_path: Path) -> None:
    certificate = loopback_certificate(tmp_path)

    async def scenario(server: RendezvousServer) -> None:
        rank = await Rank.connect(server)
        assert rank.challenge.demand is Demand.tls
        await rank.writer.start_tls(ssl.create_default_context(cafile=certificate), server_hostname="127.0.0.1")
        rank.register(0)
        assert isinstance(await rank.receive(), Welcome)
        plain = await Rank.connect(server)
        plain.register(1)
        assert await plain.ended()
        rank.writer.close()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with_server(scenario, tls=context)
