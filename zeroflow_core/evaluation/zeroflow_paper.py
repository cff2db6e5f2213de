"""The definition of the ZeroFlow paper and repository (arXiv 2305.10424, table 1).

Scored are the points of the network's range within |x|, |y| ≤ 35 m that are not ground by 0.4 m, whether their label
is valid or not. The flow is residual; dynamic is from 0.5 m/s on, at ten sweeps a second. Signs, cones, barrels and
bollards are background; animals don't count.
"""

from __future__ import annotations

import numpy as np

from zeroflow_core.evaluation.categories import NONE, grouping
from zeroflow_core.evaluation.tally import Tally, mean, pooled, sums, three_way
from zeroflow_core.evaluation.truth import Estimate, PairTruth

NAME = "zeroflow"
CLOSE_M = 35.0
LOW_M, HIGH_M = (-51.2, -51.2, -3.0), (51.2, 51.2, 3.0)  # the network's range; low included, high not
SPEEDS_MPS = (0.0, 0.5, 2.0, np.inf)
SWEEPS_PER_SECOND = 10.0
STRICT_M, RELAX_M = 0.05, 0.10

CLASSES = {  # ANIMAL and DOG are in none
    "BACKGROUND": (
        NONE,
        "BOLLARD",
        "CONSTRUCTION_BARREL",
        "CONSTRUCTION_CONE",
        "MOBILE_PEDESTRIAN_CROSSING_SIGN",
        "SIGN",
        "STOP_SIGN",
    ),
    "PEDESTRIAN": ("OFFICIAL_SIGNALER", "PEDESTRIAN", "STROLLER", "WHEELCHAIR"),
    "SMALL_MOVERS": (
        "BICYCLE",
        "BICYCLIST",
        "MOTORCYCLE",
        "MOTORCYCLIST",
        "WHEELED_DEVICE",
        "WHEELED_RIDER",
    ),
    "LARGE_MOVERS": (
        "ARTICULATED_BUS",
        "BOX_TRUCK",
        "BUS",
        "LARGE_VEHICLE",
        "MESSAGE_BOARD_TRAILER",
        "RAILED_VEHICLE",
        "REGULAR_VEHICLE",
        "SCHOOL_BUS",
        "TRAFFIC_LIGHT_TRAILER",
        "TRUCK",
        "TRUCK_CAB",
        "VEHICULAR_TRAILER",
    ),
}

_BINS = len(SPEEDS_MPS) - 1
_WIDTH = 5  # points, covered, sum of EPE, number below STRICT_M, number below RELAX_M


def scored_points(truth: PairTruth) -> np.ndarray:
    """(N,) bool."""
    points = truth.points0
    with np.errstate(invalid="ignore"):
        inside = (points >= np.float32(LOW_M)).all(axis=1) & (points < np.float32(HIGH_M)).all(axis=1)
        close = (np.abs(points[:, :2]) <= CLOSE_M).all(axis=1)
    return inside & close & ~truth.scene_flow.is_ground


def tally(truth: PairTruth, estimate: Estimate) -> Tally:
    """Sums by class and speed; see _WIDTH."""
    scored, labels = scored_points(truth), truth.scene_flow
    kind = grouping(CLASSES)[labels.classes[scored]]
    residual = labels.residual[scored]
    speed = np.linalg.norm(residual, axis=1) * np.float32(SWEEPS_PER_SECOND)
    error = np.linalg.norm(estimate.residual[scored].astype(np.float64) - residual, axis=1)
    speed_bin = np.searchsorted(SPEEDS_MPS, speed, side="right") - 1
    names = [f"{name}/{k}" for name in CLASSES for k in range(_BINS)]
    group = np.where(kind < 0, -1, kind * _BINS + speed_bin)
    return sums(names, group, estimate.covered[scored], error, error < STRICT_M, error < RELAX_M)


def figures(tally: Tally) -> dict:
    """Errors in metres, shares in 0…1; None where there is no point."""
    foreground = [name for name in CLASSES if name != "BACKGROUND"]

    def total(classes: list[str], bins: range) -> list[float]:
        return pooled(tally, (f"{name}/{k}" for name in classes for k in bins), _WIDTH)

    fd, fs = total(foreground, range(1, _BINS)), total(foreground, range(1))
    bs, every = total(["BACKGROUND"], range(_BINS)), total(list(CLASSES), range(_BINS))
    classes = {}
    for name in CLASSES:
        by_speed = []
        for k in range(_BINS):
            number, _, error, *_ = total([name], range(k, k + 1))
            upper = None if k == _BINS - 1 else SPEEDS_MPS[k + 1]
            by_speed.append(
                {"from_mps": SPEEDS_MPS[k], "to_mps": upper, "num_points": int(number), "epe": mean(error, number)}
            )
        number, _, error, *_ = total([name], range(_BINS))
        classes[name] = {"num_points": int(number), "epe": mean(error, number), "by_speed": by_speed}
    accuracy = {"acc_strict": mean(fd[3], fd[0]), "acc_relax": mean(fd[4], fd[0])}
    return three_way(fd, fs, bs, every) | accuracy | {"classes": classes}
