"""Hole punching through real NATs, and the relay where it cannot be."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.network.nat_lab import SERVER, Mapping, NatLab, unavailable

_REASON = unavailable()
pytestmark = [pytest.mark.nat, pytest.mark.skipif(_REASON is not None, reason=str(_REASON))]

PORT = 10000
_ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def lab() -> Iterator[NatLab]:
    """The lab, with a rendezvous server on its public segment."""
    with NatLab() as built:
        command = [sys.executable, "-m", "rendezvous", "--host", SERVER, "--port", str(PORT)]
        with subprocess.Popen(built.command("server", command), stdout=subprocess.PIPE, text=True, cwd=_ROOT) as server:
            assert server.stdout is not None
            assert server.stdout.readline().split()[-1] == f"{SERVER}:{PORT}"
            try:
                yield built
            finally:
                server.kill()


@dataclass(frozen=True)
class Met:
    """What a rank prints of its connections: seconds of each, addresses at the other end, number of relayed ones."""

    seconds: list[float]
    peers: list[str]
    relayed: int


def connect(
    lab: NatLab, hosts: tuple[str, str], name: str, mode: str = "framed", times: int = 1, late: float = 0.0
) -> list[Met]:
    """Run two ranks on two hosts, the second one `late` seconds after the first."""
    with ExitStack() as stack:
        ranks = []
        for rank, host in enumerate(hosts):
            time.sleep(rank * late)
            command = [
                sys.executable,
                "-m",
                "tests.network.connect_peer",
                f"{SERVER}:{PORT}",
                name,
                str(rank),
                str(times),
                mode,
            ]
            process = subprocess.Popen(lab.command(host, command), stdout=subprocess.PIPE, text=True, cwd=_ROOT)
            stack.enter_context(process)
            stack.callback(process.kill)
            ranks.append(process)
        outputs = [rank.communicate(timeout=50)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0]
    return [Met(**json.loads(output)) for output in outputs]


@pytest.mark.parametrize("mode", ["framed", "raw"])
def test_ranks_behind_two_port_preserving_filtering_nats_punch(lab: NatLab, mode: str) -> None:
    lab.translate(Mapping.preserving)
    a, b = connect(lab, ("a2", "b2"), f"punch-{mode}", mode, times=5)
    assert (a.peers, b.peers) == (["203.0.113.2"], ["203.0.113.1"])
    assert a.relayed == b.relayed == 0


@pytest.mark.parametrize("mapping", list(Mapping), ids=lambda mapping: mapping.name)
def test_ranks_behind_the_same_nat_use_their_local_addresses(lab: NatLab, mapping: Mapping) -> None:
    lab.translate(mapping)
    first, second = connect(lab, ("a2", "a3"), f"local-{mapping.name}", times=5)
    assert (first.peers, second.peers) == (["10.1.0.3"], ["10.1.0.2"])


def test_behind_port_randomising_nats_the_relay_takes_over_within_3_s_and_is_logged(lab: NatLab) -> None:
    lab.translate(Mapping.random)
    a, b = connect(lab, ("a2", "b2"), "relay")
    assert a.peers == b.peers == [SERVER]
    assert a.relayed == b.relayed == 1
    assert min(a.seconds + b.seconds) < 3.0  # of the rank that came last: then both were there


@pytest.mark.parametrize("mapping", list(Mapping), ids=lambda mapping: mapping.name)
def test_a_rank_behind_a_nat_reaches_one_without(lab: NatLab, mapping: Mapping) -> None:
    lab.translate(mapping)
    inside, outside = connect(lab, ("a2", "open1"), f"open-{mapping.name}")
    assert inside.peers == ["203.0.113.21"]
    assert outside.peers == ["203.0.113.1"]
    assert inside.relayed == 0


@pytest.mark.parametrize("hosts", [("a2", "b2"), ("b2", "a2")], ids=["a first", "b first"])
def test_a_rank_that_starts_seconds_late_is_connected(lab: NatLab, hosts: tuple[str, str]) -> None:
    lab.translate(Mapping.preserving)
    early, late = connect(lab, hosts, f"late-{hosts[0]}", late=3.0)
    assert early.relayed == late.relayed == 0
    assert early.seconds[0] > late.seconds[0]


@pytest.mark.parametrize("mode", ["framed", "raw"])
def test_1000_of_1000_pairs_connect_on_a_bridge(lab: NatLab, mode: str) -> None:
    first, second = connect(lab, ("open1", "open2"), f"bridge-{mode}", mode, times=1000)
    assert len(first.seconds) == len(second.seconds) == 1000
    assert first.relayed == second.relayed == 0
