"""The deployed functions on a real S3 interface."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.httpsession import URLLib3Session
from hypothesis import given
from hypothesis import strategies as st

from emulator.aws.s3.http import buckets
from emulator.cloud import LocalCloud
from emulator.fmi.aws_calls import observe_calls
from emulator.fmi.deployment.deploy import template
from emulator.fmi.deployment.destroy import delete_record
from emulator.fmi.functions import dns, execute, initialize, summarize


@pytest.fixture(autouse=True)
def sandbox_environment(cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """What the functions find in a sandbox: the endpoint, and a directory for temporary files."""
    for name, value in cloud.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    yield


def put(s3: Any, bucket: str, **objects: str) -> None:
    for key, text in objects.items():
        s3.put_object(Bucket=bucket, Key=key, Body=text.encode())


@given(st.lists(st.text(min_size=1), unique=True, max_size=40), st.integers(1, 20))
def test_every_file_goes_to_exactly_one_rank_and_the_ranks_differ_by_one_at_most(keys: list[str], size: int) -> None:
    data_map = initialize.assign(keys, size)
    assert list(data_map) == [str(rank) for rank in range(size)]
    assert sorted(key for dealt in data_map.values() for key in dealt) == sorted(keys)
    lengths = [len(dealt) for dealt in data_map.values()]
    assert max(lengths) - min(lengths) <= 1


def test_initialize_answers_with_the_ranks_payloads_of_the_first_generation(s3: Any, bucket: str) -> None:
    event = {
        "bucket": bucket,
        "world_size": "2",
        "object_type": "folder",
        "S3_object_name": "Anomaly Detection",
        "data_path": "/tmp/data.pt",
        "script": "/tmp/Anomaly Detection/inference.py",
    }
    answer = initialize.handler(event)
    assert answer["statusCode"] == 200
    assert [payload["RANK"] for payload in answer["body"]] == ["0", "1"]
    assert answer["body"][1] == {
        "S3_BUCKET": bucket,
        "S3_OBJECT_NAME": "Anomaly Detection",
        "SCRIPT": "/tmp/Anomaly Detection/inference.py",
        "SCRIPT_ARGUMENTS": [],
        "S3_OBJECT_TYPE": "folder",
        "WORLD_SIZE": "2",
        "RANK": "1",
        "DATA_BUCKET": bucket,
        "DATA_PREFIX": "",
        "DATA_PATH": "/tmp/data.pt",
        "RESULT_PATH": "",
        "BATCH_SIZE": "",
    }


def test_initialize_assigns_contiguous_blocks_in_the_order_in_which_s3_lists_the_files(s3: Any, bucket: str) -> None:
    put(s3, bucket, **{f"data/{number}.pt": "x" for number in (10, 9, 2, 1, 3)})
    event = {
        "bucket": bucket,
        "file_limit": "4",
        "batch_size": 512,
        "object_type": "folder",
        "S3_object_name": "code",
        "script": "code/run.py",
        "result_path": "results",
        "data_bucket": bucket,
        "data_prefix": "data/",
        "world_size": 2,
    }
    initialize.handler(event)
    written = json.loads(s3.get_object(Bucket=bucket, Key="payload.json")["Body"].read())
    assert written["data_map"] == {"0": ["data/1.pt", "data/10.pt"], "1": ["data/2.pt", "data/3.pt"]}
    assert [rank["DATA_PATH"] for rank in written["body"]] == [["data/1.pt", "data/10.pt"], ["data/2.pt", "data/3.pt"]]
    assert {key: written[key] for key in event} == event


def test_initialize_takes_a_rank_a_file_when_no_world_size_is_given(s3: Any, bucket: str) -> None:
    put(s3, bucket, **{f"data/{number}.pt": "x" for number in range(3)})
    event = {"bucket": bucket, "S3_object_name": "c", "script": "c/r.py", "data_prefix": "data/"}
    body = initialize.handler(event)["body"]
    assert [rank["DATA_PATH"] for rank in body] == ["data/0.pt", "data/1.pt", "data/2.pt"], "text for a single file"


def test_the_data_map_has_the_forms_that_published_programs_expect(s3: Any, bucket: str) -> None:
    put(s3, bucket, **{f"data/{number}.pt": "x" for number in range(3)})
    event = {"bucket": bucket, "S3_object_name": "c", "script": "c/r.py", "data_prefix": "data/"}
    for world_size, expected in (
        (2, {"0": ["data/0.pt", "data/1.pt"], "1": "data/2.pt"}),
        (4, {"0": "data/0.pt", "1": "data/1.pt", "2": "data/2.pt", "3": None}),
    ):
        initialize.handler({**event, "world_size": world_size})
        written = json.loads(s3.get_object(Bucket=bucket, Key="payload.json")["Body"].read())
        assert written["data_map"] == expected


@pytest.mark.parametrize(("files", "blocks"), [(5, [2, 2, 1]), (3, [1, 1, 1]), (2, [1, 1, 0]), (0, [0, 0, 0])])
def test_blocks_are_contiguous_and_the_first_ranks_have_the_larger_ones(files: int, blocks: list[int]) -> None:
    keys = [f"{number}.pt" for number in range(files)]
    data_map = initialize.assign(keys, 3)
    assert [len(block) for block in data_map.values()] == blocks
    assert [key for block in data_map.values() for key in block] == keys


def test_initialize_refuses_a_world_without_ranks(bucket: str) -> None:
    with pytest.raises(ValueError, match="invalid world_size None with 0 data files: expected at least 1 rank"):
        initialize.handler({"bucket": bucket, "S3_object_name": "c", "script": "c/r.py", "data_prefix": "none/"})


def payload(bucket: str, script: str = "code/main.py", **more: Any) -> dict[str, Any]:
    return {"S3_BUCKET": bucket, "S3_OBJECT_NAME": "code", "SCRIPT": script, "RANK": "2", "WORLD_SIZE": "5", **more}


def test_execute_runs_the_script_as_main_in_its_folder(
    s3: Any, bucket: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    script = """
