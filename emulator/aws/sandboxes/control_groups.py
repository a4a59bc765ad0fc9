"""Shares of the CPU and freezing by Linux control groups: a group for each sandbox, below a common one.

Both versions of the interface are supported: https://docs.kernel.org/admin-guide/cgroup-v2.html ("CPU", cgroup.freeze)
and, for the older one, https://docs.kernel.org/scheduler/sched-bwc.html and
https://docs.kernel.org/admin-guide/cgroup-v1/freezer-subsystem.html.
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

# Much shorter than the kernel's 100 ms, in which a function of 128 MB would run for 7 ms and then pause for 93 ms.
PERIOD_US = 20_000
# The kernel accepts no less: min_cfs_quota_period in kernel/sched/core.c.
MIN_QUOTA_US = 1000
# A killed process leaves its group only when the kernel has released it, later on a busy machine.
_REMOVAL_S = 30.0
# The file of version 2 and that of version 1, each with what thaws and what freezes.
FREEZER_FILES = {"cgroup.freeze": (b"0", b"1"), "freezer.state": (b"THAWED", b"FROZEN")}


@dataclass(frozen=True)
class ControlGroups:
    """The control groups of one emulator's sandboxes; what this machine does not permit is not done.

    Parameters
    ----------
    cpu
        The parent of the groups that limit CPU time, created by `make_control_groups`; None for no limits.
    freezer
        The parent of the groups that freeze processes, with version 2 the same; None if they cannot be frozen so.
    cpu_missing
        Why CPU time is not limited; None when it is.
    """

    cpu: Path | None
    freezer: Path | None
    cpu_missing: str | None = None

    def add(self, sandbox_id: str, pid: int) -> None:
        """Put a process and its future children into new groups without a limit."""
        for base in self._bases():
            group = base / sandbox_id
            # The process may have ended already.
            with contextlib.suppress(ProcessLookupError):
                group.mkdir()
                (group / "cgroup.procs").write_text(str(pid))

    def limit(self, sandbox_id: str, vcpus: float) -> None:
        """Limit the CPU time that the processes of a sandbox use together.

        Parameters
        ----------
        sandbox_id
            The sandbox.
        vcpus
            CPU seconds a second.
        """
        if self.cpu is None or vcpus >= (os.cpu_count() or 1):
            return
        group = self.cpu / sandbox_id
        quota_us = max(MIN_QUOTA_US, round(vcpus * PERIOD_US))
        # The group may be removed already, or its parent has a lower limit, which then applies.
        with contextlib.suppress(OSError):
            if _is_unified(self.cpu):
                (group / "cpu.max").write_text(f"{quota_us} {PERIOD_US}")
            else:
                (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
                (group / "cpu.cfs_quota_us").write_text(str(quota_us))

    def freeze(self, sandbox_id: str) -> None:
        """Stop the processes of a sandbox. With version 1, one that is killed dies only when it is thawed."""
        if self.freezer is not None:
            set_frozen(self.freezer / sandbox_id, frozen=True)

    def thaw(self, sandbox_id: str) -> None:
        """Continue the processes of a sandbox."""
        if self.freezer is not None:
            set_frozen(self.freezer / sandbox_id, frozen=False)

    def thaw_all(self) -> None:
        """Continue the processes of all sandboxes."""
        if self.freezer is not None and self.freezer.exists():
            for group in self.freezer.iterdir():
                self.thaw(group.name)

    def discard(self, sandbox_id: str) -> None:
        """Remove the groups of a sandbox whose processes have ended; `remove` retries what fails here."""
        for base in self._bases():
            with contextlib.suppress(OSError):
                (base / sandbox_id).rmdir()

    def remove(self) -> None:
        """Kill the remaining processes and remove the groups when the kernel has released the processes."""
        deadline = time.monotonic() + _REMOVAL_S
        while any(base.exists() for base in self._bases()) and time.monotonic() < deadline:
            for base in self._bases():
                _remove_groups(base)
            time.sleep(0.01)

    def _bases(self) -> set[Path]:
        return {base for base in (self.cpu, self.freezer) if base is not None}


def set_frozen(group: Path, *, frozen: bool) -> None:
    """Freeze or thaw the processes of a group of either version, unless it is removed already."""
    # Opened without O_CREAT: a group has one of the two files.
    for name, values in FREEZER_FILES.items():
        with contextlib.suppress(OSError):
            descriptor = os.open(group / name, os.O_WRONLY)
            try:
                os.write(descriptor, values[frozen])
            finally:
                os.close(descriptor)
            return


def _is_unified(base: Path) -> bool:
    return (base / "cgroup.controllers").exists()


def _remove_groups(base: Path) -> None:
    """Kill the processes of all groups below one, and remove the groups that are empty."""
    # Any of them may be gone already.
    with contextlib.suppress(OSError):
        for group in base.iterdir():
            if group.is_dir():
                for pid in (group / "cgroup.procs").read_text().split():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(pid), signal.SIGKILL)
                set_frozen(group, frozen=False)
                with contextlib.suppress(OSError):
                    group.rmdir()
        base.rmdir()


def make_control_groups(name: str) -> ControlGroups:
    """Create the parent groups of all sandboxes, at the first usable place in each tree of groups.

    Parameters
    ----------
    name
        A unique name.
    """
    if sys.platform != "linux":
        return ControlGroups(None, None, f"{sys.platform} has no control groups")
    mountinfo, memberships = Path("/proc/self/mountinfo").read_text(), Path("/proc/self/cgroup").read_text()
    cpu, missing = _first_base(_parent_groups(mountinfo, memberships, "cpu"), name)
    if cpu is not None and _is_unified(cpu):
        return ControlGroups(cpu, cpu)
    # Version 2 has had the freezer since Linux 5.2; of it only the groups that also limit CPU time are used.
    places = (place for place in _parent_groups(mountinfo, memberships, "freezer") if not _is_unified(place))
    freezer, _ = _first_base(places, name)
    return ControlGroups(cpu, freezer, missing)


def _first_base(places: Iterable[Path], name: str) -> tuple[Path | None, str | None]:
    """Create a parent group; return it, or why there is none."""
    reasons = []
    for place in places:
        try:
            return _make_base(place, name), None
        except OSError as error:
            reasons.append(f"{place}: {error.strerror}")
    return None, "; ".join(reasons) or "no control groups with the cpu controller are mounted"


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


def _parent_groups(mountinfo: str, memberships: str, controller: str) -> Iterator[Path]:
    """Yield the groups below which the sandboxes' groups may be created, the best first.

    In version 2 a group contains either processes or controlled groups (cgroups(7), "no internal processes"), so the
    new groups must be siblings of this process's group, unless that is the root.

    Parameters
    ----------
    mountinfo, memberships
        The contents of /proc/self/mountinfo and /proc/self/cgroup; see proc_pid_mountinfo(5) and cgroups(7).
    controller
        The controller that they need; the freezer is none of version 2's.
    """
    own: dict[str, str] = {}
    for line in memberships.splitlines():
        _, controllers, path = line.split(":", 2)
        own.update(dict.fromkeys(controllers.split(","), path))
    for hierarchy in _hierarchies(mountinfo, controller):
        # Version 2 has the line without controllers.
        membership = own.get("" if hierarchy.unified else controller)
        if membership is None:
            continue
        group = hierarchy.mount_point / membership.removeprefix(hierarchy.root).lstrip("/")
        if hierarchy.unified and group != hierarchy.mount_point:
            group = group.parent
        if hierarchy.unified and controller not in _controllers(group):
            continue
        yield group


def _hierarchies(mountinfo: str, controller: str) -> Iterator[_Hierarchy]:
    for line in mountinfo.splitlines():
        mount, _, file_system = line.partition(" - ")
        _, _, _, root, mount_point, *_ = mount.split()
        kind, _, options = file_system.split(maxsplit=2)
        if kind == "cgroup2" or (kind == "cgroup" and controller in options.split(",")):
            yield _Hierarchy(Path(mount_point), root, kind == "cgroup2")


def _controllers(group: Path) -> list[str]:
    try:
        return (group / "cgroup.controllers").read_text().split()
    except OSError:
        return []
