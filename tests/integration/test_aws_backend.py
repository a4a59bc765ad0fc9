"""The whole way on a stack: deploy, run, detach, attach, logs, cancel, pipeline, destroy, and what AWS receives."""

import json
import re
import signal
import time
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.awsrequest import AWSResponse

from emulator.aws.lambda_.core.invocations import LambdaService
from emulator.errors import ApiError
from emulator.fmi.aws_calls import AwsCall, observe_calls
from emulator.fmi.deployment.permissions import RUN_ACTIONS
from emulator.fmi.executions import follow
from emulator.fmi.functions import execute, initialize, summarize
from tests.commands import FMIRUN, Command
from tests.integration.account import REGION, Account, account_with_stack
from tests.integration.policies import RolePolicy, tasks

pytestmark = pytest.mark.timeout(180)
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    with account_with_stack(tmp_path_factory.mktemp("wheels")) as made:
        yield made


def write(folder: Path, text: str) -> Path:
    (folder / "fmi.json").write_text((EXAMPLES / "fmi.json").read_text())
    script = folder / "program.py"
    script.write_text(text)
    return script


def run_id(text: str) -> str:
    return next(line.split()[1] for line in text.splitlines() if line.startswith("run "))


PREAMBLE = """\
import os, fmi
rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
comm = fmi.Communicator(rank, size, "fmi.json", "test")
total = lambda: comm.allreduce(rank, fmi.func(fmi.op.sum), fmi.types(fmi.datatypes.int))
"""


# A rank goes on when the test lets the run go.
WAITS = """\
import boto3, time
s3, go = boto3.client("s3"), os.environ["RESULT_PATH"] + "/go"
while not s3.list_objects_v2(Bucket=os.environ["S3_BUCKET"], Prefix=go)["KeyCount"]: time.sleep(0.1)
"""


def bucket_of(account: Account) -> str:
    outputs = account.client("cloudformation").describe_stacks(StackName="fmi")["Stacks"][0]["Outputs"]
    return next(str(output["OutputValue"]) for output in outputs if output["OutputKey"] == "Bucket")


def let_go(account: Account, run: str) -> None:
    account.client("s3").put_object(Bucket=bucket_of(account), Key=f"runs/{run}/results/go")


def keys(account: Account, prefix: str) -> int:
    return int(account.client("s3").list_objects_v2(Bucket=bucket_of(account), Prefix=prefix)["KeyCount"])


