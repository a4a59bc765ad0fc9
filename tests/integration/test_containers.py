"""The commands with containers: a whole run, what is left behind, and clear messages."""

import json
import signal
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from emulator.cloud import ContainerOptions, LocalCloud
from tests import containers
from tests.commands import FMI_EMULATOR, Command, run
from tests.emulator.conftest import ROLE, archive
from tests.integration.account import empty_account
from tests.integration.fmirun import EXAMPLES, fmirun, start

# The first test of a session may build the executor's image.
pytestmark = pytest.mark.timeout(240)
BASE = ("--base-image", containers.BASE_IMAGE)


def test_eight_containers_run_every_collective_and_nothing_is_left(tmp_path: Path) -> None:
    containers.executor()
    program = tmp_path / "program" / "world.py"
    program.parent.mkdir()
    program.write_text(COLLECTIVES)
    (program.parent / "fmi.json").write_text((EXAMPLES / "fmi.json").read_text())
    command = start(tmp_path, "-n", 8, "--backend", "docker", *BASE, program)
    output, errors = command.communicate(timeout=200)
    assert command.returncode == 0, errors
    assert sorted(output.splitlines()) == [f"[{rank}] all agree" for rank in range(8)]
    assert containers.own_containers(command.pid) == []


def test_a_sweep_runs_in_containers(tmp_path: Path) -> None:
    containers.executor()
    out = tmp_path / "sweep"
    given = ["--backend", "docker", *BASE, "--world-sizes", "2", "--memory", "256,512", "--out", str(out)]
    done = run(FMI_EMULATOR, "sweep", *given, EXAMPLES / "reduce.py", timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("[0] 2 ranks: 1 + 2 + ... + 2 = 3") == 2
    rows = (out / "sweep.csv").read_text().splitlines()[1:]
    assert [row.split(",")[:2] for row in rows] == [["2", "256"], ["2", "512"]]
    assert all(",ok," in row for row in rows)


COLLECTIVES = """
import os, numpy as np, fmi
rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
comm = fmi.Communicator(rank, size, "fmi.json", "world")
add, mine = fmi.func(fmi.op.sum), np.full(8, float(rank))
total, ranks = size * (size - 1) / 2, np.arange(size, dtype=float)
comm.barrier()
assert (comm.allreduce(mine, add) == total).all()
reduced = comm.reduce(mine, 1, add)
assert rank != 1 or (reduced == total).all()
assert (comm.scan(mine, add) == sum(range(rank + 1))).all()
before = comm.exscan(mine, add)
assert rank == 0 or (before == sum(range(rank))).all()
assert (comm.bcast(mine if rank == 2 else np.empty(8), 2) == 2).all()
assert (comm.allgather(np.array([float(rank)])) == ranks).all()
gathered = comm.gather(np.array([float(rank)]), 3)
assert rank != 3 or (gathered == ranks).all()
assert comm.scatter(ranks if rank == 0 else np.empty(1), 0)[0] == rank
assert (comm.alltoall(ranks + size * rank) == ranks * size + rank).all()
assert (comm.reduce_scatter(np.repeat(ranks, 2), add) == rank * size).all()
comm.send(mine, (rank + 1) % size) if rank % 2 == 0 else None
received = np.empty(8)
comm.recv((rank - 1) % size, out=received) if rank % 2 == 1 else None
print("all agree")
"""


def killed_run(tmp_path: Path, number: int) -> Command:
    """Start a run of two sleeping ranks, wait until its containers run, and send a signal."""
    program = tmp_path / "program" / "sleeps.py"
    program.parent.mkdir(exist_ok=True)
    program.write_text("import time\nprint('started', flush=True)\ntime.sleep(600)\n")
    command = start(tmp_path, "-n", 2, "--backend", "docker", *BASE, program)
    assert "started" in command.stdout.readline()
    assert len(containers.own_containers(command.pid)) >= 3
    command.send_signal(number)
    command.communicate(timeout=60)
    return command


def test_ctrl_c_removes_containers_and_network(tmp_path: Path) -> None:
    containers.executor()
    command = killed_run(tmp_path, signal.SIGINT)
    assert command.returncode == 130
    assert containers.own_containers(command.pid) == []


def test_the_next_start_removes_what_a_killed_emulator_left(tmp_path: Path) -> None:
    containers.executor()
    command = killed_run(tmp_path, signal.SIGKILL)
    assert len(containers.own_containers(command.pid)) >= 3
    status, _, errors = fmirun(tmp_path, "-n", 1, "--backend", "docker", *BASE, EXAMPLES / "reduce.py")
    assert status == 0, errors
    assert containers.own_containers(command.pid) == []


def test_a_lost_network_is_reported_by_the_other_ranks(tmp_path: Path) -> None:
    containers.executor()
    program = tmp_path / "program" / "lost.py"
    program.parent.mkdir()
    program.write_text(
        """
import os, time, numpy as np, fmi
rank = int(os.environ["RANK"])
comm = fmi.Communicator(rank, 2, "fmi.json", "lost")
comm.barrier()
print("connected", os.uname().nodename, flush=True)
while True:
    comm.allreduce(np.zeros(1), fmi.func(fmi.op.sum))
    time.sleep(0.05)
"""
    )
    direct = {"enabled": True, "host": "x", "port": 1, "max_timeout": 4000}
    (program.parent / "fmi.json").write_text(json.dumps({"backends": {"Direct": direct}}))
    command = start(tmp_path, "-n", 2, "--backend", "docker", *BASE, program)
    lines = [command.stdout.readline() for _ in range(2)]
    victim = next(line.split()[-1] for line in lines if line.startswith("[1]"))
    container = next(name for name in containers.own_containers(command.pid) if name.startswith(victim))
    network = next(name for name in containers.own_containers(command.pid) if name in containers.networks())
    containers.daemon().disconnect(container, network)
    _, errors = command.communicate(timeout=90)
    assert command.returncode == 1, errors
    assert "rank 1" in errors
    assert containers.own_containers(command.pid) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--image", "x"), "--image needs --backend docker"),
        (("--ipc",), "--ipc needs --backend docker"),
        (("--backend", "docker", "--runtime-client", "fork"), "--runtime-client fork needs processes"),
        (("--backend", "docker", "--image", "x", "--base-image", "y"), "--image replaces the executor's image"),
        (("--backend", "docker"), "no container daemon answers at unix:///nonexistent/docker.sock: start one"),
    ],
)
def test_what_cannot_be_done_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], message: str
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    status, output, errors = fmirun(tmp_path, "-n", 1, *options, EXAMPLES / "reduce.py")
    assert (status, output) == (2, "")
    assert errors.startswith(f"fmirun: {message}")
    assert len(errors.splitlines()) == 1


