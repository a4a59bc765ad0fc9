"""A JSON object whose values are read by type. Errors name the key, its value and what is expected."""

from __future__ import annotations

import contextlib
import re

from fmi_shim.errors import ConfigError

_LABEL = "[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = re.compile(rf"(?=.{{1,253}}$){_LABEL}(?:\.{_LABEL})*\.?")
"""RFC 1123, 2.1, and the underscores of container networks."""

HOST = "the name or the IPv4 address of a host (IPv6 is not supported: the rendezvous protocols carry IPv4 addresses)"
"""What is expected where a host is named, for errors."""


def is_host(text: str) -> bool:
    """Return whether `text` is the name or the IPv4 address of a host."""
    return _HOST.fullmatch(text) is not None


class Section:
    """An object in a configuration.

    Parameters
    ----------
    value
        The decoded JSON.
    name
        The path of keys with dots that leads to it; empty for the whole configuration.
    source
        What errors call the configuration, for example the file.

    Raises
    ------
    ConfigError
        If `value` is no JSON object; all methods, if the value under a key is of a wrong type or out of range.
    """

    def __init__(self, value: object, name: str, source: str) -> None:
        if not isinstance(value, dict):
            raise ConfigError(f"{source}: {name or 'the configuration'} must be a JSON object, got {shown(value)}")
        self._values: dict[str, object] = value
        self._name = name
        self._source = source

    def section(self, key: str) -> Section:
        """Return the object under `key`, an empty one if there is none."""
        return Section(self._values.get(key, {}), self._full(key), self._source)

    def text(self, key: str, default: str) -> str:
        """Return a string, which may not be empty."""
        value = self._values.get(key, default)
        if not isinstance(value, str) or not value:
            raise self._wrong(key, value, "a non-empty string")
        return value

    def host(self, key: str, default: str) -> str:
        """Return the name or the address of a host."""
        value = self.text(key, default)
        if not is_host(value):
            raise self._wrong(key, value, HOST)
        return value

    def one_of(self, key: str, allowed: list[str], default: str) -> str:
        """Return one of the `allowed` strings."""
        value = self._values.get(key, default)
        if value not in allowed:
            raise self._wrong(key, value, " or ".join(map(repr, allowed)))
        return str(value)

    def integer(self, key: str, default: int, lowest: int, highest: int) -> int:
        """Return a whole number, or one written as a string."""
        value = self._values.get(key, default)
        if isinstance(value, str) and is_integer(value.strip()):
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
            raise self._wrong(key, value, f"a whole number from {lowest} to {highest}, or the same as a string")
        return value

    def number(self, key: str, default: float, above_zero: bool = False) -> float:
        """Return a finite number of at least 0, or one written as a string."""
        value = self._values.get(key, default)
        number: float | None = None
        if isinstance(value, str | int | float) and not isinstance(value, bool) and len(str(value)) <= 40:
            with contextlib.suppress(ValueError):  # no number: raised below
                number = float(value)
        if number is None or not 0 <= number < 1e15 or (above_zero and number == 0):
            raise self._wrong(key, value, f"a number {'above' if above_zero else 'from'} 0, or the same as a string")
        return number

    def boolean(self, key: str, default: bool) -> bool:
        """Return a boolean, or one written as a string."""
        value = self._values.get(key, default)
        if isinstance(value, str):
            value = {"true": True, "1": True, "false": False, "0": False}.get(value.strip().lower(), value)
        if not isinstance(value, bool):
            raise self._wrong(key, value, 'true, false, "true" or "false"')
        return value

    def _full(self, key: str) -> str:
        return f"{self._name}.{key}" if self._name else key

    def _wrong(self, key: str, value: object, allowed: str) -> ConfigError:
        return ConfigError(f"{self._source}: invalid {self._full(key)} {shown(value)}: expected {allowed}")


def shown(value: object) -> str:
    """Return the text by which an error shows a value."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def is_integer(text: str) -> bool:
    """Whether `text` is a short unsigned whole number in digits."""
    return text.isascii() and text.isdigit() and len(text) <= 10
