"""Whose containers and networks: labels that name the emulator's process, and the removal of what a dead one left."""

import contextlib
import json
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from emulator.aws.sandboxes.containers.cgroups import ContainerGroups
from emulator.aws.sandboxes.containers.daemon import Daemon, DaemonError

# A container with a thousand processes takes a moment to end.
_REMOVALS, _REMOVAL_PAUSE_S = 5, 0.3
OWNER_LABEL = "fmi-emulator.owner"


@dataclass(frozen=True)
class Owner:
    """A process, identified so that no later one is taken for it.

    Parameters
    ----------
    machine, boot
        The machine and its start: a daemon's socket may be shared with other machines.
    namespace
        Its process namespace, in which its number is unique.
    pid, started
        Its number and its start time, seconds since the epoch, rounded.
    """

    machine: str
    boot: str
    namespace: str
    pid: int
    started: int

    @classmethod
    def of_this_process(cls) -> "Owner":
        """Return this process."""
        return cls(_machine(), _boot(), _namespace(), os.getpid(), round(psutil.Process().create_time()))

    @classmethod
    def parse(cls, label: str) -> "Owner | None":
        """Parse a label's value; None if it is none of ours."""
        try:
            return cls(**json.loads(label))
        except (ValueError, TypeError):
            return None

    def labels(self) -> Mapping[str, str]:
        """Return the labels of what this process creates."""
        return {OWNER_LABEL: json.dumps(asdict(self))}

    def is_dead(self) -> bool:
        """Return whether the process has certainly ended: it is not one of another machine or namespace."""
        if self.machine != _machine():
            return False
        if self.boot != _boot():
            return True
        if self.namespace != _namespace():
            return False
        try:
            process = psutil.Process(self.pid)
            return abs(process.create_time() - self.started) > 1 or process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True


def remove_leftovers(daemon: Daemon) -> int:
    """Remove the containers and networks of dead owners; return their number. What cannot be removed is left."""
    removed = 0
    for container, label in daemon.labelled_containers(OWNER_LABEL):
        if (owner := Owner.parse(label)) is not None and owner.is_dead():
            with contextlib.suppress(DaemonError):
                remove_container(daemon, container)
                removed += 1
    for network, label in daemon.labelled_networks(OWNER_LABEL):
        if (owner := Owner.parse(label)) is not None and owner.is_dead():
            with contextlib.suppress(DaemonError):
                daemon.remove_network(network)
                removed += 1
    return removed


def remove_container(daemon: Daemon, container: str) -> None:
    """Remove a container that may be frozen: its processes cannot end before they continue."""
    with contextlib.suppress(DaemonError):
        state = daemon.state(container)
        if state.running and (groups := ContainerGroups.of_process(state.pid, container)) is not None:
            groups.thaw()
    for _ in range(_REMOVALS):
        try:
            daemon.remove(container)
        except DaemonError:
            # The kernel has not released its processes or file systems yet.
            time.sleep(_REMOVAL_PAUSE_S)
        else:
            return
    daemon.remove(container)


def _machine() -> str:
    for path in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        with contextlib.suppress(OSError):
            if found := Path(path).read_text().strip():
                return found
    return socket.gethostname()


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return str(round(psutil.boot_time()))


def _namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - the link has no path as its target
    except OSError:
        return ""