def test_a_remote_daemon_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://10.0.0.1:2375")
    status, _, errors = fmirun(tmp_path, "-n", 1, "--backend", "docker", EXAMPLES / "reduce.py")
    assert status == 2
    assert "expected unix:///path of a socket on this machine" in errors


def test_the_published_pipeline_runs_its_script_as_a_child_in_containers(tmp_path: Path) -> None:
    """As the published executor does: the rank's program is a process of its own, with fmi on its path."""
    containers.executor()
    folder = tmp_path / "scripts"
    folder.mkdir()
    (folder / "fmi.json").write_text((EXAMPLES / "fmi.json").read_text())
    (folder / "child.py").write_text(
        """
import os, fmi
rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
comm = fmi.Communicator(rank, size, "fmi.json", "child")
total = comm.allreduce(rank, fmi.func(fmi.op.sum), fmi.types(fmi.datatypes.int))
print(f"sum {total} in {os.getcwd()}", flush=True)
"""
    )
    (folder / "parent.py").write_text(
        """
import os, subprocess, sys
path = os.pathsep.join([os.environ["LAMBDA_TASK_ROOT"], os.environ.get("PYTHONPATH", "")])
subprocess.run([sys.executable, "child.py"], check=True, env={**os.environ, "PYTHONPATH": path})
"""
    )
    payload = {
        "bucket": "published",
        "world_size": "4",
        "object_type": "folder",
        "S3_object_name": "scripts",
        "script": "/tmp/scripts/parent.py",
    }
    (tmp_path / "payload.json").write_text(json.dumps(payload))
    ended = run(FMI_EMULATOR, "pipeline", "payload.json", "--backend", "docker", *BASE, cwd=tmp_path, timeout=150)
    assert ended.returncode == 0, ended.stderr
    assert sorted(ended.stdout.splitlines()) == [f"[{rank}] sum 6 in /tmp/scripts" for rank in range(4)]


