"""How wrong labels are, where a log has labels of its own: by the definition of the ZeroFlow paper, in both
directions."""

from __future__ import annotations

import numpy as np

from zeroflow_core.datasets.av2 import Log
from zeroflow_core.distillation.pairs import PairRef
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.evaluation import zeroflow_paper
from zeroflow_core.evaluation.cuboid_labels import flow_of_cuboids
from zeroflow_core.evaluation.tally import Tally
from zeroflow_core.evaluation.truth import (
    Av2Labels,
    PairTruth,
    SceneFlowLabels,
    as_estimate,
    has_labels,
    is_dynamic,
    read_truth,
    total_flow,
)
from zeroflow_core.ground import mark_ground
from zeroflow_core.pairs import Flow

FORWARD, REVERSE = "forward", "reverse"


def errors_of_label(ref: PairRef, forward: Flow, reverse: Flow | None) -> dict[str, Tally]:
    """Tallies of zeroflow_paper, by direction; empty where the truth is not known.

    forward: of the first sweep's points, in its vehicle frame
    reverse: of the second sweep's points, in its own vehicle frame
    """
    log = Log(ref.log)
    if not has_labels(log):
        return {}
    tallies = {}
    try:
        tallies[FORWARD] = zeroflow_paper.tally(read_truth(log, ref.index), as_estimate(forward))
        truth = None if reverse is None else reverse_truth(log, ref.index)
        if truth is not None:
            tallies[REVERSE] = zeroflow_paper.tally(truth, as_estimate(reverse))
    except (ZeroFlowError, ImportError):  # av2, which knows the categories, may not be installed
        pass  # labels can be made all the same
    return tallies


def reverse_truth(log: Log, i: int) -> PairTruth | None:
    """The truth of sweep `i` + 1's points towards sweep `i`, from the log's cuboids; None without cuboids, or where
    nothing tells the ground. It is as read_truth makes it of a pair whose second sweep is the earlier one.

    Raises:
        ZeroFlowError: a damaged file.
    """
    if not log.has_annotations:
        return None
    sweep, earlier_ns = log.sweep(i + 1), int(log.stamps_ns[i])
    is_ground = _ground(log, i + 1)
    if is_ground is None:
        return None
    ego1_SE3_ego0 = log.pose(sweep.stamp_ns).inverse() @ log.pose(earlier_ns)
    cuboids = log.annotations(sweep.stamp_ns), log.annotations(earlier_ns)
    residual, classes, is_valid = flow_of_cuboids(sweep.points, *cuboids, ego1_SE3_ego0)
    total, standing = (total_flow(sweep.points, flow, ego1_SE3_ego0) for flow in (residual, np.zeros(3)))
    return PairTruth(
        points0=sweep.points,
        ego0_SE3_ego1=ego1_SE3_ego0,
        dt=(earlier_ns - sweep.stamp_ns) * 1e-9,
        av2=Av2Labels(total, standing, classes, is_dynamic(residual), is_valid, is_ground),
        scene_flow=SceneFlowLabels(residual.astype(np.float32), classes, is_valid, is_ground),
    )


def _ground(log: Log, i: int) -> np.ndarray | None:
    """Which points of sweep `i` are ground: by the map, else by the labels of the pair that it begins."""
    raster = log.map_ground()
    if raster is not None:
        return mark_ground(log.sweep(i), raster).is_ground
    labels = log.flow_labels(i)
    return None if labels is None else labels.is_ground0
