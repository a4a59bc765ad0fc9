"""Lambda used through boto3, with a real endpoint and real sandboxes."""

import base64
import json
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

Deploy = Callable[..., str]


def invoke(functions: Any, name: str, event: object = None) -> tuple[Any, str, str | None]:
    """Return the answer, the log's tail and the kind of error."""
    response = functions.invoke(FunctionName=name, LogType="Tail", Payload=json.dumps(event).encode())
    log = base64.b64decode(response["LogResult"]).decode()
    return json.loads(response["Payload"].read()), log, response.get("FunctionError")


def refusal(call: Callable[..., Any], **arguments: Any) -> tuple[str, int, str]:
    """Return the code, status and message with which a call is refused."""
    with pytest.raises(ClientError) as raised:
        call(**arguments)
    response = raised.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Message"]


def test_a_handler_receives_event_and_context_and_its_result_is_returned(functions: Any, deploy: Deploy) -> None:
    name = deploy("""
        def handler(event, context):
            return {"event": event, "name": context.function_name, "arn": context.invoked_function_arn,
                    "left": context.get_remaining_time_in_millis(), "memory": context.memory_limit_in_mb}
    """)
    answer, _, error = invoke(functions, name, {"x": [1, 2.5, "ü"]})
    assert error is None
    assert answer["event"] == {"x": [1, 2.5, "ü"]}
    assert answer["name"] == name
    assert answer["arn"] == f"arn:aws:lambda:us-east-1:123456789012:function:{name}"
    assert 0 < answer["left"] <= 20_000
    assert answer["memory"] == "512"


def test_a_function_is_found_by_name_arn_and_qualifier(functions: Any, deploy: Deploy) -> None:
    name = deploy("def handler(event, context): return context.function_version")
    arn = functions.get_function(FunctionName=name)["Configuration"]["FunctionArn"]
    for reference in (name, arn, f"123456789012:function:{name}", f"{name}:$LATEST"):
        assert invoke(functions, reference)[0] == "$LATEST"
    functions.get_waiter("function_active_v2").wait(FunctionName=name)
    assert name in [function["FunctionName"] for function in functions.list_functions()["Functions"]]


def test_the_log_has_lambdas_lines_around_what_the_handler_printed(
    functions: Any, log_client: Any, deploy: Deploy
) -> None:
    name = deploy("""
        import subprocess, sys
        def handler(event, context):
            print("from python")
            print("to stderr", file=sys.stderr)
            subprocess.run(["echo", "from a child"], check=True)
            sys.stdout.write("no newline")
    """)
    _, log, _ = invoke(functions, name)
    events = log_client.filter_log_events(logGroupName=f"/aws/lambda/{name}")["events"]
    messages = [event["message"] for event in events]
    # Every event ends with its line; what was printed without a line's end does not.
    assert [message for message in messages if not message.endswith("\n")] == ["no newline"]
    lines = [message.rstrip("\n") for message in messages]
    assert re.fullmatch(
        r"INIT_START Runtime Version: python:3\.\d+\.\d+\tRuntime Version ARN: arn:aws:lambda:.*", lines[0]
    )
    del lines[0]
    assert log.splitlines() == lines
    request_id = re.fullmatch(r"START RequestId: (\S+) Version: \$LATEST", lines[0])[1]  # type: ignore[index]
    assert lines[1:6] == ["from python", "to stderr", "from a child", "no newline", f"END RequestId: {request_id}"]
    assert re.fullmatch(
        rf"REPORT RequestId: {request_id}\tDuration: [\d.]+ ms\tBilled Duration: \d+ ms\tMemory Size: 512 MB\t"
        r"Max Memory Used: \d+ MB\tInit Duration: [\d.]+ ms\t",
        lines[6],
    )
    assert re.fullmatch(r"\d{4}/\d\d/\d\d/\[\$LATEST\][0-9a-f]{32}", events[0]["logStreamName"])


def test_a_second_invocation_runs_in_the_warm_sandbox(functions: Any, deploy: Deploy) -> None:
    name = deploy("""
        count = 0
        def handler(event, context):
            global count
            count += 1
            return count
    """)
    first, cold_log, _ = invoke(functions, name)
    second, warm_log, _ = invoke(functions, name)
    assert (first, second) == (1, 2)
    assert "Init Duration" in cold_log
    assert "Init Duration" not in warm_log


