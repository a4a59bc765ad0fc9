"""A stack from its first deployment to its end, with a DNS name; and deployments that cannot succeed."""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from emulator.aws.cloudformation.errors import ResourceFailedError
from emulator.aws.cloudformation.types import lambda_
from emulator.aws.sandboxes.containers.daemon import Daemon
from emulator.fmi.aws_calls import observe_calls
from emulator.fmi.deployment import deploy
from emulator.fmi.deployment.deploy import DeploymentSettings, NotConfirmedError, Reporter, deploy_stack
from emulator.fmi.deployment.destroy import delete_bucket
from emulator.fmi.deployment.dry_run import DryDaemon, DryReporter, ImaginedStack
from emulator.fmi.deployment.network import find_server, read_health
from emulator.fmi.deployment.permissions import DEPLOYMENT_ACTIONS, PUSH_ACTIONS, RESOURCE_ACTIONS
from emulator.fmi.deployment.registry import ImageError
from tests.image_daemon import DIGEST, IMAGE, image_daemon
from tests.integration.account import Account, empty_account

pytestmark = pytest.mark.timeout(420)

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
    "AWS::ECR::Repository": lambda account, name: account.client("ecr").describe_repositories(repositoryNames=[name]),
    "AWS::ElasticLoadBalancingV2::LoadBalancer": lambda account, name: account.client("elbv2").describe_load_balancers(
        LoadBalancerArns=[name]
    ),
    "AWS::ElasticLoadBalancingV2::TargetGroup": lambda account, name: next(
        target
        for target in account.client("elbv2").describe_target_health(TargetGroupArn=name)["TargetHealthDescriptions"]
        if target["Target"]["Id"].startswith("127.0.1.")
    ),
    "AWS::ElasticLoadBalancingV2::Listener": lambda account, name: account.client("elbv2").describe_listeners(
        ListenerArns=[name]
    ),
    "AWS::Route53::RecordSet": lambda account, name: next(
        record
        for zone in account.client("route53").list_hosted_zones()["HostedZones"]
        for record in account.client("route53").list_resource_record_sets(HostedZoneId=zone["Id"])["ResourceRecordSets"]
        if record["Name"].rstrip(".") == name and "AliasTarget" in record
    ),
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


def described(account: Account, stack: str) -> list[dict[str, Any]]:
    """Return a stack's resources, after each was found in its own service."""
    pages = account.client("cloudformation").get_paginator("list_stack_resources").paginate(StackName=stack)
    resources = [
        found
        for page in pages
        for found in page["StackResourceSummaries"]
        if found["ResourceStatus"] != "DELETE_COMPLETE"
    ]
    for found in resources:
        assert _DESCRIBED[found["ResourceType"]](account, found["PhysicalResourceId"]), found
    return resources


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

    resources = described(account, "own")
    types = {found["ResourceType"] for found in resources}

    def recorded() -> list[str]:
        records = route53.list_resource_record_sets(HostedZoneId=zone)["ResourceRecordSets"]
        return [entry["Value"] for found in records if found["Type"] == "A" for entry in found["ResourceRecords"]]

    until(lambda: len(recorded()) == 1)
    first = recorded()
    ecs.stop_task(cluster="own", task=ecs.list_tasks(cluster="own")["taskArns"][0])
    until(lambda: recorded() != first)
    status = account.run("status", *name)
    assert (status.status, "fmi.example.org does not resolve to 127." in status.out) == (1, True), status.out

    dry = account.run("deploy", *name, "--dry-run", "--nlb")
    assert dry.status == 0, dry.err
    # Without a DNS name its record goes; the bucket and the secrets are there.
    assert "  route53 ChangeResourceRecordSets(" in dry.err
    assert "PutSecretValue" not in dry.err
    assert len(recorded()) == 1
    assert len(described(account, "own")) == len(resources)

    # Behind a balancer, whose name stays, the function that follows the task's address goes.
    balanced, named = ["--yes", "--log-days", 7, "--nlb"], ["--dns", "fmi.example.org", "--hosted-zone", zone]
    refused = account.run("deploy", *name, *balanced, *named)
    assert (refused.status, "run the command without --dns first, then with it" in refused.err) == (1, True)
    deployed = account.run("deploy", *name, *balanced)
    assert (deployed.status, "  remove  Dns (AWS::Lambda::Function)" in deployed.err) == (0, True), deployed.err
    assert not recorded()
    deployed = account.run("deploy", *name, *balanced, *named)
    assert deployed.status == 0, deployed.err
    types |= {found["ResourceType"] for found in described(account, "own")}
    stack = account.run("status", *name)
    # A balancer costs 0.0225 USD an hour, and its address in each of the six subnets 0.005.
    assert "costs 0.0709 USD an hour" in stack.out, stack.out
    balancer = account.client("elbv2").describe_load_balancers()["LoadBalancers"][0]
    server = find_server(account.session(), "own", "rendezvous", balancer["LoadBalancerArn"])
    assert server is not None
    assert server.address == balancer["DNSName"]
    assert read_health(server)["status"] == "ok"
    # The repository is in the test of an image that is pushed.
    assert types == RESOURCE_ACTIONS.keys() - {"AWS::ECR::Repository"}

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
    assert "the stack was rolled back: delete the other one, or deploy under another name with --stack-name" in last
    assert [found["FunctionName"] for found in account.client("lambda").list_functions()["Functions"]] == [
        "taken-execute"
    ]
    assert account.run("destroy", "--stack-name", "taken", "--yes", "--delete-results").status == 0
    names = [found["Name"] for found in account.client("s3").list_buckets()["Buckets"]]
    assert not [name for name in names if name.startswith("taken-")]


