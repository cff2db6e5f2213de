"""Vehicles that move uniformly for a while: what of their motion is done when, and points that saw it from there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from zeroflow_core.geometry import SE3, interpolate
from zeroflow_core.pairs import Sweep


def deskew(sweep: Sweep, motion: SE3, interval_ns: int) -> Sweep:
    """The sweep with all its points as seen at its stamp, from a vehicle that moves uniformly.

    sweep:       each point as seen when it was fired; one without times, or with zeros alone, is returned as it is
    motion:      ego_SE3_ego: the vehicle `interval_ns` after the stamp, in the vehicle frame at the stamp
    interval_ns: nanoseconds, not 0; negative where the motion before the stamp is known

    Rows that are not finite stay so.
    """
    if sweep.time_offset_ns is None or not sweep.time_offset_ns.any():
        return sweep
    points = moved(sweep.points.astype(np.float64), sweep.time_offset_ns / interval_ns, motion)
    with np.errstate(over="ignore"):  # nonsense in, infinity out
        return replace(sweep, points=points.astype(np.float32))


def relative_pose_errors(estimated: Sequence[SE3], true: Sequence[SE3]) -> tuple[np.ndarray, np.ndarray]:
    """Errors of the motion between consecutive sweeps: (N-1,) metres and (N-1,) degrees.

    estimated, true: N poses world_SE3_ego each; the two worlds may differ

    Raises:
        ValueError: not as many of the one as of the other.
    """
    metres, degrees = [], []
    for (estimated0, true0), (estimated1, true1) in pairwise(zip(estimated, true, strict=True)):
        error = (true0.inverse() @ true1).inverse() @ (estimated0.inverse() @ estimated1)
        metres.append(np.linalg.norm(error.translation))
        degrees.append(np.degrees(turn_of(error)[1]))
    return np.array(metres), np.array(degrees)


def share_of(motion: SE3, share: float) -> SE3:
    """What of a uniform motion is done after `share` of its time."""
    return interpolate(SE3.identity(), motion, share)


def moved(points: np.ndarray, share: np.ndarray, motion: SE3) -> np.ndarray:
    """Points (N,3) float64, each moved by its own share (N,) of `motion`, as `interpolate` shares it."""
    (ax, ay, az), angle = turn_of(motion)
    x, y, z = np.ascontiguousarray(points.T)  # columns, as matrices of so few take several times as long
    done = np.empty(points.shape)
    with np.errstate(invalid="ignore", over="ignore"):  # clouds hold inf rows
        sine, cosine = np.sin(angle * share), np.cos(angle * share)
        along = (1 - cosine) * (ax * x + ay * y + az * z)
        done[:, 0] = cosine * x + sine * (ay * z - az * y) + along * ax + share * motion.translation[0]
        done[:, 1] = cosine * y + sine * (az * x - ax * z) + along * ay + share * motion.translation[1]
        done[:, 2] = cosine * z + sine * (ax * y - ay * x) + along * az + share * motion.translation[2]
    return done


def turn_of(motion: SE3) -> tuple[np.ndarray, float]:
    """Axis (3,) and angle in radians, 0 to π, of the rotation."""
    w, *xyz = motion.quaternion
    sine = float(np.linalg.norm(xyz))
    axis = np.array(xyz) / sine if sine > 0 else np.array([0.0, 0.0, 1.0])
    return axis, 2 * float(np.arctan2(sine, w))
