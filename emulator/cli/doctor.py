"""``fmi-emulator doctor``: what this machine can do for functions, and what to change."""

import argparse
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from emulator.aws.limits import CONCURRENT_EXECUTIONS, MIB
from emulator.aws.sandboxes.containers.daemon import Daemon
from emulator.aws.sandboxes.containers.tmp_volume import check_mountable
from emulator.aws.sandboxes.control_groups import make_control_groups
from emulator.aws.sandboxes.nat import check_nat_available
from emulator.cli.exit_codes import FAILED
from emulator.errors import EmulatorError

if TYPE_CHECKING:
    from argparse import _SubParsersAction

_DESCRIPTION = """\
Report what this machine can do for functions, one line each, and what to change.

"ok" is available; "no" is not needed by a default run; "degraded" makes a default run differ from AWS.
"""
_EXAMPLES = """\
examples:
  fmi-emulator doctor
  DOCKER_HOST=unix:///run/podman/podman.sock fmi-emulator doctor

exit status: 0 if a default run is not degraded on this machine, 1 if it is
"""
# A sandbox takes four descriptors of the emulator.
_FILES_OF_SANDBOX = 4
_SHARED_MEMORY_BYTES = 64 * MIB
_TIMEOUT_S = 20
# Runs in a process of its own, whose namespaces end with it.
_PRIVATE_FILES = """\
import pathlib, sys
from emulator.aws.sandboxes.file_system import FilesUnavailableError, FunctionFiles, covered, import_paths, mount_files
try:
    mount_files(FunctionFiles(1 << 20, pathlib.Path(sys.argv[1]), None, covered(import_paths())))
except FilesUnavailableError as error:
    sys.exit(str(error))
"""


@dataclass(frozen=True)
class Finding:
    """What was found about one feature.

    Parameters
    ----------
    feature
        Its name.
    found
        What there is, or why there is nothing.
    available
        Whether it can be used.
    needed
        Whether a default run differs from AWS without it.
    advice
        What to change; empty if nothing needs to be.
    """

    feature: str
    found: str
    available: bool = True
    needed: bool = False
    advice: str = ""

    @property
    def is_degraded(self) -> bool:
        """Whether a default run differs from AWS because of it."""
        return self.needed and not self.available

    def line(self) -> str:
        """Return one line for the user."""
        state = "ok" if self.available else "degraded" if self.needed else "no"
        advice = f"; {self.advice}" if self.advice and not self.available else ""
        return f"{state:<9} {self.feature}: {' '.join(self.found.split())}{advice}"


def add_parser(commands: "_SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "doctor",
        help="report what this machine can do, and what to change",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=lambda _: report(CHECKS))


def report(checks: "Sequence[Callable[[], Finding]]") -> int:
    """Print a line for each check and return the exit status."""
    degraded = False
    for check in checks:
        finding = check()
        print(finding.line(), flush=True)
        degraded = degraded or finding.is_degraded
    return FAILED if degraded else 0


