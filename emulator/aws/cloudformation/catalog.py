"""Which types resources can have, and who serves each."""

import asyncio
from collections.abc import Mapping
from typing import Any

from emulator.aws.cloudformation.resource import ResourceType
from emulator.aws.cloudformation.types import iam, lambda_, logs, s3, stepfunctions
from emulator.aws.cloudformation.types.moto import MotoResource, moto_class
from emulator.aws.sdk_client import AwsClient

_API_TYPES: Mapping[str, type[Any]] = {
    **iam.TYPES,
    **lambda_.TYPES,
    **logs.TYPES,
    **s3.TYPES,
    **stepfunctions.TYPES,
}


class Catalog:
    """All types: those that calls of the services serve, those of moto's classes, stacks and custom resources.

    Parameters
    ----------
    aws
        Makes the calls.
    """

    def __init__(self, aws: AwsClient) -> None:
        self._aws = aws
        self._types: dict[str, ResourceType] = {}

    async def find(self, name: str) -> ResourceType | None:
        """Return a type by name; None if nobody serves it."""
        if name not in self._types:
            if name in _API_TYPES:
                self._types[name] = _API_TYPES[name](self._aws)
            elif (model := await asyncio.to_thread(moto_class, name)) is not None:
                self._types[name] = MotoResource(model)
        return self._types.get(name)