def test_concurrent_invocations_run_in_separate_sandboxes(functions: Any, deploy: Deploy) -> None:
    name = deploy("""
        import os, time
        def handler(event, context):
            time.sleep(0.5)
            return os.getpid()
    """)
    with ThreadPoolExecutor(8) as threads:
        pids = list(threads.map(lambda _: invoke(functions, name)[0], range(8)))
    assert len(set(pids)) == 8


def test_the_environment_contains_lambdas_variables_and_none_of_the_emulator(
    functions: Any, deploy: Deploy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_PARENT", "x")
    name = deploy(
        "import os\ndef handler(event, context): return dict(os.environ)",
        Environment={"Variables": {"MINE": "1"}},
    )
    environment, _, _ = invoke(functions, name)
    assert environment["MINE"] == "1"
    assert environment["AWS_LAMBDA_FUNCTION_NAME"] == name
    assert environment["AWS_REGION"] == "us-east-1"
    assert environment["_HANDLER"] == "main.handler"
    assert environment["TZ"] == ":UTC"
    assert not {"SECRET_OF_THE_PARENT", "HOME", "PYTEST_CURRENT_TEST"} & environment.keys()


def test_plain_boto3_in_a_handler_reaches_the_same_s3(functions: Any, s3: Any, bucket: str, deploy: Deploy) -> None:
    name = deploy("""
        import boto3
        def handler(event, context):
            boto3.client("s3").put_object(Bucket=event, Key="a/b c+ü.txt", Body=b"written inside")
    """)
    assert invoke(functions, name, bucket)[2] is None
    assert s3.get_object(Bucket=bucket, Key="a/b c+ü.txt")["Body"].read() == b"written inside"


def test_tmp_is_private_and_limited(functions: Any, deploy: Deploy) -> None:
    name = deploy(
        """
        import os, pathlib
        def handler(event, context):
            before = sorted(os.listdir("/tmp"))
            pathlib.Path("/tmp/mine").write_text("x")
            try:
                with open("/tmp/large", "wb") as large:
                    for _ in range(600):
                        large.write(bytes(1 << 20))
            except OSError as error:
                return [before, error.strerror]
        """,
        EphemeralStorage={"Size": 512},
    )
    answer, log, _ = invoke(functions, name)
    if "no private /tmp" in log or "mount namespaces" in log:
        pytest.skip(f"this platform has no private /tmp: {log}")
    before, error = answer
    assert "mine" not in before
    assert error == "No space left on device"
    assert not Path("/tmp/mine").exists()


def test_an_exception_is_returned_with_type_message_and_stack(functions: Any, deploy: Deploy) -> None:
    name = deploy("""
        def handler(event, context):
            raise ValueError("what was wrong")
    """)
    answer, log, error = invoke(functions, name)
    assert error == "Unhandled"
    assert answer["errorType"] == "ValueError"
    assert answer["errorMessage"] == "what was wrong"
    assert 'raise ValueError("what was wrong")' in answer["stackTrace"][-1]
    assert f"START RequestId: {answer['requestId']}" in log
    assert "[ERROR] ValueError: what was wrong" in log
    assert invoke(functions, name)[1].count("Init Duration") == 0, "an exception leaves the sandbox warm"


@pytest.mark.parametrize(
    ("source", "kind", "message"),
    [
        ("import nothing_of_this_name", "Runtime.ImportModuleError", "No module named 'nothing_of_this_name'"),
        ("other = 1", "Runtime.HandlerNotFound", "Handler 'handler' missing on module 'main'"),
        ("def handler(:", "Runtime.UserCodeSyntaxError", "Syntax error in module 'main': invalid syntax"),
        ("1 / 0", "ZeroDivisionError", "division by zero"),
    ],
)
def test_a_module_that_cannot_be_loaded_is_an_error_of_every_invocation(
    functions: Any, deploy: Deploy, source: str, kind: str, message: str
) -> None:
    name = deploy(source)
    for _ in range(2):
        answer, log, error = invoke(functions, name)
        assert error == "Unhandled"
        assert answer["errorType"] == kind
        assert message in answer["errorMessage"]
        lines = log.splitlines()
        # As on AWS, the output of the second try precedes the invocation's lines.
        assert lines[0].startswith(f"[ERROR] {kind}: ")
        assert re.fullmatch(
            rf"INIT_REPORT Init Duration: [\d.]+ ms\tPhase: invoke\tStatus: error\tError Type: {kind}", lines[-4]
        )
        assert answer["requestId"] == ""  # as recorded on AWS: the init phase belongs to no request
        started = re.fullmatch(r"START RequestId: ([0-9a-f-]{36}) Version: \$LATEST", lines[-3])
        assert started is not None
        assert lines[-2] == f"END RequestId: {started[1]}"
        assert lines[-1].endswith(f"Status: error\tError Type: {kind}\t")
        assert "Init Duration" not in lines[-1]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "signal: killed"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "signal: segmentation fault"),
        ("os._exit(3)", "exit status 3"),
        ("sys.exit(4)", "exit status 4"),
        ("sys.stdout.close(); sys.exit(6)", "exit status 6"),
    ],
)
def test_a_process_that_exits_is_an_exit_error(functions: Any, deploy: Deploy, body: str, reason: str) -> None:
    name = deploy(f"import os, signal, sys\ndef handler(event, context):\n    print('so far')\n    {body}")
    answer, log, error = invoke(functions, name)
    assert error == "Unhandled"
    assert answer["errorType"] == "Runtime.ExitError"
    assert answer["errorMessage"].endswith(f"Error: Runtime exited with error: {reason}")
    assert "so far" in log
    assert "Status: error\tError Type: Runtime.ExitError" in log
    assert "Init Duration" in invoke(functions, name)[1], "the next invocation has a new sandbox"


