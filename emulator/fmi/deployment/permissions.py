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
    "AWS::ECR::Repository": (
        "ecr:CreateRepository",
        "ecr:DeleteRepository",
        "ecr:DescribeRepositories",
        "ecr:GetLifecyclePolicy",
        "ecr:GetRepositoryPolicy",
        "ecr:ListTagsForResource",
        "ecr:PutImageScanningConfiguration",
        "ecr:SetRepositoryPolicy",
        "ecr:TagResource",
    ),
    "AWS::ElasticLoadBalancingV2::LoadBalancer": (
        "elasticloadbalancing:AddTags",
        "elasticloadbalancing:CreateLoadBalancer",
        "elasticloadbalancing:DeleteLoadBalancer",
        "elasticloadbalancing:DescribeLoadBalancerAttributes",
        "elasticloadbalancing:DescribeLoadBalancers",
        "elasticloadbalancing:DescribeTags",
        "elasticloadbalancing:ModifyLoadBalancerAttributes",
        "elasticloadbalancing:SetSubnets",
        "iam:CreateServiceLinkedRole",
    ),
    "AWS::ElasticLoadBalancingV2::TargetGroup": (
        "elasticloadbalancing:AddTags",
        "elasticloadbalancing:CreateTargetGroup",
        "elasticloadbalancing:DeleteTargetGroup",
        "elasticloadbalancing:DescribeTags",
        "elasticloadbalancing:DescribeTargetGroupAttributes",
        "elasticloadbalancing:DescribeTargetGroups",
        "elasticloadbalancing:DescribeTargetHealth",
        "elasticloadbalancing:ModifyTargetGroup",
        "elasticloadbalancing:ModifyTargetGroupAttributes",
    ),
    "AWS::ElasticLoadBalancingV2::Listener": (
        "elasticloadbalancing:AddTags",
        "elasticloadbalancing:CreateListener",
        "elasticloadbalancing:DeleteListener",
        "elasticloadbalancing:DescribeListeners",
        "elasticloadbalancing:ModifyListener",
    ),
    "AWS::Route53::RecordSet": (
        "route53:ChangeResourceRecordSets",
        "route53:GetChange",
        "route53:GetHostedZone",
        "route53:ListResourceRecordSets",
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
# The types of --image and --nlb.
OPTIONAL_TYPES = frozenset(
    [
        "AWS::ECR::Repository",
        "AWS::ElasticLoadBalancingV2::Listener",
        "AWS::ElasticLoadBalancingV2::LoadBalancer",
        "AWS::ElasticLoadBalancingV2::TargetGroup",
    ]
)
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
    "elasticloadbalancing:DescribeLoadBalancers",
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
# What `deploy --image` calls, itself or through the container daemon that pushes: https://docs.aws.amazon.com/AmazonECR/latest/userguide/image-push-iam.html
PUSH_ACTIONS = (
    "ecr:BatchCheckLayerAvailability",
    "ecr:BatchGetImage",
    "ecr:CompleteLayerUpload",
    "ecr:GetAuthorizationToken",
    "ecr:InitiateLayerUpload",
    "ecr:PutImage",
    "ecr:UploadLayerPart",
)
# What Lambda asks of those who create a function from an image of --image-uri, besides what a push needs.
IMAGE_ACTIONS = ("ecr:GetDownloadUrlForLayer",)
# What fmirun, pipeline, runs, attach, logs and cancel call.
RUN_ACTIONS = (
    "cloudformation:DescribeStacks",
    "ec2:DescribeNetworkInterfaces",
    "ecs:DescribeTasks",
    "ecs:ListTasks",
    "elasticloadbalancing:DescribeLoadBalancers",
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
        "ecr:GetAuthorizationToken",
        "ecs:DeregisterTaskDefinition",
        "ecs:DescribeTaskDefinition",
        "ecs:ListTasks",
        "elasticloadbalancing:DescribeListeners",
        "elasticloadbalancing:DescribeLoadBalancerAttributes",
        "elasticloadbalancing:DescribeLoadBalancers",
        "elasticloadbalancing:DescribeTags",
        "elasticloadbalancing:DescribeTargetGroupAttributes",
        "elasticloadbalancing:DescribeTargetGroups",
        "elasticloadbalancing:DescribeTargetHealth",
        "lambda:GetAccountSettings",
        "logs:DescribeLogGroups",
    ]
)


def deployer_policy(stack: str) -> dict[str, Any]:
    """Return the policy of those who deploy, inspect and destroy a stack of this name."""
    return _policy(stack, {*_actions_of(RESOURCE_ACTIONS.keys() - OPTIONAL_TYPES), *DEPLOYMENT_ACTIONS})


def options_policy(stack: str) -> dict[str, Any]:
    """Return what deploying with an image or a load balancer needs besides; both together would be too long for IAM."""
    return _policy(stack, {*_actions_of(OPTIONAL_TYPES), *PUSH_ACTIONS, *IMAGE_ACTIONS})


def user_policy(stack: str) -> dict[str, Any]:
    """Return the policy of those who run programs on a stack of this name."""
    return _policy(stack, RUN_ACTIONS)


def _actions_of(types: Iterable[str]) -> set[str]:
    return {action for name in types for action in RESOURCE_ACTIONS[name]}


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
        roles = "arn:aws:iam::*:role/aws-service-role"
        return (
            f"{roles}/ecs.amazonaws.com/AWSServiceRoleForECS",
            f"{roles}/elasticloadbalancing.amazonaws.com/AWSServiceRoleForElasticLoadBalancing",
        )
    if action in ("ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"):
        # Also of an image that --image-uri names.
        return ("arn:aws:ecr:*:*:repository/*",)
    if service == "s3":
        bucket = f"arn:aws:s3:::{stack.lower()}-bucket-*"
        return (f"{bucket}/*",) if "Object" in action else (bucket,)
    of_service = {
        "cloudformation": (f"stack/{stack}/*", "changeSet/fmi-*"),
        "ecr": (f"repository/{stack.lower()}-*",),
        "elasticloadbalancing": ("loadbalancer/net/*", "listener/net/*", "targetgroup/*"),
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
        return ("arn:aws:route53:::change/*",) if action.endswith("GetChange") else ("arn:aws:route53:::hostedzone/*",)
    return tuple(f"arn:aws:{service}:*:*:{name}" for name in of_service[service])
