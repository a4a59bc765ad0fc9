"""``fmi.json``: the part of the published configuration that the channels here read.

Numbers may be JSON numbers or strings, booleans may be ``true`` or ``"true"``; keys that are not known are
ignored, as FMI does. The environment overrides the file: ``FMI_RENDEZVOUS=host:port`` the server's address,
so that a script with a hard-wired host runs locally, and ``FMI_FRAMED=1|0`` the framed mode.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fmi_shim.errors import ConfigError
from rendezvous.protocol import DEFAULT_PORT

RENDEZVOUS_VARIABLE = "FMI_RENDEZVOUS"
FRAMED_VARIABLE = "FMI_FRAMED"

_DEFAULT_MAX_TIMEOUT_MS = 1000  # config/fmi.json of FMI


@dataclass(frozen=True, slots=True)
class DirectConfig:
    """Settings of the Direct channel.

    Attributes
    ----------
    host, port
        The rendezvous server; a name is resolved whatever ``model.Direct.resolve_host_dns`` says, since the
        original takes a name without it for the address 255.255.255.255.
    max_timeout
        Longest wait for a peer in seconds, None to wait for ever. (Milliseconds in the file, 0 for ever.)
    framed
        Whether messages between ranks carry a header. All ranks must agree.
    """

    host: str
    port: int
    max_timeout: float | None
    framed: bool


def load_direct(path: str | os.PathLike[str], environment: Mapping[str, str] = os.environ) -> DirectConfig:
    """Read the Direct channel's settings from the file at `path` and from `environment`.

    Raises
    ------
    ConfigError
        If the file cannot be read, is no JSON object, has a value of a wrong type (the message names key,
        value and what is allowed), or does not enable the Direct channel.
    """
    root = _Section(_read(Path(path)), "", str(path))
    direct = root.section("backends").section("Direct")
    if not direct.boolean("enabled", default=False):
        raise ConfigError(
            f"{path}: backends.Direct.enabled is not true, and Direct is the channel this version has: "
            'write {"backends": {"Direct": {"enabled": true, "host": "127.0.0.1", "port": 10000}}}'
        )
    root.section("model").section("Direct").boolean("resolve_host_dns", default=True)
    host = direct.text("host", default="127.0.0.1")
    port = direct.integer("port", default=DEFAULT_PORT, lowest=1, highest=65535)
    milliseconds = direct.integer("max_timeout", default=_DEFAULT_MAX_TIMEOUT_MS, lowest=0, highest=2**31 - 1)
    framed = direct.boolean("framed", default=False)

    override = _Section(dict(environment), "", "environment")
    if environment.get(RENDEZVOUS_VARIABLE):
        host, port = _host_and_port(environment[RENDEZVOUS_VARIABLE])
    if environment.get(FRAMED_VARIABLE):
        framed = override.boolean(FRAMED_VARIABLE, default=framed)
    return DirectConfig(host, port, milliseconds / 1000 if milliseconds else None, framed)


def _read(path: Path) -> object:
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path}: the configuration cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: the configuration is no JSON: {error}") from error


def _host_and_port(text: str) -> tuple[str, int]:
    host, separator, port = text.rpartition(":")
    if not separator or not host or not _is_integer(port) or not 1 <= int(port) <= 65535:
        raise ConfigError(f"environment: {RENDEZVOUS_VARIABLE} is {text!r}, allowed is host:port, e.g. 127.0.0.1:10000")
    return host, int(port)


def _is_integer(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10


class _Section:
    """A JSON object whose values are read by type, with their full names in the errors."""

    def __init__(self, value: object, name: str, source: str) -> None:
        if not isinstance(value, dict):
            raise ConfigError(f"{source}: {name or 'the configuration'} is {value!r}, allowed is a JSON object")
        self._values: dict[str, object] = value
        self._name = name
        self._source = source

    def section(self, key: str) -> _Section:
        return _Section(self._values.get(key, {}), self._full(key), self._source)

    def text(self, key: str, default: str) -> str:
        value = self._values.get(key, default)
        if not isinstance(value, str) or not value:
            raise self._wrong(key, value, "a non-empty string")
        return value

    def integer(self, key: str, default: int, lowest: int, highest: int) -> int:
        value = self._values.get(key, default)
        if isinstance(value, str) and _is_integer(value.strip()):
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
            raise self._wrong(key, value, f"a whole number from {lowest} to {highest}, or the same as a string")
        return value

    def boolean(self, key: str, default: bool) -> bool:
        value = self._values.get(key, default)
        if isinstance(value, str):
            value = {"true": True, "1": True, "false": False, "0": False}.get(value.strip().lower(), value)
        if not isinstance(value, bool):
            raise self._wrong(key, value, 'true, false, "true" or "false"')
        return value

    def _full(self, key: str) -> str:
        return f"{self._name}.{key}" if self._name else key

    def _wrong(self, key: str, value: object, allowed: str) -> ConfigError:
        shown = repr(value)
        shown = shown if len(shown) <= 80 else shown[:77] + "..."
        return ConfigError(f"{self._source}: {self._full(key)} is {shown}, allowed is {allowed}")
