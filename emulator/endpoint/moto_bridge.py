"""Moto's own HTTP application behind our endpoint: S3, CloudWatch Logs and the rest."""

import asyncio
import io
import time
import urllib.parse
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aiohttp import web
from moto.core.exceptions import ServiceException
from moto.logs.models import logs_backends
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.s3.models import s3_backends

from emulator.limits import ACCOUNT_ID, REGION

# Moto's time goes into Python code, which more threads than cores do not speed up.
_THREADS = 4


class MotoBridge:
    """Answers AWS requests with moto, and lets the Lambda service write logs and read code where moto keeps them."""

    def __init__(self) -> None:
        self._app = DomainDispatcherApplication(create_backend_app)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="moto")
        self.s3_requests: Counter[str] = Counter()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request; it is held in memory as a whole."""
        body = await request.read()
        if "/s3/" in request.headers.get("Authorization", ""):
            self.s3_requests[request.method] += 1
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._call, _wsgi_environ(request, body))

    def append(self, group: str, stream: str, messages: Sequence[str]) -> None:
        """Add log events with the present time; see `LogSink`."""
        backend = logs_backends[ACCOUNT_ID][REGION]
        backend.ensure_log_group(group)
        backend.ensure_log_stream(group, stream)
        now = int(time.time() * 1000)
        backend.put_log_events(group, stream, [{"timestamp": now, "message": message} for message in messages])

    def read_object(self, bucket: str, key: str) -> bytes | None:
        """Return an S3 object's content, or None when there is no such object."""
        try:
            found = s3_backends[ACCOUNT_ID]["aws"].get_object(bucket, key)
        except ServiceException:
            return None
        return None if found is None else bytes(found.value)

    def close(self) -> None:
        """End the threads and forget everything that was kept."""
        self._threads.shutdown(cancel_futures=True)
        s3_backends.reset()
        logs_backends.reset()

    def _call(self, environ: dict[str, Any]) -> web.Response:
        status: list[str] = []
        headers: list[tuple[str, str]] = []

        def start_response(line: str, fields: list[tuple[str, str]], _: object = None) -> None:
            status.append(line)
            headers.extend(fields)

        chunks = self._app(environ, start_response)
        try:
            body = b"".join(chunks)
        finally:
            if hasattr(chunks, "close"):
                chunks.close()
        response = web.Response(status=int(status[0].split()[0]), body=body or None)
        response.headers.clear()
        for name, value in headers:
            response.headers.add(name, value)
        return response


def _wsgi_environ(request: web.BaseRequest, body: bytes) -> dict[str, Any]:
    """Build a WSGI environment (PEP 3333) of a request whose body has been read."""
    raw_path, _, query = request.raw_path.partition("?")
    host, _, port = request.host.partition(":")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": urllib.parse.unquote(raw_path, "latin-1"),
        "RAW_URI": request.raw_path,
        "REQUEST_URI": request.raw_path,
        "QUERY_STRING": query,
        "CONTENT_LENGTH": str(len(body)),
        "SERVER_NAME": host,
        "SERVER_PORT": port or "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": request.remote or "",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for name, value in request.headers.items():
        key = name.upper().replace("-", "_")
        if key == "CONTENT_TYPE":
            environ[key] = value
        elif key not in ("CONTENT_LENGTH", "TRANSFER_ENCODING"):
            environ[f"HTTP_{key}"] = value
    return environ