def test_containers_share_memory_only_when_asked(tmp_path: Path) -> None:
    containers.executor()
    program = tmp_path / "program" / "shm.py"
    program.parent.mkdir()
    (program.parent / "fmi.json").write_text((EXAMPLES / "fmi.json").read_text())
    program.write_text(
        """
import os, fmi
rank = int(os.environ["RANK"])
comm = fmi.Communicator(rank, 2, "fmi.json", "shm")
print("sum", comm.allreduce(rank + 1, fmi.func(fmi.op.sum), fmi.types(fmi.datatypes.int)), flush=True)
"""
    )
    options = ("-n", 2, "--backend", "docker", *BASE, "-x", "FMI_CHANNEL=shm")
    shared, alone = start(tmp_path, *options, "--ipc", program), start(tmp_path, *options, program)
    output, errors = shared.communicate(timeout=150)
    assert shared.returncode == 0, errors
    assert sorted(output.splitlines()) == ["[0] sum 3", "[1] sum 3"]
    _, errors = alone.communicate(timeout=150)
    assert alone.returncode == 1
    assert "ConfigError" in errors.splitlines()[-1]


PUBLISHED_ENTRY = """#!/bin/bash
export LD_LIBRARY_PATH=/cylon/install/lib PYTHONPATH=/cylon/fmi:/var/task:/usr/local/lib/fmi
cd /cylon/aws/scripts
exec python3 -m awslambdaric lambda_entry.handler
"""
PUBLISHED_HANDLER = """
import os, subprocess, sys
import boto3
def handler(event, context):
    print(f"fmi-rank: {event['RANK']} of {event['WORLD_SIZE']} RequestId: {context.aws_request_id}", flush=True)
    s3, folder = boto3.client("s3"), event["S3_OBJECT_NAME"]
    for found in s3.list_objects_v2(Bucket=event["S3_BUCKET"], Prefix=f"{folder}/")["Contents"]:
        path = os.path.join("/tmp", found["Key"])
        os.makedirs(os.path.dirname(path), exist_ok=True)
        s3.download_file(event["S3_BUCKET"], found["Key"], path)
    variables = {name: value for name, value in event.items() if isinstance(value, str)}
    script = event["SCRIPT"]
    subprocess.run([sys.executable, script], check=True, cwd=os.path.dirname(script), env={**os.environ, **variables})
    return {"rank": event["RANK"]}
"""
PUBLISHED_LIBRARY = """
import fmi
def fmi_communicator(world_size, rank):
    return fmi.Communicator(rank, world_size, "fmi.json", "fmi_pair", 512)
"""
PUBLISHED_PROGRAM = """
import os, fmi, fmilib
from fmilib.fmi_operations import fmi_communicator
rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
comm = fmi_communicator(size, rank)
comm.barrier()
total = comm.reduce(float(rank + 1), 0, fmi.func(fmi.op.sum), fmi.types(fmi.datatypes.double))
print(f"sum {total if rank == 0 else '-'} of {fmilib.__file__} with {os.environ['LD_LIBRARY_PATH']}", flush=True)
"""


def test_the_layout_of_the_published_executor_image_runs_ranks(tmp_path: Path) -> None:
    """Its own handler below /cylon, with its fmilib, downloads the program and runs it as a child."""
    dockerfile = f"""
        FROM {containers.executor()}
        COPY cylon/ /cylon/
        ENTRYPOINT ["/cylon/aws/scripts/runCylon.sh"]
        CMD []
    """
    files = {
        "cylon/aws/scripts/runCylon.sh": PUBLISHED_ENTRY,
        "cylon/aws/scripts/lambda_entry.py": PUBLISHED_HANDLER,
        "cylon/fmi/fmilib/__init__.py": "",
        "cylon/fmi/fmilib/fmi_operations.py": PUBLISHED_LIBRARY,
        "cylon/install/lib/README": "the compiled library",
    }
    image = containers.build("fmi-test-published", dockerfile, files)
    folder = tmp_path / "scripts"
    folder.mkdir()
    (folder / "fmi.json").write_text((EXAMPLES / "fmi.json").read_text())
    (folder / "main.py").write_text(PUBLISHED_PROGRAM)
    payload = {
        "bucket": "published",
        "world_size": "2",
        "object_type": "folder",
        "S3_object_name": "scripts",
        "script": "/tmp/scripts/main.py",
    }
    (tmp_path / "payload.json").write_text(json.dumps(payload))
    arguments = ("pipeline", "payload.json", "--backend", "docker", "--image", image)
    ended = run(FMI_EMULATOR, *arguments, cwd=tmp_path, timeout=150)
    assert ended.returncode == 0, ended.stderr + ended.stdout
    place = "/cylon/fmi/fmilib/__init__.py with /cylon/install/lib"
    assert sorted(ended.stdout.splitlines()) == [f"[0] sum 3.0 of {place}", f"[1] sum - of {place}"]


