"""fmi-emulator serve --state on a full disk: deletes and small writes work, refusals have names, nothing is lost."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.integration.serving import serving
from tests.integration.test_state import HANDLER, archive

MIB = 1 << 20
ROLE = "arn:aws:iam::123456789012:role/test"
REFUSALS = {
    "s3": "InternalError",
    "lambda": "ServiceException",
    "logs": "ServiceUnavailableException",
    "stepfunctions": "InternalFailure",
}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file system")
    mount = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", folder]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(path: Path) -> None:
    """Write a file until the disk is full."""
    with path.open("wb", buffering=0) as opened:
        for size in (MIB, 4096):
            try:
                while True:
                    opened.write(bytes(size))
            except OSError:
                continue


def refusal(call: Callable[..., Any], *positional: Any, **arguments: Any) -> tuple[str, int] | None:
    """Return the name and status that a call is refused with, None when it succeeds."""
    try:
        call(*positional, **arguments)
    except ClientError as error:
        return error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
    return None


def writes(clients: list[Any], size: int) -> dict[str, Callable[[int], Any]]:
    """Return a write of about `size` bytes for each service, which takes a number."""
    s3, functions, logs, machines = clients
    padding = os.urandom(size // 2).hex()
    definition = json.dumps({"Comment": padding, "StartAt": "A", "States": {"A": {"Type": "Pass", "End": True}}})
    code = archive(f"{HANDLER}\n# {padding}")

    def log(number: int) -> None:
        logs.create_log_group(logGroupName=f"g{number}")
        logs.create_log_stream(logGroupName=f"g{number}", logStreamName="s")
        event = {"timestamp": int(time.time() * 1000), "message": padding or "event"}
        logs.put_log_events(logGroupName=f"g{number}", logStreamName="s", logEvents=[event])

    return {
        "s3": lambda number: s3.put_object(Bucket="bucket", Key=f"small/{number}", Body=padding.encode()),
        "lambda": lambda number: functions.create_function(
            FunctionName=f"f{number}", Runtime="python3.11", Handler="main.handler", Role=ROLE, Code={"ZipFile": code}
        ),
        "logs": log,
        "stepfunctions": lambda number: machines.create_state_machine(
            name=f"m{number}", definition=definition, roleArn=ROLE
        ),
    }


@pytest.mark.timeout(180)
def test_a_full_disk_refuses_by_name_and_loses_nothing(disk: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    large = os.urandom(MIB)
    kept: dict[str, bytes] = {}
    with serving(scratch, "--state", disk / "state") as server:
        s3, functions, logs, machines = clients = [server.client(service) for service in REFUSALS]
        s3.create_bucket(Bucket="bucket")
        logs.create_log_group(logGroupName="group")
        logs.create_log_stream(logGroupName="group", logStreamName="stream")
        while (refused := refusal(s3.put_object, Bucket="bucket", Key=f"large/{len(kept)}", Body=large)) is None:
            kept[f"large/{len(kept)}"] = large
        assert refused == ("InternalError", 507)
        fill(disk / "filler")
        # Small writes of each service go on.
        for number in range(5):
            for write in writes(clients, 100).values():
                write(number)
            kept[f"small/{number}"] = s3.get_object(Bucket="bucket", Key=f"small/{number}")["Body"].read()
        upload = s3.create_multipart_upload(Bucket="bucket", Key="parts")["UploadId"]
        part = s3.upload_part(Bucket="bucket", Key="parts", UploadId=upload, PartNumber=1, Body=b"part")
        assert functions.invoke(FunctionName="f0", Payload=b"1")["StatusCode"] == 200
        # Until the reserve is used up: every service refuses by its own name.
        number, write = 5, writes(clients, 12_000)["s3"]
        while (refused := refusal(write, number)) is None:
            kept[f"small/{number}"] = s3.get_object(Bucket="bucket", Key=f"small/{number}")["Body"].read()
            number += 1
        assert refused == ("InternalError", 507)
        for service, write in writes(clients, 200_000).items():
            assert refusal(write, number) == (REFUSALS[service], 507)
        fill(disk / "filler 3")
        assert refusal(s3.put_object, Bucket="bucket", Key="large", Body=large) == ("InternalError", 507)
        assert refusal(s3.upload_part, Bucket="bucket", Key="parts", UploadId=upload, PartNumber=2, Body=large) == (
            "InternalError",
            507,
        )
        # Deletes do not need space, however many there are.
        for key in [key for key in kept if key.startswith("small/")][::2]:
            s3.delete_object(Bucket="bucket", Key=key)
            del kept[key]
        functions.delete_function(FunctionName="f1")
        logs.delete_log_group(logGroupName="g1")
        machines.delete_state_machine(stateMachineArn="arn:aws:states:us-east-1:123456789012:stateMachine:m1")
        server.kill()
    fill(disk / "filler 4")
    with serving(scratch, "--state", disk / "state") as server:
        s3, functions, logs, machines = (server.client(service) for service in REFUSALS)
        listed = {
            found["Key"]
            for page in s3.get_paginator("list_objects_v2").paginate(Bucket="bucket")
            for found in page.get("Contents", [])
        }
        assert listed == set(kept)
        for key, content in kept.items():
            assert s3.get_object(Bucket="bucket", Key=key)["Body"].read() == content
        assert {"f0", "f2"} <= {found["FunctionName"] for found in functions.list_functions()["Functions"]}
        assert refusal(functions.get_function, FunctionName="f1") == ("ResourceNotFoundException", 404)
        groups = {found["logGroupName"] for found in logs.describe_log_groups()["logGroups"]}
        assert "g0" in groups
        assert "g1" not in groups
        assert [found["ETag"] for found in s3.list_parts(Bucket="bucket", Key="parts", UploadId=upload)["Parts"]] == [
            part["ETag"]
        ]
        for key in kept:
            s3.delete_object(Bucket="bucket", Key=key)
        s3.abort_multipart_upload(Bucket="bucket", Key="parts", UploadId=upload)
        s3.put_object(Bucket="bucket", Key="large", Body=large)
        assert s3.get_object(Bucket="bucket", Key="large")["Body"].read() == large
        s3.delete_object(Bucket="bucket", Key="large")
        s3.delete_bucket(Bucket="bucket")
        assert list((disk / "state" / "bodies").iterdir()) == []
    assert list(scratch.iterdir()) == []
