"""Members, states and errors of Lambda's answers, as AWS was recorded to give them."""

import uuid
from collections.abc import Callable
from typing import Any

import pytest

from tests.emulator.aws.lambda_.http.test_api import Deploy
from tests.emulator.aws.lambda_.http.test_operations import arn, error
from tests.emulator.conftest import ROLE, archive

SOURCE = "def handler(event, context): return 1"
STATEMENT = {"Action": "lambda:InvokeFunction", "Principal": "s3.amazonaws.com"}


@pytest.fixture
def name(deploy: Deploy) -> str:
    return deploy(SOURCE)


def revision(functions: Any, name: str) -> str:
    return str(functions.get_function_configuration(FunctionName=name)["RevisionId"])


def test_a_deletion_answers_with_the_status_of_its_member(functions: Any) -> None:
    settings = {"FunctionName": "short", "Runtime": "python3.12", "Handler": "main.handler", "Role": ROLE}
    functions.create_function(**settings, Code={"ZipFile": archive(main=SOURCE)})
    deleted = functions.delete_function(FunctionName="short")
    assert (deleted["StatusCode"], deleted["ResponseMetadata"]["HTTPStatusCode"]) == (204, 204)


def test_a_version_that_is_published_with_its_function_is_created_under_the_plain_arn(functions: Any) -> None:
    settings = {"FunctionName": "published", "Runtime": "python3.12", "Handler": "main.handler", "Role": ROLE}
    made = functions.create_function(**settings, Code={"ZipFile": archive(main=SOURCE)}, Publish=True)
    assert (made["Version"], made["FunctionArn"], made["State"]) == ("1", arn("published"), "Pending")
    found = functions.get_function_configuration(FunctionName="published", Qualifier="1")
    assert (found["FunctionArn"], found["State"]) == (f"{arn('published')}:1", "Active")
    functions.delete_function(FunctionName="published")


def test_tags_change_the_revision_of_their_function_and_do_not_count_as_a_change(functions: Any, name: str) -> None:
    functions.publish_version(FunctionName=name)
    ids = [revision(functions, name)]
    functions.tag_resource(Resource=arn(name), Tags={"a": "b", "c": "d"})
    ids.append(revision(functions, name))
    functions.untag_resource(Resource=arn(name), TagKeys=["a"])
    ids.append(revision(functions, name))
    assert len(set(ids)) == 3
    assert functions.get_function(FunctionName=name)["Tags"] == {"c": "d"}
    assert functions.publish_version(FunctionName=name)["Version"] == "1"


def test_a_policy_has_a_revision_of_its_own_that_a_new_version_leaves(functions: Any, name: str) -> None:
    functions.add_permission(FunctionName=name, StatementId="first", **STATEMENT)
    policy = functions.get_policy(FunctionName=name)["RevisionId"]
    assert policy == revision(functions, name)
    functions.publish_version(FunctionName=name)
    assert functions.get_policy(FunctionName=name)["RevisionId"] == policy != revision(functions, name)
    stale = error(
        functions.add_permission,
        FunctionName=name,
        StatementId="second",
        RevisionId=revision(functions, name),
        **STATEMENT,
    )
    assert stale["Error"]["Code"] == "PreconditionFailedException"
    functions.add_permission(FunctionName=name, StatementId="second", RevisionId=policy, **STATEMENT)
    assert functions.get_policy(FunctionName=name)["RevisionId"] != policy


def test_a_policy_of_an_alias_begins_with_the_revision_of_the_alias(functions: Any, name: str) -> None:
    functions.publish_version(FunctionName=name)
    alias = functions.create_alias(FunctionName=name, Name="live", FunctionVersion="1")["RevisionId"]
    statement = {"FunctionName": name, "Qualifier": "live", "StatementId": "s", **STATEMENT}
    functions.add_permission(**statement, RevisionId=alias)
    policy = functions.get_policy(FunctionName=name, Qualifier="live")["RevisionId"]
    assert policy != alias
    functions.remove_permission(FunctionName=name, Qualifier="live", StatementId="s", RevisionId=policy)
    functions.delete_alias(FunctionName=name, Name="live")


def test_what_does_not_exist_is_named_as_each_operation_does(functions: Any, name: str) -> None:
    missing = error(functions.update_alias, FunctionName=name, Name="none", Description="x")
    assert missing["Error"]["Message"] == f"Alias not found: {arn(name)}:none"
    found = error(functions.get_alias, FunctionName=name, Name="none")
    assert found["Error"]["Message"] == f"Cannot find alias arn: {arn(name)}:none"
    deleted = error(functions.delete_function, FunctionName=name, Qualifier="live")
    assert deleted["message"] == "Deletion of aliases is not currently supported."
    for kind, words in (("event-source-mapping", "Event source mapping"), ("capacity-provider", "Capacity provider")):
        resource = f"arn:aws:lambda:us-east-1:123456789012:{kind}:{uuid.uuid4()}"
        for call, arguments in (
            (functions.tag_resource, {"Tags": {"a": "b"}}),
            (functions.untag_resource, {"TagKeys": ["a"]}),
            (functions.list_tags, {}),
        ):
            failed = error(call, Resource=resource, **arguments)
            assert failed["Error"]["Code"] == "ResourceNotFoundException"
            assert failed["Message"] == f"{words} not found: {resource}"


