"""A rank's control connection to a rendezvous server with our extension: connect, authenticate, exchange messages."""

from __future__ import annotations

import math
import os
import secrets
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from fmi_shim.backoff import Deadline, jitter, pauses
from fmi_shim.errors import ConfigError, MismatchError, RendezvousError
from fmi_shim.pairing import timing
from fmi_shim.pairing.sockets import Wait, reusable_socket
from rendezvous.protocol import Endpoint, ProtocolError
from rendezvous.protocol.endpoints import ADDRESS_BYTES
from rendezvous.protocol.extension import (
    CHALLENGE_BYTES,
    TICKET_BYTES,
    Challenge,
    Demand,
    Preamble,
    Proof,
    Purpose,
    decode_challenge,
    same_proof,
)
from rendezvous.protocol.messages import (
    MAX_JOB_BYTES,
    Decoder,
    Message,
    Refusal,
    RefusalReason,
    Registration,
    Welcome,
    encode,
    encode_registration,
)
from rendezvous.protocol.v2 import Response, Status

JOB_VARIABLE = "FMI_JOB"
SECRET_VARIABLE = "FMI_RENDEZVOUS_SECRET"  # noqa: S105 - its name, not the secret
CERTIFICATE_VARIABLE = "FMI_RENDEZVOUS_CERTIFICATE"
SECRET_FILE_VARIABLE = "FMI_RENDEZVOUS_SECRET_FILE"  # noqa: S105 - its name, not the secret
RUN_SECRET_VARIABLE = "FMI_SECRET"  # noqa: S105 - its name, not the secret
SERVER_NAME_VARIABLE = "FMI_RENDEZVOUS_SERVER_NAME"

_READ_BYTES = 4096
_LEAST_TIMEOUT = 0.001
_V2_REFUSAL = Response(Status.error).encode()
_V2_SEEN = 1 + 2 * ADDRESS_BYTES
"""So many bytes of a refusal of version 2 are in no answer of version 1."""


@dataclass(frozen=True, slots=True)
class Access:
    """The identity that a rank presents to the server, and what it requires of the server.

    Attributes
    ----------
    job
        Separates runs that use the same communicator name; the same on all ranks, may be empty. (FMI_JOB)
    secret
        The shared secret; empty for none. With a secret, a server that does not know it is refused.
        (FMI_RENDEZVOUS_SECRET)
    certificate
        PEM file of the authority, or of the server itself, with which the server's certificate is verified; empty for
        the system's authorities. With a certificate, a server without TLS is refused. (FMI_RENDEZVOUS_CERTIFICATE)
    run_secret
        The secret of the run's ranks, by which they authenticate Python objects. (FMI_SECRET, or else
        FMI_RENDEZVOUS_SECRET)
    server_name
        The name that the server's certificate must be for, where it is not the host that ranks connect to; empty for
        that host. (FMI_RENDEZVOUS_SERVER_NAME)
    """

    job: str = ""
    secret: bytes = field(default=b"", repr=False)
    certificate: str = ""
    run_secret: bytes = field(default=b"", repr=False)
    server_name: str = ""


def read_access(environment: Mapping[str, str] = os.environ) -> Access:
    """Read the five variables, and the secret's file if one of them names it.

    Raises
    ------
    ConfigError
        If the job's name is too long, or the secret's file cannot be read.
    """
    job = environment.get(JOB_VARIABLE, "")
    if len(job.encode()) > MAX_JOB_BYTES:
        raise ConfigError(f"environment: invalid {JOB_VARIABLE} {job!r}: expected at most {MAX_JOB_BYTES} bytes")
    secret = _read_secret(environment)
    run_secret = environment.get(RUN_SECRET_VARIABLE, "").encode() or secret
    name = environment.get(SERVER_NAME_VARIABLE, "")
    return Access(job, secret, environment.get(CERTIFICATE_VARIABLE, ""), run_secret, name)


def _read_secret(environment: Mapping[str, str]) -> bytes:
    """Return the secret of the variable, or of the file that another one names: programs print their environment."""
    name = environment.get(SECRET_FILE_VARIABLE, "")
    if not name or environment.get(SECRET_VARIABLE):
        return environment.get(SECRET_VARIABLE, "").encode()
    try:
        return Path(name).read_bytes().strip()
    except OSError as error:
        raise ConfigError(
            f"environment: cannot read {SECRET_FILE_VARIABLE} {name!r}: {error.strerror}: expected a file with the "
            "rendezvous server's secret"
        ) from None


class ServerLostError(RendezvousError):
    """The server cannot be reached, or the connection to it broke: a retry may succeed.

    Attributes
    ----------
    unanswered
        Whether the server accepted the connection and closed it without a byte.
    """

    unanswered = False


class ForeignServerError(RendezvousError):
    """The server answers, but does not speak our extension: it may be one of the original kinds.

    Attributes
    ----------
    tcpunch_version
        The version of TCPunch's protocol that it seems to speak.
    """

    tcpunch_version = 1


