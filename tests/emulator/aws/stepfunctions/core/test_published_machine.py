"""The published state machine, inline and distributed, with the deployed functions."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import emulator.fmi.functions
from emulator.cloud import LocalCloud
from emulator.fmi.bundle import function_archive
from tests.emulator.aws.stepfunctions.conftest import kinds, wait_for_end
from tests.emulator.conftest import ROLE

DEFINITIONS = Path(emulator.fmi.functions.__file__).parent
PROGRAM = """
import boto3, fmi, json, os
rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
comm = fmi.Communicator(rank, size, "fmi.json", "published")
total = comm.allreduce(rank, fmi.func(fmi.op.sum), fmi.types(fmi.datatypes.int))
key = f"{os.environ['RESULT_PATH']}/{rank}.json"
boto3.client("s3").put_object(Bucket=os.environ["S3_BUCKET"], Key=key, Body=json.dumps({"rank": rank, "total": total}))
"""
FMI_JSON = json.dumps({"backends": {"Direct": {"enabled": True, "host": "127.0.0.1", "port": 10000}}})


@pytest.fixture(params=["inline", "distributed"])
def form(request: pytest.FixtureRequest, cloud: LocalCloud, functions: Any) -> Iterator[str]:
    """Deploy the functions for a form of the definition; the distributed one reads the ranks' payloads from S3."""
    in_s3 = {"RANKS_IN_S3": "1"} if request.param == "distributed" else {}
    names = ("fmi-initialize", "fmi-execute", "fmi-summarize")
    for name in names:
        functions.create_function(
            FunctionName=name,
            Runtime="python3.11",
            Handler=f"{name.removeprefix('fmi-')}.handler",
            Role=ROLE,
            Code={"ZipFile": function_archive()},
            MemorySize=1769,
            Timeout=30,
            Environment={"Variables": {"FMI_RENDEZVOUS": cloud.rendezvous, **in_s3}},
        )
    yield request.param
    for name in names:
        functions.delete_function(FunctionName=name)


def payload(bucket: str, **more: Any) -> dict[str, Any]:
    return {
        "bucket": bucket,
        "world_size": "4",
        "object_type": "folder",
        "S3_object_name": "Anomaly Detection",
        "data_path": "/tmp/data.pt",
        "script": "/tmp/Anomaly Detection/main.py",
        "result_path": "results/1",
        **more,
    }


def put_program(s3: Any, bucket: str, program: str) -> None:
    s3.put_object(Bucket=bucket, Key="Anomaly Detection/main.py", Body=program.encode())
    s3.put_object(Bucket=bucket, Key="Anomaly Detection/fmi.json", Body=FMI_JSON.encode())


def test_the_ranks_connect_and_their_results_are_summarized(
    sfn: Any, s3: Any, bucket: str, execute: Callable[..., dict[str, Any]], form: str
) -> None:
    put_program(s3, bucket, PROGRAM)
    execution = execute((DEFINITIONS / f"{form}.asl.json").read_text(), payload(bucket))
    assert execution["status"] == "SUCCEEDED", execution
    assert execution["output"] == {"statusCode": 200, "key": "results/1/combined_data.json", "ranks": 4}
    combined = s3.get_object(Bucket=bucket, Key="results/1/combined_data.json")["Body"].read()
    assert json.loads(combined) == [{"rank": rank, "total": 6} for rank in range(4)]


def test_a_failed_rank_fails_the_execution(
    sfn: Any, s3: Any, bucket: str, machine: Callable[..., str], form: str
) -> None:
    put_program(s3, bucket, "import os\nassert os.environ['RANK'] != '2', 'rank two failed'")
    arn = machine((DEFINITIONS / f"{form}.asl.json").read_text())
    started = sfn.start_execution(stateMachineArn=arn, input=json.dumps(payload(bucket)))
    execution = wait_for_end(sfn, started["executionArn"])
    assert execution["status"] == "FAILED"
    assert "rank two failed" in execution["cause"]
    expected = {"inline": "AssertionError", "distributed": "States.ExceedToleratedFailureThreshold"}
    assert execution["error"] == expected[form]
    assert kinds(sfn, started["executionArn"])[-2:] == ["MapStateFailed", "ExecutionFailed"]