def test_a_handler_that_times_out_is_killed_with_all_its_processes(
    functions: Any, deploy: Deploy, tmp_path: Path
) -> None:
    name = deploy(
        """
        import subprocess
        def handler(event, context):
            child = subprocess.Popen(["sleep", "1000"])
            print("child", child.pid, flush=True)
            child.wait()
        """,
        Timeout=1,
    )
    answer, log, error = invoke(functions, name)
    assert error == "Unhandled"
    assert answer["errorType"] == "Sandbox.Timedout"
    assert answer["errorMessage"].endswith("Error: Task timed out after 1.00 seconds")
    assert "Task timed out after 1.00 seconds" in log
    assert "Status: timeout" in log
    child = int(re.search(r"child (\d+)", log)[1])  # type: ignore[index]
    command_line = Path(f"/proc/{child}/cmdline")
    deadline = time.monotonic() + 5
    while command_line.exists() and command_line.read_bytes():  # a zombie has none
        assert time.monotonic() < deadline, "the child still runs"
        time.sleep(0.02)


def test_a_function_above_its_memory_limit_is_killed(functions: Any, deploy: Deploy) -> None:
    name = deploy(
        """
        import time
        def handler(event, context):
            hoard = []
            while True:
                hoard.append(bytearray(b"x") * (8 << 20))
                time.sleep(0.01)
        """,
        MemorySize=200,
    )
    answer, log, error = invoke(functions, name)
    assert error == "Unhandled"
    assert answer["errorMessage"].endswith("signal: killed")
    assert "Memory Size: 200 MB\tMax Memory Used: 200 MB" in log
    assert "Error Type: Runtime.OutOfMemory" in log


def test_a_result_above_the_size_limit_is_an_error(functions: Any, deploy: Deploy) -> None:
    name = deploy("def handler(event, context): return 'x' * event")
    assert len(invoke(functions, name, 6_000_000)[0]) == 6_000_000
    answer, _, error = invoke(functions, name, 7_000_000)
    assert error == "Unhandled"
    assert answer["errorType"] == "Function.ResponseSizeTooLarge"


def test_a_result_that_cannot_be_json_is_an_error(functions: Any, deploy: Deploy) -> None:
    name = deploy("def handler(event, context): return {1, 2}")
    answer, _, error = invoke(functions, name)
    assert error == "Unhandled"
    assert answer["errorType"] == "Runtime.MarshalError"
    assert answer["errorMessage"] == "Unable to marshal response: Object of type set is not JSON serializable"


def test_a_line_longer_than_a_log_event_is_split(functions: Any, log_client: Any, deploy: Deploy) -> None:
    name = deploy("def handler(event, context): print('x' * 1_000_000)")
    invoke(functions, name)
    events = log_client.filter_log_events(logGroupName=f"/aws/lambda/{name}")["events"]
    messages = [event["message"] for event in events]
    assert "".join(messages[2:-2]) == "x" * 1_000_000 + "\n"
    assert max(map(len, messages)) == 262_118
