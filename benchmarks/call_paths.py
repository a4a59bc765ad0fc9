"""How many calls of the project an operation passes through, in how many files, and how often the file changes.

``python -m benchmarks.call_paths`` prints a row for each of five paths: a rank's first allreduce, which connects it; a
later allreduce of 8 bytes over framed TCP; and at the endpoint a warm Invoke, a PutObject, and an execution whose
inline Map has one item with a Lambda task. A resumed coroutine counts as a call. The fewer changes of file, the easier
a path is to follow.
"""

from __future__ import annotations

import collections
import io
import itertools
import json
import os
import pickle
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import numpy as np

import fmi_shim as fmi
from benchmarks.local_server import running_server

_ROOT = str(Path(__file__).resolve().parent.parent) + "/"
_PACKAGES = ("emulator/", "fmi_shim/", "inference/", "rendezvous/")
_RANKS = 2
_SETTLED_SECONDS = 0.2

_CLIENT = """
import sys, time, boto3
from emulator.aws.lambda_.core.interpreters import OWN_RUNTIME
from botocore.config import Config
config = Config(retries={"total_max_attempts": 1})
client = lambda name: boto3.client(name, region_name="us-east-1", config=config)
s3, functions, states = client("s3"), client("lambda"), client("stepfunctions")
s3.create_bucket(Bucket="calls")
functions.create_function(
    FunctionName="calls", Runtime=OWN_RUNTIME, Role="arn:aws:iam::000000000000:role/calls", Handler="calls.handle",
    Code={"ZipFile": open(sys.argv[1], "rb").read()})
machine = states.create_state_machine(
    name="calls", definition=sys.argv[2], roleArn="arn:aws:iam::000000000000:role/calls")["stateMachineArn"]
def run_map(items):
    started = states.start_execution(stateMachineArn=machine, input=str(list(range(items))))["executionArn"]
    time.sleep(0.4)
    assert states.describe_execution(executionArn=started)["status"] == "SUCCEEDED"
operations = {
    "invoke": lambda: functions.invoke(FunctionName="calls", Payload=b"{}")["Payload"].read(),
    "put": lambda: s3.put_object(Bucket="calls", Key="key", Body=bytes(1024)),
    "map": lambda: run_map(1),
}
print("ready", flush=True)
for line in sys.stdin:
    operations[line.strip()]()
    print("done", flush=True)
"""

_MACHINE = {
    "StartAt": "Map",
    "States": {
        "Map": {
            "Type": "Map",
            "MaxConcurrency": 1,
            "End": True,
            "ItemProcessor": {
                "StartAt": "Invoke",
                "States": {
                    "Invoke": {
                        "Type": "Task",
                        "Resource": "arn:aws:states:::lambda:invoke",
                        "Parameters": {"FunctionName": "calls", "Payload.$": "$"},
                        "End": True,
                    }
                },
            },
        }
    },
}


@dataclass(frozen=True, slots=True)
class CallPath:
    """What a path passes through.

    Attributes
    ----------
    calls
        Calls of functions of the project.
    files
        Files that these are in.
    changes
        How often a call is in another file than the one before it.
    """

    calls: int
    files: int
    changes: int


class Recorder:
    """Records the file of every call in this process's threads while `recording`."""

    def __init__(self) -> None:
        self.recording = False
        self._files: list[str] = []

    def install(self) -> None:
        """Profile this thread and all that are started from now on."""
        threading.setprofile(self._profile)
        sys.setprofile(self._profile)

    def record(self, operation: Callable[[], object]) -> list[str]:
        """Return the files of the calls that are made while `operation` runs."""
        self._files = []
        self.recording = True
        try:
            operation()
        finally:
            self.recording = False
        return self._files

    def _profile(self, frame: FrameType, event: str, _: object) -> None:
        if self.recording and event == "call":
            name = frame.f_code.co_filename
            if name.startswith(_ROOT) and name[len(_ROOT) :].startswith(_PACKAGES):
                self._files.append(name[len(_ROOT) :])