class ReconnectBackoff:
    """Decides whether a lost server is tried again, and pauses before the retry.

    Parameters
    ----------
    deadline
        No retry begins after it.
    known
        Whether the server has answered before.
    """

    def __init__(self, deadline: Deadline, known: bool = False) -> None:
        self._deadline = deadline
        self._known = known
        self._lost_since: float | None = None
        self._reset()

    def record_answer(self) -> None:
        """Record that the server answered."""
        self._known = True
        self._reset()

    def pause(self, lost: ServerLostError, wait: Wait) -> None:
        """Wait before the next attempt.

        Raises
        ------
        ServerLostError
            `lost`, if the server should not be tried again.
        """
        now = time.monotonic()
        self._lost_since = now if self._lost_since is None else self._lost_since
        longest = timing.KNOWN_SERVER if self._known else timing.UNKNOWN_SERVER
        if self._deadline.passed or now - self._lost_since > longest:
            raise lost
        remaining = self._deadline.remaining()
        seconds = jitter(next(self._pauses), 0.5, 1.0)
        wait((), seconds if remaining is None else min(seconds, remaining))

    def _reset(self) -> None:
        self._pauses = pauses(timing.LONGEST_RECONNECT_PAUSE, timing.FIRST_RECONNECT_PAUSE)
        self._lost_since = None


def connect_to_server(server: Endpoint, deadline: Deadline, port: int = 0, host: str = "") -> socket.socket:
    """Return a connection to the server from a local port that other sockets can share.

    Parameters
    ----------
    deadline
        By which it must be connected; the rest of it is the socket's timeout from then on.
    port, host
        The local address; by default a free port.

    Raises
    ------
    ServerLostError
        If the server cannot be reached.
    """
    connection = reusable_socket(port, host)
    try:
        # A timeout of 0 would make the socket non-blocking, and the connection attempt an error.
        connection.settimeout(None if deadline.end == math.inf else max(_LEAST_TIMEOUT, deadline.remaining() or 0.0))
        connection.connect((server.host, server.port))
    except TimeoutError as error:
        connection.close()
        raise ServerLostError(
            f"cannot connect to a rendezvous server at {server}: it did not answer within {deadline.elapsed}: check "
            "host and port, that the server runs, and that no firewall is between"
        ) from error
    except OSError as error:
        connection.close()
        raise ServerLostError(
            f"cannot connect to a rendezvous server at {server}: {_reason(error, server)}; "
            "start one with fmi-rendezvous, or set its address in fmi.json or as FMI_RENDEZVOUS=host:port"
        ) from error
    return connection


def _reason(error: OSError, server: Endpoint) -> str:
    """Return why the connection failed; a name without an IPv4 address is an error of its own."""
    if isinstance(error, socket.gaierror):
        return f"{server.host} has no IPv4 address ({error.strerror}), and TCPunch's protocol has no other ones"
    return error.strerror or str(error)


