"""Containers as sandboxes, beside `docker run` of the same image and beside processes: python -m benchmarks.containers.

Needs a container daemon and an image with python3 to build on, which `--base-image` names. With `--short`, which `make
bench` gives, the table is left out where there is none, with the reason.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ConnectionClosedError, EndpointConnectionError

from benchmarks.arguments import parser
from benchmarks.cleanup import exit_on_signals
from benchmarks.whole_runs import Figure, machine
from emulator.aws.sandboxes.containers.cgroups import ContainerGroups
from emulator.aws.sandboxes.containers.daemon import Daemon
from emulator.aws.sandboxes.containers.ownership import OWNER_LABEL
from emulator.cloud import ContainerOptions, LocalCloud
from emulator.errors import EmulatorError
from emulator.fmi.executor.image import DEFAULT_BASE_IMAGE, ImageRequest, executor_image

_ROLE = "arn:aws:iam::123456789012:role/benchmark"
_COLD, _WARM, _FREEZES, _TURNS = 5, 200, 20, 3
_MIB = 1 << 20
_RIE_S = 30
_FMIRUN = Path(sys.executable).with_name("fmirun")
_BARRIER = """
import os, fmi
fmi.Communicator(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), "fmi.json", "b").barrier()
"""
_ALLREDUCE = f"""
import os, statistics, time, numpy as np, fmi
rank = int(os.environ["RANK"])
comm = fmi.Communicator(rank, int(os.environ["WORLD_SIZE"]), "fmi.json", "b")
array, add, times = np.ones({_MIB // 8}), fmi.func(fmi.op.sum), []
for _ in range(60):
    comm.barrier()
    began = time.perf_counter()
    comm.allreduce(array, add)
    times.append(time.perf_counter() - began)
if rank == 0:
    print(statistics.median(times[10:]))
"""
_CUT_TIMEOUT_S = 4
# The call that the cut interrupts began after it or shortly before: its peers notice when its time limit has passed.
_CUT = f"""
import os, time, fmi
comm = fmi.Communicator(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), "fmi.json", "cut")
comm.barrier()
print("connected", os.uname().nodename, flush=True)
while True:
    began = time.monotonic()
    try:
        comm.barrier()
    except Exception as error:
        print("late by", time.monotonic() - began - {_CUT_TIMEOUT_S}, "naming", error, flush=True)
        raise
    time.sleep(0.01)
"""
_VICTIM = 1


def _configuration(timeout_s: int) -> dict[str, Any]:
    direct = {"enabled": True, "host": "127.0.0.1", "port": 1, "max_timeout": timeout_s * 1000}
    return {"backends": {"Direct": direct}}


def measure(daemon: Daemon, image: str, base_image: str, turns: int, rie: Path | None) -> Iterator[Figure]:
    """Measure everything; yield each figure when it is known.

    Parameters
    ----------
    image
        The executor's, built on `base_image`.
    turns
        How often commands of containers and of processes are compared.
    rie
        AWS's Runtime Interface Emulator, which other emulators run images with; None if it is not here.
    """
    with _function(image) as (functions, name):
        yield _cold_start(functions, name, image)
        yield _warm(functions, name)
    yield _with_rie(image, rie)
    yield _freezing(daemon, image)
    yield Figure("16 containers up and through a barrier, whole command", "< 8 s", f"{_barrier(base_image):.1f} s")
    times = [(_allreduce("docker", base_image), _allreduce("local", base_image)) for _ in range(turns)]
    containers, processes = (statistics.median(each) for each in zip(*times, strict=True))
    measured = f"{containers * 1e3:.2f} ms, processes {processes * 1e3:.2f} ms: ratio {containers / processes:.2f}"
    yield Figure("allreduce of 1 MiB between 4 containers", "< 1.3 of processes", measured)
    yield _cut(daemon, base_image)


@contextmanager
def _function(image: str) -> Iterator[tuple[Any, str]]:
    """Run a cloud with one function that returns its event, in a container."""
    options = ContainerOptions(image)
    with LocalCloud(containers=options) as cloud:
        functions = cloud.client("lambda")
        functions.create_function(
            FunctionName="echo",
            Role=_ROLE,
            PackageType="Image",
            Code={"ImageUri": image},
            ImageConfig={"EntryPoint": ["python3", "-c", _ECHO]},
            MemorySize=1769,
            Timeout=60,
        )
        yield functions, "echo"


# As small as a runtime can be, so that the platform is measured.
_ECHO = """
import http.client, os
api = "/2018-06-01/runtime/invocation"
connection = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
while True:
    connection.request("GET", f"{api}/next")
    answer = connection.getresponse()
    event, request = answer.read(), answer.headers["Lambda-Runtime-Aws-Request-Id"]
    connection.request("POST", f"{api}/{request}/response", event)
    connection.getresponse().read()
"""


def _cold_start(functions: Any, name: str, image: str) -> Figure:
    cold, bare = [], []
    for number in range(_COLD):
        functions.update_function_configuration(FunctionName=name, Description=str(number))
        while functions.get_function_configuration(FunctionName=name)["LastUpdateStatus"] != "Successful":
            time.sleep(0.05)
        began = time.perf_counter()
        functions.invoke(FunctionName=name)
        cold.append(time.perf_counter() - began)
        began = time.perf_counter()
        command = [
            "docker",
            "run",
            "--rm",
            "--network",
            "none",
            "--entrypoint",
            "python3",
            image,
            "-c",
            "import http.client",
        ]
        subprocess.run(command, check=True)
        bare.append(time.perf_counter() - began)
    ours, theirs = statistics.median(cold), statistics.median(bare)
    measured = f"{ours:.2f} s, docker run {theirs:.2f} s"
    return Figure("cold invocation in a container", "docker run + 0.2 s", measured)


def _warm(functions: Any, name: str) -> Figure:
    times = []
    for _ in range(_WARM):
        began = time.perf_counter()
        functions.invoke(FunctionName=name)
        times.append(time.perf_counter() - began)
    return Figure("warm invocation in a container, p50", "< 8 ms", f"{statistics.median(times) * 1e3:.1f} ms")


def _with_rie(image: str, rie: Path | None) -> Figure:
    """Measure the same function as SAM and MiniStack run it: each container has an HTTP server of its own."""
    name = "the same with AWS's Runtime Interface Emulator, as SAM and MiniStack run images"
    if rie is None:
        return Figure(name, "", "not measured: --rie names no program")
    cold, warm = [], []
    network = _docker("network", "create", f"fmi-benchmark-{os.getpid()}")
    try:
        for _ in range(_COLD):
            began = time.perf_counter()
            mounted = ("--volume", f"{rie.absolute()}:/rie:ro", "--entrypoint", "/rie")
            command = ("/usr/bin/python3", "-c", _ECHO)
            container = _docker("run", "--detach", "--network", network, *mounted, image, *command)
            try:
                address = _docker(
                    "inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", container
                )
                functions = boto3.client(
                    "lambda",
                    endpoint_url=f"http://{address}:8080",
                    region_name="us-east-1",
                    config=Config(signature_version=UNSIGNED, retries={"total_max_attempts": 1}),
                )
                _invoke(functions, began + _RIE_S)
                cold.append(time.perf_counter() - began)
                for _ in range(_WARM // _COLD):
                    began = time.perf_counter()
                    _invoke(functions, began + _RIE_S)
                    warm.append(time.perf_counter() - began)
            finally:
                _docker("rm", "--force", container)
    finally:
        _docker("network", "rm", network)
    measured = f"cold {statistics.median(cold):.2f} s, warm {statistics.median(warm) * 1e3:.1f} ms"
    return Figure(name, "beside ours", measured)


def _docker(*arguments: str) -> str:
    return subprocess.run(("docker", *arguments), capture_output=True, text=True, check=True).stdout.strip()


def _invoke(functions: Any, until: float) -> None:
    """Invoke the function; its server may not listen yet."""
    while True:
        try:
            functions.invoke(FunctionName="function")["Payload"].read()
        except (EndpointConnectionError, ConnectionClosedError):
            if time.perf_counter() > until:
                raise
            time.sleep(0.005)
        else:
            return


def _freezing(daemon: Daemon, image: str) -> Figure:
    """Measure both ways to stop and continue a container."""
    with _function(image) as (functions, name):
        functions.invoke(FunctionName=name)
        labelled = daemon.labelled_containers(OWNER_LABEL)
        container = next(found for found, label in labelled if json.loads(label)["pid"] == os.getpid())
        groups = ContainerGroups.of_process(daemon.state(container).pid, container)
        if groups is None or not groups.can_freeze:
            return Figure("freezing and thawing", "0.3 ms", "not permitted here")
        groups.thaw()
        ways = (
            ("cgroup", groups.freeze, groups.thaw),
            ("pause", lambda: daemon.pause(container), lambda: daemon.unpause(container)),
        )
        measured = []
        for label, freeze, thaw in ways:
            times = []
            for _ in range(_FREEZES):
                began = time.perf_counter()
                freeze()
                thaw()
                times.append(time.perf_counter() - began)
            measured.append(f"{label} {statistics.median(times) * 1e3:.2f} ms")
        return Figure("freezing and thawing a container", "0.3 ms, 28 ms by pause", ", ".join(measured))


def _barrier(base_image: str) -> float:
    began = time.perf_counter()
    _run(_BARRIER, 16, "docker", base_image)
    return time.perf_counter() - began


def _allreduce(backend: str, base_image: str) -> float:
    output = _run(_ALLREDUCE, 4, backend, base_image)
    return float(output.partition("] ")[2])


def _cut(daemon: Daemon, base_image: str) -> Figure:
    """Take a rank off its network; measure how late the others name it, after its time limit has passed."""
    with (
        _command(_CUT, 3, "docker", base_image, _CUT_TIMEOUT_S) as command,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as running,
    ):
        assert running.stdout is not None
        lines = [running.stdout.readline() for _ in range(3)]
        victim = next(line.split()[-1] for line in lines if line.startswith(f"[{_VICTIM}]"))
        networks = {owner: network for network, owner in daemon.labelled_networks(OWNER_LABEL)}
        containers = daemon.labelled_containers(OWNER_LABEL)
        container, owner = next(found for found in containers if found[0].startswith(victim))
        daemon.disconnect(container, networks[owner])
        ends = [line.partition("late by ")[2] for line in running.stdout if not line.startswith(f"[{_VICTIM}]")]
    late = [end.split(maxsplit=2) for end in ends if end]
    naming = sum(f"rank {_VICTIM}" in what for _, _, what in late)
    measured = f"{max(float(seconds) for seconds, *_ in late):.2f} s, named by {naming} of {len(late)}"
    return Figure(f"a rank's network cut, named after the limit of {_CUT_TIMEOUT_S} s", "< 1 s", measured)


def _run(program: str, ranks: int, backend: str, base_image: str) -> str:
    with _command(program, ranks, backend, base_image, timeout_s=60) as command:
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        raise EmulatorError(f"fmirun failed: {ended.stderr.strip().splitlines()[-1]}")
    return ended.stdout


@contextmanager
def _command(program: str, ranks: int, backend: str, base_image: str, timeout_s: int) -> Iterator[list[str | Path]]:
    """Write a program to a folder; yield the command that runs it."""
    with tempfile.TemporaryDirectory(prefix="fmi-benchmark-") as folder:
        script = Path(folder) / "program" / "main.py"
        script.parent.mkdir()
        script.write_text(program)
        (script.parent / "fmi.json").write_text(json.dumps(_configuration(timeout_s)))
        options = ["--backend", "docker", "--base-image", base_image] if backend == "docker" else []
        yield [_FMIRUN, "-n", str(ranks), *options, script]


def main() -> None:
    """Run all measurements and print a Markdown table."""
    options = parser("benchmarks.containers", __doc__)
    options.add_argument("--base-image", default=DEFAULT_BASE_IMAGE, help="image with python3 to build on")
    options.add_argument("--short", action="store_true", help="one turn; no table where there are no containers")
    options.add_argument(
        "--rie",
        type=Path,
        metavar="FILE",
        help="AWS's Runtime Interface Emulator, for example from the package aws-sam-cli: "
        f"samcli/local/rapid/aws-lambda-rie-{platform.machine()}",
    )
    arguments = options.parse_args()
    exit_on_signals()
    try:
        daemon = Daemon()
        request = ImageRequest(arguments.base_image)
        image = executor_image(daemon, request, lambda line: print(line, file=sys.stderr))
    except EmulatorError as error:
        if not arguments.short:
            raise SystemExit(f"benchmarks.containers: {error}") from None
        print(f"Containers are not measured: {error}")
        return
    print(f"On {machine()}:\n\n| what | goal | measured |\n|---|---|---|", flush=True)
    turns = 1 if arguments.short else _TURNS
    for figure in measure(daemon, image, arguments.base_image, turns, arguments.rie):
        print(f"| {figure.name} | {figure.goal} | {figure.measured} |", flush=True)


if __name__ == "__main__":
    main()