def path_of(files: list[str]) -> CallPath:
    """Return the path through `files`, one entry a call."""
    changes = sum(before != after for before, after in itertools.pairwise(files))
    return CallPath(len(files), len(set(files)), changes)


def library_paths(folder: Path) -> dict[str, list[str]]:
    """Return the files of the first and of a later allreduce, as rank 1 of 2 passes through them."""
    with running_server() as server:
        config = folder / "fmi.json"
        server.write_config(config)
        read_end, write_end = os.pipe()
        children = []
        for rank in range(_RANKS):
            child = os.fork()
            if child == 0:
                os.close(read_end)
                try:
                    _run_rank(rank, config, write_end)
                finally:
                    os._exit(0)
            children.append(child)
        os.close(write_end)
        with os.fdopen(read_end, "rb") as pipe:
            found: dict[str, list[str]] = pickle.load(pipe)  # noqa: S301 - from the process's own child
        for child in children:
            os.waitpid(child, 0)
    return found


def _run_rank(rank: int, config: Path, write_end: int) -> None:
    recorder = Recorder()
    value, total = np.ones(1), fmi.func(fmi.op.sum)
    if rank == 1:
        recorder.install()
    with fmi.Communicator(rank, _RANKS, os.fspath(config), "calls") as communicator:
        first = recorder.record(lambda: communicator.allreduce(value, total))
        for _ in range(3):
            communicator.allreduce(value, total)
        later = recorder.record(lambda: communicator.allreduce(value, total))
        if rank == 1:
            with os.fdopen(write_end, "wb") as pipe:
                pickle.dump({"first allreduce": first, "allreduce of 8 bytes": later}, pipe)


def endpoint_paths(folder: Path) -> dict[str, CallPath]:
    """Return the paths of a warm Invoke, a PutObject and a Map of one item at the endpoint."""
    from emulator.cloud import LocalCloud

    archive = folder / "calls.zip"
    with io.BytesIO() as buffer:
        with zipfile.ZipFile(buffer, "w") as members:
            members.writestr("calls.py", "def handle(event, context):\n    return event\n")
        archive.write_bytes(buffer.getvalue())
    recorder = Recorder()
    recorder.install()
    with LocalCloud() as cloud:
        environment = os.environ | {"AWS_ENDPOINT_URL": cloud.endpoint_url}
        environment |= cloud.credentials.environment()
        with subprocess.Popen(
            [sys.executable, "-c", _CLIENT, os.fspath(archive), json.dumps(_MACHINE)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as client:
            assert client.stdin is not None
            assert client.stdout is not None

            def run(name: str) -> None:
                assert client.stdin is not None
                assert client.stdout is not None
                client.stdin.write(name + "\n")
                client.stdin.flush()
                client.stdout.readline()
                time.sleep(_SETTLED_SECONDS)

            client.stdout.readline()
            for name in ("invoke", "put", "map"):
                run(name)
            found = {name: recorder.record(lambda name=name: run(name)) for name in ("invoke", "put", "map")}
            client.stdin.close()
    names = {"invoke": "warm Invoke", "put": "PutObject", "map": "Map of one item"}
    return {names[name]: path_of(files) for name, files in found.items()}


def main() -> None:
    """Print the table; with ``--calls``, too, in which files an allreduce's calls are, in order."""
    with tempfile.TemporaryDirectory() as folder:
        library = library_paths(Path(folder))
        rows = {name: path_of(files) for name, files in library.items()} | endpoint_paths(Path(folder))
    print(f"{'path':<24}{'calls':>8}{'files':>8}{'changes of file':>18}")
    for name, row in rows.items():
        print(f"{name:<24}{row.calls:>8}{row.files:>8}{row.changes:>18}")
    if "--calls" in sys.argv:
        for name, files in library.items():
            print(f"\n{name}:")
            for file, count in collections.Counter(files).most_common():
                print(f"  {count:4} {file}")


if __name__ == "__main__":
    main()
