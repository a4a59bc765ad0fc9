"""A stand-in of the published network: its classes, names and shapes, with random weights, in modules of its own.

`saved` writes it as it was published: a pickled DataParallel whose classes are in packages that do not exist here.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

WIDTHS = ((32, 16), (64, 16), (64, 8), (32, 8), (32, 4))


def conv_block(inputs: int, outputs: int, kernel: int = 1) -> nn.Module:
    block = _make("blocks.photoz", "ConvBlock")
    block.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
    block.bn = nn.BatchNorm2d(outputs)
    return block


def inception_block(inputs: int, width: int) -> nn.Module:
    block = _make("blocks.photoz", "InceptionBlock")
    block.branch1 = conv_block(inputs, width)
    block.branch2 = nn.Sequential(conv_block(inputs, width), conv_block(width, width, 3))
    block.branch3 = nn.Sequential(conv_block(inputs, width), conv_block(width, width, 5))
    block.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1), conv_block(inputs, width))
    return block


def input_mix_model() -> nn.Module:
    model = _make("blocks.photoz", "Input_Mix_Model")
    model.device = "cuda"
    model.config = [{"in_channel": 32, "out_11": 16}]
    model.conv2d_init = nn.Conv2d(5, 32, 1)
    model.avgpool = nn.AvgPool2d(2)
    layers: list[nn.Module] = [nn.ReLU(), nn.Linear(1024, 1024)] * 4
    model.magnitude_block = nn.Sequential(nn.Linear(5, 1024), *(_copy(layer) for layer in layers))
    blocks = [inception_block(*widths) for widths in WIDTHS]
    model.vis_inception = nn.Sequential(
        model.conv2d_init, model.avgpool, *blocks[:2], nn.AvgPool2d(2), *blocks[2:4], nn.AvgPool2d(2), blocks[4],
        nn.Flatten(), nn.Linear(192, 1096), nn.ReLU(), nn.Linear(1096, 1096),
    )  # fmt: skip
    return model


def transformer_block() -> nn.Module:
    block = _make("blocks.normal_cell", "NormalCell")
    block.norm1, block.norm2 = nn.LayerNorm(192), nn.LayerNorm(192)
    block.attn = _make("timm.models.vision_transformer", "Attention")
    block.attn.qkv, block.attn.proj = nn.Linear(192, 576, bias=False), nn.Linear(192, 192)
    block.attn.q_bias, block.attn.v_bias = nn.Parameter(torch.randn(192)), nn.Parameter(torch.randn(192))
    block.mlp = _make("timm.models.layers.mlp", "Mlp")
    block.mlp.fc1, block.mlp.act, block.mlp.fc2 = nn.Linear(192, 768), nn.GELU(), nn.Linear(768, 192)
    block.PCM = nn.Sequential(
        nn.Conv2d(192, 768, 1, groups=48), nn.BatchNorm2d(768), nn.SiLU(), nn.Conv2d(768, 192, 1, groups=48)
    )
    block.drop_path = nn.Identity()
    return block


def vit_astro() -> nn.Module:
    network = _make("blocks.model_vit_inception", "ViT_Astro")
    network.embed_dim = 192
    network.fc_norm = nn.LayerNorm(192, eps=1e-6)
    network.head = nn.Linear(192, 192)
    network.inception_model = input_mix_model()
    network.cls_token = nn.Parameter(torch.randn(1, 1, 192), requires_grad=False)
    network.pos_embed = nn.Parameter(torch.randn(1, 17, 192), requires_grad=False)
    network.blocks = nn.ModuleList(transformer_block() for _ in range(12))
    network.patch_embed = _make("timm.models.layers.patch_embed", "PatchEmbed")
    network.patch_embed.proj = nn.Conv2d(5, 192, 8, 8)
    network.vit_block = nn.Sequential(nn.Linear(192, 1096), nn.ReLU(), nn.Linear(1096, 1096))
    network.concat_block = nn.Sequential(nn.Linear(3216, 1024), nn.ReLU(), nn.Linear(1024, 1))
    return network


def save(network: nn.Module, path: Path) -> None:
    """Write the network as a DataParallel whose classes cannot be imported afterwards."""
    with _modules():
        torch.save(nn.DataParallel(network), path)


_CLASSES: dict[tuple[str, str], type[nn.Module]] = {}


def _make(module: str, name: str) -> Any:
    if (module, name) not in _CLASSES:
        _CLASSES[module, name] = type(name, (nn.Module,), {"__module__": module, "__qualname__": name})
    return _CLASSES[module, name]()


@contextmanager
def _modules() -> Iterator[None]:
    """Put the classes where pickle looks for them."""
    before = dict(sys.modules)
    for (name, attribute), kind in _CLASSES.items():
        for end in range(1, name.count(".") + 2):
            package = ".".join(name.split(".")[:end])
            sys.modules.setdefault(package, types.ModuleType(package))
        setattr(sys.modules[name], attribute, kind)
    try:
        yield
    finally:
        for name in set(sys.modules) - set(before):
            del sys.modules[name]


def _copy(layer: nn.Module) -> nn.Module:
    return nn.Linear(1024, 1024) if isinstance(layer, nn.Linear) else nn.ReLU()
