"""How things move: along an arc, with constant acceleration until they stand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zeroflow_core.geometry import SE3


@dataclass(frozen=True)
class ArcMotion:
    """A rigid track in the world's ground plane, known at every time.

    x, y, yaw:    pose at time 0, metres and radians
    speed:        m/s at time 0, forward
    acceleration: m/s²; a braking body stops and stays
    curvature:    1/m, left turns positive
    """

    x: float
    y: float
    yaw: float
    speed: float = 0.0
    acceleration: float = 0.0
    curvature: float = 0.0

    def at(self, time: np.ndarray | float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """x, y and yaw at `time` (seconds, any shape)."""
        time = np.asarray(time, dtype=np.float64)
        if self.acceleration < 0:
            time = np.minimum(time, -self.speed / self.acceleration)
        elif self.acceleration > 0:
            time = np.maximum(time, -self.speed / self.acceleration)
        distance = self.speed * time + 0.5 * self.acceleration * time**2
        turn = self.curvature * distance
        chord = distance * np.sinc(turn / (2 * np.pi))  # 2 sin(turn/2) / curvature, and no 0/0
        heading = self.yaw + turn / 2
        return self.x + chord * np.cos(heading), self.y + chord * np.sin(heading), self.yaw + turn

    def pose(self, time: float, z: float = 0.0) -> SE3:
        """world_SE3_body at `time`."""
        x, y, yaw = self.at(time)
        return SE3.from_yaw(float(yaw), np.array([x, y, z]))
