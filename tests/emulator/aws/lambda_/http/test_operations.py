"""The operations around functions: layers, URLs, aliases, permissions, concurrency, regions, as AWS answers them."""

import base64
import hashlib
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from emulator.cloud import LocalCloud
from tests.emulator.aws.lambda_.http.test_api import Deploy, invoke, refusal
from tests.emulator.conftest import ROLE, archive

ECHO = "def handler(event, context): return [event, context.function_version, context.invoked_function_arn]"


def arn(name: str) -> str:
    return f"arn:aws:lambda:us-east-1:123456789012:function:{name}"


def error(call: Callable[..., Any], **arguments: Any) -> dict[str, Any]:
    """Return the error's members as boto3 has them."""
    with pytest.raises(ClientError) as raised:
        call(**arguments)
    response: Any = raised.value.response
    return {key: value for key, value in response.items() if key != "ResponseMetadata"}


def fetch(request: urllib.request.Request | str) -> tuple[int, dict[str, str], bytes]:
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, dict(response.headers), response.read()
    except urllib.error.HTTPError as failed:
        return failed.code, dict(failed.headers), failed.read()


def test_a_new_function_is_pending_in_the_answer_and_active_afterwards(functions: Any, deploy: Deploy) -> None:
    settings = {"FunctionName": "new", "Runtime": "python3.12", "Handler": "main.handler", "Role": ROLE}
    code = archive(main=ECHO)
    created = functions.create_function(**settings, Code={"ZipFile": code})
    assert (created["State"], created["StateReasonCode"]) == ("Pending", "Creating")
    assert "LastUpdateStatus" not in created
    assert created["LoggingConfig"] == {"LogFormat": "Text", "LogGroup": "/aws/lambda/new"}
    assert created["RuntimeVersionConfig"]["RuntimeVersionArn"].startswith("arn:aws:lambda:us-east-1::runtime:")
    found = functions.get_function(FunctionName="new")
    assert found["Configuration"]["State"] == "Active"
    assert found["Configuration"]["RevisionId"] != created["RevisionId"]
    _, _, content = fetch(found["Code"]["Location"])
    assert base64.b64encode(hashlib.sha256(content).digest()).decode() == created["CodeSha256"]
    assert fetch(found["Code"]["Location"].replace("_lambda-code/", "_lambda-code/0"))[0] == 403
    functions.delete_function(FunctionName="new")


def test_a_change_during_an_update_is_a_conflict_until_somebody_looks(functions: Any, deploy: Deploy) -> None:
    name = deploy(ECHO)
    updated = functions.update_function_configuration(FunctionName=name, Timeout=9)
    assert (updated["LastUpdateStatus"], updated["LastUpdateStatusReasonCode"]) == ("InProgress", "Creating")
    for call, arguments in (
        (functions.update_function_configuration, {"Timeout": 10}),
        (functions.publish_version, {}),
    ):
        code, status, message = refusal(call, FunctionName=name, **arguments)
        assert (code, status) == ("ResourceConflictException", 409)
        assert message.endswith(f"An update is in progress for resource: {arn(name)}")
    assert functions.get_function_configuration(FunctionName=name)["LastUpdateStatus"] == "Successful"
    assert functions.publish_version(FunctionName=name)["Version"] == "1"


def test_errors_have_the_members_of_their_models(functions: Any) -> None:
    not_found = f"Function not found: {arn('nobody')}"
    assert error(functions.get_function, FunctionName="nobody") == {
        "Error": {"Code": "ResourceNotFoundException", "Message": not_found},
        "Message": not_found,
        "Type": "User",
    }
    mismatch = error(functions.get_function, FunctionName=f"{arn('nobody')}:1", Qualifier="$LATEST")
    assert mismatch["message"] == "The derived qualifier from the function name does not match the specified qualifier."
    region = error(functions.get_function, FunctionName=arn("nobody").replace("us-east-1", "eu-west-1"))
    assert region["Message"] == "Functions from 'eu-west-1' are not reachable in this region ('us-east-1')"


def test_an_operation_that_is_not_emulated_is_named(functions: Any) -> None:
    failed = error(functions.list_capacity_providers)
    assert failed["Error"]["Code"] == "NotImplementedException"
    assert failed["Error"]["Message"].startswith("the operation ListCapacityProviders is not emulated")


