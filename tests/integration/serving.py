"""``fmi-emulator serve``, run as a user runs it."""

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from tests.commands import FMI_EMULATOR, Command


class Server:
    """A running server, with the variables that it printed to export, and its other output.

    Parameters
    ----------
    process
        The command, with its output at the beginning.
    """

    def __init__(self, process: Command) -> None:
        self.process = process
        self.said: list[str] = []
        while not self.said or "ready" not in self.said[-1]:
            self.said.append(process.stderr.readline())
            assert self.said[-1], f"the server ended: {self.said}"
        exports = [process.stdout.readline() for _ in range(4)]
        self.exported = dict(re.findall(r"(\w+)=(\S+)", "".join(exports)))

    @property
    def url(self) -> str:
        return self.exported["AWS_ENDPOINT_URL"]

    def client(self, service: str) -> Any:
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name=self.exported["AWS_DEFAULT_REGION"],
            aws_access_key_id=self.exported["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.exported["AWS_SECRET_ACCESS_KEY"],
            config=Config(retries={"total_max_attempts": 1}, max_pool_connections=20),
        )

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def serving(scratch: Path, *options: object, files: int | None = None) -> Iterator[Server]:
    """Run a server on a free port, with its temporary files in a folder of its own, until the block ends.

    It may have at most `files` open files, if given.
    """
    arguments = ("serve", "--port", 0, *options)
    with Command(FMI_EMULATOR, *arguments, environment={"TMPDIR": str(scratch)}, open_files=files) as process:
        try:
            yield Server(process)
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGINT)
                process.communicate(timeout=20)
