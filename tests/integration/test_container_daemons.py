"""Daemons that fail in the middle, and podman's: each message says what to do."""

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from emulator.aws.sandboxes.base import ContainerImage
from emulator.aws.sandboxes.containers.daemon import ContainerLimits, DaemonError
from tests import containers
from tests.commands import FMIRUN, installed
from tests.integration.fmirun import EXAMPLES, start
from tests.integration.own_daemon import OwnDaemon, own_dockerd, own_podman

pytestmark = pytest.mark.timeout(240)
MIB = 1 << 20
SERVES = containers.named(containers.BASH_BOOTSTRAP, 1)
HANGS = SERVES.replace("  echo ", "  echo hangs; sleep 600\n  echo ", 1)


@pytest.fixture(scope="module")
def dockerd() -> Iterator[OwnDaemon]:
    with own_dockerd(96 * MIB) as daemon:
        yield daemon


def test_a_daemon_that_stops_in_a_run_is_named_and_leaves_nothing(tmp_path: Path, dockerd: OwnDaemon) -> None:
    program = EXAMPLES / "reduce.py"
    hangs, serves = dockerd.load("hangs", HANGS), dockerd.load("serves", SERVES)
    run = start(tmp_path, "-n", 1, "--backend", "docker", "--image", hangs, program, environment=dockerd.environment)
    assert run.stdout is not None
    assert "hangs" in run.stdout.readline()
    dockerd.stop()
    _, errors = run.communicate(timeout=90)
    assert run.returncode == 1, errors
    assert f"the container daemon at {dockerd.url} has stopped: start it" in errors.splitlines()[-1]
    dockerd.start()
    again = start(tmp_path, "-n", 1, "--backend", "docker", "--image", serves, program, environment=dockerd.environment)
    output, errors = again.communicate(timeout=90)
    assert again.returncode == 0, errors
    assert "bash got" in output
    running = dockerd.connect()
    assert containers.containers_of(running, run.pid) == []
    assert containers.containers_of(running, again.pid) == []
    running.close()


def test_a_full_disk_of_the_daemon_is_named(dockerd: OwnDaemon) -> None:
    running = dockerd.connect()
    context = containers.archive({"Dockerfile": b"FROM scratch\nCOPY large /\n", "large": os.urandom(96 * MIB)})
    with pytest.raises(DaemonError, match="the daemon's disk is full; free space there, for example with docker sys"):
        list(running.build(io.BytesIO(context), "large", {}, {}, "Dockerfile"))
    running.close()


def test_a_lack_of_networks_and_names_that_are_in_use_are_named(dockerd: OwnDaemon) -> None:
    running = dockerd.connect()
    made = []
    try:
        made.append(running.create_network("first", {}).id)
        with pytest.raises(DaemonError, match=r"first.* already exists: remove the other one"):
            running.create_network("first", {})
        with pytest.raises(DaemonError, match="all address ranges of the daemon are in use; remove unused networks"):
            # There is room for two.
            made.extend(running.create_network(name, {}).id for name in ("second", "third"))
        image = ContainerImage(dockerd.load("serves", SERVES))
        limits = ContainerLimits(128 * MIB, 64, 64)
        settings = (image, {}, made[0], limits, {}, "993:990", {}, {}, "none")
        container = running.create_container("same", *settings)
        with pytest.raises(DaemonError, match=r"same.* is already in use .*: remove the other one \(docker ps -a"):
            running.create_container("same", *settings)
        running.remove(container)
    finally:
        for network in made:
            running.remove_network(network)
        running.close()


def test_a_socket_without_permission_is_named(dockerd: OwnDaemon) -> None:
    program = """
import os
from emulator.aws.sandboxes.containers.daemon import Daemon
import docker  # while its files can be read
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
Daemon()
"""
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **dockerd.environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"no permission to use the container daemon at {dockerd.url}: run as root, or join the group" in ended.stderr


def test_podman_serves_instead_of_docker(tmp_path: Path) -> None:
    with own_podman() as podman:
        image = podman.load("serves", SERVES)
        assert podman.process is not None
        (tmp_path / "state").mkdir()
        ended = subprocess.run(
            [
                *("nsenter", f"--net=/proc/{podman.process.pid}/ns/net"),
                *(installed(FMIRUN), "-n", "1", "--backend", "docker", "--image", image, EXAMPLES / "reduce.py"),
            ],
            env={**os.environ, **podman.environment, "TMPDIR": str(tmp_path / "state")},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert ended.returncode == 0, ended.stderr
        assert "bash got" in ended.stdout
        running = podman.connect()
        assert running.labelled_containers("fmi-emulator.owner") == []
        assert running.labelled_networks("fmi-emulator.owner") == []
        running.close()
