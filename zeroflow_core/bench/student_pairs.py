"""The clouds that the student is timed on: of a real log, or made up with as many points or pillars as wanted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zeroflow_core.bench.teacher_pair import read_pair
from zeroflow_core.datasets.av2 import Log, find_logs
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.fastflow3d.config import FastFlow3DConfig

MADE_UP_POINTS = 100_000  # of each cloud where nothing else is said
POINT_COUNTS = (20_000, 50_000, 100_000, 150_000, 200_000)
OCCUPANCIES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_SEED = 7

# A world of upright things on a plane, which a scanner at the origin sees from 4 m to beyond the published grid. Their
# number and sizes are such that 80,000 points lie in 3 % of the published grid's pillars, as those of a real sweep do
# without its ground.
_THINGS, _NEAREST, _FARTHEST = 350, 4.0, 70.0
_LENGTHS, _LONG_SHARE, _LONG_LENGTHS = (0.3, 4.0), 0.25, (5.0, 30.0)  # metres; walls are long
_HEIGHTS, _LOWEST = (0.5, 4.0), -0.3  # metres
_MOVING_SHARE, _FASTEST = 0.15, 1.5  # of the things, and metres a sweep
_NOISE = 0.02  # metres


@dataclass(frozen=True)
class CloudPair:
    """Two clouds in one frame, and what they are.

    kind:     ``pair``, ``points`` or ``occupancy``: the table that it is for
    pc0, pc1: (N0,3), (N1,3) float32, metres, finite
    """

    kind: str
    name: str
    pc0: np.ndarray
    pc1: np.ndarray


def usual_pairs(data: Path | None, points: int | None) -> list[CloudPair]:
    """What is timed in any case, the headline first: the first pair of the first log below `data`, without ground and
    with it; where `points` is given or there is no `data`, a pair made up.

    Raises:
        ZeroFlowError: no log below `data` has two sweeps, or one that cannot be read.
    """
    if data is None or points is not None:
        return [points_pair(points or MADE_UP_POINTS, kind="pair")]
    log = next((log for log in map(Log, find_logs(data)) if len(log) > 1), None)
    if log is None:
        raise ZeroFlowError(f"no log in {data} has two sweeps; give another folder, or --points for a pair made up")
    pair, name = read_pair(log, 0), log.log_id[:8]
    clouds = [(pair.pc0, pair.is_ground0), (pair.pc1, pair.is_ground1)]
    finite = [(cloud[known], is_ground[known]) for cloud, is_ground in clouds for known in [_finite(cloud)]]
    return [
        CloudPair("pair", f"{name} without ground", *(cloud[~is_ground] for cloud, is_ground in finite)),
        CloudPair("pair", f"{name} with ground", *(cloud for cloud, _ in finite)),
    ]


def sweep_pairs(config: FastFlow3DConfig) -> list[CloudPair]:
    """Pairs made up: the same world with more and more points, then more and more pillars with the same points."""
    return [*map(points_pair, POINT_COUNTS), *(occupancy_pair(share, config) for share in OCCUPANCIES)]


def points_pair(points: int, seed: int = _SEED, kind: str = "points") -> CloudPair:
    """Both clouds have so many points of one world in which some things move. Points get rarer with the square of the
    range, as those of a scanner do; a few lie beyond the published grid."""
    rng = np.random.default_rng(seed)
    distance = _FARTHEST * np.sqrt(rng.uniform((_NEAREST / _FARTHEST) ** 2, 1.0, _THINGS))  # even over the area
    heading, azimuth = rng.uniform(-np.pi, np.pi, (2, _THINGS))
    centre = distance[:, None] * np.stack([np.cos(azimuth), np.sin(azimuth)], axis=1)
    long = rng.random(_THINGS) < _LONG_SHARE
    length = np.where(long, rng.uniform(*_LONG_LENGTHS, _THINGS), rng.uniform(*_LENGTHS, _THINGS))
    height = rng.uniform(*_HEIGHTS, _THINGS)
    way = np.stack([np.cos(heading), np.sin(heading)], axis=1)
    step = np.where(rng.random(_THINGS) < _MOVING_SHARE, rng.uniform(0.0, _FASTEST, _THINGS), 0.0)
    seen = length * height / distance**2
    clouds = []
    for moved in (0.0, 1.0):
        thing = rng.choice(_THINGS, points, p=seen / seen.sum())
        along = moved * step[thing] + length[thing] * rng.uniform(-0.5, 0.5, points)
        z = _LOWEST + height[thing] * rng.random(points)
        cloud = np.column_stack([centre[thing] + along[:, None] * way[thing], z])
        clouds.append((cloud + rng.normal(0.0, _NOISE, cloud.shape)).astype(np.float32))
    return CloudPair(kind, f"{points:,} points, seed {seed}", *clouds)


def occupancy_pair(share: float, config: FastFlow3DConfig, seed: int = _SEED) -> CloudPair:
    """In both clouds this share of the grid's pillars has points, near ones first; the number of points is that of all
    pillars, whatever the share."""
    rng = np.random.default_rng(seed)
    clouds = [_in_pillars(round(share * config.cells**2), config, rng) for _ in range(2)]
    return CloudPair("occupancy", f"{100 * share:g}% of the pillars", *clouds)


def _in_pillars(occupied: int, config: FastFlow3DConfig, rng: np.random.Generator) -> np.ndarray:
    cells, low, high = config.cells, np.array(config.minimum), np.array(config.maximum)
    row, column = np.divmod(np.arange(cells * cells), cells)
    corner = np.stack([column, row], axis=1) * config.pillar_size + low[:2]
    # The lowest of these keys are a draw without replacement by weights that fall with the square of the range.
    key = rng.exponential(size=cells * cells) * (np.square(corner).sum(axis=1) + _NEAREST**2)
    chosen = np.argpartition(key, occupied - 1)[:occupied] if occupied < cells * cells else np.arange(cells * cells)
    chosen = rng.permutation(np.resize(chosen, cells * cells))  # each once, then again until there are enough points
    xy = corner[chosen] + config.pillar_size * rng.uniform(0.1, 0.9, (cells * cells, 2))
    z = rng.uniform(0.9 * low[2] + 0.1 * high[2], 0.1 * low[2] + 0.9 * high[2], (cells * cells, 1))
    return np.hstack([xy, z]).astype(np.float32)


def occupied_share(cloud: np.ndarray, config: FastFlow3DConfig) -> float:
    """Of the grid's pillars, those that hold any of the cloud's points."""
    import torch

    from zeroflow_core.fastflow3d.pillars import PillarGrid

    cell = PillarGrid(config)(torch.from_numpy(cloud)).cell
    return len(torch.unique(cell)) / config.cells**2


def _finite(cloud: np.ndarray) -> np.ndarray:
    return np.isfinite(cloud).all(axis=1)
