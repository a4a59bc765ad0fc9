"""The command line of ``fmi-rendezvous`` and its environment: every flag has a variable; flags take precedence."""

from __future__ import annotations

import argparse
import os
import ssl
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from rendezvous.limits import Limits
from rendezvous.protocol import DEFAULT_PORT
from rendezvous.protocol.extension import MIN_SECRET_BYTES

SECRET_VARIABLE = "FMI_RENDEZVOUS_SECRET"  # noqa: S105 - its name, not the secret
# A certificate with its key, where only the environment can pass a secret, as in a container on AWS.
TLS_VARIABLE = "FMI_RENDEZVOUS_TLS_PEM"
_PREFIX = "FMI_RENDEZVOUS_"
_LOOPBACK = "127.0.0.1"


class OptionError(ValueError):
    """A flag or variable has an invalid value."""


@dataclass(frozen=True, slots=True)
class Options:
    """The options of the server, described in `parser`."""

    host: str
    port: int
    health_host: str
    health_port: int
    limits: Limits
    secret: bytes
    tls: ssl.SSLContext | None
    drain_seconds: float
    log_level: str

    def __repr__(self) -> str:
        return f"Options({self.host}:{self.port})"  # never the secret


def parse(arguments: Sequence[str] | None = None, environment: Mapping[str, str] = os.environ) -> Options:
    """Read flags and environment.

    Raises
    ------
    OptionError
        If a secret or a certificate cannot be used. (Wrong flags end the program with status 2.)
    """
    found = parser(environment).parse_args(arguments)
    return Options(
        found.host,
        found.port,
        found.health_host,
        (found.port + 1) % 65536 if found.port and found.health_port is None else found.health_port or 0,
        Limits(
            connections_per_address=found.max_connections_per_address,
            waiters=found.max_waiters,
            silence_seconds=found.max_silence,
            waiting_seconds=found.max_wait,
            relays=found.max_relays,
            relay_bytes_per_second=found.relay_bandwidth,
            relay_seconds=found.relay_lifetime,
        ),
        _secret(found.secret_file, environment),
        _tls(found.tls_certificate, found.tls_key, environment),
        found.drain,
        found.log_level,
    )


def parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    """Return the parser of the command line, with the environment's values as defaults."""
    built = argparse.ArgumentParser(
        prog="fmi-rendezvous",
        description="Pair FMI ranks, so that they can open direct TCP connections: TCPunch protocol, versions 1 "
        "and 2, and the extension for ranks of fmi_shim, all on one port.",
        epilog="Every flag may be given in the environment instead: --max-wait as FMI_RENDEZVOUS_MAX_WAIT. The "
        f"secret is read from {SECRET_VARIABLE}, or from --secret-file; a certificate with its key may be in "
        f"{TLS_VARIABLE}. Ranks find the server by "
        "backends.Direct.host and .port of fmi.json, or by FMI_RENDEZVOUS=HOST:PORT in their environment. "
        "SIGTERM drains: no connection is accepted, connections under way may finish. SIGINT, or a second "
        "SIGTERM, stops at once. Connections between ranks are not affected.",
    )

    built.add_argument("--version", action="version", version=f"%(prog)s {_version()}")

    def add(flag: str, kind: Callable[[str], object], default: object, text: str) -> None:
        variable = _PREFIX + flag[2:].upper().replace("-", "_")
        if default is not None:
            text += " (default: %(default)s)"
        # argparse converts and checks a default that is a string, as it would the flag's own value.
        built.add_argument(flag, type=kind, default=environment.get(variable) or default, help=text, metavar="X")

    given = Limits()
    add("--host", _host, _LOOPBACK, "IPv4 address to bind to; 127.0.0.1: this machine only")
    add("--port", _port, DEFAULT_PORT, "TCP port, 0 for a free one")
    add("--health-host", str, _LOOPBACK, "address for /health and /metrics")
    add("--health-port", _port, None, "their port (default: one above --port, or a free one if that is 0)")
    add("--secret-file", Path, None, f"file with the secret that ranks must know, {MIN_SECRET_BYTES} bytes or more")
    add("--tls-certificate", Path, None, "PEM file: speak TLS with ranks of fmi_shim")
    add("--tls-key", Path, None, "PEM file with its key (default: in the certificate's file)")
    add(
        "--max-connections-per-address",
        _count,
        given.connections_per_address,
        "connections open at a time",
    )
    add("--max-waiters", _count, given.waiters, "waiting clients and registered ranks, in total")
    add(
        "--max-silence",
        _seconds,
        given.silence_seconds,
        "s until a client must have sent its request",
    )
    add("--max-wait", _seconds, given.waiting_seconds, "s that a client may wait for its partner")
    add("--max-relays", _count, given.relays, "pairs relayed at a time, 0 disables the relay")
    add(
        "--relay-bandwidth",
        _count,
        given.relay_bytes_per_second,
        "byte/s of a relayed pair, 0: unlimited",
    )
    add("--relay-lifetime", _seconds, given.relay_seconds, "s until a relayed pair is closed")
    add("--drain", _seconds, 10.0, "s for open connections after SIGTERM")
    add("--log-level", _level, "warning", "debug, info, warning or error, JSON on standard error")
    return built


