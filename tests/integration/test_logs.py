"""fmi-emulator logs as a user runs it."""

import json
import re
import signal
import socket
from collections.abc import Callable
from subprocess import CompletedProcess
from typing import Any

from emulator.cloud import LocalCloud
from tests.commands import FMI_EMULATOR, Command, run

RANK = """
    import os
    def handler(event, context):
        if "RANK" in event:
            print(f"fmi-rank: {event['RANK']} of {event['WORLD_SIZE']} RequestId: {context.aws_request_id}")
        print("says", event.get("what", "nothing"))
"""


def logs(cloud: LocalCloud, *arguments: str) -> CompletedProcess[str]:
    return run(FMI_EMULATOR, "logs", *arguments, environment=cloud.environment)


def invoke(functions: Any, name: str, **event: object) -> None:
    functions.invoke(FunctionName=name, Payload=json.dumps(event).encode())


def test_the_lines_of_ranks_have_a_prefix_and_can_be_selected(
    cloud: LocalCloud,
    functions: Any,
    deploy: Callable[..., str],
) -> None:
    name = deploy(RANK)
    for rank in (0, 11):
        invoke(functions, name, RANK=str(rank), WORLD_SIZE="12", what=f"rank {rank}")
    invoke(functions, name, what="no rank")
    everything = logs(cloud, name)
    assert everything.returncode == 0, everything.stderr
    said = [line for line in everything.stdout.splitlines() if "REPORT" not in line]
    assert said == ["[ 0] says rank 0", "[11] says rank 11", "says no rank"]
    assert len(re.findall(r"^(?:\[..\] )?REPORT RequestId: .* Duration: ", everything.stdout, re.MULTILINE)) == 3
    chosen = logs(cloud, f"/aws/lambda/{name}", "--rank", "11", "--since", "5m").stdout.splitlines()
    assert [line.partition("]")[0] for line in chosen] == ["[11"] * 2


def test_follow_prints_new_lines_until_ctrl_c(
    cloud: LocalCloud,
    functions: Any,
    deploy: Callable[..., str],
) -> None:
    name = deploy(RANK)
    with Command(FMI_EMULATOR, "logs", name, "--follow", environment=cloud.environment) as command:
        for rank in (2, 1):
            invoke(functions, name, RANK=rank, WORLD_SIZE=3, what="something")
            assert command.stdout.readline() == f"[{rank}] says something\n"
            assert "REPORT" in command.stdout.readline()
        command.send_signal(signal.SIGINT)
        _, errors = command.communicate(timeout=20)
    assert command.returncode == 130
    assert errors == "fmi-emulator: interrupted\n"


def test_unknown_names_and_unreachable_endpoints_are_errors(cloud: LocalCloud, deploy: Callable[..., str]) -> None:
    name = deploy(RANK)
    silent = logs(cloud, name)
    assert (silent.returncode, silent.stdout, silent.stderr) == (0, "", "")
    missing = logs(cloud, "elsewhere")
    assert missing.returncode == 2
    assert missing.stderr == (
        f"fmi-emulator: unknown function or log group 'elsewhere' at {cloud.endpoint_url}: functions there: {name}\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as unused:
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    nothing = run(FMI_EMULATOR, "logs", name, "--endpoint-url", url)
    assert nothing.returncode == 2
    assert f"no server answers at {url}: start a local cloud with `fmi-emulator serve`" in nothing.stderr
    wrong = logs(cloud, name, "--since", "yesterday")
    assert wrong.returncode == 2
    assert "expected a number with s, m, h or d, for example 5m, got 'yesterday'" in wrong.stderr
