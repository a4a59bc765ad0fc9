"""CPU shares: where groups are created, and how they limit a process."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from emulator.aws.sandboxes.control_groups import ControlGroups, _parent_groups, make_control_groups


@pytest.fixture
def groups() -> Iterator[ControlGroups]:
    made = make_control_groups(f"fmi-emulator-test-{uuid.uuid4().hex[:8]}")
    yield made
    made.remove()


@pytest.fixture
def cpu(groups: ControlGroups) -> Path:
    if groups.cpu is None:
        pytest.skip(str(groups.cpu_missing))
    return groups.cpu


def test_a_limited_process_gets_only_its_share(groups: ControlGroups, cpu: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        try:
            groups.add("one", busy.pid)
            groups.limit("one", 0.1)
            began, before = time.monotonic(), cpu_s(busy.pid)
            # Long enough for its share, and for much more than its share if nothing held it.
            while cpu_s(busy.pid) - before < 0.1:
                time.sleep(0.01)
            used, passed = cpu_s(busy.pid) - before, time.monotonic() - began
        finally:
            busy.kill()
    # A clock tick is 10 ms, and a period's quota may be used up before and after the measurement.
    assert used <= 0.1 * passed + 0.05
    groups.discard("one")
    assert not (cpu / "one").exists()


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_remove_kills_the_remaining_processes_and_waits(groups: ControlGroups, cpu: Path) -> None:
    with subprocess.Popen(["sleep", "1000"]) as sleeper:
        groups.add("one", sleeper.pid)
        groups.remove()
    assert sleeper.returncode == -signal.SIGKILL
    assert not cpu.exists()


def test_a_process_that_has_ended_is_ignored(groups: ControlGroups, cpu: Path) -> None:
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    groups.add("one", ended.pid)
    groups.limit("one", 0.5)
    groups.limit("nobody", 0.5)
    assert (cpu / "one" / "cgroup.procs").read_text() == ""
    assert not (cpu / "nobody").exists()


V1 = "33 31 0:30 / {mount} rw,relatime - cgroup cgroup rw,cpu,cpuacct"
V2 = "40 31 0:37 {root} {mount} rw,relatime - cgroup2 cgroup2 rw"


def test_with_version_1_groups_are_children_of_this_processs_group(tmp_path: Path) -> None:
    found = list(
        _parent_groups(V1.format(mount=tmp_path), "4:cpu,cpuacct:/user/one\n1:name=systemd:/other\n0::/third", "cpu")
    )
    assert found == [tmp_path / "user/one"]


@pytest.mark.parametrize(
    ("root", "own", "expected"),
    [
        ("/", "/user.slice/app.scope", "user.slice"),
        ("/", "/", ""),
        ("/docker/abc", "/docker/abc", ""),
        ("/docker/abc", "/docker/abc/in/side", "in"),
    ],
)
def test_with_version_2_groups_are_siblings_of_this_processs_group_unless_it_is_the_root(
    tmp_path: Path, root: str, own: str, expected: str
) -> None:
    place = tmp_path / expected
    place.mkdir(exist_ok=True)
    (place / "cgroup.controllers").write_text("cpuset cpu io")
    assert list(_parent_groups(V2.format(mount=tmp_path, root=root), f"0::{own}", "cpu")) == [place]


def test_a_tree_without_the_cpu_controller_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("memory pids")
    assert list(_parent_groups(V2.format(mount=tmp_path, root="/"), "0::/", "cpu")) == []
    assert list(_parent_groups("31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw", "0::/", "cpu")) == []
