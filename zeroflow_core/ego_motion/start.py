"""About how far a vehicle has moved from one sweep to the next, when nothing at all is known of its motion."""

from __future__ import annotations

import numpy as np

from zeroflow_core.ego_motion.icp import near_ground

_REACH = 10.0  # metres that are tried at most
_STEP = 0.5  # metres between what is tried
_CELL = 1.0  # metres
_NEAR = 50.0  # metres within which points are looked at
_THIN = 0.5  # metres: of the points that are tried there is one in each cube of this width


def likely_shift(first: np.ndarray, second: np.ndarray, reach: float) -> np.ndarray:
    """(3,) metres: the level shift that brings most points of `second` to where `first` has some, and of equally good
    ones the shortest. Points near the ground, which fit everywhere, do not count.

    first, second: (N,3), (M,3) metres, z up, each in the vehicle's frame
    reach:         metres that the vehicle may have moved, 10 at most
    """
    first, second = _upright(first), _upright(second)
    if len(first) == 0 or len(second) == 0:
        return np.zeros(3)
    second = _thinned(second)
    steps = np.arange(-int(min(reach, _REACH) / _STEP), int(min(reach, _REACH) / _STEP) + 1) * _STEP
    shifts = np.array([(x, y, 0.0) for x in steps for y in steps])
    shifts = shifts[np.argsort(np.linalg.norm(shifts, axis=1), kind="stable")]

    everything = np.concatenate([first, second + shifts.min(axis=0), second + shifts.max(axis=0)])
    low = everything.min(axis=0)
    occupied = np.zeros(((everything.max(axis=0) - low) / _CELL).astype(np.int64) + 1, dtype=bool)
    occupied[tuple(((first - low) / _CELL).astype(np.int64).T)] = True
    hits = [occupied[tuple(((second + shift - low) / _CELL).astype(np.int64).T)].sum() for shift in shifts]
    return shifts[int(np.argmax(hits))]


def _thinned(points: np.ndarray) -> np.ndarray:
    """One point for each place, or the vehicles nearby, which may be as fast, would outnumber everything else."""
    keys = np.floor(points / _THIN).astype(np.int64) @ np.array([1 << 40, 1 << 20, 1])
    return points[np.unique(keys, return_index=True)[1]]


def _upright(points: np.ndarray) -> np.ndarray:
    near = points[np.abs(points).max(axis=1) < _NEAR]
    return near[~near_ground(near)]
