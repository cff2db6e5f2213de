"""FastFlow3D for a GPU: the steps from points to flow, of fixed shapes, so that a CUDA graph can hold them.

Convolutions are dense and run by cuDNN, channels last, without biases: each would be a pass of its own. The encoder's
are added with GELU. The decoder is affine, so that what its biases come to is known beforehand, borders included, and
is added at the points. That leaves a linear decoder, whose 1×1 convolutions fold into 3×3 ones without regard to the
zeros around the maps: the lateral one into the one that joins it, the coarse one into the end of the level before.
"""

from __future__ import annotations

import math
import warnings
from functools import cache
from types import ModuleType

import torch
from torch import Tensor
from torch.nn.functional import conv2d, interpolate

from zeroflow_core.fastflow3d.engine.cuda import plain
from zeroflow_core.fastflow3d.engine.cuda.plain import Grid, PointLayers
from zeroflow_core.fastflow3d.engine.fold import Folded, Level


class Network:
    """Weights on a device, and the sums by pillar that a frame fills and leaves as it found them.

    macs:        multiply-adds of a frame's convolutions
    bytes_moved: what they read and write at least: inputs, outputs and weights
    """

    def __init__(self, folded: Folded, low: Tensor, size: Tensor, dtype: torch.dtype, device: torch.device) -> None:
        """low, size: the grid's lower corner and the size of a pillar, (3,) float32, as PillarGrid has them"""
        config, self._dtype = folded.config, dtype
        self._kernels = _kernels_for(device)
        self._grid = Grid(low.to(device), size.to(device), config.cells)

        def weight(of: Tensor) -> Tensor:
            return of.to(device, dtype).contiguous(memory_format=torch.channels_last)

        def layer(of: Tensor) -> Tensor:
            return of.to(device).contiguous()

        self._encoder = [
            [(weight(conv.weight), layer(conv.bias), conv.stride) for conv in stage] for stage in folded.encoder
        ]
        self._coarse = weight(folded.levels[0].coarse.weight)
        following = [level.coarse.weight for level in folded.levels[1:]]
        self._levels = [
            (weight(_joined(level)), weight(_out_then(level, coarse)))
            for level, coarse in zip(folded.levels, [*following, None], strict=True)
        ]
        self._last = weight(folded.last.weight)
        self._points = PointLayers(
            *(layer(folded.embed_weight.T), layer(folded.embed_bias)),
            *(layer(folded.canvas.T), layer(folded.offsets.T), layer(_of_nothing(folded))),
            *(layer(folded.out_weight.T), layer(folded.out_bias)),
        )
        pillars = 2 * config.cells**2
        self._sums = torch.zeros(pillars, 4, dtype=torch.float32, device=device)
        self._embedded = torch.zeros(pillars, config.channels, dtype=torch.float32, device=device)
        self.macs, self.bytes_moved = self._count()

    def frame(self, points: Tensor, flow: Tensor) -> None:
        """points (2,K,3) float32 of pc0 and pc1, metres, NaN in rows without one → flow (K,3) of pc0's, NaN for points
        outside of the grid."""
        steps, grid, layers = self._kernels, self._grid, self._points
        pillars, offsets = steps.locate(points, grid, self._sums)
        steps.embed(points, pillars, offsets, self._sums, layers, self._embedded)
        canvases = steps.canvas(self._sums, self._embedded, grid.cells, self._dtype)
        maps = [canvases]
        for stage in self._encoder:
            x = maps[-1]
            for weight, bias, stride in stage:
                x = steps.bias_gelu(conv2d(x, weight, stride=stride, padding=1), bias)
            maps.append(x)
        x = conv2d(torch.cat(maps.pop().split(1), dim=1), self._coarse)
        for join, out in self._levels:
            x = conv2d(steps.decoder_input(x, maps.pop()), join, padding=1)
            x = conv2d(x, out, padding=1)
        motion = conv2d(x, self._last, padding=1)
        steps.head(pillars, offsets, motion, canvases, layers, flow)

    def macs_of_points(self, points0: int, points1: int) -> int:
        """Multiply-adds of all that is computed for each point of pc0 and pc1."""
        layers = self._points
        head = layers.canvas.numel() + layers.offsets.numel() + layers.out.numel()
        return (points0 + points1) * layers.embed.numel() + points0 * head

    def _count(self) -> tuple[int, int]:
        convolutions = []  # weight, clouds, output's cells a side, stride
        for k, stage in enumerate(self._encoder, start=1):
            convolutions += [(weight, 2, self._grid.cells >> k, stride) for weight, _, stride in stage]
        convolutions.append((self._coarse, 1, self._grid.cells >> len(self._levels), 1))
        for k, level in enumerate(self._levels, start=1):
            convolutions += [(weight, 1, self._grid.cells >> (len(self._levels) - k), 1) for weight in level]
        convolutions.append((self._last, 1, self._grid.cells, 1))
        macs = sum(clouds * side**2 * weight.numel() for weight, clouds, side, _ in convolutions)
        numbers = sum(
            clouds * side**2 * (weight.shape[0] + stride**2 * weight.shape[1]) + weight.numel()
            for weight, clouds, side, stride in convolutions
        )
        return macs, numbers * self._dtype.itemsize


