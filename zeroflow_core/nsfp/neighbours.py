"""Exact nearest neighbours of one cloud in another."""

from __future__ import annotations

import torch
from torch import Tensor

_AT_ONCE = 1 << 26  # distances held at a time on a GPU: 256 MB


class NearestNeighbours:
    """For any queries, the nearest of `targets` (M,3), M ≥ 1: by a KD-tree on the CPU, by all distances on a GPU."""

    def __init__(self, targets: Tensor) -> None:
        self._targets = targets.detach()
        if not targets.is_cuda:
            from scipy.spatial import cKDTree

            # Plain splits build in a third of the time, and a tree of a moving cloud serves one query only.
            self._tree = cKDTree(_finite(self._targets).numpy(), balanced_tree=False, compact_nodes=False)

    def __call__(self, queries: Tensor) -> Tensor:
        """Index (N,) int64 of the target nearest to each of `queries` (N,3)."""
        queries = queries.detach()
        if not queries.is_cuda:
            return torch.from_numpy(self._tree.query(_finite(queries).numpy(), workers=torch.get_num_threads())[1])
        rows = max(1, _AT_ONCE // len(self._targets))
        return torch.cat([self._nearest(part) for part in queries.split(rows)])

    def _nearest(self, queries: Tensor) -> Tensor:
        # Differences, not |a|² + |b|² − 2ab, which fp32 can't tell apart 50 m from the origin.
        return torch.cdist(queries, self._targets, compute_mode="donot_use_mm_for_euclid_dist").argmin(dim=1)


def _finite(points: Tensor) -> Tensor:
    """Trees take no NaN. A cloud that has diverged gets any neighbours: its distances are NaN with all of them."""
    return torch.nan_to_num(points)
