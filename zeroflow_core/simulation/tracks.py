"""How bodies move: a pose every 20 ms, and straight lines between those."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zeroflow_core.geometry import SE3
from zeroflow_core.simulation.solids import rotation_from_turn

KNOT_S = 0.02


def knot_times(seconds: float) -> np.ndarray:
    """Times (K,) of the knots of a scene that has to last from 0 to `seconds`, with half a second around it."""
    return np.arange(-0.5, seconds + 0.5 + KNOT_S, KNOT_S)


def at(times: np.ndarray, values: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Rows (N,V) of `values` at each `time` (N,), between the knots `times` (K,).

    values: (K,V), of one track, or (N,K,V), one for each time
    """
    x = np.clip((np.asarray(time) - times[0]) / KNOT_S, 0, len(times) - 1.001)
    knot = x.astype(np.int64)
    part = (x - knot)[..., None]
    before, after = ((knot + k,) if values.ndim == 2 else (np.arange(len(knot)), knot + k) for k in (0, 1))
    return values[before] * (1 - part) + values[after] * part


@dataclass(frozen=True)
class Track:
    """Pose of a body in the world at each knot of its scene.

    position: (K,3) float64, metres
    turn:     (K,3) float64, (roll, pitch, yaw) in radians, without jumps of 2π
    """

    position: np.ndarray
    turn: np.ndarray

    def pose(self, times: np.ndarray, time: float) -> SE3:
        """world_SE3_body at `time`; times: the scene's knots (K,)."""
        position, turn = (at(times, values, np.array(time)) for values in (self.position, self.turn))
        return SE3(rotation_from_turn(turn), position)
