"""Tasks and services that run the rendezvous server."""

import json
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.emulator.aws.cloudformation.conftest import StackTools

pytestmark = pytest.mark.timeout(120)
HEALTH = "import urllib.request as u; u.urlopen('http://127.0.0.1:10001/health', timeout=4)"


def until(read: Callable[[], Any], wanted: Callable[[Any], bool]) -> Any:
    """Read until a value is as wanted; the test's own time limit ends this."""
    while not wanted(value := read()):
        time.sleep(0.05)
    return value


@pytest.fixture(scope="module")
def ecs(client: Callable[[str], Any]) -> Any:
    return client("ecs")


@pytest.fixture(scope="module")
def network(client: Callable[[str], Any]) -> dict[str, Any]:
    subnets = client("ec2").describe_subnets()["Subnets"]
    return {"awsvpcConfiguration": {"subnets": [subnets[0]["SubnetId"]], "assignPublicIp": "ENABLED"}}


@pytest.fixture
def cluster(ecs: Any) -> Iterator[str]:
    name = f"test-{uuid.uuid4().hex[:8]}"
    ecs.create_cluster(clusterName=name)
    yield name
    for arn in ecs.list_services(cluster=name)["serviceArns"]:
        ecs.delete_service(cluster=name, service=arn, force=True)
    for arn in ecs.list_tasks(cluster=name)["taskArns"]:
        ecs.stop_task(cluster=name, task=arn)


def register(ecs: Any, **container: Any) -> str:
    definition = ecs.register_task_definition(
        family=f"family-{uuid.uuid4().hex[:8]}",
        requiresCompatibilities=["FARGATE"],
        networkMode="awsvpc",
        cpu="256",
        memory="512",
        containerDefinitions=[{"name": "server", "image": "example/fmi-rendezvous:1", "essential": True, **container}],
    )
    arn: str = definition["taskDefinition"]["taskDefinitionArn"]
    return arn


def task_at(ecs: Any, cluster: str, arn: str, status: str) -> Any:
    return until(
        lambda: ecs.describe_tasks(cluster=cluster, tasks=[arn])["tasks"][0], lambda task: task["lastStatus"] == status
    )


def address_of(task: Any) -> str:
    details = {item["name"]: item["value"] for item in task["attachments"][0]["details"]}
    address: str = details["privateIPv4Address"]
    return address


def test_a_task_runs_the_server_and_has_its_address(
    ecs: Any, cluster: str, network: dict[str, Any], client: Callable[[str], Any]
) -> None:
    log_group = f"/{cluster}"
    client("logs").create_log_group(logGroupName=log_group)
    secret = client("secretsmanager").create_secret(
        Name=cluster, SecretString=json.dumps({"secret": "0123456789abcdef"})
    )
    definition = register(
        ecs,
        command=["fmi-rendezvous", "--host", "0.0.0.0", "--port", "10000", "--log-level", "info"],
        secrets=[{"name": "FMI_RENDEZVOUS_SECRET", "valueFrom": f"{secret['ARN']}:secret::"}],
        healthCheck={"command": ["CMD", "python3", "-c", HEALTH], "interval": 5},
        logConfiguration={
            "logDriver": "awslogs",
            "options": {"awslogs-group": log_group, "awslogs-region": "us-east-1", "awslogs-stream-prefix": "r"},
        },
    )
    started = ecs.run_task(
        cluster=cluster, taskDefinition=definition, launchType="FARGATE", networkConfiguration=network
    )
    arn = started["tasks"][0]["taskArn"]
    task = task_at(ecs, cluster, arn, "RUNNING")
    address = address_of(task)
    assert address.startswith("127.")
    assert address != "127.0.0.1"
    until(
        lambda: ecs.describe_tasks(cluster=cluster, tasks=[arn])["tasks"][0]["healthStatus"],
        lambda health: health == "HEALTHY",
    )
    with urllib.request.urlopen(f"http://{address}:10001/health", timeout=5) as answer:
        assert answer.status == 200
    interface = next(
        item["value"] for item in task["attachments"][0]["details"] if item["name"] == "networkInterfaceId"
    )
    found = client("ec2").describe_network_interfaces(NetworkInterfaceIds=[interface])["NetworkInterfaces"][0]
    assert found["Association"]["PublicIp"] == address
    stream = f"r/server/{arn.rpartition('/')[2]}"
    until(
        lambda: client("logs").filter_log_events(logGroupName=log_group, logStreamNames=[stream])["events"],
        lambda events: any("10000" in event["message"] for event in events),
    )
    assert ecs.describe_clusters(clusters=[cluster])["clusters"][0]["runningTasksCount"] == 1
    ecs.stop_task(cluster=cluster, task=arn, reason="done")
    task = task_at(ecs, cluster, arn, "STOPPED")
    assert (task["stoppedReason"], task["stopCode"]) == ("done", "UserInitiated")
    assert task["containers"][0]["exitCode"] == 0
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://{address}:10001/health", timeout=5)