def test_the_whole_way(account: Account, tmp_path: Path) -> None:
    """Every call of deploying and of runs is allowed by the printed policies, which allow nothing else."""
    again = account.run("deploy", "--yes", "--timeout", "60")
    assert (again.status, "is up to date" in again.err) == (0, True), again.err
    status = account.run("status")
    assert re.search(r"^rendezvous server at 127\.0\.\d+\.\d+:10000: healthy, ", status.out, re.MULTILINE)
    assert "costs 0.0184 USD an hour" in status.out
    account.calls.clear()

    script = write(tmp_path, PREAMBLE + "print('the sum is', total())\n")
    data = tmp_path / "parts"
    data.mkdir()
    for number in range(3):
        (data / f"{number}.txt").write_text(str(number))
    report = tmp_path.parent / f"{tmp_path.name}-report.json"  # not in the program's folder, which is uploaded
    ended = account.run("fmirun", "-n", 3, "--data", data, "--report", report, script)
    ranks = json.loads(report.read_text())["ranks"]
    assert [(rank["rank"], rank["failure"]) for rank in ranks] == [(0, None), (1, None), (2, None)]
    assert all(rank["billed_ms"] > 0 for rank in ranks)
    assert ended.status == 0, ended.err
    assert sorted(ended.out.splitlines()) == [f"[{rank}] the sum is 3" for rank in range(3)]
    # The data is also in the program's folder, and uploaded once.
    assert "uploaded 5 of 5 files of the program" in ended.err
    assert "uploaded 0 of 3 files of data" in ended.err
    assert "billed: 0.000" in ended.err

    detached = account.run("fmirun", "-n", 2, "--detach", script)
    run = detached.out.strip()
    assert "uploaded 0 of " in detached.err
    attached = account.run("attach", run)
    assert (attached.status, sorted(attached.out.splitlines())) == (0, ["[0] the sum is 1", "[1] the sum is 1"])
    assert account.run("logs", run, "--rank", 1).out == "[1] the sum is 1\n"
    listed = account.run("runs")
    assert [line.split()[-1] for line in listed.out.splitlines()[1:]] == ["SUCCEEDED", "SUCCEEDED"]

    run = account.run("fmirun", "-n", 2, "--detach", write(tmp_path, "import os\n" + WAITS)).out.strip()
    until(lambda: keys(account, f"runs/{run}/claims/") == 2)
    cancelled = account.run("cancel", run)
    let_go(account, run)
    assert "2 ranks were started and cannot be stopped from outside" in cancelled.err
    assert account.run("attach", run).status == 1
    assert "has ended already: ABORTED" in account.run("cancel", run).err

    payload = tmp_path / "payload.json"
    text = {"bucket": "somebody-elses", "S3_object_name": tmp_path.name, "script": f"/tmp/{tmp_path.name}/results.py"}
    payload.write_text(json.dumps({**text, "world_size": "2", "result_path": "out"}))
    (tmp_path / "results.py").write_text(
        PREAMBLE + "import boto3, json\n"
        "boto3.client('s3').put_object(Bucket=os.environ['S3_BUCKET'],\n"
        "    Body=json.dumps({'sum': total(), 'mark': os.environ['MARK']}),\n"
        "    Key=f'{os.environ[\"RESULT_PATH\"]}/{rank}.json')\n"
    )
    ended = account.run(
        "pipeline", "--backend", "aws", "--env", "MARK=given", "--results", tmp_path / "results", payload
    )
    assert ended.status == 0, ended.err
    result = {"sum": 1, "mark": "given"}
    assert json.loads((tmp_path / "results" / "combined_data.json").read_text()) == [result, result]
    # The balancer of --nlb is looked up in the tests of a stack that has one.
    assert account.actions() == set(RUN_ACTIONS) - {"elasticloadbalancing:DescribeLoadBalancers"}


def test_no_secret_leaves_secrets_manager(account: Account, tmp_path: Path) -> None:
    """Template, parameters, functions, the run's objects and all logs are searched for both secrets."""
    script = write(tmp_path, PREAMBLE + "print(total(), dict(os.environ))\n")
    ended = account.run("fmirun", "-n", 2, script)
    assert (ended.status, "FMI_RENDEZVOUS_SECRET_FILE" in ended.out) == (0, True), ended.err
    secrets = account.client("secretsmanager")
    values = []
    for listed in secrets.list_secrets()["SecretList"]:
        values += json.loads(secrets.get_secret_value(SecretId=listed["ARN"])["SecretString"]).values()
    hidden = [line for value in values for line in value.splitlines() if "CERTIFICATE" not in line and len(line) > 20]
    public = next(value for value in values if value.startswith("-----BEGIN CERTIFICATE") and "PRIVATE" not in value)
    hidden = [line for line in hidden if line not in public]
    assert len(hidden) >= 3
    cloudformation, functions, s3, logs = (account.client(name) for name in ("cloudformation", "lambda", "s3", "logs"))
    stack = cloudformation.describe_stacks(StackName="fmi")["Stacks"][0]
    texts = [str(stack), str(cloudformation.get_template(StackName="fmi"))]
    texts += [
        str(functions.get_function_configuration(FunctionName=f"fmi-{name}")) for name in ("execute", "summarize")
    ]
    bucket = next(output["OutputValue"] for output in stack["Outputs"] if output["OutputKey"] == "Bucket")
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for found in page["Contents"]:
            texts.append(s3.get_object(Bucket=bucket, Key=found["Key"])["Body"].read().decode(errors="replace"))
    groups = [group["logGroupName"] for group in logs.describe_log_groups()["logGroups"]]
    assert "/fmi-emulator/fmi-rendezvous" in groups
    texts += [str(logs.filter_log_events(logGroupName=group)["events"]) for group in groups]
    ecs = account.client("ecs")
    texts.append(str(ecs.describe_task_definition(taskDefinition="fmi-rendezvous")))
    for secret in hidden:
        assert not [text[:80] for text in texts if secret in text]


