"""Stacks of a running cloud: what a template says exists afterwards in its own service, and is gone in the end."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.emulator.aws.cloudformation.conftest import StackTools

ROLE = "arn:aws:iam::123456789012:role/test"
APPLICATION = (Path(__file__).parent / "application.yaml").read_text()


def queue(**properties: Any) -> dict[str, Any]:
    return {"Type": "AWS::SQS::Queue", "Properties": properties}


def test_an_application_is_created_updated_and_deleted(stacks: StackTools, client: Callable[[str], Any]) -> None:
    functions, machines, s3, logs = client("lambda"), client("stepfunctions"), client("s3"), client("logs")
    stack = stacks.create(APPLICATION, Tags=[{"Key": "team", "Value": "sky"}])
    assert stack["StackStatus"] == "CREATE_COMPLETE", stacks.reasons(stack["StackId"])
    ids, values = stacks.physical_ids(stack["StackId"]), stack["Values"]

    answer = functions.invoke(FunctionName=ids["Function"], Payload=b'{"n": 1}')
    assert json.load(answer["Payload"]) == {"version": "one", "event": {"n": 1}}
    assert functions.list_tags(Resource=values["FunctionArn"])["Tags"] == {"team": "sky"}
    assert functions.get_alias(FunctionName=ids["Function"], Name="live")["FunctionVersion"] == "1"
    policy = json.loads(functions.get_policy(FunctionName=ids["Function"])["Policy"])
    assert policy["Statement"][0]["Principal"] == {"Service": "s3.amazonaws.com"}
    machine = machines.describe_state_machine(stateMachineArn=ids["Machine"])
    assert values["FunctionArn"] in machine["definition"]
    rules = s3.get_bucket_lifecycle_configuration(Bucket=ids["Bucket"])["Rules"]
    assert rules[0]["Filter"] == {"Prefix": "scratch/"}
    assert json.loads(s3.get_bucket_policy(Bucket=ids["Bucket"])["Policy"])["Version"] == "2012-10-17"
    assert s3.get_public_access_block(Bucket=ids["Bucket"])["PublicAccessBlockConfiguration"]["BlockPublicAcls"]
    group = logs.describe_log_groups(logGroupNamePrefix=ids["Group"])["logGroups"][0]
    assert group["retentionInDays"] == 14

    changed = APPLICATION.replace('"one"', '"two"').replace("Name: live", "Name: stable").replace("14", "30")
    stack = stacks.update(stack["StackId"], changed)
    assert stack["StackStatus"] == "UPDATE_COMPLETE", stacks.reasons(stack["StackId"])
    answer = functions.invoke(FunctionName=ids["Function"], Payload=b"{}")
    assert json.load(answer["Payload"]) == {"version": "two", "event": {}}
    assert [alias["Name"] for alias in functions.list_aliases(FunctionName=ids["Function"])["Aliases"]] == ["stable"]
    assert logs.describe_log_groups(logGroupNamePrefix=ids["Group"])["logGroups"][0]["retentionInDays"] == 30
    assert stacks.physical_ids(stack["StackId"])["Bucket"] == ids["Bucket"]

    assert stacks.delete(stack["StackId"])["StackStatus"] == "DELETE_COMPLETE"
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        functions.get_function(FunctionName=ids["Function"])
    with pytest.raises(ClientError, match="404"):
        s3.head_bucket(Bucket=ids["Bucket"])
    with pytest.raises(ClientError, match="StateMachineDoesNotExist"):
        machines.describe_state_machine(stateMachineArn=ids["Machine"])
    with pytest.raises(ClientError, match="NoSuchEntity"):
        client("iam").get_role(RoleName=ids["Role"])


def test_a_type_that_nobody_serves_fails_by_name_and_all_else_is_rolled_back(
    stacks: StackTools, client: Callable[[str], Any]
) -> None:
    name = stacks.name()
    template = {
        "Resources": {
            "Queue": queue(QueueName=name),
            "Satellite": {"Type": "AWS::GroundStation::Config", "DependsOn": "Queue", "Properties": {"Name": "x"}},
        }
    }
    stack = stacks.create(template, name)
    assert stack["StackStatus"] == "ROLLBACK_COMPLETE"
    assert "AWS::GroundStation::Config is not emulated" in stacks.reasons(stack["StackId"])
    events = stacks.events(stack["StackId"])
    assert ("Satellite", "CREATE_FAILED") in events
    order = [status for logical_id, status in events if logical_id in (name, "Queue")]
    assert order == [
        "CREATE_IN_PROGRESS",
        "CREATE_IN_PROGRESS",
        "CREATE_IN_PROGRESS",
        "CREATE_COMPLETE",
        "ROLLBACK_IN_PROGRESS",
        "DELETE_IN_PROGRESS",
        "DELETE_COMPLETE",
        "ROLLBACK_COMPLETE",
    ]
    assert client("sqs").list_queues(QueueNamePrefix=name).get("QueueUrls", []) == []
    with pytest.raises(ClientError, match="ROLLBACK_COMPLETE state and can not be updated"):
        stacks.update(stack["StackId"], {"Resources": {"Queue": queue()}})


@pytest.mark.parametrize(
    ("properties", "reason"),
    [
        ({"Runtime": "python3.11", "Handler": "a.b"}, "Role"),
        ({"Runtime": "python3.11", "Handler": "a.b", "Role": ROLE, "Code": {"ZipFile": ""}, "Colour": "x"}, "Colour"),
        ({"Runtime": "cobol1", "Handler": "a.b", "Role": ROLE, "Code": {"ZipFile": "pass"}}, "cobol1"),
        ({"Runtime": "python3.11", "Role": ROLE, "Code": {"S3Bucket": "no", "S3Key": "no"}, "Handler": "a.b"}, "S3"),
    ],
)
def test_a_refused_property_is_the_reason(stacks: StackTools, properties: dict[str, Any], reason: str) -> None:
    template = {"Resources": {"Function": {"Type": "AWS::Lambda::Function", "Properties": properties}}}
    stack = stacks.create(template)
    assert stack["StackStatus"] == "ROLLBACK_COMPLETE"
    assert reason in stacks.reasons(stack["StackId"])


def test_a_failed_update_brings_back_what_was(stacks: StackTools, client: Callable[[str], Any]) -> None:
    sqs = client("sqs")
    stack = stacks.create({"Resources": {"Queue": queue(VisibilityTimeout=11)}})
    broken = {
        "Resources": {
            "Queue": queue(VisibilityTimeout=22),
            "Other": queue(),
            "Wrong": {**queue(NoSuchAttribute=1), "DependsOn": ["Queue", "Other"]},
        }
    }
    stack = stacks.update(stack["StackId"], broken)
    assert stack["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    url = stacks.physical_ids(stack["StackId"])["Queue"]
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["VisibilityTimeout"])["Attributes"]
    assert attributes == {"VisibilityTimeout": "11"}
    assert stacks.physical_ids(stack["StackId"]) == {"Queue": url}
    names = [url.rpartition("/")[2] for url in sqs.list_queues(QueueNamePrefix=stack["StackName"])["QueueUrls"]]
    assert names == [url.rpartition("/")[2]]
    # It can be updated again.
    stack = stacks.update(stack["StackId"], {"Resources": {"Queue": queue(VisibilityTimeout=33)}})
    assert stack["StackStatus"] == "UPDATE_COMPLETE"


def test_on_failure_do_nothing_keeps_what_exists(stacks: StackTools, client: Callable[[str], Any]) -> None:
    template = {"Resources": {"Queue": queue(), "Wrong": {**queue(NoSuchAttribute=1), "DependsOn": "Queue"}}}
    stack = stacks.create(template, OnFailure="DO_NOTHING")
    assert stack["StackStatus"] == "CREATE_FAILED"
    assert client("sqs").list_queues(QueueNamePrefix=stack["StackName"])["QueueUrls"]


def test_an_update_without_rollback_keeps_what_it_did_and_can_go_on(
    stacks: StackTools, client: Callable[[str], Any]
) -> None:
    def template(**properties: Any) -> dict[str, Any]:
        wrong = {**queue(**properties), "DependsOn": "Queue"}
        return {"Resources": {"Queue": queue(VisibilityTimeout=22), "Wrong": wrong}}

    stack = stacks.create({"Resources": {"Queue": queue(VisibilityTimeout=11), "Wrong": queue()}})
    stack = stacks.update(stack["StackId"], template(NoSuchAttribute=1), DisableRollback=True)
    assert stack["StackStatus"] == "UPDATE_FAILED"
    url = stacks.physical_ids(stack["StackId"])["Queue"]
    attributes = client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["VisibilityTimeout"])["Attributes"]
    assert attributes == {"VisibilityTimeout": "22"}
    stack = stacks.update(stack["StackId"], template(DelaySeconds=5))
    assert stack["StackStatus"] == "UPDATE_COMPLETE"
    url = stacks.physical_ids(stack["StackId"])["Wrong"]
    attributes = client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["DelaySeconds"])["Attributes"]
    assert attributes == {"DelaySeconds": "5"}


def test_a_change_set_says_what_follows_a_failure(stacks: StackTools, cloudformation: Any) -> None:
    name = stacks.name()
    made = cloudformation.create_change_set(
        StackName=name,
        ChangeSetName="first",
        ChangeSetType="CREATE",
        OnStackFailure="DELETE",
        TemplateBody=json.dumps({"Resources": {"Wrong": queue(NoSuchAttribute=1)}}),
    )
    cloudformation.execute_change_set(ChangeSetName=made["Id"])
    assert stacks.ended(made["StackId"])["StackStatus"] == "DELETE_COMPLETE"


def test_a_parameter_without_effect_is_refused(stacks: StackTools, cloudformation: Any) -> None:
    with pytest.raises(ClientError, match="RetainExceptOnCreate is not emulated"):
        stacks.create({"Resources": {"Queue": queue()}}, RetainExceptOnCreate=True)
    with pytest.raises(ClientError, match="DeletionMode is not emulated"):
        cloudformation.delete_stack(StackName="none", DeletionMode="FORCE_DELETE_STACK")


def test_a_replaced_resource_changes_what_refers_to_it(stacks: StackTools, client: Callable[[str], Any]) -> None:
    name = stacks.name()

    def template(queue_name: str) -> dict[str, Any]:
        return {
            "Resources": {
                "Queue": queue(QueueName=queue_name),
                "Parameter": {
                    "Type": "AWS::SSM::Parameter",
                    "Properties": {"Type": "String", "Value": {"Fn::GetAtt": ["Queue", "Arn"]}},
                },
            }
        }

    stack = stacks.create(template(f"{name}-a"))
    stacks.update(stack["StackId"], template(f"{name}-b"))
    parameter = stacks.physical_ids(stack["StackId"])["Parameter"]
    value = client("ssm").get_parameter(Name=parameter)["Parameter"]["Value"]
    assert value.endswith(f"{name}-b")
    urls = client("sqs").list_queues(QueueNamePrefix=name)["QueueUrls"]
    assert [url.rpartition("/")[2] for url in urls] == [f"{name}-b"]


def test_a_change_set_creates_then_updates(stacks: StackTools, cloudformation: Any) -> None:
    name = stacks.name()
    template = {
        "Parameters": {"Delay": {"Type": "Number", "Default": 1}},
        "Resources": {"Queue": queue(DelaySeconds={"Ref": "Delay"})},
    }
    made = cloudformation.create_change_set(
        StackName=name, ChangeSetName="first", ChangeSetType="CREATE", TemplateBody=json.dumps(template)
    )
    stacks.created.append(made["StackId"])
    assert cloudformation.describe_stacks(StackName=name)["Stacks"][0]["StackStatus"] == "REVIEW_IN_PROGRESS"
    described = cloudformation.describe_change_set(ChangeSetName=made["Id"])
    assert [change["ResourceChange"]["Action"] for change in described["Changes"]] == ["Add"]
    cloudformation.execute_change_set(ChangeSetName=made["Id"])
    assert stacks.ended(made["StackId"])["StackStatus"] == "CREATE_COMPLETE"

    def second(delay: str, **changes: Any) -> dict[str, Any]:
        cloudformation.create_change_set(
            StackName=name,
            ChangeSetName=f"delay-{delay}",
            TemplateBody=json.dumps({**template, **changes}),
            Parameters=[{"ParameterKey": "Delay", "ParameterValue": delay}],
        )
        described: dict[str, Any] = cloudformation.describe_change_set(StackName=name, ChangeSetName=f"delay-{delay}")
        return described

    described = second("1")
    assert (described["Status"], described["ExecutionStatus"]) == ("FAILED", "UNAVAILABLE")
    assert "didn't contain changes" in described["StatusReason"]
    described = second("7", Resources={"Queue": queue(DelaySeconds={"Ref": "Delay"}), "More": queue()})
    changes = {item["ResourceChange"]["LogicalResourceId"]: item["ResourceChange"] for item in described["Changes"]}
    assert changes["More"]["Action"] == "Add"
    assert (changes["Queue"]["Action"], changes["Queue"]["Replacement"]) == ("Modify", "False")
    assert changes["Queue"]["Details"][0]["Target"]["Name"] == "DelaySeconds"
    cloudformation.execute_change_set(StackName=name, ChangeSetName="delay-7")
    assert stacks.ended(name)["StackStatus"] == "UPDATE_COMPLETE"
    assert cloudformation.list_change_sets(StackName=name)["Summaries"][0]["ExecutionStatus"] == "EXECUTE_COMPLETE"


def test_a_template_is_read_from_a_bucket(stacks: StackTools, cloudformation: Any, s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="a/b.json", Body=json.dumps({"Resources": {"Queue": queue()}}))
    for url in (f"https://s3.amazonaws.com/{bucket}/a/b.json", f"https://{bucket}.s3.us-east-1.amazonaws.com/a/b.json"):
        stack_id = cloudformation.create_stack(StackName=stacks.name(), TemplateURL=url)["StackId"]
        stacks.created.append(stack_id)
        assert stacks.ended(stack_id)["StackStatus"] == "CREATE_COMPLETE"
    with pytest.raises(ClientError, match="S3 error"):
        cloudformation.create_stack(StackName=stacks.name(), TemplateURL=f"https://s3.amazonaws.com/{bucket}/none")


def test_a_nested_stack_has_outputs_and_goes_with_its_parent(stacks: StackTools, s3: Any, bucket: str) -> None:
    inner = {
        "Parameters": {"Delay": {"Type": "String"}},
        "Resources": {"Queue": queue(DelaySeconds={"Ref": "Delay"})},
        "Outputs": {"Name": {"Value": {"Fn::GetAtt": ["Queue", "QueueName"]}}},
    }
    s3.put_object(Bucket=bucket, Key="inner.json", Body=json.dumps(inner))
    nested = {
        "Type": "AWS::CloudFormation::Stack",
        "Properties": {"TemplateURL": f"https://s3.amazonaws.com/{bucket}/inner.json", "Parameters": {"Delay": 3}},
    }
    outer = {
        "Resources": {"Inner": nested},
        "Outputs": {"Name": {"Value": {"Fn::GetAtt": ["Inner", "Outputs.Name"]}}},
    }
    stack = stacks.create(outer)
    assert stack["StackStatus"] == "CREATE_COMPLETE", stacks.reasons(stack["StackId"])
    assert "Queue" in stack["Values"]["Name"]
    inner_id = stacks.physical_ids(stack["StackId"])["Inner"]
    assert stacks.ended(inner_id)["ParentId"] == stack["StackId"]
    stacks.delete(stack["StackId"])
    assert stacks.ended(inner_id)["StackStatus"] == "DELETE_COMPLETE"


def test_an_export_is_imported_and_cannot_go_while_it_is(stacks: StackTools, cloudformation: Any) -> None:
    name = stacks.name()
    exporting = {
        "Resources": {"Queue": queue()},
        "Outputs": {"Arn": {"Value": {"Fn::GetAtt": ["Queue", "Arn"]}, "Export": {"Name": f"{name}-arn"}}},
    }
    importing = {
        "Resources": {
            "Parameter": {
                "Type": "AWS::SSM::Parameter",
                "Properties": {"Type": "String", "Value": {"Fn::ImportValue": f"{name}-arn"}},
            }
        }
    }
    first, second = stacks.create(exporting), stacks.create(importing)
    assert second["StackStatus"] == "CREATE_COMPLETE"
    assert f"{name}-arn" in [export["Name"] for export in cloudformation.list_exports()["Exports"]]
    assert cloudformation.list_imports(ExportName=f"{name}-arn")["Imports"] == [second["StackName"]]
    with pytest.raises(ClientError, match=f"in use by {second['StackName']}"):
        cloudformation.delete_stack(StackName=first["StackId"])
    with pytest.raises(ClientError, match="No export named"):
        stacks.create(
            {
                "Resources": {
                    "P": {
                        **importing["Resources"]["Parameter"],
                        "Properties": {"Type": "String", "Value": {"Fn::ImportValue": "none"}},
                    }
                }
            }
        )


CUSTOM = """
import cfnresponse

