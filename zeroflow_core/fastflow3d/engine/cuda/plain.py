"""The steps of a frame between the convolutions, in plain PyTorch: fixed shapes, no synchronisation, any device.

`kernels` has the same functions as Triton kernels, many times faster, for GPUs that have it. fp32 products of the
point layers are as exact here as the process asks of torch, which is exact unless somebody asks for TF32.

K is the points' capacity, C the channels of a pillar, L those of a level's lateral maps, both clouds together, H those
of the head's hidden layer. Pillars of both clouds: cloud · cells² + y · cells + x.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import gelu, interpolate, linear, relu


class Grid(NamedTuple):
    """Lower corner and size of a pillar, (3,) float32 each, metres; pillars a side."""

    low: Tensor
    size: Tensor
    cells: int


class PointLayers(NamedTuple):
    """What is computed for each point; float32, input channels first.

    embed, embed_bias: (9,C), (C,)
    canvas, offsets:   (2C,H), (3,H): what the head's first layer adds to its map
    rest:              (n,n,H), n ≤ cells: what else it adds, in pillars near the borders; its row and column n // 2
                       stand for all others
    out, out_bias:     (H,3), (3,)
    """

    embed: Tensor
    embed_bias: Tensor
    canvas: Tensor
    offsets: Tensor
    rest: Tensor
    out: Tensor
    out_bias: Tensor


def locate(points: Tensor, grid: Grid, sums: Tensor) -> tuple[Tensor, Tensor]:
    """The pillars (2,K) int32 that the points (2,K,3) float32 of both clouds are in, −1 for points outside of the grid
    or not finite; and their offsets (2,K,3) from its centre, which mean nothing for those.

    Adds to sums (2·cells²,4) of each pillar the offsets of its points, and their number. The sums must be zero before;
    `canvas` sees to it.
    """
    # fp32 with a true division, as in PillarGrid; by a number of the host, a GPU would multiply by its reciprocal.
    position = torch.floor((points - grid.low) / grid.size)
    column, row, up = position.unbind(dim=2)
    inside = (column >= 0) & (column < grid.cells) & (row >= 0) & (row < grid.cells) & (up >= 0) & (up < 1)
    position = torch.where(inside[..., None], position, 0.0)
    offsets = points - (position * grid.size + (grid.size / 2 + grid.low))
    column, row, _ = position.int().unbind(dim=2)
    cloud = torch.arange(2, dtype=torch.int32, device=points.device)[:, None]
    pillars = torch.where(inside, (cloud * grid.cells + row) * grid.cells + column, -1)
    _add_rows(sums.zero_(), pillars, torch.cat([offsets, torch.ones_like(offsets[..., :1])], dim=2))
    return pillars, offsets


def embed(
    points: Tensor, pillars: Tensor, offsets: Tensor, sums: Tensor, layers: PointLayers, embedded: Tensor
) -> None:
    """Add the features of each point to its pillar's, embedded (2·cells²,C). It must be zero before; `canvas` sees to
    it."""
    total = sums[pillars.clamp(min=0).long()]
    # p − the points' mean is its offset − the offsets' mean, which rounds less.
    features = torch.cat([points, offsets - total[..., :3] / total[..., 3:], offsets], dim=2)
    _add_rows(embedded.zero_(), pillars, relu(linear(features, layers.embed.T, layers.embed_bias)))


def canvas(sums: Tensor, embedded: Tensor, cells: int, dtype: torch.dtype) -> Tensor:
    """Both clouds' canvases (2,C,cells,cells), channels last: the pillars' means, zero where no point is. What it is
    given may be used again."""
    means = embedded / sums[:, 3:].clamp(min=1)
    return means.to(dtype).view(2, cells, cells, -1).permute(0, 3, 1, 2)


def bias_gelu(x: Tensor, bias: Tensor) -> Tensor:
    """Exact GELU of x (B,C,h,w) + bias (C,) float32. May overwrite x."""
    return gelu(x + bias[:, None, None]).to(x.dtype)


def decoder_input(coarse: Tensor, maps: Tensor) -> Tensor:
    """coarse (1,L,h,w), upsampled ×2, and the maps (2,L/2,2h,2w) of both clouds as (1,2L,2h,2w)."""
    finer = interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)
    return torch.cat([finer, *maps.split(1)], dim=1)


def head(pillars: Tensor, offsets: Tensor, motion: Tensor, canvases: Tensor, layers: PointLayers, flow: Tensor) -> None:
    """flow (K,3) of pc0's points, NaN for those outside, from the map (1,H,cells,cells) and the canvases."""
    is_inside, at, cells, n = pillars[0] >= 0, pillars[0].clamp(min=0).long(), motion.shape[3], len(layers.rest)
    row, column = (place - (place - n // 2).clamp(0, cells - n) for place in (at // cells, at % cells))
    maps = [channels.flatten(1).T[at].float() for channels in (motion[0], *canvases)]
    hidden = maps[0] + layers.rest[row, column] + torch.cat(maps[1:], dim=1) @ layers.canvas
    estimate = gelu(hidden + offsets[0] @ layers.offsets) @ layers.out + layers.out_bias
    flow.copy_(torch.where(is_inside[:, None], estimate, torch.nan))


def _add_rows(total: Tensor, pillars: Tensor, values: Tensor) -> None:
    """Add to the rows of each pillar the values (2,K,·) of its points."""
    values = torch.where(pillars[..., None] >= 0, values, 0.0)
    total.index_add_(0, pillars.clamp(min=0).long().flatten(), values.flatten(0, 1))