def test_each_region_has_functions_of_its_own(cloud: LocalCloud, functions: Any, client: Any) -> None:
    ireland = client("lambda", "eu-west-1")
    source = "import os\ndef handler(event, context): return [os.environ['AWS_REGION'], context.invoked_function_arn]"
    settings = {"FunctionName": "both", "Runtime": "python3.12", "Handler": "main.handler", "Role": ROLE}
    for service, region in ((functions, "us-east-1"), (ireland, "eu-west-1")):
        service.create_function(**settings, Code={"ZipFile": archive(main=source)})
        assert invoke(service, "both")[0] == [region, f"arn:aws:lambda:{region}:123456789012:function:both"]
    functions.delete_function(FunctionName="both")
    assert [found["FunctionName"] for found in ireland.list_functions()["Functions"]] == ["both"]
    ireland.delete_function(FunctionName="both")


def test_the_files_of_layers_are_in_opt_in_their_order(functions: Any, deploy: Deploy) -> None:
    first = functions.publish_layer_version(
        LayerName="first", Content={"ZipFile": archive(**{"python/both": "value = 1", "python/own": "value = 'own'"})}
    )
    second = functions.publish_layer_version(
        LayerName="second", Content={"ZipFile": archive(**{"python/both": "value = 2"})}
    )
    assert (first["Version"], second["LayerVersionArn"].rpartition(":")[2]) == (1, "1")
    uses = [first["LayerVersionArn"], second["LayerVersionArn"]]
    name = deploy(
        "import both, own, os\ndef handler(e, c): return [both.value, own.value, own.__file__, os.listdir('/opt')]",
        Layers=uses,
    )
    answer = invoke(functions, name)[0]
    assert answer == [2, "own", "/opt/python/own.py", ["python"]]
    shown = functions.get_function_configuration(FunctionName=name)["Layers"]
    assert [layer["Arn"] for layer in shown] == uses
    functions.delete_layer_version(LayerName="first", VersionNumber=1)
    functions.update_function_configuration(FunctionName=name, Timeout=9)
    assert invoke(functions, name)[0] == answer, "a deleted version stays where it is used"
    again = functions.publish_layer_version(LayerName="first", Content={"ZipFile": archive(**{"python/x": ""})})
    assert again["Version"] == 2
    missing = error(functions.update_function_configuration, FunctionName=name, Layers=[f"{again['LayerArn']}:9"])
    assert missing["Error"]["Code"] in ("InvalidParameterValueException", "ResourceConflictException")


def test_a_layer_has_a_policy(functions: Any) -> None:
    functions.publish_layer_version(LayerName="shared", Content={"ZipFile": archive(x="")})
    named = {"LayerName": "shared", "VersionNumber": 1}
    statement = {"Action": "lambda:GetLayerVersion", "Principal": "*", "StatementId": "s1"}
    assert error(functions.get_layer_version_policy, **named)["Message"] == (
        "No policy is associated with the given resource."
    )
    added = functions.add_layer_version_permission(**named, **statement)
    assert json.loads(added["Statement"])["Resource"].endswith(":layer:shared:1")
    twice = error(functions.add_layer_version_permission, **named, **statement)
    assert twice["Error"]["Code"] == "ResourceConflictException"
    functions.remove_layer_version_permission(**named, StatementId="s1", RevisionId=added["RevisionId"])
    assert error(functions.remove_layer_version_permission, **named, StatementId="s1")["Message"] == (
        "Statement s1 is not found in resource policy."
    )


RESPONSES = """
import json
def handler(event, context):
    if event["rawPath"] == "/fail":
        raise ValueError("no")
    if event["rawPath"] == "/plain":
        return {"hello": "world"}
    return {
        "statusCode": 201,
        "headers": {"Content-Type": "text/plain", "X-Mine": "1"},
        "cookies": ["a=1"],
        "body": json.dumps([event["requestContext"]["http"]["method"], event.get("body"), event["isBase64Encoded"],
                            event.get("queryStringParameters")]),
    }
"""


