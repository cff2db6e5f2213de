"""The definition of the AV2 2023 challenge, by the av2 package's own functions.

Scored are the points within |x|, |y| ≤ 50 m that are not ground by 0.3 m and have a valid label. The flow is total,
ego motion included; foreground is any of AV2's 30 categories. Parts are pooled over points, near and far.
"""

from __future__ import annotations

import numpy as np

from zeroflow_core.evaluation.tally import Tally, mean, pooled, three_way
from zeroflow_core.evaluation.truth import Estimate, PairTruth, is_dynamic

NAME = "av2-2023"
RANGE_M = 50.0
CLOSE_M = 35.0

_PARTS = {"fd": "Foreground/Dynamic", "fs": "Foreground/Static", "bs": "Background/Static"}
_WIDTH = 9  # points, covered, then sums of: EPE, AccS, AccR, angle; then counts of TP, FP, FN


def scored_points(truth: PairTruth) -> np.ndarray:
    """(N,) bool."""
    with np.errstate(invalid="ignore"):
        near = (np.abs(truth.points0[:, :2]) <= RANGE_M).all(axis=1)
    near &= np.isfinite(truth.points0).all(axis=1)
    return near & ~truth.av2.is_ground & truth.av2.is_valid


def estimated_total_flow(truth: PairTruth, estimate: Estimate) -> np.ndarray:
    """(N,3) float64, metres: the estimate with ego motion, as the labels have it."""
    return truth.av2.standing_flow + estimate.residual.astype(np.float64) @ truth.ego0_SE3_ego1.rotation


def tally(truth: PairTruth, estimate: Estimate) -> Tally:
    """Sums by class, motion and distance; see _WIDTH."""
    from av2.evaluation.scene_flow.constants import FOREGROUND_BACKGROUND_BREAKDOWN
    from av2.evaluation.scene_flow.eval import compute_metrics

    scored, labels = scored_points(truth), truth.av2
    close = (np.abs(truth.points0[scored, :2]) <= CLOSE_M).all(axis=1)
    rows = compute_metrics(
        estimated_total_flow(truth, estimate)[scored],
        is_dynamic(estimate.residual[scored]),
        labels.total_flow[scored],
        labels.classes[scored],
        labels.dynamic[scored],
        close,
        np.ones(len(close), dtype=bool),
        FOREGROUND_BACKGROUND_BREAKDOWN,
    )
    result: Tally = {}
    for k, number in enumerate(rows["Count"]):
        if not number:
            continue
        kind, motion, distance = (str(rows[column][k]) for column in ("Class", "Motion", "Distance"))
        members = (labels.classes[scored] > 0) == (kind == "Foreground")
        members &= (labels.dynamic[scored] == (motion == "Dynamic")) & (close == (distance == "Close"))
        means = [rows[name][k] for name in ("EPE", "ACCURACY_STRICT", "ACCURACY_RELAX", "ANGLE_ERROR")]
        counts = [rows[name][k] for name in ("TP", "FP", "FN")]
        covered = np.count_nonzero(estimate.covered[scored] & members)
        result[f"{kind}/{motion}/{distance}"] = [
            float(value) for value in (number, covered, *(number * value for value in means), *counts)
        ]
    return result


def figures(tally: Tally) -> dict:
    """Errors in metres, angles in radians, shares in 0…1; None where there is no point."""

    def both(group: str) -> list[float]:
        return pooled(tally, (f"{group}/Close", f"{group}/Far"), _WIDTH)

    parts = {name: both(group) for name, group in _PARTS.items()}
    every = pooled(tally, tally, _WIDTH)
    result = three_way(*parts.values(), every)
    for name, part in parts.items():
        result[f"acc_strict_{name}"] = mean(part[3], part[0])
        result[f"acc_relax_{name}"] = mean(part[4], part[0])
        result[f"angle_error_{name}"] = mean(part[5], part[0])
        for distance in ("Close", "Far"):
            number, _, error, *_ = pooled(tally, (f"{_PARTS[name]}/{distance}",), _WIDTH)
            result[f"epe_{distance.lower()}_{name}"] = mean(error, number)
    true_positive, false_positive, false_negative = every[6:]
    result["dynamic_iou"] = mean(true_positive, true_positive + false_positive + false_negative)
    return result
