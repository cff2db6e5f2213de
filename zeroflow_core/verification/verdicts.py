"""Verdicts on things that are said to move, from where the other sweep has points and where it has none.

If a car moves, the other sweep has nothing where most of the car was and something where it is said to be; if a wall
slides within itself, or the edge of a shadow wanders, both places are taken alike. Which is which shows on a whole
thing, not on a point. Nobody's labels are asked.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

STANDS, MOVES, UNKNOWN = 0, 1, 2  # verdicts
SLOWEST = 0.3  # m/s: slower motion is noise
_CELL = np.array([0.4, 0.4, 0.8])  # metres: things are told apart in cells of this size; scan lines lie apart in z
_ALIKE_LEAST = 0.3  # m/s by which motion may differ within one thing at any rate
_LEAST_GAIN = 0.02  # metres by which moving must be nearer than standing, on average
_LONGEST, _NARROWEST, _FASTEST = 20.0, 1.2, 60.0  # metres, metres, m/s: of vehicles
_FARTHEST_GAP = 1.0  # metres: a part that is hidden in the other sweep says no more than this
_SIDE, _MOST_CELLS = 0.5, 2000  # metres, and along either axis: of the grid that the other sweep is looked up in


@dataclass(frozen=True)
class Rules:
    """How much a verdict takes.

    alike:     share of the faster one's speed by which neighbouring cells' motion may differ within one thing
    fewest:    points that can tell whether a thing moves
    lowest:    metres; what is lower is a single scan line, which wanders over whatever it lies on as the vehicle goes
    explained: gap to the other sweep that moving leaves, as a share of standing's, up to which a thing moves
    refuted:   likewise, from which on it stands; in between nobody can tell
    asked:     points of each thing that are looked up in the other sweep, at most; all of them for None
    """

    alike: float
    fewest: int
    lowest: float
    explained: float
    refuted: float
    asked: int | None = None


def judge(points: np.ndarray, motion: np.ndarray, others: np.ndarray, dt: float, rules: Rules) -> np.ndarray:
    """Verdict (N,) uint8 on each point that is said to move: STANDS, MOVES or UNKNOWN, the same for all of a thing.

    points, motion: (N,3), metres: finite, and how far each is said to move towards the other sweep
    others:         (M,3), metres, M ≥ 1: the other sweep, in the same frame, without ground; finite
    dt:             seconds to it, of either sign

    Points that touch and move alike are a thing. It moves where its points, moved, come much nearer to the other sweep
    than where they are; it stands where they hardly do. Guard rails and walls with posts look alike at many places:
    what is thin and longer than any vehicle stands, as does what is faster than any.
    """
    verdict = np.full(len(points), STANDS, dtype=np.uint8)
    possible = np.linalg.norm(motion.astype(np.float64), axis=1) <= _FASTEST * abs(dt)
    if possible.any():
        verdict[possible] = _judge(points[possible].astype(float), motion[possible].astype(float), others, dt, rules)
    return verdict


def _judge(points: np.ndarray, motion: np.ndarray, others: np.ndarray, dt: float, rules: Rules) -> np.ndarray:
    thing = _things(points, motion, abs(dt), rules.alike)
    size = np.bincount(thing)
    standing, moved = _gaps(points, motion, others, thing, size, rules.asked)
    length, width, height = _extent(points, thing)
    fence = (length > _LONGEST) & (width < _NARROWEST)
    explained = (moved <= rules.explained * standing) & (standing - moved >= _LEAST_GAIN)
    enough = size >= rules.fewest
    verdict = np.full(len(size), UNKNOWN, dtype=np.uint8)
    verdict[explained & enough & (height >= rules.lowest) & ~fence] = MOVES
    verdict[enough & (((moved >= rules.refuted * standing) & ~explained) | fence)] = STANDS
    return verdict[thing]


def _things(points: np.ndarray, motion: np.ndarray, dt: float, alike: float) -> np.ndarray:
    """Number of the thing (N,) that each point is of, from 0 on: cells that touch and whose mean motion is alike."""
    from zeroflow_core.verification.kernels import linked

    index = np.floor(points / _CELL).astype(np.int64)
    index -= index.min(axis=0) - 1
    span = index.max(axis=0) + 2  # with a free cell at either side, no neighbour's number is another cell's
    steps = np.array([span[1] * span[2], span[2], 1])
    occupied, cell = np.unique(index @ steps, return_inverse=True)
    count = np.bincount(cell)
    mean = np.column_stack([np.bincount(cell, column) / count for column in motion.T])
    around = np.array([(x, y, z) for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1)]) @ steps
    speed = np.linalg.norm(mean, axis=1)
    return linked(occupied, mean, speed, around[around > 0], alike, _ALIKE_LEAST * dt)[cell]


def _gaps(
    points: np.ndarray, motion: np.ndarray, others: np.ndarray, thing: np.ndarray, size: np.ndarray, asked: int | None
) -> list[np.ndarray]:
    """Mean distance of each thing's points to the other sweep, metres: where they are, and moved."""
    from zeroflow_core.verification.kernels import gaps

    if asked is not None and size.max() > asked:
        order = np.argsort(thing, kind="stable")
        rank = np.arange(len(thing)) - (np.cumsum(size) - size)[thing[order]]
        rows = order[rank % -(-size[thing[order]] // asked) == 0]
        points, motion, thing = points[rows], motion[rows], thing[rows]
        size = np.bincount(thing)
    where = np.concatenate([points, points + motion])
    low = where[:, :2].min(axis=0)
    span = where[:, :2].max(axis=0) - low
    side = max(_SIDE, float(span.max()) / _MOST_CELLS)
    nearest = gaps(where, others, low, side, np.floor(span / side).astype(np.int64) + 1, _FARTHEST_GAP)
    return [np.bincount(thing, part) / size for part in np.split(nearest, 2)]


def _extent(points: np.ndarray, thing: np.ndarray) -> list[np.ndarray]:
    """Of each thing, metres: along the axis in x and y that it extends along most, across it, and in z."""
    size = np.bincount(thing)
    x, y = (points[:, k] - (np.bincount(thing, points[:, k]) / size)[thing] for k in (0, 1))
    xx, xy, yy = (np.bincount(thing, product) for product in (x * x, x * y, y * y))
    yaw = (0.5 * np.arctan2(2 * xy, xx - yy))[thing]
    order = np.argsort(thing, kind="stable")
    starts = np.flatnonzero(np.diff(thing[order], prepend=-1))
    along, across = x * np.cos(yaw) + y * np.sin(yaw), y * np.cos(yaw) - x * np.sin(yaw)
    return [
        np.maximum.reduceat(values[order], starts) - np.minimum.reduceat(values[order], starts)
        for values in (along, across, points[:, 2])
    ]
