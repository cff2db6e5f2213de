"""Streaming: the student on a grid that stands still in the world for a while, so that a cloud is encoded once.

Consecutive pairs share a cloud, but each pair lies in its own vehicle frame: the shared cloud has other coordinates in
the second pair, falls into other pillars, and what was computed of it is of no use. On a grid that stays where it is
while the vehicle moves a few metres, its coordinates are the same numbers, and an engine that knows the clouds of its
last call (the fast one on a CPU does) encodes only the new one. The reference and the engine on a GPU know none: with
them nothing is spared.

The price: the vehicle is no longer in the grid's middle. Ahead of a vehicle that has come 6.4 m the published grid ends
at 44.8 m instead of 51.2 m (and behind it at 57.6 m), and points beyond are out of range.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.geometry import SE3, finite_rows
from zeroflow_core.pairs import Flow, FramePair, as_flow, estimate_flow
from zeroflow_core.verification.flows import is_verified, prepare, verify_flow

STREAMING = ("none", "anchored")  # not "off", which YAML reads as a boolean

_SAME_M = 1e-4  # a cloud that was pc1 has been rounded to float32 in another frame; points differ by far more


def flow_estimator(student, streaming: str = "none", verify: str = "auto") -> Callable[[FramePair], Flow]:
    """What makes flow of pairs: estimate_flow with each pair in its own vehicle frame, or on an anchored grid; and,
    of a student that is made for it, motion that pc1 does not bear out taken back.

    student:   anything with ``flow(pc0, pc1) -> (N0, 3)``, and with `metadata` where `verify` is auto
    streaming: one of STREAMING; warns where an anchored grid spares the student's network nothing
    verify:    one of verification.flows.VERIFY

    Raises:
        ZeroFlowError: an unknown name, or what verifies can't be loaded.
    """
    estimate = _estimator(student, streaming)
    if not is_verified(verify, getattr(student, "metadata", {})):
        return estimate
    prepare()
    return lambda pair: verify_flow(estimate(pair), pair)


def _estimator(student, streaming: str) -> Callable[[FramePair], Flow]:
    if streaming not in STREAMING:
        raise ZeroFlowError(f"streaming '{streaming}' is unknown; choose one of: {', '.join(STREAMING)}")
    if streaming == "none":
        return partial(estimate_flow, student)
    network = getattr(student, "network", None)
    if network is not None and not getattr(network, "keeps_clouds", False):
        warnings.warn(
            "streaming anchored spares nothing here, and the grid reaches less far ahead for it: only the fast engine "
            "on a CPU keeps what it computed of a cloud",
            stacklevel=3,
        )
    return AnchoredStudent(student).estimate_flow


@dataclass(frozen=True)
class _Cloud:
    """points: (M,3) float32, metres, in the anchor's frame; anchor_SE3_ego: where the vehicle was at its stamp."""

    points: np.ndarray
    anchor_SE3_ego: SE3


class AnchoredStudent:
    """A student whose grid stays at the vehicle's pose of some pair, the anchor, while pairs follow one another.

    A pair follows the last one when they share a cloud: same stamp, same points without ground. Any other pair, and
    one whose vehicle frame is too far from the anchor, is anchored anew: at that frame, as without streaming.

    student:  anything with ``flow(pc0, pc1) -> (N0, 3)``
    distance: metres between the vehicle and the anchor up to which the grid stays
    angle:    degrees, likewise, about any axis
    """

    def __init__(self, student, distance: float = 6.4, angle: float = 10.0) -> None:
        self._student = student
        self._distance = distance
        self._angle = math.radians(angle)
        self._last: dict[int, _Cloud] = {}  # of the last pair, by stamp

    def estimate_flow(self, pair: FramePair) -> Flow:
        """As zeroflow_core.pairs.estimate_flow, in pc0's vehicle frame too, but for two things: the student sees both
        clouds in the anchor's frame, and Status.OUT_OF_RANGE is what lies outside the grid where it stands."""
        seen0, seen1 = _seen(pair.pc0, pair.is_ground0), _seen(pair.pc1, pair.is_ground1)
        anchor_SE3_ego0, clouds = self._place(pair, [pair.pc0[seen0], pair.pc1[seen1]])
        estimate = np.full(pair.pc0.shape, np.nan, dtype=np.float32)
        estimate[seen0] = anchor_SE3_ego0.inverse().rotate(self._student.flow(*clouds))
        return as_flow(estimate, pair.pc0, pair.is_ground0, pair.dt)

    def _place(self, pair: FramePair, clouds: list[np.ndarray]) -> tuple[SE3, list[np.ndarray]]:
        """``anchor_SE3_ego0``, and the clouds, given in pc0's vehicle frame, in the anchor's."""
        stamps = pair.stamp0_ns, pair.stamp1_ns
        ego0_SE3_ego = SE3.identity(), pair.ego0_SE3_ego1
        anchor_SE3_ego0, placed = SE3.identity(), clouds
        for k in range(2):
            known = self._last.get(stamps[k])
            if known is None:
                continue
            pose = known.anchor_SE3_ego @ ego0_SE3_ego[k].inverse()
            if self._is_near(pose) and _are_same(pose.transform(clouds[k]), known.points):
                anchor_SE3_ego0 = pose
                placed = [known.points if j == k else pose.transform(clouds[j]) for j in range(2)]
                break
        self._last = {stamps[k]: _Cloud(placed[k], anchor_SE3_ego0 @ ego0_SE3_ego[k]) for k in range(2)}
        return anchor_SE3_ego0, placed

    def _is_near(self, anchor_SE3_ego: SE3) -> bool:
        cosine = (np.trace(anchor_SE3_ego.rotation) - 1) / 2
        turned = math.acos(min(max(cosine, -1.0), 1.0))
        return bool(np.linalg.norm(anchor_SE3_ego.translation) <= self._distance and turned <= self._angle)


def _seen(points: np.ndarray, is_ground: np.ndarray) -> np.ndarray:
    """(N,) bool: what the student is shown. Points that are not finite it would leave out itself."""
    return finite_rows(points) & ~is_ground


def _are_same(points: np.ndarray, others: np.ndarray) -> bool:
    if points.shape != others.shape:
        return False
    return bool((np.abs(points - others) <= _SAME_M + 1e-6 * np.abs(others)).all())
