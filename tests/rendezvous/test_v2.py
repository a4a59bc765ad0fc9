"""The server's exchanges in TCPunch's version 2."""

import asyncio
import uuid
from typing import Any

import pytest

from rendezvous.metrics import prometheus_text
from rendezvous.protocol.v2 import RESPONSE_BYTES, Request, Response, Status, decode_response
from rendezvous.server import RendezvousServer
from tests.rendezvous.test_server import Reader, Writer, client, own_endpoint, until, with_server

TOKEN = uuid.UUID("550e8400-e29b-41d4-a716-446655440000")
RECORDED_ERROR = bytes.fromhex("03 00000000 0000 00000000 0000") + b"00000000-0000-0000-0000-000000000000\0"


async def response(reader: Reader) -> Response:
    return decode_response(await reader.readexactly(RESPONSE_BYTES))


async def requested(server: RendezvousServer, name: bytes, token: uuid.UUID | None = None) -> tuple[Reader, Writer]:
    return await client(server, Request(name, token).encode())


def test_a_whole_exchange_byte_for_byte() -> None:
    async def scenario(server: RendezvousServer) -> None:
        first_reader, first = await client(server, b"Test1_0" + bytes(134))
        waiting = await first_reader.readexactly(50)
        own = own_endpoint(first).encode()
        assert waiting[:13] == b"\0" + own + bytes(6)
        token = waiting[13:]
        assert str(uuid.UUID(token[:36].decode())).encode() + b"\0" == token

        second_reader, second = await client(server, b"Test1_0" + bytes(134))
        paired = await second_reader.readexactly(50)
        assert paired[:13] == b"\1" + own_endpoint(second).encode() + own
        assert await first_reader.readexactly(50) == b"\1" + own + own_endpoint(second).encode() + token
        first.close()
        second.close()
        assert await first_reader.read() == b""

    with_server(scenario)


@pytest.mark.parametrize("cut", [1, 3, 7, 8, 100, 137, 140])
def test_a_request_in_pieces_is_assembled_wherever_it_is_split(cut: int) -> None:
    async def scenario(server: RendezvousServer) -> None:
        whole = Request(b"Test1_0").encode()
        reader, writer = await client(server, whole[:cut])
        await until(lambda: server.connections == 1)
        await asyncio.sleep(0)
        writer.write(whole[cut:])
        assert (await response(reader)).status is Status.waiting
        writer.close()

    with_server(scenario)


def test_versions_1_and_2_pair_with_each_other() -> None:
    async def scenario(server: RendezvousServer) -> None:
        old_reader, old = await client(server, b"Test1_0")
        new_reader, new = await requested(server, b"Test1_0")
        assert (await response(new_reader)).peer == own_endpoint(old)
        assert (await old_reader.readexactly(16))[8:14] == own_endpoint(new).encode()
        old.close()
        new.close()

    with_server(scenario)


def test_a_client_that_reconnects_with_its_token_resumes_its_wait_and_is_paired() -> None:
    async def scenario(server: RendezvousServer) -> None:
        reader, writer = await requested(server, b"name")
        token = (await response(reader)).token
        writer.close()
        await until(lambda: server.connections == 0)

        partner_reader, partner = await requested(server, b"name")
        assert (await response(partner_reader)).status is Status.waiting  # nobody alive was there

        reader, writer = await requested(server, b"name", token)
        resumed = await response(reader)
        assert (resumed.status, resumed.peer, resumed.token) == (Status.paired, own_endpoint(partner), token)
        assert (await response(partner_reader)).peer == own_endpoint(writer)
        writer.close()
        partner.close()

    with_server(scenario)


def test_a_client_that_reconnects_replaces_its_old_connection() -> None:
    async def scenario(server: RendezvousServer) -> None:
        old_reader, old = await requested(server, b"name")
        token = (await response(old_reader)).token
        reader, writer = await requested(server, b"name", token)
        assert (await response(reader)) == Response(Status.waiting, own_endpoint(writer), None, token)
        assert await old_reader.read() == b""
        assert server.waiting == 1
        old.close()
        writer.close()

    with_server(scenario)


