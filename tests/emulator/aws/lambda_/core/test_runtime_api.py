"""The runtime API of a sandbox: who may use it."""

import asyncio
import json
from collections.abc import Callable
from http.client import HTTPConnection
from typing import Any

from emulator.aws.lambda_.core.runtime_api import Invocation, RuntimeApi

API = "/2018-06-01/runtime"


def test_requests_without_the_secret_path_are_refused() -> None:
    def status(address: str, path: str, method: str = "POST") -> int:
        connection = HTTPConnection(address, timeout=10)
        connection.request(method, path, "{}")
        try:
            return connection.getresponse().status
        finally:
            connection.close()

    async def statuses() -> tuple[list[int], int]:
        runtime = RuntimeApi()
        address, _, secret = (await runtime.start("127.0.0.1", secret_path=True)).partition("/")
        assert len(secret) >= 32
        refused = [
            await asyncio.to_thread(status, address, f"{path}{API}/{operation}", method)
            for path in ("", "/guess", f"/{secret[:-1]}", f"/{secret}/x")
            for method, operation in (("GET", "invocation/next"), ("POST", "init/error"))
        ]
        assert not runtime.ready.done()
        response = runtime.send(Invocation("id", b"{}", "arn"), 0)
        refused.append(await asyncio.to_thread(status, address, f"{API}/invocation/id/response"))
        assert not response.done()
        accepted = await asyncio.to_thread(status, address, f"/{secret}{API}/invocation/id/response")
        await runtime.close()
        return refused, accepted

    refused, accepted = asyncio.run(statuses())
    assert set(refused) == {403}
    assert accepted == 202


def test_functions_of_other_clients_have_an_address_without_a_path(deploy: Callable[..., str], functions: Any) -> None:
    source = """
        import os
        def handler(event, context):
            return os.environ["AWS_LAMBDA_RUNTIME_API"]
    """
    answer = functions.invoke(FunctionName=deploy(source))
    address, _, path = json.loads(answer["Payload"].read()).partition("/")
    assert address.startswith("127.0.0.1:")
    assert len(path) >= 32