def test_a_function_url_invokes_its_function(functions: Any, deploy: Deploy) -> None:
    name = deploy(RESPONSES)
    created = functions.create_function_url_config(FunctionName=name, AuthType="NONE")
    assert "InvokeMode" not in created
    url = created["FunctionUrl"]
    request = urllib.request.Request(f"{url}a%20b?q=1&q=2", b'{"x": 1}', {"Content-Type": "application/json"})
    status, headers, body = fetch(request)
    assert (status, headers["Content-Type"], headers["X-Mine"], headers["Set-Cookie"]) == (
        201,
        "text/plain",
        "1",
        "a=1",
    )
    assert json.loads(body) == ["POST", '{"x": 1}', False, {"q": "1,2"}]
    binary = urllib.request.Request(url, b"\xff", {"Content-Type": "image/png"})
    assert json.loads(fetch(binary)[2])[1:3] == ["/w==", True]
    assert fetch(f"{url}plain")[2] == b'{"hello":"world"}'
    assert fetch(f"{url}fail")[0] == 502
    twice = error(functions.create_function_url_config, FunctionName=name, AuthType="NONE")
    assert twice["Error"]["Code"] == "ResourceConflictException"
    functions.update_function_url_config(FunctionName=name, AuthType="AWS_IAM")
    assert fetch(f"{url}plain")[0] == 403
    functions.delete_function_url_config(FunctionName=name)
    assert fetch(f"{url}plain")[0] == 404


def test_a_function_url_answers_web_pages_that_its_settings_allow(functions: Any, deploy: Deploy) -> None:
    name = deploy(RESPONSES)
    cors = {"AllowOrigins": ["https://example.com"], "AllowMethods": ["GET"]}
    url = functions.create_function_url_config(FunctionName=name, AuthType="NONE", Cors=cors)["FunctionUrl"]
    for origin, expected in (("https://example.com", 200), ("https://example.org", 403)):
        request = urllib.request.Request(f"{url}plain", headers={"Origin": origin})
        status, headers, _ = fetch(request)
        assert (status, headers.get("Access-Control-Allow-Origin")) == (expected, origin if expected == 200 else None)


def test_an_alias_divides_its_invocations_by_weight(functions: Any, deploy: Deploy) -> None:
    name = deploy(ECHO)
    functions.publish_version(FunctionName=name)
    functions.update_function_configuration(FunctionName=name, Description="second")
    functions.get_function(FunctionName=name)
    assert functions.publish_version(FunctionName=name)["Version"] == "2"
    weights = {"AdditionalVersionWeights": {"2": 0.5}}
    functions.create_alias(FunctionName=name, Name="live", FunctionVersion="1", RoutingConfig=weights)
    answers = [invoke(functions, f"{name}:live")[0] for _ in range(40)]
    assert {answer[1] for answer in answers} == {"1", "2"}
    assert {answer[2] for answer in answers} == {f"{arn(name)}:live"}
    one = functions.update_alias(FunctionName=name, Name="live", RoutingConfig={"AdditionalVersionWeights": {}})
    assert "RoutingConfig" not in one
    for bad, message in (
        ({"1": 0.5}, "Invalid function version 1"),
        ({"1": 0.1, "2": 0.1}, "Number of items in AdditionalVersionWeights cannot be greater than 1"),
    ):
        routing = {"AdditionalVersionWeights": bad}
        failed = error(functions.update_alias, FunctionName=name, Name="live", RoutingConfig=routing)
        assert message in failed["Error"]["Message"]


