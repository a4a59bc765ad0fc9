"""Any bytes from what should be a rendezvous server raise one of our errors, soon."""

import contextlib
import select
import socket
import threading
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fmi_shim.backoff import Deadline
from fmi_shim.errors import FmiError
from fmi_shim.pairing import tcpunch
from fmi_shim.pairing.control_connection import Access, ControlConnection
from fmi_shim.pairing.sockets import Poller
from rendezvous.protocol import Endpoint, ProtocolError, Replies
from rendezvous.protocol.extension import NO_PROOF, Challenge, Demand
from rendezvous.protocol.messages import (
    Abort,
    Deadlock,
    Introduction,
    Message,
    PeerEnded,
    ProbeRequest,
    Refusal,
    RefusalReason,
    Registration,
    Welcome,
    encode,
)
from rendezvous.protocol.v1 import encode_record

NOBODY = Endpoint("127.0.0.1", 9)
WELCOME = Challenge(Demand.nothing, bytes(32)).encode() + encode(Welcome(NOBODY, NO_PROOF))
MESSAGES: list[Message] = [
    Abort(1, 0, 2, "text"),
    Deadlock("text"),
    PeerEnded(1, True),
    ProbeRequest(1, bytes(32)),
    Introduction(1, (NOBODY,), bytes(32)),
    Refusal(RefusalReason.busy, "text"),
]
RECORDS = encode_record(NOBODY) * 2

quickly = settings(max_examples=60)


@st.composite
def damaged(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> bytes:
    """A valid answer with bytes replaced in up to three places, cut short or lengthened."""
    data = bytearray(draw(whole))
    for at, noise in draw(
        st.lists(st.tuples(st.integers(0, len(data)), st.binary(min_size=1, max_size=4)), max_size=3)
    ):
        data[at : at + len(noise)] = noise
    return bytes(data[: draw(st.integers(0, len(data)) | st.just(len(data)))]) + draw(st.binary(max_size=20))


scriptes = st.lists(st.sampled_from([encode(message) for message in MESSAGES]), max_size=3).map(b"".join)
transcripts = damaged(scriptes.map(lambda said: WELCOME + said)) | scriptes.map(lambda said: WELCOME + said)


@dataclass
class ScriptedServer:
    """A server that sends the same bytes on every connection, and then closes its side."""

    listener: socket.socket
    script: bytes = b""

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint("127.0.0.1", self.listener.getsockname()[1])

    def serve(self) -> None:
        with contextlib.suppress(OSError):  # the listener is shut down at the end
            while True:
                connection, _ = self.listener.accept()
                with connection, contextlib.suppress(OSError):  # the rank may be gone already
                    connection.settimeout(20)
                    connection.sendall(self.script)
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(4096):
                        pass


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedServer]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        scripted = ScriptedServer(listener)
        thread = threading.Thread(target=scripted.serve)
        thread.start()
        yield scripted
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def receive_from(server: Endpoint) -> list[Message]:
    """Register, and return all messages until the server closes, which raises an error."""
    came: list[Message] = []
    link = ControlConnection(server, Access(), Registration("", "comm", 0, 2, bytes(16), NOBODY), Deadline(20))
    with contextlib.closing(link), pytest.raises(FmiError):
        while select.select([link.descriptor], [], [], 20)[0]:
            came += link.receive()
    return came


@contextlib.contextmanager
def little_memory() -> Iterator[None]:
    """Fail where more is taken than answers of a few hundred bytes and a TLS context need."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@quickly
@given(transcripts | st.binary(max_size=200))
def test_any_answer_to_a_registration_is_messages_and_an_error_at_its_end(
    server: ScriptedServer, script: bytes
) -> None:
    server.script = script
    with little_memory(), contextlib.suppress(FmiError):
        assert isinstance(receive_from(server.endpoint), list)


@pytest.mark.parametrize("end", range(0, len(WELCOME), 7))
def test_a_server_that_closes_during_the_registration_raises_an_error(server: ScriptedServer, end: int) -> None:
    server.script = WELCOME[:end]
    with pytest.raises(FmiError, match="closed the connection before the peer connected"):
        receive_from(server.endpoint)


@quickly
@given(damaged(st.just(RECORDS)) | st.binary(max_size=40))
def test_any_answer_to_a_pairing_name_is_an_error(server: ScriptedServer, script: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        replies = Replies()
        replies.feed(script)
        assume(replies.peer is None or replies.peer.host.startswith("127."))  # the test must not call on strangers
    server.script = script
    request = tcpunch.ConnectRequest(server.endpoint, b"comm1_0", 1, lambda: "rank 0", None, Deadline(0.05))
    with little_memory(), pytest.raises(FmiError):
        tcpunch.connect(request, Poller(lambda _: None).wait, tcpunch.Dialect()).close()
