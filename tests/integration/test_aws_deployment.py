"""A stack from its first deployment to its end, with a DNS name; and deployments that cannot succeed."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from emulator.fmi.deployment.destroy import delete_bucket
from emulator.fmi.deployment.permissions import DEPLOYMENT_ACTIONS, RESOURCE_ACTIONS
from tests.integration.account import Account, empty_account

pytestmark = pytest.mark.timeout(240)

# The call of a type's own service that finds a resource by its physical id.
_DESCRIBED: dict[str, Callable[[Account, str], Any]] = {
    "AWS::S3::Bucket": lambda account, name: account.client("s3").head_bucket(Bucket=name),
    "AWS::S3::BucketPolicy": lambda account, name: account.client("s3").get_bucket_policy(Bucket=name),
    "AWS::SecretsManager::Secret": lambda account, name: account.client("secretsmanager").describe_secret(
        SecretId=name
    ),
    "AWS::Logs::LogGroup": lambda account, name: next(
        group
        for group in account.client("logs").describe_log_groups(logGroupNamePrefix=name)["logGroups"]
        if group["logGroupName"] == name and group["retentionInDays"] == 7
    ),
    "AWS::IAM::Role": lambda account, name: account.client("iam").get_role(RoleName=name),
    "AWS::Lambda::Function": lambda account, name: account.client("lambda").get_function(FunctionName=name),
    "AWS::Lambda::Permission": lambda account, name: account.client("lambda").get_policy(FunctionName="own-dns"),
    "AWS::StepFunctions::StateMachine": lambda account, name: account.client("stepfunctions").describe_state_machine(
        stateMachineArn=name
    ),
    "AWS::ECS::Cluster": lambda account, name: account.client("ecs").describe_clusters(clusters=[name])["clusters"][0],
    "AWS::ECS::TaskDefinition": lambda account, name: account.client("ecs").describe_task_definition(
        taskDefinition=name
    ),
    "AWS::ECS::Service": lambda account, name: account.client("ecs").describe_services(cluster="own", services=[name])[
        "services"
    ][0],
    "AWS::EC2::SecurityGroup": lambda account, name: account.client("ec2").describe_security_groups(GroupIds=[name]),
    "AWS::Events::Rule": lambda account, name: account.client("events").describe_rule(Name=name.rpartition("|")[2]),
}


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    with empty_account(tmp_path_factory.mktemp("wheels")) as made:
        yield made


def until(holds: Callable[[], bool]) -> None:
    ends = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.5)


def test_a_stack_from_deployment_to_destruction(account: Account) -> None:
    """The printed policy allows each call and no other; each resource exists in its own service; the bucket stays."""
    route53, ecs = account.client("route53"), account.client("ecs")
    zone = route53.create_hosted_zone(Name="example.org.", CallerReference="test")["HostedZone"]["Id"].rpartition("/")[
        2
    ]
    name = ["--stack-name", "own"]
    refused = account.run("deploy", *name)
    assert (refused.status, "nothing was changed: run the command again and agree" in refused.err) == (2, True)
    assert "     add  Bucket (AWS::S3::Bucket)" in refused.err
    deployed = account.run("deploy", *name, "--yes", "--log-days", 7, "--dns", "fmi.example.org", "--hosted-zone", zone)
    assert deployed.status == 0, deployed.err

    # Without the name its function would go; nobody agrees, so it stays.
    refused = account.run("deploy", *name)
    assert (refused.status, "  remove  Dns (AWS::Lambda::Function)" in refused.err) == (2, True), refused.err

    resources = account.client("cloudformation").list_stack_resources(StackName="own")["StackResourceSummaries"]
    assert {found["ResourceType"] for found in resources} == RESOURCE_ACTIONS.keys()
    for found in resources:
        assert _DESCRIBED[found["ResourceType"]](account, found["PhysicalResourceId"]), found

    def recorded() -> list[str]:
        records = route53.list_resource_record_sets(HostedZoneId=zone)["ResourceRecordSets"]
        return [entry["Value"] for found in records if found["Type"] == "A" for entry in found["ResourceRecords"]]

    until(lambda: len(recorded()) == 1)
    first = recorded()
    ecs.stop_task(cluster="own", task=ecs.list_tasks(cluster="own")["taskArns"][0])
    until(lambda: recorded() != first)
    status = account.run("status", *name)
    assert (status.status, "fmi.example.org does not resolve to 127." in status.out) == (1, True), status.out

    kept = account.run("destroy", *name)
    assert (kept.status, "nothing was deleted" in kept.err) == (1, True)
    destroyed = account.run("destroy", *name, "--yes")
    assert destroyed.status == 0, destroyed.err
    bucket = next(found["PhysicalResourceId"] for found in resources if found["LogicalResourceId"] == "Bucket")
    assert f"bucket {bucket} stays with its results" in destroyed.err
    assert account.client("s3").list_objects_v2(Bucket=bucket)["KeyCount"] >= 3
    assert not account.client("lambda").list_functions()["Functions"]
    assert not recorded()
    assert "there is nothing to delete" in account.run("destroy", *name, "--yes").err
    # What --delete-results does at the end; the next test gives that option.
    delete_bucket(account.observed("s3"), bucket)
    with pytest.raises(account.client("s3").exceptions.ClientError, match="Not Found"):
        account.client("s3").head_bucket(Bucket=bucket)
    assert account.actions() == set(DEPLOYMENT_ACTIONS)


def test_a_deployment_that_fails_names_the_resource_and_rolls_back(account: Account) -> None:
    """The name of a function is taken, by one that is not the stack's."""
    account.client("lambda").create_function(
        FunctionName="taken-execute",
        Runtime="python3.11",
        Role="arn:aws:iam::123456789012:role/x",
        Handler="a.b",
        Code={"ZipFile": b"PK\x05\x06" + bytes(18)},
    )
    failed = account.run("deploy", "--stack-name", "taken", "--yes")
    last = failed.err.splitlines()[-1]
    assert (failed.status, last.startswith("fmi-emulator: Execute (AWS::Lambda::Function) failed: ")) == (1, True), last
    assert "the stack was rolled back: mend the cause and run the command again" in last
    assert [found["FunctionName"] for found in account.client("lambda").list_functions()["Functions"]] == [
        "taken-execute"
    ]
    assert account.run("destroy", "--stack-name", "taken", "--yes", "--delete-results").status == 0
    names = [found["Name"] for found in account.client("s3").list_buckets()["Buckets"]]
    assert not [name for name in names if name.startswith("taken-")]


def test_options_that_contradict_each_other_are_refused(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    for options, message in (
        (["--dns", "x.example.org"], "--dns and --hosted-zone belong together"),
        (["--image-uri", "x", "--with", "scipy"], "--with adds packages to an archive"),
        (["--with", "no-such-package"], "cannot download numpy>=1.26,<3, no-such-package for Python 3."),
        (["--subnet", "subnet-0"], "subnet-0"),
    ):
        ended = account.run("deploy", "--yes", "--stack-name", "none", *options)
        assert (ended.status, message in ended.err) == (2, True), ended.err
    assert account.client("cloudformation").describe_stacks()["Stacks"] == []


def test_the_local_cloud_is_deployed_to_without_an_account(account: Account, tmp_path: Path) -> None:
    printed = account.run("deploy", "--print-policy").out
    assert '"cloudformation:CreateChangeSet"' in printed
    assert account.run("deploy", "--print-template").out.startswith("AWSTemplateFormatVersion")
