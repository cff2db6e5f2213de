"""A short drive through a street that stands still, as the messages of a bag: what is true of it is known exactly."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from bag_cases import START, STEP, message_of, odometry_message, record, tf_message
from scipy.spatial import cKDTree

from zeroflow_core.datasets.av2 import Log
from zeroflow_core.geometry import SE3

MOUNT = SE3.from_yaw(0.3, np.array([1.2, 0.1, 1.9]))  # base_SE3_lidar; the base is on the ground
RANGE = 25.0  # metres
SPEED, TURN = 8.0, 0.15  # m/s, rad/s


@cache
def street() -> np.ndarray:
    """(N,3) float64, metres: ground at z = 0, and houses at the sides with gaps between them."""
    rng = np.random.default_rng(5)
    ground = np.column_stack([rng.uniform((-30, -30), (60, 30), (5000, 2)), np.zeros(5000)])
    walls = []
    for k in range(24):
        side = 1 if k % 2 else -1
        x, y, depth = -28 + 3.6 * k, side * (8 + 4 * rng.random()), 5.0
        front = np.column_stack([rng.uniform(x, x + 5, 160), np.full(160, y), rng.uniform(0, 6, 160)])
        flank = np.column_stack([np.full(120, x), y + side * rng.uniform(0, depth, 120), rng.uniform(0, 6, 120)])
        walls += [front, flank]
    return np.concatenate([ground, *walls])


def world_SE3_base(seconds: float) -> SE3:
    """Along an arc."""
    angle, radius = TURN * seconds, SPEED / TURN
    return SE3.from_yaw(angle, np.array([radius * np.sin(angle), radius * (1 - np.cos(angle)), 0.0]))


@dataclass(frozen=True)
class Drive:
    """
    stamps: of the sweeps, in tenths of a second from START
    skewed: points are seen one after the other, during the tenth of a second after the stamp
    """

    stamps: tuple[float, ...] = tuple(range(5))
    skewed: bool = False

    def stamp_ns(self, k: int) -> int:
        return START + round(self.stamps[k] * STEP)

    def cloud(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Points (N,3) float32 in the scanner's frame, and nanoseconds (N,) from the stamp."""
        seconds = self.stamps[k] * 0.1
        seen = (world_SE3_base(seconds) @ MOUNT).inverse().transform(street())
        world = street()[np.hypot(seen[:, 0], seen[:, 1]) < RANGE]
        if not self.skewed:
            points = (world_SE3_base(seconds) @ MOUNT).inverse().transform(world)
            return points.astype(np.float32), np.zeros(len(world), np.int64)
        order = np.argsort(np.arctan2(*(world - world_SE3_base(seconds).translation)[:, 1::-1].T))
        slices = np.array_split(world[order], 50)
        moments = seconds + 0.1 * np.arange(50) / 50
        points = [
            (world_SE3_base(t) @ MOUNT).inverse().transform(part) for t, part in zip(moments, slices, strict=True)
        ]
        offsets = np.repeat(np.round((moments - seconds) * 1e9).astype(np.int64), [len(part) for part in slices])
        return np.concatenate(points).astype(np.float32), offsets

    def message(self, k: int, frame: str = "velodyne"):
        points, offsets = self.cloud(k)
        columns = {name: points[:, axis] for axis, name in enumerate("xyz")}
        columns |= {"intensity": np.arange(len(points), dtype=np.float32) / 7, "t": offsets.astype(np.uint32)}
        return message_of(columns, self.stamp_ns(k), frame)

    def clouds(self, frame: str = "velodyne") -> list:
        """(topic, message, record time) of every cloud; so are the others."""
        return [("/points", self.message(k, frame), self.stamp_ns(k)) for k in range(len(self.stamps))]

    def odometry(self, child: str = "base_link", later_ns: int = 0) -> list:
        """Twice as often as the sweeps, and never at their stamps; of the scanner where `child` is its or none."""
        of_base = MOUNT if child in ("velodyne", "") else SE3.identity()
        poses = ((t, world_SE3_base((t - START) * 1e-9) @ of_base) for t in self._moments())
        return [("/odom", odometry_message(pose, t + later_ns, child), t) for t, pose in poses]

    def tf(self, parent: str = "odom", child: str = "base_link") -> list:
        poses = ((t, world_SE3_base((t - START) * 1e-9)) for t in self._moments())
        return [("/tf", tf_message((parent, child, pose), time_ns=t), t) for t, pose in poses]

    def mounting(self, parent: str = "base_link") -> list:
        return [("/tf_static", tf_message((parent, "velodyne", MOUNT)), START)]

    def record(self, path: Path, *parts: list, **how) -> Path:
        messages = sorted((message for part in parts for message in part), key=lambda message: message[2])
        return record(path, messages, **how)

    def _moments(self) -> range:
        last = max(self.stamps) + 2
        return range(START - 7 * STEP // 4, START + round(last * STEP), STEP // 2)


def misplaced(log: Path, seconds: float) -> float:
    """How far the points of a log lie from the street at worst, in metres, by the log's own poses.

    seconds: when its first sweep was taken, whose pose is taken for true
    """
    sweeps = list(Log(log).sweeps())
    start = world_SE3_base(seconds) @ SE3(np.eye(3), np.array([0, 0, 0.33])) @ sweeps[0].world_SE3_ego.inverse()
    tree = cKDTree(street())
    return max(float(tree.query((start @ s.world_SE3_ego).transform(s.points))[0].max()) for s in sweeps)
