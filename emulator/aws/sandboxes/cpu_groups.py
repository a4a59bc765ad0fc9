"""Shares of the CPU by Linux control groups: one group for each sandbox, below a common one.

Both versions of the interface are supported: https://docs.kernel.org/admin-guide/cgroup-v2.html ("CPU") and, for the
older one, https://docs.kernel.org/scheduler/sched-bwc.html.
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Much shorter than the kernel's 100 ms, in which a function of 128 MB would run for 7 ms and then pause for 93 ms.
PERIOD_US = 20_000
# The kernel accepts no less: min_cfs_quota_period in kernel/sched/core.c.
MIN_QUOTA_US = 1000
# A killed process leaves its group only when the kernel has released it, later on a busy machine.
_REMOVAL_S = 30.0


class CpuSharesUnavailableError(OSError):
    """CPU shares cannot be enforced on this machine; the message says why."""


class CpuGroups:
    """The control groups of one emulator's sandboxes.

    Parameters
    ----------
    base
        Their parent group, created by `make_cpu_groups`.
    """

    def __init__(self, base: Path) -> None:
        self.base = base
        self._unified = (base / "cgroup.controllers").exists()

    def add(self, sandbox_id: str, pid: int) -> None:
        """Put a process and its future children into a new group without a limit."""
        group = self.base / sandbox_id
        # The process may have ended already.
        with contextlib.suppress(ProcessLookupError):
            group.mkdir()
            (group / "cgroup.procs").write_text(str(pid))

    def limit(self, sandbox_id: str, vcpus: float) -> None:
        """Limit the CPU time that the processes of a group use together.

        Parameters
        ----------
        sandbox_id
            The group.
        vcpus
            CPU seconds a second.
        """
        if vcpus >= (os.cpu_count() or 1):
            return
        group = self.base / sandbox_id
        quota_us = max(MIN_QUOTA_US, round(vcpus * PERIOD_US))
        # The group may be removed already, or its parent has a lower limit, which then applies.
        with contextlib.suppress(OSError):
            if self._unified:
                (group / "cpu.max").write_text(f"{quota_us} {PERIOD_US}")
            else:
                (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
                (group / "cpu.cfs_quota_us").write_text(str(quota_us))

    def discard(self, sandbox_id: str) -> None:
        """Remove a group whose processes have ended; `remove` retries what fails here."""
        with contextlib.suppress(OSError):
            (self.base / sandbox_id).rmdir()

    def remove(self) -> None:
        """Kill the remaining processes and remove the groups when the kernel has released the processes."""
        deadline = time.monotonic() + _REMOVAL_S
        while self.base.exists() and time.monotonic() < deadline:
            for group in self.base.iterdir():
                if group.is_dir():
                    _kill_all(group)
                    self.discard(group.name)
            try:
                self.base.rmdir()
            except OSError:
                time.sleep(0.01)


def _kill_all(group: Path) -> None:
    # The group or the process may be gone already.
    with contextlib.suppress(OSError):
        for pid in (group / "cgroup.procs").read_text().split():
            os.kill(int(pid), signal.SIGKILL)


def make_cpu_groups(name: str) -> CpuGroups:
    """Create the parent group of all sandboxes, at the first usable place in the tree of groups.

    Parameters
    ----------
    name
        A unique name.

    Raises
    ------
    CpuSharesUnavailableError
        When there are no control groups, or this user may not use them.
    """
    if sys.platform != "linux":
        raise CpuSharesUnavailableError(f"{sys.platform} has no control groups")
    reasons = []
    for place in _parent_groups(Path("/proc/self/mountinfo").read_text(), Path("/proc/self/cgroup").read_text()):
        try:
            return CpuGroups(_make_base(place, name))
        except OSError as error:
            reasons.append(f"{place}: {error.strerror}")
    raise CpuSharesUnavailableError("; ".join(reasons) or "no control groups with the cpu controller are mounted")


def _make_base(place: Path, name: str) -> Path:
    base = place / name
    if not (place / "cgroup.controllers").exists():
        base.mkdir()
        return base
    _delegate_cpu(place)
    base.mkdir()
    try:
        _delegate_cpu(base)
        # Moving a process needs write permission on the common parent of both groups.
        if not os.access(place / "cgroup.procs", os.W_OK):
            raise PermissionError(0, "no permission to move processes there")
    except OSError:
        base.rmdir()
        raise
    return base


def _delegate_cpu(group: Path) -> None:
    """Enable the cpu controller for the children of a group of version 2."""
    if "cpu" not in (group / "cgroup.subtree_control").read_text().split():
        (group / "cgroup.subtree_control").write_text("+cpu")


@dataclass(frozen=True)
class _Hierarchy:
    """A mounted tree of groups: mount point, the group mounted there, and whether it is of version 2."""

    mount_point: Path
    root: str
    unified: bool


def _parent_groups(mountinfo: str, memberships: str) -> Iterator[Path]:
    """Yield the groups below which the sandboxes' groups may be created, the best first.

    In version 2 a group contains either processes or controlled groups (cgroups(7), "no internal processes"), so the
    new groups must be siblings of this process's group, unless that is the root.

    Parameters
    ----------
    mountinfo, memberships
        The contents of /proc/self/mountinfo and /proc/self/cgroup; see proc_pid_mountinfo(5) and cgroups(7).
    """
    own: dict[str, str] = {}
    for line in memberships.splitlines():
        _, controllers, path = line.split(":", 2)
        own.update(dict.fromkeys(controllers.split(","), path))
    for hierarchy in _hierarchies(mountinfo):
        # Version 2 has the line without controllers.
        membership = own.get("" if hierarchy.unified else "cpu")
        if membership is None:
            continue
        group = hierarchy.mount_point / membership.removeprefix(hierarchy.root).lstrip("/")
        if hierarchy.unified and group != hierarchy.mount_point:
            group = group.parent
        if hierarchy.unified and "cpu" not in _controllers(group):
            continue
        yield group


def _hierarchies(mountinfo: str) -> Iterator[_Hierarchy]:
    for line in mountinfo.splitlines():
        mount, _, file_system = line.partition(" - ")
        _, _, _, root, mount_point, *_ = mount.split()
        kind, _, options = file_system.split(maxsplit=2)
        if kind == "cgroup2" or (kind == "cgroup" and "cpu" in options.split(",")):
            yield _Hierarchy(Path(mount_point), root, kind == "cgroup2")


def _controllers(group: Path) -> list[str]:
    try:
        return (group / "cgroup.controllers").read_text().split()
    except OSError:
        return []
