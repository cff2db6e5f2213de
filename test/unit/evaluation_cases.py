"""Labelled pairs made by hand, and logs to judge with, for the tests of zeroflow_core.evaluation."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from av2.evaluation.scene_flow.constants import CATEGORY_TO_INDEX
from pyarrow import feather

from zeroflow_core.datasets.av2 import Log
from zeroflow_core.evaluation import tally as tallies
from zeroflow_core.evaluation.truth import Av2Labels, Estimate, PairTruth, SceneFlowLabels, read_truth
from zeroflow_core.geometry import SE3
from zeroflow_core.simulation.log import simulate_log

AV2_LOG = "av2/sensor/val/7fab2350-7eaf-3b7e-a39d-6937a4c1bede"
TRI_LOGS = (
    "tri/sensor/val/b0157d97-2972-5ff3-891a-138ac31a2ceb",
    "tri/sensor/val/9d33fbf2-c910-5f5b-911e-db16e44fc39d",
)

STANDING = SE3.identity()

NO_CHALLENGE_JUDGE = "bucketed-scene-flow-eval is not installed: it comes with the extra 'dev', below Python 3.13"


# --- by hand -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Point:
    """A point of a pair, its truth, and what a method says about it.

    at:       metres, first vehicle frame
    part:     where the test expects it to be counted; "" for nowhere
    residual: metres over the pair
    estimate: likewise, None where the method gives no flow
    dynamic:  AV2's label; None for what the residual says
    """

    at: tuple[float, float, float]
    part: str = ""
    category: str = "NONE"
    residual: Sequence[float] = (0.0, 0.0, 0.0)
    estimate: Sequence[float] | None = (0.0, 0.0, 0.0)
    ground: bool = False
    valid: bool = True
    dynamic: bool | None = None

    @property
    def error(self) -> float:
        """Length of the end-point error, no flow being zero residual."""
        answer = (0.0, 0.0, 0.0) if self.estimate is None else self.estimate
        return float(np.linalg.norm(np.float32(answer).astype(float) - np.float32(self.residual)))

    @property
    def motion(self) -> float:
        return float(np.linalg.norm(np.float32(self.residual).astype(float)))


def with_errors(points: Iterable[Point]) -> list[Point]:
    """Every covered point's estimate off by another length, so that no two sets of points have the same mean."""
    return [
        point if point.estimate is None else replace(point, estimate=np.add(point.residual, (0, 0, 0.001 * 1.1**k)))
        for k, point in enumerate(points)
    ]


def av2_truth(points: Sequence[Point], ego0_SE3_ego1: SE3 = STANDING, standing: np.ndarray | None = None) -> PairTruth:
    """A pair whose labels of the other kind are nonsense.

    standing: (3,) metres, added to what the poses say is the total flow of standing points
    """
    at, residual, index, ground, valid = _columns(points)
    ego1_SE3_ego0 = np.linalg.inv(ego0_SE3_ego1.matrix)
    flow = at @ ego1_SE3_ego0[:3, :3].T + ego1_SE3_ego0[:3, 3] - at + (0 if standing is None else standing)
    moving = [point.motion >= 0.05 if point.dynamic is None else point.dynamic for point in points]
    labels = Av2Labels(
        total_flow=flow + residual @ ego1_SE3_ego0[:3, :3].T,
        standing_flow=flow,
        classes=index,
        dynamic=np.array(moving, dtype=bool),
        is_valid=valid,
        is_ground=ground,
    )
    return _truth(at, ego0_SE3_ego1, labels, _nonsense_scene_flow(len(points)))


def scene_flow_truth(points: Sequence[Point], ego0_SE3_ego1: SE3 = STANDING) -> PairTruth:
    """A pair whose labels of the other kind are nonsense."""
    at, residual, index, ground, valid = _columns(points)
    labels = SceneFlowLabels(residual.astype(np.float32), index, valid, ground)
    return _truth(at, ego0_SE3_ego1, _nonsense_av2(len(points)), labels)


def estimate_of(points: Sequence[Point]) -> Estimate:
    covered = np.array([point.estimate is not None for point in points], dtype=bool)
    rows = [(0, 0, 0) if point.estimate is None else point.estimate for point in points]
    return Estimate(np.array(rows, dtype=np.float32).reshape(-1, 3), covered)


def of_length(length: float) -> np.ndarray:
    """(3,) float32, mainly along x, whose length in float64 is exactly `length`: for the edge of a threshold."""
    vector = np.zeros(3, dtype=np.float32)
    for axis in range(3):
        rest = max(length**2 - float(np.sum(vector.astype(float) ** 2)), 0.0)
        vector[axis] = np.sqrt(rest)
        if np.sum(vector.astype(float) ** 2) > length**2:
            vector[axis] = np.nextafter(vector[axis], np.float32(0))
    assert np.linalg.norm(vector.astype(float)) == length
    return vector


