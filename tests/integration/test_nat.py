"""Whole runs behind NATs: ranks connect by hole punching behind cones, and through the relay behind symmetric ones."""

import json
from pathlib import Path

import pytest

from tests import containers
from tests.emulator.aws.sandboxes.test_nat import require_nat
from tests.integration.fmirun import EXAMPLES, fmirun
from tests.integration.serving import serving
from tests.integration.test_pipeline import pipeline

# The first test with containers of a session may build the executor's image.
pytestmark = [pytest.mark.nat, pytest.mark.timeout(240)]
PRIVATE = "169.254.76.1"
PROGRAM = """
import os, socket, fmi
rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
comm = fmi.Communicator(rank, size, "fmi.json", "nat")
total = comm.allreduce(rank, fmi.func(fmi.op.sum), fmi.types(fmi.datatypes.int))
host, _, port = os.environ["FMI_RENDEZVOUS"].rpartition(":")
with socket.create_connection((host, int(port))) as server:
    print(f"sum {total} from {server.getsockname()[0]}", flush=True)
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    require_nat()
    folder = tmp_path / "program"
    folder.mkdir()
    (folder / "main.py").write_text(PROGRAM)
    (folder / "fmi.json").write_text((EXAMPLES / "fmi.json").read_text())
    payload = {
        "bucket": "nat",
        "world_size": "2",
        "object_type": "folder",
        "S3_object_name": "program",
        "script": "/tmp/program/main.py",
    }
    (tmp_path / "payload.json").write_text(json.dumps(payload))
    return folder / "main.py"


def outputs(output: str) -> list[str]:
    return sorted(line for line in output.splitlines() if "sum" in line)


def test_ranks_behind_cones_punch_holes(tmp_path: Path, program: Path) -> None:
    status, output, errors = fmirun(tmp_path, "-n", 3, "--nat", "cone", program)
    assert status == 0, errors
    assert outputs(output) == [f"[{rank}] sum 3 from {PRIVATE}" for rank in range(3)]
    assert "relay" not in output + errors


def test_ranks_of_a_pipeline_behind_symmetric_nats_are_relayed_over_slow_links(tmp_path: Path, program: Path) -> None:
    links = ("--network-latency", "1ms", "--fault-seed", "7")
    status, output, errors = pipeline(tmp_path, "payload.json", "--nat", "symmetric", *links)
    assert status == 0, errors
    assert outputs(output) == [f"[{rank}] sum 1 from {PRIVATE}" for rank in range(2)]
    assert "rank 1 and rank 0 are connected through the relay of the rendezvous server 198.1" in output
    assert "links: slow link all by 1ms (--fault-seed 7)" in errors


def test_containers_behind_symmetric_nats_are_relayed_over_slow_links(tmp_path: Path, program: Path) -> None:
    containers.executor()
    options = ("--backend", "docker", "--base-image", containers.BASE_IMAGE, "--network-latency", "1ms")
    status, output, errors = fmirun(tmp_path, "-n", 2, "--nat", "symmetric", *options, program)
    assert status == 0, errors
    assert outputs(output) == [f"[{rank}] sum 1 from {PRIVATE}" for rank in range(2)]
    assert "1 pair of ranks was relayed" in errors


def test_the_nat_of_a_running_cloud_is_its_own(tmp_path: Path, program: Path) -> None:
    endpoint = ("--endpoint-url", "http://127.0.0.1:9")
    status, _, errors = pipeline(tmp_path, "payload.json", "--nat", "cone", *endpoint)
    assert status == 2
    assert "--nat cannot be used with --endpoint-url: pass it to the `fmi-emulator serve` of that cloud" in errors


def test_ranks_that_a_server_runs_are_behind_its_nats(tmp_path: Path, program: Path) -> None:
    with serving(tmp_path, "--nat", "cone") as server:
        rendezvous = server.exported["FMI_RENDEZVOUS"]
        status, output, errors = pipeline(
            tmp_path, "payload.json", "--endpoint-url", server.url, FMI_RENDEZVOUS=rendezvous
        )
    assert status == 0, errors
    assert outputs(output) == [f"[{rank}] sum 1 from {PRIVATE}" for rank in range(2)]