def test_each_role_allows_what_its_owner_calls_and_nothing_else(
    account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The functions run in this process, where their calls are observed; the policies are those of the stack."""
    text = "import boto3, os\nboto3.client('s3').put_object(\n"
    text += "    Bucket=os.environ['S3_BUCKET'], Key=os.environ['RESULT_PATH'] + '/0.json', Body=b'{}')\n"
    run = run_id(account.run("fmirun", "-n", 1, write(tmp_path, text)).err)
    resources = account.client("cloudformation").list_stack_resources(StackName="fmi")["StackResourceSummaries"]
    ids = {found["LogicalResourceId"]: found["PhysicalResourceId"] for found in resources}
    bucket, s3 = ids["Bucket"], account.client("s3")
    event = json.loads(s3.get_object(Bucket=bucket, Key=f"runs/{run}/event.json")["Body"].read())
    # A program that has no archive yet, so that it is made, and results that are merged.
    program = f"cache/programs/{event['manifest']}.zip"
    s3.delete_object(Bucket=bucket, Key=program)
    event |= {"merge": True, "result_path": "runs/again/results", "data_bucket": bucket, "data_prefix": "cache/data/"}
    s3.put_object(Bucket=bucket, Key="runs/again/event.json", Body=json.dumps({**event, "world_size": 1}))

    calls: list[AwsCall] = []
    monkeypatch.setenv("AWS_ENDPOINT_URL", account.cloud.endpoint_url)
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("RENDEZVOUS_SECRET_ID", ids["RendezvousSecret"])
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    session = boto3.Session()
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", session)
    observe_calls(session, calls.append)

    def policy(logical: str) -> RolePolicy:
        return RolePolicy(account, ids[logical])

    def called() -> list[AwsCall]:
        found = list(calls)
        calls.clear()
        return found

    # Lambda itself writes the logs.
    logs = {"logs:CreateLogStream", "logs:PutLogEvents"}
    made = initialize.handler({"bucket": bucket, "run_prefix": "runs/again/"})
    policy("InitializeRole").check(called(), logs)
    execute.handler(made["body"][0])
    # A missing object is reported as such, not as denied, to those who may list the bucket.
    policy("ExecuteRole").check(called(), {*logs, "s3:ListBucket"})
    assert summarize.handler(made["event"])["ranks"] == 1
    policy("SummarizeRole").check(called(), logs)

    definition = account.client("stepfunctions").describe_state_machine(stateMachineArn=ids["StateMachine"])
    machine, used = policy("StateMachineRole"), set()
    for task in tasks(json.loads(definition["definition"])):
        resource = task.get("Resource", "").removeprefix("arn:aws:states:::")
        if resource == "lambda:invoke":
            assert machine.allows("lambda:InvokeFunction", task["Parameters"]["FunctionName"])
            used.add("lambda:InvokeFunction")
        elif resource:
            verb = resource.rpartition(":")[2]
            used.add(f"s3:{verb[0].upper()}{verb[1:]}")
        elif task["Mode"] == "DISTRIBUTED":
            used |= {"states:StartExecution", "states:DescribeExecution", "states:StopExecution"}
    assert machine.actions == used
    assert machine.allows("s3:GetObject", f"arn:aws:s3:::{bucket}/runs/a/ranks.json")
    assert machine.allows("s3:PutObject", f"arn:aws:s3:::{bucket}/runs/a/failures/3.json")

    ecs = account.client("ecs")
    task = ecs.describe_task_definition(taskDefinition="fmi-rendezvous")["taskDefinition"]["containerDefinitions"][0]
    start, server = policy("TaskExecutionRole"), policy("TaskRole")
    for secret in task["secrets"]:
        assert start.allows("secretsmanager:GetSecretValue", ":".join(secret["valueFrom"].split(":")[:7]))
    assert start.actions - {"secretsmanager:GetSecretValue", *logs} == {
        "ecr:BatchGetImage",
        "ecr:GetAuthorizationToken",
        "ecr:GetDownloadUrlForLayer",
    }
    key = next(entry["value"] for entry in task["environment"] if entry["name"] == "SERVER_KEY")
    assert server.actions == {"s3:GetObject"}
    assert server.allows("s3:GetObject", f"arn:aws:s3:::{bucket}/{key}")


def test_the_rank_that_failed_is_named(account: Account, tmp_path: Path) -> None:
    script = write(tmp_path, PREAMBLE + "1 / (rank - 1)\nprint(total())\n")
    ended = account.run("fmirun", "-n", 3, script)
    assert ended.status == 1
    assert ended.err.splitlines()[-1] == (
        f"fmirun: rank 1 failed: ZeroDivisionError: division by zero (/tmp/{tmp_path.name}/program.py:5)"
    )


def test_a_killed_rank_is_named(account: Account, tmp_path: Path) -> None:
    script = write(tmp_path, PREAMBLE + "total()\nif rank == 1: os.kill(os.getpid(), 9)\nprint(total())\n")
    ended = account.run("fmirun", "-n", 2, script)
    assert ended.status == 1
    assert ended.err.splitlines()[-1].startswith("fmirun: rank 1 failed: ProcessEnded: ")


def test_more_ranks_than_an_inline_map_takes_run_in_a_distributed_one(account: Account, tmp_path: Path) -> None:
    ended = account.run("fmirun", "-n", 41, write(tmp_path, "import os\nprint(os.environ['WORLD_SIZE'])\n"))
    assert ended.status == 0, ended.err
    assert sorted(ended.out.splitlines()) == [f"[{rank:2}] 41" for rank in range(41)]
    states = account.client("stepfunctions")
    arn = states.list_state_machines()["stateMachines"][0]["stateMachineArn"]
    execution = next(
        found
        for found in states.list_executions(stateMachineArn=arn)["executions"]
        if found["name"] == run_id(ended.err)
    )
    maps = states.list_map_runs(executionArn=execution["executionArn"])["mapRuns"]
    assert len(maps) == 1
    counts = states.describe_map_run(mapRunArn=maps[0]["mapRunArn"])["itemCounts"]
    assert (counts["total"], counts["succeeded"]) == (41, 41)


def test_ranks_end_before_the_run_costs_more_than_its_limit(account: Account, tmp_path: Path) -> None:
    script = write(tmp_path, "import time\ntime.sleep(50)\n")
    refused = account.run("fmirun", "-n", 1, "--max-cost", "0.0001", script)
    assert (refused.status, "above --max-cost 0.0001" in refused.err) == (2, True)
    ended = account.run("fmirun", "-n", 1, "--max-cost", "0.00029", script)
    assert "each rank ends after 5 s, since more would cost above --max-cost" in ended.err
    assert "fmirun: rank 0 failed: TimeLimitReached: 5 s: the run would cost more than --max-cost" in ended.err
    billed = float(re.search(r"billed: (\S+) USD", ended.err)[1])  # type: ignore[index]
    assert billed < 0.0003


def test_a_dry_run_changes_nothing(account: Account, tmp_path: Path) -> None:
    script = write(tmp_path, "print('never')\n")
    before = account.run("runs").out
    account.calls.clear()
    ended = account.run("fmirun", "-n", 2, "--dry-run", script)
    assert ended.status == 0, ended.err
    assert "  stepfunctions StartExecution(" in ended.err
    assert account.run("runs").out == before


def test_a_repeated_event_runs_no_rank_twice(account: Account, tmp_path: Path) -> None:
    """The same event comes again twice while the rank runs, and once after its end."""
    script = write(tmp_path, "import os\nprint('once', flush=True)\n" + WAITS)
    run = account.run("fmirun", "-n", 1, "--detach", script).out.strip()
    event = {"S3_BUCKET": bucket_of(account), "RUN_PREFIX": f"runs/{run}/", "RANK": "0", "WORLD_SIZE": "1"}
    functions = account.client("lambda")
    until(lambda: keys(account, f"runs/{run}/claims/") == 1)
    for _ in range(2):
        functions.invoke(FunctionName="fmi-execute", InvocationType="Event", Payload=json.dumps(event))
    let_go(account, run)
    attached = account.run("attach", run)
    assert (attached.status, attached.out) == (0, "[0] once\n"), attached.err
    answer = functions.invoke(FunctionName="fmi-execute", Payload=json.dumps(event))
    assert json.loads(answer["Payload"].read()) == {"statusCode": 200, "rank": 0, "repeated": True}
    assert account.run("logs", run).out == "[0] once\n"


def test_connected_ranks_outlive_the_servers_task(account: Account, tmp_path: Path) -> None:
    """The task is replaced in the middle of a run, and the next run finds the new one at another address."""
    script = write(tmp_path, PREAMBLE + "total()\nprint('connected')\nimport time\ntime.sleep(5)\nprint(total())\n")
    ecs = account.client("ecs")
    before = ecs.list_tasks(cluster="fmi")["taskArns"]
    run = account.run("fmirun", "-n", 2, "--detach", script).out.strip()
    until(lambda: account.run("logs", run).out.count("connected") == 2)
    ecs.stop_task(cluster="fmi", task=before[0])
    attached = account.run("attach", run)
    assert attached.status == 0, attached.err
    assert sorted(attached.out.splitlines()) == ["[0] 1", "[0] connected", "[1] 1", "[1] connected"]
    until(lambda: account.run("status").status == 0)
    assert ecs.list_tasks(cluster="fmi")["taskArns"] != before
    assert account.run("fmirun", "-n", 2, script).status == 0


def until(holds: Any) -> None:
    ends = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.5)


def fail_requests(account: Account, fails: Any) -> None:
    """Answer requests of the commands' sessions with what a function returns: status, code; or None to send it."""

    def observe(session: Any) -> None:
        def before_send(request: Any, **_: object) -> Any:
            failure = fails(request)
            if failure is None:
                return None
            status, code = failure
            body = json.dumps({"__type": code, "message": "injected", "Error": {"Code": code}}).encode()
            if ".s3." in request.url or "/fmi-bucket-" in request.url:
                body = f"<Error><Code>{code}</Code><Message>injected</Message></Error>".encode()
            return AWSResponse(request.url, status, {"x-amzn-errortype": code}, _Raw(body))

        session.events.register("before-send.*.*", before_send)

    account.observe = observe


class _Raw:
    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self, **_: object) -> Iterator[bytes]:
        yield self._body

    def read(self, *_: object) -> bytes:
        body, self._body = self._body, b""
        return body