def test_permissions_belong_to_a_function_a_version_or_an_alias(functions: Any, deploy: Deploy) -> None:
    name = deploy(ECHO)
    functions.publish_version(FunctionName=name)
    permission = {"StatementId": "s3", "Action": "lambda:InvokeFunction", "Principal": "s3.amazonaws.com"}
    before = functions.get_function_configuration(FunctionName=name)["RevisionId"]
    functions.add_permission(FunctionName=name, **permission, SourceArn="arn:aws:s3:::bucket", RevisionId=before)
    policy = functions.get_policy(FunctionName=name)
    assert policy["RevisionId"] == functions.get_function_configuration(FunctionName=name)["RevisionId"] != before
    (statement,) = json.loads(policy["Policy"])["Statement"]
    assert statement["Condition"] == {"ArnLike": {"AWS:SourceArn": "arn:aws:s3:::bucket"}}
    assert error(functions.get_policy, FunctionName=name, Qualifier="1")["Error"]["Code"] == "ResourceNotFoundException"
    functions.add_permission(FunctionName=name, Qualifier="1", **permission)
    of_version = json.loads(functions.get_policy(FunctionName=name, Qualifier="1")["Policy"])
    assert of_version["Statement"][0]["Resource"] == f"{arn(name)}:1"
    for arguments, message in (
        ({"Qualifier": "$LATEST"}, "We currently do not support adding policies for $LATEST."),
        ({"Principal": "invalid.example"}, "The provided principal was invalid. Please check the principal and try"),
        ({"Qualifier": "nobody"}, f"Cannot find alias arn: {arn(name)}:nobody"),
    ):
        assert (
            message
            in error(functions.add_permission, FunctionName=name, **{**permission, **arguments})["Error"]["Message"]
        )


def test_provisioned_environments_are_started_before_the_first_invocation(functions: Any, deploy: Deploy) -> None:
    name = deploy("import os\ndef handler(event, context): return os.environ['AWS_LAMBDA_INITIALIZATION_TYPE']")
    functions.publish_version(FunctionName=name)
    target = {"FunctionName": name, "Qualifier": "1"}
    put = functions.put_provisioned_concurrency_config(**target, ProvisionedConcurrentExecutions=2)
    assert (put["Status"], put["AvailableProvisionedConcurrentExecutions"]) == ("IN_PROGRESS", 0)
    deadline = time.monotonic() + 60
    while (state := functions.get_provisioned_concurrency_config(**target))["Status"] == "IN_PROGRESS":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert (state["Status"], state["AvailableProvisionedConcurrentExecutions"]) == ("READY", 2)
    answer, log, _ = invoke(functions, f"{name}:1")
    assert answer == "provisioned-concurrency"
    assert "Init Duration" not in log
    assert invoke(functions, name)[0] == "on-demand"
    functions.delete_provisioned_concurrency_config(**target)
    gone = error(functions.get_provisioned_concurrency_config, **target)
    assert gone["Error"]["Code"] == "ProvisionedConcurrencyConfigNotFoundException"


def test_settings_of_events_are_stored_for_each_qualifier(functions: Any, deploy: Deploy) -> None:
    name = deploy("def handler(event, context): raise ValueError")
    stored = functions.put_function_event_invoke_config(FunctionName=name, MaximumRetryAttempts=0)
    assert (stored["FunctionArn"], stored["DestinationConfig"]) == (
        f"{arn(name)}:$LATEST",
        {"OnSuccess": {}, "OnFailure": {}},
    )
    updated = functions.update_function_event_invoke_config(FunctionName=name, MaximumEventAgeInSeconds=60)
    assert (updated["MaximumRetryAttempts"], updated["MaximumEventAgeInSeconds"]) == (0, 60)
    missing = error(functions.get_function_event_invoke_config, FunctionName=name, Qualifier="7")
    assert missing["Message"] == f"The function {arn(name)}:7 doesn't have an EventInvokeConfig"
    itself = {"OnSuccess": {"Destination": arn(name)}}
    failed = error(functions.put_function_event_invoke_config, FunctionName=name, DestinationConfig=itself)
    assert failed["message"] == "You can't specify the function as a destination for itself."


def test_smaller_settings_are_kept(functions: Any, deploy: Deploy) -> None:
    name = deploy(ECHO)
    assert functions.get_function_code_signing_config(FunctionName=name).get("CodeSigningConfigArn") is None
    config = functions.create_code_signing_config(
        AllowedPublishers={
            "SigningProfileVersionArns": ["arn:aws:signer:us-east-1:123456789012:/signing-profiles/test"]
        }
    )["CodeSigningConfig"]
    config_arn = config["CodeSigningConfigArn"]
    functions.put_function_code_signing_config(FunctionName=name, CodeSigningConfigArn=config_arn)
    by_config = functions.list_functions_by_code_signing_config(CodeSigningConfigArn=config_arn)
    assert by_config["FunctionArns"] == [arn(name)]
    functions.delete_function_code_signing_config(FunctionName=name)
    functions.delete_code_signing_config(CodeSigningConfigArn=config_arn)
    functions.put_function_recursion_config(FunctionName=name, RecursiveLoop="Allow")
    assert functions.get_function_recursion_config(FunctionName=name)["RecursiveLoop"] == "Allow"
    assert functions.get_runtime_management_config(FunctionName=name)["UpdateRuntimeOn"] == "Auto"


