"""Functions that fail or misbehave: the invocation returns an error, and no process or file is left."""

import base64
import io
import os
import signal
import socket
import sys
import zipfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import psutil
import pytest

from emulator.cloud import LocalCloud
from tests.emulator.aws.lambda_.http.test_api import invoke, refusal
from tests.emulator.signing import signed

Deploy = Callable[..., str]
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc, or needs a private /tmp")


def printed_pid(log_client: Any, name: str) -> int:
    """Return the pid that a function of this name has printed, as soon as it is in the log."""
    while True:
        try:
            events = log_client.filter_log_events(logGroupName=f"/aws/lambda/{name}")["events"]
        except log_client.exceptions.ResourceNotFoundException:
            continue
        printed = [int(event["message"].split()[1]) for event in events if event["message"].startswith("pid ")]
        if printed:
            return printed[-1]


SLEEPER = """
    import os, time
    def handler(event, context):
        if event == "sleep":
            print("pid", os.getpid(), flush=True)
            time.sleep(1000)
        return "awake"
"""


def sleeping(functions: Any, threads: ThreadPoolExecutor, name: str) -> "Future[tuple[Any, str, str | None]]":
    return threads.submit(invoke, functions, name, "sleep")


def test_a_worker_killed_from_outside_is_an_exit_error(functions: Any, log_client: Any, deploy: Deploy) -> None:
    name = deploy(SLEEPER, Timeout=60)
    with ThreadPoolExecutor() as threads:
        call = sleeping(functions, threads, name)
        os.kill(printed_pid(log_client, name), signal.SIGKILL)
        answer, log, error = call.result()
    assert error == "Unhandled"
    assert answer["errorType"] == "Runtime.ExitError"
    assert answer["errorMessage"].endswith("Error: Runtime exited with error: signal: killed")
    assert "Status: error\tError Type: Runtime.ExitError" in log
    assert invoke(functions, name)[0] == "awake"


@LINUX
def test_a_killed_zygote_fails_running_invocations_and_is_replaced(
    functions: Any, log_client: Any, deploy: Deploy
) -> None:
    name = deploy(SLEEPER, Timeout=60)
    with ThreadPoolExecutor() as threads:
        call = sleeping(functions, threads, name)
        worker = psutil.Process(printed_pid(log_client, name))
        zygote = worker.parent()
        assert zygote is not None
        zygote.kill()
        answer, _, error = call.result()
        assert error == "Unhandled"
        assert answer["errorMessage"].endswith("Error: Runtime exited with error: signal: killed")
        _, alive = psutil.wait_procs([worker, zygote], timeout=20)
        assert alive == []
        # Warm ones died with it, too; whoever calls now waits for the new one, however many they are.
        assert list(threads.map(lambda _: invoke(functions, name)[0], range(4))) == ["awake"] * 4


def test_a_handler_that_forks_returns_once_and_its_children_are_killed(functions: Any, deploy: Deploy) -> None:
    name = deploy("""
        import os, time
        def handler(event, context):
            if event == "both return":
                child = os.fork()
                return ["child" if child == 0 else "parent", child]
            if event == "one raises":
                if os.fork() == 0:
                    raise RuntimeError("in the child")
                return "parent"
            children = []
            for _ in range(3):
                child = os.fork()
                if child == 0:
                    os.setsid()
                    time.sleep(1000)
                children.append(child)
            return children
    """)
    for _ in range(3):
        assert invoke(functions, name, "both return")[0][0] == "parent"
        assert invoke(functions, name, "one raises")[0] == "parent"
    children = [psutil.Process(pid) for pid in invoke(functions, name, "stay")[0]]
    functions.update_function_configuration(FunctionName=name, Timeout=19)
    if sys.platform == "linux":
        _, alive = psutil.wait_procs(children, timeout=20)
        assert alive == []


@LINUX
def test_a_full_tmp_affects_only_its_own_sandbox(functions: Any, deploy: Deploy) -> None:
    name = deploy("""
        import errno, os
        def handler(event, context):
            found = os.listdir("/tmp")
            try:
                with open("/tmp/full", "wb") as file:
                    while event == "fill":
                        file.write(bytes(1 << 20))
            except OSError as error:
                return errno.errorcode[error.errno]
            return "full" in found
    """)
    answer, log, _ = invoke(functions, name, "fill")
    if "mount namespaces" in log:
        pytest.skip("there is no private /tmp here")
    assert answer == "ENOSPC"
    assert invoke(functions, name)[0] is True, "the sandbox goes on with its own /tmp"
    functions.update_function_configuration(FunctionName=name, Timeout=19)
    assert invoke(functions, name)[0] is False, "the next one has a /tmp of its own"


def test_a_handler_that_closes_its_output_returns_its_result(functions: Any, deploy: Deploy) -> None:
    name = deploy("""
        import os, sys
        def handler(event, context):
            print("before")
            os.close(1)
            os.close(2)
            sys.stdout.close()
            if event == "raise":
                raise ValueError("unheard")
            return event
    """)
    answer, log, _ = invoke(functions, name, "answer")
    assert answer == "answer"
    assert [line.split()[0] for line in log.splitlines()] == ["START", "before", "END", "REPORT"]
    second = deploy("""
        import os
        def handler(event, context):
            os.close(1)
            os.close(2)
            raise ValueError("unheard")
    """)
    assert invoke(functions, second)[0]["errorMessage"] == "unheard"


