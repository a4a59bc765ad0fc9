"""Task states: functions, retries, timeouts, tokens and other services."""

import json
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from emulator.cloud import LocalCloud
from tests.emulator.aws.stepfunctions.conftest import events, inline, invoke, kinds, wait_for_end
from tests.emulator.conftest import archive

Deploy = Callable[..., str]
Execute = Callable[..., dict[str, Any]]

# Fails as often as the event says. The count is stored in S3, which every sandbox can read.
FAILS_FIRST = """
    import boto3
    class NotYetError(Exception): pass
    def handler(event, context):
        s3 = boto3.client("s3")
        done = s3.list_objects_v2(Bucket=event["bucket"]).get("KeyCount", 0)
        s3.put_object(Bucket=event["bucket"], Key=str(done), Body=b"")
        if done < event["failures"]:
            raise NotYetError(f"failure {done}")
        return {"attempts": done + 1}
"""


def test_lambda_invoke_returns_the_sdks_response(execute: Execute, deploy: Deploy) -> None:
    name = deploy("def handler(event, context): return {'got': event, 'version': context.function_version}")
    states = {"T": invoke(name, OutputPath="$")}
    output = execute(states, {"x": [1, "ü"]})["output"]
    assert output["Payload"] == {"got": {"x": [1, "ü"]}, "version": "$LATEST"}
    assert (output["ExecutedVersion"], output["StatusCode"]) == ("$LATEST", 200)
    assert output["SdkHttpMetadata"]["HttpStatusCode"] == 200
    assert output["SdkResponseMetadata"]["RequestId"]


def test_a_function_is_called_by_arn_and_qualifier_or_by_its_own_arn(
    functions: Any, execute: Execute, deploy: Deploy
) -> None:
    name = deploy("def handler(event, context): return [context.function_version, event]")
    functions.publish_version(FunctionName=name)
    arn = functions.get_function(FunctionName=name)["Configuration"]["FunctionArn"]
    parameters = {"FunctionName.$": "$.arn", "Qualifier": "1", "Payload": {"fixed": True}}
    output = execute({"T": invoke("", Parameters=parameters)}, {"arn": arn})["output"]
    assert output == ["1", {"fixed": True}]
    direct = {"T": {"Type": "Task", "Resource": f"{arn}:1", "End": True}}
    execution = execute(direct, {"x": 1})
    assert execution["output"] == ["1", {"x": 1}]


@pytest.mark.parametrize(
    ("payload", "event"),
    [(None, {}), ('{"a": [1]}', {"a": [1]}), ("0.0", 0.0), ('"text"', "text"), ("text", "text"), ("", ""),
     ("NaN", "NaN"), ({"s": '{"a": 1}', "n": None}, {"s": '{"a": 1}', "n": None})],
)  # fmt: skip
def test_a_payload_of_text_is_sent_as_the_json_it_contains(
    execute: Execute, deploy: Deploy, payload: Any, event: Any
) -> None:
    name = deploy("def handler(event, context): return event")
    task = invoke(name, Parameters={"FunctionName": name, "Payload.$": "$.payload"})
    assert execute({"T": task}, {"payload": payload})["output"] == event
    arn = f"arn:aws:lambda:us-east-1:123456789012:function:{name}"
    own = {"T": {"Type": "Task", "Resource": arn, "InputPath": "$.payload", "End": True}}
    assert execute(own, {"payload": payload})["output"] == payload


def test_a_task_adds_awss_events(sfn: Any, execute: Execute, deploy: Deploy) -> None:
    name = deploy("def handler(event, context): return 1")
    execution = execute({"T": invoke(name, TimeoutSeconds=9)}, {"x": 1})
    history = events(sfn, execution["executionArn"])
    assert [event["type"] for event in history] == [
        "ExecutionStarted",
        "TaskStateEntered",
        "TaskScheduled",
        "TaskStarted",
        "TaskSucceeded",
        "TaskStateExited",
        "ExecutionSucceeded",
    ]
    scheduled = history[2]["taskScheduledEventDetails"]
    assert (scheduled["resourceType"], scheduled["resource"], scheduled["timeoutInSeconds"]) == ("lambda", "invoke", 9)
    assert json.loads(scheduled["parameters"]) == {"FunctionName": name, "Payload": {"x": 1}}
    assert json.loads(history[4]["taskSucceededEventDetails"]["output"])["Payload"] == 1


