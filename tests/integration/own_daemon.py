"""Container daemons that tests start for themselves: to stop them, to fill their disk, or to try another kind."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from emulator.aws.sandboxes.containers.daemon import Daemon
from emulator.errors import EmulatorError
from tests import containers

_START_S = 60


class OwnDaemon:
    """A daemon that can be stopped and started again.

    Parameters
    ----------
    command
        What starts it.
    socket
        Its socket.
    log
        Receives its output.
    """

    def __init__(self, command: Sequence[str], socket: Path, log: Path) -> None:
        self._command = command
        self._log = log
        self.url = f"unix://{socket}"
        self.environment = {"DOCKER_HOST": self.url}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log, start_new_session=True)
        until = time.monotonic() + _START_S
        while True:
            try:
                self.connect().close()
            except EmulatorError:
                if self.process.poll() is not None or time.monotonic() > until:
                    pytest.skip(f"{self._command[0]} does not start here: {self._log.read_text()[-300:]}")
                time.sleep(0.1)
            else:
                return

    def connect(self) -> Daemon:
        with pytest.MonkeyPatch.context() as patched:
            patched.setenv("DOCKER_HOST", self.url)
            return Daemon()

    def stop(self, number: int = signal.SIGTERM) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(_START_S)

    def load(self, name: str, bootstrap: str) -> str:
        """Import an image that runs a program in bash; return its name."""
        import docker

        client = docker.APIClient(self.url)
        root = containers.shell_root({"bootstrap": bootstrap})
        client.import_image_from_data(root, repository=name, changes=['ENTRYPOINT ["/bootstrap"]'])
        client.close()
        return name


@contextlib.contextmanager
def own_dockerd(disk_bytes: int) -> Iterator[OwnDaemon]:
    """Start a dockerd with a disk of its own and room for two networks; skip the test where it cannot run."""
    if os.geteuid() != 0 or shutil.which("dockerd") is None:
        pytest.skip("a daemon for the test alone takes root and dockerd")
    with _folder() as folder:
        disk, data = folder / "disk", folder / "data"
        data.mkdir()
        with disk.open("wb") as file:
            file.truncate(disk_bytes)
        path = {"PATH": f"/usr/sbin:/sbin:{os.environ['PATH']}"}
        for command in (["mkfs.ext4", "-q", "-F", str(disk)], ["mount", "-o", "loop", str(disk), str(data)]):
            made = subprocess.run(command, capture_output=True, text=True, check=False, env=path)
            if made.returncode:
                pytest.skip(f"no disk for a daemon: {made.stderr.strip()}")
        command = [
            *("dockerd", "--host", f"unix://{folder}/docker.sock", "--data-root", str(data)),
            *("--exec-root", f"{folder}/exec", "--pidfile", f"{folder}/pid", "--bridge", "none", "--iptables=false"),
            # Documentation's own range, see RFC 5737.
            *("--default-address-pool", "base=198.51.100.0/28,size=29", "--shutdown-timeout", "3"),
        ]
        with _running(OwnDaemon(command, folder / "docker.sock", folder / "log")) as daemon:
            yield daemon


@contextlib.contextmanager
def own_podman() -> Iterator[OwnDaemon]:
    """Serve podman's socket in a network namespace of its own: its rules for packets end with it."""
    if os.geteuid() != 0 or shutil.which("podman") is None:
        pytest.skip("podman's socket takes root and podman: apt-get install podman")
    with _folder() as folder:
        podman = (
            f"exec podman --root {folder}/root --runroot {folder}/run --tmpdir {folder}/tmp "
            f"--network-config-dir {folder}/networks --cgroup-manager cgroupfs --events-backend file "
            f"system service --time 0 unix://{folder}/podman.sock"
        )
        command = ["unshare", "--net", "sh", "-c", f"ip link set lo up && {podman}"]
        with _running(OwnDaemon(command, folder / "podman.sock", folder / "log")) as daemon:
            yield daemon


@contextlib.contextmanager
def _running(daemon: OwnDaemon) -> Iterator[OwnDaemon]:
    daemon.start()
    try:
        yield daemon
    finally:
        if daemon.process is not None and daemon.process.poll() is None:
            daemon.stop()


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """Make a folder with a short name, as sockets need; unmount what daemons have mounted below it, and remove it."""
    folder = Path(tempfile.mkdtemp(prefix="fmi-d"))
    try:
        yield folder
    finally:
        mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        for mount in reversed([mount for mount in mounts if mount.startswith(f"{folder}/")]):
            subprocess.run(["umount", "--lazy", mount], check=False)
        shutil.rmtree(folder, ignore_errors=True)
