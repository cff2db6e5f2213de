"""FastFlow3D: two clouds in one frame → flow of the points of the first. Names match published weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from zeroflow_core.fastflow3d.config import FastFlow3DConfig
from zeroflow_core.fastflow3d.head import PointHead
from zeroflow_core.fastflow3d.pillars import PillarFeatureNet, Pillars
from zeroflow_core.fastflow3d.unet import UNet


class Embedder(nn.Module):
    """One cloud (N,3) → its pillars and its canvas (C,H,W)."""

    def __init__(self, config: FastFlow3DConfig) -> None:
        super().__init__()
        self.feature_net = PillarFeatureNet(config)

    def forward(self, cloud: Tensor) -> tuple[Pillars, Tensor]:
        pillars = self.feature_net.grid(cloud)
        return pillars, self.feature_net(pillars)


class FastFlow3D(nn.Module):
    def __init__(self, config: FastFlow3DConfig) -> None:
        super().__init__()
        self.config = config
        self.embedder = Embedder(config)
        self.backbone = UNet(config)
        self.head = PointHead(config)

    def forward(
        self, clouds0: list[Tensor], clouds1: list[Tensor], bf16: bool = False
    ) -> list[tuple[Tensor, Tensor]]:
        """B clouds (N,3) and B partners in the same frames, float32; `bf16`: convolutions in bfloat16.

        Returns, for each sample, flow (M,3) in metres per interval and index (M,): which rows of the cloud
        it belongs to. Points outside the grid or not finite have none.
        """
        pillars0, canvases0 = zip(*map(self.embedder, clouds0), strict=True)
        _, canvases1 = zip(*map(self.embedder, clouds1), strict=True)
        return self.decode(pillars0, canvases0, canvases1, bf16)

    def decode(
        self, pillars0: Sequence[Pillars], canvases0: Sequence[Tensor], canvases1: Sequence[Tensor], bf16: bool
    ) -> list[tuple[Tensor, Tensor]]:
        """From embedded clouds on: as `forward`."""
        # Positions and flow need more digits than bfloat16 has, so only the convolutions are cast.
        with torch.autocast(canvases0[0].device.type, torch.bfloat16, enabled=bf16):
            motion = self.backbone(torch.stack(canvases0), torch.stack(canvases1)).float()
        return [
            (self.head(*maps, pillars), pillars.index)
            for *maps, pillars in zip(canvases0, canvases1, motion, pillars0, strict=True)
        ]