def test_a_dry_run_prints_every_call_and_changes_nothing(
    account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = account.client("s3").list_buckets()["Buckets"]
    for options in ([], ["--image-uri", "local-image"]):
        dry = account.run("deploy", "--stack-name", "dry", "--dry-run", *options)
        assert (dry.status, dry.err.splitlines()[-1]) == (0, "dry run: nothing was made or changed"), dry.err
        calls = [line.split("(")[0].strip() for line in dry.err.splitlines() if line.startswith("  ")]
        assert calls.count("cloudformation CreateChangeSet") == calls.count("cloudformation ExecuteChangeSet") == 2
        assert calls.count("secretsmanager PutSecretValue") == 2
        assert "SecretString=<secret>" in dry.err
        # The two archives and what the functions' contains.
        assert calls.count("s3 PutObject") == (0 if options else 3)
    with image_daemon(tmp_path) as server:
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
        printed: list[str] = []
        session = account.session()
        observe_calls(session.session, lambda call: None, ImaginedStack(account.session(), "dry").answer)
        settings = DeploymentSettings(stack="dry", image=IMAGE)
        deploy_stack(session, settings, DryReporter(printed.append), DryDaemon("amd64"))
        assert server.pushed == []
    assert "  docker push dry-repository:0123456789abcdef" in printed
    assert account.client("s3").list_buckets()["Buckets"] == before
    names = {found["StackName"] for found in account.client("cloudformation").list_stacks()["StackSummaries"]}
    assert "dry" not in names


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


def test_an_image_of_this_machine_is_pushed_to_a_repository_of_the_stack(
    account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The local cloud has no registry: the calls of ECR and of the daemon are all there is."""
    asked: list[list[str]] = []

    def confirm(changes: Any) -> bool:
        asked.append([str(change).strip() for change in changes])
        # The functions of that image could not run without a daemon.
        return len(asked) == 1

    session = account.session()
    observe_calls(session.session, account.calls.append)
    with image_daemon(tmp_path) as server:
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
        settings = DeploymentSettings(stack="pushed", image=IMAGE)
        server.architecture = "arm64"
        with pytest.raises(
            ImageError, match=r"is for arm64: expected one for amd64, .*; give --architecture arm64, or "
        ):
            deploy_stack(session, settings, Reporter(lambda _: None, confirm), Daemon())
        server.architecture = "amd64"
        account.calls.clear()
        notes: list[str] = []
        with pytest.raises(NotConfirmedError):
            deploy_stack(session, settings, Reporter(notes.append, confirm), Daemon())
    repository = next(
        found["repositoryUri"]
        for found in account.client("ecr").describe_repositories()["repositories"]
        if found["repositoryName"].startswith("pushed-repository-")
    )
    assert server.pushed == [(repository, IMAGE.partition(":")[2], "AWS", server.pushed[0][3])]
    assert server.names == {IMAGE}
    assert f"pushing image {IMAGE} to {repository}" in notes
    assert not [note for note in notes if server.pushed[0][3] in note]
    assert "add  Repository (AWS::ECR::Repository)" in asked[0]
    assert {"add  Execute (AWS::Lambda::Function)", "add  TaskDefinition (AWS::ECS::TaskDefinition)"} <= set(asked[1])
    change = next(call for call in reversed(account.calls) if call.operation == "CreateChangeSet")
    given = {entry["ParameterKey"]: entry["ParameterValue"] for entry in change.parameters["Parameters"]}
    assert given["ImageUri"] == f"{repository}@{DIGEST}"
    assert account.actions() <= {*DEPLOYMENT_ACTIONS, *PUSH_ACTIONS}
    assert "AWS::ECR::Repository" in {found["ResourceType"] for found in described(account, "pushed")}
    # An endpoint has no registry, and the image must not go to AWS's.
    refused = account.run("deploy", "--yes", "--stack-name", "pushed", "--image", IMAGE)
    assert (refused.status, "give --image-uri" in refused.err) == (2, True), refused.err
    assert account.run("destroy", "--stack-name", "pushed", "--yes", "--delete-results").status == 0
    names = [found["repositoryName"] for found in account.client("ecr").describe_repositories()["repositories"]]
    assert not [name for name in names if name.startswith("pushed-")]


def test_a_role_that_is_not_known_everywhere_yet_is_waited_for(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CloudFormation rolls the stack back, and the same change is applied again."""
    create = lambda_.Function.create
    failures = ["The role defined for the function cannot be assumed by Lambda. (Service: Lambda, Status Code: 400)"]

    async def fails_at_first(self: Any, request: Any) -> Any:
        if failures and request.logical_id == "Execute":
            raise ResourceFailedError(failures.pop())
        return await create(self, request)

    monkeypatch.setattr(lambda_.Function, "create", fails_at_first)
    monkeypatch.setattr(deploy, "_EARLY_PAUSES_S", (0, 0))
    deployed = account.run("deploy", "--stack-name", "early", "--yes")
    assert (deployed.status, failures) == (0, []), deployed.err
    assert "AWS does not see all new resources yet, so the change is applied again in 0 s" in deployed.err
    assert re.search(r"stack 'early': UPDATE_COMPLETE", deployed.err)
    assert account.run("destroy", "--stack-name", "early", "--yes", "--delete-results").status == 0
