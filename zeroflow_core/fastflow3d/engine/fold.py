"""The network as inference needs it: batch norms folded into what is before them, the head's first layer into the
decoder's last."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zeroflow_core.fastflow3d.config import FastFlow3DConfig
from zeroflow_core.fastflow3d.model import FastFlow3D


@dataclass(frozen=True)
class Conv:
    """weight: (O,I,k,k) float32; bias: (O,) float32; padded with k // 2 zeros"""

    weight: Tensor
    bias: Tensor
    stride: int = 1


@dataclass(frozen=True)
class Level:
    """One step of the decoder, which is linear.

    coarse:  1×1 on the coarse map, before it is upsampled
    lateral: 1×1 on both clouds' maps, pc0's channels first
    join:    3×3 on the upsampled map and the lateral one
    out:     3×3
    """

    coarse: Conv
    lateral: Conv
    join: Conv
    out: Conv


@dataclass(frozen=True)
class Folded:
    """With C channels per pillar, and K outputs of the head's first layer (32 in published weights):

    embed_weight, embed_bias: (C,9), (C,): a point's nine features → what ReLU and then the pillar's mean are taken of
    encoder: of each stage its convolutions, an exact GELU after each
    levels:  of the decoder, the coarsest first
    last:    3×3, the finest level (2C) → K, summed at a point's pillar with …
    canvas:  (K,2C) of both clouds' canvases there, pc0's channels first
    offsets: (K,3) of the point's offsets from the pillar's centre
    bias:    (K,)
    out_weight, out_bias: (3,K), (3,): GELU of that sum → flow
    """

    config: FastFlow3DConfig
    embed_weight: Tensor
    embed_bias: Tensor
    encoder: tuple[tuple[Conv, ...], ...]
    levels: tuple[Level, ...]
    last: Conv
    canvas: Tensor
    offsets: Tensor
    bias: Tensor
    out_weight: Tensor
    out_bias: Tensor


@torch.no_grad()
def fold(model: FastFlow3D) -> Folded:
    """Computed in float64, kept in float32 on the CPU. The model must be in eval mode: its running statistics are
    what is folded."""
    config, unet = model.config, model.backbone
    linear, norm, _ = model.embedder.feature_net.pfn_layers[0]
    scale, shift = _scale_and_shift(norm)
    hidden, _, out = model.head.decoder
    c = config.channels
    by_canvas, by_map, by_offset = _exact(hidden.weight).split([2 * c, 2 * c, 3], dim=1)
    last = getattr(unet, f"decoder_step{unet.stages + 1}")
    return Folded(
        config=config,
        embed_weight=(scale[:, None] * _exact(linear.weight)).float(),
        embed_bias=shift.float(),
        encoder=tuple(
            tuple(_without_norm(block) for block in getattr(unet, f"encoder_step_{k}"))
            for k in range(1, unet.stages + 1)
        ),
        levels=tuple(_level(getattr(unet, f"decoder_step{k}")) for k in range(1, unet.stages + 1)),
        last=Conv(
            torch.einsum("km,mi...->ki...", by_map, _exact(last.weight)).float(),
            (by_map @ _exact(last.bias)).float(),
        ),
        canvas=by_canvas.float(),
        offsets=by_offset.float(),
        bias=_exact(hidden.bias).float(),
        out_weight=_exact(out.weight).float(),
        out_bias=_exact(out.bias).float(),
    )


def dense_macs(config: FastFlow3DConfig) -> int:
    """Multiply-adds of all convolutions of the U-Net for one pair, everywhere on the grid."""
    macs, c = 0, config.channels
    for k, blocks in enumerate(config.blocks, start=1):
        width, sites = c * 2**k, (config.cells >> k) ** 2
        encoder = sites * 9 * (width * width // 2 + (blocks - 1) * width * width)
        # One decoder step ends where this stage began: twice as fine, `width` channels of both clouds.
        decoder = sites * 2 * width * width + 4 * sites * width * width * (1 + 18 + 9)
        macs += 2 * encoder + decoder
    return macs + config.cells**2 * 9 * (2 * c) ** 2


def _exact(parameter: Tensor) -> Tensor:
    return parameter.detach().cpu().double()


def _scale_and_shift(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    scale = _exact(norm.weight) / torch.sqrt(_exact(norm.running_var) + norm.eps)
    return scale, _exact(norm.bias) - scale * _exact(norm.running_mean)


def _without_norm(block: nn.Module) -> Conv:
    scale, shift = _scale_and_shift(block.batchnorm)
    weight = scale[:, None, None, None] * _exact(block.conv.weight)
    return Conv(weight.float(), (scale * _exact(block.conv.bias) + shift).float(), block.conv.stride[0])


def _level(step: nn.Module) -> Level:
    convolutions = (step.u1_u2[0], step.u3, *step.u4_u5)
    return Level(*(Conv(_exact(c.weight).float(), _exact(c.bias).float()) for c in convolutions))
