"""AWS endpoints to compare: fmi-emulator, MiniStack and moto's own server, each a process on a free port."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import psutil
from botocore.config import Config

from benchmarks.cleanup import signals_deferred

_START_SECONDS = 60.0
_STOP_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Contender:
    """An endpoint that can be started.

    Parameters
    ----------
    name
        Name in the tables.
    command
        Command; ``{port}`` is replaced by the port.
    environment
        Additional environment variables; ``{port}`` is replaced, too.
    """

    name: str
    command: Sequence[str]
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunningEndpoint:
    """An endpoint under measurement."""

    name: str
    url: str
    process: psutil.Process

    def client(self, service: str, connections: int = 64) -> Any:
        """Return a boto3 client that never retries."""
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",  # noqa: S106 - a placeholder
            config=Config(retries={"total_max_attempts": 1}, read_timeout=120, max_pool_connections=connections),
        )

    def cpu_seconds(self) -> float:
        """Return the CPU time of the endpoint's processes, including ended ones that were waited for."""
        total = 0.0
        for process in [self.process, *self.process.children(recursive=True)]:
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
        return total


def add_arguments(parser: argparse.ArgumentParser, moto_server: str = "moto_server") -> None:
    """Add the options for the commands of the other endpoints."""
    for option, default, what in (
        ("--ministack", "ministack", "MiniStack's command (PyPI: ministack)"),
        ("--moto-server", moto_server, "moto's own (PyPI: moto[server])"),
    ):
        parser.add_argument(option, default=default, metavar="PATH", help=f"{what}; default: %(default)s")


def contenders(options: argparse.Namespace) -> list[Contender]:
    """Return the installed endpoints, fmi-emulator first; print which are not installed."""
    ours = Contender("fmi-emulator", [str(Path(sys.executable).with_name("fmi-emulator")), "serve", "--port", "{port}"])
    others = [
        Contender("ministack", [options.ministack], {"GATEWAY_PORT": "{port}"}),
        Contender("moto_server", [options.moto_server, "-p", "{port}"]),
    ]
    found = [ours]
    for other in others:
        if shutil.which(other.command[0]) is None:
            print(f"{other.name}: not installed here (no {other.command[0]}); its columns are left out")
        else:
            found.append(other)
    return found


@contextmanager
def running(contender: Contender) -> Iterator[RunningEndpoint]:
    """Start an endpoint and wait until it accepts connections; stop it and its descendants at the end.

    Raises
    ------
    RuntimeError
        If it ends, or does not accept connections within a minute.
    """
    port = _free_port()
    command = [part.format(port=port) for part in contender.command]
    added = {name: value.format(port=port) for name, value in contender.environment.items()}
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        output = stack.enter_context(tempfile.TemporaryFile())
        with signals_deferred():
            # In a session of its own: Ctrl-C reaches only the measurement, which stops its endpoints last.
            started = stack.enter_context(
                subprocess.Popen(
                    command,
                    env={**os.environ, **added},
                    stdout=output,
                    stderr=output,
                    cwd=folder,
                    start_new_session=True,
                )
            )
            process = psutil.Process(started.pid)
            stack.callback(_end, process)
        if not _answers(started, port):
            output.seek(0)
            output = output.read().decode(errors="replace")[-2000:]
            raise RuntimeError(f"{contender.name} accepted no connection; its output: {output}")
        yield RunningEndpoint(contender.name, f"http://127.0.0.1:{port}", process)


def _end(process: psutil.Process) -> None:
    """Stop a process and its descendants. It may have ended already."""
    with contextlib.suppress(psutil.NoSuchProcess):
        family = [process, *process.children(recursive=True)]
        process.terminate()
        for left in psutil.wait_procs(family, timeout=_STOP_SECONDS)[1]:
            left.kill()


def _answers(started: subprocess.Popen[bytes], port: int) -> bool:
    """Wait until a process accepts connections; return whether it does."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and started.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return True
    return False


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port
