"""Times deploying, running four ranks and destroying against the local cloud: ``python -m benchmarks.stack_commands``.

The functions' packages are downloaded by pip, as for AWS: set PIP_NO_INDEX and PIP_FIND_LINKS to leave the network
out of the figure.
"""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import psutil

from benchmarks.arguments import parser
from benchmarks.cleanup import exit_on_signals
from benchmarks.whole_runs import machine

_FOLDER = Path(sys.executable).parent
_REDUCE = Path(__file__).resolve().parent.parent / "examples" / "reduce.py"
_GOAL_S = 60
_COMMANDS = (
    ("deploy", ["fmi-emulator", "deploy", "--yes", "--timeout", "60"], []),
    ("run N=4", ["fmirun", "-n", "4"], [str(_REDUCE)]),
    ("run N=4, known program", ["fmirun", "-n", "4"], [str(_REDUCE)]),
    ("destroy", ["fmi-emulator", "destroy", "--yes", "--delete-results"], []),
)


def main() -> None:
    """Run the commands one after the other and print a table of their times."""
    parser("benchmarks.stack_commands", __doc__).parse_args()
    exit_on_signals()
    environment = {"AWS_ACCESS_KEY_ID": "benchmark", "AWS_SECRET_ACCESS_KEY": "benchmark", **os.environ}
    environment.pop("AWS_ENDPOINT_URL", None)
    serve = [_FOLDER / "fmi-emulator", "serve", "--port", "0"]
    print(f"On {machine()}:\n\n| command | wall, s | processor, s |\n|---|---|---|", flush=True)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(serve, env=environment, text=True, **pipes) as server:
        try:
            url = _url_of(server)
            account = ["--backend", "aws", "--region", "us-east-1", "--endpoint-url", url]
            total = 0.0
            for name, (program, *words), last in _COMMANDS:
                began, before = time.perf_counter(), _processor_s(server.pid)
                command = [_FOLDER / program, *words, *account, *last]
                subprocess.run(command, env=environment, check=True, capture_output=True)
                seconds = time.perf_counter() - began
                total += seconds
                print(f"| {name} | {seconds:.1f} | {_processor_s(server.pid) - before:.1f} |", flush=True)
            print(f"| all, goal < {_GOAL_S} s | {total:.1f} | |", flush=True)
        finally:
            server.terminate()


def _url_of(server: "subprocess.Popen[str]") -> str:
    assert server.stdout is not None
    for line in server.stdout:
        if found := re.search(r"AWS_ENDPOINT_URL=(\S+)", line):
            return found[1]
    raise SystemExit("fmi-emulator serve ended: run it alone to see why")


def _processor_s(server: int) -> float:
    """Return the processor time of the server, its processes and the commands; also of those that have ended."""
    used = 0.0
    for process in [psutil.Process(server), *psutil.Process(server).children(recursive=True)]:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        used += times.user + times.system + times.children_user + times.children_system
    own = os.times()
    return used + own.children_user + own.children_system


if __name__ == "__main__":
    main()