@pytest.fixture
def unharmed(account: Account) -> Iterator[None]:
    yield
    account.observe = lambda _: None


@pytest.mark.usefixtures("unharmed")
def test_throttled_requests_are_repeated(account: Account, tmp_path: Path) -> None:
    """Each second request of S3, Step Functions and CloudWatch Logs is refused for its rate."""
    refused: list[str] = []
    sent = [0]

    def fails(request: Any) -> tuple[int, str] | None:
        target = request.headers.get("X-Amz-Target", b"")
        kind = target.decode() if isinstance(target, bytes) else target
        if not ("/fmi-bucket-" in request.url or kind.startswith(("AWSStepFunctions", "Logs_"))):
            return None
        sent[0] += 1
        if sent[0] % 2:
            return None
        refused.append(kind or "S3")
        return (429, "ThrottlingException") if kind else (503, "SlowDown")

    fail_requests(account, fails)
    ended = account.run("fmirun", "-n", 2, write(tmp_path, PREAMBLE + "print(total())\n"))
    assert ended.status == 0, ended.err
    assert sorted(ended.out.splitlines()) == ["[0] 1", "[1] 1"]
    assert {"S3", "AWSStepFunctions.DescribeExecution", "Logs_20140328.FilterLogEvents"} <= set(refused)


