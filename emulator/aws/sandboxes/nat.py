"""NATs for sandboxes: each sandbox has a private address, and reaches the others through a NAT of its own.

A sandbox's network namespace has two addresses: a public one, on the segment that it shares with this machine and the
other sandboxes, and a private one, which its programs use. netfilter translates the one to the other (MASQUERADE, see
iptables-extensions(8)) and drops what was not asked for, so that two sandboxes connect as two hosts behind two home
routers do. Functions on AWS also have one private address, the same in all of them.

Process sandboxes get a segment of their own, see `PublicSegment`; containers have one already, the network of their
daemon. It takes root, iproute2, iptables and util-linux.
"""

import contextlib
import ctypes
import enum
import heapq
import ipaddress
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from emulator.errors import SandboxError

_CLONE_NEWNET = 0x40000000
_TOOLS = {"ip": "iproute2", "iptables-restore": "iptables", "nsenter": "util-linux", "unshare": "util-linux"}
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_TIMEOUT_S = 30
# As in the execution environments of AWS, each of which has this one.
_PRIVATE = "169.254.76.1"
# For tests of networks, never routed: https://www.rfc-editor.org/rfc/rfc2544#appendix-C.2.2
_PUBLIC = ipaddress.ip_network("198.18.0.0/15")
_SEGMENT_PREFIX = 20
_INTERFACE = "eth0"


class NatUnavailableError(SandboxError):
    """Sandboxes cannot be put behind NATs here; the message says why."""


class Nat(enum.Enum):
    """How a NAT chooses the public port of a connection. Both drop what comes from outside without being asked."""

    CONE = "cone"
    """The private port, for all destinations: holes can be punched."""
    SYMMETRIC = "symmetric"
    """A random port, another one for each destination: only the relay connects two of these."""


@dataclass(frozen=True)
class Segment:
    """A network of sandboxes: this machine's address in it, and its range, such as ``198.18.0.0/20``."""

    gateway: str
    subnet: str


@dataclass(frozen=True)
class Attachment:
    """The place of a process sandbox in a segment, as a message to the zygote contains it.

    Parameters
    ----------
    switch
        A process in the network namespace that connects all sandboxes.
    address
        The sandbox's public address.
    gateway, subnet
        The segment.
    nat
        The kind of its NAT.
    """

    switch: int
    address: str
    gateway: str
    subnet: str
    nat: Nat

    def message(self) -> dict[str, str | int]:
        """Return the fields for a message."""
        return {**vars(self), "nat": self.nat.value}

    @classmethod
    def of_message(cls, fields: Mapping[str, Any]) -> "Attachment":
        """Return what `message` has made fields of."""
        return cls(**{**fields, "nat": Nat(fields["nat"])})


def check_nat_available() -> None:
    """Check that this user may make network namespaces and translate addresses in them.

    Raises
    ------
    NatUnavailableError
        When this is not so.
    """
    if sys.platform != "linux":
        raise NatUnavailableError("--nat needs network namespaces, which only Linux has: leave it out")
    if os.geteuid() != 0:
        raise NatUnavailableError("--nat needs root, to make network namespaces: run as root, or leave it out")
    missing = sorted({package for tool, package in _TOOLS.items() if shutil.which(tool, path=_PATH) is None})
    if missing:
        raise NatUnavailableError(f"--nat needs {', '.join(missing)}: install them (apt-get install), or leave it out")
    # What a kernel without the modules refuses, or a container without the right to.
    rules = _rules(Segment("198.18.0.1", "198.18.0.0/20"), Nat.SYMMETRIC)
    with _errors():
        _run(("unshare", "--net", "iptables-restore", "--test"), rules)


def translate(namespace: str, segment: Segment, nat: Nat) -> None:
    """Put a network namespace, which has a public address on its interface eth0, behind a NAT.

    Connections that exist already keep their addresses.

    Parameters
    ----------
    namespace
        Its path, ``/proc/PID/ns/net``.
    segment
        The network of its public address.

    Raises
    ------
    NatUnavailableError
        When the kernel refuses it.
    """
    routes = (
        f"addr add {_PRIVATE}/32 dev lo",
        f"route replace {segment.subnet} dev {_INTERFACE} src {_PRIVATE}",
        f"route replace default via {segment.gateway} dev {_INTERFACE} src {_PRIVATE}",
    )
    inside = ("nsenter", f"--net={namespace}")
    with _errors():
        _run((*inside, "iptables-restore"), _rules(segment, nat))
        _run((*inside, "ip", "-batch", "-"), "\n".join(routes))


def _rules(segment: Segment, nat: Nat) -> str:
    """Return the input of iptables-restore(8). This machine's servers are no peers: what they send is let in."""
    random = " --random-fully" if nat is Nat.SYMMETRIC else ""
    return f"""\
*nat
-A POSTROUTING -o {_INTERFACE} -s {_PRIVATE} -j MASQUERADE{random}
COMMIT
*filter
-A INPUT -i {_INTERFACE} ! -s {segment.gateway} -m conntrack --ctstate NEW -j DROP
COMMIT
"""


