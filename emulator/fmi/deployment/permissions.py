"""The IAM policies that deploying and running need: each action by name, none by a wildcard.

CloudFormation makes resources with the deployer's permissions. The actions of each type of resource are those of the
handlers in its resource type schema (https://docs.aws.amazon.com/cloudformation-cli/latest/userguide/resource-type-schema.html).
"""

from collections.abc import Iterable, Mapping
from typing import Any

# What CloudFormation calls for each type of resource of the template.
RESOURCE_ACTIONS: Mapping[str, tuple[str, ...]] = {
    "AWS::S3::Bucket": (
        "s3:CreateBucket",
        "s3:GetBucketOwnershipControls",
        "s3:GetBucketPublicAccessBlock",
        "s3:GetBucketTagging",
        "s3:GetEncryptionConfiguration",
        "s3:GetLifecycleConfiguration",
        "s3:ListBucket",
        "s3:PutBucketOwnershipControls",
        "s3:PutBucketPublicAccessBlock",
        "s3:PutBucketTagging",
        "s3:PutEncryptionConfiguration",
        "s3:PutLifecycleConfiguration",
    ),
    "AWS::S3::BucketPolicy": ("s3:DeleteBucketPolicy", "s3:GetBucketPolicy", "s3:PutBucketPolicy"),
    "AWS::SecretsManager::Secret": (
        "secretsmanager:CreateSecret",
        "secretsmanager:DeleteSecret",
        "secretsmanager:DescribeSecret",
        "secretsmanager:TagResource",
        "secretsmanager:UntagResource",
        "secretsmanager:UpdateSecret",
    ),
    "AWS::Logs::LogGroup": (
        "logs:CreateLogGroup",
        "logs:DeleteLogGroup",
        "logs:DeleteRetentionPolicy",
        "logs:DescribeLogGroups",
        "logs:ListTagsForResource",
        "logs:PutRetentionPolicy",
        "logs:TagResource",
        "logs:UntagResource",
    ),
    "AWS::IAM::Role": (
        "iam:CreateRole",
        "iam:DeleteRole",
        "iam:DeleteRolePolicy",
        "iam:GetRole",
        "iam:GetRolePolicy",
        "iam:ListAttachedRolePolicies",
        "iam:ListRolePolicies",
        "iam:PassRole",
        "iam:PutRolePolicy",
        "iam:TagRole",
        "iam:UntagRole",
        "iam:UpdateAssumeRolePolicy",
        "iam:UpdateRole",
    ),
    "AWS::Lambda::Function": (
        "lambda:CreateFunction",
        "lambda:DeleteFunction",
        "lambda:GetFunction",
        "lambda:GetFunctionCodeSigningConfig",
        "lambda:GetRuntimeManagementConfig",
        "lambda:ListTags",
        "lambda:TagResource",
        "lambda:UntagResource",
        "lambda:UpdateFunctionCode",
        "lambda:UpdateFunctionConfiguration",
        "s3:GetObject",
    ),
    "AWS::Lambda::Permission": ("lambda:AddPermission", "lambda:GetPolicy", "lambda:RemovePermission"),
    "AWS::StepFunctions::StateMachine": (
        "states:CreateStateMachine",
        "states:DeleteStateMachine",
        "states:DescribeStateMachine",
        "states:ListTagsForResource",
        "states:TagResource",
        "states:UntagResource",
        "states:UpdateStateMachine",
    ),
    "AWS::ECS::Cluster": (
        "ecs:CreateCluster",
        "ecs:DeleteCluster",
        "ecs:DescribeClusters",
        "ecs:TagResource",
        "ecs:UntagResource",
        "iam:CreateServiceLinkedRole",
    ),
    "AWS::ECS::TaskDefinition": (
        "ecs:DeregisterTaskDefinition",
        "ecs:DescribeTaskDefinition",
        "ecs:RegisterTaskDefinition",
        "ecs:TagResource",
        "ecs:UntagResource",
        "iam:PassRole",
    ),
    "AWS::ECS::Service": (
        "ecs:CreateService",
        "ecs:DeleteService",
        "ecs:DescribeServices",
        "ecs:TagResource",
        "ecs:UntagResource",
        "ecs:UpdateService",
    ),
    "AWS::EC2::SecurityGroup": (
        "ec2:AuthorizeSecurityGroupEgress",
        "ec2:AuthorizeSecurityGroupIngress",
        "ec2:CreateSecurityGroup",
        "ec2:CreateTags",
        "ec2:DeleteSecurityGroup",
        "ec2:DeleteTags",
        "ec2:DescribeSecurityGroups",
        "ec2:RevokeSecurityGroupEgress",
        "ec2:RevokeSecurityGroupIngress",
    ),
    "AWS::Events::Rule": (
        "events:DeleteRule",
        "events:DescribeRule",
        "events:ListTargetsByRule",
        "events:PutRule",
        "events:PutTargets",
        "events:RemoveTargets",
    ),
}
# What `fmi-emulator deploy`, `status` and `destroy` call themselves.
DEPLOYMENT_ACTIONS = (
    "cloudformation:CreateChangeSet",
    "cloudformation:DeleteChangeSet",
    "cloudformation:DeleteStack",
    "cloudformation:DescribeChangeSet",
    "cloudformation:DescribeStackEvents",
    "cloudformation:DescribeStacks",
    "cloudformation:ExecuteChangeSet",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSubnets",
    "ecs:DescribeTasks",
    "ecs:ListTasks",
    "lambda:GetFunctionConfiguration",
    "route53:ChangeResourceRecordSets",
    "route53:ListResourceRecordSets",
    "s3:DeleteBucket",
    "s3:DeleteObject",
    "s3:GetObject",
    "s3:ListBucket",
    "s3:PutObject",
    "secretsmanager:DescribeSecret",
    "secretsmanager:PutSecretValue",
    "states:ListExecutions",
    "sts:GetCallerIdentity",
)
# What fmirun, pipeline, runs, attach, logs and cancel call.
RUN_ACTIONS = (
    "cloudformation:DescribeStacks",
    "ec2:DescribeNetworkInterfaces",
    "ecs:DescribeTasks",
    "ecs:ListTasks",
    "lambda:GetAccountSettings",
    "lambda:GetFunctionConcurrency",
    "lambda:GetFunctionConfiguration",
    "logs:FilterLogEvents",
    "s3:GetObject",
    "s3:ListBucket",
    "s3:PutObject",
    "servicequotas:GetServiceQuota",
    "states:DescribeExecution",
    "states:ListExecutions",
    "states:StartExecution",
    "states:StopExecution",
    "sts:GetCallerIdentity",
)
# Actions whose resources have names that are not known beforehand, or that take no resource at all.
_ANY_RESOURCE = frozenset(["ec2", "servicequotas", "sts"])
_ANY_RESOURCE_ACTIONS = frozenset(
    [
        "ecs:DeregisterTaskDefinition",
        "ecs:DescribeTaskDefinition",
        "ecs:ListTasks",
        "lambda:GetAccountSettings",
        "logs:DescribeLogGroups",
    ]
)


