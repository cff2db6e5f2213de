"""What is known of a pair of sweeps, and what an estimate counts as: the input of every definition.

Two tools of the field make labels from the same cuboids, and differ. The av2 package's (2023) hold total flow, ego
motion included, and its ground rule; those of ZeroFlow and of the 2024 challenge hold residual flow, and theirs. A
truth has both.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from zeroflow_core.datasets.av2 import FlowLabels, Log
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.evaluation.categories import category_names
from zeroflow_core.evaluation.cuboid_labels import flow_of_cuboids
from zeroflow_core.geometry import SE3
from zeroflow_core.ground import mark_ground
from zeroflow_core.pairs import Flow, Status, Sweep, remove_ego_motion

_FASTEST_M = 1000.0  # metres per pair, that a label may say
DYNAMIC_M = 0.05  # metres per pair; all three definitions call a point dynamic from here on


@dataclass(frozen=True)
class Av2Labels:
    """Labels as the av2 package makes them, for the N points of the first sweep.

    total_flow:    (N,3) float64, metres: position in the second vehicle frame minus position in the first
    standing_flow: (N,3) float64, metres: what total_flow is for a point that stands still, by these labels
    classes:       (N,) uint8, AV2's index of the category, 0 for none
    dynamic:       (N,) bool, the point moves over ground by at least 0.05 m
    is_valid:      (N,) bool, False in a cuboid that has no successor
    is_ground:     (N,) bool, within 0.3 m of the map's ground, or below it
    """

    total_flow: np.ndarray
    standing_flow: np.ndarray
    classes: np.ndarray
    dynamic: np.ndarray
    is_valid: np.ndarray
    is_ground: np.ndarray


@dataclass(frozen=True)
class SceneFlowLabels:
    """Labels as ZeroFlow and the 2024 challenge make them.

    residual:  (N,3) float32, metres, ego motion removed, in the first vehicle frame
    classes:   (N,) uint8, the index as in Av2Labels
    is_valid:  (N,) bool
    is_ground: (N,) bool, within 0.4 m of the map's ground, or below it
    """

    residual: np.ndarray
    classes: np.ndarray
    is_valid: np.ndarray
    is_ground: np.ndarray


@dataclass(frozen=True)
class PairTruth:
    """One labelled pair.

    points0:       (N,3) float32, metres, vehicle frame of the first sweep
    ego0_SE3_ego1: maps the second vehicle frame into the first
    dt:            seconds between the sweeps
    """

    points0: np.ndarray
    ego0_SE3_ego1: SE3
    dt: float
    av2: Av2Labels
    scene_flow: SceneFlowLabels


@dataclass(frozen=True)
class Estimate:
    """A method's answer as it is scored.

    residual: (N,3) float32, metres, in the first vehicle frame; zero where the method gave nothing
    covered:  (N,) bool, the method gave a flow
    """

    residual: np.ndarray
    covered: np.ndarray


def as_estimate(flow: Flow) -> Estimate:
    """No flow (ground, out of range, not finite) counts as zero residual, never as missing: a method must not gain
    by staying silent where it is hard."""
    covered = (flow.status == Status.OK) & np.isfinite(flow.vectors).all(axis=1)
    return Estimate(np.where(covered[:, None], flow.vectors, np.float32(0)), covered)


def is_dynamic(residual: np.ndarray) -> np.ndarray:
    """(N,) bool: a residual flow (N,3) of at least 0.05 m."""
    return np.linalg.norm(np.asarray(residual, dtype=np.float64), axis=1) >= DYNAMIC_M


def total_flow(points0: np.ndarray, residual: np.ndarray, ego0_SE3_ego1: SE3) -> np.ndarray:
    """Residual flow to total flow, the inverse of `pairs.remove_ego_motion`.

    points0, residual: (N,3) metres in the first vehicle frame. Returns (N,3) float64, metres.
    """
    points0 = np.asarray(points0, dtype=np.float64)
    return ego0_SE3_ego1.inverse().transform(points0 + residual) - points0


def has_labels(log: Log) -> bool:
    """Whether the log has flow labels, or cuboids to make them from."""
    return log.has_annotations or log.has_flow_labels


def truth_problem(log: Log, i: int) -> str | None:
    """Why read_truth can't tell the truth of that pair, or None where it can.

    A log may have labels for some pairs alone, or no map.
    """
    try:
        read_truth(log, i)
    except (ZeroFlowError, ImportError) as error:  # av2, which knows the categories, may not be installed
        return str(error)
    return None


def read_truth(log: Log, i: int) -> PairTruth:
    """The truth of the pair of sweeps `i` and `i` + 1: from the log's flow labels, else from its cuboids.

    Raises:
        ZeroFlowError: neither labels nor cuboids; or neither a map nor labels to tell the ground by; or a damaged
            file.
    """
    sweep0 = log.sweep(i)
    stamp1_ns = int(log.stamps_ns[i + 1])
    ego0_SE3_ego1 = log.pose(sweep0.stamp_ns).inverse() @ log.pose(stamp1_ns)
    labels = log.flow_labels(i)
    if labels is not None:
        _check(labels, log, sweep0)
        av2, scene_flow = _from_file(sweep0, labels, ego0_SE3_ego1)
    elif log.has_annotations:
        av2, scene_flow = _from_cuboids(log, sweep0, stamp1_ns, ego0_SE3_ego1)
    else:
        raise ZeroFlowError(
            f"the log {log.path} has no labels for the pair {sweep0.stamp_ns}: neither flow_labels/ nor "
            "annotations.feather; errors can't be told without them"
        )
    raster = log.map_ground()
    if raster is not None:
        scene_flow = replace(scene_flow, is_ground=_ground(sweep0, raster))
        if labels is None:
            av2 = replace(av2, is_ground=_ground(sweep0, raster.as_av2()))
    elif labels is None:
        raise ZeroFlowError(
            f"the log {log.path} has no map/ with ground heights; the definitions leave the ground out by them"
        )
    dt = (stamp1_ns - sweep0.stamp_ns) * 1e-9
    return PairTruth(sweep0.points, ego0_SE3_ego1, dt, av2, scene_flow)


def _check(labels: FlowLabels, log: Log, sweep0: Sweep) -> None:
    """Raises ZeroFlowError where labels can't be what they should be."""
    known = np.isfinite(sweep0.points).all(axis=1)
    if labels.is_valid is not None:
        known &= labels.is_valid
    with np.errstate(invalid="ignore"):
        odd = known & ~(np.abs(labels.total_flow) < _FASTEST_M).all(axis=1)
    trouble = None
    if odd.any():
        trouble = f"a flow that is not finite or above {_FASTEST_M:g} m for {odd.sum()} points"
    elif (unknown := labels.classes >= len(category_names())).any():
        trouble = f"classes that AV2 does not have, such as {labels.classes[unknown][0]}"
    if trouble:
        raise ZeroFlowError(
            f"the flow labels of sweep {sweep0.stamp_ns} in {log.path} hold {trouble}; make them or get them again"
        )