def enter(attachment: Attachment) -> None:
    """Give the calling process and its future children a network of their own, behind a NAT.

    The process must have one thread.

    Raises
    ------
    NatUnavailableError
        When the kernel refuses it.
    """
    segment = Segment(attachment.gateway, attachment.subnet)
    prefix = ipaddress.ip_network(segment.subnet).prefixlen
    port = f"port{int(ipaddress.ip_address(attachment.address))}"
    own = (
        "link set lo up",
        f"link add {_INTERFACE} type veth peer name {port} netns {attachment.switch}",
        f"addr add {attachment.address}/{prefix} dev {_INTERFACE}",
        f"link set {_INTERFACE} up",
        f"route add default via {attachment.gateway}",
    )
    with _errors():
        if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "unshare the network")
        _run(("ip", "-batch", "-"), "\n".join(own))
        _run_in_switch(attachment.switch, (f"link set {port} master bridge up",))
    translate(f"/proc/{os.getpid()}/ns/net", segment, attachment.nat)


class PublicSegment:
    """The network between process sandboxes: a switch in a namespace of its own, with one port for this machine.

    Nothing of it is in this machine's namespace but that port. All of it ends with this process, even by SIGKILL: the
    switch's process reads from a pipe until this process has ended, and namespaces end with their last process.
    """

    def __init__(self) -> None:
        check_nat_available()
        self._lock, subnet = _reserve_subnet()
        hosts = subnet.hosts()
        self.segment = Segment(str(next(hosts)), str(subnet))
        self._port = f"fmi{int(subnet.network_address)}"
        self._free = [int(host) for host in hosts]
        try:
            # A shell says when the namespace exists.
            self._switch = subprocess.Popen(
                ("unshare", "--net", "sh", "-c", "echo && exec cat"),  # noqa: S607 - found in _PATH
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
                env={"PATH": _PATH},
            )
        except OSError as error:
            self._lock.close()
            raise NatUnavailableError(f"--nat: cannot start unshare: {error.strerror}") from None
        try:
            self._connect(subnet)
        except BaseException:
            self.close()
            raise

    def attach(self, nat: Nat) -> Attachment:
        """Return a free place for a sandbox."""
        if not self._free:
            raise NatUnavailableError(f"no free address in {self.segment.subnet}: expected fewer sandboxes at once")
        address = str(ipaddress.IPv4Address(heapq.heappop(self._free)))
        return Attachment(self._switch.pid, address, self.segment.gateway, self.segment.subnet, nat)

    def detach(self, attachment: Attachment) -> None:
        """Take back the place of a sandbox that has ended."""
        heapq.heappush(self._free, int(ipaddress.IPv4Address(attachment.address)))

    def close(self) -> None:
        """Remove the network, and the port of this machine."""
        # The kernel removes a namespace's links some time after its last process has ended.
        with contextlib.suppress(NatUnavailableError), _errors():
            _run(("ip", "-batch", "-"), f"link del {self._port}")
        for stream in (self._switch.stdin, self._switch.stdout):
            if stream is not None:
                stream.close()
        self._switch.wait()
        self._lock.close()

    def _connect(self, subnet: ipaddress.IPv4Network) -> None:
        assert self._switch.stdout is not None  # noqa: S101 - a pipe
        if not self._switch.stdout.readline():
            raise NatUnavailableError("--nat: unshare has ended: check that this user may make network namespaces")
        own = (
            f"link add {self._port} type veth peer name machine netns {self._switch.pid}",
            f"addr add {self.segment.gateway}/{subnet.prefixlen} dev {self._port}",
            f"link set {self._port} up",
        )
        switch = ("link add bridge type bridge", "link set bridge up", "link set machine master bridge up")
        with _errors():
            _run(("ip", "-batch", "-"), "\n".join(own))
            _run_in_switch(self._switch.pid, switch)


def _reserve_subnet() -> tuple[socket.socket, ipaddress.IPv4Network]:
    """Return a range that no other process of this machine has, and the lock that reserves it until it is closed."""
    for subnet in _PUBLIC.subnets(new_prefix=_SEGMENT_PREFIX):
        lock = socket.socket(socket.AF_UNIX)
        try:
            # An abstract address: the kernel releases it with its socket, see unix(7).
            lock.bind(f"\0fmi-emulator.nat.{subnet}")
        except OSError:
            lock.close()
        else:
            return lock, ipaddress.IPv4Network(subnet)
    raise NatUnavailableError(f"--nat: all ranges in {_PUBLIC} are in use: end another emulator first")


def _run_in_switch(switch: int, commands: Sequence[str]) -> None:
    _run(("nsenter", f"--net=/proc/{switch}/ns/net", "ip", "-batch", "-"), "\n".join(commands))


def _run(command: Sequence[str], text: str) -> None:
    subprocess.run(  # noqa: S603 - our own arguments
        command,
        input=f"{text}\n",
        check=True,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        env={"PATH": _PATH},
    )


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except subprocess.CalledProcessError as error:
        raise NatUnavailableError(
            f"--nat: {' '.join(error.cmd)}: {error.stderr.strip()}: expected a kernel with network namespaces, veth, "
            "conntrack and MASQUERADE"
        ) from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NatUnavailableError(f"--nat: the kernel refused a network namespace: {error}") from None
