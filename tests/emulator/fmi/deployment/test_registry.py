"""Images for a stack: which URIs Lambda takes, and for which architecture an image is."""

import pytest

from emulator.fmi.deployment.code import Architecture
from emulator.fmi.deployment.dry_run import DryDaemon
from emulator.fmi.deployment.registry import ImageError, check_architecture, check_uri

REGISTRY = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"


@pytest.mark.parametrize("name", ["fmi", "team/fmi-executor:1.2", f"fmi@sha256:{'0' * 64}", f"fmi:1@sha256:{'a' * 64}"])
def test_an_image_of_the_stacks_region_is_accepted(name: str) -> None:
    check_uri(f"{REGISTRY}/{name}", "eu-west-1")


def test_an_image_of_another_region_is_refused() -> None:
    with pytest.raises(ImageError, match=r"is in eu-west-1, the stack in us-east-1: .*, or give --region eu-west-1"):
        check_uri(f"{REGISTRY}/fmi:1", "us-east-1")


@pytest.mark.parametrize("uri", ["fmi:1", "docker.io/library/python:3", f"{REGISTRY}/", f"https://{REGISTRY}/fmi", ""])
def test_an_image_outside_of_ecr_is_refused(uri: str) -> None:
    with pytest.raises(ImageError, match=r"invalid image URI .*: expected one in ECR, such as .*deploy --image NAME"):
        check_uri(uri, "eu-west-1")


def test_an_image_for_another_architecture_is_refused() -> None:
    check_architecture(DryDaemon("amd64"), "fmi", Architecture.X86_64)
    check_architecture(DryDaemon("arm64"), "fmi", Architecture.ARM64)
    with pytest.raises(
        ImageError, match=r"is for arm64: expected one for amd64, .*; give --architecture arm64, or build"
    ):
        check_architecture(DryDaemon("arm64"), "fmi", Architecture.X86_64)
    with pytest.raises(ImageError, match=r"is for riscv64: expected one for arm64, .* functions; build it on a base"):
        check_architecture(DryDaemon("riscv64"), "fmi", Architecture.ARM64)
