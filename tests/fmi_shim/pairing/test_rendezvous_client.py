"""Ranks at a rendezvous server with our extension: control connection, secrets, certificates, aborts, restarts."""

import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from emulator.fmi.deployment.secrets import server_certificate
from emulator.fmi.functions.execute import SERVER_NAME
from fmi_shim.backoff import Deadline
from fmi_shim.errors import ConfigError, FmiError, MismatchError, PeerTimeoutError, RendezvousError
from fmi_shim.pairing import tcpunch
from fmi_shim.pairing.control_connection import Access, ControlConnection, ServerLostError, read_access
from fmi_shim.pairing.handshake import PeerHello
from fmi_shim.pairing.rendezvous_client import RendezvousClient
from fmi_shim.pairing.sockets import Poller
from rendezvous.protocol import Endpoint
from rendezvous.protocol.extension import PREAMBLE_BYTES, Challenge, Demand
from rendezvous.protocol.messages import Abort, Registration, Welcome, encode
from rendezvous.protocol.waiting import Awaited, Waiting
from tests.certificates import loopback_certificate
from tests.fmi_shim.pairing.test_tcpunch import assert_unpaced

ANYBODY = Access()
SECRET = "correct horse battery staple"  # noqa: S105 - of this test


class Server:
    """A server process that can be killed and started again on the same port."""

    def __init__(self, flags: tuple[str, ...], environment: dict[str, str]) -> None:
        self._flags = flags
        self._environment = os.environ | environment
        self.endpoint = Endpoint("127.0.0.1", 0)
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "rendezvous", "--port", str(self.endpoint.port), "--health-port", "0"]
        self._process = subprocess.Popen(
            [*command, *self._flags], stdout=subprocess.PIPE, text=True, env=self._environment
        )
        assert self._process.stdout is not None
        self.endpoint = Endpoint("127.0.0.1", int(self._process.stdout.readline().rpartition(":")[2]))
        self._health = self._process.stdout.readline().split()[-1]

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()

    def health(self) -> dict[str, int]:
        with urllib.request.urlopen(f"{self._health}/health", timeout=20) as answer:
            found: dict[str, int] = json.load(answer)
            return found

    def wait_for(self, key: str, value: int) -> None:
        end = time.monotonic() + 20
        while self.health()[key] != value:
            assert time.monotonic() < end, self.health()


@contextmanager
def running(*flags: str, **environment: str) -> Iterator[Server]:
    server = Server(flags, environment)
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="module")
def shared() -> Iterator[Server]:
    with running() as server:
        yield server


class AbortedError(FmiError):
    """The error that an abort is converted to in these tests."""


def rank_of(server: Server, rank: int, size: int = 2, comm: str = "comm", access: Access = ANYBODY) -> RendezvousClient:
    def aborted(abort: Abort) -> FmiError:
        return AbortedError(abort.text, abort.origin, abort.reported_by)

    return RendezvousClient(server.endpoint, access, comm, rank, size, aborted, Poller(lambda _: None))


def connect(
    client: RendezvousClient, rank: int, peer: int, size: int = 2, comm: str = "comm", max_timeout: float | None = 20.0
) -> socket.socket:
    return client.connect(PeerHello(comm, size, rank, peer), lambda: f"rank {rank}", Deadline(max_timeout))


def assert_connected(one: socket.socket, other: socket.socket) -> None:
    assert_unpaced(one, other)
    for sender, receiver in ((one, other), (other, one)):
        sender.setblocking(True)
        receiver.settimeout(10)
        sender.sendall(b"through")
        assert receiver.recv(7) == b"through"


def pair(server: Server, comm: str, access: Access = ANYBODY) -> None:
    clients = [rank_of(server, rank, comm=comm, access=access) for rank in range(2)]
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(connect, clients[0], 0, 1, comm=comm)
        with connect(clients[1], 1, 0, comm=comm) as one, first.result() as other:
            assert_connected(one, other)
    for client in clients:
        client.close()


