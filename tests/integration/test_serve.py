"""fmi-emulator serve as a user runs it."""

import http.client
import ipaddress
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import boto3

COMMAND = Path(sys.executable).with_name("fmi-emulator")


def test_the_exported_variables_reach_it_and_ctrl_c_ends_it(tmp_path: Path) -> None:
    with subprocess.Popen(
        [COMMAND, "serve", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    ) as command:
        assert command.stdout is not None
        assert command.stderr is not None
        while "ready" not in command.stderr.readline():
            assert command.poll() is None
        lines = [command.stdout.readline() for _ in range(4)]
        variables = dict(re.findall(r"(\w+)=(\S+)", "".join(lines)))
        session = boto3.Session(variables["AWS_ACCESS_KEY_ID"], variables["AWS_SECRET_ACCESS_KEY"])
        region, url = variables["AWS_DEFAULT_REGION"], variables["AWS_ENDPOINT_URL"]
        s3 = session.client("s3", region_name=region, endpoint_url=url)
        s3.create_bucket(Bucket="bucket")
        assert [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]] == ["bucket"]
        host, port = variables["FMI_RENDEZVOUS"].split(":")
        socket.create_connection((host, int(port)), timeout=5).close()
        command.send_signal(signal.SIGINT)
        _, errors = command.communicate(timeout=20)
    assert command.returncode == 130
    assert errors.splitlines()[-1] == "fmi-emulator: interrupted"
    assert list(tmp_path.iterdir()) == []


def test_a_port_in_use_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = subprocess.run([COMMAND, "serve", "--port", str(port)], capture_output=True, text=True, timeout=30)
    assert ended.returncode == 2
    assert ended.stderr.splitlines() == [
        f"fmi-emulator: the AWS endpoint: port {port} on 127.0.0.1 is in use; "
        "stop the program that holds it or choose another port"
    ]


def test_it_listens_on_loopback_alone_unless_told_otherwise() -> None:
    elsewhere = "127.0.0.7"
    for options, reached in ([], False), (["--host", "0.0.0.0"], True):
        with subprocess.Popen(
            [COMMAND, "serve", "--port", "0", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as command:
            assert command.stdout is not None
            assert command.stderr is not None
            said = [command.stderr.readline()]
            while "ready" not in said[-1]:
                assert command.poll() is None
                said.append(command.stderr.readline())
            url = command.stdout.readline().partition("=")[2].strip()
            host, port = url.removeprefix("http://").split(":")
            assert ipaddress.ip_address(host).is_loopback
            connection = http.client.HTTPConnection(elsewhere, int(port), timeout=5)
            try:
                connection.connect()
            except ConnectionRefusedError:
                assert not reached
            else:
                assert reached
                connection.close()
            assert any("whoever reaches it can run programs here as you" in line for line in said) is reached
            command.send_signal(signal.SIGINT)
            command.communicate(timeout=20)


def test_an_address_that_is_not_here_is_said() -> None:
    for address, message in (
        ("192.0.2.1", "192.0.2.1 is no address of this machine"),
        ("here", "expected an IPv4 address such as 127.0.0.1, got 'here'"),
    ):
        ended = subprocess.run(
            [COMMAND, "serve", "--port", "0", "--host", address], capture_output=True, text=True, timeout=30
        )
        assert ended.returncode == 2
        assert message in ended.stderr
