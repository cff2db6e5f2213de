"""Losses a student is trained with (ZeroFlow, section on the distillation objective)."""

from __future__ import annotations

import torch
from torch import Tensor

LOSSES = ("unscaled", "speed-scaled", "released")
_RELEASED = 0.1  # what the released weights' scaling comes to for every speed


def point_weights(loss: str, label: Tensor, dt: float, still: float = 0.1) -> Tensor:
    """Weight (M,) of each point in the loss called `loss`, from its label (M,3), metres over `dt` seconds.

    ``unscaled``:     1
    ``speed-scaled``: by the label's speed, see `speed_weight`
    ``released``:     0.1 for every point. The published code's speed scaling comes to this constant, whatever the speed
                      (its maximum and minimum are the wrong way round), and the released weights were trained with it.
                      Adam does not feel a constant factor, so but for rounding this is ``unscaled``.
    """
    if loss == "speed-scaled":
        return speed_weight(label, dt, still)
    return torch.full_like(label[:, 0], {"unscaled": 1.0, "released": _RELEASED}[loss])


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
    """Mean over the points of weight × end-point error: flow and label (M,3), weight (M,). 0 without points."""
    errors = weight * torch.linalg.vector_norm(flow - label, dim=1)
    return errors.sum() / max(len(errors), 1)
