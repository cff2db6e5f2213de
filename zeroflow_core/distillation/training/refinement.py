"""Pseudo-labels cleared of motion that the sweeps do not bear out. No label but the teacher's is asked.

A teacher that fits one sweep to the next also bends what stands: along walls and hedges, where a surface that slides
within itself fits as well, and at the edges of shadows. Mostly that motion is small, but more points have it than
really move. Which is which shows on the whole thing, not on a point: if a car moves, the next sweep has nothing where
most of the car was and something where it is said to be; if a wall slides, both places are taken alike.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from zeroflow_core.distillation.training.samples import Sample

STANDS = 0.3  # m/s: slower labels are noise
_CELL = np.array([0.4, 0.4, 0.8])  # metres: things are told apart in cells of this size; scan lines lie apart in z
_ALIKE = 0.15  # of the faster one's speed: by which neighbouring cells' motion may differ within one thing
_ALIKE_LEAST = 0.3  # m/s
_FEWEST = 10  # points that can tell whether a thing moves
_EXPLAINED, _NOT_EXPLAINED = 0.7, 0.9  # gap to the next sweep that moving leaves, as a share of standing's
_LEAST_GAIN = 0.02  # metres by which moving must be nearer than standing, on average
_LONGEST, _NARROWEST, _LOWEST = 20.0, 1.2, 0.2  # metres: see refine
_FASTEST = 60.0  # m/s
_FARTHEST_GAP = 1.0  # metres: a part that is hidden in the next sweep says no more than this


def refine(sample: Sample) -> Sample:
    """The sample with labels that say motion only where moving things explain the next sweep.

    Points whose labels move are put into groups that touch and move alike. A group keeps its labels where its points,
    moved by them, come much nearer to pc1 than where they are; it gets zero flow where they hardly do, and none (NaN)
    in between or where it is too small to tell. Slower labels than STANDS become zero.

    Guard rails and walls with posts look alike at many places: what is thin and longer than any vehicle stands, as does
    what is faster than any. A group on a single scan line, which wanders over whatever it lies on as the vehicle goes,
    has no label.
    """
    from scipy.spatial import cKDTree

    label = sample.label.copy()
    known = np.isfinite(label).all(axis=1)
    speed = np.zeros(len(label), dtype=np.float32)
    speed[known] = np.linalg.norm(label[known], axis=1) / abs(sample.dt)
    label[known & (speed < STANDS)] = 0
    moving = np.flatnonzero(speed >= STANDS)
    if len(moving) == 0 or len(sample.pc1) == 0:
        return replace(sample, label=label)
    points, motion = sample.pc0[moving], sample.label[moving]

    tree = cKDTree(sample.pc1)

    def gap(where: np.ndarray) -> np.ndarray:
        return np.minimum(tree.query(where, distance_upper_bound=_FARTHEST_GAP)[0], _FARTHEST_GAP)

    group = _groups(points, motion, abs(sample.dt))
    size = np.bincount(group)
    standing, moved = (np.bincount(group, gap(where)) / size for where in (points, points + motion))
    length, width, height = _extent(points, group)
    pace = np.bincount(group, np.linalg.norm(motion, axis=1)) / size / abs(sample.dt)
    no_thing = ((length > _LONGEST) & (width < _NARROWEST)) | (pace > _FASTEST)
    explained = (moved <= _EXPLAINED * standing) & (standing - moved >= _LEAST_GAIN)
    bears_out = explained & (size >= _FEWEST) & (height >= _LOWEST) & ~no_thing
    stands = (size >= _FEWEST) & ((moved >= _NOT_EXPLAINED * standing) | no_thing)
    label[moving[stands[group]]] = 0
    label[moving[~(bears_out | stands)[group]]] = np.nan
    return replace(sample, label=label)


def _extent(points: np.ndarray, group: np.ndarray) -> list[np.ndarray]:
    """Of each group, metres: along the axis in x and y that it extends along most, across it, and in z."""
    size = np.bincount(group)
    x, y = (points[:, k] - (np.bincount(group, points[:, k]) / size)[group] for k in (0, 1))
    xx, xy, yy = (np.bincount(group, product) for product in (x * x, x * y, y * y))
    yaw = (0.5 * np.arctan2(2 * xy, xx - yy))[group]
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    along, across = x * np.cos(yaw) + y * np.sin(yaw), y * np.cos(yaw) - x * np.sin(yaw)
    return [
        np.maximum.reduceat(values[order], starts) - np.minimum.reduceat(values[order], starts)
        for values in (along, across, points[:, 2])
    ]


def _groups(points: np.ndarray, motion: np.ndarray, dt: float) -> np.ndarray:
    """Number of the group of each point (N,), from 0 on: cells that touch and whose mean motion is alike."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    index = np.floor(points / _CELL).astype(np.int64)
    index -= index.min(axis=0) - 1
    span = index.max(axis=0) + 2  # with a free cell at either side, no neighbour's number is another cell's
    steps = np.array([span[1] * span[2], span[2], 1])
    occupied, cell = np.unique(index @ steps, return_inverse=True)
    count = np.bincount(cell)
    mean = np.column_stack([np.bincount(cell, column) / count for column in motion.T])
    speed = np.linalg.norm(mean, axis=1)

    around = np.array([(x, y, z) for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1)]) @ steps
    first, second = [], []
    for step in around[around > 0]:
        place = np.searchsorted(occupied, occupied + step)
        there = np.flatnonzero(occupied[np.minimum(place, len(occupied) - 1)] == occupied + step)
        other = place[there]
        allowed = np.maximum(_ALIKE * np.maximum(speed[there], speed[other]), _ALIKE_LEAST * dt)
        alike = np.linalg.norm(mean[there] - mean[other], axis=1) <= allowed
        first.append(there[alike])
        second.append(other[alike])
    rows, columns = np.concatenate(first), np.concatenate(second)
    links = coo_matrix((np.ones(len(rows), dtype=bool), (rows, columns)), shape=(len(occupied),) * 2)
    return connected_components(links, directed=False)[1][cell]
