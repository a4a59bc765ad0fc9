"""Calls of other AWS services, by boto3 against our own endpoint, each in a thread."""

import asyncio
import threading
from typing import Any

import boto3
from botocore.config import Config
from botocore.model import ServiceModel

from emulator.aws.limits import REGION


class AwsCalls:
    """Calls AWS services at an endpoint.

    Parameters
    ----------
    endpoint_url
        Where they are.
    """

    def __init__(self, endpoint_url: str) -> None:
        self._endpoint_url = endpoint_url
        self._clients: dict[str, Any] = {}
        self._lock = threading.Lock()

    async def call(self, service: str, operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        """Call an operation and return its answer; a streamed body is read.

        Parameters
        ----------
        service, operation
            As boto3 names them, such as ``s3`` and ``GetObject``.
        parameters
            For the operation.

        Raises
        ------
        botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError
            When it is refused, or cannot be sent.
        """
        return await asyncio.to_thread(self._call, service, operation, parameters)

    async def model(self, service: str) -> ServiceModel:
        """Return what boto3 knows of a service.

        Raises
        ------
        botocore.exceptions.UnknownServiceError
            When there is none of that name.
        """
        client = await asyncio.to_thread(self._client, service)
        model: ServiceModel = client.meta.service_model
        return model

    def _client(self, service: str) -> Any:
        """Return a service's client, made once."""
        # Making clients is not thread-safe, using them is.
        with self._lock:
            if service not in self._clients:
                session: Any = boto3.Session(
                    region_name=REGION,
                    aws_access_key_id="local",
                    aws_secret_access_key="local",  # noqa: S106 - the local endpoint checks no credentials
                )
                self._clients[service] = session.client(service, endpoint_url=self._endpoint_url, config=_CONFIG)
            return self._clients[service]

    def _call(self, service: str, operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        client = self._client(service)
        answer: dict[str, Any] = client._make_api_call(operation, parameters)  # noqa: SLF001 - by the API's own name
        return {
            name: value.read() if hasattr(value, "read") else value
            for name, value in answer.items()
            if name != "ResponseMetadata"
        }


# The path style needs no name resolution for buckets; a Task has its own retries.
_CONFIG = Config(
    retries={"total_max_attempts": 1},
    s3={"addressing_style": "path"},
    inject_host_prefix=False,
    max_pool_connections=32,
    read_timeout=900,
)