import os, sys, beside
assert __name__ == "__main__"
print(os.environ["RANK"], sys.argv[1:], beside.value, os.getcwd(), open("sub/data.txt").read())
"""
    put(s3, bucket, **{"code/main.py": script, "code/beside.py": "value = 7", "code/sub/data.txt": "text"})
    assert execute.handler(payload(bucket, SCRIPT_ARGUMENTS=["-x"])) == {"statusCode": 200, "rank": 2}
    marker, line = capfd.readouterr().out.splitlines()
    assert marker == "fmi-rank: 2 of 5 RequestId: "
    assert line == f"2 ['-x'] 7 {tmp_path}/code text"


def test_execute_gives_programs_without_configuration_the_published_containers(s3: Any, bucket: str) -> None:
    """In the working directory, and several files of a rank as JSON; a program's own configuration is kept."""
    script = """
import json, os
assert set(json.load(open("fmi.json"))["backends"]) == {"Direct"}
assert json.loads(os.environ["DATA_PATH"]) == ["a", "b"]
"""
    put(s3, bucket, **{"code/main.py": script})
    execute.handler(payload(bucket, DATA_PATH=["a", "b"]))
    put(s3, bucket, **{"code/main.py": "assert open('fmi.json').read() == 'own'", "code/fmi.json": "own"})
    execute.handler(payload(bucket))


@pytest.mark.parametrize("ending", ["import sys; sys.exit()", "import sys; sys.exit(0)", "raise SystemExit"])
def test_execute_takes_an_exit_without_error_for_success(s3: Any, bucket: str, ending: str) -> None:
    put(s3, bucket, **{"code/main.py": ending})
    assert execute.handler(payload(bucket))["statusCode"] == 200


@pytest.mark.parametrize(("code", "status"), [("3", 3), ("'text'", 1), ("-1", 255), ("512", 1)])
def test_execute_raises_on_an_exit_with_an_error(s3: Any, bucket: str, code: str, status: int) -> None:
    put(s3, bucket, **{"code/main.py": f"import sys; sys.exit({code})"})
    with pytest.raises(execute.ScriptExit, match=f"status {status}$"):
        execute.handler(payload(bucket))