def just_above(value: float) -> float:
    """The next float32 away from zero."""
    return float(np.nextafter(np.float32(value), np.float32(np.copysign(np.inf, value))))


def just_below(value: float) -> float:
    """The next float32 towards zero."""
    return float(np.nextafter(np.float32(value), np.float32(0)))


def mean_error(points: Iterable[Point], part: str) -> float:
    """Of the points whose part starts so."""
    return float(np.mean([point.error for point in points if point.part.startswith(part)]))


def count(points: Iterable[Point], part: str) -> int:
    return sum(point.part.startswith(part) for point in points)


def coverage(points: Iterable[Point], part: str) -> float:
    return float(np.mean([point.estimate is not None for point in points if point.part.startswith(part)]))


def _columns(points: Sequence[Point]) -> tuple[np.ndarray, ...]:
    at = np.array([point.at for point in points], dtype=np.float32).reshape(-1, 3).astype(float)
    residual = np.array([point.residual for point in points], dtype=np.float32).reshape(-1, 3).astype(float)
    index = np.array([CATEGORY_TO_INDEX[point.category] for point in points], dtype=np.uint8)
    ground = np.array([point.ground for point in points], dtype=bool)
    valid = np.array([point.valid for point in points], dtype=bool)
    return at, residual, index, ground, valid


def _truth(at: np.ndarray, ego0_SE3_ego1: SE3, av2: Av2Labels, scene_flow: SceneFlowLabels) -> PairTruth:
    return PairTruth(at.astype(np.float32), ego0_SE3_ego1, 0.1, av2, scene_flow)


def _nonsense_av2(n: int) -> Av2Labels:
    flow, yes = np.full((n, 3), np.nan), np.ones(n, dtype=bool)
    return Av2Labels(flow, flow, np.full(n, 19, dtype=np.uint8), yes, ~yes, yes)


def _nonsense_scene_flow(n: int) -> SceneFlowLabels:
    yes = np.ones(n, dtype=bool)
    return SceneFlowLabels(np.full((n, 3), np.nan, dtype=np.float32), np.full(n, 19, dtype=np.uint8), ~yes, yes)


def pooled_figures(definition, pairs: Iterable[tuple[PairTruth, Estimate]]) -> dict:
    """A definition's figures over pairs, through JSON, as they are stored between the two steps."""
    total: tallies.Tally = {}
    for truth, estimate in pairs:
        tallies.add(total, json.loads(json.dumps(definition.tally(truth, estimate))))
    return json.loads(json.dumps(definition.figures(total), allow_nan=False))


def figures_of(definition, truth: PairTruth, points: Sequence[Point]) -> dict:
    return pooled_figures(definition, [(truth, estimate_of(points))])


# --- logs --------------------------------------------------------------------------------------------------


def zero(truth: PairTruth) -> Estimate:
    n = len(truth.points0)
    return Estimate(np.zeros((n, 3), dtype=np.float32), np.ones(n, dtype=bool))


def perfect(truth: PairTruth) -> Estimate:
    return Estimate(truth.scene_flow.residual, np.ones(len(truth.points0), dtype=bool))


def noisy(truth: PairTruth) -> Estimate:
    """The truth, scaled and shaken, with nothing for every ninth point."""
    rng = np.random.default_rng(len(truth.points0))
    n = len(truth.points0)
    covered = np.arange(n) % 9 != 0
    residual = truth.scene_flow.residual * rng.uniform(0.5, 1.2, (n, 1)) + rng.normal(0, 0.03, (n, 3))
    return Estimate(np.where(covered[:, None], residual, 0).astype(np.float32), covered)


METHODS = {"zero": zero, "perfect": perfect, "noisy": noisy}


def truths_of(folder: Path) -> list[PairTruth]:
    """The labelled pairs of a log."""
    log = Log(folder)
    return [read_truth(log, i) for i in range(len(log) - 1)]


def simulated_logs(folder: Path) -> list[Path]:
    """In `folder`, a log with flow labels, and the same with cuboids alone, some of which end: invalid points."""
    simulate_log(folder / "labels", seed=23, sweeps=3, scanner="small", scene="junction")
    labelled_by_cuboids(folder / "labels", folder / "cuboids")
    return [folder / "labels", folder / "cuboids"]


def labelled_by_cuboids(source: Path, target: Path) -> None:
    """A copy of a simulated log without flow labels, in which every fifth track ends with the second sweep."""
    shutil.copytree(source, target, ignore=lambda _, names: [n for n in names if n.startswith("flow_labels")])
    table = feather.read_table(target / "annotations.feather", memory_map=False)
    tracks = np.array(table["track_uuid"].to_pylist())
    ended = np.isin(tracks, np.unique(tracks)[::5]) & (table["timestamp_ns"].to_numpy() >= Log(target).stamps_ns[1])
    feather.write_feather(table.filter(pa.array(~ended)), str(target / "annotations.feather"))
