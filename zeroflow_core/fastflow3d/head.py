"""Maps → flow of each point: the last step of FastFlow3D."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zeroflow_core.fastflow3d.config import FastFlow3DConfig
from zeroflow_core.fastflow3d.pillars import Pillars


class _GELU(nn.Module):
    """Exact GELU by its formula. torch's own asks oneDNN on the CPU, which compiles and keeps a kernel for every number
    of points it meets: gigabytes after a thousand clouds."""

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * x * (1.0 + torch.erf(x * 0.5**0.5))


class PointHead(nn.Module):
    """Reads the maps at each point's pillar and adds where in the pillar the point lies."""

    def __init__(self, config: FastFlow3DConfig) -> None:
        super().__init__()
        self.decoder = nn.Sequential(nn.Linear(4 * config.channels + 3, 32), _GELU(), nn.Linear(32, 3))

    def forward(self, canvas0: Tensor, canvas1: Tensor, motion: Tensor, pillars: Pillars) -> Tensor:
        """One sample: maps (C,H,W), (C,H,W), (2C,H,W) and pc0's pillars → flow (M,3), metres per interval."""
        maps = [m.flatten(1).index_select(1, pillars.cell).T for m in (canvas0, canvas1, motion)]
        return self.decoder(torch.cat([*maps, pillars.offsets], dim=1))
