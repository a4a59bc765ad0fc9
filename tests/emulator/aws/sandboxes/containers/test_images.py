"""Functions of PackageType Image: any image that speaks the runtime API, with its ImageConfig."""

import json
import platform
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests import containers
from tests.emulator.aws.sandboxes.containers.test_functions import invoke

# The first test of a session may build the executor's image.
pytestmark = pytest.mark.timeout(240)
DeployImage = Callable[..., str]


@pytest.fixture(scope="module")
def shell() -> str:
    dockerfile = f"""
        FROM {containers.BASE_IMAGE}
        COPY bootstrap /opt/bootstrap
        WORKDIR /srv
        ENTRYPOINT ["/opt/bootstrap"]
        CMD ["default"]
    """
    return containers.build("fmi-test-shell", dockerfile, {"bootstrap": containers.BASH_BOOTSTRAP})


def test_an_image_runs_its_own_program_in_its_folder(functions: Any, deploy_image: DeployImage, shell: str) -> None:
    payload, log, report = invoke(functions, deploy_image(shell), {"a": [1]})
    assert payload == {"shell": {"a": [1]}}
    assert 'bash got {"a": [1]} in /srv with default' in log
    assert report.init_ms is not None


def test_image_config_replaces_command_folder_and_entry_point(
    functions: Any, deploy_image: DeployImage, shell: str
) -> None:
    config = {"Command": ["given", "twice"], "WorkingDirectory": "/usr"}
    name = deploy_image(shell, ImageConfig=config)
    _, log, _ = invoke(functions, name, 1)
    assert "in /usr with given twice" in log
    assert functions.get_function_configuration(FunctionName=name)["ImageConfigResponse"] == {"ImageConfig": config}
    name = deploy_image(shell, ImageConfig={"EntryPoint": ["/bin/bash", "/opt/bootstrap", "first"]})
    _, log, _ = invoke(functions, name, 1)
    # As with Docker, a new entry point drops the image's command.
    assert "in /srv with first\n" in log


def test_a_program_that_does_not_exist_is_an_invalid_entry_point(
    functions: Any, deploy_image: DeployImage, shell: str
) -> None:
    name = deploy_image(shell, ImageConfig={"EntryPoint": ["/missing"]})
    failed, log, report = invoke(functions, name)
    assert failed["errorType"] == "Runtime.InvalidEntrypoint"
    assert "/missing: no such file or directory" in failed["errorMessage"]
    assert report.error_type == "Runtime.InvalidEntrypoint"
    assert "INIT_REPORT" in log or report.status == "error"


def test_an_image_that_never_asks_for_work_times_out(functions: Any, deploy_image: DeployImage, shell: str) -> None:
    name = deploy_image(shell, ImageConfig={"EntryPoint": ["/bin/sleep", "99"]}, Timeout=1)
    failed, _, report = invoke(functions, name)
    assert failed["errorType"] == "Sandbox.Timedout"
    assert report.status == "timeout"


def test_an_image_without_a_handler_and_one_that_is_missing_are_told_apart(
    functions: Any, deploy_image: DeployImage
) -> None:
    failed, _, _ = invoke(functions, deploy_image(containers.BASE_IMAGE, ImageConfig={"EntryPoint": ["/bin/true"]}))
    assert failed["errorType"] == "Runtime.ExitError"
    with pytest.raises(ClientError, match=r"image 'nothing:here' is not here: build it"):
        functions.invoke(FunctionName=deploy_image("nothing:here"), Payload=json.dumps(1))


def test_an_image_of_another_architecture_is_named(functions: Any, deploy_image: DeployImage) -> None:
    other = "arm64" if platform.machine() == "x86_64" else "amd64"
    name = containers.load_for(other)
    with pytest.raises(ClientError, match=rf"is for {other}: expected one for"):
        functions.invoke(FunctionName=deploy_image(name))
