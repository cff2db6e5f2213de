"""NSFP's loss: the truncated Chamfer distance between two clouds."""

from __future__ import annotations

import torch
from torch import Tensor

from zeroflow_core.nsfp.neighbours import NearestNeighbours


class Chamfer:
    """Truncated Chamfer distance of a moving cloud to one that stands (`target`, (M,3) metres).

    For each direction the squared distances to the nearest neighbours, those from `truncation` (m²) on set to 0, and
    their mean over all points of that direction's cloud; the sum of both.
    """

    def __init__(self, target: Tensor, truncation: float) -> None:
        self._target, self._truncation = target, truncation
        self._nearest_target = NearestNeighbours(target)

    def __call__(self, cloud: Tensor) -> Tensor:
        """The distance (m²), differentiable with respect to `cloud` (N,3)."""
        to_target = cloud - self._target[self._nearest_target(cloud)]
        from_target = self._target - cloud[NearestNeighbours(cloud)(self._target)]
        return self._mean(to_target) + self._mean(from_target)

    def _mean(self, difference: Tensor) -> Tensor:
        squared = difference.square().sum(dim=1)
        return torch.where(squared >= self._truncation, 0.0, squared).mean()  # NaN stays NaN
