"""Nothing runs into anything: boxes of moving things over time, and a map of where something already is."""

from __future__ import annotations

import numpy as np

from zeroflow_core.simulation.tracks import Track

EVERY = 4  # knots between two looks, 80 ms


class Occupancy:
    """The boxes of everything that may be run into, over the time of the scene."""

    def __init__(self, knots: int) -> None:
        self._looks = np.arange(0, knots, EVERY)
        self._boxes = np.empty((64, 4, len(self._looks)), dtype=np.float32)  # x, y, cos, sin
        self._halves = np.empty((64, 2), dtype=np.float32)
        self._count = 0

    def box(self, track: Track, size, centre, margin: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """Boxes (4,T) as middle x and y, cosine and sine of the yaw, and half length and width (2,)."""
        position, yaw = track.position[self._looks], track.turn[self._looks, 2]
        c, s = np.cos(yaw), np.sin(yaw)
        x = position[:, 0] + c * centre[0] - s * centre[1]
        y = position[:, 1] + s * centre[0] + c * centre[1]
        return np.stack([x, y, c, s]).astype(np.float32), np.array(size[:2], dtype=np.float32) / 2 + margin

    def add(self, box: np.ndarray, half: np.ndarray) -> None:
        if self._count == len(self._boxes):
            self._boxes = np.concatenate([self._boxes, np.empty_like(self._boxes)])
            self._halves = np.concatenate([self._halves, np.empty_like(self._halves)])
        self._boxes[self._count], self._halves[self._count] = box, half
        self._count += 1

    def free(self, box: np.ndarray, half: np.ndarray) -> bool:
        """Whether a box (4,T) with half sizes (2,) overlaps none of those added, at any time."""
        others, halves = self._boxes[: self._count], self._halves[: self._count]
        dx, dy = others[:, 0] - box[0], others[:, 1] - box[1]
        reach = np.hypot(*halves.T) + np.hypot(*half)
        who, when = np.nonzero(dx * dx + dy * dy < (reach * reach)[:, None])
        if len(who) == 0:
            return True
        dx, dy, (hl, hw), (ol, ow) = dx[who, when], dy[who, when], half, halves[who].T
        c, s, oc, os = box[2, when], box[3, when], others[who, 2, when], others[who, 3, when]
        along, across = np.abs(c * oc + s * os), np.abs(c * os - s * oc)  # of the one's axes on the other's
        apart = np.abs(c * dx + s * dy) > hl + ol * along + ow * across
        apart |= np.abs(c * dy - s * dx) > hw + ol * across + ow * along
        apart |= np.abs(oc * dx + os * dy) > ol + hl * along + hw * across
        apart |= np.abs(oc * dy - os * dx) > ow + hl * across + hw * along
        return bool(apart.all())


class Plot:
    """A raster of the world that says how high it is taken at each place.

    low, high: corners of what it covers, metres
    """

    CELL = 0.25

    def __init__(self, low: np.ndarray, high: np.ndarray) -> None:
        self._low = np.asarray(low, dtype=float)
        self._height = np.full(np.ceil((np.asarray(high) - self._low) / self.CELL).astype(int) + 1, -np.inf, np.float32)

    def covers(self, xy: np.ndarray) -> np.ndarray:
        """Which of the points (...,2) it covers, (...) bool."""
        cell = (xy - self._low) / self.CELL
        return ((cell >= 0) & (cell < np.array(self._height.shape) - 1)).all(axis=-1)

    def take(self, points: np.ndarray, height: float) -> None:
        """Take the places of points (...,2) up to `height` metres above the ground."""
        i, j = self._cells(points)
        self._height[i, j] = np.maximum(self._height[i, j], height)

    def free(self, points: np.ndarray, above: float = 0.0) -> bool:
        """Whether nothing taken is higher than `above` metres at points (...,2)."""
        i, j = self._cells(points)
        return bool((self._height[i, j] <= above).all())

    def _cells(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        cell = np.round((points.reshape(-1, 2) - self._low) / self.CELL).astype(int)
        i, j = np.clip(cell, 0, np.array(self._height.shape) - 1).T
        return i, j


def footprint(half_length: float, half_width: float, spacing: float = Plot.CELL) -> np.ndarray:
    """Points (N,2) that fill a rectangle about the origin, its edges included."""
    rows, columns = (max(int(np.ceil(2 * half / spacing)), 1) for half in (half_length, half_width))
    points = np.empty((rows + 1, columns + 1, 2))
    points[..., 0] = ((2 * np.arange(rows + 1) / rows - 1) * half_length)[:, None]
    points[..., 1] = (2 * np.arange(columns + 1) / columns - 1) * half_width
    return points.reshape(-1, 2)


def trace(box: np.ndarray, half: np.ndarray) -> np.ndarray:
    """Points (M,2) that fill boxes (4,T) as Occupancy.box gives them, its way over time; one where it stands still."""
    stands = np.ptp(box[:2], axis=1).max() < 1e-3
    x, y, c, s = (box[:, :1] if stands else box)[:, :, None]
    px, py = footprint(half[0], half[1], Plot.CELL * (1 if stands else 2)).T
    return np.stack([x + c * px - s * py, y + s * px + c * py], axis=-1).reshape(-1, 2)
