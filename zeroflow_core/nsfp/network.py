"""The prior: a coordinate network whose smoothness is all that NSFP knows about how things move.

NSFP (Li et al., NeurIPS 2021): eight hidden layers of 128 with ReLU from a point's coordinates to its flow.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

WIDTH, HIDDEN_LAYERS = 128, 8


def make_field(generator: torch.Generator, initialisation: str) -> nn.Sequential:
    """A network (N,3) → (N,3): 116,483 parameters, drawn from `generator` (of the CPU).

    initialisation: ``torch`` (PyTorch's own for linear layers, NSFP's) or ``xavier`` (uniform, zero biases, Fast NSF's)
    """
    sizes = [3, *[WIDTH] * HIDDEN_LAYERS, 3]
    layers: list[nn.Module] = []
    for inputs, outputs in zip(sizes, sizes[1:], strict=False):
        layers += [nn.utils.skip_init(nn.Linear, inputs, outputs), nn.ReLU()]
        _initialise(layers[-2], generator, initialisation)
    return nn.Sequential(*layers[:-1])


def _initialise(layer: nn.Linear, generator: torch.Generator, initialisation: str) -> None:
    inputs, outputs = layer.in_features, layer.out_features
    limits = {"torch": (inputs**-0.5, inputs**-0.5), "xavier": ((6 / (inputs + outputs)) ** 0.5, 0.0)}
    weight, bias = limits[initialisation]
    with torch.no_grad():
        layer.weight.copy_(_uniform(layer.weight, weight, generator))
        layer.bias.copy_(_uniform(layer.bias, bias, generator))


def _uniform(like: Tensor, limit: float, generator: torch.Generator) -> Tensor:
    return (torch.rand(like.shape, generator=generator) * 2 - 1) * limit
