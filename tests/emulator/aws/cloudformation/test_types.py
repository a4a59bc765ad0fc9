"""Every type that calls of an API serve: created, found by its own service, and deleted."""

from collections.abc import Callable
from typing import Any

import pytest

from emulator.aws.cloudformation import catalog
from tests.emulator.aws.cloudformation.conftest import StackTools

pytestmark = pytest.mark.timeout(120)


def resource(kind: str, **properties: Any) -> dict[str, Any]:
    return {"Type": f"AWS::{kind}", "Properties": properties}


def ref(name: str) -> dict[str, str]:
    return {"Ref": name}


def att(name: str, attribute: str) -> dict[str, list[str]]:
    return {"Fn::GetAtt": [name, attribute]}


def deployed(stacks: StackTools, resources: dict[str, Any]) -> tuple[str, dict[str, str]]:
    stack = stacks.create({"Resources": resources})
    assert stack["StackStatus"] == "CREATE_COMPLETE", stacks.reasons(stack["StackId"])
    return stack["StackId"], stacks.physical_ids(stack["StackId"])


def deleted(stacks: StackTools, stack_id: str) -> None:
    assert stacks.delete(stack_id)["StackStatus"] == "DELETE_COMPLETE", stacks.reasons(stack_id)


def test_networks_and_load_balancers(stacks: StackTools, client: Callable[[str], Any]) -> None:
    subnet = {"VpcId": ref("Vpc"), "MapPublicIpOnLaunch": True}
    rule = {"IpProtocol": "tcp", "FromPort": 10000, "ToPort": 10001, "CidrIp": "0.0.0.0/0"}
    resources = {
        "Vpc": resource("EC2::VPC", CidrBlock="10.0.0.0/16", EnableDnsHostnames=True, EnableDnsSupport="true"),
        "Gateway": resource("EC2::InternetGateway", Tags=[{"Key": "a", "Value": "b"}]),
        "Attachment": resource("EC2::VPCGatewayAttachment", VpcId=ref("Vpc"), InternetGatewayId=ref("Gateway")),
        "One": resource("EC2::Subnet", CidrBlock="10.0.0.0/24", AvailabilityZone="us-east-1a", **subnet),
        "Two": resource("EC2::Subnet", CidrBlock="10.0.1.0/24", AvailabilityZone="us-east-1b", **subnet),
        "Table": resource("EC2::RouteTable", VpcId=ref("Vpc")),
        "Route": {
            **resource(
                "EC2::Route",
                RouteTableId=ref("Table"),
                DestinationCidrBlock="0.0.0.0/0",
                GatewayId=ref("Gateway"),
            ),
            "DependsOn": "Attachment",
        },
        "Association": resource("EC2::SubnetRouteTableAssociation", SubnetId=ref("One"), RouteTableId=ref("Table")),
        "Address": resource("EC2::EIP", Domain="vpc"),
        "Group": resource(
            "EC2::SecurityGroup", GroupDescription="ports", VpcId=ref("Vpc"), SecurityGroupIngress=[rule]
        ),
        "Ingress": resource(
            "EC2::SecurityGroupIngress",
            GroupId=ref("Group"),
            IpProtocol="udp",
            FromPort=53,
            ToPort=53,
            CidrIp="10.0.0.0/8",
        ),
        "Egress": resource(
            "EC2::SecurityGroupEgress",
            GroupId=ref("Group"),
            IpProtocol="tcp",
            FromPort=1,
            ToPort=2,
            CidrIp="10.0.0.0/8",
        ),
        "Balancer": resource("ElasticLoadBalancingV2::LoadBalancer", Type="network", Subnets=[ref("One"), ref("Two")]),
        "Targets": resource(
            "ElasticLoadBalancingV2::TargetGroup", Port=80, Protocol="TCP", VpcId=ref("Vpc"), TargetType="ip"
        ),
        "Listener": resource(
            "ElasticLoadBalancingV2::Listener",
            LoadBalancerArn=ref("Balancer"),
            Port=80,
            Protocol="TCP",
            DefaultActions=[{"Type": "forward", "TargetGroupArn": ref("Targets")}],
        ),
    }
    stack_id, ids = deployed(stacks, resources)
    ec2, elbv2 = client("ec2"), client("elbv2")
    group = ec2.describe_security_groups(GroupIds=[ids["Group"]])["SecurityGroups"][0]
    assert sorted(item["FromPort"] for item in group["IpPermissions"]) == [53, 10000]
    table = ec2.describe_route_tables(RouteTableIds=[ids["Table"]])["RouteTables"][0]
    assert ids["Gateway"] in [item.get("GatewayId") for item in table["Routes"]]
    assert ec2.describe_subnets(SubnetIds=[ids["One"]])["Subnets"][0]["MapPublicIpOnLaunch"]
    assert elbv2.describe_listeners(ListenerArns=[ids["Listener"]])["Listeners"][0]["Port"] == 80
    changed = {
        **resources,
        "Group": resource(
            "EC2::SecurityGroup",
            GroupDescription="ports",
            VpcId=ref("Vpc"),
            SecurityGroupIngress=[{**rule, "ToPort": 10005}],
        ),
    }
    assert stacks.update(stack_id, {"Resources": changed})["StackStatus"] == "UPDATE_COMPLETE"
    group = ec2.describe_security_groups(GroupIds=[ids["Group"]])["SecurityGroups"][0]
    assert 10005 in [item["ToPort"] for item in group["IpPermissions"]]
    deleted(stacks, stack_id)
    assert ids["Vpc"] not in [vpc["VpcId"] for vpc in ec2.describe_vpcs()["Vpcs"]]


