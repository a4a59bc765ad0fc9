"""``fmi-rendezvous`` as its user sees it."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "rendezvous"]


class Server:
    """A running server: its process and its two addresses."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self.process = process
        host, _, port = process.stdout.readline().split()[-1].rpartition(":")
        self.address = (host, int(port))
        self.health = process.stdout.readline().split()[-1]

    def client(self, name: bytes) -> socket.socket:
        connection = socket.create_connection(self.address, timeout=20)
        connection.sendall(name)
        return connection

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"{self.health}{path}", timeout=20) as answer:
            text: str = answer.read().decode()
            return text

    def log(self) -> list[dict[str, object]]:
        assert self.process.stderr is not None
        return [json.loads(line) for line in self.process.stderr.read().splitlines()]


@contextmanager
def running(*flags: str, **environment: str) -> Iterator[Server]:
    with subprocess.Popen(
        [*COMMAND, "--port", "0", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    ) as process:
        try:
            yield Server(process)
        finally:
            process.kill()


def paired(server: Server) -> list[socket.socket]:
    clients = [server.client(b"name") for _ in range(2)]
    for client in clients:
        with client.makefile("rb") as replies:
            assert len(replies.read(16)) == 16
    return clients


def test_it_prints_its_address_pairs_clients_and_stops_at_once_on_ctrl_c() -> None:
    with running() as server:
        clients = paired(server)
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(20) == 0
        assert server.log() == []
        for client in clients:
            client.close()


def test_sigterm_lets_paired_clients_finish_and_ends_waits() -> None:
    with running("--drain", "60") as server:
        first, second = paired(server)
        waiter = server.client(b"lonely")
        server.process.send_signal(signal.SIGTERM)
        with waiter.makefile("rb") as replies:
            assert len(replies.read()) in (0, 8)  # the own address at most, then the end
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(server.address, timeout=20)
        with pytest.raises(urllib.error.HTTPError, match="503"):
            server.get("/health")
        assert server.process.poll() is None
        for client in (first, second, waiter):
            client.close()
        assert server.process.wait(20) == 0


def test_a_second_sigterm_stops_at_once() -> None:
    with running("--drain", "60") as server:
        clients = paired(server)
        server.process.send_signal(signal.SIGTERM)
        with pytest.raises(urllib.error.HTTPError, match="503"):
            while True:
                server.get("/health")
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
        for client in clients:
            client.close()


def test_a_server_out_of_descriptors_accepts_again_once_some_are_free() -> None:
    command = f"ulimit -n 40; exec {sys.executable} -m rendezvous --port 0"
    with subprocess.Popen(["sh", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            server = Server(process)
            crowd = [socket.create_connection(server.address, timeout=20) for _ in range(60)]
            assert process.stderr is not None
            assert json.loads(process.stderr.readline())["message"] == "cannot accept"
            for client in crowd:
                client.close()
            for client in paired(server):
                client.close()
        finally:
            process.kill()


def test_health_and_metrics_contain_counts_and_no_names() -> None:
    with running() as server:
        clients = [*paired(server), server.client(b"lonely")]
        with clients[2].makefile("rb") as replies:
            replies.read(8)
        health = json.loads(server.get("/health"))
        assert health == {
            "status": "ok",
            "connections": 3,
            "waiting": 1,
            "pairings": 1,
            "introductions": 0,
            "relays": 0,
        }
        metrics = server.get("/metrics")
        assert "fmi_rendezvous_pairings_total 1.0" in metrics
        assert "fmi_rendezvous_waiting_clients 1.0" in metrics
        assert 'fmi_rendezvous_refused_total{reason="protocol"} 0.0' in metrics
        assert "lonely" not in metrics
        for client in clients:
            client.close()


def test_the_log_is_json_and_flags_take_precedence_over_the_environment() -> None:
    with running("--log-level", "info", FMI_RENDEZVOUS_LOG_LEVEL="error", FMI_RENDEZVOUS_MAX_WAIT="0.1") as server:
        with server.client(b"x" * 120) as wrong:
            assert wrong.recv(1) == b""
        with server.client(b"lonely") as waiter, waiter.makefile("rb") as replies:
            assert len(replies.read()) == 8  # the wait's end, by the variable, is the end of the connection
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(20)
        log = server.log()
    assert {"time", "level", "logger", "message"} <= set(log[0])
    refused = [entry for entry in log if entry["message"] == "client refused"]
    assert "at most 99 bytes" in str(refused[0]["why"])


def test_a_port_in_use_is_one_clear_message_and_exit_code_2() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for flags, flag in (
            (["--port", str(port)], "--port"),
            (["--port", "0", "--health-port", str(port)], "--health-port"),
        ):
            result = subprocess.run([*COMMAND, *flags], capture_output=True, text=True, timeout=20, check=False)
            assert result.returncode == 2
            assert result.stderr == (
                f"fmi-rendezvous: 127.0.0.1:{port} is in use: stop the other server or choose another {flag}\n"
            )


def test_an_invalid_option_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("sesame\n")
    flags = ["--secret-file", str(tmp_path / "secret")]
    result = subprocess.run([*COMMAND, *flags], capture_output=True, text=True, timeout=20, check=False)
    assert result.returncode == 2
    assert result.stderr == (
        f"fmi-rendezvous: invalid secret in {tmp_path / 'secret'}: expected at least 16 bytes, got 6\n"
    )


def test_help_names_the_ways_ranks_find_the_server() -> None:
    result = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, timeout=20, check=True)
    assert "FMI_RENDEZVOUS=HOST:PORT" in result.stdout
