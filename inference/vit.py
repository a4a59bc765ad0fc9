"""The vision-transformer branch of AstroMAE: attention between patches with a parallel convolution."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from inference.conv_norm import ConvNorm


class Attention(nn.Module):
    """Multi-head self-attention [B, T, dim] -> [B, T, dim]; queries and values have a bias, keys have none."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(dim))
        self.v_bias = nn.Parameter(torch.zeros(dim))
        self.proj = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the attention's output, [B, T, dim]."""
        batch, length, dim = tokens.shape
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        qkv = functional.linear(tokens, self.qkv.weight, bias)
        q, k, v = qkv.view(batch, length, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(batch, length, dim))
        return out


class PatchConvolution(nn.Module):
    """The parallel convolution module: grouped 1 x 1 convolutions over the patch grid, [B, dim, H, W] -> same shape."""

    def __init__(self, dim: int, expansion: int, groups: int) -> None:
        super().__init__()
        self.widen = ConvNorm(dim, expansion * dim, groups=groups)
        self.narrow = nn.Conv2d(expansion * dim, dim, kernel_size=1, groups=groups)

    def forward(self, grid: Tensor) -> Tensor:
        """Return [B, dim, H, W]."""
        out: Tensor = self.narrow(functional.silu(self.widen(grid)))
        return out


class Block(nn.Module):
    """A transformer block with the convolution module parallel to attention, on the un-normalised patch tokens only."""

    def __init__(self, dim: int, heads: int, expansion: int, groups: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.norm1 = nn.LayerNorm(dim)
        self.attention = Attention(dim, heads)
        self.convolution = PatchConvolution(dim, expansion, groups)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, expansion * dim), nn.GELU(), nn.Linear(expansion * dim, dim))

    def forward(self, tokens: Tensor) -> Tensor:
        """Return [B, 1 + patches, dim]."""
        grid = tokens[:, 1:].transpose(1, 2).reshape(len(tokens), -1, self.side, self.side)
        convolved = self.convolution(grid).flatten(2).transpose(1, 2)
        class_token = torch.zeros_like(tokens[:, :1])
        tokens = tokens + self.attention(self.norm1(tokens)) + torch.cat([class_token, convolved], dim=1)
        out: Tensor = tokens + self.mlp(self.norm2(tokens))
        return out


class VisionBranch(nn.Module):
    """Images [B, bands, size, size] -> features [B, features]."""

    def __init__(
        self,
        *,
        bands: int,
        image_size: int,
        patch: int,
        dim: int,
        depth: int,
        heads: int,
        expansion: int,
        groups: int,
        features: int,
    ) -> None:
        super().__init__()
        side = image_size // patch
        self.patch_embed = nn.Conv2d(bands, dim, kernel_size=patch, stride=patch)
        self.class_token = nn.Parameter(0.02 * torch.randn(1, 1, dim))
        self.position = nn.Parameter(0.02 * torch.randn(1, 1 + side * side, dim))
        self.blocks = nn.Sequential(*(Block(dim, heads, expansion, groups, side) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.project = nn.Linear(dim, dim)
        self.head = nn.Sequential(nn.Linear(dim, features), nn.ReLU(), nn.Linear(features, features))
        for parameter in (self.class_token, self.position):
            # On the meta device there is nothing to initialise, and the call would import torch's compiler: 3 s.
            if not parameter.is_meta:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, images: Tensor) -> Tensor:
        """Return [B, features]."""
        patches = self.patch_embed(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(len(images), -1, -1), patches], dim=1) + self.position
        pooled = self.blocks(tokens)[:, 1:].mean(dim=1)
        out: Tensor = self.head(self.project(self.norm(pooled)))
        return out
