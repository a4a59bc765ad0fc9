"""Which types resources can have, and who serves each."""

import asyncio
from collections.abc import Mapping

from emulator.aws.cloudformation.resource import ResourceType
from emulator.aws.cloudformation.stacks import STACK_TYPE
from emulator.aws.cloudformation.types import (
    cloudwatch,
    dynamodb,
    ec2,
    ecr,
    ecs,
    elbv2,
    events,
    iam,
    kms,
    lambda_,
    logs,
    marker,
    route53,
    s3,
    secretsmanager,
    sns,
    sqs,
    ssm,
    stepfunctions,
)
from emulator.aws.cloudformation.types.api import ApiResource
from emulator.aws.cloudformation.types.custom import PREFIXES, CustomResource, ResponseUrls
from emulator.aws.cloudformation.types.moto import MotoResource, moto_class
from emulator.aws.sdk_client import AwsClient

API_TYPES: Mapping[str, type[ApiResource]] = {
    name: kind
    for module in (
        cloudwatch,
        dynamodb,
        ec2,
        ecr,
        ecs,
        elbv2,
        events,
        iam,
        kms,
        lambda_,
        logs,
        route53,
        s3,
        secretsmanager,
        sns,
        sqs,
        ssm,
        stepfunctions,
    )
    for name, kind in module.TYPES.items()
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
        self._types: dict[str, ResourceType] = {name: marker.Marker() for name in marker.NAMES}

    def serve_stacks(self, nested: ResourceType) -> None:
        """Set who serves stacks in stacks."""
        self._types[STACK_TYPE] = nested

    async def find(self, name: str) -> ResourceType | None:
        """Return a type by name; None if nobody serves it."""
        if name.startswith(PREFIXES):
            return self._custom
        if name not in self._types:
            if name in API_TYPES:
                self._types[name] = API_TYPES[name](self._aws)
            elif (model := await asyncio.to_thread(moto_class, name)) is not None:
                self._types[name] = MotoResource(model)
        return self._types.get(name)