def test_an_image_that_cannot_run_stops_its_task_by_name(ecs: Any, cluster: str, network: dict[str, Any]) -> None:
    definition = register(ecs, image="nginx:latest")
    started = ecs.run_task(
        cluster=cluster, taskDefinition=definition, launchType="FARGATE", networkConfiguration=network
    )
    task = task_at(ecs, cluster, started["tasks"][0]["taskArn"], "STOPPED")
    assert task["stopCode"] == "TaskFailedToStart"
    assert "image nginx:latest cannot run here" in task["stoppedReason"]


def test_a_service_is_stable_replaces_tasks_and_ends(ecs: Any, cluster: str, network: dict[str, Any]) -> None:
    created = ecs.create_service(
        cluster=cluster,
        serviceName="rendezvous",
        taskDefinition=register(ecs),
        desiredCount=1,
        launchType="FARGATE",
        networkConfiguration=network,
        deploymentConfiguration={"minimumHealthyPercent": 0, "maximumPercent": 100},
    )["service"]
    waiter = ecs.get_waiter("services_stable")
    waiter.wait(cluster=cluster, services=["rendezvous"], WaiterConfig={"Delay": 1})
    (first,) = ecs.list_tasks(cluster=cluster, serviceName="rendezvous")["taskArns"]
    # One that ends by itself is started again.
    ecs.stop_task(cluster=cluster, task=first)
    (second,) = until(
        lambda: ecs.list_tasks(cluster=cluster, serviceName="rendezvous")["taskArns"],
        lambda arns: len(arns) == 1 and arns[0] != first,
    )
    task_at(ecs, cluster, second, "RUNNING")
    # A new definition replaces it; with these settings the old one ends first.
    definition = register(ecs)
    ecs.update_service(cluster=cluster, service=created["serviceArn"], taskDefinition=definition)
    waiter.wait(cluster=cluster, services=["rendezvous"], WaiterConfig={"Delay": 1})
    service = ecs.describe_services(cluster=cluster, services=["rendezvous"])["services"][0]
    assert service["taskDefinition"] == definition
    assert [item["rolloutState"] for item in service["deployments"]] == ["COMPLETED"]
    (third,) = ecs.list_tasks(cluster=cluster, serviceName="rendezvous")["taskArns"]
    old = task_at(ecs, cluster, second, "STOPPED")
    new = task_at(ecs, cluster, third, "RUNNING")
    assert old["stoppingAt"] <= new["createdAt"]
    ecs.update_service(cluster=cluster, service="rendezvous", desiredCount=2)
    until(
        lambda: ecs.describe_services(cluster=cluster, services=["rendezvous"])["services"][0]["runningCount"],
        lambda count: count == 2,
    )
    with pytest.raises(ClientError, match="scaled above 0"):
        ecs.delete_service(cluster=cluster, service="rendezvous")
    ecs.delete_service(cluster=cluster, service="rendezvous", force=True)
    until(
        lambda: ecs.describe_services(cluster=cluster, services=["rendezvous"])["services"][0]["status"],
        lambda status: status == "INACTIVE",
    )