def _from_file(sweep0: Sweep, labels: FlowLabels, ego0_SE3_ego1: SE3) -> tuple[Av2Labels, SceneFlowLabels]:
    points = sweep0.points.astype(np.float64)
    total = labels.total_flow.astype(np.float64)
    is_valid = np.ones(len(points), dtype=bool) if labels.is_valid is None else labels.is_valid
    standing = is_valid & (labels.classes == 0) & ~labels.dynamic & np.isfinite(points).all(axis=1)
    by_poses = ego0_SE3_ego1.inverse()
    ego1_SE3_ego0 = _rigid_motion(points[standing], points[standing] + total[standing], by_poses)
    av2 = Av2Labels(
        total_flow=total,
        standing_flow=ego1_SE3_ego0.transform(points) - points,
        classes=labels.classes,
        dynamic=labels.dynamic,
        is_valid=is_valid,
        is_ground=labels.is_ground0,
    )
    residual = remove_ego_motion(points, total, ego0_SE3_ego1).astype(np.float32)
    return av2, SceneFlowLabels(residual, labels.classes, is_valid, labels.is_ground0)


def _rigid_motion(before: np.ndarray, after: np.ndarray, otherwise: SE3) -> SE3:
    """The rigid motion that takes `before` (N,3) to `after`, by least squares (Kabsch's algorithm).

    AV2's label files were made with poses in float32, whose ego motion is off by up to 0.8 mm: only the labels
    themselves tell which one they hold. `otherwise` stands in where too few points tell.
    """
    if len(before) < 100:
        return otherwise
    centre0, centre1 = before.mean(axis=0), after.mean(axis=0)
    u, spread, vt = np.linalg.svd((after - centre1).T @ (before - centre0))
    if spread[1] < 1e-6 * spread[0]:  # all on one line
        return otherwise
    sign = np.diag([1.0, 1.0, np.linalg.det(u @ vt)])
    rotation = u @ sign @ vt
    return SE3(rotation, centre1 - rotation @ centre0)


def _from_cuboids(
    log: Log, sweep0: Sweep, stamp1_ns: int, ego0_SE3_ego1: SE3
) -> tuple[Av2Labels, SceneFlowLabels]:
    cuboids0, cuboids1 = log.annotations(sweep0.stamp_ns), log.annotations(stamp1_ns)
    points, unknown = sweep0.points.astype(np.float64), np.zeros(len(sweep0), dtype=bool)
    every = flow_of_cuboids(points, cuboids0, cuboids1, ego0_SE3_ego1)
    scene_flow = SceneFlowLabels(every[0].astype(np.float32), every[1], every[2], unknown)
    # av2's loader passes over cuboids without points; the other tool takes all.
    seen = ([cuboid for cuboid in cuboids if cuboid.num_points] for cuboids in (cuboids0, cuboids1))
    residual, classes, is_valid = flow_of_cuboids(points, *seen, ego0_SE3_ego1)
    standing = total_flow(points, np.zeros(3), ego0_SE3_ego1)
    total = total_flow(points, residual, ego0_SE3_ego1)
    return Av2Labels(total, standing, classes, is_dynamic(residual), is_valid, unknown), scene_flow


def _ground(sweep: Sweep, rule) -> np.ndarray:
    return mark_ground(sweep, rule).is_ground