def test_data_keys_names_and_alarms(stacks: StackTools, client: Callable[[str], Any]) -> None:
    name = stacks.name()
    resources = {
        "Table": resource(
            "DynamoDB::Table",
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            BillingMode="PAY_PER_REQUEST",
            TimeToLiveSpecification={"AttributeName": "until", "Enabled": True},
        ),
        "Key": resource("KMS::Key", Description="d", EnableKeyRotation=True),
        "Alias": resource("KMS::Alias", AliasName=f"alias/{name}", TargetKeyId=ref("Key")),
        "Repository": resource("ECR::Repository", ImageTagMutability="IMMUTABLE", EmptyOnDelete=True),
        "Zone": resource("Route53::HostedZone", Name=f"{name}.example"),
        "Record": resource(
            "Route53::RecordSet",
            HostedZoneId=ref("Zone"),
            Name=f"server.{name}.example",
            Type="A",
            TTL="30",
            ResourceRecords=["127.0.1.1"],
        ),
        "Alarm": resource(
            "CloudWatch::Alarm",
            MetricName="Errors",
            Namespace="AWS/Lambda",
            Statistic="Sum",
            Period=60,
            EvaluationPeriods=1,
            Threshold=1,
            ComparisonOperator="GreaterThanThreshold",
        ),
        "Secret": resource("SecretsManager::Secret", SecretString="s"),
        "Metadata": resource("CDK::Metadata", Analytics="x"),
    }
    stack_id, ids = deployed(stacks, resources)
    route53 = client("route53")
    assert client("dynamodb").describe_table(TableName=ids["Table"])["Table"]["TableStatus"] == "ACTIVE"
    assert client("kms").describe_key(KeyId=f"alias/{name}")["KeyMetadata"]["KeyId"] == ids["Key"]
    repositories = client("ecr").describe_repositories(repositoryNames=[ids["Repository"]])["repositories"]
    assert repositories[0]["imageTagMutability"] == "IMMUTABLE"
    records = route53.list_resource_record_sets(HostedZoneId=ids["Zone"])["ResourceRecordSets"]
    assert [item["Value"] for record in records if record["Type"] == "A" for item in record["ResourceRecords"]] == [
        "127.0.1.1"
    ]
    assert client("cloudwatch").describe_alarms(AlarmNames=[ids["Alarm"]])["MetricAlarms"]
    # A function keeps the record at another address; the stack deletes it all the same.
    changed = {
        "Action": "UPSERT",
        "ResourceRecordSet": {
            "Name": f"server.{name}.example",
            "Type": "A",
            "TTL": 5,
            "ResourceRecords": [{"Value": "127.0.1.9"}],
        },
    }
    route53.change_resource_record_sets(HostedZoneId=ids["Zone"], ChangeBatch={"Changes": [changed]})
    deleted(stacks, stack_id)
    assert name not in [zone["Name"].partition(".")[0] for zone in route53.list_hosted_zones()["HostedZones"]]