def test_an_exception_has_lambdas_error_name_and_cause(sfn: Any, execute: Execute, deploy: Deploy) -> None:
    name = deploy("class Mine(Exception): pass\ndef handler(event, context): raise Mine('what was wrong')")
    execution = execute({"T": invoke(name)})
    assert (execution["status"], execution["error"]) == ("FAILED", "Mine")
    cause = json.loads(execution["cause"])
    assert (cause["errorType"], cause["errorMessage"]) == ("Mine", "what was wrong")
    assert cause["stackTrace"]
    failed = next(event for event in events(sfn, execution["executionArn"]) if event["type"] == "TaskFailed")
    assert failed["taskFailedEventDetails"]["error"] == "Mine"


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("import os\ndef handler(event, context): os._exit(3)", "Runtime.ExitError"),
        ("import time\ndef handler(event, context): time.sleep(100)", "Sandbox.Timedout"),
        ("def handler(event, context): return {1}", "Runtime.MarshalError"),
    ],
)
def test_a_crash_or_timeout_of_a_function_has_lambdas_error_name(
    execute: Execute, deploy: Deploy, source: str, error: str
) -> None:
    execution = execute({"T": invoke(deploy(source, Timeout=1))})
    assert (execution["status"], execution["error"]) == ("FAILED", error)


def test_an_unknown_function_fails_with_lambdas_error(execute: Execute) -> None:
    execution = execute({"T": invoke("nobody")})
    assert (execution["status"], execution["error"]) == ("FAILED", "Lambda.ResourceNotFoundException")
    assert "Status Code: 404" in execution["cause"]


def test_a_failed_task_is_retried_until_it_succeeds(sfn: Any, bucket: str, execute: Execute, deploy: Deploy) -> None:
    retry = [{"ErrorEquals": ["NotYetError"], "IntervalSeconds": 1, "BackoffRate": 1, "MaxAttempts": 2}]
    execution = execute({"T": invoke(deploy(FAILS_FIRST), Retry=retry)}, {"bucket": bucket, "failures": 1})
    assert execution["output"] == {"attempts": 2}
    assert kinds(sfn, execution["executionArn"]).count("TaskScheduled") == 2


def test_a_failure_after_the_last_retry_is_passed_to_the_catcher_with_the_input(
    sfn: Any, s3: Any, bucket: str, execute: Execute, deploy: Deploy
) -> None:
    states = {
        "T": invoke(
            deploy(FAILS_FIRST),
            Retry=[{"ErrorEquals": ["States.TaskFailed"], "MaxAttempts": 1, "JitterStrategy": "FULL"}],
            Catch=[{"ErrorEquals": ["NotYetError"], "ResultPath": "$.failed", "Next": "Caught"}],
        ),
        "Caught": {"Type": "Pass", "Parameters": {"error.$": "$.failed.Error", "bucket.$": "$.bucket"}, "End": True},
    }
    execution = execute(states, {"bucket": bucket, "failures": 9})
    assert execution["output"] == {"error": "NotYetError", "bucket": bucket}
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 2


