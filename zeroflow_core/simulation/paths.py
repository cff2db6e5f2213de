"""Where things go: roads as coordinates along and across, and paths by arc length."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from zeroflow_core.simulation.terrain import Road

STEP = 0.25  # metres between the points of a path


@dataclass(frozen=True)
class Path:
    """A planar path along the cubic B-spline of its points, whose curvature has no jumps; straight on beyond its ends.

    points: (N,2) every STEP metres, world frame
    """

    points: np.ndarray

    @classmethod
    def through(cls, points: np.ndarray, ease: float = 0.0) -> Path:
        """The path along a dense polyline (N,2); `ease` metres of moving average turn kinks into clothoids."""
        along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
        count = max(int(along[-1] / STEP), 2) + 1
        even = np.stack([np.interp(np.arange(count) * STEP, along, points[:, i]) for i in range(2)], axis=1)
        half = int(ease / STEP / 2)
        if half == 0:
            return cls(even)
        ahead, behind = np.arange(1, half + 1)[:, None], np.arange(half, 0, -1)[:, None]
        padded = np.concatenate(
            [even[0] - behind * (even[1] - even[0]), even, even[-1] + ahead * (even[-1] - even[-2])]
        )
        sums = np.cumsum(np.concatenate([np.zeros((1, 2)), padded]), axis=0)
        width = 2 * half + 1
        return cls.through((sums[width:] - sums[:-width]) / width)

    @property
    def length(self) -> float:
        return (len(self.points) - 1) * STEP

    @cached_property
    def _padded(self) -> np.ndarray:
        """The points with one more before and after, so that the curve begins and ends at the first and last."""
        first, last = self._ends
        return np.concatenate([[self.points[0] - first], self.points, [self.points[-1] + last]])

    @cached_property
    def _ends(self) -> tuple[np.ndarray, np.ndarray]:
        """Steps (2,) along the path at its beginning and at its end."""
        return self.points[1] - self.points[0], self.points[-1] - self.points[-2]

    def at(self, s: np.ndarray) -> np.ndarray:
        """Points (...,2) at arc lengths (...), metres."""
        x, last = np.asarray(s, dtype=float) / STEP, len(self.points) - 1
        inside = np.clip(x, 0, last)
        i = np.minimum(inside.astype(int), last - 1)
        t = (inside - i)[..., None]
        p, q, r, u = (self._padded[i + k] for k in range(4))
        # between q and r, with a weight for each of four neighbouring points
        bend = (1 - t) ** 3 * p + (4 + t * t * (3 * t - 6)) * q + (1 + 3 * t * (1 + t - t * t)) * r + t**3 * u
        return bend / 6 + (x - inside)[..., None] * np.where((x < 0)[..., None], *self._ends)

    def heading(self, s: np.ndarray) -> np.ndarray:
        """Direction (...) at arc lengths (...), radians, over half a metre."""
        step = self.at(np.asarray(s) + STEP) - self.at(np.asarray(s) - STEP)
        return np.arctan2(step[..., 1], step[..., 0])

    def curvature(self) -> np.ndarray:
        """Absolute curvature (N,) at every point, over two metres, 1/m."""
        s = np.arange(len(self.points)) * STEP
        turn = self.heading(s + 1) - self.heading(s - 1)
        return np.abs((turn + np.pi) % (2 * np.pi) - np.pi) / 2

    def beside(self, d: float) -> Path:
        """The path `d` metres to the left of this one."""
        return Path.through(_beside(self, d)) if d else self

    def nearest(self, point: np.ndarray) -> float:
        """Arc length of the path's point nearest to `point` (2,), metres."""
        return float(np.argmin(np.linalg.norm(self.points - point, axis=1)) * STEP)


