"""A container's control groups, of both versions, found from recorded files below a folder."""

import os
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
