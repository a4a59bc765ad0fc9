"""Checks of functions and quotas that a local cloud never fails: answers as AWS gives them."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from emulator.fmi.aws_session import AwsSession
from emulator.fmi.deployment.network import Server
from emulator.fmi.deployment.resources import StackResources
from emulator.fmi.executions import preflight
from emulator.fmi.executions.preflight import PreflightError

RESOURCES = StackResources(
    stack="fmi",
    bucket="fmi-bucket",
    state_machine="arn:aws:states:us-east-1:123456789012:stateMachine:fmi",
    initialize="fmi-initialize",
    execute="fmi-execute",
    summarize="fmi-summarize",
    cluster="fmi",
    service="rendezvous",
    balancer="",
    dns_name="",
    memory_mb=1769,
    timeout_s=900,
    architecture="x86_64",
    python="3.13",
    code_key="deployment/functions.zip",
    data_bucket="",
)


@pytest.fixture
def functions() -> Iterator[tuple[Any, Stubber]]:
    client = boto3.client("lambda", region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b")
    with Stubber(client) as stub:
        yield client, stub


def answer(stub: Stubber, **fields: object) -> None:
    configuration = {"State": "Active", "LastUpdateStatus": "Successful", "Architectures": ["x86_64"], **fields}
    stub.add_response("get_function_configuration", configuration, {"FunctionName": "fmi-execute"})


def test_a_function_that_becomes_active_is_waited_for(
    functions: tuple[Any, Stubber], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Right after a deployment functions are Pending, and their configuration is eventually consistent."""
    monkeypatch.setattr(preflight, "_POLL_S", 0.0)
    client, stub = functions
    answer(stub, State="Pending")
    answer(stub, LastUpdateStatus="InProgress")
    answer(stub)
    preflight._check_function(client, "fmi-execute", RESOURCES)
    stub.assert_no_pending_responses()


def test_a_function_that_is_still_updating_is_named(
    functions: tuple[Any, Stubber], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "_UPDATE_S", 0.0)
    client, stub = functions
    answer(stub, LastUpdateStatus="InProgress")
    with pytest.raises(PreflightError, match=r"function fmi-execute is still being updated .*: wait, then see"):
        preflight._check_function(client, "fmi-execute", RESOURCES)


def test_a_function_that_failed_is_named_with_the_reason(functions: tuple[Any, Stubber]) -> None:
    client, stub = functions
    answer(stub, LastUpdateStatus="Failed", LastUpdateStatusReason="The image does not exist")
    with pytest.raises(PreflightError, match="cannot run: The image does not exist: mend it and run"):
        preflight._check_function(client, "fmi-execute", RESOURCES)


def test_another_architecture_is_refused(functions: tuple[Any, Stubber]) -> None:
    client, stub = functions
    answer(stub)
    with pytest.raises(PreflightError, match="is for x86_64, but the stack's image or archive is for arm64: run"):
        preflight._check_function(client, "fmi-execute", replace(RESOURCES, architecture="arm64"))


def test_a_function_that_was_deleted_is_named(functions: tuple[Any, Stubber]) -> None:
    client, stub = functions
    stub.add_client_error("get_function_configuration", "ResourceNotFoundException", http_status_code=404)
    with pytest.raises(PreflightError, match="function fmi-execute of stack 'fmi' is gone: run `fmi-emulator deploy`"):
        preflight._check_function(client, "fmi-execute", RESOURCES)


def test_a_deleted_bucket_is_named() -> None:
    client = boto3.client("s3", region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b")
    with Stubber(client) as stub:
        stub.add_client_error("head_bucket", "404", http_status_code=404)
        with pytest.raises(PreflightError, match="bucket fmi-bucket of stack 'fmi' is gone"):
            preflight._check_bucket(client, RESOURCES)


def test_a_server_that_starts_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its task runs, is not reachable yet, and is then healthy, though not for this machine."""
    monkeypatch.setattr(preflight, "_POLL_S", 0.0)
    found = [None, Server("task", "127.0.0.1", "UNKNOWN", health_port=9), Server("task", "127.0.0.1", "HEALTHY", 1, 9)]
    monkeypatch.setattr(preflight, "find_server", lambda *_: found.pop(0))
    server, note = preflight._check_server(AwsSession(boto3.Session(), None), RESOURCES)
    assert (server.health, found) == ("HEALTHY", [])
    assert "healthy as ECS sees it; this machine cannot reach it: http://127.0.0.1:9/health" in note


def test_a_server_that_does_not_start_is_named_with_its_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "_START_S", -1.0)
    for server, said in (
        (None, ""),
        (Server("task", "127.0.0.1", "UNHEALTHY", 1, 9), "it is UNHEALTHY as ECS sees it"),
    ):
        monkeypatch.setattr(preflight, "find_server", lambda *_, found=server: found)
        with pytest.raises(PreflightError, match=f"{said}.*see `fmi-emulator status`, and the events of service"):
            preflight._check_server(AwsSession(boto3.Session(), None), RESOURCES)