def test_messaging_events_and_people(stacks: StackTools, client: Callable[[str], Any]) -> None:
    allow = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "*", "Resource": "*"}],
    }
    own = {"Statement": [{"Effect": "Allow", "Action": "s3:ListBucket", "Resource": "*"}]}
    trust = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}],
    }
    resources = {
        "Dead": resource("SQS::Queue"),
        "Queue": resource(
            "SQS::Queue",
            FifoQueue=True,
            ContentBasedDeduplication=True,
            RedriveAllowPolicy={"redrivePermission": "allowAll"},
        ),
        "QueuePolicy": resource("SQS::QueuePolicy", Queues=[ref("Dead")], PolicyDocument=allow),
        "Topic": resource("SNS::Topic", DisplayName="d"),
        "TopicPolicy": resource("SNS::TopicPolicy", Topics=[ref("Topic")], PolicyDocument=allow),
        "Subscription": resource(
            "SNS::Subscription",
            TopicArn=ref("Topic"),
            Protocol="sqs",
            Endpoint=att("Dead", "Arn"),
            RawMessageDelivery=True,
            FilterPolicy={"a": ["b"]},
        ),
        "Bus": resource("Events::EventBus", Name=stacks.name()),
        "Rule": resource(
            "Events::Rule",
            EventBusName=ref("Bus"),
            EventPattern={"source": ["mine"]},
            Targets=[{"Id": "q", "Arn": att("Dead", "Arn")}],
        ),
        "Schedules": resource("Scheduler::ScheduleGroup"),
        "Schedule": resource(
            "Scheduler::Schedule",
            GroupName=ref("Schedules"),
            ScheduleExpression="rate(1 day)",
            FlexibleTimeWindow={"Mode": "OFF"},
            Target={"Arn": att("Dead", "Arn"), "RoleArn": att("Role", "Arn")},
        ),
        "Role": resource("IAM::Role", AssumeRolePolicyDocument=trust),
        "Profile": resource("IAM::InstanceProfile", Roles=[ref("Role")]),
        "User": resource("IAM::User"),
        "Group": resource("IAM::Group"),
        "AccessKey": resource("IAM::AccessKey", UserName=ref("User")),
        "Policy": resource(
            "IAM::Policy",
            PolicyName="p",
            PolicyDocument=own,
            Roles=[ref("Role")],
            Users=[ref("User")],
            Groups=[ref("Group")],
        ),
        "Managed": resource("IAM::ManagedPolicy", PolicyDocument=own, Roles=[ref("Role")]),
        "RolePolicy": resource("IAM::RolePolicy", PolicyName="r", PolicyDocument=own, RoleName=ref("Role")),
        "LogGroup": resource("Logs::LogGroup"),
        "Stream": resource("Logs::LogStream", LogGroupName=ref("LogGroup")),
        "Cluster": resource("ECS::Cluster"),
    }
    stack_id, ids = deployed(stacks, resources)
    iam, events, sns = client("iam"), client("events"), client("sns")
    assert sorted(iam.list_role_policies(RoleName=ids["Role"])["PolicyNames"]) == ["p", "r"]
    attached = iam.list_attached_role_policies(RoleName=ids["Role"])["AttachedPolicies"]
    assert [policy["PolicyArn"] for policy in attached] == [ids["Managed"]]
    assert ids["Queue"].endswith(".fifo")
    bus, _, rule = ids["Rule"].partition("|")
    assert len(events.list_targets_by_rule(Rule=rule, EventBusName=bus)["Targets"]) == 1
    attributes = sns.get_subscription_attributes(SubscriptionArn=ids["Subscription"])["Attributes"]
    assert attributes["RawMessageDelivery"] == "true"
    assert client("scheduler").get_schedule(Name=ids["Schedule"], GroupName=ids["Schedules"])["State"] == "ENABLED"
    changed = {**resources, "Managed": resource("IAM::ManagedPolicy", PolicyDocument=own, Users=[ref("User")])}
    assert stacks.update(stack_id, {"Resources": changed})["StackStatus"] == "UPDATE_COMPLETE"
    assert iam.list_attached_role_policies(RoleName=ids["Role"])["AttachedPolicies"] == []
    deleted(stacks, stack_id)
    assert client("sqs").list_queues(QueueNamePrefix=ids["Dead"].rpartition("/")[2]).get("QueueUrls", []) == []


