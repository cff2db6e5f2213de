"""The definition of the AV2 2024 challenge: bucket-normalised EPE, and its three-way EPE.

Scored are the points within 35 m and ±2.5 m of height, both in the second vehicle frame, that are not ground by
0.4 m and have a valid label. The flow is residual. Source: "I Can't Believe It's Not Scene Flow!" (Khatri et al.,
ECCV 2024) and the package bucketed-scene-flow-eval, which judges this file in the tests.
"""

from __future__ import annotations

import numpy as np

from zeroflow_core.evaluation.categories import NONE, grouping
from zeroflow_core.evaluation.tally import Tally, mean, pooled, sums, three_way
from zeroflow_core.evaluation.truth import DYNAMIC_M, Estimate, PairTruth

NAME = "av2-2024"
RANGE_M = 35.0
HEIGHT_M = 2.5
SWEEPS_PER_SECOND = 10.0  # AV2's; the definition counts speeds in metres per pair

CLASSES = {  # road signs, their trailers and animals are in none
    "BACKGROUND": (NONE,),
    "CAR": ("REGULAR_VEHICLE",),
    "OTHER_VEHICLES": (
        "ARTICULATED_BUS",
        "BOX_TRUCK",
        "BUS",
        "LARGE_VEHICLE",
        "RAILED_VEHICLE",
        "SCHOOL_BUS",
        "TRUCK",
        "TRUCK_CAB",
        "VEHICULAR_TRAILER",
    ),
    "PEDESTRIAN": ("OFFICIAL_SIGNALER", "PEDESTRIAN", "STROLLER", "WHEELCHAIR"),
    "WHEELED_VRU": (
        "BICYCLE",
        "BICYCLIST",
        "MOTORCYCLE",
        "MOTORCYCLIST",
        "WHEELED_DEVICE",
        "WHEELED_RIDER",
    ),
}
EDGES_M = np.append(np.linspace(0.0, 2.0, 51), np.inf)  # of the speed buckets, metres per pair
BUCKETS = len(EDGES_M) - 1

_WIDTH = 4  # points, covered, sums of EPE and of speed
_PARTS = ("three-way/BACKGROUND/static", "three-way/BACKGROUND/dynamic")
_PARTS += ("three-way/FOREGROUND/static", "three-way/FOREGROUND/dynamic")


def scored_points(truth: PairTruth) -> np.ndarray:
    """(N,) bool."""
    moved = truth.ego0_SE3_ego1.inverse().transform(truth.points0.astype(np.float64))
    with np.errstate(invalid="ignore"):
        inside = (np.abs(moved) < [RANGE_M, RANGE_M, HEIGHT_M]).all(axis=1)
    return inside & truth.scene_flow.is_valid & ~truth.scene_flow.is_ground


def tally(truth: PairTruth, estimate: Estimate) -> Tally:
    """Sums by class and speed bucket, and those of the three-way parts; see _WIDTH."""
    scored, labels = scored_points(truth), truth.scene_flow
    kind = grouping(CLASSES)[labels.classes[scored]]
    residual = labels.residual[scored]
    speed = np.linalg.norm(residual, axis=1)
    error = np.linalg.norm(estimate.residual[scored].astype(np.float64) - residual, axis=1)
    columns = (estimate.covered[scored], error, speed)

    bucket = np.searchsorted(EDGES_M, speed, side="right") - 1
    names = [f"{name}/{k}" for name in CLASSES for k in range(BUCKETS)]
    result = sums(names, np.where(kind < 0, -1, kind * BUCKETS + bucket), *columns)
    part = 2 * (kind > 0) + (speed >= DYNAMIC_M)
    return result | sums(_PARTS, np.where(kind < 0, -1, part), *columns)


def figures(tally: Tally) -> dict:
    """Errors in metres, except the normalised ones, which have no unit; None where there is no point."""
    bs, _, fs, fd = (pooled(tally, (name,), _WIDTH) for name in _PARTS)
    result = three_way(fd, fs, bs, pooled(tally, _PARTS, _WIDTH))
    classes = {name: _class_figures(tally, name) for name in CLASSES}
    for kind in ("dynamic", "static"):
        known = [entry[kind] for entry in classes.values() if entry[kind] is not None]
        result[f"mean_{kind}"] = mean(sum(known), len(known))
    return result | {"classes": classes}


def _class_figures(tally: Tally, name: str) -> dict:
    buckets = []
    for k in range(BUCKETS):
        number, _, error, speed = pooled(tally, (f"{name}/{k}",), _WIDTH)
        if not number:
            continue
        buckets.append(
            {
                "from_mps": _mps(EDGES_M[k]),
                "to_mps": None if k == BUCKETS - 1 else _mps(EDGES_M[k + 1]),
                "num_points": int(number),
                "epe": error / number,
                "speed": SWEEPS_PER_SECOND * speed / number,
                "normalised": error / speed if k else None,
            }
        )
    moving = [bucket["normalised"] for bucket in buckets if bucket["normalised"] is not None]
    static = [bucket["epe"] for bucket in buckets if bucket["normalised"] is None]
    return {
        "static": static[0] if static else None,
        "dynamic": mean(sum(moving), len(moving)),
        "num_points": sum(bucket["num_points"] for bucket in buckets),
        "buckets": buckets,
    }


def _mps(metres_per_pair: float) -> float:
    return round(SWEEPS_PER_SECOND * float(metres_per_pair), 6)
