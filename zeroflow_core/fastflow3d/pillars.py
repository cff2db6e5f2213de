"""Points → pillars → canvas: the first step of FastFlow3D (ZeroFlow's embedder)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from zeroflow_core.fastflow3d.config import FastFlow3DConfig


class Pillars(NamedTuple):
    """The points of one cloud that lie in the grid, M of N, in their order.

    points:  (M,3) float32, metres
    offsets: (M,3) float32, metres from the pillar's centre
    cell:    (M,) int64, y · cells + x
    index:   (M,) int64, row of each point in the cloud
    """

    points: Tensor
    offsets: Tensor
    cell: Tensor
    index: Tensor


class PillarGrid(nn.Module):
    """Assigns points to pillars. Has no weights."""

    def __init__(self, config: FastFlow3DConfig) -> None:
        super().__init__()
        self.cells = config.cells
        height = config.maximum[2] - config.minimum[2]
        self.register_buffer("minimum", torch.tensor(config.minimum), persistent=False)
        self.register_buffer(
            "size", torch.tensor([config.pillar_size, config.pillar_size, height]), persistent=False
        )
        self.register_buffer("shape", torch.tensor([self.cells, self.cells, 1]), persistent=False)

    def forward(self, cloud: Tensor) -> Pillars:
        """cloud: (N,3) float32; points outside the grid or not finite are left out."""
        # fp32 with a true division: float64 or a reciprocal puts border points into other pillars.
        position = torch.floor((cloud - self.minimum) / self.size)
        inside = ((position >= 0) & (position < self.shape)).all(dim=1)  # False for NaN
        index = torch.nonzero(inside).squeeze(1)
        points, position = cloud[index], position[index]
        offsets = points - (position * self.size + self.minimum + self.size / 2)
        cell = position[:, 1].long() * self.cells + position[:, 0].long()
        return Pillars(points, offsets, cell, index)


class PillarFeatureNet(nn.Module):
    """Nine features per point → C features per pillar: Linear, BatchNorm, ReLU, mean over the pillar."""

    def __init__(self, config: FastFlow3DConfig) -> None:
        super().__init__()
        self.grid = PillarGrid(config)
        self.pfn_layers = nn.ModuleList(
            [
                nn.Sequential(
                    nn.Linear(9, config.channels, bias=False),
                    nn.BatchNorm1d(config.channels, eps=1e-3, momentum=0.01),
                    nn.ReLU(),
                )
            ]
        )

    def forward(self, pillars: Pillars) -> Tensor:
        """Canvas (C, cells, cells) as (channel, y, x); zero where there is no point."""
        cells, (points, _, cell, _) = self.grid.cells, pillars
        count = torch.zeros(cells * cells, device=cell.device).index_add_(0, cell, torch.ones_like(points[:, 0]))
        count = count.clamp_(min=1).unsqueeze(1)
        mean = _sum_by_cell(points, cell, cells) / count
        position = torch.stack([cell % cells, cell // cells, torch.zeros_like(cell)], dim=1).to(points.dtype)
        centre = position * self.grid.size + (self.grid.size / 2 + self.grid.minimum)
        features = torch.cat([points, points - mean[cell], points - centre], dim=1)
        features = self.pfn_layers[0](features)
        canvas = _sum_by_cell(features, cell, cells) / count
        return canvas.T.reshape(-1, cells, cells)


def _sum_by_cell(values: Tensor, cell: Tensor, cells: int) -> Tensor:
    """Sum (cells², K) of the rows of `values` (M,K) that fall into each cell."""
    return torch.zeros(cells * cells, values.shape[1], device=values.device).index_add(0, cell, values)
