"""A container's control groups, of both versions: recorded files below a folder, and the kernel's own freezer."""

import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from emulator.aws.sandboxes.containers.cgroups import ContainerGroups

ID = "ab" * 32


def mountinfo(root: Path, *hierarchies: tuple[str, str, str]) -> str:
    return "".join(
        f"{number} 1 0:{number} / {root / point} rw,nosuid shared:9 - {kind} cgroup rw,{options}\n"
        for number, (point, kind, options) in enumerate(hierarchies, 30)
    )


@pytest.fixture
def version_1(tmp_path: Path) -> ContainerGroups:
    for controller in ("memory", "freezer"):
        (tmp_path / controller / "docker" / ID).mkdir(parents=True)
    group = tmp_path / "memory" / "docker" / ID
    (group / "memory.limit_in_bytes").write_text("1")
    (group / "memory.stat").write_text("cache 900\nrss 5\nmapped_file 3\ntotal_cache 901\ntotal_rss 4096\n")
    (tmp_path / "freezer" / "docker" / ID / "freezer.state").write_text("THAWED")
    memberships = f"5:memory:/docker/{ID}\n4:freezer:/docker/{ID}\n1:name=systemd:/x\n0::/other\n"
    mounts = mountinfo(tmp_path, ("memory", "cgroup", "memory"), ("freezer", "cgroup", "freezer"), ("u", "cgroup2", ""))
    found = ContainerGroups.find(memberships, mounts, ID)
    assert found is not None
    return found


def test_version_1_counts_anonymous_memory_and_freezes(version_1: ContainerGroups, tmp_path: Path) -> None:
    state = tmp_path / "freezer" / "docker" / ID / "freezer.state"
    assert version_1.anonymous_bytes() == 4096
    assert version_1.can_freeze
    version_1.freeze()
    assert state.read_text() == "FROZEN"
    version_1.thaw()
    assert state.read_text() == "THAWED"


@pytest.mark.parametrize("group", [f"/system.slice/docker-{ID}.scope", f"/docker/{ID}"])
def test_version_2_has_one_group_whatever_driver_made_it(tmp_path: Path, group: str) -> None:
    folder = tmp_path / "unified" / group.lstrip("/")
    folder.mkdir(parents=True)
    (folder / "memory.stat").write_text("anon 8192\nfile 900\nkernel 7\n")
    (folder / "cgroup.freeze").write_text("0")
    found = ContainerGroups.find(f"0::{group}\n", mountinfo(tmp_path, ("unified", "cgroup2", "nsdelegate")), ID)
    assert found is not None
    assert found.anonymous_bytes() == 8192
    found.freeze()
    assert (folder / "cgroup.freeze").read_text() == "1"
    found.thaw()
    assert (folder / "cgroup.freeze").read_text() == "0"


_FREEZER_OF_VERSION_2 = """
import pathlib, subprocess, sys, time
from emulator.aws.sandboxes.containers.cgroups import ContainerGroups
subprocess.run(["mount", "-t", "cgroup2", "none", sys.argv[1]], check=True)
# Where version 1 has the controllers, groups of version 2 have no memory.stat; their freezer is no controller.
group = pathlib.Path(sys.argv[1], "fmi-test-" + sys.argv[2])
group.mkdir()
process = subprocess.Popen(["sleep", "600"])
def wait_until_frozen(expected):
    until = time.monotonic() + 30
    while f"frozen {expected}" not in (group / "cgroup.events").read_text():
        assert time.monotonic() < until
        time.sleep(0.01)
try:
    (group / "cgroup.procs").write_text(str(process.pid))
    found = ContainerGroups(group, group)
    found.freeze()
    wait_until_frozen(1)
    found.thaw()
    wait_until_frozen(0)
finally:
    process.kill()
    process.wait()
    group.rmdir()
"""


def test_the_kernels_version_2_freezes_and_continues(tmp_path: Path) -> None:
    probe = ["unshare", "--mount", "mount", "-t", "cgroup2", "none", str(tmp_path)]
    if sys.platform != "linux" or subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("version 2 of control groups cannot be mounted here, which takes root")
    command = [sys.executable, "-c", _FREEZER_OF_VERSION_2, str(tmp_path), uuid.uuid4().hex]
    ended = subprocess.run(["unshare", "--mount", *command], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_a_group_of_another_process_is_not_the_containers(tmp_path: Path) -> None:
    (tmp_path / "unified").mkdir()
    (tmp_path / "unified" / "memory.stat").write_text("anon 1\n")
    mounts = mountinfo(tmp_path, ("unified", "cgroup2", "nsdelegate"))
    assert ContainerGroups.find("0::/\n", mounts, ID) is None
    assert ContainerGroups.of_process(os.getpid(), ID) is None
    assert ContainerGroups.of_process(2**22 + 1, ID) is None


def test_an_ended_container_has_no_memory(version_1: ContainerGroups, tmp_path: Path) -> None:
    (tmp_path / "memory" / "docker" / ID / "memory.stat").unlink()
    assert version_1.anonymous_bytes() == 0
