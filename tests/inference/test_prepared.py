"""The network prepared for inference on a CPU predicts what the network does."""

from __future__ import annotations

from collections.abc import Iterator
from unittest import mock

import pytest
import torch
from torch import nn

from inference import packed
from inference.estimator import Estimator
from inference.model import AstroMAE, AstroMAEConfig
from inference.packed import PackedConv
from inference.partition import Partition
from inference.prepared import PreparedAstroMAE

TINY = AstroMAEConfig(
    dim=24,
    depth=2,
    heads=3,
    groups=4,
    stem=6,
    inception_widths=(3, 2, 4, 2, 5),
    features=10,
    magnitude_width=12,
    magnitude_depth=2,
    head_width=7,
)


def trained(config: AstroMAEConfig) -> AstroMAE:
    """Return a network whose norms differ from the identity, as after training."""
    torch.manual_seed(1)
    network = AstroMAE(config).eval()
    for module in network.modules():
        if isinstance(module, nn.LayerNorm | nn.BatchNorm2d):
            for tensor in (module.weight, module.bias):
                nn.init.uniform_(tensor, 0.5, 1.5)
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = torch.rand(module.num_features)
            module.running_var = 0.5 + torch.rand(module.num_features)
    for parameter in network.parameters():
        if parameter.dim() == 1:
            nn.init.uniform_(parameter, -0.5, 0.5)
    return network


@pytest.fixture(params=[True, False], ids=["oneDNN", "torch"])
def has_onednn(request: pytest.FixtureRequest) -> Iterator[bool]:
    """With oneDNN, where this torch has it, and as on a machine without."""
    if request.param and not torch.backends.mkldnn.is_available():
        pytest.skip("this build of torch has no oneDNN")
    if request.param:
        yield True
        return
    with mock.patch.object(packed, "_operators", return_value=None):
        yield False


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("n", [1, 7, 16])
def test_every_merged_layer_computes_what_the_network_does(
    has_onednn: bool, memory_format: torch.memory_format, n: int
) -> None:
    network = trained(TINY)
    images = torch.randn(n, 5, 32, 32).contiguous(memory_format=memory_format)
    magnitudes = torch.randn(n, 5)
    prepared = PreparedAstroMAE(network, 16)
    with torch.inference_mode():
        expected = network(images, magnitudes)
        torch.testing.assert_close(prepared(images, magnitudes), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(prepared(images, magnitudes), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(network(images, magnitudes), expected, rtol=0.0, atol=0.0)


@pytest.mark.parametrize("silu", [False, True])
def test_a_packed_convolution_computes_the_layer(has_onednn: bool, silu: bool) -> None:
    function = nn.SiLU() if silu else nn.Identity()
    conv, images = nn.Conv2d(8, 12, 3, padding=1, groups=2), torch.randn(2, 8, 4, 4)
    with torch.inference_mode():
        torch.testing.assert_close(PackedConv(conv, 4, 2, silu=silu)(images), function(conv(images)))


def test_a_value_that_is_not_finite_is_not_lost(has_onednn: bool) -> None:
    """A redshift that is not finite is an error later; a finite one would be wrong without notice."""
    prepared = PreparedAstroMAE(trained(TINY), 4)
    images, magnitudes = torch.zeros(4, 5, 32, 32), torch.zeros(4, 5)
    images[1], images[2, 3, 9, 9], magnitudes[3] = torch.inf, torch.nan, torch.nan
    with torch.inference_mode():
        assert torch.isfinite(prepared(images, magnitudes))[:, 0].tolist() == [True, False, False, False]


def test_the_shipped_network_predicts_the_same_redshifts_when_prepared(
    shipped: Estimator, partition: Partition
) -> None:
    with torch.inference_mode():
        plain = shipped(partition.images, partition.magnitudes)
        prepared = shipped.for_cpu()(
            partition.images.contiguous(memory_format=torch.channels_last), partition.magnitudes
        )
    torch.testing.assert_close(prepared, plain, rtol=0.0, atol=1e-5)
