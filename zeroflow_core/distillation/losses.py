"""Losses a student is trained with (ZeroFlow, section on the distillation objective)."""

from __future__ import annotations

import torch
from torch import Tensor


def speed_weight(label: Tensor, dt: float, still: float = 0.1) -> Tensor:
    """Weight (M,) of each point by the speed of its label (M,3, metres over `dt` seconds).

    ZeroFlow's Eq. 5: `still` for what stands, 1 for what moves faster than 1 m/s, a ramp between. As printed the
    ramp dips below zero at 0.4 m/s; clamped, it means what the text says. With `still` above 1, what stands counts
    more than what moves.
    """
    speed = torch.linalg.vector_norm(label, dim=1) / abs(dt)
    ramp = (1.8 * speed - 0.8).clamp(0.0, 1.0)
    return ramp.clamp(min=still) if still <= 1 else still + (1 - still) * ramp


def weighted_epe(flow: Tensor, label: Tensor, weight: Tensor) -> Tensor:
    """Mean over the points of weight × end-point error: flow and label (M,3), weight (M,)."""
    return (weight * torch.linalg.vector_norm(flow - label, dim=1)).mean()