def _version() -> str:
    """Return the version of the installed package, which a copy of this folder alone does not have."""
    try:
        return metadata.version("fmi-emulator")
    except metadata.PackageNotFoundError:
        return "of unknown version: the package fmi-emulator is not installed"


def _host(text: str) -> str:
    if ":" in text or text.startswith("["):
        raise argparse.ArgumentTypeError(
            f"expected an IPv4 address or a name, got {text!r}: IPv6 is not supported, since the rendezvous protocols "
            "carry IPv4 addresses"
        )
    return text


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"expected a port, 0 to 65535, got {text!r}")
    return int(text)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"expected a whole number from 0, got {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e9:
        raise argparse.ArgumentTypeError(f"expected seconds above 0, got {text!r}")
    return seconds


def _level(text: str) -> str:
    if text not in ("debug", "info", "warning", "error"):
        raise argparse.ArgumentTypeError(f"expected debug, info, warning or error, got {text!r}")
    return text


def _secret(file: Path | None, environment: Mapping[str, str]) -> bytes:
    if file is None:
        secret, source = environment.get(SECRET_VARIABLE, "").encode(), SECRET_VARIABLE
    else:
        try:
            secret, source = file.read_bytes().strip(), str(file)
        except OSError as error:
            raise OptionError(f"--secret-file {file} cannot be read: {error.strerror}") from error
        if not secret:
            raise OptionError(f"--secret-file {file} is empty: expected at least {MIN_SECRET_BYTES} random bytes")
    if secret and len(secret) < MIN_SECRET_BYTES:
        raise OptionError(f"invalid secret in {source}: expected at least {MIN_SECRET_BYTES} bytes, got {len(secret)}")
    return secret


def _tls(certificate: Path | None, key: Path | None, environment: Mapping[str, str]) -> ssl.SSLContext | None:
    if certificate is None and key is None and (text := environment.get(TLS_VARIABLE, "")):
        # The ssl module reads certificates from files alone.
        with tempfile.NamedTemporaryFile("w", prefix="fmi-rendezvous-", suffix=".pem") as file:
            file.write(text)
            file.flush()
            return _context(Path(file.name), None, TLS_VARIABLE)
    if certificate is None:
        if key is not None:
            raise OptionError("--tls-key without --tls-certificate: give both, or the certificate alone")
        return None
    return _context(certificate, key, f"--tls-certificate {certificate}")


def _context(certificate: Path, key: Path | None, source: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:  # ssl.SSLError is one
        raise OptionError(f"invalid {source} or its key: expected PEM: {error}") from error
    return context
