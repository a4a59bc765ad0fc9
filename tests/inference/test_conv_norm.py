from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from inference.conv_norm import ConvNorm, fold_batch_norm
from inference.model import AstroMAE, AstroMAEConfig


@pytest.mark.parametrize(("kernel", "groups"), [(1, 1), (3, 1), (5, 1), (1, 4)])
def test_folding_does_not_change_the_output(kernel: int, groups: int) -> None:
    module = ConvNorm(8, 16, kernel, groups)
    for _ in range(5):
        module(3.0 * torch.randn(16, 8, 6, 6) + 1.0)  # collect statistics
    module.eval()
    images = torch.randn(4, 8, 6, 6)
    folded = fold_batch_norm(module)
    assert isinstance(folded.norm, nn.Identity)
    torch.testing.assert_close(folded(images), module(images), rtol=1e-5, atol=1e-5)


def test_folding_does_not_modify_the_original() -> None:
    network = AstroMAE(AstroMAEConfig.small())
    before = copy.deepcopy(network.state_dict())
    folded = fold_batch_norm(network)
    assert network.training
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])
