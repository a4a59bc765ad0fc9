"""Makes or changes a stack: the bucket and the secrets first, then what needs their contents."""

import importlib.resources
import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from emulator.aws.limits import MB_PER_VCPU, TIMEOUT_S, vcpus
from emulator.errors import EmulatorError
from emulator.fmi.aws_session import AwsSession
from emulator.fmi.deployment.code import (
    Architecture,
    BundleInfo,
    functions_archive,
    info_key,
    server_archive,
    upload_archive,
)
from emulator.fmi.deployment.destroy import delete_record
from emulator.fmi.deployment.network import default_network
from emulator.fmi.deployment.registry import ImageDaemon, check_architecture, push_image
from emulator.fmi.deployment.secrets import write_secrets
from emulator.fmi.deployment.stack import DEFAULT_STACK, Change, Stack, StackError, StackEvent, StackOperations

PYTHONS = ("3.11", "3.12", "3.13", "3.14")
_NO_CODE = "none"
# Pauses before a change is applied again that came too early.
_EARLY_PAUSES_S = (10, 30)
# Replacing these would lose data, or fail since the new one needs the old one's name.
_KEPT = frozenset(["Bucket", "Initialize", "Execute", "Summarize", "Dns"])


class NotConfirmedError(EmulatorError):
    """The user did not agree to a change."""

    def __init__(self) -> None:
        super().__init__("nothing was changed: run the command again and agree, or give --yes")


@dataclass(frozen=True)
class DeploymentSettings:
    """What a stack is made of.

    Parameters
    ----------
    stack
        Its name.
    python, architecture
        Version of Python and processor architecture of the functions.
    requirements
        Packages of the functions besides numpy, as for pip.
    image_uri
        URI of an image in ECR, which contains functions and server, instead of Python's version and packages.
    image
        An image of this machine, which is pushed to a repository of the stack and used so; or empty.
    memory_mb, timeout_s
        Memory (MB) and time limit (s) of a rank.
    log_days
        Days after which logs are deleted.
    data_bucket
        Another bucket that the functions may read; or empty.
    dns_name, hosted_zone
        A name that is kept at the rendezvous server's address, and its zone in Route 53; or empty.
    subnets
        Public subnets for the server; none for those of the default network.
    has_balancer
        Whether the server is behind a load balancer, so that its address stays when its task is replaced.
    renew_secrets
        Whether the server's secrets are made anew.
    """

    stack: str = DEFAULT_STACK
    python: str = PYTHONS[-2]
    architecture: Architecture = Architecture.X86_64
    requirements: tuple[str, ...] = ()
    image_uri: str = ""
    image: str = ""
    memory_mb: int = MB_PER_VCPU
    timeout_s: int = TIMEOUT_S[-1]
    log_days: int = 30
    data_bucket: str = ""
    dns_name: str = ""
    hosted_zone: str = ""
    subnets: tuple[str, ...] = ()
    has_balancer: bool = False
    renew_secrets: bool = False

    def parameters(self, network: str, subnets: Sequence[str]) -> dict[str, str]:
        """Return the template's parameters, as of a stack without code.

        Parameters
        ----------
        network, subnets
            Where the rendezvous server is.
        """
        return {
            "Runtime": f"python{self.python}",
            "ServerImage": f"public.ecr.aws/lambda/python:{self.python}",
            "Architecture": self.architecture.value,
            "TaskArchitecture": self.architecture.name,
            "Memory": str(self.memory_mb),
            "Timeout": str(self.timeout_s),
            "Threads": str(vcpus(self.memory_mb)),
            "LogDays": str(self.log_days),
            "DataBucket": self.data_bucket,
            "DnsName": self.dns_name,
            "HostedZoneId": self.hosted_zone,
            "WithBalancer": _flag(self.has_balancer),
            "WithRepository": _flag(bool(self.image)),
            "VpcId": network,
            "SubnetIds": ",".join(subnets),
        }


@dataclass(frozen=True)
class Reporter:
    """How a deployment talks to its user.

    Parameters
    ----------
    note
        Prints a line.
    confirm
        Shows the changes of a change set; returns whether to apply it.
    """

    note: Callable[[str], None]
    confirm: Callable[[Sequence[Change]], bool]

    def on_event(self, event: StackEvent) -> None:
        """Print the new state of a resource, with the reason if it failed."""
        reason = f": {event.reason}" if event.reason and "FAILED" in event.status else ""
        self.note(f"  {event.status.lower().replace('_', ' ')}  {event.resource}{reason}")


def template() -> str:
    """Return the CloudFormation template."""
    return (importlib.resources.files("emulator.fmi.deployment") / "template.yaml").read_text(encoding="utf-8")