def test_an_unknown_token_starts_a_new_wait() -> None:
    async def scenario(server: RendezvousServer) -> None:
        reader, writer = await requested(server, b"name", TOKEN)
        assert (await response(reader)).status is Status.waiting
        other_reader, other = await requested(server, b"other", (TOKEN))
        assert (await response(other_reader)).token != TOKEN
        writer.close()
        other.close()

    with_server(scenario)


def test_a_wait_that_times_out_is_reported_and_its_token_removed() -> None:
    async def scenario(server: RendezvousServer) -> None:
        reader, writer = await requested(server, b"name")
        first = await response(reader)
        assert await response(reader) == Response(Status.timeout, own_endpoint(writer), None, first.token)
        assert await reader.read() == b""
        assert server.waiting == 0
        reader, writer = await requested(server, b"name", first.token)
        assert (await response(reader)).token != first.token
        writer.close()

    with_server(scenario, waiting_seconds=0.1)


def test_a_wait_is_not_prolonged_by_reconnecting() -> None:
    async def scenario(server: RendezvousServer) -> None:
        reader, writer = await requested(server, b"name")
        token = (await response(reader)).token
        began = server.clock()
        while True:
            writer.close()
            reader, writer = await requested(server, b"name", token)
            if (await response(reader)).token != token:
                break
            assert server.clock() < began + 10
        writer.close()

    with_server(scenario, waiting_seconds=0.2)


@pytest.mark.parametrize(
    "wrong",
    [
        bytes(141),
        b"x" * 100 + bytes(41),
        b"\xff\xfe" + bytes(139),
        b"name" + bytes(96) + b"no UUID" + bytes(34),
    ],
    ids=["no name", "name of 100 bytes", "no UTF-8", "no UUID"],
)
def test_an_invalid_request_is_answered_with_the_error_status_and_closed(wrong: bytes) -> None:
    async def scenario(server: RendezvousServer) -> None:
        reader, writer = await client(server, wrong)
        assert await reader.read() == RECORDED_ERROR
        writer.close()

    with_server(scenario)


def test_a_server_that_shuts_down_sends_timeout_to_waiting_clients() -> None:
    async def scenario(server: RendezvousServer) -> None:
        reader, writer = await requested(server, b"name")
        await response(reader)
        await server.drain(5)
        assert (await response(reader)).status is Status.timeout
        assert await reader.read() == b""
        writer.close()

    with_server(scenario)


def test_limits_are_answered_with_the_error_status() -> None:
    async def scenario(server: RendezvousServer) -> None:
        reader, writer = await requested(server, b"name")
        await response(reader)
        other_reader, other = await requested(server, b"other")
        assert await other_reader.read() == RECORDED_ERROR
        writer.close()
        other.close()

    limits: dict[str, Any] = {"waiters": 1}
    with_server(scenario, **limits)


def test_waits_of_closed_connections_lock_nobody_out() -> None:
    async def scenario(server: RendezvousServer) -> None:
        for number in range(12):
            reader, writer = await requested(server, b"flood%d" % number)
            assert (await response(reader)).status is Status.waiting
            writer.close()
            await until(lambda: server.connections == 0)
            assert server.registry.remembered <= 3
        reader, writer = await requested(server, b"Test1_0")
        assert (await response(reader)).status is Status.waiting
        assert b"fmi_rendezvous_resumable_waits 3.0" in prometheus_text(server)
        assert server.counters.evicted == 9
        writer.close()

    with_server(scenario, connections_per_address=3, waiters=10)


def test_a_full_server_evicts_waits_that_may_be_resumed_first() -> None:
    async def scenario(server: RendezvousServer) -> None:
        writers = []
        for number in range(4):
            reader, writer = await requested(server, b"name%d" % number)
            assert (await response(reader)).status is Status.waiting
            writers.append(writer)
        writers[0].close()
        await until(lambda: server.registry.remembered == 1)
        reader, writer = await requested(server, b"late")
        assert (await response(reader)).status is Status.waiting
        reader, refused = await requested(server, b"later")
        assert (await response(reader)).status is Status.error
        for each in (*writers, writer, refused):
            each.close()

    with_server(scenario, waiters=4)