def test_tags_belong_to_functions_alone(functions: Any, deploy: Deploy) -> None:
    name = deploy(ECHO, Tags={"a": "1"})
    functions.tag_resource(Resource=arn(name), Tags={"b": "2"})
    functions.untag_resource(Resource=arn(name), TagKeys=["a", "c"])
    assert functions.list_tags(Resource=arn(name))["Tags"] == {"b": "2"}
    of_version = error(functions.tag_resource, Resource=f"{arn(name)}:1", Tags={"a": "1"})
    assert of_version["message"].startswith("Tags on function aliases and versions are not supported.")
    too_many = error(functions.tag_resource, Resource=arn(name), Tags={str(number): "" for number in range(51)})
    assert too_many["Error"]["Code"] == "InvalidParameterValueException"


def test_a_deployed_function_finds_fmi_and_the_rendezvous_server(
    cloud: LocalCloud, functions: Any, deploy: Deploy
) -> None:
    """So do its child processes."""
    name = deploy(
        """
        import os, subprocess, fmi
        def handler(event, context):
            child = subprocess.run(["python3", "-c", "import fmi; print(fmi.op.sum)"], capture_output=True, check=True)
            return [os.environ["FMI_RENDEZVOUS"], bool(child.stdout)]
        """
    )
    assert invoke(functions, name)[0] == [cloud.rendezvous, True]


def test_a_child_above_the_functions_memory_is_killed_and_the_function_goes_on(functions: Any, deploy: Deploy) -> None:
    name = deploy(
        """
        import subprocess, sys
        HOARD = "import time; hoard = [bytearray(b'x') * (8 << 20) for _ in range(50) if time.sleep(0.01) is None]"
        def handler(event, context):
            return subprocess.run([sys.executable, "-S", "-c", HOARD]).returncode
        """,
        MemorySize=200,
    )
    answer, log, failed = invoke(functions, name)
    assert (answer, failed) == (-9, None)
    assert int(log.partition("Max Memory Used: ")[2].split()[0]) > 100


def test_a_result_can_be_read_as_a_stream(functions: Any, deploy: Deploy) -> None:
    name = deploy("def handler(event, context): return 'x' * event if event else 1 / 0")
    events = list(functions.invoke_with_response_stream(FunctionName=name, Payload=b"2000000")["EventStream"])
    chunks = [event["PayloadChunk"]["Payload"] for event in events[:-1]]
    assert len(chunks) == 2
    assert json.loads(b"".join(chunks)) == "x" * 2_000_000
    assert events[-1] == {"InvokeComplete": {}}
    (failed,) = functions.invoke_with_response_stream(FunctionName=name, Payload=b"0")["EventStream"]
    assert failed["InvokeComplete"]["ErrorCode"] == "Unhandled"
    assert "ZeroDivisionError" in failed["InvokeComplete"]["ErrorDetails"]


def test_packages_of_the_archive_win_over_preloaded_ones(functions: Any, deploy: Deploy) -> None:
    files = {
        "main": "import numpy, boto3\ndef handler(e, c): return [numpy.mine, boto3.__name__]",
        "numpy/__init__": "mine = 1",
    }
    name = deploy("", Code={"ZipFile": archive(**files)})
    assert invoke(functions, name)[0] == [1, "boto3"]
    layer = functions.publish_layer_version(
        LayerName="boto", Content={"ZipFile": archive(**{"python/boto3/__init__": "mine = 2"})}
    )
    source = "import numpy, boto3\ndef handler(e, c): return [numpy.__name__, boto3.mine]"
    assert invoke(functions, deploy(source, Layers=[layer["LayerVersionArn"]]))[0] == ["numpy", 2]
