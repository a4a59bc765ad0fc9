"""``fmi-rendezvous`` as its user sees it."""

import signal
import socket
import subprocess
import sys

import pytest

COMMAND = [sys.executable, "-m", "rendezvous"]


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_it_says_where_it_listens_pairs_and_ends_cleanly_on_a_signal(ending: signal.Signals) -> None:
    with subprocess.Popen(
        [*COMMAND, "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        assert server.stderr is not None
        try:
            host, _, port = server.stdout.readline().split()[-1].rpartition(":")
            clients = [socket.create_connection((host, int(port)), timeout=20) for _ in range(2)]
            for client in clients:
                client.sendall(b"name")
            for client in clients:
                with client.makefile("rb") as replies:
                    assert len(replies.read(16)) == 16
            server.send_signal(ending)
            assert server.wait(20) == 0
            assert server.stderr.read() == ""
            for client in clients:
                client.close()
        finally:
            server.kill()


def test_a_port_in_use_is_one_clear_message_and_exit_code_2() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = subprocess.run(
            [*COMMAND, "--port", str(port)], capture_output=True, text=True, timeout=20, check=False
        )
    assert result.returncode == 2
    assert result.stderr == (
        f"fmi-rendezvous: 127.0.0.1:{port} is in use: stop the other server or choose another --port\n"
    )


@pytest.mark.parametrize("port", ["-1", "65536", "ten"])
def test_a_wrong_port_is_a_usage_error(port: str) -> None:
    result = subprocess.run([*COMMAND, "--port", port], capture_output=True, text=True, timeout=20, check=False)
    assert result.returncode == 2
    assert "--port" in result.stderr


def test_help_names_the_ways_ranks_find_the_server() -> None:
    result = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, timeout=20, check=True)
    assert "FMI_RENDEZVOUS" in result.stdout
