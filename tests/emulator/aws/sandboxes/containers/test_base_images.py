"""The layout of AWS's base images: /var/runtime, /lambda-entrypoint.sh, and Python in /var/lang alone.

Those images cannot be pulled here: https://github.com/aws/aws-lambda-base-images describes what they contain.
"""

from collections.abc import Callable
from typing import Any

import pytest

from emulator.fmi.executor.image import ImageRequest, executor_image
from tests import containers
from tests.emulator.aws.sandboxes.containers.test_functions import invoke

pytestmark = pytest.mark.timeout(240)
ENTRY_POINT = """#!/bin/sh
if [ $# -ne 1 ]; then
  echo "entrypoint requires the handler name to be the first argument" 1>&2
  exit 142
fi
export _HANDLER="$1"
exec /var/runtime/bootstrap
"""
BOOTSTRAP = """#!/bin/sh
export PYTHONPATH=/var/runtime
exec /var/lang/bin/python3 -m awslambdaric "$_HANDLER"
"""
HANDLER = """
import os, sys
imported = sorted({"numpy", "sqlite3"} & set(sys.modules))
def handler(event, context):
    return {"event": event, "python": sys.executable, "root": os.environ["LAMBDA_TASK_ROOT"], "imported": imported}
"""


@pytest.fixture(scope="module")
def base() -> str:
    """Return an image of that layout."""
    dockerfile = f"""
        FROM {containers.executor()} AS client
        FROM {containers.BASE_IMAGE}
        RUN mkdir -p /var/lang/bin /var/task && ln -s "$(realpath /usr/bin/python3)" /var/lang/bin/python3 && \\
            rm /usr/bin/python3
        ENV PATH=/var/lang/bin:/usr/local/bin:/usr/bin/:/bin:/opt/bin LAMBDA_TASK_ROOT=/var/task \\
            LAMBDA_RUNTIME_DIR=/var/runtime
        COPY --from=client /usr/local/lib/fmi/ /var/runtime/
        COPY bootstrap /var/runtime/bootstrap
        COPY lambda-entrypoint.sh /lambda-entrypoint.sh
        WORKDIR /var/task
        ENTRYPOINT ["/lambda-entrypoint.sh"]
    """
    files = {"bootstrap": BOOTSTRAP, "lambda-entrypoint.sh": ENTRY_POINT}
    return containers.build("fmi-test-aws-base", dockerfile, files)


def test_an_image_on_awss_base_runs_by_its_entry_point(
    functions: Any, deploy_image: Callable[..., str], base: str
) -> None:
    dockerfile = f'FROM {base}\nCOPY app.py ${{LAMBDA_TASK_ROOT}}/\nCMD ["app.handler"]\n'
    image = containers.build("fmi-test-aws-user", dockerfile, {"app.py": HANDLER})
    payload, _, _ = invoke(functions, deploy_image(image), {"a": 1})
    assert payload["event"] == {"a": 1}
    assert payload["root"] == "/var/task"
    failed, _, report = invoke(functions, deploy_image(image, ImageConfig={"Command": ["one", "two"]}))
    assert failed["errorMessage"].endswith("exit status 142")
    assert report.error_type == "Runtime.ExitError"


def test_the_executor_is_built_on_awss_base_with_preloaded_modules(
    functions: Any, deploy_image: Callable[..., str], base: str
) -> None:
    image = executor_image(containers.daemon(), ImageRequest(base, preload=("numpy", "sqlite3")), lambda line: None)
    dockerfile = f'FROM {image}\nCOPY app.py /var/task/\nCMD ["app.handler"]\n'
    app = f"import execute\n{HANDLER}"
    payload, _, _ = invoke(functions, deploy_image(containers.build("fmi-test-aws-app", dockerfile, {"app.py": app})))
    assert payload["imported"] == ["numpy", "sqlite3"]
    assert payload["root"] == "/var/task"
