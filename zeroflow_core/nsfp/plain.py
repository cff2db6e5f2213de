"""NSFP as ZeroFlow's teacher runs it: one pair, all its points, plain PyTorch.

ZeroFlow §3 and its published code; NSFP (Li et al., NeurIPS 2021).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor

from zeroflow_core.nsfp.chamfer import Chamfer
from zeroflow_core.nsfp.config import TeacherConfig
from zeroflow_core.nsfp.network import make_field

OnIteration = Callable[[int, float], None]


@dataclass(frozen=True)
class Optimised:
    """What the optimisation of one pair came to.

    forward:    (N0,3) flow of pc0's points, metres
    backward:   (N1,3) flow of pc1's points towards pc0, metres; None where there is no network for it
    iterations: forward passes made
    points:     that went through a network in each of them
    loss:       total loss at the best flow; NaN if it never was a number
    """

    forward: Tensor
    backward: Tensor | None
    iterations: int
    loss: float
    points: int


class EarlyStopping:
    """Says when a loss hasn't fallen for long enough: by more than `min_delta` in `patience` iterations."""

    def __init__(self, patience: int, min_delta: float) -> None:
        self._patience, self._min_delta = patience, min_delta
        self._best, self._waited = math.inf, 0

    def stop(self, loss: float) -> bool:
        """Whether to stop after an iteration with this loss; always, if it is NaN."""
        if math.isnan(loss):
            return True
        if self._best - loss > self._min_delta:
            self._best, self._waited = loss, 0
        else:
            self._waited += 1
        return self._waited >= self._patience


def optimise_nsfp(
    pc0: Tensor,
    pc1: Tensor,
    config: TeacherConfig,
    generator: torch.Generator,
    on_iteration: OnIteration | None = None,
) -> Optimised:
    """Flow between two clouds, by NSFP as published.

    pc0, pc1:     (N0,3), (N1,3) float32, metres, one frame, without ground, neither empty
    generator:    of the CPU; draws the initial weights
    on_iteration: called with the number of each iteration, from 1, and its total loss
    """
    field = make_field(generator, "torch").to(pc0.device)  # pc0's points → their flow
    back_field = deepcopy(field)  # the moved points → the flow that brought them there
    optimiser = torch.optim.Adam([*field.parameters(), *back_field.parameters()], lr=config.learning_rate)
    to_pc0, to_pc1 = Chamfer(pc0, config.truncation), Chamfer(pc1, config.truncation)
    stopping = EarlyStopping(config.patience, config.min_delta)
    best_chamfer, best_loss = math.inf, math.nan
    best_flow, best_back_field = torch.zeros_like(pc0), deepcopy(back_field)

    for iteration in range(1, config.iterations + 1):  # noqa: B007
        flow = field(pc0)
        moved = pc0 + flow
        returned = moved - back_field(moved)
        chamfer = to_pc1(moved)
        loss = chamfer + to_pc0(returned)
        if chamfer.item() <= best_chamfer:
            best_chamfer, best_loss, best_flow = chamfer.item(), loss.item(), flow.detach()
            best_back_field.load_state_dict(back_field.state_dict())
        if on_iteration is not None:
            on_iteration(iteration, loss.item())
        if stopping.stop(loss.item()):
            break
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    with torch.no_grad():
        return Optimised(best_flow, -best_back_field(pc1), iteration, best_loss, len(pc0))