def test_throttled_functions_are_retried(functions: Any, execute: Execute, deploy: Deploy) -> None:
    name = deploy("import time\ndef handler(event, context): time.sleep(0.4); return event")
    functions.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=1)
    retry = [{"ErrorEquals": ["Lambda.TooManyRequestsException"], "IntervalSeconds": 1, "BackoffRate": 1,
              "MaxAttempts": 50, "JitterStrategy": "FULL"}]  # fmt: skip
    assert execute({"M": inline({"T": invoke(name, Retry=retry)})}, [1, 2, 3])["output"] == [1, 2, 3]
    execution = execute({"M": inline({"T": invoke(name)})}, [1, 2, 3])
    assert (execution["status"], execution["error"]) == ("FAILED", "Lambda.TooManyRequestsException")


def _call(resource: str, **parameters: Any) -> dict[str, Any]:
    return {
        "Type": "Task",
        "Resource": f"arn:aws:states:::{resource}",
        "Parameters": parameters,
        "Catch": [{"ErrorEquals": ["States.ALL"], "Next": "Caught"}],
        "End": True,
    }


def test_dynamodb_items_keep_their_names_in_both_kinds_of_integrations(
    cloud: LocalCloud, sfn: Any, execute: Execute
) -> None:
    table = f"table-{uuid.uuid4().hex}"
    tables = cloud.client("dynamodb")
    tables.create_table(
        TableName=table, BillingMode="PAY_PER_REQUEST", KeySchema=[{"AttributeName": "userId", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "userId", "AttributeType": "S"}],
    )  # fmt: skip
    caught = {"Caught": {"Type": "Pass", "End": True}}
    item = {"userId": {"S": "1"}, "isOn": {"BOOL": True}, "deep": {"M": {"aKey": {"N": "1"}}}}
    key = {"userId": {"S": "1"}}
    put = execute({"T": _call("dynamodb:putItem", TableName=table, Item=item), **caught})["output"]
    assert put["SdkHttpMetadata"]["HttpStatusCode"] == 200
    output = execute({"T": _call("dynamodb:getItem", TableName=table, Key=key), **caught})["output"]
    assert output["Item"] == item
    output = execute({"T": _call("aws-sdk:dynamodb:getItem", TableName=table, Key=key), **caught})["output"]
    assert output == {"Item": {**item, "isOn": {"Bool": True}}}
    condition = "attribute_not_exists(userId)"
    for resource, error in (
        ("dynamodb:putItem", "DynamoDB.ConditionalCheckFailedException"),
        ("aws-sdk:dynamodb:putItem", "DynamoDb.ConditionalCheckFailedException"),
    ):
        task = _call(resource, TableName=table, Item=item, ConditionExpression=condition)
        assert execute({"T": task, **caught})["output"]["Error"] == error


@pytest.mark.parametrize(
    ("task", "error"),
    [
        (_call("dynamodb:getItem", TableName="none", Key={"a": {"S": "1"}}), "DynamoDB.ResourceNotFoundException"),
        (_call("aws-sdk:dynamodb:getItem", TableName="none", Key={"a": {"S": "1"}}),
         "DynamoDb.ResourceNotFoundException"),
        (_call("sns:publish", TopicArn="arn:aws:sns:us-east-1:123456789012:none", Message="m"),
         "SNS.NotFoundException"),
        (_call("sqs:sendMessage", QueueUrl="http://127.0.0.1/123456789012/none", MessageBody="m"),
         "SQS.QueueDoesNotExistException"),
        (_call("aws-sdk:s3:headObject", Bucket="no-such-bucket-here", Key="k"), "S3.NoSuchKeyException"),
        (_call("aws-sdk:s3:listObjects", Bucket="no-such-bucket-here"), "S3.NoSuchBucketException"),
        (_call("aws-sdk:sfn:sendTaskSuccess", TaskToken="t", Output="{}"), "Sfn.InvalidTokenException"),
        (_call("states:startExecution", StateMachineArn="arn:aws:states:us-east-1:123456789012:stateMachine:none"),
         "StepFunctions.StateMachineDoesNotExistException"),
    ],
)  # fmt: skip
def test_published_catchers_match_the_error_names_of_each_kind_of_integration(
    execute: Execute, task: dict[str, Any], error: str
) -> None:
    output = execute({"T": task, "Caught": {"Type": "Pass", "End": True}})["output"]
    assert output["Error"] == error


