"""Calls of AWS services through boto3, at the emulator's own endpoint: so the services call each other."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import boto3
from botocore.config import Config
from botocore.model import ServiceModel

from emulator.aws.credentials import Credentials
from emulator.aws.limits import REGION

_Result = TypeVar("_Result")
# As many connections as boto3 keeps for each service.
_THREADS = 32
# Path style needs no name resolution of buckets. A caller has its own retries.
_CONFIG = Config(
    retries={"total_max_attempts": 1},
    s3={"addressing_style": "path"},
    inject_host_prefix=False,
    max_pool_connections=_THREADS,
    read_timeout=900,
)


class AwsClient:
    """Calls AWS services at an endpoint, each call in a thread of its own pool.

    Parameters
    ----------
    endpoint_url
        The endpoint of all services.
    credentials
        Signs the requests; None for any key.
    """

    def __init__(self, endpoint_url: str, credentials: Credentials | None = None) -> None:
        self._credentials = credentials or Credentials.random()
        self._endpoint_url = endpoint_url
        self._clients: dict[tuple[str, str], Any] = {}
        self._services: frozenset[str] = frozenset()
        self._lock = threading.Lock()
        # The loop's own pool has few threads, and a call can wait for a function.
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="sdk")

    async def call(
        self, service: str, operation: str, parameters: dict[str, Any], region: str = REGION
    ) -> dict[str, Any]:
        """Call an operation and return its response; a streamed body is read.

        Parameters
        ----------
        service, operation
            Names as in boto3, such as ``s3`` and ``GetObject``.
        parameters
            The operation's parameters.
        region
            The region to call it in.

        Raises
        ------
        botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError
            If the service returns an error, or the call cannot be sent.
        """
        response, _ = await self.call_with_metadata(service, operation, parameters, region)
        return response

    async def call_with_metadata(
        self, service: str, operation: str, parameters: dict[str, Any], region: str = REGION
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Call an operation as `call` does; return its response, and the headers, status and id of the response."""
        return await self._in_thread(self._call, service, operation, parameters, region)

    async def services(self) -> frozenset[str]:
        """Return the names of all services that boto3 has."""
        return await self._in_thread(self._available)

    async def model(self, service: str) -> ServiceModel:
        """Return the model of a service.

        Raises
        ------
        botocore.exceptions.UnknownServiceError
            If boto3 has no service of that name.
        """
        client = await self._in_thread(self._client, service, REGION)
        model: ServiceModel = client.meta.service_model
        return model

    def close(self) -> None:
        """Drop calls that have not begun; the threads end after their current calls."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _in_thread(self, function: Callable[..., _Result], *arguments: object) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

    def _available(self) -> frozenset[str]:
        with self._lock:
            self._services = self._services or frozenset(boto3.Session().get_available_services())
        return self._services

    def _client(self, service: str, region: str) -> Any:
        """Return a service's client, created at the first call."""
        # Creating clients is not thread-safe, using them is.
        with self._lock:
            if (service, region) not in self._clients:
                make: Any = boto3.Session
                session = make(region_name=region, **self._credentials.for_boto3())
                self._clients[service, region] = session.client(
                    service, endpoint_url=self._endpoint_url, config=_CONFIG
                )
            return self._clients[service, region]

    def _call(
        self, service: str, operation: str, parameters: dict[str, Any], region: str
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        client = self._client(service, region)
        response: dict[str, Any] = client._make_api_call(operation, parameters)  # noqa: SLF001 - by the operation's name in the API
        metadata: dict[str, Any] = response.pop("ResponseMetadata", {})
        return {name: value.read() if hasattr(value, "read") else value for name, value in response.items()}, metadata
