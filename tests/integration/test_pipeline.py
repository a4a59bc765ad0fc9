"""fmi-emulator pipeline as a user runs it."""

import importlib.util
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import emulator.fmi.functions
from emulator.cloud import LocalCloud
from tests.commands import FMI_EMULATOR, Command, run
from tests.integration.fmirun import EXAMPLES, leftovers

DISTRIBUTED = Path(emulator.fmi.functions.__file__).with_name("distributed.asl.json")
# Sums the bytes of its data files over the ranks, and leaves a result.
PROGRAM = """
import json, os
import boto3
import fmi
rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
s3 = boto3.client("s3")
data_map = json.loads(s3.get_object(Bucket=os.environ["S3_BUCKET"], Key="payload.json")["Body"].read())["data_map"]
own = data_map[str(rank)] or []
keys = [own] if isinstance(own, str) else own
own = sum(len(s3.get_object(Bucket=os.environ["DATA_BUCKET"], Key=key)["Body"].read()) for key in keys)
comm = fmi.Communicator(rank, size, "fmi.json", "sum")
total = comm.allreduce(own, fmi.func(fmi.op.sum), fmi.types(fmi.datatypes.int))
print("batch", os.environ["BATCH_SIZE"], "total", total, flush=True)
if os.environ["RESULT_PATH"]:
    key = f"{os.environ['RESULT_PATH']}/{rank}.json"
    s3.put_object(Bucket=os.environ["S3_BUCKET"], Key=key, Body=json.dumps({"rank": rank, "total": total}))
"""
FAILING = """
import os, time
print("step 1/2", flush=True)
if os.environ["RANK"] == "1":
    raise ValueError("no \\x1b[31mgood")
time.sleep(30)
"""
FIRST = {"bucket": "first", "world_size": "2", "S3_object_name": "my job", "script": "/tmp/my job/in/main.py"}