def deployer_policy(stack: str) -> dict[str, Any]:
    """Return the policy of those who deploy, inspect and destroy a stack of this name."""
    of_resources = {action for actions in RESOURCE_ACTIONS.values() for action in actions}
    return _policy(stack, of_resources | set(DEPLOYMENT_ACTIONS))


def user_policy(stack: str) -> dict[str, Any]:
    """Return the policy of those who run programs on a stack of this name."""
    return _policy(stack, RUN_ACTIONS)


def _policy(stack: str, actions: Iterable[str]) -> dict[str, Any]:
    statements: dict[tuple[str, ...], list[str]] = {}
    for action in sorted(set(actions)):
        statements.setdefault(_resources(stack, action), []).append(action)
    return {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": allowed, "Resource": list(resources)}
            for resources, allowed in sorted(statements.items())
        ],
    }


def _resources(stack: str, action: str) -> tuple[str, ...]:
    """Return the ARNs of the stack's resources that an action applies to."""
    service = action.partition(":")[0]
    if service in _ANY_RESOURCE or action in _ANY_RESOURCE_ACTIONS:
        return ("*",)
    if action == "iam:CreateServiceLinkedRole":
        return ("arn:aws:iam::*:role/aws-service-role/ecs.amazonaws.com/AWSServiceRoleForECS",)
    if service == "s3":
        bucket = f"arn:aws:s3:::{stack.lower()}-bucket-*"
        return (f"{bucket}/*",) if "Object" in action else (bucket,)
    of_service = {
        "cloudformation": (f"stack/{stack}/*", "changeSet/fmi-*"),
        "ecs": (f"cluster/{stack}", f"service/{stack}/*", f"task/{stack}/*", f"task-definition/{stack}-rendezvous:*"),
        "events": (f"rule/{stack}-*",),
        "lambda": (f"function:{stack}-*",),
        "logs": (f"log-group:/aws/lambda/{stack}-*", f"log-group:/fmi-emulator/{stack}-*"),
        "secretsmanager": ("secret:Rendezvous*",),
        "states": (f"stateMachine:{stack}", f"execution:{stack}:*", f"mapRun:{stack}/*"),
    }
    if service == "iam":
        return (f"arn:aws:iam::*:role/{stack}-*",)
    if service == "route53":
        return ("arn:aws:route53:::hostedzone/*",)
    return tuple(f"arn:aws:{service}:*:*:{name}" for name in of_service[service])