WAITS_LONG = """
    import boto3, time
    def handler(event, context):
        boto3.client("s3").put_object(Bucket=event, Key="began", Body=b"")
        time.sleep(1000)
"""


def test_a_task_times_out_and_its_function_is_stopped(
    sfn: Any, bucket: str, execute: Execute, deploy: Deploy, functions: Any
) -> None:
    name = deploy(WAITS_LONG, Timeout=900)
    functions.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=1)
    execution = execute({"T": invoke(name, TimeoutSeconds=1)}, bucket)
    assert (execution["status"], execution["error"]) == ("FAILED", "States.Timeout")
    assert "TaskTimedOut" in kinds(sfn, execution["executionArn"])
    again = execute({"T": invoke(name, TimeoutSeconds=1)}, bucket)
    assert again["error"] == "States.Timeout", "the reserved concurrency is free again"


def test_stopping_an_execution_stops_its_functions(
    sfn: Any, s3: Any, functions: Any, bucket: str, machine: Callable[..., str], deploy: Deploy
) -> None:
    name = deploy(WAITS_LONG, Timeout=900)
    functions.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=1)
    started = sfn.start_execution(stateMachineArn=machine({"T": invoke(name)}), input=json.dumps(bucket))
    s3.get_waiter("object_exists").wait(Bucket=bucket, Key="began", WaiterConfig={"Delay": 0.05, "MaxAttempts": 400})
    with pytest.raises(ClientError, match="TooManyRequests"):
        functions.invoke(FunctionName=name, Payload=json.dumps(bucket))
    sfn.stop_execution(executionArn=started["executionArn"])
    assert kinds(sfn, started["executionArn"])[-2:] == ["TaskStateAborted", "ExecutionAborted"]
    functions.update_function_code(FunctionName=name, ZipFile=archive(main="def handler(event, context): return 1"))
    assert functions.invoke(FunctionName=name)["Payload"].read() == b"1", "the reserved concurrency is free again"


def with_token(state_machine: Callable[..., str], sfn: Any, s3: Any, bucket: str, **more: Any) -> tuple[str, str]:
    """Start an execution whose Task writes its token to a bucket; return the execution and the token."""
    state = {
        "Type": "Task",
        "Resource": "arn:aws:states:::aws-sdk:s3:putObject.waitForTaskToken",
        "Parameters": {"Bucket": bucket, "Key": "token", "Body.$": "$$.Task.Token"},
        "End": True,
        **more,
    }
    started = sfn.start_execution(stateMachineArn=state_machine({"T": state}))["executionArn"]
    s3.get_waiter("object_exists").wait(Bucket=bucket, Key="token", WaiterConfig={"Delay": 0.05, "MaxAttempts": 400})
    return started, s3.get_object(Bucket=bucket, Key="token")["Body"].read().decode()


def test_a_task_waits_for_the_return_of_its_token(sfn: Any, s3: Any, bucket: str, machine: Callable[..., str]) -> None:
    execution, token = with_token(machine, sfn, s3, bucket)
    sfn.send_task_heartbeat(taskToken=token)
    sfn.send_task_success(taskToken=token, output='{"made": 1}')
    assert wait_for_end(sfn, execution)["output"] == {"made": 1}
    assert kinds(sfn, execution)[2:6] == ["TaskScheduled", "TaskStarted", "TaskSubmitted", "TaskSucceeded"]
    with pytest.raises(sfn.exceptions.TaskTimedOut):
        sfn.send_task_success(taskToken=token, output="{}")
    with pytest.raises(sfn.exceptions.InvalidToken):
        sfn.send_task_heartbeat(taskToken="nobody's")