@pytest.mark.usefixtures("unharmed")
def test_credentials_that_expire_in_the_middle(account: Account, tmp_path: Path) -> None:
    """Renewed ones are found; if there are none, the run goes on and the message says how to attach."""
    script = write(tmp_path, PREAMBLE + "import time\ntime.sleep(2)\nprint(total())\n")
    described = [0]
    is_renewed = [True]

    def fails(request: Any) -> tuple[int, str] | None:
        if b"DescribeExecution" not in bytes(str(request.headers.get("X-Amz-Target")), "ascii"):
            return None
        described[0] += 1
        return (400, "ExpiredTokenException") if described[0] == 2 or (described[0] > 1 and not is_renewed[0]) else None

    fail_requests(account, fails)
    ended = account.run("fmirun", "-n", 2, script)
    assert (ended.status, sorted(ended.out.splitlines())) == (0, ["[0] 1", "[1] 1"]), ended.err
    described[0], is_renewed[0] = 0, False
    ended = account.run("fmirun", "-n", 2, script)
    assert ended.status == 2
    run = run_id(ended.err)
    assert "credentials have expired: renew them, for example with `aws sso login`" in ended.err
    assert f"run {run} goes on: then `fmi-emulator attach {run}`" in ended.err
    account.observe = lambda _: None
    assert account.run("attach", run).status == 0


