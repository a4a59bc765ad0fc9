"""NATs of sandboxes: where they cannot be, and that nothing of them is left. Ranks behind them: tests/integration."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from emulator.aws.sandboxes.nat import Nat, NatUnavailableError, PublicSegment, check_nat_available

_CREATE = """
import sys, time
from emulator.aws.sandboxes.nat import PublicSegment
found = PublicSegment()
print(found.segment.gateway, flush=True)
time.sleep(600)
"""
_WITHOUT_ROOT = """
import os
from emulator.aws.sandboxes.nat import check_nat_available
os.setuid(65534)
check_nat_available()
"""


def require_nat() -> None:
    """Skip the test where there can be no NATs."""
    try:
        check_nat_available()
    except NatUnavailableError as error:
        pytest.skip(str(error))


def addresses() -> str:
    return subprocess.run(["ip", "-4", "addr"], capture_output=True, text=True, check=True).stdout


@pytest.mark.nat
def test_segments_have_ranges_and_places_of_their_own_and_leave_nothing() -> None:
    require_nat()
    first, second = PublicSegment(), PublicSegment()
    try:
        assert first.segment.subnet != second.segment.subnet
        assert first.segment.gateway in addresses()
        places = [first.attach(Nat.CONE) for _ in range(3)]
        assert len({place.address for place in places} | {first.segment.gateway}) == 4
        first.detach(places[0])
        assert first.attach(Nat.CONE) == places[0]
    finally:
        first.close()
        second.close()
    assert first.segment.gateway not in addresses()


@pytest.mark.nat
def test_a_killed_emulator_leaves_no_network() -> None:
    require_nat()
    with subprocess.Popen([sys.executable, "-c", _CREATE], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        gateway = process.stdout.readline().strip()
        assert f"{gateway}/" in addresses()
        os.kill(process.pid, signal.SIGKILL)
    until = time.monotonic() + 30
    while f"{gateway}/" in addresses():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.nat
def test_the_range_of_a_killed_process_is_free_again() -> None:
    require_nat()
    first = PublicSegment()
    subnet = first.segment.subnet
    first.close()
    second = PublicSegment()
    second.close()
    assert second.segment.subnet <= subnet


def test_only_root_may_make_nats() -> None:
    if os.geteuid() != 0:
        with pytest.raises(NatUnavailableError, match="--nat needs root"):
            check_nat_available()
        return
    ended = subprocess.run([sys.executable, "-c", _WITHOUT_ROOT], capture_output=True, text=True, check=False)
    assert "--nat needs root, to make network namespaces: run as root, or leave it out" in ended.stderr


def test_missing_tools_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gets as far as the tools")
    monkeypatch.setattr("emulator.aws.sandboxes.nat._PATH", str(tmp_path))
    with pytest.raises(NatUnavailableError, match="needs iproute2, iptables, util-linux: install them"):
        check_nat_available()