def test_the_rest_of_lambda(stacks: StackTools, client: Callable[[str], Any], s3: Any, bucket: str) -> None:
    from tests.emulator.conftest import ROLE, archive

    s3.put_object(Bucket=bucket, Key="layer.zip", Body=archive(of_layer="VALUE = 7"))
    s3.put_object(Bucket=bucket, Key="code.zip", Body=archive(main="def handler(event, context): return 1"))
    function = {"Runtime": "python3.11", "Handler": "main.handler", "Role": ROLE}
    resources = {
        "Layer": resource("Lambda::LayerVersion", Content={"S3Bucket": bucket, "S3Key": "layer.zip"}),
        "Function": resource(
            "Lambda::Function",
            Code={"S3Bucket": bucket, "S3Key": "code.zip"},
            Layers=[ref("Layer")],
            ReservedConcurrentExecutions=3,
            EphemeralStorage={"Size": 1024},
            **function,
        ),
        "Url": resource("Lambda::Url", TargetFunctionArn=ref("Function"), AuthType="NONE"),
        "Config": resource(
            "Lambda::EventInvokeConfig", FunctionName=ref("Function"), Qualifier="$LATEST", MaximumRetryAttempts=1
        ),
        "Version": resource("Lambda::Version", FunctionName=ref("Function")),
        "Alias": resource(
            "Lambda::Alias", FunctionName=ref("Function"), FunctionVersion=att("Version", "Version"), Name="a"
        ),
    }
    stack_id, ids = deployed(stacks, resources)
    functions = client("lambda")
    found = functions.get_function(FunctionName=ids["Function"])
    assert found["Configuration"]["Layers"][0]["Arn"] == ids["Layer"]
    assert found["Concurrency"] == {"ReservedConcurrentExecutions": 3}
    assert functions.get_function_url_config(FunctionName=ids["Function"])["AuthType"] == "NONE"
    config = functions.get_function_event_invoke_config(FunctionName=ids["Function"])
    assert config["MaximumRetryAttempts"] == 1
    deleted(stacks, stack_id)
    assert functions.list_layers()["Layers"] == []


def test_the_page_lists_all_types() -> None:
    import importlib
    from pathlib import Path

    page = (Path(__file__).parents[4] / "docs/cloudformation.md").read_text()
    for module in set(catalog.MODULES.values()):
        for name in importlib.import_module(f"emulator.aws.cloudformation.types.{module}").TYPES:
            service, kind = name.split("::")[1:]
            assert service in page, name
            assert kind in page, name