def handler(event, context):
    kind, properties = event["RequestType"], event["ResourceProperties"]
    if properties.get("Fail") == "true":
        cfnresponse.send(event, context, cfnresponse.FAILED, {}, reason="asked to fail")
        return
    cfnresponse.send(event, context, cfnresponse.SUCCESS, {"Echo": f"{kind} {properties['Text']}"}, "made-by-hand")
"""


def test_a_custom_resource_is_made_by_its_function(stacks: StackTools) -> None:
    def template(text: str, **more: Any) -> dict[str, Any]:
        function = {"Runtime": "python3.11", "Handler": "index.handler", "Role": ROLE, "Code": {"ZipFile": CUSTOM}}
        return {
            "Resources": {
                "Function": {"Type": "AWS::Lambda::Function", "Properties": {**function, "Timeout": 20}},
                "Own": {
                    "Type": "Custom::Echo",
                    "Properties": {"ServiceToken": {"Fn::GetAtt": ["Function", "Arn"]}, "Text": text, **more},
                },
            },
            "Outputs": {"Echo": {"Value": {"Fn::GetAtt": ["Own", "Echo"]}}, "Id": {"Value": {"Ref": "Own"}}},
        }

    stack = stacks.create(template("a"))
    assert stack["Values"] == {"Echo": "Create a", "Id": "made-by-hand"}
    assert stacks.update(stack["StackId"], template("b"))["Values"]["Echo"] == "Update b"
    stack = stacks.update(stack["StackId"], template("c", Fail=True))
    assert stack["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert "asked to fail" in stacks.reasons(stack["StackId"])


def without_report(code: str, **beside: Any) -> dict[str, Any]:
    """Return a template with a custom resource whose function never reports."""
    function = {"Runtime": "python3.11", "Handler": "index.handler", "Role": ROLE, "Code": {"ZipFile": code}}
    once = {"FunctionName": {"Ref": "Function"}, "Qualifier": "$LATEST", "MaximumRetryAttempts": 0}
    return {
        "Resources": {
            "Function": {"Type": "AWS::Lambda::Function", "Properties": function},
            "Once": {"Type": "AWS::Lambda::EventInvokeConfig", "Properties": once},
            "Own": {
                "Type": "Custom::Own",
                "DependsOn": "Once",
                "Properties": {"ServiceToken": {"Fn::GetAtt": ["Function", "Arn"]}},
            },
            **beside,
        }
    }


def test_a_custom_resource_fails_with_its_function(stacks: StackTools) -> None:
    stack = stacks.create(without_report("def handler(event, context): raise ValueError('no such star')"))
    assert stack["StackStatus"] == "ROLLBACK_COMPLETE"
    assert "no such star" in stacks.reasons(stack["StackId"])


def test_what_waits_is_cancelled_when_another_resource_fails(stacks: StackTools) -> None:
    # Fails when the custom resource has begun.
    beside = {"Queue": {**queue(), "DependsOn": "Once"}, "Wrong": {**queue(NoSuchAttribute=1), "DependsOn": "Queue"}}
    stack = stacks.create(without_report("def handler(event, context): pass", **beside))
    assert stack["StackStatus"] == "ROLLBACK_COMPLETE"
    assert ("Own", "CREATE_FAILED") in stacks.events(stack["StackId"])
    assert "Resource creation cancelled" in stacks.reasons(stack["StackId"])


def test_a_stack_can_be_deleted_while_it_is_created(stacks: StackTools, cloudformation: Any, s3: Any) -> None:
    bucket = {"Type": "AWS::S3::Bucket"}
    template = json.dumps({"Resources": {"A": bucket, "B": {**bucket, "DependsOn": "A"}, "Queue": queue()}})
    stack_id = cloudformation.create_stack(StackName=stacks.name(), TemplateBody=template)["StackId"]
    stacks.created.append(stack_id)
    cloudformation.delete_stack(StackName=stack_id)
    cloudformation.get_waiter("stack_delete_complete").wait(StackName=stack_id, WaiterConfig={"Delay": 1})
    assert stacks.ended(stack_id)["StackStatus"] == "DELETE_COMPLETE"
    name = stack_id.split("/")[1]
    assert [found["Name"] for found in s3.list_buckets()["Buckets"] if found["Name"].startswith(name)] == []


def test_retained_resources_stay(stacks: StackTools, client: Callable[[str], Any]) -> None:
    stack = stacks.create({"Resources": {"Queue": {**queue(), "DeletionPolicy": "Retain"}}})
    url = stacks.physical_ids(stack["StackId"])["Queue"]
    stacks.delete(stack["StackId"])
    assert ("Queue", "DELETE_SKIPPED") in stacks.events(stack["StackId"])
    client("sqs").delete_queue(QueueUrl=url)


def test_a_replaced_resource_stays_if_its_policy_says_so(stacks: StackTools, client: Callable[[str], Any]) -> None:
    name = stacks.name()
    kept = {**queue(QueueName=f"{name}-a"), "UpdateReplacePolicy": "Retain"}
    stack = stacks.create({"Resources": {"Queue": kept}})
    stacks.update(stack["StackId"], {"Resources": {"Queue": queue(QueueName=f"{name}-b")}})
    urls = client("sqs").list_queues(QueueNamePrefix=name)["QueueUrls"]
    assert sorted(url.rpartition("/")[2] for url in urls) == [f"{name}-a", f"{name}-b"]
    client("sqs").delete_queue(QueueUrl=urls[0] if urls[0].endswith("-a") else urls[1])


def test_a_rule_about_parameters_is_checked(stacks: StackTools) -> None:
    template = {
        "Parameters": {"Kind": {"Type": "String"}, "Size": {"Type": "String", "Default": "1"}},
        "Rules": {
            "SmallOnes": {
                "RuleCondition": {"Fn::Equals": [{"Ref": "Kind"}, "small"]},
                "Assertions": [
                    {"Assert": {"Fn::Contains": [["1", "2"], {"Ref": "Size"}]}, "AssertDescription": "1 or 2"}
                ],
            }
        },
        "Resources": {"Queue": queue()},
    }

    def values(kind: str, size: str) -> list[dict[str, str]]:
        return [{"ParameterKey": "Kind", "ParameterValue": kind}, {"ParameterKey": "Size", "ParameterValue": size}]

    with pytest.raises(ClientError, match="Rule SmallOnes: 1 or 2"):
        stacks.create(template, Parameters=values("small", "3"))
    assert stacks.create(template, Parameters=values("large", "3"))["StackStatus"] == "CREATE_COMPLETE"


def test_a_bucket_with_objects_keeps_its_stack(stacks: StackTools, s3: Any) -> None:
    stack = stacks.create({"Resources": {"Bucket": {"Type": "AWS::S3::Bucket"}}})
    bucket = stacks.physical_ids(stack["StackId"])["Bucket"]
    s3.put_object(Bucket=bucket, Key="a", Body=b"")
    stack = stacks.delete(stack["StackId"])
    assert stack["StackStatus"] == "DELETE_FAILED"
    assert "not empty" in stacks.reasons(stack["StackId"])
    s3.delete_object(Bucket=bucket, Key="a")
    assert stacks.delete(stack["StackId"])["StackStatus"] == "DELETE_COMPLETE"


def test_termination_protection_and_unknown_stacks(stacks: StackTools, cloudformation: Any) -> None:
    stack = stacks.create({"Resources": {"Queue": queue()}}, EnableTerminationProtection=True)
    with pytest.raises(ClientError, match="TerminationProtection is enabled"):
        cloudformation.delete_stack(StackName=stack["StackName"])
    with pytest.raises(ClientError, match="Stack with id nowhere does not exist"):
        cloudformation.describe_stacks(StackName="nowhere")
    cloudformation.delete_stack(StackName="nowhere")
    with pytest.raises(ClientError, match="AlreadyExistsException"):
        cloudformation.create_stack(StackName=stack["StackName"], TemplateBody='{"Resources": {"Q": {"Type": "A"}}}')
    with pytest.raises(ClientError, match="No updates are to be performed"):
        cloudformation.update_stack(StackName=stack["StackName"], UsePreviousTemplate=True)
    with pytest.raises(ClientError, match="DetectStackDrift is not emulated"):
        cloudformation.detect_stack_drift(StackName=stack["StackName"])


def test_secrets_and_parameters_are_read_for_properties(stacks: StackTools, client: Callable[[str], Any]) -> None:
    name = stacks.name()
    client("ssm").put_parameter(Name=f"/{name}/delay", Type="String", Value="5")
    template = {
        "Parameters": {"Delay": {"Type": "AWS::SSM::Parameter::Value<String>", "Default": f"/{name}/delay"}},
        "Resources": {
            "Secret": {
                "Type": "AWS::SecretsManager::Secret",
                "Properties": {
                    "GenerateSecretString": {"SecretStringTemplate": '{"user": "x"}', "GenerateStringKey": "password"}
                },
            },
            "Queue": queue(DelaySeconds={"Ref": "Delay"}),
            "Copy": {
                "Type": "AWS::SSM::Parameter",
                "Properties": {
                    "Type": "String",
                    "Value": {"Fn::Sub": "{{resolve:secretsmanager:${Secret}:SecretString:user}}"},
                },
            },
        },
    }
    stack = stacks.create(template)
    assert stack["StackStatus"] == "CREATE_COMPLETE", stacks.reasons(stack["StackId"])
    assert stack["Parameters"][0]["ResolvedValue"] == "5"
    ids = stacks.physical_ids(stack["StackId"])
    assert client("ssm").get_parameter(Name=ids["Copy"])["Parameter"]["Value"] == "x"
    secret = json.loads(client("secretsmanager").get_secret_value(SecretId=ids["Secret"])["SecretString"])
    assert len(secret["password"]) == 32


def test_a_region_has_its_own_stacks(cloud: Any, stacks: StackTools) -> None:
    import boto3

    far = boto3.client(
        "cloudformation",
        endpoint_url=cloud.endpoint_url,
        region_name="eu-west-1",
        **cloud.credentials.for_boto3(),
    )
    tools = StackTools(far)
    stack = tools.create({"Resources": {"Queue": queue()}, "Outputs": {"Region": {"Value": {"Ref": "AWS::Region"}}}})
    assert stack["Values"] == {"Region": "eu-west-1"}
    assert ":eu-west-1:" in stack["StackId"]
    with pytest.raises(ClientError, match="does not exist"):
        stacks.api.describe_stacks(StackName=stack["StackName"])
    tools.delete(stack["StackId"])