def private_files() -> Finding:
    """Try to give a process a private /tmp and read-only code."""
    with tempfile.TemporaryDirectory(prefix="fmi-emulator-doctor-") as folder:
        ended = subprocess.run(  # noqa: S603 - our own interpreter and text
            [sys.executable, "-P", "-c", _PRIVATE_FILES, folder],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    lines = ended.stderr.strip().splitlines()
    return Finding(
        "namespaces",
        "a private /tmp and read-only code for each function" if ended.returncode == 0 else lines[-1],
        ended.returncode == 0,
        True,
        "run as root, or permit user namespaces (sysctl kernel.unprivileged_userns_clone=1 "
        "kernel.apparmor_restrict_unprivileged_userns=0)",
    )


def control_groups() -> Finding:
    """Report which versions of control groups are mounted."""
    try:
        kinds = {line.partition(" - ")[2].split()[0] for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    except OSError:
        return Finding("control groups", f"{platform.system()} has none", False, True, "use Linux")
    versions = [name for kind, name in (("cgroup", "version 1"), ("cgroup2", "version 2")) if kind in kinds]
    return Finding("control groups", " and ".join(versions) or "none are mounted", bool(versions), True, "mount them")


def nats() -> Finding:
    """Try to translate addresses in a network namespace, as ``--nat`` does."""
    try:
        check_nat_available()
    except EmulatorError as error:
        return Finding("NATs", str(error), False)
    return Finding("NATs", "--nat puts each function behind one, in a network namespace of its own")


def cpu_shares() -> Finding:
    """Try to create a control group with a CPU limit."""
    groups = make_control_groups(f"fmi-emulator-doctor-{uuid.uuid4().hex[:12]}")
    groups.remove()
    if groups.cpu_missing is not None:
        return Finding(
            "CPU shares",
            groups.cpu_missing,
            False,
            True,
            "run as root, or in a session with delegated control groups (systemd-run --user --scope -p Delegate=yes)",
        )
    return Finding("CPU shares", "a share of the CPU by memory for each function")


def file_descriptors() -> Finding:
    """Report how many sandboxes the limit of open files permits."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    sandboxes = CONCURRENT_EXECUTIONS if hard == resource.RLIM_INFINITY else hard // _FILES_OF_SANDBOX
    return Finding(
        "file descriptors",
        f"{'no limit' if hard == resource.RLIM_INFINITY else hard}, enough for {min(sandboxes, CONCURRENT_EXECUTIONS)} "
        "functions at once",
        sandboxes >= CONCURRENT_EXECUTIONS,
        True,
        f"raise the hard limit (ulimit -Hn) to {CONCURRENT_EXECUTIONS * _FILES_OF_SANDBOX}",
    )


def shared_memory() -> Finding:
    """Report the size of /dev/shm, which FMI's shared memory uses."""
    try:
        size = shutil.disk_usage("/dev/shm").total  # noqa: S108 - the system's own
    except OSError:
        return Finding("shared memory", "there is no /dev/shm", False, False, "only FMI's shared memory needs it")
    return Finding(
        "shared memory",
        f"{size // MIB} MiB",
        size >= _SHARED_MEMORY_BYTES,
        False,
        f"enlarge it for FMI's shared memory: mount -o remount,size={_SHARED_MEMORY_BYTES * 16 // MIB}m /dev/shm",
    )


def docker() -> Finding:
    """Ask the container daemon what it is."""
    try:
        daemon = Daemon()
        info = daemon.info()
        daemon.close()
    except EmulatorError as error:
        return Finding("containers", str(error), False)
    limits = [
        name
        for name, key in (("memory", "MemoryLimit"), ("CPU", "CpuCfsQuota"), ("pids", "PidsLimit"))
        if info.get(key)
    ]
    return Finding(
        "containers",
        f"{info.get('ServerVersion', '?')} at {daemon.url}, control groups version {info.get('CgroupVersion', '?')}, "
        f"limits of {', '.join(limits) or 'nothing'}",
        "memory" in limits,
        False,
        "its kernel does not limit memory: boot with cgroup_enable=memory",
    )


def podman() -> Finding:
    """Report podman, whose socket serves instead of Docker's."""
    if shutil.which("podman") is None:
        return Finding("podman", "not installed", False, False, "Docker is enough")
    sockets = [
        path
        for path in ("/run/podman/podman.sock", f"/run/user/{os.getuid()}/podman/podman.sock")
        if Path(path).exists()
    ]
    if not sockets:
        return Finding("podman", "its socket is not served", False, False, "systemctl start podman.socket")
    return Finding("podman", f"serves DOCKER_HOST=unix://{sockets[0]}")


def container_tmp() -> Finding:
    """Try to mount a file as a container's /tmp, as is done for memory limits that exclude it."""
    with tempfile.TemporaryDirectory(prefix="fmi-emulator-doctor-") as folder:
        reason = check_mountable(Path(folder))
    found = "on disk, the kernel limits a function's memory alone" if reason is None else reason
    return Finding("containers' /tmp", found, reason is None, False, "run as root, with mkfs.ext4 and loop devices")


def freezer() -> Finding:
    """Report whether idle containers can be frozen by a control group, or only by the daemon."""
    places = [Path("/sys/fs/cgroup/freezer"), Path("/sys/fs/cgroup")]
    writable = any(os.access(place, os.W_OK) and place.is_dir() for place in places)
    found = "idle containers are frozen by their control group" if writable else "no permission for its control groups"
    return Finding("freezer", found, writable, False, "idle containers are paused by the daemon, which takes 28 ms")


def gpu() -> Finding:
    """Report graphics processors, which no function uses."""
    devices = sorted(path.name for path in Path("/dev").glob("nvidia[0-9]*"))
    return Finding("GPU", ", ".join(devices) or "none", bool(devices), False, "functions use none, as on AWS")


CHECKS: Sequence[Callable[[], Finding]] = (
    private_files,
    control_groups,
    cpu_shares,
    file_descriptors,
    shared_memory,
    docker,
    podman,
    container_tmp,
    freezer,
    nats,
    gpu,
)
