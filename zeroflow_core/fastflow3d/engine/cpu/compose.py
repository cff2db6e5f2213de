"""The decoder's finest level as one product per pillar.

From the coarse map and the canvases to the head's first layer everything is linear, so what a pillar reads within
three cells becomes one row of a matrix: of the coarse map 5×5 cells, of both canvases 7×7. The matrix depends on the
pillar's parity (bilinear upsampling) and, within three cells of the border, on what lies beyond: convolutions pad
every map with zeros, also those between.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from zeroflow_core.fastflow3d.engine.fold import Folded


@dataclass(frozen=True)
class WindowProducts:
    """With n kinds of rows (and as many of columns):

    kind:   (cells,) int32: of each row of pillars, and of each column
    weight: (n·n, 25·L + 49·2C, K) float32 for kind of row · n + kind of column; L channels of the coarse map, once its
            1×1 convolution is done, and C of each canvas, pc0's first
    bias:   (n·n, K) float32
    """

    kind: np.ndarray
    weight: Tensor
    bias: Tensor


@torch.no_grad()
def compose(folded: Folded) -> WindowProducts:
    """The coarse map must be padded by two cells: the first repeats its border, the second is never weighed."""
    cells = folded.config.cells
    at = np.arange(cells)[:, None] + np.arange(-3, 4)
    inside = (at >= 0) & (at < cells)
    kinds, kind = np.unique(np.column_stack([inside, np.arange(cells) % 2]), axis=0, return_inverse=True)
    valid = torch.from_numpy(kinds[:, :7].astype(np.float64))
    up = torch.from_numpy(np.stack([_upsampling(int(parity)) for parity in kinds[:, 7]]))
    of_rows = [_of_a_row(folded, valid[i], up[i], valid, up) for i in range(len(kinds))]
    weight, bias = (torch.cat(parts) for parts in zip(*of_rows, strict=True))
    return WindowProducts(kind.reshape(-1).astype(np.int32), weight, bias)


def _of_a_row(folded: Folded, valid: Tensor, up: Tensor, across: Tensor, up_across: Tensor) -> tuple[Tensor, Tensor]:
    """Weight (n,·,K) and bias (n,K) of pillars in one kind of row and all n kinds of columns.

    valid, across: (7,), (n,7): which cells around the pillar lie in the grid;  up, up_across: see _upsampling
    """
    level, last = folded.levels[-1], folded.last
    mask = (valid[:, None] * across[:, None, :])[:, None, None]
    # Backwards from the pillar: how much each cell of each map counts, those outside the grid not at all.
    after_out = last.weight.double() * mask[..., 2:5, 2:5]
    after_join = _pulled_back(after_out, level.out.weight) * mask[..., 1:6, 1:6]
    before_join = _pulled_back(after_join, level.join.weight) * mask
    wide = level.coarse.weight.shape[0]
    upsampled, lateral = before_join.split([wide, before_join.shape[2] - wide], dim=2)
    coarse = torch.einsum("nkcyx,yi,nxj->nijck", upsampled, up, up_across)
    canvas = torch.einsum("nkcyx,cd->nyxdk", lateral, level.lateral.weight[:, :, 0, 0].double())
    canvas[:, 3, 3] += folded.canvas.double().T
    bias = (
        folded.bias.double()
        + last.bias.double()
        + torch.einsum("nkcyx,c->nk", after_out, level.out.bias.double())
        + torch.einsum("nkcyx,c->nk", after_join, level.join.bias.double())
        + torch.einsum("nkcyx,c->nk", lateral, level.lateral.bias.double())
    )
    weight = torch.cat([part.flatten(1, 3) for part in (coarse, canvas)], dim=1)
    return weight.float(), bias.float()


def _pulled_back(weights: Tensor, convolution: Tensor) -> Tensor:
    """What a convolution's inputs count, from what its outputs do: (n,K,O,s,s) → (n,K,I,s+2,s+2)."""
    n, outputs, _, size, _ = weights.shape
    inputs = convolution.shape[1]
    # One product for all taps; conv_transpose2d takes ten times as long in float64.
    taps = torch.einsum("nkoyx,oidj->nkiyxdj", weights, convolution.double())
    before = weights.new_zeros(n, outputs, inputs, size + 2, size + 2)
    for dy in range(3):
        for dx in range(3):
            before[..., dy : dy + size, dx : dx + size] += taps[..., dy, dx]
    return before


def _upsampling(parity: int) -> np.ndarray:
    """(7,5): seven fine cells around one of that parity, from five coarse ones around the one it lies in."""
    matrix = np.zeros((7, 5))
    for r in range(7):
        fine = parity - 3 + r  # counted from the first fine cell of the coarse one
        near = fine // 2
        matrix[r, near + 2] += 0.75
        matrix[r, near + (1 if fine % 2 else -1) + 2] += 0.25
    return matrix
