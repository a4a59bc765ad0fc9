"""Runtime clients: our client and AWS's client behave alike; a custom runtime is a program."""

import importlib.util
import io
import json
import re
import textwrap
import zipfile
from pathlib import Path
from typing import Any

import pytest

from emulator.aws.lambda_.core.history import InvocationStatus
from emulator.aws.lambda_.core.models import FunctionSpec
from emulator.aws.lambda_.core.references import Reference
from emulator.aws.lambda_.core.runtimes import check_installed
from emulator.aws.lambda_.core.settings import LambdaSettings, RuntimeClient
from emulator.errors import EmulatorError
from tests.emulator.aws.lambda_.core.conftest import Service, WithService
from tests.emulator.conftest import ROLE

SOURCES = {
    "echo": (
        "def handler(event, context):\n"
        "    return [event, context.function_name, context.get_remaining_time_in_millis() > 0]"
    ),
    "raises": "def handler(event, context):\n    raise KeyError('what was wrong')",
    "nan": "def handler(event, context): return float('nan')",
    "bytes": "def handler(event, context): return b'\\xff\\x00'",
    "unserialisable": "def handler(event, context): return {1, 2}",
    "decimal": "import decimal\ndef handler(event, context): return [decimal.Decimal('1.5')]",
    "exits": "import os\ndef handler(event, context): os._exit(3)",
    "cannot_import": "import nothing_of_this_name",
    "no_handler": "x = 1",
    "no_python": "def handler(:",
    "fails_at_import": "1 / 0",
    "exits_at_import": "import os\nos._exit(5)",
    "prints": "def handler(event, context): print('from the handler')",
}


@pytest.mark.parametrize("client", RuntimeClient)
def test_both_clients_return_lambdas_results_and_errors(with_service: WithService, client: RuntimeClient) -> None:
    if client is RuntimeClient.AWSLAMBDARIC and importlib.util.find_spec("awslambdaric") is None:
        pytest.skip("awslambdaric is not installed")
    answers: dict[str, Any] = {}
    raw: dict[str, bytes] = {}

    async def body(running: Service) -> None:
        for name, source in SOURCES.items():
            running.deploy(name, source, MemorySize=1769)
            result = await running.service.invoke(name, None, b'{"x": 1}')
            raw[name] = result.payload
            if result.is_error:
                answer = json.loads(result.payload)
                answers[name] = answer["errorType"], answer["errorMessage"]
        warm = await running.service.invoke("prints", None, b"{}")
        assert b"from the handler\n" in warm.log_tail
        assert running.service.recent()[-1].cold is False

    with_service(body, LambdaSettings(runtime_client=client))
    assert json.loads(raw["echo"]) == [{"x": 1}, "echo", True]
    assert raw["nan"] == b"NaN"
    assert raw["bytes"] == b"\xff\x00"
    assert json.loads(raw["decimal"]) == [1.5]
    not_marshalled = answers.pop("unserialisable")
    assert not_marshalled[0] == "Runtime.MarshalError"
    assert "Unable to marshal response: " in not_marshalled[1]
    syntax = answers.pop("no_python")
    assert syntax[0] == "Runtime.UserCodeSyntaxError"
    assert syntax[1].startswith("Syntax error in module 'main': invalid syntax")
    assert {name: kind for name, (kind, _) in answers.items()} == {
        "raises": "KeyError",
        "exits": "Runtime.ExitError",
        "cannot_import": "Runtime.ImportModuleError",
        "no_handler": "Runtime.HandlerNotFound",
        "fails_at_import": "ZeroDivisionError",
        "exits_at_import": "Runtime.ExitError",
    }
    assert answers["cannot_import"][1] == "Unable to import module 'main': No module named 'nothing_of_this_name'"
    assert answers["no_handler"][1] == "Handler 'handler' missing on module 'main'"
    assert answers["exits"][1].endswith("Error: Runtime exited with error: exit status 3")
    assert answers["exits_at_import"][1].endswith("Error: Runtime exited with error: exit status 5")


def test_awss_client_times_out_and_has_the_environment_of_a_fork(with_service: WithService) -> None:
    pytest.importorskip("awslambdaric")
    source = """
        import os, time
        def handler(event, context):
            if event == "sleep":
                time.sleep(1000)
            return {"environment": sorted(os.environ), "tmp": os.listdir("/tmp"), "cwd": os.getcwd()}
    """

    async def body(running: Service) -> None:
        running.deploy("f", source, Timeout=1)
        found = json.loads((await running.service.invoke("f", None, b"{}")).payload)
        code_root = running.functions.get(Reference.parse("f")).package.root
        assert found["cwd"] in ("/var/task", str(code_root))
        assert not {"HOME", "PYTEST_CURRENT_TEST", "VIRTUAL_ENV"} & set(found["environment"])
        ended = await running.service.invoke("f", None, b'"sleep"')
        assert json.loads(ended.payload)["errorType"] == "Sandbox.Timedout"
        assert running.service.recent()[-1].status is InvocationStatus.TIMED_OUT

    with_service(body, LambdaSettings(runtime_client=RuntimeClient.AWSLAMBDARIC))


BOOTSTRAP = """\
#!/bin/sh
api="http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation"
while true; do
  headers=$(mktemp)
  event=$(curl -sS -D "$headers" "$api/next") || exit 1
  id=$(grep -i Lambda-Runtime-Aws-Request-Id "$headers" | tr -d '[:space:]' | cut -d: -f2)
  echo "bootstrap for $_HANDLER"
  curl -sS -d "{\\"event\\": $event}" "$api/$id/response" > /dev/null
done
"""


