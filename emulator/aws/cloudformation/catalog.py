"""Which types resources can have, and who serves each."""

import asyncio
import importlib
from collections.abc import Mapping

from emulator.aws.cloudformation.resource import ResourceType
from emulator.aws.cloudformation.stacks import STACK_TYPE
from emulator.aws.cloudformation.types.custom import PREFIXES, CustomResource, ResponseUrls
from emulator.aws.sdk_client import AwsClient

# The modules whose types call a service's API, by the service in the types' names. Each is imported when a stack needs
# it: the endpoint starts faster.
MODULES: Mapping[str, str] = {
    "CDK": "marker",
    "CloudWatch": "cloudwatch",
    "DynamoDB": "dynamodb",
    "EC2": "ec2",
    "ECR": "ecr",
    "ECS": "ecs",
    "ElasticLoadBalancingV2": "elbv2",
    "Events": "events",
    "IAM": "iam",
    "KMS": "kms",
    "Lambda": "lambda_",
    "Logs": "logs",
    "Route53": "route53",
    "S3": "s3",
    "SNS": "sns",
    "SQS": "sqs",
    "SSM": "ssm",
    "Scheduler": "events",
    "SecretsManager": "secretsmanager",
    "StepFunctions": "stepfunctions",
}


class Catalog:
    """All types: those that calls of the services serve, custom resources, nested stacks, and moto's classes.

    Parameters
    ----------
    aws
        Makes the calls.
    urls
        Where custom resources report to.
    """

    def __init__(self, aws: AwsClient, urls: ResponseUrls) -> None:
        self._aws = aws
        self._custom = CustomResource(aws, urls)
        self._types: dict[str, ResourceType] = {}

    def serve_stacks(self, nested: ResourceType) -> None:
        """Set who serves stacks in stacks."""
        self._types[STACK_TYPE] = nested

    async def find(self, name: str) -> ResourceType | None:
        """Return a type by name; None if nobody serves it."""
        if name.startswith(PREFIXES):
            return self._custom
        if name not in self._types:
            found = await asyncio.to_thread(self._load, name)
            if found is not None:
                self._types[name] = found
        return self._types.get(name)

    def _load(self, name: str) -> ResourceType | None:
        _, service, _ = [*name.split("::"), "", ""][:3]
        if service in MODULES:
            module = importlib.import_module(f"emulator.aws.cloudformation.types.{MODULES[service]}")
            if name in module.TYPES:
                own: ResourceType = module.TYPES[name](self._aws)
                return own
        from emulator.aws.cloudformation.types.moto import MotoResource, moto_class

        model = moto_class(name)
        return None if model is None else MotoResource(model)
