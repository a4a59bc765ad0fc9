"""AstroMAE prepared for inference on a CPU: fewer layers, packed convolutions, and the same output.

What is linear between two activations becomes one layer: BatchNorm and LayerNorm's scale with the layer beside them,
and the branches' last layers with the head's first. In the last block the mean over patches comes before the last
layer, since only the mean is used. Products of weights are computed in float64, so the output differs by rounding
alone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from inference.conv_norm import ConvNorm, fold_batch_norm
from inference.inception import Inception, InceptionBranch
from inference.model import AstroMAE
from inference.packed import PackedConv
from inference.vit import Block, VisionBranch


class PreparedAstroMAE(nn.Module):
    """The network on normalised inputs, as `AstroMAE` is: images [B, 5, 32, 32] and magnitudes [B, 5] -> [B, 1].

    Parameters
    ----------
    network : AstroMAE
        Its weights are copied.
    batch : int
        The usual number of galaxies, for which the layout of convolutions is chosen; any other is computed, too.
    """

    def __init__(self, network: AstroMAE, batch: int) -> None:
        super().__init__()
        network = fold_batch_norm(network)
        config = self.config = network.config
        self.vision = _PreparedVision(network.vision, config.image_size, batch)
        self.inception = _PreparedInception(network.inception, config.image_size, batch)
        hidden = [layer for layer in network.magnitudes if isinstance(layer, nn.Linear)]
        layers = [[_FixedLinear(one.weight, one.bias), nn.ReLU(inplace=True)] for one in hidden[:-1]]
        self.magnitudes = nn.Sequential(*(layer for pair in layers for layer in pair))
        head, output = _linear(network.head[0]), _linear(network.head[2])
        by_branch = torch.split(head.weight, [config.features, config.features, config.magnitude_width], dim=1)
        last = (_linear(network.vision.head[2]), _linear(network.inception.head[2]), hidden[-1])
        merged = [_merged(weight, inner) for weight, inner in zip(by_branch, last, strict=True)]
        bias = head.bias.double() + sum(one_bias for _, one_bias in merged)
        self.head = nn.ModuleList(
            _FixedLinear(weight, bias if index == 0 else None) for index, (weight, _) in enumerate(merged)
        )
        self.output = _FixedLinear(output.weight, output.bias)

    def forward(self, images: Tensor, magnitudes: Tensor) -> Tensor:
        """Return the normalised redshift [B, 1]."""
        features = (self.vision(images), self.inception(images), self.magnitudes(magnitudes))
        hidden: Tensor = self.head[0](features[0])
        for layer, branch in zip(list(self.head)[1:], features[1:], strict=True):
            hidden += layer(branch)
        out: Tensor = self.output(functional.relu_(hidden))
        return out


class _FixedLinear(nn.Module):
    """A linear layer [rows, in] -> [rows, out] with a float32 copy of these weights.

    torch's own product (MKL): oneDNN's, whose weights are reordered once, took 15 % longer on an AMD EPYC with AVX2.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("weight", weight.detach().to(torch.float32, copy=True))
        self.register_buffer("bias", None if bias is None else bias.detach().to(torch.float32, copy=True))

    def forward(self, rows: Tensor) -> Tensor:
        """Return [rows, out]."""
        return functional.linear(rows, self.weight, self.bias)


class _PreparedVision(nn.Module):
    """The vision branch up to its last activation: images -> [B, features]."""

    def __init__(self, branch: VisionBranch, size: int, batch: int) -> None:
        super().__init__()
        embed = branch.patch_embed
        self.patch_embed = PackedConv(embed, size, batch)
        self.class_token, self.position = branch.class_token, branch.position
        blocks = [block for block in branch.blocks if isinstance(block, Block)]
        self.blocks = nn.Sequential(*(_PreparedBlock(block, batch) for block in blocks[:-1]))
        self.last = _PreparedBlock(blocks[-1], batch)
        self.norm = branch.norm
        self.head = _FixedLinear(*_merged_layer(_linear(branch.head[0]), branch.project))

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patch_embed(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(len(images), -1, -1), patches], dim=1).add_(self.position)
        pooled = self.last.pooled(self.blocks(tokens))
        out: Tensor = functional.relu_(self.head(self.norm(pooled)))
        return out