def test_1000_of_1000_pairs_connect_on_loopback(shared: Server) -> None:
    for i in range(1000):
        pair(shared, f"loopback-{i}-")


def test_n_fully_connected_ranks_need_n_connections_to_the_server() -> None:
    size = 6
    with running() as server:
        clients = [rank_of(server, rank, size) for rank in range(size)]

        def connect_all(rank: int) -> list[socket.socket]:
            return [connect(clients[rank], rank, peer, size) for peer in range(size) if peer != rank]

        with ThreadPoolExecutor(size) as pool:
            meshes = list(pool.map(connect_all, range(size)))
        assert server.health()["connections"] == server.health()["waiting"] == size
        assert server.health()["introductions"] >= size * (size - 1)
        assert server.health()["pairings"] == 0
        for mesh in meshes:
            for connection in mesh:
                connection.close()
        for client in clients:
            client.close()
        server.wait_for("connections", 0)


def test_two_runs_with_the_same_communicator_name_and_different_jobs_never_connect(shared: Server) -> None:
    jobs = [Access(job=job) for job in ("one", "two")]
    clients = [[rank_of(shared, rank, comm="same", access=job) for rank in range(2)] for job in jobs]
    with ThreadPoolExecutor(4) as pool:
        runs = [[pool.submit(connect, run[rank], rank, 1 - rank, comm="same") for rank in range(2)] for run in clients]
        connections = [[rank.result() for rank in run] for run in runs]
    for one, other in connections:
        assert one.getsockname() == other.getpeername()
        one.close()
        other.close()
    for run in clients:
        for client in run:
            client.close()


def test_an_abort_reaches_waiting_ranks_that_were_never_connected_to_its_sender(shared: Server) -> None:
    waiting, failing = rank_of(shared, 0, 3, "abort"), rank_of(shared, 2, 3, "abort")
    with ThreadPoolExecutor(1) as pool:
        met: Future[socket.socket] = pool.submit(connect, waiting, 0, 1, 3, "abort", None)
        with pytest.raises(PeerTimeoutError, match="rank 1 did not connect to the rendezvous server"):
            connect(failing, 2, 1, 3, "abort", 1.0)
        failing.abort(Abort(2, 1, 2, "rank 2 gave up on rank 1"))
        with pytest.raises(AbortedError, match=r"rank 2 gave up on rank 1 \(reported by rank 2\)"):
            met.result(20)
    waiting.close()
    failing.close()


@pytest.mark.parametrize("away", [0.0, 0.3])
def test_ranks_survive_a_restart_of_the_server_during_a_run(away: float) -> None:
    with running() as server:
        clients = [rank_of(server, rank, 3) for rank in range(3)]
        with ThreadPoolExecutor(3) as pool:
            first = pool.submit(connect, clients[0], 0, 1, 3)
            with connect(clients[1], 1, 0, 3) as one, first.result() as other:
                waiting = pool.submit(connect, clients[0], 0, 2, 3)
                server.wait_for("waiting", 2)
                server.kill()
                assert_connected(one, other)  # those who are connected do not notice
                time.sleep(away)
                server.start()
                late = pool.submit(connect, clients[2], 2, 0, 3)  # the third comes only now
                with waiting.result() as again, late.result() as newcomer:
                    assert_connected(again, newcomer)
                # And rank 1, whose connection to the server was lost while it did not look, finds it again.
                last = pool.submit(connect, clients[2], 2, 1, 3)
                with connect(clients[1], 1, 2, 3) as known, last.result() as newcomer:
                    assert_connected(known, newcomer)
        for client in clients:
            client.close()


def test_a_waiting_rank_in_raw_mode_reconnects_to_a_restarted_server() -> None:
    def connect_raw(rank: int) -> socket.socket:
        request = tcpunch.ConnectRequest(
            server.endpoint, b"raw1_0", 1 - rank, lambda: f"rank {rank}", None, Deadline(20.0)
        )
        return tcpunch.connect(request, Poller(lambda _: None).wait, tcpunch.Dialect())

    with running() as server, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(connect_raw, 0)
        server.wait_for("waiting", 1)
        time.sleep(0.1)  # so that it has been answered, and knows that there is a server
        server.kill()
        server.start()
        with connect_raw(1) as one, waiting.result() as other:
            assert_connected(one, other)


