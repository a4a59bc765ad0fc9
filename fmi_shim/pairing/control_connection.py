"""A rank's control connection to a rendezvous server of ours: opened, proved and welcomed; then messages."""

from __future__ import annotations

import secrets
import ssl
from collections.abc import Callable

from fmi_shim.errors import ConfigError, MismatchError, RendezvousError
from fmi_shim.pairing.deadline import Deadline
from fmi_shim.pairing.reconnect import ServerLostError, call_server
from fmi_shim.pairing.run_access import Access
from rendezvous.protocol import Endpoint, ProtocolError
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
from rendezvous.protocol.messages import Decoder, Message, Refusal, RefusalReason, Register, Welcome, encode
from rendezvous.protocol.registration import Registration

_ANSWER_SECONDS = 10.0
"""A server that accepted a connection and says nothing for so long is taken for lost."""
_READ_BYTES = 4096


class ForeignServerError(RendezvousError):
    """The server answers, but not in our extension: it may be one of the original kinds."""


class ControlLink:
    """An open control connection of a registered rank.

    Parameters
    ----------
    server
        Where to.
    access
        What to prove and to demand.
    registration
        Makes the rank's registration, given its local end of the connection.
    deadline
        By which the rank must be welcome.

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

    def __init__(
        self,
        server: Endpoint,
        access: Access,
        registration: Callable[[Endpoint], Registration],
        deadline: Deadline,
    ) -> None:
        self.server = server
        remaining = deadline.remaining()
        patience = Deadline(_ANSWER_SECONDS if remaining is None else min(remaining, _ANSWER_SECONDS))
        self._socket = call_server(server, patience)
        self._decoder = Decoder()
        self._early: list[Message] = []
        self.local = Endpoint(*self._socket.getsockname())
        self.address = Endpoint(*self._socket.getpeername())
        """The server's, resolved: where further connections go."""
        try:
            self._introduce(access, registration(self.local))
        except BaseException:
            self._socket.close()
            raise
        self._socket.setblocking(False)

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._socket.fileno()

    def send(self, message: Message) -> None:
        """Send a message.

        Raises
        ------
        ServerLostError
            If the connection is broken.
        """
        try:
            self._socket.settimeout(_ANSWER_SECONDS)  # messages are small: this blocks only when the server is stuck
            self._socket.sendall(encode(message))
            self._socket.setblocking(False)
        except OSError as error:
            raise ServerLostError(f"the rendezvous server {self.server} broke off: {error}") from error

    def receive(self) -> list[Message]:
        """Return the messages that have come.

        Raises
        ------
        ServerLostError
            If the connection is broken; messages that came before are lost with it.
        RendezvousError, MismatchError
            If the server sends this rank away.
        """
        messages, self._early = self._early, []
        try:
            # TLS may hold more than the socket shows: read until it says that there is nothing.
            while data := self._socket.recv(_READ_BYTES):
                messages += self._decode(data)
        except (BlockingIOError, ssl.SSLWantReadError):
            return messages
        except OSError as error:
            raise ServerLostError(f"the rendezvous server {self.server} broke off: {error}") from error
        raise ServerLostError(f"the rendezvous server {self.server} left before the peer came")

    def close(self) -> None:
        """Close the connection, which takes the rank off the server's register."""
        self._socket.close()

    def _introduce(self, access: Access, registration: Registration) -> None:
        """Say hello, switch to TLS if that is asked for, register, and wait for the welcome."""
        nonce = secrets.token_bytes(TICKET_BYTES)
        self._write(Preamble(Purpose.control, nonce).encode())
        challenge = self._challenge()
        self._check_demand(challenge.demand, access)
        if Demand.tls in challenge.demand:
            self._socket = self._encrypted(access.certificate)
        proof = Proof(access.secret, nonce, challenge.nonce)
        self._write(encode(Register(registration, proof.of_client(registration.encode()))))
        while True:
            for message in self._decode(self._read(_READ_BYTES)):
                self._early.append(message)
            if self._early:
                welcome = self._early.pop(0)
                if isinstance(welcome, Welcome) and same_proof(welcome.proof, proof.of_server()):
                    return
                raise RendezvousError(
                    f"the rendezvous server {self.server} does not know this run's secret: it may be someone else's"
                )

    def _challenge(self) -> Challenge:
        data = b""
        while True:
            data += self._read(CHALLENGE_BYTES - len(data))
            try:
                challenge = decode_challenge(data)
            except ProtocolError as error:
                raise ForeignServerError(f"{self.server} does not speak the extension: {error}") from error
            if challenge is not None:
                return challenge

    def _check_demand(self, demand: Demand, access: Access) -> None:
        if Demand.secret in demand and not access.secret:
            raise RendezvousError(
                f"the rendezvous server {self.server} asks for a secret: set FMI_RENDEZVOUS_SECRET on all ranks"
            )
        if access.secret and Demand.secret not in demand:
            raise RendezvousError(
                f"the rendezvous server {self.server} asks for no secret, but FMI_RENDEZVOUS_SECRET is set: "
                "it may be someone else's; start it with the secret, or unset the variable"
            )
        if access.certificate and Demand.tls not in demand:
            raise RendezvousError(
                f"the rendezvous server {self.server} speaks no TLS, but FMI_RENDEZVOUS_CERTIFICATE is set: "
                "start it with --tls-certificate, or unset the variable"
            )

    def _encrypted(self, certificate: str) -> ssl.SSLSocket:
        try:
            context = ssl.create_default_context(cafile=certificate or None)
        except OSError as error:
            raise ConfigError(
                f"FMI_RENDEZVOUS_CERTIFICATE is {certificate!r}, which cannot be used: {error}"
            ) from error
        try:
            return context.wrap_socket(self._socket, server_hostname=self.server.host)
        except ssl.SSLError as error:
            raise RendezvousError(f"the rendezvous server {self.server} is not to be trusted: {error}") from error
        except OSError as error:
            raise ServerLostError(f"the rendezvous server {self.server} broke off: {error}") from error

    def _decode(self, data: bytes) -> list[Message]:
        try:
            messages = self._decoder.feed(data)
        except ProtocolError as error:
            raise RendezvousError(f"the rendezvous server {self.server} sent no message: {error}") from error
        for message in messages:
            if isinstance(message, Refusal):
                if message.reason is RefusalReason.mismatch:
                    raise MismatchError(message.text)
                raise RendezvousError(f"{message.text} (said by {self.server})")
        return messages

    def _write(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise ServerLostError(f"the rendezvous server {self.server} broke off: {error}") from error

    def _read(self, most: int) -> bytes:
        try:
            data = self._socket.recv(most)
        except OSError as error:
            raise ServerLostError(f"the rendezvous server {self.server} broke off: {error}") from error
        if not data:
            raise ServerLostError(f"the rendezvous server {self.server} left before the peer came")
        return data
