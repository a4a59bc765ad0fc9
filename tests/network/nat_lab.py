"""An internet in miniature, of network namespaces: a public segment, two NATs, and hosts behind them.

    public 203.0.113.0/24   server .10, hosts open1 .21 and open2 .22, the NATs' outer ends .1 and .2
    lan A  10.1.0.0/24      hosts a2, a3 behind NAT a
    lan B  10.2.0.0/24      host b2 behind NAT b

Nothing of it is attached to the machine's own interfaces. It needs root, iproute2, iptables and conntrack.
"""

from __future__ import annotations

import enum
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Self

SERVER = "203.0.113.10"
_TOOLS = ("ip", "iptables", "conntrack")
_LANS = {"a": "10.1.0", "b": "10.2.0"}
_HOSTS = {"a": (2, 3), "b": (2,)}
_OUTER = {"a": "203.0.113.1", "b": "203.0.113.2"}
_OPEN = {"server": SERVER, "open1": "203.0.113.21", "open2": "203.0.113.22"}


class Mapping(enum.Enum):
    """How a NAT chooses the outer port of a connection."""

    preserving = "keeps the inner port"
    random = "draws one at random, another for each destination"


def unavailable() -> str | None:
    """Return why there can be no lab here; None if there can."""
    if sys.platform != "linux":
        return "network namespaces are a matter of Linux"
    if os.geteuid() != 0:
        return "building NATs out of network namespaces takes root"
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        return f"missing {', '.join(missing)}: apt-get install iproute2 iptables conntrack"
    probe = f"fmi{os.getpid()}probe"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True, check=False)
    subprocess.run(["ip", "netns", "del", probe], capture_output=True, check=False)
    return f"no network namespaces here: {made.stderr.strip()}" if made.returncode else None


class NatLab:
    """A context manager within which the lab exists."""

    def __init__(self) -> None:
        self._prefix = f"fmi{os.getpid()}-"
        self._names: list[str] = []

    def __enter__(self) -> Self:
        try:
            self._build()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._remove()

    def command(self, name: str, arguments: Sequence[str]) -> list[str]:
        """Return the command that runs `arguments` in a namespace."""
        return ["ip", "netns", "exec", self._prefix + name, *arguments]

    def translate(self, mapping: Mapping) -> None:
        """Have both NATs map ports so, and drop what comes from outside unasked."""
        flags = ["--random-fully"] if mapping is Mapping.random else []
        for nat in _LANS:
            for arguments in (
                ["iptables", "-w", "-t", "nat", "-F"],
                ["iptables", "-w", "-F"],
                ["conntrack", "-F"],
                ["iptables", "-w", "-t", "nat", "-A", "POSTROUTING", "-o", "wan", "-j", "MASQUERADE", *flags],
                ["iptables", "-w", "-A", "INPUT", "-i", "wan", "-m", "conntrack", "--ctstate", "NEW", "-j", "DROP"],
            ):
                _run(self.command(f"nat-{nat}", arguments))

    def _build(self) -> None:
        self._namespace("public")
        self._bridge("public")
        for name, address in _OPEN.items():
            self._namespace(name)
            self._attach(name, "eth0", f"{address}/24", "public")
        for nat, lan in _LANS.items():
            router = f"nat-{nat}"
            self._namespace(router)
            self._attach(router, "wan", f"{_OUTER[nat]}/24", "public")
            _run(self.command(router, ["sysctl", "-qw", "net.ipv4.ip_forward=1"]))
            self._bridge(router)
            self._ip(router, "addr", "add", f"{lan}.1/24", "dev", "bridge")
            for number in _HOSTS[nat]:
                host = f"{nat}{number}"
                self._namespace(host)
                self._attach(host, "eth0", f"{lan}.{number}/24", router)
                self._ip(host, "route", "add", "default", "via", f"{lan}.1")

    def _namespace(self, name: str) -> None:
        _run(["ip", "netns", "add", self._prefix + name])
        self._names.append(name)
        self._ip(name, "link", "set", "lo", "up")

    def _bridge(self, name: str) -> None:
        self._ip(name, "link", "add", "bridge", "type", "bridge")
        self._ip(name, "link", "set", "bridge", "up")

    def _attach(self, name: str, interface: str, address: str, segment: str) -> None:
        port = f"to-{name}"
        ends = ((interface, name), (port, segment))
        (inner, home), (outer, there) = ((end, self._prefix + owner) for end, owner in ends)
        _run(["ip", "link", "add", inner, "netns", home, "type", "veth", "peer", "name", outer, "netns", there])
        self._ip(segment, "link", "set", port, "master", "bridge", "up")
        self._ip(name, "addr", "add", address, "dev", interface)
        self._ip(name, "link", "set", interface, "up")

    def _ip(self, name: str, *arguments: str) -> None:
        _run(["ip", "-n", self._prefix + name, *arguments])

    def _remove(self) -> None:
        # The kernel takes a namespace's links away with it.
        for name in reversed(self._names):
            subprocess.run(["ip", "netns", "del", self._prefix + name], check=False)


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