def test_execute_tells_the_scripts_own_hook_of_the_exception_that_ends_it(
    s3: Any, bucket: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    script = """
import sys
previous = sys.excepthook
def hook(kind, error, trace):
    open("told.txt", "w").write(f"{kind.__name__}: {error}")
    previous(kind, error, trace)
sys.excepthook = hook
raise LookupError("no such galaxy")
"""
    put(s3, bucket, **{"code/main.py": script})
    before = sys.excepthook
    with pytest.raises(LookupError):
        execute.handler(payload(bucket))
    assert (tmp_path / "code" / "told.txt").read_text() == "LookupError: no such galaxy"
    assert sys.excepthook is before
    assert "Traceback" not in capfd.readouterr().err  # the runtime logs it, once


def test_execute_names_what_is_missing(s3: Any, bucket: str) -> None:
    with pytest.raises(FileNotFoundError, match=f"no objects below s3://{bucket}/code/"):
        execute.handler(payload(bucket))
    put(s3, bucket, **{"code/other.py": ""})
    with pytest.raises(FileNotFoundError, match=r"script 'code/main.py' does not exist in s3://"):
        execute.handler(payload(bucket))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            ["code/../../outside.py"],
            r"'code/../../outside.py' in bucket \S+ leads outside of its folder: remove",
        ),
        (["code/.."], "leads outside of its folder"),
        (["code/../"], "leads outside of its folder"),
        (["code/nul\0.py"], "leads outside of its folder"),
        (["code/a/b", "code/a//b"], r"'code/a//b' and 'code/a/b' in bucket \S+ are the same file"),
        (["code/./main.py"], "are the same file"),
        (["code/main.py/more"], r"'code/main.py' in bucket \S+ is a file, but 'code/main.py/more' needs a folder"),
    ],
)
def test_execute_writes_nothing_when_a_key_is_no_file_of_its_own_below_tmp(
    s3: Any, bucket: str, tmp_path: Path, keys: list[str], message: str
) -> None:
    put(s3, bucket, **{"code/main.py": "", **dict.fromkeys(keys, "x")})
    with pytest.raises(execute.UnsafeKeyError, match=message):
        execute.handler(payload(bucket))
    assert list(tmp_path.iterdir()) == []


