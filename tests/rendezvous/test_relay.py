"""Relayed connections: bytes, bounds, ends."""

import asyncio
import secrets

from rendezvous.counters import Refused
from rendezvous.protocol.extension import Preamble, Purpose
from rendezvous.protocol.messages import Announce
from rendezvous.server import RendezvousServer
from tests.rendezvous.test_extension import Rank, introduced
from tests.rendezvous.test_server import Reader, Writer, client, until, with_server


async def relayed(
    server: RendezvousServer,
) -> tuple[tuple[Reader, Writer], tuple[Reader, Writer], tuple[Rank, Rank]]:
    """The two ends of a relayed connection, and the ranks, whose control connections must live as long."""
    first, second, one, other = await introduced(server)
    return (
        await client(server, Preamble(Purpose.relay, one).encode()),
        await client(server, Preamble(Purpose.relay, other).encode()),
        (first, second),
    )


def test_relayed_bytes_arrive_completely_in_both_directions_and_the_end_is_forwarded() -> None:
    async def scenario(server: RendezvousServer) -> None:
        (one_reader, one), (other_reader, other), _ranks = await relayed(server)
        there, back = secrets.token_bytes(3_000_000), secrets.token_bytes(2_000_000)
        one.write(there)
        other.write(back)
        assert await asyncio.gather(other_reader.readexactly(len(there)), one_reader.readexactly(len(back))) == [
            there,
            back,
        ]
        one.write_eof()
        assert await other_reader.read() == b""
        other.write(b"still open in this direction")
        other.write_eof()
        assert await one_reader.read() == b"still open in this direction"
        await until(lambda: len(server.extension.relays) == 0)
        assert server.counters.relayed_bytes == len(there) + len(back) + 28

    with_server(scenario)


def test_bytes_sent_before_the_other_end_connects_are_not_lost() -> None:
    async def scenario(server: RendezvousServer) -> None:
        *_ranks, one, other = await introduced(server)
        _, early = await client(server, Preamble(Purpose.relay, one).encode() + b"early")
        reader, _ = await client(server, Preamble(Purpose.relay, other).encode())
        assert await reader.readexactly(5) == b"early"
        early.close()

    with_server(scenario)


def test_a_slow_reader_slows_only_its_writer_down() -> None:
    async def scenario(server: RendezvousServer) -> None:
        (_, one), (other_reader, _other), _ranks = await relayed(server)
        one.write(bytes(50_000_000))
        moved = -1
        while moved != server.counters.relayed_bytes:  # until everything on the way is full
            moved = server.counters.relayed_bytes
            await asyncio.sleep(0.05)
        assert moved < 40_000_000
        a_reader, a = await client(server, b"name")
        _, b = await client(server, b"name")
        assert len(await a_reader.readexactly(16)) == 16
        assert await other_reader.readexactly(50_000_000) == bytes(50_000_000)
        a.close()
        b.close()

    with_server(scenario)


def test_a_relay_has_a_bandwidth_and_a_lifetime() -> None:
    async def scenario(server: RendezvousServer) -> None:
        (_, one), (other_reader, _other), _ranks = await relayed(server)
        began = server.clock()
        one.write(bytes(400_000))
        await other_reader.readexactly(400_000)
        # 0.1 s of bandwidth may go at once, and the last chunk is paid for after it was passed on.
        assert server.clock() - began >= (400_000 - 131_072) / 1_000_000 - 0.1
        assert await other_reader.read() == b""
        assert server.clock() - began >= 0.5

    with_server(scenario, relay_bytes_per_second=1_000_000, relay_seconds=0.6)


def test_relays_have_a_limit_and_can_be_disabled() -> None:
    async def limited(server: RendezvousServer) -> None:
        _held = await relayed(server)
        await until(lambda: len(server.extension.relays) == 1)
        third, fourth = await Rank.registered(server, 2), await Rank.registered(server, 3)
        third.send(Announce(3, 50_001))
        fourth.send(Announce(2, 50_002))
        for rank in (third, fourth):
            reader, _ = await client(server, Preamble(Purpose.relay, (await rank.introduction()).ticket).encode())
        assert await reader.read() == b""
        await until(lambda: server.counters.refused[Refused.relay_limit] == 2)

    async def switched_off(server: RendezvousServer) -> None:
        *_ranks, one, other = await introduced(server)
        assert one == other == bytes(32)

    with_server(limited, relays=1)
    with_server(switched_off, relays=0)