def _joined(level: Level) -> Tensor:
    """3×3 weights on the upsampled map and on both clouds' maps: the lateral convolution folded into `join`."""
    upsampled, lateral = level.join.weight.double().chunk(2, dim=1)
    folded = torch.einsum("olyx,lm->omyx", lateral, level.lateral.weight[:, :, 0, 0].double())
    return torch.cat([upsampled, folded], dim=1).float()


def _out_then(level: Level, coarse: Tensor | None) -> Tensor:
    """3×3 weights of `out` and of the next level's coarse convolution after it."""
    if coarse is None:
        return level.out.weight
    return torch.einsum("co,olyx->clyx", coarse[:, :, 0, 0].double(), level.out.weight.double()).float()


def _of_nothing(folded: Folded) -> Tensor:
    """The decoder's map for maps of zeros, (n,n,H), with all biases up to the head's GELU.

    All rows and columns that no border reaches are alike, so that a smaller grid shows each that there is: n // 2 of
    them from either border on, and the one at n // 2 stands for those between.
    """
    stages, reach = len(folded.levels), 0
    for _ in range(stages):
        reach = 2 * reach + 3  # pixels from the border: upsampled, then two convolutions
    margin = math.ceil((reach + 2) / 2**stages) * 2**stages  # the last convolution, and the row that stands for others
    side = min(folded.config.cells, 2 * margin)
    first = folded.levels[0].coarse.weight
    x = torch.zeros(1, first.shape[1], side >> stages, side >> stages, dtype=first.dtype)
    for level in folded.levels:
        x = interpolate(conv2d(x, level.coarse.weight, level.coarse.bias), scale_factor=2, mode="bilinear")
        lateral = level.lateral.bias[None, :, None, None].expand(-1, -1, *x.shape[2:])
        x = conv2d(torch.cat([x, lateral], dim=1), level.join.weight, level.join.bias, padding=1)
        x = conv2d(x, level.out.weight, level.out.bias, padding=1)
    x = conv2d(x, folded.last.weight, folded.last.bias + folded.bias, padding=1)
    return x[0].permute(1, 2, 0)


@cache
def _kernels_for(device: torch.device) -> ModuleType:
    """Triton kernels where Triton works: it must be installed, know the GPU, and find a C compiler."""
    if device.type != "cuda":
        return plain
    try:
        from zeroflow_core.fastflow3d.engine.cuda import kernels

        kernels.bias_gelu(torch.zeros(1, 8, 1, 1, device=device), torch.zeros(8, device=device))
    except torch.OutOfMemoryError:  # which says nothing of Triton, and may pass
        raise
    except Exception as problem:  # Triton, the driver and the compiler each have their own
        warnings.warn(f"Triton does not work on {device}; plain PyTorch is slower: {problem}", stacklevel=4)
        return plain
    return kernels
