"""The rendezvous server in a container, built from the Dockerfile that the documentation names."""

import json
import os
import secrets
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from emulator.fmi.executor.image import python_of, wheelhouse_of
from tests import containers
from tests.integration.fmirun import EXAMPLES

pytestmark = pytest.mark.timeout(240)
ROOT = EXAMPLES.parent
RANK = """
import os, fmi
rank = int(os.environ["RANK"])
comm = fmi.Communicator(rank, 2, "fmi.json", "image")
print(comm.allreduce(rank + 1, fmi.func(fmi.op.sum), fmi.types(fmi.datatypes.int)))
"""


def image() -> str:
    deploy = ROOT / "docs" / "deploy"
    requirements = (deploy / "requirements.txt").read_text()
    wheels = wheelhouse_of(requirements, python_of(containers.daemon(), containers.BASE_IMAGE))
    files: dict[str, str | bytes] = {
        str(path.relative_to(ROOT)): path.read_bytes() for path in (ROOT / "rendezvous").rglob("*.py")
    }
    files |= {f"docs/deploy/wheelhouse/{path.name}": path.read_bytes() for path in wheels.glob("*.whl")}
    files["docs/deploy/requirements.txt"] = requirements
    dockerfile = (deploy / "Dockerfile").read_text()
    return containers.build("fmi-test-rendezvous", dockerfile, files, {"BASE_IMAGE": containers.BASE_IMAGE})


@pytest.fixture
def server() -> Iterator[tuple[str, str]]:
    """Run the server; yield its address and its secret."""
    import docker

    built, secret, name = image(), secrets.token_hex(16), f"fmi-test-{uuid.uuid4().hex[:8]}"
    client = docker.APIClient(containers.daemon().url)
    network = client.create_network(name)["Id"]
    container = client.create_container(
        built,
        environment={"FMI_RENDEZVOUS_SECRET": secret},
        host_config=client.create_host_config(network_mode=network),
    )["Id"]
    try:
        client.start(container)
        address = client.inspect_container(container)["NetworkSettings"]["Networks"][name]["IPAddress"]
        wait_until_healthy(address)
        yield address, secret
        # As `docker stop` does: the server drains and ends by itself.
        client.stop(container, timeout=15)
        assert client.inspect_container(container)["State"]["ExitCode"] == 0
    finally:
        client.remove_container(container, force=True)
        client.remove_network(network)
        client.close()


def wait_until_healthy(address: str) -> None:
    until = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"http://{address}:10001/health", timeout=5) as answer:
                assert answer.status == 200
                return
        except OSError:
            assert time.monotonic() < until
            time.sleep(0.1)


def test_ranks_meet_at_the_server_of_the_dockerfile(server: tuple[str, str], tmp_path: Path) -> None:
    address, secret = server
    (tmp_path / "rank.py").write_text(RANK)
    direct = {"enabled": True, "host": address, "port": 10000, "max_timeout": 30000}
    (tmp_path / "fmi.json").write_text(json.dumps({"backends": {"Direct": direct}}))
    dropin = ROOT / "fmi_shim" / "dropin"
    environment = {**os.environ, "FMI_FRAMED": "1", "PYTHONPATH": f"{ROOT}:{dropin}"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "rank.py"],
            cwd=tmp_path,
            env={**environment, "RANK": str(rank), "FMI_RENDEZVOUS_SECRET": secret},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for rank in ranks:
        output, errors = rank.communicate(timeout=60)
        assert (rank.returncode, output) == (0, "3\n"), errors
