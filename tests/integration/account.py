"""A local cloud that stands for an AWS account: commands run against it with nothing but the endpoint changed."""

import contextlib
import io
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest

from emulator.cli import account as cli_account
from emulator.cli import fmi_emulator, fmirun
from emulator.cloud import LocalCloud
from emulator.fmi.aws_calls import AwsCall, observe_calls
from emulator.fmi.aws_session import AwsSession, connect_account

REGION = "us-east-1"
# What each call needs, where the permission has another name than the operation.
_ACTIONS = {
    "s3:HeadObject": ["s3:GetObject"],
    "s3:HeadBucket": ["s3:ListBucket"],
    "s3:ListObjectsV2": ["s3:ListBucket"],
    "s3:CopyObject": ["s3:GetObject", "s3:PutObject"],
    "s3:DeleteObjects": ["s3:DeleteObject"],
}
_SERVICES = {"elbv2": "elasticloadbalancing", "stepfunctions": "states", "service-quotas": "servicequotas"}


def permissions(call: AwsCall) -> list[str]:
    """Return the actions that a call needs."""
    name = f"{_SERVICES.get(call.service, call.service)}:{call.operation}"
    return _ACTIONS.get(name, [name])


@dataclass(frozen=True)
class Ended:
    """How a command ended: its status, standard output and standard error."""

    status: int
    out: str
    err: str


@dataclass
class Account:
    """The endpoint, what commands have called there, and a way to run commands.

    Attributes
    ----------
    calls
        The calls of the commands, in order.
    observe
        Receives each session that a command makes.
    """

    cloud: LocalCloud
    calls: list[AwsCall] = field(default_factory=list)
    observe: Callable[[boto3.Session], None] = lambda _: None

    def client(self, service: str) -> Any:
        return self.session().client(service)

    def observed(self, service: str) -> Any:
        """Return a client whose calls are recorded as those of the commands."""
        return self._connect(REGION, None, self.cloud.endpoint_url).client(service)

    def session(self) -> AwsSession:
        return connect_account(REGION, None, self.cloud.endpoint_url)

    def actions(self) -> set[str]:
        """Return the permissions that the calls needed, and forget the calls."""
        needed = {action for call in self.calls for action in permissions(call)}
        self.calls.clear()
        return needed

    def run(self, command: str, *arguments: object) -> Ended:
        """Run ``deploy``, ``fmirun`` and so on in this process."""
        out, err = io.StringIO(), io.StringIO()
        name, entry = ("fmirun", fmirun) if command == "fmirun" else ("fmi-emulator", fmi_emulator)
        words = ["fmirun", "--backend", "aws"] if command == "fmirun" else [name, command]
        given = [*words, "--region", REGION, "--endpoint-url", self.cloud.endpoint_url, *map(str, arguments)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", given)
            patch.setattr(sys, "stdin", io.StringIO())
            patch.setattr(cli_account, "connect_account", self._connect)
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
                entry()
        assert isinstance(ended.value.code, int), ended.value.code
        return Ended(ended.value.code, out.getvalue(), err.getvalue())

    def _connect(self, *arguments: Any) -> AwsSession:
        session = connect_account(*arguments)
        observe_calls(session.session, self.calls.append)
        self.observe(session.session)
        return session


def write_wheels(folder: Path) -> None:
    """Write wheels with the names that a deployment downloads. The packages themselves are this interpreter's."""
    for name, version in (("numpy", "2.1.0"), ("aiohttp", "3.11.0"), ("prometheus_client", "0.21.0")):
        info = f"{name}-{version}.dist-info"
        with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{name}_of_a_wheel.py", "")
            wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")


@contextlib.contextmanager
def account_with_stack(scratch: Path) -> Iterator[Account]:
    """Yield an account with the default stack."""
    with empty_account(scratch) as account:
        deployed = account.run("deploy", "--yes", "--timeout", "60")
        assert deployed.status == 0, deployed.err
        yield account


@contextlib.contextmanager
def empty_account(scratch: Path) -> Iterator[Account]:
    """Yield an account without a stack."""
    write_wheels(scratch)
    with pytest.MonkeyPatch.context() as patch, LocalCloud() as cloud:
        for name, value in cloud.credentials.environment().items():
            patch.setenv(name, value)
        patch.delenv("AWS_ENDPOINT_URL", raising=False)
        patch.setenv("AWS_CONFIG_FILE", str(scratch / "none"))
        patch.setenv("PIP_NO_INDEX", "1")
        patch.setenv("PIP_FIND_LINKS", str(scratch))
        yield Account(cloud)
