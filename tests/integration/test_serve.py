"""fmi-emulator serve as a user runs it."""

import http.client
import ipaddress
import signal
import socket
import subprocess
from pathlib import Path

from tests.integration.serving import COMMAND, serving


def test_the_exported_variables_point_to_the_endpoint_and_ctrl_c_stops_it(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        s3 = server.client("s3")
        s3.create_bucket(Bucket="bucket")
        assert [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]] == ["bucket"]
        host, port = server.exported["FMI_RENDEZVOUS"].split(":")
        socket.create_connection((host, int(port)), timeout=5).close()
        server.process.send_signal(signal.SIGINT)
        _, errors = server.process.communicate(timeout=20)
    assert server.process.returncode == 130
    assert errors.splitlines() == ["fmi-emulator: interrupted"]
    assert list(tmp_path.iterdir()) == []


def test_a_port_in_use_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = subprocess.run([COMMAND, "serve", "--port", str(port)], capture_output=True, text=True, timeout=30)
    assert ended.returncode == 2
    assert ended.stderr.splitlines() == [
        f"fmi-emulator: the AWS endpoint: port {port} on 127.0.0.1 is in use; "
        "stop the program that uses it or choose another port"
    ]


def test_it_listens_on_loopback_only_unless_host_is_given(tmp_path: Path) -> None:
    elsewhere = "127.0.0.7"
    for options, reached in ([], False), (["--host", "0.0.0.0"], True):
        with serving(tmp_path, *options) as server:
            host, port = server.url.removeprefix("http://").split(":")
            assert ipaddress.ip_address(host).is_loopback
            connection = http.client.HTTPConnection(elsewhere, int(port), timeout=5)
            try:
                connection.connect()
            except ConnectionRefusedError:
                assert not reached
            else:
                assert reached
                connection.close()
            assert (
                any("anyone who can connect to it can run programs here as you" in line for line in server.said)
                is reached
            )


def test_an_address_of_another_machine_is_an_error() -> None:
    ended = subprocess.run(
        [COMMAND, "serve", "--port", "0", "--host", "192.0.2.1"], capture_output=True, text=True, timeout=30
    )
    assert ended.returncode == 2
    assert "192.0.2.1 is not an address of this machine" in ended.stderr