def custom(running: Service, name: str, mode: int | None, content: str = BOOTSTRAP) -> None:
    """Create a function of a custom runtime; without a mode, it has no bootstrap."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("readme", "")
        if mode is not None:
            member = zipfile.ZipInfo("bootstrap")
            member.external_attr = mode << 16
            archive.writestr(member, textwrap.dedent(content))
    spec = {"FunctionName": name, "Runtime": "provided.al2023", "Handler": "any.thing", "Role": ROLE, "Timeout": 10}
    deployed = FunctionSpec.from_api(spec)
    running.functions.create(deployed, running.functions.code_store.store(deployed, buffer.getvalue()))


def test_a_custom_runtime_runs_its_bootstrap(with_service: WithService) -> None:
    async def body(running: Service) -> None:
        custom(running, "shell", 0o755)
        for number in range(2):
            result = await running.service.invoke("shell", None, str(number).encode())
            assert json.loads(result.payload) == {"event": number}, result.log_tail
            assert b"bootstrap for any.thing" in result.log_tail

    if not any(Path(folder, "curl").exists() for folder in ("/usr/bin", "/usr/local/bin", "/bin")):
        pytest.skip("the bootstrap needs curl")
    with_service(body)


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        (None, "Error: Couldn't find valid bootstrap(s): [/var/task/bootstrap /opt/bootstrap]"),
        (0o644, "Error: fork/exec /var/task/bootstrap: permission denied"),
    ],
)
def test_a_missing_bootstrap_is_an_invalid_entrypoint(with_service: WithService, mode: int | None, reason: str) -> None:
    async def body(running: Service) -> None:
        custom(running, "none", mode)
        result = await running.service.invoke("none", None, b"{}")
        answer = json.loads(result.payload)
        assert answer["errorType"] == "Runtime.InvalidEntrypoint"
        assert answer["errorMessage"].endswith(reason)
        assert b"Error Type: Runtime.InvalidEntrypoint" in result.log_tail

    with_service(body)


def test_a_bootstrap_that_cannot_be_executed_logs_the_reason(with_service: WithService) -> None:
    async def body(running: Service) -> None:
        custom(running, "no_interpreter", 0o755, "#!/nothing/there\n")
        result = await running.service.invoke("no_interpreter", None, b"{}")
        assert json.loads(result.payload)["errorType"] == "Runtime.ExitError"
        assert b"No such file or directory" in result.log_tail

    with_service(body)


def test_a_missing_runtime_client_is_an_error_that_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(EmulatorError, match=r"pip install 'fmi-emulator\[awslambdaric\]'"):
        check_installed(RuntimeClient.AWSLAMBDARIC)
    check_installed(RuntimeClient.FORK)


LOGGING = """
    import logging
    def handler(event, context):
        logging.getLogger().setLevel("INFO")
        print("printed")
        logging.info("one\\ntwo", extra={"key": "value"})
        context_of_client = context.client_context and context.client_context.custom
        return {"é": context_of_client, "identity": context.identity.cognito_identity_id}
"""


@pytest.mark.parametrize("client", list(RuntimeClient))
def test_logging_client_contexts_and_results_are_those_of_aws(with_service: WithService, client: RuntimeClient) -> None:
    """Both clients write a record of `logging` as one event, as text or JSON, after what was printed before it."""
    if client is RuntimeClient.AWSLAMBDARIC:
        pytest.importorskip("awslambdaric")

    async def body(running: Service) -> None:
        running.deploy("text", LOGGING, Runtime="python3.12")
        running.deploy("json", LOGGING, LoggingConfig={"LogFormat": "JSON"})
        context = json.dumps({"custom": {"a": 1}})
        result = await running.service.invoke("text", None, b"{}", client_context=context)
        assert result.payload == '{"é": {"a": 1}, "identity": null}'.encode()
        printed, record = running.log.kept[-4:-2]
        assert printed == "printed\n"
        level, stamp, request_id, message = record.split("\t")
        assert (level, request_id, message) == ("[INFO]", result.request_id, "one\ntwo\n")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", stamp)
        result = await running.service.invoke("json", None, b"{}")
        # Up to Python 3.11, results are ASCII.
        assert result.payload.startswith(b'{"\\u00e9"')
        shown = json.loads(running.log.kept[-3])
        assert shown.pop("timestamp").endswith("Z")
        expected = {"level": "INFO", "message": "one\ntwo", "logger": "root", "key": "value"}
        assert shown == {**expected, "requestId": result.request_id}

    with_service(body, LambdaSettings(runtime_client=client))


def test_a_wrapper_starts_the_runtime(with_service: WithService) -> None:
    async def body(running: Service) -> None:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("main.py", "import os\ndef handler(event, context): return os.environ['WRAPPED']")
            wrapper = zipfile.ZipInfo("wrapper")
            wrapper.external_attr = 0o755 << 16
            archive.writestr(wrapper, '#!/bin/sh\nexport WRAPPED=yes\nexec "$@"\n')
        spec = {"FunctionName": "f", "Runtime": "python3.11", "Handler": "main.handler", "Role": ROLE, "Timeout": 20}
        variables = {"Variables": {"AWS_LAMBDA_EXEC_WRAPPER": "/var/task/wrapper"}}
        deployed = FunctionSpec.from_api({**spec, "Environment": variables})
        running.functions.create(deployed, running.functions.code_store.store(deployed, buffer.getvalue()))
        result = await running.service.invoke("f", None, b"{}")
        if b"FileNotFoundError" in result.payload or not Path("/proc/self/ns/mnt").exists():
            pytest.skip("this machine allows no mount namespaces")
        assert result.payload == b'"yes"'

    with_service(body)
