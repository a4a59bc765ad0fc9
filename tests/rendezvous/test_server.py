"""The server on real sockets, spoken to as the C++ client does, and as nobody should."""

import asyncio
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from rendezvous.limits import Limits
from rendezvous.protocol import Endpoint, decode_record
from rendezvous.server import RendezvousServer

Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter
Scenario = Callable[[RendezvousServer], Awaitable[None]]


def with_server(scenario: Scenario, secret: bytes = b"", tls: ssl.SSLContext | None = None, **limits: Any) -> None:
    async def run() -> None:
        server = RendezvousServer(port=0, limits=Limits(**limits), secret=secret, tls=tls)
        await server.start()
        try:
            await asyncio.wait_for(scenario(server), 20)
        finally:
            await server.close()

    asyncio.run(run())


async def client(server: RendezvousServer, *pieces: bytes) -> tuple[Reader, Writer]:
    reader, writer = await asyncio.open_connection(server.host, server.port)
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
    return reader, writer


def own_endpoint(writer: Writer) -> Endpoint:
    return Endpoint(*writer.get_extra_info("sockname"))


async def record(reader: Reader) -> Endpoint:
    return decode_record(await reader.readexactly(8))


async def assert_pairs(server: RendezvousServer, name: bytes) -> None:
    first, second = await client(server, name), await client(server, name)
    for (reader, writer), (_, other) in ((first, second), (second, first)):
        assert await record(reader) == own_endpoint(writer)
        assert await record(reader) == own_endpoint(other)
        writer.close()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def test_two_clients_of_a_name_receive_their_own_and_each_others_address() -> None:
    async def scenario(server: RendezvousServer) -> None:
        first_reader, first = await client(server, b"Test1_0")
        assert await record(first_reader) == own_endpoint(first)
        second_reader, second = await client(server, b"Test1_0")
        assert await record(second_reader) == own_endpoint(second)
        assert await record(second_reader) == own_endpoint(first)
        assert await record(first_reader) == own_endpoint(second)
        assert server.waiting == 0
        first.close()
        second.close()

    with_server(scenario)


def test_a_recorded_exchange_of_version_1_byte_for_byte() -> None:
    """What the C++ client's sockets carry: the name alone one way, two C structs the other way, and nothing else."""

    async def scenario(server: RendezvousServer) -> None:
        first_reader, first = await client(server, b"Test1_0")
        own = socket.inet_aton("127.0.0.1") + struct.pack("!H", own_endpoint(first).port) + b"\0\0"
        assert await first_reader.readexactly(8) == own
        second_reader, second = await client(server, b"Test1_0")
        theirs = socket.inet_aton("127.0.0.1") + struct.pack("!H", own_endpoint(second).port) + b"\0\0"
        assert await second_reader.readexactly(16) == theirs + own
        assert await first_reader.readexactly(8) == theirs
        for reader, writer in ((first_reader, first), (second_reader, second)):
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()

    with_server(scenario)


def test_a_name_in_pieces_is_assembled() -> None:
    async def scenario(server: RendezvousServer) -> None:
        reader, writer = await client(server, b"Te")
        await record(reader)
        writer.write(b"st1_0")
        partner_reader, partner = await client(server, b"Test1_0")
        await record(partner_reader)
        assert await record(partner_reader) == own_endpoint(writer)
        assert await record(reader) == own_endpoint(partner)
        writer.close()
        partner.close()

    with_server(scenario)


def test_a_waiting_client_whose_connection_breaks_is_removed() -> None:
    async def scenario(server: RendezvousServer) -> None:
        closed_reader, closed = await client(server, b"name")
        await record(closed_reader)
        closed.close()
        await until(lambda: server.waiting == 0)

        reset_reader, reset = await client(server, b"name")
        await record(reset_reader)
        await until(lambda: server.waiting == 1)
        raw = reset.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        reset.transport.abort()
        await until(lambda: server.waiting == 0)
        await assert_pairs(server, b"name")

    with_server(scenario)


def test_silent_resetting_and_flooding_clients_do_not_affect_others() -> None:
    async def scenario(server: RendezvousServer) -> None:
        others = [await client(server) for _ in range(50)]
        others += [await client(server, b"half a na") for _ in range(20)]
        for _ in range(50):
            rude = socket.create_connection((server.host, server.port))
            rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            rude.close()
        others += [await client(server, b"\xff" * 5000), await client(server, b"GET / HTTP/1.1\r\n\r\n")]
        await asyncio.gather(*(assert_pairs(server, b"Test%d_0" % i) for i in range(20)))
        for _, writer in others:
            writer.close()

    with_server(scenario)


def test_a_name_of_more_than_99_bytes_ends_the_connection() -> None:
    async def scenario(server: RendezvousServer) -> None:
        reader, writer = await client(server, b"x" * 100)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(8)
        writer.close()
        await assert_pairs(server, b"x" * 99)

    with_server(scenario)


def test_a_silent_client_is_disconnected_and_a_waiting_one_is_not() -> None:
    async def scenario(server: RendezvousServer) -> None:
        waiter_reader, waiter = await client(server, b"name")
        silent_reader, silent = await client(server)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await silent_reader.readexactly(1)
        await record(waiter_reader)
        assert server.waiting == 1
        waiter.close()
        silent.close()

    with_server(scenario, silence_seconds=0.05)


def test_a_paired_client_that_never_leaves_is_disconnected() -> None:
    async def scenario(server: RendezvousServer) -> None:
        reader, writer = await client(server, b"name")
        other_reader, other = await client(server, b"name")
        await reader.readexactly(16)
        await other_reader.readexactly(16)
        other.write(b"what a paired client says is not looked at")
        await until(lambda: not server.connections)
        writer.close()
        other.close()

    with_server(scenario, punching_seconds=0.05)


def test_many_pairs_at_once_each_find_their_partner() -> None:
    async def scenario(server: RendezvousServer) -> None:
        await asyncio.gather(*(assert_pairs(server, b"pair%d" % i) for i in range(200)))
        await until(lambda: not server.connections)

    with_server(scenario)


def test_closing_disconnects_all_clients_and_frees_the_port() -> None:
    async def run() -> None:
        server = RendezvousServer(port=0)
        await server.start()
        reader, writer = await client(server, b"name")
        await record(reader)
        await server.close()
        await server.close()
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(8)
        writer.close()
        again = RendezvousServer(port=server.port)
        await again.start()
        await again.close()

    asyncio.run(run())