def test_errors_of_the_accounts_quotas_have_no_type(functions: Any, name: str) -> None:
    failed = error(functions.put_function_concurrency, FunctionName=name, ReservedConcurrentExecutions=901)
    assert failed["Error"]["Code"] == "InvalidParameterValueException"
    assert "Type" not in failed


def test_subnets_and_security_groups_must_exist(functions: Any, deploy: Deploy, client: Callable[[str], Any]) -> None:
    ec2 = client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/24")["Subnet"]["SubnetId"]
    group = ec2.create_security_group(VpcId=vpc, GroupName="g", Description="d")["GroupId"]
    name = deploy(SOURCE, VpcConfig={"SubnetIds": [subnet], "SecurityGroupIds": [group]})
    assert functions.get_function_configuration(FunctionName=name)["VpcConfig"] == {
        "SubnetIds": [subnet],
        "SecurityGroupIds": [group],
        "VpcId": vpc,
        "Ipv6AllowedForDualStack": False,
    }
    for subnets, groups, message in (
        (["subnet-0"], [group], "InvalidSubnetID.NotFound. EC2 Error Message: The subnet ID 'subnet-0' does not exist"),
        ([subnet], ["sg-0"], "InvalidGroup.NotFound. EC2 Error Message: The security group 'sg-0' does not exist"),
    ):
        vpc_config = {"SubnetIds": subnets, "SecurityGroupIds": groups}
        failed = error(functions.update_function_configuration, FunctionName=name, VpcConfig=vpc_config)
        assert failed["message"].endswith(message)
    left = functions.update_function_configuration(
        FunctionName=name, VpcConfig={"SubnetIds": [], "SecurityGroupIds": []}
    )
    assert left["VpcConfig"]["VpcId"] == ""


def test_code_that_s3_does_not_have_is_refused_with_the_error_of_s3(functions: Any, name: str, bucket: str) -> None:
    for place, code in (({"S3Bucket": "none-such"}, "NoSuchBucket"), ({"S3Bucket": bucket}, "NoSuchKey")):
        failed = error(functions.update_function_code, FunctionName=name, **place, S3Key="code.zip")
        assert failed["message"].startswith(f"Error occurred while GetObject. S3 Error Code: {code}. S3 Error Message:")


def test_code_must_have_the_functions_package_type(functions: Any, name: str) -> None:
    failed = error(functions.update_function_code, FunctionName=name, ImageUri="123456789012.dkr.ecr/x:1")
    assert failed["message"] == "Please don't provide ImageUri when updating a function with packageType Zip."
    settings = {"FunctionName": "image", "PackageType": "Image", "Role": ROLE}
    failed = error(functions.create_function, **settings, Code={"ZipFile": archive(main=SOURCE)})
    assert failed["message"] == "Please provide ImageUri when creating a function with packageType Image."


def test_runtimes_are_accepted_as_long_as_aws_does(functions: Any, deploy: Deploy) -> None:
    deploy(SOURCE, Runtime="nodejs16.x")
    name = deploy(SOURCE, Runtime="python3.8")
    retired = error(functions.update_function_configuration, FunctionName=name, Runtime="python3.7")
    assert "python3.7 is no longer supported" in retired["message"]


def test_a_layer_of_another_account_is_not_ours(functions: Any, deploy: Deploy) -> None:
    layer = functions.publish_layer_version(LayerName="ours", Content={"ZipFile": archive(x="")})["LayerVersionArn"]
    other = layer.replace("123456789012", "210987654321")
    failed = error(functions.update_function_configuration, FunctionName=deploy(SOURCE), Layers=[other])
    assert failed["message"] == f"Layer version {other} does not exist."


def test_a_code_signing_configuration_has_tags_and_is_kept_while_functions_use_it(functions: Any, name: str) -> None:
    publishers = {"SigningProfileVersionArns": ["arn:aws:signer:us-east-1:123456789012:/signing-profiles/test"]}
    made = functions.create_code_signing_config(AllowedPublishers=publishers, Tags={"a": "b"})["CodeSigningConfig"]
    config = made["CodeSigningConfigArn"]
    assert "Tags" not in made
    functions.tag_resource(Resource=config, Tags={"c": "d"})
    assert functions.list_tags(Resource=config)["Tags"] == {"a": "b", "c": "d"}
    functions.put_function_code_signing_config(FunctionName=name, CodeSigningConfigArn=config)
    used = error(functions.delete_code_signing_config, CodeSigningConfigArn=config)
    assert used["Error"]["Code"] == "ResourceConflictException"
    functions.delete_function_code_signing_config(FunctionName=name)
    functions.delete_code_signing_config(CodeSigningConfigArn=config)
    assert error(functions.list_tags, Resource=config)["Message"] == f"Code signing config not found: {config}"


def test_values_of_maps_are_named_in_the_singular(functions: Any, name: str) -> None:
    weights = {"AdditionalVersionWeights": {"1": 1.5}}
    failed = error(functions.create_alias, FunctionName=name, Name="live", FunctionVersion="1", RoutingConfig=weights)
    assert failed["Error"]["Message"] == (
        "1 validation error detected: Value '{1=1.5}' at 'routingConfig.additionalVersionWeights' failed to satisfy "
        "constraint: Map value must satisfy constraint: [Member must have value less than or equal to 1.0, Member "
        "must have value greater than or equal to 0.0, Member must not be null]"
    )