class _PreparedBlock(nn.Module):
    """A transformer block; `pooled` is the last one with the mean over its patches."""

    def __init__(self, block: Block, batch: int) -> None:
        super().__init__()
        attention = block.attention
        self.side, self.heads = block.side, attention.heads
        bias = torch.cat([attention.q_bias, torch.zeros_like(attention.q_bias), attention.v_bias])
        self.eps = block.norm1.eps, block.norm2.eps
        self.qkv = _FixedLinear(*_scaled(attention.qkv.weight, bias, block.norm1))
        self.proj = _FixedLinear(attention.proj.weight, attention.proj.bias)
        first, second = _linear(block.mlp[0]), _linear(block.mlp[2])
        self.widen = _FixedLinear(*_scaled(first.weight, first.bias, block.norm2))
        self.narrow = _FixedLinear(second.weight, second.bias)
        self.convolution_widen = PackedConv(block.convolution.widen.conv, block.side, batch, silu=True)
        self.convolution_narrow = PackedConv(block.convolution.narrow, block.side, batch)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return [B, 1 + patches, dim]; the tokens' memory is used again."""
        mixed = self._attention(tokens, from_token=0)
        mixed += tokens
        mixed[:, 1:] += self._convolution(tokens)
        out: Tensor = self.narrow(self._hidden(mixed)).view_as(mixed)
        out += mixed
        return out

    def pooled(self, tokens: Tensor) -> Tensor:
        """Return the mean of the patches' outputs, [B, dim]. Linear layers are applied to the mean alone."""
        mixed = self._attention(tokens, from_token=1)
        mixed += tokens[:, 1:]
        mixed += self._convolution(tokens)
        hidden = self._hidden(mixed).view(*mixed.shape[:2], -1)
        out: Tensor = mixed.mean(dim=1) + self.narrow(hidden.mean(dim=1))
        return out

    def _attention(self, tokens: Tensor, from_token: int) -> Tensor:
        """Return the attention's output of the tokens from this one on."""
        batch, length, dim = tokens.shape
        qkv = self.qkv(functional.layer_norm(tokens, (dim,), eps=self.eps[0]).view(-1, dim))
        q, k, v = qkv.view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q[:, :, from_token:], k, v)
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(-1, dim))
        return out.view(batch, length - from_token, dim)

    def _hidden(self, tokens: Tensor) -> Tensor:
        dim = tokens.shape[-1]
        hidden = self.widen(functional.layer_norm(tokens, (dim,), eps=self.eps[1]).view(-1, dim))
        out: Tensor = functional.gelu(hidden)
        return out

    def _convolution(self, tokens: Tensor) -> Tensor:
        batch, _, dim = tokens.shape
        grid = tokens[:, 1:].transpose(1, 2).reshape(batch, dim, self.side, self.side)
        convolved = self.convolution_narrow(self.convolution_widen(grid))
        out: Tensor = convolved.flatten(2).transpose(1, 2)
        return out


class _PreparedInception(nn.Module):
    """The Inception branch up to its last activation: images -> [B, features]."""

    def __init__(self, branch: InceptionBranch, size: int, batch: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for layer in branch.body:
            if isinstance(layer, nn.AvgPool2d):
                layers.append(layer)
                size //= 2
            elif isinstance(layer, Inception):
                layers.append(_PreparedInceptionBlock(layer, size, batch))
            elif isinstance(layer, nn.Conv2d):
                layers.append(PackedConv(layer, size, batch))
            else:
                layers.append(layer)
        # A mean and a 1 x 1 convolution can change places: the mean of fewer channels is cheaper.
        layers[0], layers[1] = layers[1], layers[0]
        self.body = nn.Sequential(*layers)
        first = _linear(branch.head[0])
        self.head = _FixedLinear(first.weight, first.bias)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = functional.relu_(self.head(self.body(images)))
        return out


class _PreparedInceptionBlock(nn.Module):
    """An Inception block whose 1 x 1 convolutions of its input are one."""

    def __init__(self, block: Inception, size: int, batch: int) -> None:
        super().__init__()
        first = [block.one, block.three_in, *([block.five_in] if block.n_branches == 4 else [])]
        self.width = block.one.conv.out_channels
        self.first = PackedConv(_side_by_side(first), size, batch)
        self.three = PackedConv(block.three.conv, size, batch)
        self.five = PackedConv(block.five.conv, size, batch) if block.n_branches == 4 else None
        self.pooled = PackedConv(block.pooled.conv, size, batch)

    def forward(self, images: Tensor) -> Tensor:
        one, *others = torch.split(functional.relu_(self.first(images)), self.width, dim=1)
        branches = [self.three(others[0])]
        if self.five is not None:
            branches.append(self.five(others[1]))
        branches.append(self.pooled(functional.max_pool2d(images, kernel_size=3, stride=1, padding=1)))
        return torch.cat([one, *(functional.relu_(branch) for branch in branches)], dim=1)


def _side_by_side(layers: list[ConvNorm]) -> nn.Conv2d:
    """Return one 1 x 1 convolution with the channels of several, whose BatchNorm is folded."""
    convs = [layer.conv for layer in layers]
    joined = nn.Conv2d(convs[0].in_channels, sum(conv.out_channels for conv in convs), kernel_size=1)
    joined.weight = nn.Parameter(torch.cat([conv.weight for conv in convs]))
    joined.bias = nn.Parameter(torch.cat([conv.bias for conv in convs if conv.bias is not None]))
    return joined


def _linear(layer: nn.Module) -> nn.Linear:
    if not isinstance(layer, nn.Linear):
        raise TypeError(f"invalid layer {type(layer).__name__}: expected Linear")
    return layer


def _merged(weight: Tensor, inner: nn.Linear) -> tuple[Tensor, Tensor]:
    """Return weight and bias of x -> weight (inner(x)), float64."""
    outer = weight.double()
    return outer @ inner.weight.double(), outer @ inner.bias.double()


def _merged_layer(layer: nn.Linear, inner: nn.Linear) -> tuple[Tensor, Tensor]:
    """Return weight and bias of x -> layer(inner(x)), float64."""
    weight, bias = _merged(layer.weight, inner)
    return weight, bias + layer.bias.double()


def _scaled(weight: Tensor, bias: Tensor, norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
    """Return weight and bias of a layer that follows the norm without its scale and shift, float64."""
    return weight.double() * norm.weight.double(), bias.double() + weight.double() @ norm.bias.double()
