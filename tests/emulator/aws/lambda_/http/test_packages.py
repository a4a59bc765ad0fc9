"""What functions may import when the packages of this installation are hidden."""

from collections.abc import Iterator
from typing import Any

import pytest

from emulator.cloud import LocalCloud
from tests.emulator.aws.lambda_.http.test_api import Deploy, invoke
from tests.emulator.conftest import archive


@pytest.fixture(scope="module")
def cloud() -> Iterator[LocalCloud]:
    with LocalCloud(preload=["hypothesis"], hide_packages=True) as running:
        yield running


SOURCE = """
import importlib
def handler(event, context):
    found = {}
    for name in event:
        try:
            found[name] = importlib.import_module(name).__name__
        except ModuleNotFoundError as error:
            found[name] = str(error)
    return found
"""


def test_a_package_that_aws_does_not_have_is_missing(functions: Any, deploy: Deploy) -> None:
    """psutil was imported before the fork, pytest was not; what --preload names brings what it requires."""
    name = deploy("", Code={"ZipFile": archive(main=SOURCE, **{"aiohttp/__init__": "", "helper": ""})})
    visible = [
        "boto3",
        "botocore.config",
        "numpy",
        "fmi",
        "json",
        "helper",
        "aiohttp",
        "hypothesis",
        "sortedcontainers",
    ]
    hidden = ["psutil", "pytest", "moto"]
    answer = invoke(functions, name, [*visible, *hidden])[0]
    assert answer == {found: found for found in visible} | {name: f"No module named '{name}'" for name in hidden}