def test_ranks_connect_with_secret_and_certificate_on_both_sides(tmp_path: Path) -> None:
    certificate = str(loopback_certificate(tmp_path))
    with running("--tls-certificate", certificate, FMI_RENDEZVOUS_SECRET=SECRET) as server:
        pair(server, "encrypted", Access("job", SECRET.encode(), certificate))
        with pytest.raises(RendezvousError, match="TLS with the rendezvous server"):
            connect(rank_of(server, 0, access=Access(secret=SECRET.encode())), 0, 1)
        with pytest.raises(ConfigError, match="expected a readable PEM file"):
            connect(rank_of(server, 0, access=Access(secret=SECRET.encode(), certificate="/nowhere.pem")), 0, 1)


def test_a_certificate_may_be_for_another_name_than_the_address(tmp_path: Path) -> None:
    """A deployed server's certificate names no address, since the address changes."""
    certificate, key = server_certificate()
    own = tmp_path / "own.pem"
    own.write_text(certificate)
    with running(FMI_RENDEZVOUS_SECRET=SECRET, FMI_RENDEZVOUS_TLS_PEM=certificate + key) as server:
        pair(server, "encrypted", Access("job", SECRET.encode(), str(own), server_name=SERVER_NAME))
        with pytest.raises(RendezvousError, match="TLS with the rendezvous server"):
            connect(rank_of(server, 0, access=Access("", SECRET.encode(), str(own))), 0, 1)
        with pytest.raises(RendezvousError, match="TLS with the rendezvous server"):
            connect(rank_of(server, 0, access=Access("", SECRET.encode(), str(own), server_name="another.name")), 0, 1)


def test_a_rank_without_the_secret_gets_an_error_that_names_the_variable() -> None:
    with running(FMI_RENDEZVOUS_SECRET=SECRET) as server:
        with pytest.raises(RendezvousError, match="requires a secret: set FMI_RENDEZVOUS_SECRET"):
            connect(rank_of(server, 0), 0, 1)
        with pytest.raises(RendezvousError, match="wrong secret: set the same FMI_RENDEZVOUS_SECRET") as refused:
            connect(rank_of(server, 0, access=Access(secret=b"correct horse battery stable")), 0, 1)
        assert "stable" not in str(refused.value)


def test_a_server_that_requires_less_than_this_rank_is_refused(shared: Server) -> None:
    with pytest.raises(RendezvousError, match="requires no secret"):
        connect(rank_of(shared, 0, access=Access(secret=SECRET.encode())), 0, 1)
    with pytest.raises(RendezvousError, match="does not use TLS"):
        connect(rank_of(shared, 0, access=Access(certificate="/any.pem")), 0, 1)


