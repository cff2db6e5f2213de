"""Which points are ground: Patchwork++ on any scanner, the height raster of an AV2 map, or nothing.

A rule is a callable ``Sweep → (N,) bool``; the same rule serves the live node and the trainer. Rules keep no
state between sweeps, so the order in which sweeps arrive never changes a mask.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.geometry import finite_rows
from zeroflow_core.pairs import Sweep

GroundRule = Callable[[Sweep], np.ndarray]

GROUND_Z = -0.33  # metres: the ground in the vehicle frame of Argoverse 2, where published weights were trained

_FEWEST_GROUND_POINTS = 100  # that tell a height
_PATCHWORK_SENSOR_HEIGHT = 1.723  # metres; Patchwork++'s own default, to which clouds are shifted


def mark_ground(sweep: Sweep, rule: GroundRule) -> Sweep:
    """The same sweep with its ground mask filled in; points that are not finite are never ground."""
    is_ground = rule(sweep) & finite_rows(sweep.points)
    return replace(sweep, is_ground=is_ground)


def ground_rule(name: str) -> GroundRule:
    """The rule called `name`: ``patchwork`` or ``none`` (a map raster is made by the AV2 reader).

    Raises:
        ValueError: for any other name.
    """
    rules: dict[str, GroundRule] = {"patchwork": Patchwork(), "none": no_ground}
    if name not in rules:
        raise ValueError(f"ground rule '{name}' is unknown; choose one of: {', '.join(rules)}")
    return rules[name]


def no_ground(sweep: Sweep) -> np.ndarray:
    """(N,) bool, all False."""
    return np.zeros(len(sweep), dtype=bool)


@dataclass(frozen=True)
class MapRaster:
    """Ground by an AV2 ground-height raster, with ZeroFlow's rule: |z − h| ≤ 0.4 m, or below the raster.

    heights:   (H,W) float, metres in the city frame; NaN where unknown
    rotation, translation, scale: ``img_Sim2_city``: pixel = scale · (rotation @ xy + translation)
    threshold: metres
    nearest:   the pixel is the nearest one, else the one that truncation towards zero gives
    """

    heights: np.ndarray
    rotation: np.ndarray
    translation: np.ndarray
    scale: float
    threshold: float = 0.4
    nearest: bool = True

    def as_av2(self) -> MapRaster:
        """The same raster with the rule of the av2 package and its labels: 0.3 m, pixels truncated."""
        return replace(self, threshold=0.3, nearest=False)

    def __call__(self, sweep: Sweep) -> np.ndarray:
        if sweep.world_SE3_ego is None:
            raise ValueError("the map raster is in the city frame: the sweep needs world_SE3_ego")
        city = sweep.world_SE3_ego.transform(sweep.points.astype(np.float64))
        height = self.height_at(city[:, :2])
        with np.errstate(invalid="ignore"):
            return (np.abs(city[:, 2] - height) <= self.threshold) | (city[:, 2] < height)

    def height_at(self, xy: np.ndarray) -> np.ndarray:
        """Height (N,) of the ground at city positions (N,2); NaN outside the raster."""
        finite = np.isfinite(xy).all(axis=1)
        pixel = np.zeros(xy.shape, dtype=np.int64)
        exact = (xy[finite] @ self.rotation.T + self.translation) * self.scale
        exact = np.clip(exact, -1.0, max(self.heights.shape))  # far outside is outside
        pixel[finite] = np.round(exact) if self.nearest else np.trunc(exact)
        rows, columns = self.heights.shape
        x, y = pixel.T
        inside = finite & (x >= 0) & (x < columns) & (y >= 0) & (y < rows)
        height = np.full(len(xy), np.nan)
        height[inside] = self.heights[y[inside], x[inside]]
        return height


class Patchwork:
    """Ground by Patchwork++ (pypatchworkpp), which needs no map and no intensity.

    Patchwork++ expects the scanner at the origin; here the cloud is shifted so that its own ground lies
    where Patchwork++ looks for it, whatever frame and mounting height the cloud comes in.

    Raises:
        ZeroFlowError: the package pypatchworkpp can't be loaded.
    """

    def __call__(self, sweep: Sweep) -> np.ndarray:
        try:
            import pypatchworkpp
        except ImportError as error:
            raise ZeroFlowError(
                f"Patchwork++ can't be loaded ({error}): pip install pypatchworkpp, or choose another ground rule"
            ) from error
        is_ground = np.zeros(len(sweep), dtype=bool)
        finite = np.flatnonzero(finite_rows(sweep.points))
        ground_z = estimate_ground_z(sweep.points)
        if ground_z is None:
            return is_ground
        points = np.zeros((4, len(finite)), dtype=np.float32)  # as Patchwork++ keeps them: column by column
        points[:3] = sweep.points.take(finite, axis=0).T
        points[2] = points[2].astype(np.float64) - (ground_z + _PATCHWORK_SENSOR_HEIGHT)
        parameters = pypatchworkpp.Parameters()
        parameters.sensor_height = _PATCHWORK_SENSOR_HEIGHT
        parameters.enable_RNR = False  # reflected noise removal reads intensity, which not every cloud has
        # A new instance each time: an old one adapts its thresholds, and the same sweep must give the same mask.
        with _silence():
            patchwork = pypatchworkpp.patchworkpp(parameters)
        patchwork.estimateGround(points.T)
        is_ground[finite[patchwork.getGroundIndices()]] = True
        return is_ground


def estimate_ground_z(points: np.ndarray) -> float | None:
    """Height of the ground in the cloud's own frame, in metres: the median of the lowest point per 1 m cell
    between 3 and 20 m from the origin; None when fewer than 20 such cells hold points.

    points: (N,3), metres, z up. It takes about 1 ms per 100,000 points.
    """
    x, y, z = (column.astype(np.float64) for column in points.T)
    with np.errstate(invalid="ignore", over="ignore"):
        squared = x * x + y * y
        near = np.flatnonzero((squared > 3.0**2) & (squared < 20.0**2) & np.isfinite(z))
    x, y, z = x[near], y[near], z[near]
    cell = (np.floor(x).astype(np.int64) + 20) * 64 + np.floor(y).astype(np.int64) + 20
    lowest = np.full(64 * 64, np.inf)
    np.minimum.at(lowest, cell, z)
    lowest = lowest[np.isfinite(lowest)]
    return float(np.median(lowest)) if len(lowest) >= 20 else None


def ground_z_of(sweeps: Iterable[Sweep]) -> float | None:
    """Height of the ground in the sweeps' own frame, in metres: the median over those sweeps that show it, None when
    none does.

    In a sweep it is the median height of what Patchwork++ finds between 3 and 20 m from the origin; without Patchwork++
    it is estimate_ground_z, which kerbs and hedges raise by 10 cm or so.
    """
    heights = [height for sweep in sweeps if (height := _ground_z(sweep)) is not None]
    return float(np.median(heights)) if heights else None


def offset_to(expected: float, ground_z: float, tolerance: float) -> float:
    """Metres to add to z of clouds whose ground lies at `ground_z`, so that it lies at `expected`; 0 where it is wrong
    by no more than `tolerance`, as estimates are no better. All in metres, the answer in whole millimetres."""
    return round(expected - ground_z, 3) if abs(expected - ground_z) > tolerance else 0.0


def _ground_z(sweep: Sweep) -> float | None:
    try:
        is_ground = Patchwork()(sweep)
    except ZeroFlowError:  # it is not installed
        return estimate_ground_z(sweep.points)
    ground = sweep.points[is_ground]
    distance = np.hypot(ground[:, 0], ground[:, 1])
    heights = ground[(distance > 3.0) & (distance < 20.0), 2]
    return float(np.median(heights)) if len(heights) >= _FEWEST_GROUND_POINTS else estimate_ground_z(sweep.points)


@contextmanager
def _silence():
    """Keep the library's C++ greeting off standard output."""
    saved, null = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    try:
        yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)
        os.close(null)
