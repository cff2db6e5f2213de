"""What a pair of sweeps looks like in numbers, the same for a real one and for one made up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zeroflow_core.ground import GroundRule, Patchwork
from zeroflow_core.pairs import Sweep

RANGE_EDGES = (0, 5, 10, 20, 30, 50, 80)  # metres from the scanner
HEIGHT_EDGES = (-0.6, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0)  # metres in the vehicle frame; roads are at -0.33
PILLAR_SIZE, PILLAR_REACH = 0.2, 51.2  # metres, of the student's grid
MOVING_SPEED = 0.5  # m/s over ground from which a point counts as moving, as in AV2's labels
NEIGHBOUR_QUERIES = 20_000
JUMP = 0.5  # metres between neighbouring returns of a beam that are not of one surface
QUIET_RANGE = 16.0  # metres within which coordinates in float16 are finer than the noise


@dataclass(frozen=True)
class Sample:
    """Two consecutive sweeps and what is known of the first.

    sweep0, sweep1: with poses
    origin: (3,) where the scanner is in the vehicle frame, metres; the mean of several
    ground: rule by the height of the ground, or None where that is unknown
    velocity: (N0,3) m/s over ground in the frame of sweep0, or None without labels
    """

    sweep0: Sweep
    sweep1: Sweep
    origin: np.ndarray
    ground: GroundRule | None = None
    velocity: np.ndarray | None = None


def measure(sample: Sample, seed: int) -> dict[str, float]:
    """Every statistic of the sample by its name, which begins with its topic and ends with its unit.

    NaN for what cannot be known.

    seed: of the draw of points whose nearest neighbours are looked up
    """
    sweep0, sweep1 = sample.sweep0, sample.sweep1
    finite = np.isfinite(sweep0.points).all(axis=1)
    points = sweep0.points[finite].astype(np.float64)
    distance = np.linalg.norm(points - sample.origin, axis=1)
    is_ground = Patchwork()(sweep0)
    by_height = np.empty(0) if sample.ground is None else sample.ground(sweep0)[finite]

    result = {"points": float(len(points))}
    result |= shares("range {} m, %", distance, RANGE_EDGES)
    result |= percentiles("range {}, m", distance, (10, 50, 90))
    result |= pillars(points)
    result["ground by Patchwork++, %"] = _share(is_ground[finite])
    result["ground by height, %"] = _share(by_height)
    result |= shares("height {} m, %", points[:, 2], HEIGHT_EDGES)
    result |= neighbours(sweep0, sweep1, is_ground, Patchwork()(sweep1), seed)
    result |= beams(sweep0, sample.origin)
    result |= motion(sample.velocity, is_ground)
    intensity = np.full(1, np.nan) if sweep0.intensity is None else sweep0.intensity[finite]
    result |= percentiles("intensity {}", intensity, (10, 50, 90))
    return result


def _share(mask: np.ndarray) -> float:
    """Per cent of (N,) bool that are True, NaN without any."""
    return 100 * float(mask.mean()) if len(mask) else np.nan


def shares(name: str, values: np.ndarray, edges: tuple[float, ...]) -> dict[str, float]:
    """Per cent of `values` (N,) from each edge to the next, and below and above the outer ones.

    A first edge of 0 is for values that are never negative: nothing is counted below it. `name` has a {} for
    the edges.
    """
    bounds = ([] if edges[0] == 0 else [-np.inf]) + [*edges, np.inf]
    counts = np.histogram(values, bounds)[0]
    labels = [
        f"below {high:g}" if low == -np.inf else f"{low:g}+" if high == np.inf else f"{low:g} to {high:g}"
        for low, high in zip(bounds, bounds[1:], strict=False)
    ]
    return {name.format(label): 100 * count / max(len(values), 1) for label, count in zip(labels, counts, strict=True)}


def percentiles(name: str, values: np.ndarray, at: tuple[int, ...]) -> dict[str, float]:
    """Percentiles of `values` (N,), NaN without any; `name` has a {} for their names."""
    found = np.percentile(values, at) if len(values) else np.full(len(at), np.nan)
    labels = ("median" if k == 50 else f"p{k}" for k in at)
    return {name.format(label): float(value) for label, value in zip(labels, found, strict=True)}


def pillars(points: np.ndarray) -> dict[str, float]:
    """How many pillars of the student's grid hold any of `points` (N,3), and how many points those hold."""
    inside = (np.abs(points[:, :2]) < PILLAR_REACH).all(axis=1)
    cells = np.floor((points[inside, :2] + PILLAR_REACH) / PILLAR_SIZE).astype(np.int64)
    side = round(2 * PILLAR_REACH / PILLAR_SIZE)
    counts = np.unique(cells[:, 1] * side + cells[:, 0], return_counts=True)[1]
    mean = float(counts.mean()) if len(counts) else np.nan
    return {
        "pillars occupied": float(len(counts)),
        "pillars, points in each: mean": mean,
        **percentiles("pillars, points in each: {}", counts, (50, 90)),
    }


