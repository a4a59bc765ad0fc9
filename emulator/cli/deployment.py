"""``fmi-emulator deploy``, ``status`` and ``destroy``: the stack that runs programs on AWS."""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from emulator.aws.limits import MB_PER_VCPU, TIMEOUT_S
from emulator.cli import arguments
from emulator.cli.account import account_session, add_account_options, connect_session
from emulator.cli.exit_codes import FAILED, print_status
from emulator.errors import EmulatorError
from emulator.fmi.aws_calls import observe_calls
from emulator.fmi.aws_errors import explained
from emulator.fmi.aws_session import AwsSession
from emulator.fmi.deployment.code import Architecture
from emulator.fmi.deployment.deploy import PYTHONS, DeploymentSettings, Reporter, deploy_stack, template
from emulator.fmi.deployment.destroy import destroy_stack
from emulator.fmi.deployment.dry_run import DryDaemon, DryReporter, ImaginedStack
from emulator.fmi.deployment.permissions import deployer_policy, options_policy, user_policy
from emulator.fmi.deployment.registry import ImageDaemon, check_uri
from emulator.fmi.deployment.resources import find_resources
from emulator.fmi.deployment.stack import Change, StackError, StackOperations
from emulator.fmi.deployment.status import idle_usd_per_hour, read_status

if TYPE_CHECKING:
    from argparse import _SubParsersAction

_LOG_DAYS = (1, 3, 5, 7, 14, 30, 60, 90, 180, 365)
_DEPLOY = """\
Make what runs programs on AWS, as one CloudFormation stack: a bucket, three functions, a state machine, and the
rendezvous server on Fargate. Run it again to change the stack; what has not changed stays.

The changes are shown before they are applied. A deployment that fails is rolled back, and the resource named.
"""
_DEPLOY_EXAMPLES = """\
examples:
  fmi-emulator deploy --region us-east-1                             functions with numpy
  fmi-emulator deploy --with scipy --with pandas --memory 3538       further packages; two vCPUs a rank
  fmi-emulator deploy --image $(fmi-emulator image build)            one image for functions and server, pushed to ECR
  fmi-emulator deploy --image-uri 123456789012.dkr.ecr.us-east-1.amazonaws.com/fmi:1
  fmi-emulator deploy --dns fmi.example.org --hosted-zone Z0123456789ABC
  fmi-emulator deploy --backend local                                on the local cloud of `fmi-emulator serve`
  fmi-emulator deploy --print-policy                                 the permissions that it needs, and those of runs

then: fmirun --backend aws -n 4 examples/reduce.py
exit status: 0 if the stack is as described, 1 if a resource failed, 2 if it could not start
"""