@dataclass(frozen=True)
class Course:
    """A road's middle line of constant curvature, and the coordinates it gives: s along, d to the left.

    point, heading: where s = 0, world frame, metres and radians
    curvature:      1/m, left turns positive
    """

    point: tuple[float, float] = (0.0, 0.0)
    heading: float = 0.0
    curvature: float = 0.0

    def at(self, s: np.ndarray | float, d: np.ndarray | float = 0.0) -> np.ndarray:
        """World points (...,2) at s and d, metres."""
        s, d = np.broadcast_arrays(np.asarray(s, dtype=float), np.asarray(d, dtype=float))
        half = self.curvature * s / 2
        chord = s * np.sinc(half / np.pi)
        x = self.point[0] + chord * np.cos(self.heading + half) - d * np.sin(self.heading + 2 * half)
        y = self.point[1] + chord * np.sin(self.heading + half) + d * np.cos(self.heading + 2 * half)
        return np.stack([x, y], axis=-1)

    def yaw(self, s: np.ndarray | float) -> np.ndarray:
        """Direction (...) of the road at s, radians."""
        return self.heading + self.curvature * np.asarray(s, dtype=float)

    def road(self, half_width: float) -> Road:
        """The same for the terrain."""
        return Road(self.point, self.heading, half_width, self.curvature)

    def path(self, start: float, end: float, d: float | Callable[[np.ndarray], np.ndarray] = 0.0) -> Path:
        """From s = start to s = end (backwards where end < start), `d` to the left of the road's middle.

        d: metres, or a function of s (N,) that gives (N,), as for a change of lanes
        """
        s = np.linspace(start, end, max(int(abs(end - start) / STEP), 2) + 1)
        return Path.through(self.at(s, d(s) if callable(d) else d))

    def crossing(self, s: float, angle: float) -> Course:
        """A straight road that crosses this one at s, turned to the left by `angle` radians."""
        x, y = self.at(s)
        return Course((float(x), float(y)), float(self.yaw(s)) + angle)


def shift(start: float, end: float, over: float, length: float) -> Callable[[np.ndarray], np.ndarray]:
    """d(s) of a change of lanes from `start` to `end` metres across, begun at s = over, `length` metres long."""

    def d(s: np.ndarray) -> np.ndarray:
        x = np.clip((s - over) / length, 0, 1)
        return start + (end - start) * x**3 * (10 - 15 * x + 6 * x * x)

    return d


def turn(into: Path, out: Path, radius: float) -> Path:
    """The way along `into`, round an arc of `radius` metres, and on along `out`, which `into` has to cross."""
    i, j = _closest(into.points, out.points)
    bend = out.heading(j * STEP) - into.heading(i * STEP)
    bend = (bend + np.pi) % (2 * np.pi) - np.pi
    side = np.sign(bend)

    # the arc's centre lies `radius` metres to the side of both
    inner, outer = _beside(into, side * radius), _beside(out, side * radius)
    k, m = _closest(inner[: i + 1], outer[j:])
    m += j
    heading = into.heading(k * STEP)
    normal = np.array([-np.sin(heading), np.cos(heading)])
    centre = into.points[k] + side * radius * normal
    angles = np.arange(0, abs(bend), STEP / radius)[1:, None] * side + heading - side * np.pi / 2
    arc = centre + radius * np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
    return Path.through(np.concatenate([into.points[:k], arc, out.points[m + 1 :]]), ease=min(6.0, radius))


def _beside(path: Path, d: float) -> np.ndarray:
    heading = path.heading(np.arange(len(path.points)) * STEP)
    return path.points + d * np.stack([-np.sin(heading), np.cos(heading)], axis=1)


def _closest(a: np.ndarray, b: np.ndarray) -> tuple[int, int]:
    """Indices of the pair of points (N,2) and (M,2) with the least distance."""
    every = 8  # coarse first: all pairs of two long paths are many
    gap = np.linalg.norm(a[::every, None] - b[None, ::every], axis=-1)
    i, j = (int(n) * every for n in np.unravel_index(np.argmin(gap), gap.shape))
    i0, j0 = max(i - 2 * every, 0), max(j - 2 * every, 0)
    gap = np.linalg.norm(a[i0 : i + 2 * every, None] - b[None, j0 : j + 2 * every], axis=-1)
    di, dj = np.unravel_index(np.argmin(gap), gap.shape)
    return i0 + int(di), j0 + int(dj)