def test_a_log_of_a_hundred_megabytes_is_stored(functions: Any, deploy: Deploy) -> None:
    name = deploy(
        """
        import os
        def handler(event, context):
            for number in range(10_000):
                os.write(1, b"%09d" % number + b"x" * 9990 + b"\\n")
        """,
        Timeout=50,
    )
    before = psutil.Process().memory_info().rss
    _, log, error = invoke(functions, name)
    assert error is None
    assert psutil.Process().memory_info().rss - before < 400e6
    assert len(log) == 4096
    assert log.splitlines()[-2].startswith("END RequestId: ")


def test_endless_output_blocks_neither_its_own_nor_another_invocation(functions: Any, deploy: Deploy) -> None:
    """Neither its own invocation's end, nor another's."""
    endless = deploy("""
        import subprocess
        def handler(event, context):
            subprocess.Popen(["yes", "x" * 5000])
            return "done"
    """)
    other = deploy("def handler(event, context): return 'other'")
    assert invoke(functions, endless)[0] == "done"
    assert invoke(functions, other)[0] == "other"
    functions.update_function_configuration(FunctionName=endless, Timeout=19)


def test_output_that_is_not_utf8_is_escaped_in_the_log(functions: Any, log_client: Any, deploy: Deploy) -> None:
    name = deploy("import os\ndef handler(event, context): os.write(1, b'a\\xff\\xfe\\n\\x00b\\n')")
    response = functions.invoke(FunctionName=name, LogType="Tail")
    assert b"a\xff\xfe\n\x00b\n" in base64.b64decode(response["LogResult"]), "the tail is the very bytes"
    events = log_client.filter_log_events(logGroupName=f"/aws/lambda/{name}")["events"]
    assert "a\\xff\\xfe\n" in [event["message"] for event in events]


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("return handler(event, context)", "RecursionError"),
        ("deep = []\n    for _ in range(100_000): deep = [deep]\n    return deep", "Runtime.MarshalError"),
        ("loop = []\n    loop.append(loop)\n    return loop", "Runtime.MarshalError"),
        ("return {(1, 2): 3}", "Runtime.MarshalError"),
        ("return '\\ud800'", None),
        ("raise type('Odd', (Exception,), {})(b'\\xff')", "Odd"),
    ],
)
def test_unusual_results_are_returned_or_reported(functions: Any, deploy: Deploy, body: str, kind: str | None) -> None:
    name = deploy(f"def handler(event, context):\n    {body}")
    answer, _, error = invoke(functions, name)
    assert (error, answer["errorType"] if kind else answer) == (("Unhandled", kind) if kind else (None, "\ud800"))
    assert "Init Duration" not in invoke(functions, name)[1], "the sandbox goes on"


@LINUX
def test_a_sandbox_inherits_no_file_and_no_variable(
    functions: Any, deploy: Deploy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_PARENT", "x")
    name = deploy("""
        import os, resource
        from pathlib import Path
        def handler(event, context):
            open_files = {fd: os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
                          if os.path.exists(f"/proc/self/fd/{fd}")}
            return {"files": open_files,
                    "first environment": Path("/proc/self/environ").read_bytes().decode(),
                    "limit": resource.getrlimit(resource.RLIMIT_NOFILE)}
    """)
    found = invoke(functions, name)[0]
    assert found["limit"] == [1024, 1024]
    files = found["files"]
    assert files.pop("0") == "/dev/null"
    assert files.pop("1") == files.pop("2")
    connections = [target for target in files.values() if target.startswith("socket:")]
    assert len(connections) == 1, "the runtime API's"
    assert [target for target in files.values() if not target.startswith(("socket:", "/proc/"))] == []
    # What the zygote was started with, which /proc shows for its forks, too.
    names = {entry.partition("=")[0] for entry in found["first environment"].split("\0") if entry}
    assert names <= {
        *("PATH", "PYTHONPATH", "LANG", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_EC2_METADATA_DISABLED"),
        *("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OBJC_DISABLE_INITIALIZE_FORK_SAFETY"),
    }


def test_a_function_continues_when_its_client_closes_the_connection(
    functions: Any, log_client: Any, deploy: Deploy, cloud: LocalCloud
) -> None:
    """As on AWS: the invocation goes on, and its lines are in the log."""
    name = deploy("import time\ndef handler(event, context):\n    time.sleep(1)\n    print('went on')")
    host, port = cloud.endpoint_url.removeprefix("http://").split(":")
    path = f"/2015-03-31/functions/{name}/invocations"
    headers = signed(cloud, "POST", path, {"Host": f"{host}:{port}", "Content-Length": "2"}, b"{}", service="lambda")
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    with socket.create_connection((host, int(port))) as client:
        client.sendall(f"POST {path} HTTP/1.1\r\n{lines}\r\n{{}}".encode())
        client.shutdown(socket.SHUT_WR)
    messages: list[str] = []
    while not any(message.startswith("REPORT") for message in messages):
        try:
            events = log_client.filter_log_events(logGroupName=f"/aws/lambda/{name}")["events"]
        except log_client.exceptions.ResourceNotFoundException:
            continue
        messages = [event["message"] for event in events]
    assert "went on\n" in messages
    assert not any("Status:" in message for message in messages)


def test_archives_with_members_outside_the_folder_are_rejected_by_the_api(deploy: Deploy) -> None:
    for member in ("../outside.py", "/absolute.py"):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr(member, "")
        code, status, message = refusal(deploy, source="", Code={"ZipFile": buffer.getvalue()})
        assert (code, status) == ("InvalidParameterValueException", 400)
        assert "outside the function's folder" in message
