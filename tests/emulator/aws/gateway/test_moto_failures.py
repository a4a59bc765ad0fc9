"""What moto does not serve, or fails on, is an error as AWS sends it: it names the operation."""

from typing import Any

import pytest
from botocore.exceptions import ClientError
from moto.ssm.responses import SimpleSystemManagerResponse


def failure(call: Any, **arguments: Any) -> tuple[str, int, str]:
    with pytest.raises(ClientError) as raised:
        call(**arguments)
    response: Any = raised.value.response
    assert response["ResponseMetadata"]["RequestId"]
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Message"]


def test_an_operation_that_moto_lacks_is_named(client: Any) -> None:
    """In JSON, in XML, and where only the path says what is meant."""
    for call, arguments, operation in (
        (client("ssm").list_nodes, {}, "ListNodes"),
        (
            client("iam").simulate_custom_policy,
            {"PolicyInputList": ["{}"], "ActionNames": ["s3:x"]},
            "SimulateCustomPolicy",
        ),
        (client("polly").list_speech_synthesis_tasks, {}, "GET /v1/synthesisTasks"),
    ):
        code, status, message = failure(call, **arguments)
        assert (code, status) == ("NotImplementedException", 501)
        assert message == f"the operation {operation} is not emulated"


def test_an_exception_of_moto_is_an_internal_failure_and_one_line(
    client: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> None:
        raise KeyError("of moto")

    monkeypatch.setattr(SimpleSystemManagerResponse, "describe_parameters", fail)
    code, status, message = failure(client("ssm").describe_parameters)
    assert (code, status) == ("InternalFailure", 500)
    assert "KeyError('of moto')" in message
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "emulator: moto failed at DescribeParameters: KeyError('of moto')"
