"""A local cloud for all tests of a module, and boto3 clients that use it."""

import io
import json
import textwrap
import uuid
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.config import Config

from emulator.aws.lambda_.core.interpreters import OWN_RUNTIME
from emulator.cloud import LocalCloud
from tests.emulator.signing import signed

ROLE = "arn:aws:iam::123456789012:role/test"


@pytest.fixture(scope="module")
def cloud() -> Iterator[LocalCloud]:
    with LocalCloud() as running:
        yield running


@pytest.fixture(scope="module")
def client(cloud: LocalCloud) -> Callable[..., Any]:
    def make(service: str, region: str = "us-east-1") -> Any:
        return boto3.client(
            service,
            endpoint_url=cloud.endpoint_url,
            region_name=region,
            **cloud.credentials.for_boto3(),
            config=Config(retries={"total_max_attempts": 1}, read_timeout=60, max_pool_connections=50),
        )

    return make


@pytest.fixture(scope="module")
def functions(client: Callable[[str], Any]) -> Any:
    return client("lambda")


@pytest.fixture(scope="module")
def s3(client: Callable[[str], Any]) -> Any:
    return client("s3")


@pytest.fixture(scope="module")
def log_client(client: Callable[[str], Any]) -> Any:
    return client("logs")


@pytest.fixture(scope="module")
def raw(cloud: LocalCloud) -> Callable[..., tuple[str, str]]:
    """Return what sends a request in AWS JSON that no client checks, and returns the error's code and message."""

    def send(target: str, operation: str, members: dict[str, Any]) -> tuple[str, str]:
        body = json.dumps(members).encode()
        service = "logs" if target.startswith("Logs_") else "states"
        headers = signed(cloud, "POST", "/", {"X-Amz-Target": f"{target}.{operation}"}, body, service=service)
        with closing(HTTPConnection(urlsplit(cloud.endpoint_url).netloc, timeout=60)) as connection:
            connection.request("POST", "/", body, headers)
            response = connection.getresponse()
            error = json.load(response)
        assert response.headers["x-amzn-RequestId"]
        return error["__type"], error["message"]

    return send


@pytest.fixture
def bucket(s3: Any) -> str:
    name = f"test-{uuid.uuid4().hex[:12]}"
    s3.create_bucket(Bucket=name)
    return name


def archive(**members: str) -> bytes:
    """Return a zip with a Python file for each argument."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        for name, text in members.items():
            opened.writestr(f"{name}.py", textwrap.dedent(text))
    return buffer.getvalue()


def zip_of(members: Mapping[str, str], *, executable: bool = False) -> bytes:
    """Return a zip with the text of each file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        for name, text in members.items():
            member = zipfile.ZipInfo(name)
            member.external_attr = (0o100755 if executable else 0o100644) << 16
            opened.writestr(member, text)
    return buffer.getvalue()


@pytest.fixture
def deploy(functions: Any) -> Iterator[Callable[..., str]]:
    """Create a function from the source of its handler module; it is deleted at the end."""
    names: list[str] = []

    def create(source: str, **settings: Any) -> str:
        name = f"test-{uuid.uuid4().hex[:12]}"
        functions.create_function(
            **{
                "FunctionName": name,
                "Runtime": OWN_RUNTIME,
                "Handler": "main.handler",
                "Role": ROLE,
                "Code": {"ZipFile": archive(main=source)},
                "Timeout": 20,
                "MemorySize": 512,
                **settings,
            }
        )
        names.append(name)
        return name

    yield create
    for name in names:
        functions.delete_function(FunctionName=name)
