import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import boto3
import pytest

from tests.fmi_shim.world import World, rendezvous_server

BUCKET = "exchange"
# Serves until its standard input ends.
_MOTO = """
import logging, sys
from moto.server import ThreadedMotoServer
logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print("AWS_ENDPOINT_URL=http://%s:%d" % server.get_host_and_port(), flush=True)
sys.stdin.read()
server.stop()
"""


@pytest.fixture(scope="session")
def rendezvous_address() -> Iterator[str]:
    with rendezvous_server() as address:
        yield address


@pytest.fixture
def world(rendezvous_address: str, tmp_path: Path) -> World:
    return World(rendezvous_address, tmp_path)


@pytest.fixture(scope="session")
def s3_access() -> Iterator[dict[str, str]]:
    """moto's S3 with an empty bucket, and the variables by which boto3 finds it."""
    # A process of its own: whatever else the tests do with moto in theirs may reset it.
    with _s3_server([sys.executable, "-c", _MOTO]) as access:
        yield access


@pytest.fixture(scope="session")
def emulated_s3_access() -> Iterator[dict[str, str]]:
    """The local cloud's S3, which answers several times faster."""
    command = Path(sys.executable).with_name("fmi-emulator")
    with _s3_server([str(command), "serve", "--port", "0"]) as access:
        yield access


@contextmanager
def _s3_server(command: Sequence[str]) -> Iterator[dict[str, str]]:
    """Run a server that says first where it is, and make the bucket there."""
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        assert server.stdout is not None
        try:
            access = {
                "AWS_ENDPOINT_URL": server.stdout.readline().strip().partition("=")[2],
                "AWS_ACCESS_KEY_ID": "of-the-test",
                "AWS_SECRET_ACCESS_KEY": "of-the-test",
                "AWS_EC2_METADATA_DISABLED": "true",
            }
            with pytest.MonkeyPatch.context() as patch:
                for name, value in access.items():
                    patch.setenv(name, value)
                boto3.client("s3", region_name="us-east-1").create_bucket(Bucket=BUCKET)
            yield access
        finally:
            server.terminate()


@pytest.fixture(scope="session")
def redis_port() -> Iterator[int]:
    """A Redis server of our own, which keeps nothing on disk."""
    redis = pytest.importorskip("redis")
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is missing: as root, apt-get install redis-server (as .ci/run does)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    command = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:
            client = redis.Redis(port=port, retry=redis.retry.Retry(redis.backoff.ConstantBackoff(0.02), 500))
            client.ping()
            client.close()
            yield port
        finally:
            server.terminate()


def world_on(channel: str, request: pytest.FixtureRequest, folder: Path) -> World:
    """Return where ranks run that use `channel` alone; skips where there is none."""
    if channel == "s3":
        return _world_on_s3(folder, request.getfixturevalue("emulated_s3_access"))
    if channel == "redis":
        port = request.getfixturevalue("redis_port")
        return World("", folder, {"Redis": {"host": "127.0.0.1", "port": port, "timeout": 1}})
    if channel == "shm" and not Path("/dev/shm").is_dir():
        pytest.skip("POSIX semaphores in shared memory: Linux")
    environment = {"FMI_CHANNEL": "shm"} if channel == "shm" else {}
    return World(request.getfixturevalue("rendezvous_address"), folder, environment=environment)


def _world_on_s3(folder: Path, access: dict[str, str]) -> World:
    return World("", folder, {"S3": {"bucket_name": BUCKET, "timeout": 50}}, access)


@pytest.fixture
def s3_world(s3_access: dict[str, str], tmp_path: Path) -> World:
    """Ranks on moto's S3."""
    return _world_on_s3(tmp_path, s3_access)


@pytest.fixture
def redis_world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    return world_on("redis", request, tmp_path)


@pytest.fixture
def shm_world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    return world_on("shm", request, tmp_path)
