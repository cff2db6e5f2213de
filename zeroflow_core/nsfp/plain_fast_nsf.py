"""Fast NSF as published: one network, and for a loss the mean distance to the other cloud, read from a grid.

Fast NSF (Li et al., ICCV 2023) and its published code.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from zeroflow_core.nsfp.config import TeacherConfig
from zeroflow_core.nsfp.distance_transform import DistanceTransform
from zeroflow_core.nsfp.network import make_field
from zeroflow_core.nsfp.plain import EarlyStopping, OnIteration, Optimised


def optimise_fast_nsf(
    pc0: Tensor,
    pc1: Tensor,
    config: TeacherConfig,
    generator: torch.Generator,
    on_iteration: OnIteration | None = None,
) -> Optimised:
    """Flow of pc0's points towards pc1, by Fast NSF as published.

    The flow kept is that of the lowest loss, in metres. An iteration steps before it may be the last, and the last
    one's flow is not considered.

    pc0, pc1:     (N0,3), (N1,3) float32, metres, one frame, without ground, neither empty
    generator:    of the CPU; draws the initial weights
    on_iteration: called with the number of each iteration, from 1, and its loss

    Raises:
        ZeroFlowError: the clouds span a space too large for a grid.
    """
    field = make_field(generator, "xavier").to(pc0.device)
    optimiser = torch.optim.Adam(field.parameters(), lr=config.learning_rate)
    distance = DistanceTransform(pc1, pc0)
    stopping = EarlyStopping(config.patience, config.min_delta)
    best_loss, best_flow = math.inf, torch.zeros_like(pc0)

    for iteration in range(1, config.iterations + 1):  # noqa: B007
        flow = field(pc0)
        loss = distance(pc0 + flow).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if on_iteration is not None:
            on_iteration(iteration, loss.item())
        if stopping.stop(loss.item()):
            break
        if loss.item() <= best_loss:
            best_loss, best_flow = loss.item(), flow.detach()

    return Optimised(best_flow, None, iteration, best_loss, len(pc0))
