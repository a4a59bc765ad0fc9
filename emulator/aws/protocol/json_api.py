"""A service whose protocol is AWS JSON: its operations by the names in its model, over HTTP.

The protocol: https://smithy.io/2.0/aws/protocols/aws-json-1_1-protocol.html
"""

import asyncio
import inspect
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from aiohttp import web
from botocore.model import OperationModel, StructureShape

from emulator.aws.account import Account
from emulator.aws.disk_reserve import DiskFullError
from emulator.aws.json_requests import json_object, read_body
from emulator.aws.protocol.answers import json_answer, json_error, not_implemented
from emulator.aws.protocol.constraints import NO_OVERRIDES, VALIDATION, Overrides, check
from emulator.aws.protocol.credential_scope import credential_scope
from emulator.aws.protocol.requests import read_value
from emulator.aws.protocol.service_models import service_model
from emulator.errors import ApiError

Parameters = Mapping[str, Any]
Operation = Callable[[Parameters, Account], Any]
# Larger requests are read and checked in a thread: thousands of members would hold the event loop for too long.
_LARGE_BYTES = 32 * 1024


class JsonApi:
    """Reads and checks requests and writes answers by a service's model.

    Parameters
    ----------
    service
        botocore's name of the service.
    operations
        What performs an operation, by its name in the model: it gets the members of the request and the caller's
        account, and returns the members of the answer, or an awaitable of them, or None for no members.
    account_number
        The number of the account.
    request_bytes
        The largest body of a request.
    invalid
        The service's code for a request that violates the model.
    disk_full
        The service's code for its own failures.
    overrides
        Constraints where AWS answers otherwise than its model says.
    """

    def __init__(
        self,
        service: str,
        operations: Mapping[str, Operation],
        account_number: str,
        *,
        request_bytes: int,
        invalid: str = VALIDATION,
        disk_full: str,
        overrides: Overrides = NO_OVERRIDES,
    ) -> None:
        self._model = service_model(service)
        self._operations = operations
        self._account_number = account_number
        self._request_bytes = request_bytes
        self._invalid = invalid
        self._disk_full = disk_full
        self._overrides = overrides
        self._target = f"{self._model.metadata['targetPrefix']}."

    def serves(self, target: str) -> bool:
        """Return whether a request with this X-Amz-Target is for the service."""
        return target.startswith(self._target)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Respond to a request."""
        name = request.headers["X-Amz-Target"].removeprefix(self._target)
        try:
            model = self._operation_model(name)
            return json_answer(model, await self._perform(model, request))
        except DiskFullError as error:
            return json_error(self._model, error.named(self._disk_full))
        except ApiError as error:
            return json_error(self._model, error)

    def _operation_model(self, name: str) -> OperationModel:
        if name not in self._model.operation_names:
            message = f"{self._model.metadata['serviceFullName']} has no operation {name!r:.80}"
            raise ApiError("UnknownOperationException", HTTPStatus.BAD_REQUEST, message)
        return self._model.operation_model(name)

    async def _perform(self, model: OperationModel, request: web.BaseRequest) -> Mapping[str, Any]:
        body = await read_body(request, self._request_bytes)
        if len(body) > self._request_bytes:
            raise ApiError(
                self._invalid, HTTPStatus.BAD_REQUEST, f"expected a request of at most {self._request_bytes} bytes"
            )
        operation = self._operations.get(model.name)
        if operation is None:
            raise not_implemented(model.name)
        if len(body) > _LARGE_BYTES:
            parameters = await asyncio.to_thread(self._read, model, body)
        else:
            parameters = self._read(model, body)
        result = operation(parameters, Account(credential_scope(request).region, self._account_number))
        if inspect.isawaitable(result):
            result = await result
        return result or {}

    def _read(self, model: OperationModel, body: bytes) -> Parameters:
        """Return the members of a request.

        Raises
        ------
        ApiError
            SerializationException, or the service's code for a request that violates the model.
        """
        values, shape = json_object(body), model.input_shape
        if not isinstance(shape, StructureShape):
            return {}
        parameters: Parameters = read_value(shape, values)
        check(shape, parameters, self._overrides, self._invalid)
        return parameters