def neighbours(
    sweep0: Sweep, sweep1: Sweep, is_ground0: np.ndarray, is_ground1: np.ndarray, seed: int
) -> dict[str, float]:
    """Distance of points above ground to the nearest such point of the next sweep, ego motion removed."""
    import open3d

    ego0_SE3_ego1 = sweep0.world_SE3_ego.inverse() @ sweep1.world_SE3_ego
    queries = sweep0.points[~is_ground0].astype(np.float64)
    others = ego0_SE3_ego1.transform(sweep1.points[~is_ground1].astype(np.float64))
    queries, others = (cloud[np.isfinite(cloud).all(axis=1)] for cloud in (queries, others))
    if len(queries) > NEIGHBOUR_QUERIES:
        queries = np.random.default_rng(seed).choice(queries, NEIGHBOUR_QUERIES, replace=False, shuffle=False)
    distance = np.empty(0)
    if len(queries) and len(others):
        clouds = [open3d.geometry.PointCloud(open3d.utility.Vector3dVector(cloud)) for cloud in (queries, others)]
        distance = np.asarray(clouds[0].compute_point_cloud_distance(clouds[1]))
    return percentiles("nearest in next sweep {}, m", distance, (50, 90))


def motion(velocity: np.ndarray | None, is_ground: np.ndarray) -> dict[str, float]:
    """How many of the points above ground move, and how fast; velocity: (N,3) m/s over ground or None."""
    speed = np.empty(0) if velocity is None else np.linalg.norm(velocity[~is_ground], axis=1)
    moves = speed >= MOVING_SPEED
    return {
        "moving, of points above ground, %": _share(moves),
        **percentiles("moving, speed {}, m/s", speed[moves], (50, 90)),
    }


def beams(sweep: Sweep, origin: np.ndarray) -> dict[str, float]:
    """How many firings return, how often neighbours along a beam are of different surfaces, and the range noise.

    Firings per beam are those that fit into a turn at the usual step between neighbours; the weakest beams are
    the tenth with the fewest returns. Noise is the standard deviation of range that would explain its second
    difference along a beam that stays on one surface; roughness adds to it. All NaN without laser numbers.
    """
    names = (
        "beams, firings that return, %",
        "beams, returns of the weakest, %",
        "beams, jumps between neighbours, %",
        "beams, range noise, mm",
    )
    unknown = dict.fromkeys(names, np.nan)
    finite = np.isfinite(sweep.points).all(axis=1)
    if sweep.ring is None or len(np.unique(sweep.ring[finite])) < 2:
        return unknown
    offset = sweep.points[finite].astype(np.float64) - origin
    ring, distance = sweep.ring[finite].astype(np.int64), np.linalg.norm(offset, axis=1)
    azimuth = np.rad2deg(np.arctan2(offset[:, 1], offset[:, 0]))
    order = np.lexsort((azimuth, ring))
    ring, distance, step = ring[order], distance[order], np.diff(azimuth[order])
    same_beam = ring[1:] == ring[:-1]
    usual = float(np.median(step[same_beam]))
    if not usual > 0:
        return unknown

    adjacent = same_beam & (step < 1.5 * usual)
    change = np.diff(distance)
    smooth = adjacent & (np.abs(change) < JUMP) & (distance[1:] < QUIET_RANGE)
    curve = np.diff(change)[smooth[1:] & smooth[:-1]]
    noise = np.median(np.abs(curve)) / (0.6745 * np.sqrt(6)) if len(curve) else np.nan
    jumps = _share(np.abs(change[adjacent]) > JUMP)
    returned = 100 * np.bincount(ring)[np.unique(ring)] / (360 / usual)
    numbered = sweep.time_offset_ns is not None and np.ptp(sweep.time_offset_ns) > 0  # else they are inferred
    weakest = float(np.percentile(returned, 10)) if numbered else np.nan
    return dict(zip(names, (float(returned.mean()), weakest, jumps, 1000 * float(noise)), strict=True))
