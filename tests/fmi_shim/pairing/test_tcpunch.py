"""Hole punching on loopback, among other programs."""

import contextlib
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from fmi_shim.backoff import Deadline
from fmi_shim.errors import PeerTimeoutError
from fmi_shim.pairing import tcpunch
from fmi_shim.pairing.handshake import PeerHello
from fmi_shim.pairing.sockets import Poller
from rendezvous.protocol import Endpoint, decode_record


@pytest.fixture
def server(rendezvous_address: str) -> Endpoint:
    host, _, port = rendezvous_address.rpartition(":")
    return Endpoint(host, int(port))


def connect(
    server: Endpoint, name: str, rank: int, framed: bool = True, max_timeout: float | None = 20.0
) -> socket.socket:
    hello = PeerHello(name, 2, rank, 1 - rank) if framed else None
    wanted = tcpunch.ConnectRequest(
        server, name.encode(), 1 - rank, lambda: f"rank {rank}", hello, Deadline(max_timeout)
    )
    return tcpunch.connect(wanted, Poller(lambda _: None).wait, tcpunch.Dialect())


def both(server: Endpoint, name: str, framed: bool = True) -> tuple[socket.socket, socket.socket]:
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.submit(connect, server, name, 0, framed), pool.submit(connect, server, name, 1, framed)
        return first.result(), second.result()


def assert_connected(one: socket.socket, other: socket.socket) -> None:
    with one, other:
        for sender, receiver in ((one, other), (other, one)):
            sender.setblocking(True)
            receiver.settimeout(10)
            sender.sendall(b"through")
            assert receiver.recv(7) == b"through"


def assert_unpaced(*connections: socket.socket) -> None:
    """Hosts whose default is BBR hold back what is sent over loopback, too."""
    if sys.platform == "linux":
        for connection in connections:
            control = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
            assert control.rstrip(b"\0") == b"reno"


@pytest.mark.parametrize("framed", [True, False], ids=["framed", "raw"])
def test_two_ranks_always_connect(server: Endpoint, framed: bool, request: pytest.FixtureRequest) -> None:
    for i in range(100):
        one, other = both(server, f"{request.node.name}-{i}", framed)
        assert_unpaced(one, other)
        assert_connected(one, other)


def test_a_late_rank_connects(server: Endpoint, request: pytest.FixtureRequest) -> None:
    name = request.node.name
    with ThreadPoolExecutor(1) as pool:
        early = pool.submit(connect, server, name, 0)
        time.sleep(0.3)
        assert_connected(connect(server, name, 1), early.result())


@contextlib.contextmanager
def announced_peer(server: Endpoint, name: str) -> Iterator[tuple[Endpoint, Callable[[], socket.socket]]]:
    """Be announced to a rank as its peer; give the rank's endpoint, and what makes sockets on the announced port."""

    def fresh(port: int = 0) -> socket.socket:
        new = socket.socket()
        new.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        new.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        new.bind(("", port))
        new.settimeout(10)
        return new

    with fresh() as control:
        control.connect((server.host, server.port))
        control.sendall(name.encode())
        with control.makefile("rb") as replies:
            target = decode_record(replies.read(16)[8:])
        yield target, lambda: fresh(control.getsockname()[1])


def test_a_peer_that_listens_late_is_retried(server: Endpoint, request: pytest.FixtureRequest) -> None:
    name = request.node.name
    with ThreadPoolExecutor(1) as pool:
        rank = pool.submit(connect, server, name, 0, framed=False)
        with announced_peer(server, name) as (_, socket_on_port):
            time.sleep(0.2)  # so that several tries have been refused
            with socket_on_port() as listener:
                listener.listen()
                peer, _ = listener.accept()
        assert_connected(peer, rank.result())


def test_connections_of_other_programs_are_not_accepted_as_the_peer(
    server: Endpoint, request: pytest.FixtureRequest
) -> None:
    name = request.node.name
    with ThreadPoolExecutor(1) as pool:
        rank = pool.submit(connect, server, name, 1)
        with announced_peer(server, name) as (target, socket_on_port), contextlib.ExitStack() as strangers:
            address = (target.host, target.port)
            for greeting in (b"", b"GET / HTTP/1.1\r\n\r\n", b"FMI\x01 but not to its end"):
                stranger = strangers.enter_context(socket.create_connection(address, 10))
                stranger.sendall(greeting)
            with socket_on_port() as listener:
                listener.listen()
                peer, _ = listener.accept()
            peer.sendall(PeerHello(name, 2, 0, 1).encode())
            assert_connected(rank.result(), _after_hello(peer, name))


def _after_hello(peer: socket.socket, name: str) -> socket.socket:
    expected = PeerHello(name, 2, 1, 0).encode()
    peer.settimeout(10)
    heard = b""
    while len(heard) < len(expected):
        heard += peer.recv(len(expected) - len(heard))
    assert heard == expected
    return peer


def test_a_peer_that_was_announced_and_never_connects_is_named(
    server: Endpoint, request: pytest.FixtureRequest
) -> None:
    name = request.node.name
    with ThreadPoolExecutor(1) as pool:
        rank = pool.submit(connect, server, name, 0, max_timeout=1.0)
        expected = r"rank 0: no direct connection to rank 1 at .* within .*1 s"
        with announced_peer(server, name), pytest.raises(PeerTimeoutError, match=expected):
            rank.result()


def test_a_peer_that_connects_and_sends_nothing_is_named(server: Endpoint, request: pytest.FixtureRequest) -> None:
    name = request.node.name
    with ThreadPoolExecutor(1) as pool:
        rank = pool.submit(connect, server, name, 0, max_timeout=1.0)
        with announced_peer(server, name) as (_, socket_on_port), socket_on_port() as listener:
            listener.listen()
            with pytest.raises(PeerTimeoutError, match=r"was connected but sent nothing within .*1 s"):
                rank.result()


def test_pairing_closes_all_other_sockets(server: Endpoint, request: pytest.FixtureRequest) -> None:
    def open_descriptors() -> int:
        probe = socket.socket()
        with probe:
            return probe.fileno()

    assert_connected(*both(server, request.node.name))
    before, threads = open_descriptors(), threading.active_count()
    for i in range(5):
        assert_connected(*both(server, f"{request.node.name}-{i}"))
        with pytest.raises(PeerTimeoutError):
            connect(server, f"{request.node.name}-alone-{i}", 0, max_timeout=0.01)
    assert threading.active_count() == threads
    assert open_descriptors() == before
