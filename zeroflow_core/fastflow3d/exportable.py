"""The network as one graph of plain operators, for runtimes that know neither this package nor Python.

No shape depends on the data: points that are no points (outside the grid, not finite, padding) stay in the graph and
are given zero weight. All clouds of one length run through the same graph.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zeroflow_core.fastflow3d.engine.fold import Conv, Level, fold
from zeroflow_core.fastflow3d.model import FastFlow3D


class Exportable(nn.Module):
    """The same flow as the model's, up to fp32 rounding; weights folded (see fold.py).

    Sums over pillars are `scatter_add`, which becomes ONNX's ScatterElements: TensorRT adds with that operator, but
    not with ScatterND, which `index_add` would become.
    """

    def __init__(self, model: FastFlow3D) -> None:
        super().__init__()
        folded = fold(model)
        config = folded.config
        self.cells = config.cells
        height = config.maximum[2] - config.minimum[2]
        self.register_buffer("minimum", torch.tensor(config.minimum))
        self.register_buffer("size", torch.tensor([config.pillar_size, config.pillar_size, height]))
        self.register_buffer("nothing", torch.zeros(1, 1))
        self.embed = _linear(folded.embed_weight, folded.embed_bias)
        self.encoder = nn.ModuleList(
            nn.Sequential(*(layer for conv in stage for layer in (_conv(conv), nn.GELU()))) for stage in folded.encoder
        )
        self.decoder = nn.ModuleList(map(_Level, folded.levels))
        self.last = _conv(folded.last)
        self.hidden = _linear(torch.cat([folded.canvas, folded.offsets], dim=1), folded.bias)
        self.activation = model.head.decoder[1]
        self.out = _linear(folded.out_weight, folded.out_bias)
        self.eval().requires_grad_(False)

    def forward(self, pc0: Tensor, pc1: Tensor) -> Tensor:
        """(N,3) and (N,3) float32, metres, in one frame → flow (N,3) of pc0's points in metres per interval; NaN for
        points outside the grid or not finite."""
        inside, cell, offsets, pillars0 = self._embed(pc0)
        _, _, _, pillars1 = self._embed(pc1)
        motion = self._motion(torch.stack([self._canvas(pillars0), self._canvas(pillars1)]))
        here = [pillars.index_select(0, cell) for pillars in (pillars0, pillars1)]
        hidden = motion.index_select(1, cell).T + self.hidden(torch.cat([*here, offsets], dim=1))
        return torch.where(inside, self.out(self.activation(hidden)), torch.nan)

    def _embed(self, cloud: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(N,3) → which points are inside (N,1); their cell (N,), 0 for others; their offsets from the pillar's centre
        (N,3); the features of all pillars (cells²,C)."""
        # fp32 with a true division: a reciprocal puts border points into other pillars.
        position = torch.floor((cloud - self.minimum) / self.size)
        x, y, z = position.unbind(dim=1)
        inside = ((x >= 0) & (x < self.cells) & (y >= 0) & (y < self.cells) & (z == 0)).unsqueeze(1)  # False for NaN
        points, position = torch.where(inside, cloud, 0.0), torch.where(inside, position, 0.0)
        x, y, _ = position.long().unbind(dim=1)
        cell = y * self.cells + x
        weight = inside.to(points.dtype)
        sums = self._sum_by_cell(torch.cat([points, weight], dim=1), cell)
        count = sums[:, 3:].clamp(min=1.0)
        mean = (sums[:, :3] / count).index_select(0, cell)
        centre = position * self.size + (self.size / 2 + self.minimum)
        features = torch.relu(self.embed(torch.cat([points, points - mean, points - centre], dim=1)))
        return inside, cell, points - centre, self._sum_by_cell(features * weight, cell) / count

    def _sum_by_cell(self, values: Tensor, cell: Tensor) -> Tensor:
        """Sum (cells²,K) of the rows of `values` (N,K) that fall into each cell."""
        columns = values.shape[1]
        index = cell.unsqueeze(1).expand(-1, columns)
        return self.nothing.expand(self.cells**2, columns).scatter_add(0, index, values)

    def _canvas(self, pillars: Tensor) -> Tensor:
        return pillars.T.reshape(-1, self.cells, self.cells)

    def _motion(self, canvases: Tensor) -> Tensor:
        """(2,C,cells,cells), pc0's first → what the decoder adds to the head's first layer in each cell, (K,cells²)."""
        maps = [canvases]
        for stage in self.encoder:
            maps.append(stage(maps[-1]))
        laterals = [m.reshape(1, -1, m.shape[2], m.shape[3]) for m in maps]  # both clouds' channels, pc0's first
        x = laterals.pop()
        for level in self.decoder:
            x = level(x, laterals.pop())
        return self.last(x).flatten(2)[0]


class _Level(nn.Module):
    def __init__(self, level: Level) -> None:
        super().__init__()
        self.coarse, self.lateral = _conv(level.coarse), _conv(level.lateral)
        self.join, self.out = _conv(level.join), _conv(level.out)

    def forward(self, coarse: Tensor, lateral: Tensor) -> Tensor:
        coarse = F.interpolate(self.coarse(coarse), scale_factor=2.0, mode="bilinear", align_corners=False)
        return self.out(self.join(torch.cat([coarse, self.lateral(lateral)], dim=1)))


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.load_state_dict({"weight": weight, "bias": bias})
    return layer


def _conv(conv: Conv) -> nn.Conv2d:
    out_channels, in_channels, width, _ = conv.weight.shape
    layer = nn.Conv2d(in_channels, out_channels, width, stride=conv.stride, padding=width // 2)
    layer.load_state_dict({"weight": conv.weight, "bias": conv.bias})
    return layer
