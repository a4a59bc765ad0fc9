from __future__ import annotations

import pytest
import torch

from inference.model import AstroMAE, AstroMAEConfig, count_parameters

PUBLISHED_PARTS = {
    "vision.patch_embed": 61_632,
    "vision.blocks": 5_439_744,
    "vision.head": 1_413_840,
    "inception": 1_447_000,
    "magnitudes": 4_204_544,
    "head": 3_295_233,
}


@pytest.fixture(scope="module")
def published() -> AstroMAE:
    return AstroMAE(AstroMAEConfig.published()).eval()


def test_the_published_network_has_the_published_number_of_parameters(published: AstroMAE) -> None:
    assert count_parameters(published) == 15_902_889


@pytest.mark.parametrize(("part", "count"), PUBLISHED_PARTS.items())
def test_each_part_has_the_published_number_of_parameters(published: AstroMAE, part: str, count: int) -> None:
    assert count_parameters(published.get_submodule(part)) == count


@pytest.mark.parametrize("config", [AstroMAEConfig.published(), AstroMAEConfig.small()])
def test_the_output_is_one_number_per_galaxy(config: AstroMAEConfig) -> None:
    network = AstroMAE(config).eval()
    with torch.inference_mode():
        assert network(torch.randn(3, 5, 32, 32), torch.randn(3, 5)).shape == (3, 1)


def test_the_small_network_has_a_fortieth_of_the_parameters() -> None:
    assert 300_000 < count_parameters(AstroMAE(AstroMAEConfig.small())) < 400_000


def test_all_parameters_except_those_of_the_unused_branch_have_gradients() -> None:
    network = AstroMAE(AstroMAEConfig.small())
    network(torch.randn(4, 5, 32, 32), torch.randn(4, 5)).sum().backward()
    without_gradient = {name for name, parameter in network.named_parameters() if parameter.grad is None}
    assert without_gradient == {name for name in without_gradient if name.startswith("inception.body.8.five")}
    assert len(without_gradient) == 8


def test_the_convolution_module_changes_the_patch_tokens_and_not_the_class_token() -> None:
    block = AstroMAE(AstroMAEConfig.small()).eval().vision.blocks[0]
    assert isinstance(block, torch.nn.Module)
    for name, parameter in block.named_parameters():
        if not name.startswith("convolution"):
            torch.nn.init.zeros_(parameter)
    tokens = torch.randn(2, 17, 64)
    with torch.inference_mode():
        change = block(tokens) - tokens
    assert torch.equal(change[:, 0], torch.zeros(2, 64))
    assert change[:, 1:].abs().min(dim=2).values.max() > 0
