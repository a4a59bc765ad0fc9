"""The /etc/hosts of sandboxes: that of this machine, after the names that the endpoint knows. See hosts(5)."""

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path

HOSTS = Path("/etc/hosts")


class HostsFile:
    """A file that all sandboxes see as /etc/hosts; it is changed in its place, so that running ones see new names.

    Parameters
    ----------
    path
        Where it is.

    Attributes
    ----------
    names
        Returns the address of each name; none before somebody sets it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.names: Callable[[], Mapping[str, str]] = dict
        self._own = b""
        with contextlib.suppress(OSError):
            self._own = HOSTS.read_bytes()
        self._written: dict[str, str] = {}
        path.write_bytes(self._own)

    def refresh(self) -> None:
        """Write the names if they have changed."""
        names = dict(self.names())
        if names == self._written:
            return
        self._written = names
        lines = "".join(f"{address} {name}\n" for name, address in sorted(names.items())).encode()
        # Not by a new file: a sandbox would keep seeing the old one.
        with self.path.open("r+b", buffering=0) as opened:
            opened.write(lines + self._own)
            opened.truncate()