def test_a_server_that_does_not_know_the_secret_is_refused() -> None:
    """It requires the secret, accepts any proof, and cannot return its own."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def pose() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(PREAMBLE_BYTES, socket.MSG_WAITALL)
                connection.sendall(Challenge(Demand.secret, bytes(32)).encode())
                connection.recv(4096)
                connection.sendall(encode(Welcome(Endpoint("127.0.0.1", 1), bytes(32))))
                connection.recv(1)

        impostor = threading.Thread(target=pose)
        impostor.start()
        client = RendezvousClient(
            Endpoint("127.0.0.1", listener.getsockname()[1]),
            Access(secret=SECRET.encode()),
            "comm",
            0,
            2,
            lambda abort: FmiError(abort.text),
            Poller(lambda _: None),
        )
        with pytest.raises(RendezvousError, match="does not know this run's secret"):
            connect(client, 0, 1)
        impostor.join(20)


def test_a_second_process_of_a_rank_raises_on_both(shared: Server) -> None:
    first, second = rank_of(shared, 0, comm="twice"), rank_of(shared, 0, comm="twice")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(connect, first, 0, 1, comm="twice")
        time.sleep(0.1)
        for attempt in (lambda: connect(second, 0, 1, comm="twice"), lambda: waiting.result(20)):
            with pytest.raises(MismatchError, match="two processes run as rank 0"):
                attempt()


def test_access_is_read_from_the_environment_and_a_secret_is_not_shown() -> None:
    access = read_access({"FMI_JOB": "job", "FMI_RENDEZVOUS_SECRET": SECRET, "FMI_RENDEZVOUS_CERTIFICATE": "c.pem"})
    assert access == Access("job", SECRET.encode(), "c.pem", SECRET.encode())
    assert SECRET not in repr(access)
    both = read_access({"FMI_SECRET": "of the run", "FMI_RENDEZVOUS_SECRET": SECRET})
    assert (both.run_secret, both.secret) == (b"of the run", SECRET.encode())
    assert "of the run" not in repr(both)
    assert read_access({}) == Access()
    with pytest.raises(ConfigError, match="FMI_JOB"):
        read_access({"FMI_JOB": "x" * 65})


def test_a_control_connection_has_the_servers_resolved_address(shared: Server) -> None:
    link = ControlConnection(
        Endpoint("localhost", shared.endpoint.port),
        Access(),
        Registration("", "resolve", 0, 2, bytes(16), Endpoint("0.0.0.0", 0)),
        Deadline(20),
    )
    assert link.address == shared.endpoint
    link.close()


@contextmanager
def scripted_server(*after_registration: bytes, close: bool = False) -> Iterator[Endpoint]:
    """A server that welcomes one rank and sends `after_registration` in the same segment as the welcome."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(PREAMBLE_BYTES, socket.MSG_WAITALL)
                connection.sendall(Challenge(Demand.nothing, bytes(32)).encode())
                connection.recv(4096)
                welcome = encode(Welcome(Endpoint("127.0.0.1", 1), bytes(32)))
                connection.sendall(welcome + b"".join(after_registration))
                if not close:
                    connection.recv(4096)

        thread = threading.Thread(target=serve)
        thread.start()
        yield Endpoint("127.0.0.1", listener.getsockname()[1])
        thread.join(20)


@pytest.mark.parametrize("close", [False, True])
@pytest.mark.parametrize("use", ["connect", "register", "report"])
def test_a_failure_that_arrives_with_the_welcome_is_raised_at_once(use: str, close: bool) -> None:
    failure = encode(Abort(1, 1, 5, "rank 1 failed before"))
    with scripted_server(failure, close=close) as address:
        client = RendezvousClient(
            address, ANYBODY, "comm", 0, 2, lambda abort: FmiError(abort.text), Poller(lambda _: None)
        )
        try:
            with pytest.raises(FmiError, match="rank 1 failed before"):
                if use == "connect":
                    connect(client, 0, 1)
                elif use == "register":
                    client.register()
                else:
                    client.report_wait(Waiting(1, Awaited.writing, 1, b"", "allreduce"))
        finally:
            client.disconnect()


def test_messages_before_the_end_of_a_connection_are_returned_first() -> None:
    failure = Abort(1, 1, 5, "rank 1 failed before")
    with scripted_server(encode(failure), close=True) as address:
        registration = Registration("", "comm", 0, 2, bytes(16), Endpoint("127.0.0.1", 1))
        control = ControlConnection(address, ANYBODY, registration, Deadline(20.0))
        try:
            select.select([control.descriptor], [], [], 20.0)  # the end has arrived, too
            assert control.receive() == [failure]
            with pytest.raises(ServerLostError, match="closed the connection"):
                control.receive()
        finally:
            control.close()


def test_connections_to_the_server_send_without_delay(shared: Server) -> None:
    registration = Registration("", "nodelay", 0, 2, bytes(16), Endpoint("127.0.0.1", 1))
    control = ControlConnection(shared.endpoint, ANYBODY, registration, Deadline(20.0))
    try:
        with socket.socket(fileno=os.dup(control.descriptor)) as connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
    finally:
        control.close()