def deploy_stack(
    session: AwsSession, settings: DeploymentSettings, reporter: Reporter, daemon: ImageDaemon | None = None
) -> Stack:
    """Make a stack, or change it to what the settings say; return it.

    Parameters
    ----------
    session
        The account.
    settings
        What the stack is made of.
    reporter
        Talks to the user.
    daemon
        Pushes the image of this machine that the settings name; None if they name none.

    Raises
    ------
    StackError
        If the stack is another owner's, or a resource failed; then the stack was rolled back.
    CodeError
        If the functions' archive cannot be made.
    ImageError
        If the image is for another architecture.
    NotConfirmedError
        If the user did not agree.
    """
    cloudformation = session.client("cloudformation")
    operations = StackOperations(cloudformation, settings.stack, reporter.on_event)
    stack = operations.own()
    _check_record(stack, settings)
    code, info, server = (None, None, None)
    if daemon is not None:
        check_architecture(daemon, settings.image, settings.architecture)
    elif not settings.image_uri:
        reporter.note("packing the functions and the rendezvous server")
        # Most of their time is pip's.
        with ThreadPoolExecutor(1) as threads:
            packed = threads.submit(server_archive, settings.python, settings.architecture)
            code, info = functions_archive(settings.python, settings.architecture, settings.requirements)
            server = packed.result()
    network, subnets = default_network(session, settings.subnets)
    parameters = settings.parameters(network, subnets)
    if stack is not None and stack.is_empty:
        # CloudFormation can only delete a stack whose creation has failed.
        operations.delete()
        stack = None
    if stack is None:
        reporter.note(
            f"first the bucket and the secrets of stack {settings.stack!r}; they are filled, then the rest follows"
        )
        stack = _change(operations, parameters, reporter, is_new=True) or operations.own()
    elif daemon is not None and "Repository" not in stack.outputs:
        reporter.note("first the repository, to which the image is pushed")
        stack = _change(operations, {**stack.parameters, "WithRepository": "true"}, reporter, is_new=False) or stack
    if stack is None:
        raise StackError(f"stack {settings.stack!r} is gone: it was deleted meanwhile; run the command again")
    if write_secrets(
        session.client("secretsmanager"),
        stack.outputs["RendezvousSecret"],
        stack.outputs["RendezvousKey"],
        renew=settings.renew_secrets,
    ):
        reporter.note("made the rendezvous server's secret and certificate")
    if code is not None and server is not None and info is not None:
        s3 = session.client("s3")
        bucket = stack.outputs["Bucket"]
        for made in (code, server):
            if upload_archive(s3, bucket, made):
                reporter.note(f"uploaded {made.key} ({len(made.content) / 1e6:.1f} MB)")
        _write_info(s3, bucket, code.key, info)
        parameters |= {"CodeKey": code.key, "ServerKey": server.key, "ImageUri": ""}
    else:
        uri = settings.image_uri
        if daemon is not None:
            uri = push_image(session, daemon, settings.image, stack.outputs["Repository"], reporter.note)
        parameters |= {"CodeKey": _NO_CODE, "ServerKey": "", "ImageUri": uri}
    changed = _change(operations, parameters, reporter, is_new=False)
    if changed is None:
        reporter.note(f"stack {settings.stack!r} is up to date")
        return stack
    _delete_stale_record(session, stack, settings)
    return changed


def _change(
    operations: StackOperations, parameters: Mapping[str, str], reporter: Reporter, *, is_new: bool
) -> Stack | None:
    """Show a change set and apply it if the user agrees; None if there is nothing to change."""
    planned = operations.plan(template(), parameters, is_new=is_new)
    if planned is None:
        return None
    name, changes = planned
    replaced = sorted(
        change.resource for change in changes if change.replacement == "True" and change.resource in _KEPT
    )
    if replaced:
        operations.discard(name, is_new=is_new)
        raise StackError(
            f"the change would replace {', '.join(replaced)}, which CloudFormation cannot do under the same name: run "
            "`fmi-emulator destroy` first, or deploy under another --stack-name"
        )
    if not reporter.confirm(changes):
        operations.discard(name, is_new=is_new)
        raise NotConfirmedError
    for pause_s in _EARLY_PAUSES_S:
        try:
            return operations.apply(name)
        except StackError as error:
            # A stack whose creation has failed can only be deleted.
            if is_new or not error.is_early:
                raise
            reporter.note(
                f"AWS does not see all new resources yet, so the change is applied again in {pause_s} s ({error})"
            )
        time.sleep(pause_s)
        again = operations.plan(template(), parameters, is_new=is_new)
        if again is None:
            return operations.own()
        name, _ = again
    return operations.apply(name)


def _check_record(stack: Stack | None, settings: DeploymentSettings) -> None:
    """Refuse to exchange the function that keeps a record for an alias: in one change, each would undo the other's."""
    if stack is None or "DnsName" not in stack.outputs or not settings.dns_name:
        return
    if settings.has_balancer != ("Balancer" in stack.outputs):
        raise StackError(
            f"{settings.dns_name} cannot change between the task's address and the load balancer's in one step: run "
            "the command without --dns first, then with it"
        )


def _delete_stale_record(session: AwsSession, stack: Stack, settings: DeploymentSettings) -> None:
    """Delete the record that a function of the stack keeps, if it no longer does: it is no resource of the stack."""
    name, zone = stack.parameters.get("DnsName", ""), stack.parameters.get("HostedZoneId", "")
    is_kept = (name, zone) == (settings.dns_name, settings.hosted_zone)
    if name and zone and "Balancer" not in stack.outputs and not is_kept:
        delete_record(session.client("route53"), zone, name)


def _flag(value: bool) -> str:
    return "true" if value else "false"


def _write_info(s3: Any, bucket: str, code_key: str, info: BundleInfo) -> None:
    s3.put_object(Bucket=bucket, Key=info_key(code_key), Body=json.dumps(asdict(info)).encode())
