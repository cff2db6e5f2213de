"""Which points take part in each iteration of the fast engine.

All points at once is what makes NSFP slow, and a fixed few make it wrong. So every iteration draws anew: some points
at random, so that in the course of the iterations all have their say, the others from where the two sweeps differ,
which is where something may have moved and a few points decide.
"""

from __future__ import annotations

import numpy as np

DIFFERS = 0.3  # metres to the nearest point of the other sweep, from which a point is where the sweeps differ
AROUND = 0.5  # metres around such points that belong to it too
CELL = 0.2  # metres; of the points where the sweeps differ, one is taken per cell, as walls far away have few


def differing(cloud: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Rows (K,) of `cloud` (N,3) where `other` (M,3) differs from it, thinned to one in 0.2 m; may be empty."""
    from scipy.spatial import cKDTree

    alone = cKDTree(other, balanced_tree=False, compact_nodes=False).query(cloud, distance_upper_bound=DIFFERS)[0]
    seeds = cloud[np.isinf(alone)]
    if len(seeds) == 0:
        return np.empty(0, dtype=np.int64)
    tree = cKDTree(seeds, balanced_tree=False, compact_nodes=False)
    rows = np.flatnonzero(np.isfinite(tree.query(cloud, distance_upper_bound=AROUND)[0]))
    cells = np.floor(cloud[rows] / CELL).astype(np.int64)
    return rows[np.sort(np.unique(cells, axis=0, return_index=True)[1])]


def draw(
    points: int, differing_rows: np.ndarray, samples: int, shares: np.ndarray, random: np.random.Generator
) -> np.ndarray:
    """Rows (T, samples) int32 of a cloud of `points` points for each of T iterations, with replacement.

    shares: (T,) how many of an iteration's samples come from `differing_rows` (K,), 0 to 1
    """
    rows = random.integers(points, size=(len(shares), samples), dtype=np.int32)
    if len(differing_rows):
        special = differing_rows[random.integers(len(differing_rows), size=rows.shape)]
        rows = np.where(np.arange(samples) < np.round(shares * samples)[:, None], special, rows)
    return rows.astype(np.int32)
