"""Functions of archives in containers: what they can do, and how they end."""

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from emulator.aws.lambda_.log_lines import Report, parse_report

# The first test of a session may build the executor's image.
pytestmark = pytest.mark.timeout(240)
Deploy = Callable[..., str]


def invoke(functions: Any, name: str, event: object = None) -> tuple[Any, str, Report]:
    """Return the payload, the log and its report."""
    answer = functions.invoke(FunctionName=name, Payload=json.dumps(event).encode(), LogType="Tail")
    log = base64.b64decode(answer["LogResult"]).decode()
    report = next(line for line in reversed(log.splitlines()) if line.startswith("REPORT "))
    return json.loads(answer["Payload"].read()), log, parse_report(report)


def test_a_function_has_awss_place_user_and_limits(functions: Any, deploy: Deploy) -> None:
    source = """
        import os, pathlib, resource
        def handler(event, context):
            try:
                pathlib.Path("/var/task/new").write_text("x")
                writable = True
            except OSError:
                writable = False
            status = pathlib.Path("/proc/self/status").read_text()
            return {
                "root": os.environ["LAMBDA_TASK_ROOT"], "cwd": os.getcwd(), "writable": writable,
                "user": [os.getuid(), os.getgid()], "tmp": os.listdir("/tmp"), "pids": len([
                    name for name in os.listdir("/proc") if name.isdigit()
                ]),
                "shm": os.path.exists("/dev/shm"),
                "files": resource.getrlimit(resource.RLIMIT_NOFILE),
                "capabilities": [line.split()[1] for line in status.splitlines() if line.startswith("Cap")],
                "no_new_privileges": "NoNewPrivs:\\t1" in status, "seccomp": "Seccomp:\\t2" in status,
                "handler": os.environ["_HANDLER"], "python": os.environ["AWS_EXECUTION_ENV"],
            }
    """
    found, _, report = invoke(functions, deploy(source, Timeout=30, MemorySize=512))
    assert found == {
        "root": "/var/task",
        "cwd": "/var/task",
        "writable": False,
        "user": [993, 990],
        "tmp": [],
        "pids": 1,
        "shm": False,
        "files": [1024, 1024],
        "capabilities": ["0000000000000000"] * 5,
        "no_new_privileges": True,
        "seccomp": True,
        "handler": "main.handler",
        "python": "AWS_Lambda_python3.11",
    }
    assert report.init_ms is not None
    assert 3 < report.max_memory_mb < 100


def test_an_environment_is_reused_and_its_output_is_in_the_log_of_its_invocation(
    functions: Any, deploy: Deploy
) -> None:
    source = """
        import sys
        count = 0
        def handler(event, context):
            global count
            count += 1
            print("call", count)
            print("error", count, file=sys.stderr)
            return count
    """
    name = deploy(source, Timeout=30, MemorySize=512)
    for call in (1, 2, 3):
        counted, log, report = invoke(functions, name)
        assert counted == call
        assert f"call {call}\n" in log
        assert f"error {call}\n" in log
        assert (report.init_ms is None) == (call > 1)


def test_only_anonymous_memory_counts(functions: Any, deploy: Deploy) -> None:
    source = """
        import os, time
        def handler(event, context):
            if event == "tmp":
                with open("/tmp/large", "wb") as file:
                    for _ in range(400):
                        file.write(b"x" * (1 << 20))
                return os.path.getsize("/tmp/large") >> 20
            if event == "full":
                with open("/tmp/larger", "wb") as file:
                    for _ in range(600):
                        file.write(b"x" * (1 << 20))
            held = b"x" * (event << 20)
            time.sleep(0.3)
            return len(held) >> 20
    """
    name = deploy(source, Timeout=60, MemorySize=128)
    written, _, report = invoke(functions, name, "tmp")
    assert written == 400
    assert report.error_type is None
    assert report.max_memory_mb < 100
    held, _, report = invoke(functions, name, 40)
    assert held == 40
    assert 43 <= report.max_memory_mb < 128
    failed, _, _ = invoke(functions, name, "full")
    assert failed["errorType"] == "OSError"
    assert "No space left" in failed["errorMessage"]
    killed, log, report = invoke(functions, name, 300)
    assert killed["errorType"] == "Runtime.ExitError"
    assert killed["errorMessage"].endswith("Error: Runtime exited with error: signal: killed")
    assert (report.status, report.error_type, report.max_memory_mb) == ("error", "Runtime.OutOfMemory", 128)
    assert "Runtime exited with error: signal: killed" in log


@pytest.mark.parametrize(
    ("source", "error_type", "message", "reported"),
    [
        ("raise ValueError('bad import')", "ValueError", "bad import", "ValueError"),
        (
            "import nothing_of_this_name",
            "Runtime.ImportModuleError",
            "nothing_of_this_name",
            "Runtime.ImportModuleError",
        ),
        ("import os\nos._exit(3)", "Runtime.ExitError", "exit status 3", "Runtime.ExitError"),
        ("import os\ndef handler(e, c): os._exit(7)", "Runtime.ExitError", "exit status 7", "Runtime.ExitError"),
        (
            "import time\ndef handler(e, c): time.sleep(99)",
            "Sandbox.Timedout",
            "Task timed out after 2.00 seconds",
            None,
        ),
    ],
)
def test_the_end_of_an_environment_is_reported_as_on_aws(
    functions: Any, deploy: Deploy, source: str, error_type: str, message: str, reported: str | None
) -> None:
    timeout = 2 if error_type == "Sandbox.Timedout" else 30
    failed, _, report = invoke(functions, deploy(source, Timeout=timeout, MemorySize=512))
    assert failed["errorType"] == error_type
    assert message in failed["errorMessage"]
    assert report.status == ("timeout" if error_type == "Sandbox.Timedout" else "error")
    if reported is not None:
        assert report.error_type == reported


def test_a_custom_runtime_is_a_bootstrap_in_the_archive(functions: Any, bash_runtime: str) -> None:
    payload, log, _ = invoke(functions, bash_runtime, {"a": 1})
    assert payload == {"shell": {"a": 1}}
    assert "bash got" in log


def test_processes_without_end_are_refused_by_the_kernel(functions: Any, deploy: Deploy) -> None:
    source = """
        import os, time
        def handler(event, context):
            started = 0
            try:
                while True:
                    if os.fork() == 0:
                        time.sleep(99)
                        os._exit(0)
                    started += 1
            except OSError as error:
                return {"started": started, "error": type(error).__name__}
    """
    # Each fork takes less memory than its share of the limit: the number of processes is exceeded first.
    found, _, _ = invoke(functions, deploy(source, Timeout=60, MemorySize=3008))
    assert found["error"] == "BlockingIOError"
    assert 900 < found["started"] < 1024
