"""What functions find when what AWS does not have is hidden: packages and shared memory."""

import sys
from collections.abc import Iterator
from typing import Any

import pytest

from emulator.cloud import LocalCloud
from tests.emulator.aws.lambda_.http.test_api import Deploy, invoke
from tests.emulator.conftest import archive, zip_of


@pytest.fixture(scope="module")
def cloud() -> Iterator[LocalCloud]:
    with LocalCloud(preload=["hypothesis"], packages=(), hide_shared_memory=True) as running:
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

HIDDEN = ["psutil", "pytest", "moto"]
MISSING = {name: f"No module named '{name}'" for name in HIDDEN}


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
    answer = invoke(functions, name, [*visible, *HIDDEN])[0]
    assert answer == {found: found for found in visible} | MISSING


def test_they_are_hidden_from_a_function_that_a_fork_cannot_serve_too(functions: Any, deploy: Deploy) -> None:
    own_numpy = archive(main=SOURCE, **{"numpy/__init__": "", "numpy/own": ""})
    name = deploy("", Code={"ZipFile": own_numpy})
    visible = ["numpy.own", "boto3", "fmilib", "hypothesis"]
    assert invoke(functions, name, [*visible, *HIDDEN])[0] == {found: found for found in visible} | MISSING
    wrapped = zip_of({"main.py": SOURCE, "wrapper": '#!/bin/sh\nexec "$@"\n'}, executable=True)
    variables = {"Variables": {"AWS_LAMBDA_EXEC_WRAPPER": "/var/task/wrapper"}}
    name = deploy("", Code={"ZipFile": wrapped}, Environment=variables)
    assert invoke(functions, name, HIDDEN)[0] == MISSING


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has mount namespaces")
def test_there_are_no_posix_semaphores_but_pipes_between_processes(functions: Any, deploy: Deploy) -> None:
    name = deploy("""
        import multiprocessing
        def child(end):
            end.send("from a child")
        def handler(event, context):
            try:
                multiprocessing.Lock()
            except OSError as error:
                refused = type(error).__name__
            ours, theirs = multiprocessing.Pipe()
            multiprocessing.get_context("fork").Process(target=child, args=(theirs,)).start()
            return [refused, ours.recv()]
    """)
    assert invoke(functions, name, {})[0] == ["OSError", "from a child"]