def test_a_circuit_breaker_fails_a_stack(
    ecs: Any, cluster: str, network: dict[str, Any], client: Callable[[str], Any]
) -> None:
    stacks = StackTools(client("cloudformation"))
    subnets = network["awsvpcConfiguration"]["subnets"]

    def template(image: str) -> dict[str, Any]:
        container = {"Name": "server", "Image": image, "Essential": True}
        return {
            "Resources": {
                "Definition": {
                    "Type": "AWS::ECS::TaskDefinition",
                    "Properties": {
                        "RequiresCompatibilities": ["FARGATE"],
                        "NetworkMode": "awsvpc",
                        "Cpu": "256",
                        "Memory": "512",
                        "ContainerDefinitions": [container],
                    },
                },
                "Service": {
                    "Type": "AWS::ECS::Service",
                    "Properties": {
                        "Cluster": cluster,
                        "TaskDefinition": {"Ref": "Definition"},
                        "DesiredCount": 1,
                        "LaunchType": "FARGATE",
                        "DeploymentConfiguration": {"DeploymentCircuitBreaker": {"Enable": True, "Rollback": True}},
                        "NetworkConfiguration": {"AwsvpcConfiguration": {"Subnets": subnets}},
                    },
                },
            },
            "Outputs": {"Name": {"Value": {"Fn::GetAtt": ["Service", "Name"]}}},
        }

    stack = stacks.create(template("example/fmi-rendezvous"))
    assert stack["StackStatus"] == "CREATE_COMPLETE", stacks.reasons(stack["StackId"])
    name = stack["Values"]["Name"]
    assert ecs.describe_services(cluster=cluster, services=[name])["services"][0]["runningCount"] == 1
    stack = stacks.update(stack["StackId"], template("nginx"))
    assert stack["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert "nginx cannot run here" in stacks.reasons(stack["StackId"])
    until(
        lambda: ecs.describe_services(cluster=cluster, services=[name])["services"][0]["runningCount"],
        lambda count: count == 1,
    )
    assert stacks.delete(stack["StackId"])["StackStatus"] == "DELETE_COMPLETE"


def test_states_are_events(ecs: Any, cluster: str, network: dict[str, Any], client: Callable[[str], Any]) -> None:
    events, sqs = client("events"), client("sqs")
    url = sqs.create_queue(QueueName=cluster)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    cluster_arn = ecs.describe_clusters(clusters=[cluster])["clusters"][0]["clusterArn"]
    pattern = {
        "source": ["aws.ecs"],
        "detail-type": ["ECS Task State Change"],
        "detail": {"clusterArn": [cluster_arn], "lastStatus": ["RUNNING", "STOPPED"]},
    }
    events.put_rule(Name=cluster, EventPattern=json.dumps(pattern))
    events.put_targets(Rule=cluster, Targets=[{"Id": "q", "Arn": arn}])
    started = ecs.run_task(
        cluster=cluster, taskDefinition=register(ecs), launchType="FARGATE", networkConfiguration=network
    )
    task = started["tasks"][0]["taskArn"]
    task_at(ecs, cluster, task, "RUNNING")
    ecs.stop_task(cluster=cluster, task=task)
    seen: list[Any] = []

    def received() -> list[Any]:
        found = sqs.receive_message(QueueUrl=url, WaitTimeSeconds=1, MaxNumberOfMessages=10)
        seen.extend(json.loads(message["Body"]) for message in found.get("Messages", []))
        return seen

    until(received, lambda _: {"RUNNING", "STOPPED"} == {event["detail"]["lastStatus"] for event in seen})
    running = next(event for event in seen if event["detail"]["lastStatus"] == "RUNNING")
    assert running["resources"] == [task]
    assert running["detail"]["attachments"][0]["details"][3]["value"].startswith("127.")
    assert running["time"].endswith("Z")
