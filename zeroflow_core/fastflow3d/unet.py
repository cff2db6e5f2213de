"""Canvases of both clouds → one map of motion features: the U-Net of FastFlow3D."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zeroflow_core.fastflow3d.config import FastFlow3DConfig


class ConvBlock(nn.Module):
    """Conv 3×3 → BatchNorm → GELU (exact)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1)
        self.batchnorm = nn.BatchNorm2d(out_channels)
        self.activation = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.batchnorm(self.conv(x)))


class UpsampleSkip(nn.Module):
    """Coarse map ×2 joined with the lateral one. No norm and no activation: the decoder is linear."""

    def __init__(self, coarse_channels: int, channels: int) -> None:
        super().__init__()
        self.u1_u2 = nn.Sequential(
            nn.Conv2d(coarse_channels, channels, 1),
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
        )
        self.u3 = nn.Conv2d(channels, channels, 1)
        self.u4_u5 = nn.Sequential(
            nn.Conv2d(2 * channels, channels, 3, padding=1), nn.Conv2d(channels, channels, 3, padding=1)
        )

    def forward(self, coarse: Tensor, lateral: Tensor) -> Tensor:
        return self.u4_u5(torch.cat([self.u1_u2(coarse), self.u3(lateral)], dim=1))


class UNet(nn.Module):
    """One encoder, shared by both clouds; one decoder over the maps of both, pc0's channels first."""

    def __init__(self, config: FastFlow3DConfig) -> None:
        super().__init__()
        c = config.channels
        self.stages = len(config.blocks)
        for k, blocks in enumerate(config.blocks, start=1):
            width = c * 2**k
            stage = [ConvBlock(width // 2, width, stride=2)]
            stage += [ConvBlock(width, width, stride=1) for _ in range(blocks - 1)]
            setattr(self, f"encoder_step_{k}", nn.Sequential(*stage))
        for step in range(1, self.stages + 1):
            lateral = 2 * c * 2 ** (self.stages - step)  # both clouds, one level finer than the coarse map
            setattr(self, f"decoder_step{step}", UpsampleSkip(2 * lateral, lateral))
        setattr(self, f"decoder_step{self.stages + 1}", nn.Conv2d(2 * c, 2 * c, 3, padding=1))

    def encode(self, canvas: Tensor) -> list[Tensor]:
        """(B,C,H,W) → the canvas itself and one map per stage, each half the size with twice the channels."""
        maps = [canvas]
        for k in range(1, self.stages + 1):
            maps.append(getattr(self, f"encoder_step_{k}")(maps[-1]))
        return maps

    def forward(self, canvas0: Tensor, canvas1: Tensor) -> Tensor:
        """Two canvases (B,C,H,W) → (B,2C,H,W)."""
        # One after the other, as the published training did: batch statistics are per cloud.
        levels = zip(self.encode(canvas0), self.encode(canvas1), strict=True)
        laterals = [torch.cat(maps, dim=1) for maps in levels]
        x = laterals.pop()
        for step in range(1, self.stages + 1):
            x = getattr(self, f"decoder_step{step}")(x, laterals.pop())
        return getattr(self, f"decoder_step{self.stages + 1}")(x)