def test_any_image_that_speaks_the_runtime_api_runs_ranks(tmp_path: Path) -> None:
    dockerfile = f'FROM {containers.BASE_IMAGE}\nCOPY bootstrap /bootstrap\nENTRYPOINT ["/bootstrap"]\n'
    bootstrap = containers.named(containers.BASH_BOOTSTRAP, 2)
    image = containers.build("fmi-test-any", dockerfile, {"bootstrap": bootstrap})
    status, output, errors = fmirun(tmp_path, "-n", 2, "--backend", "docker", "--image", image, EXAMPLES / "reduce.py")
    assert status == 0, errors
    assert "[0] bash got" in output
    assert "[1] bash got" in output
    assert '"WORLD_SIZE"' in output


def test_ranks_in_containers_and_ranks_in_processes_share_a_world(tmp_path: Path) -> None:
    image = containers.executor()
    program = """
        import json, os, fmi
        def handler(event, context):
            os.environ["FMI_RENDEZVOUS"] = event["rendezvous"]
            os.environ["FMI_FRAMED"] = "1"
            with open("/tmp/fmi.json", "w") as file:
                json.dump(event["config"], file)
            comm = fmi.Communicator(event["rank"], 4, "/tmp/fmi.json", "mixed")
            return comm.allreduce(event["rank"], fmi.func(fmi.op.sum), fmi.types(fmi.datatypes.int))
    """
    dockerfile = f'FROM {image}\nCOPY mixed.py /var/task/mixed.py\nCMD ["mixed.handler"]\n'
    mixed = containers.build("fmi-test-mixed", dockerfile, {"mixed.py": textwrap.dedent(program)})
    configuration = {"backends": {"Direct": {"enabled": True, "host": "x", "port": 1, "max_timeout": 30000}}}
    with LocalCloud(containers=ContainerOptions()) as cloud:
        functions = cloud.client("lambda")
        settings = {"Role": ROLE, "Timeout": 60, "MemorySize": 512}
        functions.create_function(FunctionName="image", PackageType="Image", Code={"ImageUri": mixed}, **settings)
        functions.create_function(
            FunctionName="archive",
            Runtime="python3.11",
            Handler="main.handler",
            Code={"ZipFile": archive(main=program)},
            **settings,
        )

        def rank(number: int) -> int:
            event = {"rank": number, "rendezvous": cloud.rendezvous, "config": configuration}
            name = "image" if number % 2 else "archive"
            answer = functions.invoke(FunctionName=name, Payload=json.dumps(event).encode())
            return int(answer["Payload"].read())

        with ThreadPoolExecutor(4) as threads:
            assert list(threads.map(rank, range(4))) == [6, 6, 6, 6]


def test_a_stack_of_one_image_runs_its_functions_and_its_server(tmp_path: Path) -> None:
    """As `deploy --image` leaves it on AWS. Here the server is a process, which containers do not reach."""
    image = containers.executor()
    script = tmp_path / "program" / "alone.py"
    script.parent.mkdir()
    script.write_text("import os, rendezvous.server\nprint('in', os.getcwd(), 'of', os.environ['WORLD_SIZE'])\n")
    with empty_account(tmp_path) as account:
        deployed = account.run("deploy", "--yes", "--timeout", "60", "--image-uri", image)
        assert deployed.status == 0, deployed.err
        assert "packing" not in deployed.err
        assert "healthy, " in account.run("status").out
        ended = account.run("fmirun", "-n", 2, script)
        assert (ended.status, sorted(ended.out.splitlines())) == (
            0,
            ["[0] in /tmp/program of 2", "[1] in /tmp/program of 2"],
        ), ended.err
        assert "the functions run an image: whether it has the program's modules is not known" in ended.err