def test_a_failure_is_sent_with_a_token(sfn: Any, s3: Any, bucket: str, machine: Callable[..., str]) -> None:
    execution, token = with_token(machine, sfn, s3, bucket)
    with pytest.raises(sfn.exceptions.InvalidOutput):
        sfn.send_task_success(taskToken=token, output="{")
    sfn.send_task_failure(taskToken=token, error="Mine", cause="why")
    failed = wait_for_end(sfn, execution)
    assert (failed["status"], failed["error"], failed["cause"]) == ("FAILED", "Mine", "why")


def test_a_token_without_heartbeats_times_out(sfn: Any, s3: Any, bucket: str, machine: Callable[..., str]) -> None:
    execution, _ = with_token(machine, sfn, s3, bucket, HeartbeatSeconds=1)
    failed = wait_for_end(sfn, execution)
    assert (failed["status"], failed["error"]) == ("FAILED", "States.HeartbeatTimeout")


def test_any_service_is_called_through_the_sdk_and_its_errors_have_its_name(
    s3: Any, bucket: str, execute: Execute
) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"content")
    states = {"T": {"Type": "Task", "Resource": "arn:aws:states:::aws-sdk:s3:getObject", "End": True,
                    "Parameters": {"Bucket": bucket, "Key.$": "$.key"}}}  # fmt: skip
    assert execute(states, {"key": "k"})["output"]["Body"] == "content"
    assert execute(states, {"key": "none"})["error"] == "S3.NoSuchKeyException"
    assert "Parameter validation failed" in execute(states, {"key": 5})["cause"]
    states["T"]["Resource"] = "arn:aws:states:::aws-sdk:s3:getNothing"
    assert execute(states, {"key": 5})["cause"] == "unknown action 'getNothing' of AWS service 's3'"
    states["T"]["Resource"] = "arn:aws:states:::aws-sdk:nothing:get"
    assert execute(states, {"key": 5})["cause"] == "unknown AWS service 'nothing': expected a service that boto3 has"


def test_a_state_machine_starts_another_one_and_waits_for_it(
    sfn: Any, execute: Execute, machine: Callable[..., str]
) -> None:
    inner = machine({"C": {"Type": "Choice", "Default": "S", "Choices": [
        {"Variable": "$.bad", "IsPresent": True, "Next": "F"}]},
        "S": {"Type": "Pass", "Result": {"done": True}, "End": True},
        "F": {"Type": "Fail", "Error": "Inner"}})  # fmt: skip

    def outer(pattern: str) -> dict[str, Any]:
        return {"T": {"Type": "Task", "Resource": f"arn:aws:states:::states:startExecution{pattern}", "End": True,
                      "Parameters": {"StateMachineArn": inner, "Input.$": "$"}}}  # fmt: skip

    assert execute(outer(".sync:2"), {"x": 1})["output"]["Output"] == {"done": True}
    assert execute(outer(".sync"), {"x": 1})["output"]["Output"] == '{"done":true}'
    started = execute(outer(""), {"x": 1})["output"]["ExecutionArn"]
    assert wait_for_end(sfn, started)["status"] == "SUCCEEDED"
    failed = execute(outer(".sync:2"), {"bad": 1})
    assert failed["error"] == "States.TaskFailed"
    assert json.loads(failed["cause"])["Error"] == "Inner"


def test_an_event_invocation_does_not_wait(s3: Any, bucket: str, execute: Execute, deploy: Deploy) -> None:
    name = deploy("import boto3\ndef handler(e, c): boto3.client('s3').put_object(Bucket=e, Key='ran', Body=b'')")
    parameters = {"FunctionName": name, "InvocationType": "Event", "Payload.$": "$"}
    output = execute({"T": invoke("", Parameters=parameters, OutputPath="$")}, bucket)["output"]
    assert (output["StatusCode"], output["Payload"]) == (202, "")
    deadline = time.monotonic() + 30
    while not s3.list_objects_v2(Bucket=bucket)["KeyCount"]:
        assert time.monotonic() < deadline
