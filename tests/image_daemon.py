"""A container daemon that only has an image and pushes it: what it is asked is recorded, and nothing is sent."""

import base64
import contextlib
import json
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

IMAGE = "fmi-executor:0123456789abcdef"
DIGEST = f"sha256:{'5a' * 32}"


class ImageDaemon(socketserver.ThreadingUnixStreamServer):
    """Docker's API at a socket, as far as a push needs it.

    Attributes
    ----------
    pushed
        Repository, tag, user and password of each push.
    names
        The names that the image has.
    architecture
        What the image is built for.
    """

    daemon_threads = True

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), _Handler)
        self.pushed: list[tuple[str, str, str, str]] = []
        self.names = {IMAGE}
        self.architecture = "amd64"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ImageDaemon

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if path.endswith("/version"):
            self._answer(200, {"ApiVersion": "1.43"})
        elif path.endswith("/_ping"):
            self._answer(200, "OK")
        elif path.endswith(f"/images/{IMAGE}/json"):
            self._answer(200, {"Id": "sha256:1", "Architecture": self.server.architecture})
        else:
            self._answer(404, {"message": f"No such image: {path}"})

    def do_POST(self) -> None:
        parts = urlsplit(self.path)
        path, query = unquote(parts.path), {name: values[0] for name, values in parse_qs(parts.query).items()}
        if path.endswith("/tag"):
            self.server.names.add(f"{query['repo']}:{query['tag']}")
            self._answer(201, "")
            return
        account = json.loads(base64.urlsafe_b64decode(self.headers["X-Registry-Auth"]))
        repository = path.partition("/images/")[2].removesuffix("/push")
        assert f"{repository}:{query['tag']}" in self.server.names
        self.server.pushed.append((repository, query["tag"], account["username"], account["password"]))
        events = [{"status": "Pushed", "id": "1f"}, {"progressDetail": {}, "aux": {"Digest": DIGEST}}]
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for chunk in (*(json.dumps(event).encode() + b"\r\n" for event in events), b""):
            self.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))

    def do_DELETE(self) -> None:
        self.server.names.discard(unquote(urlsplit(self.path).path).partition("/images/")[2])
        self._answer(200, [])

    def _answer(self, status: int, body: Any) -> None:
        content = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(content)

    def address_string(self) -> str:
        return "socket"

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@contextlib.contextmanager
def image_daemon(folder: Path) -> Iterator[ImageDaemon]:
    """Yield a daemon at ``docker.sock`` in a folder."""
    with ImageDaemon(folder / "docker.sock") as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