def test_execute_refuses_keys_that_are_absolute_paths(s3: Any, bucket: str, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    put(s3, bucket, **{f"/{tmp_path}/outside/main.py".replace("//", "/"): "x"})
    with pytest.raises(execute.UnsafeKeyError, match="leads outside of its folder"):
        execute.handler(payload(bucket, S3_OBJECT_NAME=str(outside)))
    assert not outside.exists()


def test_execute_makes_folders_for_their_files_and_ignores_markers(s3: Any, bucket: str, tmp_path: Path) -> None:
    put(s3, bucket, **{"code/": "", "code/sub/": "", "code/main.py": "", "code/sub/..hidden..": "x"})
    execute.handler(payload(bucket))
    assert (tmp_path / "code" / "sub" / "..hidden..").read_text() == "x"


def test_summarize_merges_the_ranks_results_in_their_order(s3: Any, bucket: str) -> None:
    put(s3, bucket, **{f"results/{rank}.json": json.dumps({"rank": rank}) for rank in (10, 0, 9)})
    put(s3, bucket, **{"results/ResultsReduce.json": "{}", "results/sub/1.json": "{}"})
    event = {"bucket": bucket, "result_path": "results"}
    assert summarize.handler(event) == {"statusCode": 200, "key": "results/combined_data.json", "ranks": 3}
    combined = s3.get_object(Bucket=bucket, Key="results/combined_data.json")["Body"].read()
    assert json.loads(combined) == [{"rank": 0}, {"rank": 9}, {"rank": 10}]


def test_summarize_reads_every_page_of_the_listing(s3: Any, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "MAX_KEYS", 3)
    put(s3, bucket, **{f"results/{rank}.json": str(rank) for rank in range(8)})
    assert s3.list_objects_v2(Bucket=bucket)["IsTruncated"]
    assert summarize.handler({"bucket": bucket, "result_path": "results/", "world_size": "8"})["ranks"] == 8


def test_summarize_names_the_result_that_is_no_json(s3: Any, bucket: str) -> None:
    put(s3, bucket, **{"results/0.json": "{}", "results/1.json": "{'no': json}"})
    with pytest.raises(
        summarize.DamagedResultError, match=rf"result of rank 1 at s3://{bucket}/results/1.json is not valid JSON"
    ):
        summarize.handler({"bucket": bucket, "result_path": "results", "world_size": 2})


def test_summarize_writes_nothing_when_a_rank_left_nothing(s3: Any, bucket: str) -> None:
    put(s3, bucket, **{"results/0.json": "{}"})
    with pytest.raises(summarize.MissingResultError, match="no result of rank 1, 2 in s3"):
        summarize.handler({"bucket": bucket, "result_path": "results", "world_size": 3})
    listed = s3.list_objects_v2(Bucket=bucket)["Contents"]
    assert [found["Key"] for found in listed] == ["results/0.json"]


def test_a_claim_is_given_once_and_a_retried_request_of_it_keeps_it(s3: Any, bucket: str) -> None:
    assert execute.claim(s3, bucket, "runs/a/claims/0")
    assert not execute.claim(s3, bucket, "runs/a/claims/0")

    def send_twice(request: Any, **_: object) -> None:
        """The response to the first request is lost, and botocore sends it again."""
        URLLib3Session().send(request)
        request.reset_stream()

    own = boto3.client("s3")
    own.meta.events.register("before-send.s3.PutObject", send_twice)
    assert execute.claim(own, bucket, "runs/a/claims/1")


def test_ranks_of_a_run_must_have_recorded_their_success(s3: Any, bucket: str) -> None:
    event = {"bucket": bucket, "run_prefix": "runs/a/", "world_size": 3, "result_path": ""}
    put(s3, bucket, **{"runs/a/done/0": "", "runs/a/failures/2.json": "{}", "runs/a/claims/1": ""})
    with pytest.raises(summarize.RanksStillRunningError, match="1 ranks have not ended: 1"):
        summarize.handler(event)
    put(s3, bucket, **{"runs/a/done/1": ""})
    with pytest.raises(summarize.RanksFailedError, match="1 of 3 ranks failed: 2"):
        summarize.handler(event)
    # A repeated event of a rank failed, its first one succeeded.
    put(s3, bucket, **{"runs/a/done/2": ""})
    assert summarize.handler(event) == {"statusCode": 200, "key": "", "ranks": 0}


def test_many_ranks_are_read_from_s3_and_few_go_through_the_state_machine(s3: Any, bucket: str) -> None:
    put(s3, bucket, **{"cache/manifests/d.json": "{}"})
    event = {"bucket": bucket, "S3_object_name": "p", "script": "p/a.py", "manifest": "d", "rank_variables": {"X": "1"}}
    for size in (40, 41):
        put(s3, bucket, **{"runs/a/event.json": json.dumps({**event, "world_size": size})})
        answer = initialize.handler({"bucket": bucket, "run_prefix": "runs/a/"})
        assert (answer["is_inline"], len(answer["body"])) == ((True, 40) if size == 40 else (False, 0))
    ranks = json.loads(s3.get_object(Bucket=bucket, Key=answer["ranks_key"])["Body"].read())
    assert [rank["RANK"] for rank in ranks] == [str(rank) for rank in range(41)]
    common = json.loads(s3.get_object(Bucket=bucket, Key="runs/a/common.json")["Body"].read())
    assert (common["X"], common["S3_OBJECT_NAME"], "RANK" in common) == ("1", "cache/programs/d.zip", False)


def test_ten_thousand_ranks_fit_through_the_state_machine(s3: Any, bucket: str) -> None:
    """Their list is in S3, where the distributed Map reads it. Its states pass at most 256 KiB to each other."""
    put(s3, bucket, **{"cache/manifests/d.json": "{}"})
    files = [f"data/{number:05}.pt" for number in range(3)]
    put(s3, bucket, **dict.fromkeys(files, ""))
    event = {"bucket": bucket, "S3_object_name": "p", "script": "p/a.py", "manifest": "d", "rank_variables": {}}
    event |= {"world_size": 10_000, "data_prefix": "data/", "result_path": "runs/a/results"}
    put(s3, bucket, **{"runs/a/event.json": json.dumps(event)})
    answer = initialize.handler({"bucket": bucket, "run_prefix": "runs/a/"})
    assert (answer["is_inline"], answer["body"], answer["ranks_key"]) == (False, [], "runs/a/ranks.json")
    assert len(json.dumps(answer)) < 1000
    content = s3.get_object(Bucket=bucket, Key="runs/a/ranks.json")["Body"].read()
    ranks = json.loads(content)
    assert [rank["RANK"] for rank in ranks] == [str(rank) for rank in range(10_000)]
    assert ranks[2] == {
        "S3_BUCKET": bucket,
        "RUN_PREFIX": "runs/a/",
        "WORLD_SIZE": "10000",
        "RANK": "2",
        "DATA_PATH": files[2],
    }
    assert max(len(json.dumps(rank)) for rank in ranks) < 1000


def test_a_changed_file_of_a_program_is_not_run(s3: Any, bucket: str) -> None:
    put(
        s3, bucket, **{"cache/manifests/d.json": json.dumps({"p/a.py": "0" * 64}), f"cache/blobs/{'0' * 64}": "changed"}
    )
    with pytest.raises(initialize.DamagedProgramError, match=r"p/a\.py in s3://.* was changed: delete the object"):
        initialize.build_program(s3, bucket, "d")
    with pytest.raises(initialize.DamagedProgramError, match=r"p/a\.py is not in s3://.*: start the run again"):
        s3.delete_object(Bucket=bucket, Key=f"cache/blobs/{'0' * 64}")
        initialize.build_program(s3, bucket, "d")


def test_the_dns_record_follows_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    route53, ec2 = boto3.client("route53"), boto3.client("ec2")
    zone = route53.create_hosted_zone(Name="example.org.", CallerReference="test")["HostedZone"]["Id"].rpartition("/")[
        2
    ]
    monkeypatch.setenv("DNS_NAME", "fmi.example.org")
    monkeypatch.setenv("HOSTED_ZONE_ID", zone)
    addresses = []
    for _ in range(2):
        interface = ec2.create_network_interface(SubnetId=ec2.describe_subnets()["Subnets"][0]["SubnetId"])
        identifier = interface["NetworkInterface"]["NetworkInterfaceId"]
        with pytest.raises(dns.NoAddressError, match=f"network interface {identifier} has no public address"):
            dns.handler(
                {"detail": {"attachments": [{"details": [{"name": "networkInterfaceId", "value": identifier}]}]}}
            )
        allocated = ec2.allocate_address(Domain="vpc")
        ec2.associate_address(AllocationId=allocated["AllocationId"], NetworkInterfaceId=identifier)
        answer = dns.handler(
            {"detail": {"attachments": [{"details": [{"name": "networkInterfaceId", "value": identifier}]}]}}
        )
        addresses.append(answer["address"])
        records = route53.list_resource_record_sets(HostedZoneId=zone)["ResourceRecordSets"]
        found = [record["ResourceRecords"] for record in records if record["Type"] == "A"]
        assert found == [[{"Value": answer["address"]}]]
    assert len(set(addresses)) == 2
    delete_record(route53, zone, "fmi.example.org")
    assert not [
        r for r in route53.list_resource_record_sets(HostedZoneId=zone)["ResourceRecordSets"] if r["Type"] == "A"
    ]
    with pytest.raises(dns.NoAddressError, match="task arn has no network interface"):
        dns.handler({"detail": {"taskArn": "arn"}})


def test_the_dns_functions_role_allows_what_it_calls_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    zone = boto3.client("route53").create_hosted_zone(Name="example.com.", CallerReference="role")["HostedZone"]["Id"]
    monkeypatch.setenv("DNS_NAME", "fmi.example.com")
    monkeypatch.setenv("HOSTED_ZONE_ID", zone.rpartition("/")[2])
    ec2 = boto3.client("ec2")
    interface = ec2.create_network_interface(SubnetId=ec2.describe_subnets()["Subnets"][0]["SubnetId"])
    identifier = interface["NetworkInterface"]["NetworkInterfaceId"]
    ec2.associate_address(
        AllocationId=ec2.allocate_address(Domain="vpc")["AllocationId"], NetworkInterfaceId=identifier
    )
    session, calls = boto3.Session(), []
    observe_calls(session, lambda call: calls.append(f"{call.service}:{call.operation}"))
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", session)
    dns.handler({"detail": {"attachments": [{"details": [{"name": "networkInterfaceId", "value": identifier}]}]}})
    (role,) = re.findall(r"^  DnsRole:\n(.*?)^  Dns:", template(), re.DOTALL | re.MULTILINE)
    allowed = set(re.findall(r"\b(?:ec2|logs|route53|s3|secretsmanager):[A-Z]\w+", role))
    # Lambda itself writes the logs.
    assert allowed == {*calls, "logs:CreateLogStream", "logs:PutLogEvents"}
