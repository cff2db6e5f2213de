"""Sweep, FramePair and Flow: the one road from sweeps to a flow, for the trainer and the live node alike.

``source → Sweep → mark_ground → make_pair → FramePair → student | teacher → Flow``
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from zeroflow_core.geometry import SE3, finite_rows


@dataclass(frozen=True)
class Sweep:
    """One LiDAR sweep in its own vehicle frame (x forward, y left, z up; REP-103).

    points:         (N,3) float32, metres; rows may hold NaN or inf where the scanner saw nothing
    stamp_ns:       integer nanoseconds
    world_SE3_ego:  pose of the vehicle at the stamp in any fixed frame, or None when unknown
    intensity:      (N,) float32 or None
    ring:           (N,) uint16 laser number or None
    time_offset_ns: (N,) int32, nanoseconds from the stamp, or None
    is_ground:      (N,) bool, or None until zeroflow_core.ground.mark_ground has seen the sweep
    """

    points: np.ndarray
    stamp_ns: int
    world_SE3_ego: SE3 | None = None
    intensity: np.ndarray | None = None
    ring: np.ndarray | None = None
    time_offset_ns: np.ndarray | None = None
    is_ground: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.points.ndim != 2 or self.points.shape[1] != 3 or self.points.dtype != np.float32:
            raise ValueError(f"sweep points must be (N, 3) float32, got {self.points.shape} {self.points.dtype}")
        for name in ("intensity", "ring", "time_offset_ns", "is_ground"):
            values = getattr(self, name)
            if values is not None and values.shape != (len(self.points),):
                raise ValueError(f"sweep {name} must be ({len(self.points)},), got {values.shape}")

    def __len__(self) -> int:
        return len(self.points)


@dataclass(frozen=True)
class FramePair:
    """Two sweeps in one frame: the vehicle frame of pc0, ego motion removed, ground marked.

    Flow is estimated for the points of pc0 and points towards pc1. Live, pc0 is the *newest* cloud and
    pc1 the one before, so dt is negative and flow / dt is still the velocity.

    pc0, pc1:               (N0,3), (N1,3) float32, metres, both in pc0's vehicle frame
    is_ground0, is_ground1: (N0,), (N1,) bool
    stamp0_ns, stamp1_ns:   integer nanoseconds
    ego0_SE3_ego1:          maps pc1's vehicle frame into pc0's
    """

    pc0: np.ndarray
    pc1: np.ndarray
    is_ground0: np.ndarray
    is_ground1: np.ndarray
    stamp0_ns: int
    stamp1_ns: int
    ego0_SE3_ego1: SE3

    @property
    def dt(self) -> float:
        """Seconds from pc0 to pc1; negative when pc1 is the earlier cloud."""
        return (self.stamp1_ns - self.stamp0_ns) * 1e-9


def make_pair(sweep0: Sweep, sweep1: Sweep) -> FramePair:
    """Bring `sweep1` into the vehicle frame of `sweep0`.

    The published weights were trained with both clouds in pc0's frame: the transform is composed and
    applied in float64, then stored as float32.

    Raises:
        ValueError: a sweep without a pose or without a ground mask, or two sweeps with the same stamp.
    """
    if sweep0.world_SE3_ego is None or sweep1.world_SE3_ego is None:
        raise ValueError("a frame pair needs the pose of both sweeps (world_SE3_ego is None)")
    if sweep0.is_ground is None or sweep1.is_ground is None:
        raise ValueError("a frame pair needs both sweeps to have been through mark_ground")
    if sweep0.stamp_ns == sweep1.stamp_ns:
        raise ValueError(f"both sweeps carry the stamp {sweep0.stamp_ns} ns; flow needs two moments")
    ego0_SE3_ego1 = sweep0.world_SE3_ego.inverse() @ sweep1.world_SE3_ego
    return FramePair(
        pc0=sweep0.points,
        pc1=ego0_SE3_ego1.transform(sweep1.points),
        is_ground0=sweep0.is_ground,
        is_ground1=sweep1.is_ground,
        stamp0_ns=sweep0.stamp_ns,
        stamp1_ns=sweep1.stamp_ns,
        ego0_SE3_ego1=ego0_SE3_ego1,
    )


def remove_ego_motion(points0: np.ndarray, total_flow: np.ndarray, ego0_SE3_ego1: SE3) -> np.ndarray:
    """Total flow (AV2's labels: from pc0's frame into pc1's, ego motion included) to residual flow (ours).

    points0, total_flow: (N,3), metres. Returns (N,3) float64, metres, in pc0's vehicle frame.
    """
    points0 = np.asarray(points0, dtype=np.float64)
    return ego0_SE3_ego1.transform(points0 + total_flow) - points0


class Status(IntEnum):
    """Why a point has the flow it has."""

    OK = 0
    GROUND = 1
    OUT_OF_RANGE = 2
    NOT_FINITE = 3
    NO_ESTIMATE = 4  # the method came to none: nothing to go by, or nonsense


@dataclass(frozen=True)
class Flow:
    """Residual flow (ego motion removed) of the points of pc0, in pc0's vehicle frame.

    vectors: (N0,3) float32, metres over the pair's interval; 0 on ground, NaN where there is no estimate
    status:  (N0,) uint8, a `Status` for each point
    dt:      the pair's interval in seconds, signed as in FramePair
    """

    vectors: np.ndarray
    status: np.ndarray
    dt: float

    @property
    def velocity(self) -> np.ndarray:
        """(N0,3) float32, metres per second over ground."""
        return self.vectors / np.float32(self.dt)


def estimate_flow(student, pair: FramePair) -> Flow:
    """Flow of every point of pc0, by anything with ``flow(pc0, pc1) -> (N0, 3)``.

    Ground is removed from both clouds first, as the student was trained; ground points then get zero.
    """
    kept = np.flatnonzero(finite_rows(pair.pc0) & ~pair.is_ground0)
    estimate = np.full(pair.pc0.shape, np.nan, dtype=np.float32)
    pc0, pc1 = pair.pc0.take(kept, axis=0), np.compress(~pair.is_ground1, pair.pc1, axis=0)
    estimate[kept] = student.flow(pc0, pc1)
    return as_flow(estimate, pair.pc0, pair.is_ground0, pair.dt)


def as_flow(estimate: np.ndarray, points: np.ndarray, is_ground: np.ndarray, dt: float) -> Flow:
    """The flow of a whole cloud, ground and all, from an estimate for the points that a method could take.

    estimate: (N,3) float32, metres; NaN where there is none
    points:   (N,3) the cloud; is_ground: (N,) bool; dt: seconds
    """
    unseen = ~finite_rows(points)
    vectors = estimate.astype(np.float32)
    status = np.full(len(points), Status.OK, dtype=np.uint8)
    status[np.isnan(vectors[:, 0])] = Status.OUT_OF_RANGE
    status[is_ground] = Status.GROUND
    status[unseen] = Status.NOT_FINITE
    for column in vectors.T:  # whole rows at once would take three times as long
        np.copyto(column, 0.0, where=is_ground)
        np.copyto(column, np.nan, where=unseen)
    return Flow(vectors, status, dt)
