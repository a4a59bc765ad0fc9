"""Servers that speak as TCPunch's own two do, for ranks that find one of them instead of ours."""

from __future__ import annotations

import contextlib
import socket
import threading
import uuid
from collections.abc import Callable, Iterator

from rendezvous.protocol import Endpoint, ProtocolError
from rendezvous.protocol.v1 import encode_record
from rendezvous.protocol.v2 import REQUEST_BYTES, Response, Status, decode_request

Waiting = dict[bytes, tuple[socket.socket, Endpoint]]
Serve = Callable[[socket.socket, Endpoint, Waiting, threading.Lock], None]


def serve_v2(connection: socket.socket, client: Endpoint, waiting: Waiting, lock: threading.Lock) -> None:
    """Answer a whole request of version 2, and nothing shorter."""
    data = b""
    while len(data) < REQUEST_BYTES:
        more = connection.recv(REQUEST_BYTES - len(data))
        if not more:
            connection.close()
            return
        data += more
    try:
        name = decode_request(data).name
    except ProtocolError:
        connection.sendall(Response(Status.error).encode())
        connection.close()
        return
    with lock:
        partner = waiting.pop(name, None)
        if partner is None:
            waiting[name] = connection, client
            connection.sendall(Response(Status.waiting, client, None, uuid.uuid4()).encode())
            return
    other, address = partner
    connection.sendall(Response(Status.paired, client, address, uuid.uuid4()).encode())
    other.sendall(Response(Status.paired, address, client, uuid.uuid4()).encode())


def serve_pairs(connection: socket.socket, client: Endpoint, waiting: Waiting, lock: threading.Lock) -> None:
    """Answer a name of version 1 that contains "pair"; close on any other one, which may be cut short."""
    name = connection.recv(100).partition(b"\0")[0]
    if b"pair" not in name:
        connection.close()
        return
    connection.sendall(encode_record(client))
    with lock:
        partner = waiting.pop(name, None)
        if partner is None:
            waiting[name] = connection, client
            return
    other, address = partner
    other.sendall(encode_record(client))
    connection.sendall(encode_record(address))


@contextlib.contextmanager
def original_server(serve: Serve) -> Iterator[str]:
    """Run a server in threads; give its host:port."""
    waiting: Waiting = {}
    lock = threading.Lock()
    connections: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def answer(connection: socket.socket, client: Endpoint) -> None:
        with contextlib.suppress(OSError):
            serve(connection, client, waiting, lock)

    def accept(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the listener is shut down at the end
            while True:
                connection, address = listener.accept()
                connections.append(connection)
                threads.append(threading.Thread(target=answer, args=(connection, Endpoint(*address))))
                threads[-1].start()

    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        accepting = threading.Thread(target=accept, args=(listener,))
        accepting.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join()
            for connection in connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join()
            for connection in connections:
                connection.close()
