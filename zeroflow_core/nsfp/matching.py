"""The losses of the fast engine: a value and a gradient for the points of many pairs, written out.

Each is called with the moving points (B,N,3) and as many drawn from the cloud they should come to (B,N,3), and returns
a loss (B,) and its gradient (B,N,3) with respect to the moving points.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from zeroflow_core.nsfp.distance_transform import DistanceTransforms
from zeroflow_core.nsfp.tiles import truncated_chamfer


class TreeChamfer:
    """Truncated Chamfer distance by KD-trees, for the CPU.

    Moving points look for their neighbour in the whole cloud, which costs a tree nothing; the other way round the drawn
    points look for theirs among the moving ones.
    """

    def __init__(self, clouds: Sequence[Tensor], truncation: float) -> None:
        """clouds: (M,3) of each pair"""
        self._clouds, self._truncation = [cloud.numpy() for cloud in clouds], truncation
        self._trees = [_tree(cloud) for cloud in self._clouds]

    def __call__(self, moving: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
        loss, gradient = torch.empty(len(moving)), torch.empty_like(moving)
        for pair, (cloud, tree) in enumerate(zip(self._clouds, self._trees, strict=True)):
            if not torch.isfinite(moving[pair]).all():  # this pair has diverged, and no tree takes it
                loss[pair], gradient[pair] = torch.nan, torch.nan
                continue
            with np.errstate(over="ignore"):  # about to diverge
                here, there = moving[pair].numpy(), drawn[pair].numpy()
                loss[pair] = self._of_pair(here, there, cloud, tree, gradient[pair].numpy())
        return loss, gradient

    def _of_pair(self, moving: np.ndarray, drawn: np.ndarray, cloud: np.ndarray, tree, gradient: np.ndarray) -> float:
        there, forth = self._matched(moving, cloud, tree)
        gradient[:] = forth * np.float32(2 / len(moving))
        back_there, back = self._matched(drawn, moving, _tree(moving))
        for axis in range(3):
            pulls = np.bincount(back_there, back[:, axis], len(moving))
            gradient[:, axis] -= pulls * (2 / len(drawn))
        return float(np.square(forth).sum() / len(moving) + np.square(back).sum() / len(drawn))

    def _matched(self, queries: np.ndarray, targets: np.ndarray, tree) -> tuple[np.ndarray, np.ndarray]:
        """Index (N,) of each query's nearest target, and the way (N,3) from there to the query, 0 where too far."""
        nearest = tree.query(queries)[1]  # with more workers it takes longer: torch's threads wait on the same cores
        away = queries - targets[nearest]
        away[np.square(away).sum(axis=1) >= self._truncation] = 0.0
        return nearest, away


class TileChamfer:
    """The same by the tiles of `tiles`, for a GPU: nothing waits for the host."""

    def __init__(self, clouds: Tensor, counts: Tensor, truncation: float, samples: int) -> None:
        """
        clouds, counts: (B,M,3) in tile order, and (B,) int32
        samples:        points of each pair in a call
        """
        self._clouds, self._counts, self._truncation = clouds, counts, truncation
        self._samples = torch.full_like(counts, samples)

    def __call__(self, moving: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
        return truncated_chamfer(
            moving, self._samples, self._clouds, self._counts, self._truncation, sample=(drawn, self._samples)
        )


class GridDistance:
    """Fast NSF's mean distance to the other cloud, by a grid for each pair."""

    def __init__(self, clouds: Sequence[Tensor], others: Sequence[Tensor]) -> None:
        """clouds, others: (M,3), (N,3) of each pair: what to come to, and what will move"""
        self._distances = DistanceTransforms(clouds, others)

    def __call__(self, moving: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
        distances, gradients = self._distances.with_gradient(moving)
        return distances.mean(dim=1), gradients / moving.shape[1]


def _tree(points: np.ndarray):
    from scipy.spatial import cKDTree

    return cKDTree(points, balanced_tree=False, compact_nodes=False)