@pytest.fixture
def checkout(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that makes a checkout with a program, data and a payload; the payload's path comes back."""

    def make(program: str, payload: dict[str, Any]) -> Path:
        folder = tmp_path / "my job" / "in"
        folder.mkdir(parents=True)
        (folder / "main.py").write_text(program)
        (folder / "fmi.json").write_bytes((EXAMPLES / "fmi.json").read_bytes())
        data = tmp_path / "partitions"
        data.mkdir()
        for number in range(1, 4):
            (data / f"{number}.pt").write_bytes(b"x" * number)
        path = tmp_path / "payload.json"
        path.write_text(json.dumps(payload))
        return path

    return make


def start(tmp_path: Path, *arguments: object, stderr: int | None = None, **environment: str) -> Command:
    (tmp_path / "state").mkdir(exist_ok=True)
    environment["TMPDIR"] = str(tmp_path / "state")
    return Command(FMI_EMULATOR, "pipeline", *arguments, cwd=tmp_path, environment=environment, stderr=stderr)


def pipeline(tmp_path: Path, *arguments: object, **environment: Any) -> tuple[int, str, str]:
    with start(tmp_path, *arguments, **environment) as command:
        output, errors = command.communicate()
        assert leftovers(tmp_path) == []
        return command.wait(), output, errors


def test_the_first_generation_through_the_inline_map(tmp_path: Path, checkout: Callable[..., Path]) -> None:
    """No data and no result path: the ranks only run a collective."""
    status, output, errors = pipeline(tmp_path, checkout(PROGRAM.replace("own = sum", "own = 5 or sum"), FIRST))
    assert status == 0, errors
    assert sorted(output.splitlines()) == ["[0] batch  total 10", "[1] batch  total 10"]
    assert re.search(r"^ +1 +\d+ +\d+ +\d+ +\d+/1769  ok$", errors, re.MULTILINE)
    assert re.search(r"on AWS, .* Step Functions 0\.000125\)", errors)
    assert "5 state transitions" in errors  # three states, and the Map's one a rank
    assert "\x1b" not in output + errors
    assert not (tmp_path / "results").exists()


PUBLISHED = """
import json, os
import boto3
from fmilib.fmi_operations import fmi_communicator
import fmi
rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
comm = fmi_communicator(size, rank)
comm.barrier()
assert os.environ["LEVEL"] == "3"
total = comm.reduce(1.5, 0, fmi.func(fmi.op.sum), fmi.types(fmi.datatypes.double))
s3, bucket = boto3.client("s3"), os.environ["S3_BUCKET"]
s3.put_object(Bucket=bucket, Key=f"results/{rank}/Results.json", Body=json.dumps({"sample_persec": 7}))
if rank == 0:
    s3.put_object(Bucket=bucket, Key="results/0/ResultsReduce.json", Body=json.dumps({"total_time": total}))
"""


def test_a_published_program_needs_neither_configuration_nor_result_path(
    tmp_path: Path, checkout: Callable[..., Path]
) -> None:
    """It imports the container's wrapper, finds its fmi.json, and writes where nobody was told."""
    path = checkout(PUBLISHED, FIRST)
    (tmp_path / "my job" / "in" / "fmi.json").unlink()
    status, _, errors = pipeline(tmp_path, path, "--env", "LEVEL=3", "--report", tmp_path / "report.json")
    assert status == 0, errors
    assert "results in results: the 3 files that the program wrote to s3://first/" in errors
    assert json.loads((tmp_path / "results" / "0" / "ResultsReduce.json").read_text()) == {"total_time": 3.0}
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == ["0", "1"]
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["results"]["1"] == {"sample_persec": 7}


def test_a_pickled_data_set_is_explained_in_one_line(tmp_path: Path, checkout: Callable[..., Path]) -> None:
    program = "raise RuntimeError('Weights only load failed. This file can still be loaded\\nmany lines')"
    status, _, errors = pipeline(tmp_path, checkout(program, FIRST))
    assert status == 1
    assert "pass TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1 with --env" in errors.splitlines()[-1]


WITH_TIMM = """
import json, os, sys
sys.path.append("/tmp/my job/")
import boto3, torch
from blocks.network import Network
model = torch.load("/tmp/my job/model.pt", map_location="cpu", weights_only=False).module.eval()
assert type(model) is Network
redshift = float(model(torch.zeros(1, 5, 16, 16)))
key = f"{os.environ['RESULT_PATH']}/{os.environ['RANK']}.json"
boto3.client("s3").put_object(Bucket=os.environ["S3_BUCKET"], Key=key, Body=json.dumps({"redshift": redshift}))
"""
NETWORK = """
import torch
from timm.models.vision_transformer import VisionTransformer
class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.vit = VisionTransformer(img_size=16, patch_size=8, in_chans=5, embed_dim=24, depth=1, num_heads=3)
        self.head = torch.nn.Linear(1000, 1)
    def forward(self, image):
        return self.head(self.vit(image))
"""
SAVE = """
import sys
from fmi_shim.dropin import torchvision_stand_in
torchvision_stand_in.install()
sys.path.append(sys.argv[1])
import torch
from blocks.network import Network
network = Network()
torch.nn.init.zeros_(network.head.weight)
torch.nn.init.constant_(network.head.bias, 0.25)
torch.save(torch.nn.DataParallel(network), sys.argv[1] + "/model.pt")
"""


def test_a_published_network_of_timm_runs_as_it_is_pickled(tmp_path: Path, checkout: Callable[..., Path]) -> None:
    """A DataParallel of the program's own class, which timm 0.4.12 is a part of; torchvision is not needed."""
    if importlib.util.find_spec("timm") is None:
        pytest.skip("needs timm 0.4.12: pip install --no-deps timm==0.4.12")
    path = checkout(WITH_TIMM, {**FIRST, "world_size": 1, "result_path": "out"})
    folder = tmp_path / "my job"
    (folder / "blocks").mkdir()
    (folder / "blocks" / "network.py").write_text(NETWORK)
    subprocess.run([sys.executable, "-c", SAVE, str(folder)], check=True, capture_output=True)
    status, output, errors = pipeline(tmp_path, path)
    assert status == 0, output + errors
    assert json.loads((tmp_path / "results" / "0.json").read_text()) == {"redshift": 0.25}


def test_the_second_generation_through_the_distributed_map(tmp_path: Path, checkout: Callable[..., Path]) -> None:
    """Data is found by the name of its prefix, each file has a rank, and the results are downloaded."""
    payload = {
        "bucket": "second",
        "file_limit": "2",
        "batch_size": 16,
        "object_type": "folder",
        "S3_object_name": "my job",
        "script": "/tmp/my job/in/main.py",
        "result_path": "results/run 1",
        "data_bucket": "second-data",
        "data_prefix": "partitions",
    }
    status, output, errors = pipeline(
        tmp_path, checkout(PROGRAM, payload), "--state-machine", DISTRIBUTED, "--results", "out", "--memory", 512
    )
    assert status == 0, errors
    assert sorted(output.splitlines()) == ["[0] batch 16 total 3", "[1] batch 16 total 3"]
    combined = json.loads((tmp_path / "out" / "combined_data.json").read_text())
    assert combined == [{"rank": 0, "total": 3}, {"rank": 1, "total": 3}]
    assert "3 state transitions and 2 EXPRESS executions" in errors
    assert "results in out, from s3://second/results/run 1/" in errors
    assert "/512  ok" in errors


def test_a_given_state_machine_names_the_functions_and_reads_the_ranks_from_s3(
    tmp_path: Path, checkout: Callable[..., Path]
) -> None:
    """The form in which the deployed pipeline was published last: ARNs of its account, and a body that points to S3."""

    def task(function: str, **more: Any) -> dict[str, Any]:
        arn = f"arn:aws:lambda:us-east-1:448324707516:function:{function}:$LATEST"
        parameters = {"FunctionName": arn, "Payload.$": "$"}
        resource = "arn:aws:states:::lambda:invoke"
        return {"Type": "Task", "Resource": resource, "OutputPath": "$.Payload", "Parameters": parameters, **more}

    ranks = {
        "Type": "Map",
        "ItemReader": {
            "Resource": "arn:aws:states:::s3:getObject",
            "ReaderConfig": {"InputType": "JSON"},
            "Parameters": {"Bucket.$": "$.body.S3_BUCKET", "Key.$": "$.body.S3_KEY"},
        },
        "Iterator": {
            "StartAt": "Model Inference",
            "States": {"Model Inference": task("cosmic-executor", End=True)},
            "ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "EXPRESS"},
        },
        "Label": "DistributedTest",
        "ResultPath": None,
        "Next": "Summarize",
    }
    states = {
        "Initialize": task("data-parallel-init", Next="Distributed Test"),
        "Distributed Test": ranks,
        "Summarize": task("resultSummary", End=True),
    }
    (tmp_path / "machine.json").write_text(json.dumps({"StartAt": "Initialize", "States": states}))
    path = checkout(PROGRAM.replace("own = sum", "own = 5 or sum"), {**FIRST, "result_path": "out"})
    status, _, errors = pipeline(tmp_path, path, "--state-machine", "machine.json")
    assert status == 0, errors
    assert len(json.loads((tmp_path / "results" / "combined_data.json").read_text())) == 2


def test_a_failed_rank_is_one_line_with_state_rank_and_cause(tmp_path: Path, checkout: Callable[..., Path]) -> None:
    status, output, errors = pipeline(tmp_path, checkout(FAILING, FIRST))
    assert status == 1
    assert "[1] [ERROR] ValueError: no " in output
    assert "on AWS they continue, and are billed" in errors
    *_, stopped, last = errors.splitlines()
    assert last == "fmi-emulator: state Execute failed: rank 1: ValueError: no  [31mgood (/tmp/my job/in/main.py:5)"
    assert stopped == "  stopped while still running: 1 ranks"


def test_a_state_that_fails_outside_of_the_ranks_is_named(tmp_path: Path, checkout: Callable[..., Path]) -> None:
    payload = {**FIRST, "world_size": "", "data_prefix": "nowhere/"}
    status, _, errors = pipeline(tmp_path, checkout(PROGRAM, payload))
    assert status == 1
    assert re.fullmatch(
        r"fmi-emulator: state Initialize failed: ValueError: invalid world_size '' with 0 data files: expected "
        r"at least 1 rank; .*",
        errors.splitlines()[-1],
    )


WAITING = "import time\nprint('waiting', flush=True)\ntime.sleep(60)\n"


def interrupt(command: Command) -> str:
    """Press Ctrl-C once the ranks run; return the last line of standard error."""
    with command:
        assert "waiting" in command.stdout.readline()
        command.send_signal(signal.SIGINT)
        _, errors = command.communicate(timeout=20)
    assert command.returncode == 130
    return str(errors.splitlines()[-1])


def test_ctrl_c_leaves_nothing(tmp_path: Path, checkout: Callable[..., Path]) -> None:
    assert interrupt(start(tmp_path, checkout(WAITING, FIRST))) == "fmi-emulator: interrupted"
    assert leftovers(tmp_path) == []


def test_ctrl_c_stops_the_execution_on_a_running_cloud(
    tmp_path: Path, checkout: Callable[..., Path], cloud: LocalCloud
) -> None:
    variables = {"FMI_RENDEZVOUS": cloud.rendezvous, **cloud.credentials.environment()}
    interrupt(start(tmp_path, checkout(WAITING, FIRST), "--endpoint-url", cloud.endpoint_url, **variables))
    latest = cloud.executions()[0]
    assert (latest.status, latest.error) == ("ABORTED", "Interrupted")


def test_a_terminal_shows_a_live_table_and_the_output_of_ranks_can_be_redirected(
    tmp_path: Path, checkout: Callable[..., Path]
) -> None:
    steps = "import time\nfor i in range(4):\n    print(f'step {i + 1}/4', flush=True)\n    time.sleep(0.3)\n"
    leader, follower = pty.openpty()
    path = checkout(steps, FIRST)
    with start(tmp_path, path, stderr=follower, TERM="xterm", COLUMNS="90") as command:
        os.close(follower)
        seen = b""
        # A terminal whose other side is closed answers with an error.
        try:
            while more := os.read(leader, 65536):
                seen += more
        except OSError:
            pass
        output = command.stdout.read()
    os.close(leader)
    assert command.returncode == 0, seen
    text = seen.decode()
    assert "━" in text
    assert "\x1b[?25h" in text  # the cursor is shown again
    assert "2 ranks in" in text.rpartition("\x1b")[2]
    steps_seen = [f"[{rank}] step {step}/4" for rank in range(2) for step in range(1, 5)]
    assert sorted(output.splitlines()) == steps_seen


def test_a_running_cloud_is_used_again_and_shows_the_run(
    tmp_path: Path, checkout: Callable[..., Path], cloud: LocalCloud, client: Callable[[str], Any]
) -> None:
    path = checkout(PROGRAM.replace("own = sum", "own = 5 or sum"), FIRST)
    reach = ("--endpoint-url", cloud.endpoint_url)
    status, _, errors = pipeline(tmp_path, path, *reach, FMI_RENDEZVOUS="")
    assert status == 2
    assert "FMI_RENDEZVOUS is not set" in errors
    for _ in range(2):  # the second run finds the functions and the machine of the first
        variables = {"FMI_RENDEZVOUS": cloud.rendezvous, **cloud.credentials.environment()}
        status, output, errors = pipeline(tmp_path, path, *reach, **variables)
        assert status == 0, errors
        assert "total 10" in output
        assert "fmi-trace" not in output
    states = client("stepfunctions")
    (machine,) = states.list_state_machines()["stateMachines"]
    executions = states.list_executions(stateMachineArn=machine["stateMachineArn"])["executions"]
    succeeded = [execution for execution in executions if execution["status"] == "SUCCEEDED"]
    assert len(succeeded) == 2
    logs = run(FMI_EMULATOR, "logs", succeeded[1]["executionArn"], "--follow", environment=cloud.environment)
    assert logs.returncode == 0, logs.stderr
    assert sum("total 10" in line for line in logs.stdout.splitlines()) == 2
    again = pipeline(tmp_path, tmp_path / "none.json")
    assert (again[0], again[2].count("\n")) == (2, 1)


def test_missing_code_is_an_error_before_anything_is_started(
    tmp_path: Path, checkout: Callable[..., Path], cloud: LocalCloud
) -> None:
    path = checkout(PROGRAM, {**FIRST, "S3_object_name": "other", "script": "other/main.py"})
    status, _, errors = pipeline(tmp_path, path)
    assert (status, errors) == (
        2,
        f"fmi-emulator: no folder 'other' with the script 'main.py' in {tmp_path}, beside the payload or above it: "
        "pass the folder that the payload calls S3_object_name with --script-folder\n",
    )
    reach = ("--endpoint-url", cloud.endpoint_url)
    variables = {"FMI_RENDEZVOUS": cloud.rendezvous, **cloud.credentials.environment()}
    status, _, errors = pipeline(tmp_path, path, *reach, **variables)
    assert status == 2
    assert "the script is neither at s3://first/other/main.py nor in a local folder" in errors


def test_the_rank_that_failed_first_is_named_not_its_victims(tmp_path: Path, checkout: Callable[..., Path]) -> None:
    """The Map ends with the first failure that is reported, which may be a victim's."""
    program = """
import os, fmi
rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
comm = fmi.Communicator(rank, size, "fmi.json", "lost")
comm.barrier()
if rank == 1:
    raise ValueError("the cause")
comm.barrier()
"""
    status, _, errors = pipeline(tmp_path, checkout(program, {**FIRST, "world_size": 3}))
    assert status == 1
    assert errors.splitlines()[-1] == (
        "fmi-emulator: state Execute failed: rank 1: ValueError: the cause (/tmp/my job/in/main.py:7)"
    )
