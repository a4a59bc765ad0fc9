"""The control groups of a container, where this process can reach them: anonymous memory and the freezer.

Both versions: https://docs.kernel.org/admin-guide/cgroup-v1/memory.html ("rss" of memory.stat is anonymous memory),
https://docs.kernel.org/admin-guide/cgroup-v1/freezer-subsystem.html and
https://docs.kernel.org/admin-guide/cgroup-v2.html ("anon" of memory.stat, cgroup.freeze).
"""

import os
from pathlib import Path

from emulator.aws.sandboxes.control_groups import FREEZER_FILES, set_frozen


class ContainerGroups:
    """The control groups of one container.

    Parameters
    ----------
    memory
        Its group with memory.stat.
    freezer
        Its group with a freezer; None where this process may not write there.
    """

    def __init__(self, memory: Path, freezer: Path | None) -> None:
        self._stat = memory / "memory.stat"
        self._freezer = freezer
        self._field = b"total_rss " if (memory / "memory.limit_in_bytes").exists() else b"anon "

    @classmethod
    def of_process(cls, pid: int, container: str) -> "ContainerGroups | None":
        """Return the groups of a container's first process.

        Returns
        -------
        ContainerGroups or None
            None where the process is not one of this machine, as with a daemon in a virtual machine.
        """
        try:
            memberships = Path(f"/proc/{pid}/cgroup").read_text()
            mountinfo = Path("/proc/self/mountinfo").read_text()
        except OSError:
            return None
        return cls.find(memberships, mountinfo, container)

    @classmethod
    def find(cls, memberships: str, mountinfo: str, container: str) -> "ContainerGroups | None":
        """Return the groups that the contents of /proc/PID/cgroup and /proc/self/mountinfo lead to.

        A group without the container's id belongs to another process: it is not returned.
        """
        memory = _group("memory", memberships, mountinfo)
        if memory is None or container not in str(memory) or not (memory / "memory.stat").exists():
            return None
        frozen = _group("freezer", memberships, mountinfo)
        freezer = None
        if frozen is not None and container in str(frozen):
            freezer = frozen if any(os.access(frozen / name, os.W_OK) for name in FREEZER_FILES) else None
        return cls(memory, freezer)

    @property
    def can_freeze(self) -> bool:
        """Whether this process may freeze the container."""
        return self._freezer is not None

    def anonymous_bytes(self) -> int:
        """Return its anonymous memory, bytes: without files, the page cache and the content of a tmpfs."""
        try:
            for line in self._stat.read_bytes().splitlines():
                if line.startswith(self._field):
                    return int(line[len(self._field) :])
        except OSError:
            pass  # It has ended.
        return 0

    def freeze(self) -> None:
        """Stop all its processes."""
        if self._freezer is not None:
            set_frozen(self._freezer, frozen=True)

    def thaw(self) -> None:
        """Continue all its processes."""
        if self._freezer is not None:
            set_frozen(self._freezer, frozen=False)


def _group(controller: str, memberships: str, mountinfo: str) -> Path | None:
    """Return the folder of a process's group for a controller: version 1's, else version 2's.

    Formats: cgroups(7) and proc_pid_mountinfo(5).
    """
    paths = {}
    for line in memberships.splitlines():
        _, controllers, path = line.split(":", 2)
        paths.update(dict.fromkeys(controllers.split(","), path))
    for wanted, kind in ((controller, "cgroup"), ("", "cgroup2")):
        if wanted not in paths:
            continue
        for line in mountinfo.splitlines():
            mount, _, file_system = line.partition(" - ")
            _, _, _, root, mount_point, *_ = mount.split()
            found, _, options = file_system.split(maxsplit=2)
            if found == kind and (kind == "cgroup2" or controller in options.split(",")):
                group = Path(mount_point) / paths[wanted].removeprefix(root).lstrip("/")
                if group.is_dir():
                    return group
    return None
