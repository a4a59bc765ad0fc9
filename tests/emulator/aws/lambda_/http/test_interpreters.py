"""Handlers run by the interpreter of their runtime, where this machine has it."""

import json
import os
import shutil
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from emulator.aws.lambda_.core import interpreters
from emulator.aws.lambda_.core.interpreters import Interpreter
from emulator.cloud import LocalCloud
from tests.emulator.aws.lambda_.http.test_api import Deploy, invoke
from tests.emulator.conftest import archive, zip_of

REPORTS = """
import sys, boto3, logging
def handler(event, context):
    logging.warning("two\\nlines")
    return [*sys.version_info[:2], boto3.client("lambda").list_functions()["ResponseMetadata"]["HTTPStatusCode"]]
"""


@pytest.fixture(scope="module")
def cloud() -> Iterator[LocalCloud]:
    # Where pyenv keeps the versions that are not on PATH.
    folders = (Path.home() / ".pyenv" / "versions").glob("3.*/bin")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", os.pathsep.join((os.environ["PATH"], *map(str, folders))))
        interpreters._python.cache_clear()
        with LocalCloud(packages=()) as running:
            yield running
    interpreters._python.cache_clear()


@pytest.fixture
def other_python(cloud: LocalCloud) -> tuple[str, Interpreter]:
    """Return a runtime of another version than this interpreter's, and its interpreter."""
    del cloud
    for minor in range(10, 15):
        name = f"python3.{minor}"
        if minor != sys.version_info.minor and (found := interpreters._python(name)) is not None:
            return name, found
    pytest.skip("no other version of Python is installed")


def log_of(cloud: LocalCloud, name: str) -> list[str]:
    logs = cloud.client("logs")
    group = f"/aws/lambda/{name}"
    streams = logs.describe_log_streams(logGroupName=group)["logStreams"]
    events = logs.get_log_events(logGroupName=group, logStreamName=streams[0]["logStreamName"], startFromHead=True)
    return [event["message"] for event in events["events"]]


def test_a_function_runs_by_the_python_of_its_runtime(
    cloud: LocalCloud, functions: Any, deploy: Deploy, other_python: tuple[str, Interpreter]
) -> None:
    name = deploy("", Code={"ZipFile": archive(main=REPORTS)}, Runtime=other_python[0])
    version = [int(part) for part in other_python[1].version.split(".")[:2]]
    assert invoke(functions, name, {})[0] == [*version, 200]
    assert invoke(functions, name, {})[0] == [*version, 200]
    lines = log_of(cloud, name)
    assert lines[0].startswith(f"INIT_START Runtime Version: python:{other_python[1].version}\t")
    assert sum("two\nlines" in line for line in lines) == 2


def test_its_errors_are_those_of_this_python(
    functions: Any, deploy: Deploy, other_python: tuple[str, Interpreter]
) -> None:
    source = "def handler(event, context):\n    return {}[event]"
    answers = [
        invoke(functions, deploy("", Code={"ZipFile": archive(main=source)}, Runtime=runtime), "key")[0]
        for runtime in (other_python[0], interpreters.OWN_RUNTIME)
    ]
    for answer in answers:
        del answer["requestId"]
    assert answers[0] == answers[1]
    assert answers[0]["stackTrace"] == ['  File "/var/task/main.py", line 2, in handler\n    return {}[event]\n']


def test_a_function_of_another_python_that_needs_numpy_runs_by_this_one(
    cloud: LocalCloud, functions: Any, deploy: Deploy, other_python: tuple[str, Interpreter]
) -> None:
    source = "import sys, fmi, numpy\ndef handler(event, context):\n    return [*sys.version_info[:2]]"
    name = deploy("", Code={"ZipFile": archive(main=source)}, Runtime=other_python[0])
    assert invoke(functions, name, {})[0] == [*sys.version_info[:2]]
    assert any(line.startswith(f"emulator: only {sys.executable} has fmi") for line in log_of(cloud, name))


def test_a_python_that_is_not_installed_is_replaced_and_the_log_says_so(
    cloud: LocalCloud, functions: Any, deploy: Deploy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interpreters, "_python", lambda _: None)
    runtime = "python3.10" if interpreters.OWN_RUNTIME != "python3.10" else "python3.12"
    name = deploy("", Code={"ZipFile": archive(main=REPORTS)}, Runtime=runtime)
    assert invoke(functions, name, {})[0][:2] == [*sys.version_info[:2]]
    assert f"({runtime} is not installed here)\t" in log_of(cloud, name)[0]


needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")


