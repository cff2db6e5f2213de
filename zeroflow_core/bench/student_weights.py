"""The weights that the student is timed with: drawn from a seed, since speed does not depend on what they say."""

from __future__ import annotations

import torch
from torch import nn

from zeroflow_core.fastflow3d.config import FastFlow3DConfig
from zeroflow_core.fastflow3d.model import FastFlow3D

SEED = 7
_COORDINATES = 15.0  # metres, about the size of a point's features; the first norm has it in its running statistics
_FLOW = 0.5  # of the last layer, so that flows are some decimetres long


@torch.no_grad()
def seeded_model(config: FastFlow3DConfig, seed: int = SEED) -> FastFlow3D:
    """A network whose maps have about the same size at every depth, in eval mode on the CPU. The same seed gives the
    same weights."""
    generator = torch.Generator().manual_seed(seed)
    model = FastFlow3D(config)

    def fill(tensor: torch.Tensor, mean: float, deviation: float) -> None:
        tensor.copy_(mean + deviation * torch.randn(tensor.shape, generator=generator))

    first, last = model.embedder.feature_net.pfn_layers[0][1], model.head.decoder[-1]
    for name, layer in model.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            is_linear_step = name.startswith("backbone.decoder")  # all others are before or after an activation
            scale = _FLOW if layer is last else 1.0
            fill(layer.weight, 0.0, scale * ((1.0 if is_linear_step else 2.0) / layer.weight[0].numel()) ** 0.5)
            if layer.bias is not None:
                fill(layer.bias, 0.0, 0.1 * scale)
        elif isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            size = _COORDINATES if layer is first else 1.0
            fill(layer.weight, 1.0, 0.1)
            fill(layer.bias, 0.0, 0.1)
            fill(layer.running_mean, 0.0, 0.1 * size)
            layer.running_var.copy_(size**2 * (0.5 + torch.rand(layer.running_var.shape, generator=generator)))
    return model.eval()
