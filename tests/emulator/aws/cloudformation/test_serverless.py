"""A template of the Serverless Application Model: what it stands for exists, and its events arrive."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.emulator.aws.cloudformation.conftest import StackTools

TEMPLATE = """
AWSTemplateFormatVersion: "2010-09-09"
Transform: AWS::Serverless-2016-10-31
Globals:
  Function: { Runtime: python3.11, Timeout: 20, MemorySize: 256 }
Parameters:
  Stage: { Type: String, Default: dev }
Resources:
  Queue: { Type: AWS::SQS::Queue }
  Seen: { Type: AWS::SQS::Queue }
  Hello:
    Type: AWS::Serverless::Function
    Properties:
      Handler: index.handler
      InlineCode: |
        import json, os, boto3
        def handler(event, context):
            bodies = [record["body"] for record in event["Records"]]
            text = json.dumps([os.environ["STAGE"], bodies])
            boto3.client("sqs").send_message(QueueUrl=os.environ["SEEN"], MessageBody=text)
      AutoPublishAlias: live
      Policies: [AWSLambdaBasicExecutionRole, { SQSPollerPolicy: { QueueName: !GetAtt Queue.QueueName } }]
      Environment: { Variables: { STAGE: !Ref Stage, SEEN: !Ref Seen } }
      Events:
        Messages: { Type: SQS, Properties: { Queue: !GetAtt Queue.Arn, BatchSize: 5 } }
        Daily: { Type: Schedule, Properties: { Schedule: rate(1 day) } }
  Machine:
    Type: AWS::Serverless::StateMachine
    Properties:
      Definition: { StartAt: A, States: { A: { Type: Task, Resource: "${Function}", End: true } } }
      DefinitionSubstitutions: { Function: !GetAtt Hello.Arn }
      Policies: [{ LambdaInvokePolicy: { FunctionName: !Ref Hello } }]
  Table: { Type: AWS::Serverless::SimpleTable }
Outputs:
  Alias: { Value: !Ref Hello.Alias }
"""


@pytest.mark.timeout(120)
def test_a_serverless_template_is_deployed_by_change_set(
    stacks: StackTools, cloudformation: Any, client: Callable[[str], Any]
) -> None:
    name, sqs = stacks.name(), client("sqs")
    # As `sam deploy` does.
    made = cloudformation.create_change_set(
        StackName=name,
        ChangeSetName="sam",
        ChangeSetType="CREATE",
        TemplateBody=TEMPLATE,
        Capabilities=["CAPABILITY_IAM"],
        Parameters=[{"ParameterKey": "Stage", "ParameterValue": "test"}],
    )
    stacks.created.append(made["StackId"])
    cloudformation.get_waiter("change_set_create_complete").wait(ChangeSetName=made["Id"])
    cloudformation.execute_change_set(ChangeSetName=made["Id"])
    stack = stacks.ended(made["StackId"])
    assert stack["StackStatus"] == "CREATE_COMPLETE", stacks.reasons(stack["StackId"])
    ids = stacks.physical_ids(stack["StackId"])
    assert stack["Values"]["Alias"].endswith(f"{ids['Hello']}:live")
    assert client("dynamodb").describe_table(TableName=ids["Table"])["Table"]["TableStatus"] == "ACTIVE"
    assert ids["Hello"] in client("stepfunctions").describe_state_machine(stateMachineArn=ids["Machine"])["definition"]
    sqs.send_message(QueueUrl=ids["Queue"], MessageBody="hi")
    while "Messages" not in (found := sqs.receive_message(QueueUrl=ids["Seen"], WaitTimeSeconds=1)):
        pass
    assert json.loads(found["Messages"][0]["Body"]) == ["test", ["hi"]]
    template = cloudformation.get_template(StackName=name, TemplateStage="Original")["TemplateBody"]
    assert "AWS::Serverless-2016-10-31" in str(template)


def test_a_wrong_serverless_template_is_refused(cloudformation: Any, stacks: StackTools) -> None:
    for resources, message in (
        ({"F": {"Type": "AWS::Serverless::Function", "Properties": {"Handler": "a.b"}}}, "Invalid Serverless"),
        ({"F": {"Type": "AWS::Serverless::Function", "Properties": {"Colour": "red"}}}, "Invalid Serverless"),
    ):
        template = {"Transform": "AWS::Serverless-2016-10-31", "Resources": resources}
        with pytest.raises(ClientError, match=message):
            cloudformation.create_stack(StackName=stacks.name(), TemplateBody=json.dumps(template))
    with pytest.raises(ClientError, match="No transform named Mine found"):
        text = json.dumps({"Transform": "Mine", "Resources": {"Q": {"Type": "AWS::SQS::Queue"}}})
        cloudformation.create_stack(StackName=stacks.name(), TemplateBody=text)