def test_functions_that_are_not_ready_yet_are_invoked_again(
    account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Right after a deployment: a role, a function and its update are not known everywhere yet."""
    invoke = LambdaService.invoke
    early = {
        "fmi-initialize": (
            "AccessDeniedException",
            HTTPStatus.FORBIDDEN,
            "is not authorized to perform: lambda:Invoke",
        ),
        "fmi-execute": ("ResourceConflictException", HTTPStatus.CONFLICT, "in the following state: Pending"),
        "fmi-summarize": ("ResourceNotReadyException", HTTPStatus.BAD_GATEWAY, "the function is inactive"),
    }

    async def invoke_later(self: Any, function: str, *arguments: Any, **named: Any) -> Any:
        if failure := early.pop(function.rpartition(":")[2], None):
            raise ApiError(*failure)
        return await invoke(self, function, *arguments, **named)

    monkeypatch.setattr(LambdaService, "invoke", invoke_later)
    ended = account.run("fmirun", "-n", 2, write(tmp_path, PREAMBLE + "print(total())\n"))
    assert (ended.status, sorted(ended.out.splitlines())) == (0, ["[0] 1", "[1] 1"]), ended.err
    assert early == {}


@pytest.mark.usefixtures("unharmed")
def test_a_result_whose_end_is_missing_is_read_again(
    account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut: list[str] = []

    def observe(session: Any) -> None:
        def before_send(request: Any, **_: object) -> Any:
            if cut or not request.url.endswith("/results/0.json"):
                return None
            cut.append(request.url)
            return AWSResponse(request.url, 200, {"content-length": "12"}, _Raw(b'{"a": '))

        session.events.register("before-send.s3.GetObject", before_send)

    account.observe = observe
    monkeypatch.setattr(follow, "_RETRY_S", 0)
    text = "import boto3, os\nboto3.client('s3').put_object(Bucket=os.environ['S3_BUCKET'], Body=b'{\"a\": 12345}',\n"
    text += "    Key=os.environ['RESULT_PATH'] + '/0.json')\n"
    ended = account.run("fmirun", "-n", 1, "--results", tmp_path / "results", write(tmp_path, text))
    assert (ended.status, len(cut)) == (0, 1), ended.err
    assert json.loads((tmp_path / "results" / "0.json").read_text()) == {"a": 12345}
    assert "AWS answers again" in ended.err


def test_a_caller_that_sleeps_for_ten_minutes_reports_the_whole_run(
    account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clocks of the command jump while it waits; the run has ended meanwhile."""
    run = account.run("fmirun", "-n", 2, "--detach", write(tmp_path, PREAMBLE + WAITS + "print(total())\n")).out.strip()
    states = account.client("stepfunctions")
    arn = states.list_state_machines()["stateMachines"][0]["stateMachineArn"]
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        if not slept:
            let_go(account, run)
            execution = f"{arn.replace(':stateMachine:', ':execution:')}:{run}"
            until(lambda: states.describe_execution(executionArn=execution)["status"] == "SUCCEEDED")
        slept.append(600 if not slept else seconds)

    clock = SimpleNamespace(sleep=sleep, monotonic=lambda: time.monotonic() + sum(slept))
    monkeypatch.setattr(follow, "time", clock)
    attached = account.run("attach", run)
    assert (attached.status, sorted(attached.out.splitlines())) == (0, ["[0] 1", "[1] 1"]), attached.err
    assert slept[0] == 600


def test_a_sweep_runs_on_the_stack(account: Account, tmp_path: Path) -> None:
    script, out = write(tmp_path, PREAMBLE + "print('the sum is', total())\n"), tmp_path / "sweep"
    ended = account.run("sweep", "--backend", "aws", "--world-sizes", "1,2", "--out", out, script)
    assert ended.status == 0, ended.err + ended.out
    assert "[1] the sum is 1" in ended.out
    rows = (out / "sweep.csv").read_text().splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == ["1", "2"]
    assert all(",ok," in row for row in rows)
    assert sum("SUCCEEDED" in line for line in account.run("runs").out.splitlines()) >= 2


def start(account: Account, script: Path) -> tuple[Command, str]:
    """Start fmirun as a process of its own, without a terminal; return it and its run's id."""
    reach = ("--backend", "aws", "--region", "us-east-1", "--endpoint-url", account.cloud.endpoint_url)
    process = Command(FMIRUN, *reach, "-n", 2, script)
    head = ""
    while not head.startswith("run "):
        head = process.stderr.readline()
        assert head
    return process, run_id(head)


def test_a_sleeping_caller_misses_nothing(account: Account, tmp_path: Path) -> None:
    """The command's process stands still from before the ranks' first line to after the run's end."""
    script = write(tmp_path, PREAMBLE + "import time\ntime.sleep(1)\nprint(total())\n")
    process, run = start(account, script)
    process.send_signal(signal.SIGSTOP)
    try:
        until(lambda: any(run in line and "SUCCEEDED" in line for line in account.run("runs").out.splitlines()))
    finally:
        process.send_signal(signal.SIGCONT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, sorted(out.splitlines())) == (0, ["[0] 1", "[1] 1"]), err


def test_an_interrupt_stops_the_run_and_says_what_goes_on_costing(account: Account, tmp_path: Path) -> None:
    process, run = start(account, write(tmp_path, "import time\nprint('begun', flush=True)\ntime.sleep(20)\n"))
    assert "begun" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"run {run} is stopped; " in err
    assert "cannot be stopped from outside: each is billed until it ends by itself, after 60 s at the latest" in err
    until(lambda: any(run in line and "ABORTED" in line for line in account.run("runs").out.splitlines()))


def test_what_cannot_run_is_refused_before_it_costs_anything(account: Account, tmp_path: Path) -> None:
    script = write(tmp_path, "import torch\n")
    ended = account.run("fmirun", "-n", 2, script)
    assert (ended.status, "imports torch" in ended.err, "--with torch" in ended.err) == (2, True, True)
    script = write(tmp_path, "")
    assert (
        "--memory 512: the functions of stack 'fmi' have 1769"
        in account.run("fmirun", "-n", 2, "--memory", 512, script).err
    )
    many = account.run("fmirun", "-n", 2000, script)
    assert "allows 1000 concurrent executions in us-east-1: run `aws service-quotas request-service-quota" in many.err
    functions = account.client("lambda")
    functions.put_function_concurrency(FunctionName="fmi-execute", ReservedConcurrentExecutions=3)
    try:
        assert "has 3 reserved executions" in account.run("fmirun", "-n", 4, script).err
    finally:
        functions.delete_function_concurrency(FunctionName="fmi-execute")
    assert "--preload: only local runs have it" in account.run("fmirun", "-n", 2, "--preload", "torch", script).err
    assert "unknown run 'no-such-run'" in account.run("attach", "no-such-run").err


def test_a_stack_of_another_owner_is_left_alone(account: Account, tmp_path: Path) -> None:
    template = json.dumps({"Resources": {"Queue": {"Type": "AWS::SQS::Queue"}}})
    account.client("cloudformation").create_stack(StackName="theirs", TemplateBody=template)
    for command in (["deploy", "--yes"], ["destroy", "--yes"], ["status"]):
        ended = account.run(*command, "--stack-name", "theirs")
        assert (ended.status, "was not made by `fmi-emulator deploy`" in ended.err) != (0, True)
        assert "was not made by `fmi-emulator deploy`" in ended.err
    assert (
        "does not exist in us-east-1: run `fmi-emulator deploy"
        in account.run("fmirun", "--stack-name", "none", "-n", 2, write(tmp_path, "")).err
    )
