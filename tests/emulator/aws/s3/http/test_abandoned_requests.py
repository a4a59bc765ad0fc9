"""Clients that leave before the end of a response or of their request."""

import socket
import struct
import urllib.parse

import pytest

from emulator.cloud import LocalCloud

# More than the buffers of both sockets hold.
SIZE = 16 << 20
RESET_AT_CLOSE = struct.pack("ii", 1, 0)


def leave(url: str, request: str) -> None:
    """Send the beginning of a request, wait for the server's first bytes if there are any, and reset the connection."""
    address = urllib.parse.urlsplit(url)
    assert address.hostname is not None
    assert address.port is not None
    with socket.create_connection((address.hostname, address.port)) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
        client.sendall(f"{request} HTTP/1.1\r\nHost: {address.netloc}\r\n".encode())
        if request.startswith("GET"):
            client.sendall(b"\r\n")
            assert client.recv(1)
        else:
            client.sendall(b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % SIZE)
            assert client.recv(1)
            client.sendall(bytes(1 << 20))


def test_a_client_that_leaves_is_no_failure_of_the_server(caplog: pytest.LogCaptureFixture) -> None:
    with LocalCloud() as cloud:
        s3 = cloud.client("s3")
        s3.create_bucket(Bucket="left")
        s3.put_object(Bucket="left", Key="large", Body=bytes(SIZE))
        leave(cloud.endpoint_url, "GET /left/large")
        leave(cloud.endpoint_url, "PUT /left/other")
        assert [found["Key"] for found in s3.list_objects_v2(Bucket="left")["Contents"]] == ["large"]
    # The server has waited for its requests.
    assert [record.getMessage() for record in caplog.records if record.name == "aiohttp.server"] == []
