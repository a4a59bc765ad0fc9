"""``fmi-emulator image build``: builds the executor's image, which runs ranks locally and on AWS."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from emulator.cli.exit_codes import print_status
from emulator.fmi.executor.image import DEFAULT_BASE_IMAGE, ImageRequest, executor_image

if TYPE_CHECKING:
    from argparse import _SubParsersAction

_DESCRIPTION = """\
Build the executor's image: the functions of a run, fmi, boto3 and numpy behind AWS's runtime client.

The name of the image contains the digest of all that goes into it: building again is fast, and changes nothing. It is
printed on standard output. Packages are downloaded here, for the Python of the base image; the build needs no network.
"""
_EXAMPLES = """\
examples:
  fmi-emulator image build
  fmi-emulator image build --base-image python:3.12-slim --requirements requirements.txt --tag my-executor
  fmi-emulator image build --preload torch          install torch, and import it in the init phase
  fmi-emulator deploy --image $(fmi-emulator image build)      deploy it on AWS, as functions and rendezvous server

Without a registry, import a base:
  mmdebstrap --variant=minbase --include=python3,python3-venv bookworm base.tar
  docker import base.tar base && fmi-emulator image build --base-image base

exit status: 0 if the image is there, 2 if it could not be built, 130 after Ctrl-C
"""


def add_parser(commands: "_SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = commands.add_parser("image", help="build the image that ranks run in with --backend docker")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    build = actions.add_parser(
        "build",
        help="build the executor's image",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    build.add_argument(
        "--base-image",
        default=DEFAULT_BASE_IMAGE,
        metavar="REF",
        help="image with python3 to build on; pulled if it is not here (default %(default)s)",
    )
    build.add_argument("--tag", metavar="NAME", help="a further name of the image, for example my-executor")
    build.add_argument(
        "--requirements", type=Path, metavar="FILE", help="further packages, for example requirements.txt"
    )
    build.add_argument(
        "--preload",
        action="append",
        default=[],
        metavar="MODULE",
        help="install MODULE, too, and import it in the init phase, for example torch; may be repeated",
    )
    build.set_defaults(run=_build)


def _build(options: argparse.Namespace) -> int:
    from emulator.aws.sandboxes.containers.daemon import Daemon

    request = ImageRequest(options.base_image, options.requirements, tuple(options.preload), options.tag)
    print(executor_image(Daemon(), request, print_status))
    return 0
