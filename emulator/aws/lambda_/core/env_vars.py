"""The environment that Lambda gives a function's code.

Variables: https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html
"""

import sys
from pathlib import Path

from emulator.aws.lambda_.core.models import Function
from emulator.aws.limits import REGION


def function_environment(
    function: Function, log_group: str, log_stream: str, runtime_api: str, endpoint_url: str
) -> dict[str, str]:
    """Return every variable that the function's code sees.

    Built from nothing, so that no variable of the emulator's own environment can leak in. The credentials are
    placeholders for the local endpoint, which checks none.
    """
    spec = function.spec
    # These a function may have otherwise; the rest is reserved.
    defaults = {
        "AWS_ENDPOINT_URL": endpoint_url,
        "LANG": "en_US.UTF-8",
        "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
        "TZ": ":UTC",
    }
    reserved = {
        "_HANDLER": spec.handler,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EXECUTION_ENV": f"AWS_Lambda_{spec.runtime}",
        "AWS_LAMBDA_FUNCTION_NAME": spec.name,
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(spec.memory_mb),
        "AWS_LAMBDA_FUNCTION_VERSION": function.version,
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": log_group,
        "AWS_LAMBDA_LOG_STREAM_NAME": log_stream,
        "AWS_LAMBDA_RUNTIME_API": runtime_api,
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_SESSION_TOKEN": "local",
        "LAMBDA_TASK_ROOT": str(function.code_root),
    }
    return {**defaults, **spec.environment, **reserved}