def node(deploy: Deploy, source: str, file: str = "index.js", **settings: Any) -> str:
    settings = {"Runtime": "nodejs22.x", "Handler": "index.handler", **settings}
    return deploy("", Code={"ZipFile": zip_of({file: source})}, **settings)


@needs_node
@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("index.js", "exports.handler = async (event, context) => [event, context.functionName]"),
        ("index.js", "exports.handler = (event, context, callback) => callback(null, [event, context.functionName])"),
        ("index.mjs", "export const handler = async (event, context) => [event, context.functionName]"),
    ],
    ids=["promise", "callback", "module"],
)
def test_node_calls_handlers_of_each_form(functions: Any, deploy: Deploy, file: str, source: str) -> None:
    name = node(deploy, source, file)
    assert invoke(functions, name, {"a": 1})[0] == [{"a": 1}, name]


@needs_node
def test_node_keeps_its_state_logs_and_returns_errors(cloud: LocalCloud, functions: Any, deploy: Deploy) -> None:
    source = """
        let calls = 0
        exports.handler = async (event) => {
            console.log("call", ++calls, "\\nof two lines")
            if (event.fail) throw new TypeError(event.fail)
            return calls
        }
    """
    name = node(deploy, source)
    assert [invoke(functions, name, {})[0] for _ in range(2)] == [1, 2]
    failed = invoke(functions, name, {"fail": "as asked"})[0]
    assert (failed["errorType"], failed["errorMessage"]) == ("TypeError", "as asked")
    assert failed["trace"][0] == "TypeError: as asked"
    assert any(line.endswith("\tINFO\tcall 2 \nof two lines\n") for line in log_of(cloud, name))


@needs_node
@pytest.mark.parametrize(
    ("handler", "source", "kind"),
    [
        ("missing.handler", "exports.handler = 1", "Runtime.ImportModuleError"),
        ("index.other", "exports.handler = 1", "Runtime.HandlerNotFound"),
        ("index.handler", "exports.handler = (", "Runtime.UserCodeSyntaxError"),
        ("index.handler", "require('no-such-package')", "Runtime.ImportModuleError"),
        (
            "index.handler",
            "exports.handler = () => { Promise.reject(new Error('x')); return new Promise(() => {}) }",
            "Runtime.UnhandledPromiseRejection",
        ),
    ],
)
def test_node_names_what_is_wrong_with_a_handler(
    functions: Any, deploy: Deploy, handler: str, source: str, kind: str
) -> None:
    assert invoke(functions, node(deploy, source, Handler=handler), {})[0]["errorType"] == kind


@needs_node
def test_a_streaming_handler_of_node_sets_the_status_and_the_body_of_its_url(functions: Any, deploy: Deploy) -> None:
    source = """
        exports.handler = awslambda.streamifyResponse(async (event, stream) => {
            const http = { statusCode: 201, headers: { "X-Kind": "streamed" } }
            stream = awslambda.HttpResponseStream.from(stream, http)
            stream.write("Hello, ")
            stream.end("world!")
        })
    """
    name = node(deploy, source)
    url = functions.create_function_url_config(FunctionName=name, AuthType="NONE", InvokeMode="RESPONSE_STREAM")
    with urllib.request.urlopen(url["FunctionUrl"]) as response:
        found = response.status, response.headers["X-Kind"], response.read()
    assert found == (201, "streamed", b"Hello, world!")
    events = functions.invoke_with_response_stream(FunctionName=name)["EventStream"]
    streamed = b"".join(event["PayloadChunk"]["Payload"] for event in events if "PayloadChunk" in event)
    assert streamed.endswith(b"world!")


@needs_node
def test_node_has_the_environment_of_its_runtime_and_a_wrapper(functions: Any, deploy: Deploy) -> None:
    wrapper = '#!/bin/sh\nexport WRAPPED=yes\nexec "$@"\n'
    source = "exports.handler = async () => process.env"
    code = {"ZipFile": zip_of({"index.js": source, "wrapper": wrapper}, executable=True)}
    name = deploy(
        "",
        Code=code,
        Runtime="nodejs20.x",
        Handler="index.handler",
        Environment={"Variables": {"AWS_LAMBDA_EXEC_WRAPPER": "/var/task/wrapper"}},
    )
    found = invoke(functions, name, {})[0]
    assert json.loads(json.dumps(found))["WRAPPED"] == "yes"
    assert found["NODE_PATH"].startswith("/opt/nodejs/node20/node_modules:/opt/nodejs/node_modules:")
    assert found["AWS_EXECUTION_ENV"] == "AWS_Lambda_nodejs20.x"
