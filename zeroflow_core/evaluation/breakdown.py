"""Where the error is: by speed, by range and by category, over the points that av2-2023 scores."""

from __future__ import annotations

import numpy as np

from zeroflow_core.evaluation.av2_2023 import estimated_total_flow, scored_points
from zeroflow_core.evaluation.categories import category_names
from zeroflow_core.evaluation.tally import Tally, mean, pooled, sums
from zeroflow_core.evaluation.truth import Estimate, PairTruth

NAME = "breakdown"
SPEEDS_MPS = (0.0, 0.5, 2.0, 5.0, 10.0, 20.0, np.inf)
RANGES_M = (0.0, 10.0, 20.0, 30.0, 40.0, 50.0, np.inf)

_MOTIONS = ("standing", "moving")
_WIDTH = 4  # points, covered, sums of EPE and of the EPE of zero residual


def tally(truth: PairTruth, estimate: Estimate) -> Tally:
    """Sums by speed, by range and motion, by category and motion; see _WIDTH."""
    scored, labels = scored_points(truth), truth.av2
    total = labels.total_flow[scored]
    error = np.linalg.norm(estimated_total_flow(truth, estimate)[scored] - total, axis=1)
    motion = np.linalg.norm(total - labels.standing_flow[scored], axis=1)
    moving = labels.dynamic[scored].astype(np.int64)
    columns = (estimate.covered[scored], error, motion)

    def bins(edges: tuple[float, ...], values: np.ndarray) -> np.ndarray:
        return np.searchsorted(edges, values, side="right") - 1

    distance = np.hypot(*truth.points0[scored, :2].astype(np.float64).T)
    speed_names = [f"speed/{k}" for k in range(len(SPEEDS_MPS) - 1)]
    range_names = [f"range/{k}/{name}" for k in range(len(RANGES_M) - 1) for name in _MOTIONS]
    class_names = [f"class/{category}/{name}" for category in category_names() for name in _MOTIONS]
    return (
        sums(speed_names, bins(SPEEDS_MPS, motion / abs(truth.dt)), *columns)
        | sums(range_names, 2 * bins(RANGES_M, distance) + moving, *columns)
        | sums(class_names, 2 * labels.classes[scored].astype(np.int64) + moving, *columns)
    )


def figures(tally: Tally) -> dict:
    """Lists by speed, range and class; errors in metres, None where there is no point."""

    def entry(group: str) -> dict:
        number, covered, error, motion = pooled(tally, (group,), _WIDTH)
        return {
            "num_points": int(number),
            "epe": mean(error, number),
            "epe_zero": mean(motion, number),
            "coverage": mean(covered, number),
        }

    def both(group: str) -> dict:
        return {name: entry(f"{group}/{name}") for name in ("moving", "standing")}

    present = {name.split("/")[1] for name in tally if name.startswith("class/")}
    return {
        "speed": [
            {"from_mps": low, "to_mps": high, **entry(f"speed/{k}")} for k, low, high in _intervals(SPEEDS_MPS)
        ],
        "range": [{"from_m": low, "to_m": high, **both(f"range/{k}")} for k, low, high in _intervals(RANGES_M)],
        "class": [{"name": name, **both(f"class/{name}")} for name in category_names() if name in present],
    }


def _intervals(edges: tuple[float, ...]) -> list[tuple[int, float, float | None]]:
    """Position, lower and upper edge; None for an upper edge at infinity."""
    return [
        (k, low, None if high == np.inf else high) for k, (low, high) in enumerate(zip(edges, edges[1:], strict=False))
    ]