def add_parsers(commands: "_SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the three commands."""
    _add_deploy(commands)
    parser = commands.add_parser("status", help="show what a deployed stack runs and what it costs")
    arguments.add_backend_option(parser, arguments.AWS)
    add_account_options(parser)
    parser.set_defaults(run=_status)
    parser = commands.add_parser("destroy", help="delete a deployed stack; the bucket with results stays")
    arguments.add_backend_option(parser, arguments.AWS)
    add_account_options(parser)
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--delete-results", action="store_true", help="delete the bucket and all results in it, too")
    parser.set_defaults(run=_destroy)


def _add_deploy(commands: "_SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "deploy",
        help="make the stack that runs programs on AWS",
        description=_DEPLOY,
        epilog=_DEPLOY_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    arguments.add_backend_option(parser, arguments.AWS)
    add_account_options(parser)
    code = parser.add_mutually_exclusive_group()
    code.add_argument(
        "--zip", action="store_true", help="functions from an archive with wheels for Lambda; this is the default"
    )
    code.add_argument(
        "--image",
        default="",
        metavar="NAME",
        help="functions and rendezvous server from this image of `fmi-emulator image build`, which is pushed to a "
        "repository of the stack in ECR",
    )
    code.add_argument("--image-uri", default="", metavar="URI", help="the same from an image that is in ECR already")
    parser.add_argument(
        "--with",
        dest="requirements",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="a further package in the archive, as for pip, for example scipy; may be repeated",
    )
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    parser.add_argument(
        "--python",
        choices=PYTHONS,
        default=own if own in PYTHONS else PYTHONS[-2],
        help="version of Python in the functions (default %(default)s, as here)",
    )
    parser.add_argument(
        "--architecture",
        choices=[architecture.value for architecture in Architecture],
        default=Architecture.X86_64.value,
        help="processor architecture (default %(default)s)",
    )
    arguments.add_rank_options(parser)
    parser.add_argument(
        "--log-days",
        type=int,
        choices=_LOG_DAYS,
        default=30,
        help="delete logs after so many days (default %(default)s)",
    )
    parser.add_argument(
        "--data-bucket", default="", metavar="NAME", help="a further bucket that programs may read, for data in S3"
    )
    parser.add_argument(
        "--dns",
        default="",
        metavar="NAME",
        help="keep this name at the rendezvous server's address; needs --hosted-zone",
    )
    parser.add_argument(
        "--hosted-zone", default="", metavar="ID", help="zone of Route 53 that contains the name of --dns"
    )
    parser.add_argument(
        "--subnet",
        action="append",
        default=[],
        metavar="ID",
        help="a public subnet for the rendezvous server (default: those of the default network); may be repeated",
    )
    parser.add_argument(
        "--nlb",
        action="store_true",
        help="put the rendezvous server behind a Network Load Balancer, so that its address stays when its task is "
        "replaced (default: the task's public address, which is cheaper)",
    )
    parser.add_argument("--renew-secrets", action="store_true", help="make a new secret and certificate of the server")
    parser.add_argument("--yes", action="store_true", help="apply the changes without asking")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="make the calls that only read, print every call that would follow, and change nothing",
    )
    parser.add_argument("--print-template", action="store_true", help="print the CloudFormation template and exit")
    parser.add_argument(
        "--print-policy",
        action="store_true",
        help="print the IAM policies that deploying and running need, as JSON, and exit",
    )
    parser.set_defaults(run=_deploy)


def _deploy(options: argparse.Namespace) -> int:
    if options.print_template:
        print(template(), end="")
        return 0
    if options.print_policy:
        made = {"deploy": deployer_policy, "deploy-image-nlb": options_policy, "run": user_policy}
        print(json.dumps({name: make(options.stack_name) for name, make in made.items()}, indent=2))
        return 0
    if bool(options.dns) != bool(options.hosted_zone):
        raise EmulatorError("--dns and --hosted-zone belong together: give both, or neither")
    if options.requirements and (options.image or options.image_uri):
        raise EmulatorError("--with adds packages to an archive: with an image, install them there")
    settings = DeploymentSettings(
        stack=options.stack_name,
        python=options.python,
        architecture=Architecture(options.architecture),
        requirements=tuple(options.requirements),
        image_uri=options.image_uri,
        image=options.image,
        memory_mb=options.memory or MB_PER_VCPU,
        timeout_s=options.timeout or TIMEOUT_S[-1],
        log_days=options.log_days,
        data_bucket=options.data_bucket,
        dns_name=options.dns,
        hosted_zone=options.hosted_zone,
        subnets=tuple(options.subnet),
        has_balancer=options.nlb,
        renew_secrets=options.renew_secrets,
    )
    session = connect_session(options)
    daemon = _image_daemon(options, session)
    reporter = Reporter(print_status, lambda changes: _confirm_changes(changes, agreed=options.yes))
    if options.dry_run:
        imagined = ImaginedStack(connect_session(options), options.stack_name)
        observe_calls(session.session, lambda call: print_status(f"  {call}"), imagined.answer)
        reporter = DryReporter(print_status)
        daemon = DryDaemon(daemon.image_architecture(options.image)) if daemon is not None else None
    with explained():
        identity = session.client("sts").get_caller_identity()
        print_status(f"account {identity['Account']}, region {session.session.region_name}, as {identity['Arn']}")
        try:
            stack = deploy_stack(session, settings, reporter, daemon)
        except StackError as error:
            print_status(f"fmi-emulator: {error}")
            return FAILED
    if options.dry_run:
        print_status("dry run: nothing was made or changed")
        return 0
    print_status(f"stack {stack.name!r}: {stack.status}, bucket {stack.outputs['Bucket']}")
    print_status(
        f"while nothing runs it costs about {idle_usd_per_hour(stack):.3f} USD an hour, until `fmi-emulator destroy`"
    )
    endpoint = f" --endpoint-url {session.url}" if session.url else ""
    print_status(f"next: fmirun --backend aws{endpoint} -n 4 examples/reduce.py")
    return 0


def _image_daemon(options: argparse.Namespace, session: AwsSession) -> ImageDaemon | None:
    """Check where the functions' image comes from; return the daemon that pushes it, if it has to be pushed."""
    if options.image_uri and session.url is None:
        check_uri(options.image_uri, str(session.session.region_name))
    if not options.image:
        return None
    if session.url is not None:
        raise EmulatorError(
            f"--image pushes to ECR's registry, which the endpoint {session.url} does not have: give --image-uri "
            f"{options.image}, since the local cloud runs images of this machine"
        )
    from emulator.aws.sandboxes.containers.daemon import Daemon

    return Daemon()


def _status(options: argparse.Namespace) -> int:
    session = account_session(options)
    with explained():
        stack = StackOperations(session.client("cloudformation"), options.stack_name).describe()
        if stack is not None and stack.is_busy:
            stack.check_owner()
            print(f"stack {stack.name}: {stack.status}")
            return 0
        resources = find_resources(session, options.stack_name)
        if stack is None:
            return FAILED
        found = read_status(session, stack, resources)
    print(f"stack {stack.name}: {stack.status}")
    print(f"bucket: {resources.bucket}")
    for function in found.functions:
        print(
            f"function {function.name}: {function.state} {function.update}, {function.memory_mb} MB".replace(" ,", ",")
        )
    address = f" at {resources.dns_name or found.server.address}:{found.server.port}" if found.server else ""
    print(f"rendezvous server{address}: {found.server_note}")
    running = ", ".join(arn.rpartition(":")[2] for arn in found.running)
    print(f"running: {running or 'nothing'}")
    print(f"costs {found.usd_per_hour:.4f} USD an hour, besides runs and stored data")
    return 0 if found.is_healthy else FAILED


def _destroy(options: argparse.Namespace) -> int:
    session = account_session(options)
    with explained():
        stack = StackOperations(session.client("cloudformation"), options.stack_name).own()
        if stack is None:
            print_status(f"stack {options.stack_name!r} does not exist: there is nothing to delete")
            return 0
        bucket = stack.outputs.get("Bucket", "")
        with_bucket = (
            f" and bucket {bucket} with all results" if options.delete_results else f", but not bucket {bucket}"
        )
        if not (options.yes or _ask(f"delete stack {stack.name!r}{with_bucket}?")):
            print_status("nothing was deleted: run the command again and agree, or give --yes")
            return FAILED
        reporter = Reporter(print_status, lambda _: True)
        try:
            destroy_stack(session, stack, reporter.on_event, delete_results=options.delete_results)
        except StackError as error:
            print_status(f"fmi-emulator: {error}")
            return FAILED
    print_status(f"stack {stack.name!r} is deleted")
    if bucket and not options.delete_results:
        print_status(f"bucket {bucket} stays with its results; to delete it: aws s3 rb --force s3://{bucket}")
    return 0


def _confirm_changes(changes: Sequence[Change], *, agreed: bool) -> bool:
    print_status("changes:")
    for change in changes:
        print_status(f"  {change}")
    return agreed or _ask("apply them?")


def _ask(question: str) -> bool:
    """Ask on the terminal. Without one, the answer is no."""
    if not sys.stdin.isatty():
        return False
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
