"""Pushes an image of this machine to the stack's repository in ECR."""

import base64
import re
from collections.abc import Callable
from typing import Protocol

from emulator.errors import EmulatorError
from emulator.fmi.aws_session import AwsSession
from emulator.fmi.deployment.code import Architecture

# Architectures by the names that images have.
_OF_IMAGES = {Architecture.X86_64: "amd64", Architecture.ARM64: "arm64"}
_URI = re.compile(
    r"(?P<account>\d{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(\.cn)?/"
    r"[a-z0-9][a-z0-9._/-]*(:[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(@sha256:[0-9a-f]{64})?"
)


class ImageError(EmulatorError):
    """An image cannot be deployed."""


class ImageDaemon(Protocol):
    """The container daemon that has the image."""

    def image_architecture(self, reference: str) -> str:
        """Return the architecture that an image is built for, for example ``amd64``."""

    def push(self, reference: str, target: str, user: str, password: str, on_progress: Callable[[str], None]) -> str:
        """Push an image under the name of a repository; return its digest."""


def check_architecture(daemon: ImageDaemon, image: str, architecture: Architecture) -> None:
    """Check, before anything is made, that an image of this machine is there and runs on the stack's architecture.

    Raises
    ------
    ImageError
        If it is for another architecture. The daemon's own errors say that it has no such image.
    """
    found = daemon.image_architecture(image)
    wanted = _OF_IMAGES[architecture]
    if found and found != wanted:
        other = next((known.value for known, name in _OF_IMAGES.items() if name == found), "")
        advice = f"give --architecture {other}, or " if other else ""
        raise ImageError(
            f"image {image!r} is for {found}: expected one for {wanted}, the architecture of the stack's functions; "
            f"{advice}build it on a base image for {wanted}"
        )


def check_uri(uri: str, region: str) -> None:
    """Check an image's URI: Lambda takes images from ECR in its own region alone.

    Raises
    ------
    ImageError
        If it is of another registry or region.
    """
    found = _URI.fullmatch(uri)
    if found is None:
        raise ImageError(
            f"invalid image URI {uri!r}: expected one in ECR, such as "
            f"123456789012.dkr.ecr.{region}.amazonaws.com/fmi:1; "
            "`fmi-emulator deploy --image NAME` pushes an image of this machine there"
        )
    if found["region"] != region:
        raise ImageError(
            f"image {uri!r} is in {found['region']}, the stack in {region}: Lambda takes images of its own region; "
            f"push it to {region}, or give --region {found['region']}"
        )


def push_image(
    session: AwsSession, daemon: ImageDaemon, image: str, repository: str, note: Callable[[str], None]
) -> str:
    """Push an image to a repository; return its URI with its digest, which never means another image.

    Parameters
    ----------
    session
        The account.
    daemon
        Has the image, and sends it. Layers that the repository has are not sent again.
    image
        The image's name here.
    repository
        URI of the repository.
    note
        Prints a line.
    """
    granted = session.client("ecr").get_authorization_token()["authorizationData"][0]
    user, _, password = base64.b64decode(granted["authorizationToken"]).decode().partition(":")
    tag = image.rpartition(":")[2] if ":" in image.rpartition("/")[2] else "latest"
    note(f"pushing image {image} to {repository}")
    digest = daemon.push(image, f"{repository}:{tag}", user, password, note)
    return f"{repository}@{digest}"