class ControlConnection:
    """An open control connection of a registered rank.

    Parameters
    ----------
    server
        The server's address.
    access
        What to prove, and what to require.
    registration
        The rank's registration, in which this connection's local address is filled in.
    deadline
        By which the rank must be registered.

    Attributes
    ----------
    descriptor
        File descriptor to poll.
    local
        The rank's end of the connection.
    address
        The server's resolved address, for further connections.

    Raises
    ------
    ServerLostError
        If there is no server, or the connection breaks.
    ForeignServerError
        If the server does not speak the extension.
    MismatchError
        If another rank of the job disagrees with this one.
    RendezvousError
        If the server refuses this rank, or this rank the server.
    """

    def __init__(self, server: Endpoint, access: Access, registration: Registration, deadline: Deadline) -> None:
        self.server = server
        self._deadline = deadline.within(timing.ANSWER)
        self._socket = connect_to_server(server, self._deadline)
        self._decoder = Decoder()
        self._early: list[Message] = []
        self._lost: ServerLostError | None = None
        self.local = Endpoint(*self._socket.getsockname())
        self.address = Endpoint(*self._socket.getpeername())
        try:
            self._register(access, replace(registration, local=self.local))
        except BaseException:
            self._socket.close()
            raise
        self._socket.setblocking(False)
        self.descriptor = self._socket.fileno()

    def send(self, message: Message) -> None:
        """Send a message.

        Raises
        ------
        ServerLostError
            If the connection is broken.
        """
        try:
            self._socket.settimeout(timing.ANSWER)  # messages are small: this blocks only if the server is stuck
            self._socket.sendall(encode(message))
            self._socket.setblocking(False)
        except OSError as error:
            raise self._broken(error) from error

    def receive(self) -> list[Message]:
        """Return the messages that have arrived; the first call also returns those that came with the welcome.

        Raises
        ------
        ServerLostError
            If the connection is broken, and all messages that arrived before have been returned.
        RendezvousError, MismatchError
            If the server refuses this rank.
        """
        messages, self._early = self._early, []
        if self._lost is not None:
            raise self._lost
        try:
            # TLS may hold more than the socket shows: read until nothing is left.
            while data := self._socket.recv(_READ_BYTES):
                messages += self._decode(data)
        except (BlockingIOError, ssl.SSLWantReadError):
            return messages
        except OSError as error:
            self._lost = self._broken(error)
        else:
            self._lost = self._closed()
        if not messages:
            raise self._lost
        return messages

    def close(self) -> None:
        """Close the connection, which ends the rank's registration."""
        self._socket.close()

    def _register(self, access: Access, registration: Registration) -> None:
        """Send the preamble, switch to TLS if the server requires it, register, and wait for the welcome."""
        nonce = secrets.token_bytes(TICKET_BYTES)
        self._write(Preamble(Purpose.control, nonce).encode())
        challenge = self._read_challenge()
        demand = challenge.demand
        if bool(access.secret) != (Demand.secret in demand) or (access.certificate and Demand.tls not in demand):
            raise self._demand_error(demand, access)
        if Demand.tls in demand:
            self._socket = self._encrypted(access)
        proof = Proof(access.secret, nonce, challenge.nonce)
        self._write(encode_registration(registration, proof))
        while not self._early:
            self._early += self._decode(self._read(_READ_BYTES))
        welcome = self._early.pop(0)
        if not isinstance(welcome, Welcome) or not same_proof(welcome.proof, proof.of_server()):
            raise RendezvousError(
                f"the rendezvous server {self.server} does not know this run's secret: "
                "check that the address is that of this run's server"
            )

    def _read_challenge(self) -> Challenge:
        data = b""
        while True:
            try:
                data += self._read(CHALLENGE_BYTES - len(data))
                challenge = decode_challenge(data)
            except ServerLostError as lost:
                lost.unanswered = not data and not isinstance(lost.__cause__, TimeoutError)
                raise
            except ProtocolError as error:
                foreign = ForeignServerError(f"{self.server} does not speak the extension: {error}")
                foreign.tcpunch_version = 2 if data[:_V2_SEEN] == _V2_REFUSAL[:_V2_SEEN] else 1
                raise foreign from error
            if challenge is not None:
                return challenge

    def _demand_error(self, demand: Demand, access: Access) -> RendezvousError:
        """Return the error for what the server requires and this rank lacks, or the other way round."""
        if Demand.secret in demand and not access.secret:
            return RendezvousError(
                f"the rendezvous server {self.server} requires a secret: set FMI_RENDEZVOUS_SECRET on all ranks"
            )
        if access.secret and Demand.secret not in demand:
            return RendezvousError(
                f"the rendezvous server {self.server} requires no secret, but FMI_RENDEZVOUS_SECRET is set: "
                "check that it is this run's server; start it with the secret, or unset the variable"
            )
        return RendezvousError(
            f"the rendezvous server {self.server} does not use TLS, but FMI_RENDEZVOUS_CERTIFICATE is set: "
            "start it with --tls-certificate, or unset the variable"
        )

    def _encrypted(self, access: Access) -> ssl.SSLSocket:
        try:
            context = ssl.create_default_context(cafile=access.certificate or None)
        except OSError as error:
            raise ConfigError(
                f"invalid FMI_RENDEZVOUS_CERTIFICATE {access.certificate!r}: expected a readable PEM file: {error}"
            ) from error
        try:
            return context.wrap_socket(self._socket, server_hostname=access.server_name or self.server.host)
        except ssl.SSLError as error:
            raise RendezvousError(f"TLS with the rendezvous server {self.server} failed: {error}") from error
        except OSError as error:
            raise self._broken(error) from error

    def _decode(self, data: bytes) -> list[Message]:
        try:
            messages = self._decoder.feed(data)
        except ProtocolError as error:
            raise RendezvousError(f"the rendezvous server {self.server} sent an invalid message: {error}") from error
        for message in messages:
            if isinstance(message, Refusal):
                if message.reason is RefusalReason.mismatch:
                    raise MismatchError(message.text)
                raise RendezvousError(f"the rendezvous server {self.server} refused this rank: {message.text}")
        return messages

    def _write(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise self._broken(error) from error

    def _read(self, most: int) -> bytes:
        try:
            data = self._socket.recv(most)
        except OSError as error:
            raise self._broken(error) from error
        if not data:
            raise self._closed()
        return data

    def _broken(self, error: OSError) -> ServerLostError:
        if isinstance(error, TimeoutError | BlockingIOError):
            return ServerLostError(
                f"the rendezvous server {self.server} accepted the connection, but did not answer within "
                f"{self._deadline.elapsed}: check that it is a rendezvous server, and that it is not stopped"
            )
        return ServerLostError(f"the connection to the rendezvous server {self.server} broke: {error}")

    def _closed(self) -> ServerLostError:
        return ServerLostError(f"the rendezvous server {self.server} closed the connection before the peer connected")
