"""fmi-emulator serve as a user runs it."""

import contextlib
import http.client
import io
import ipaddress
import os
import signal
import socket
import urllib.error
import urllib.request
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from tests.commands import FMI_EMULATOR, Command, run
from tests.integration.serving import serving


def test_a_full_pipe_at_standard_error_stops_no_request(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    os.set_blocking(writing, True)
    server = Command(FMI_EMULATOR, "serve", "--port", 0, environment={"TMPDIR": str(tmp_path)}, stderr=writing)
    os.close(writing)
    try:
        url = server.stdout.readline().strip().partition("=")[2]
        for _ in range(20):
            # Each is a line on standard error: moto fails on this body.
            headers = {
                "Authorization": "AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/ssm/aws4_request",
                "Content-Type": "application/x-amz-json-1.1",
                "X-Amz-Target": "AmazonSSM.GetParameters",
            }
            request = urllib.request.Request(url, b'{"Names": 5}', headers)
            with pytest.raises(urllib.error.HTTPError, match="Internal Server Error"):
                urllib.request.urlopen(request, timeout=60)
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 143
    finally:
        server.kill()
        server.wait()
        os.close(reading)


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
        ended = run(FMI_EMULATOR, "serve", "--port", port)
    assert ended.returncode == 2
    assert ended.stderr.splitlines() == [
        f"fmi-emulator: the AWS endpoint: port {port} on 127.0.0.1 is in use; "
        "stop the program that uses it or choose another port"
    ]


def test_few_open_files_refuse_some_invocations_by_name_and_none_afterwards(tmp_path: Path) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as files:
        files.writestr("main.py", "import time\ndef handler(event, _):\n    time.sleep(event)\n    return 1\n")
    with serving(tmp_path, files=64) as server:
        functions = server.client("lambda")
        for name in "one", "other":
            functions.create_function(
                FunctionName=name,
                Role="arn:aws:iam::000000000000:role/r",
                Runtime="python3.11",
                Handler="main.handler",
                Code={"ZipFile": archive.getvalue()},
            )

        def invoke(name: str) -> str:
            try:
                return str(functions.invoke(FunctionName=name, Payload=b"0.5")["Payload"].read())
            except ClientError as error:
                return str(error.response["Error"])

        with ThreadPoolExecutor(20) as clients:
            answers = list(clients.map(invoke, ["one"] * 20))
        refused = [answer for answer in answers if answer != "b'1'"]
        assert refused
        assert all("too many open files: the limit is 64: raise it (ulimit -n)" in answer for answer in refused)
        assert [invoke(name) for name in ("other", "one", "other")] == ["b'1'"] * 3
        with ThreadPoolExecutor(6) as clients:  # environments of the first function give way to these
            assert list(clients.map(invoke, ["other"] * 6)) == ["b'1'"] * 6


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
    ended = run(FMI_EMULATOR, "serve", "--port", 0, "--host", "192.0.2.1")
    assert ended.returncode == 2
    assert "192.0.2.1 is not an address of this machine" in ended.stderr


def test_an_open_endpoint_is_named_and_one_with_a_key_asks_for_it(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        assert len([line for line in server.said if line.startswith("open endpoint: ")]) == 1
        first = server.exported["AWS_SECRET_ACCESS_KEY"]
    with serving(tmp_path, "--credentials", "random") as server:
        assert not any("open endpoint" in line for line in server.said)
        assert server.exported["AWS_SECRET_ACCESS_KEY"] not in ("local", first)
        assert server.client("s3").list_buckets()["Buckets"] == []
        server.exported["AWS_SECRET_ACCESS_KEY"] = first
        with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
            server.client("s3").list_buckets()
        (page,) = [line.removeprefix("page: ").strip() for line in server.said if line.startswith("page: ")]
        assert "/_emulator/?token=" in page


def test_the_key_can_be_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "credentials"
    file.write_text("[default]\naws_access_key_id = AKIAMINE\naws_secret_access_key = a%secret/+=\n")
    with serving(tmp_path, "--credentials", file) as server:
        assert server.exported["AWS_ACCESS_KEY_ID"] == "AKIAMINE"
        assert "a%secret/+=" in server.exported["AWS_SECRET_ACCESS_KEY"]
        server.client("lambda").list_functions()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read the credentials in "),
        ("aws_access_key_id = x", "no credentials in "),
        ("[x]", "expected a sec"),
    ],
)
def test_a_file_without_a_key_is_an_error(tmp_path: Path, content: str | None, message: str) -> None:
    file = tmp_path / "credentials"
    if content is not None:
        file.write_text(content)
    ended = run(FMI_EMULATOR, "serve", "--port", 0, "--credentials", file)
    assert ended.returncode == 2
    assert message in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
