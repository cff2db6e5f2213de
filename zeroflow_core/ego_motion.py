"""Poses for sweeps that come without any, by KISS-ICP, and sweeps as seen at one moment.

The live node and the import of recordings call the same class, so that a student meets on the robot what it
learned from. KISS-ICP: Vizzo et al., "KISS-ICP: In Defense of Point-to-Point ICP", RA-L 2023 (package kiss-icp).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.geometry import SE3, interpolate
from zeroflow_core.pairs import Sweep

LONGEST_GAP_NS = 1_000_000_000  # between two sweeps; nobody knows what the vehicle did in a longer one
_FEWEST_POINTS = 50  # in range; fewer say nothing about where the scanner is
_FASTEST = 100.0  # m/s; a vehicle that is faster has been lost
_VOXELS_IN_RANGE = 100  # KISS-ICP's own choice: voxels of 1 m for 100 m
_GROUND_CELL = 4  # voxels: the width of the columns whose lowest point tells where the ground is
_LOW = 0.3  # metres above that which still count as ground
_SPARSE = 6  # voxels between points of the ground that are matched
_NO_TIMES = np.empty(0)  # for KISS-ICP, whose own deskewing knows nothing of stamps


class KissOdometry:
    """Where the vehicle is, from one sweep after another.

    The same sweeps give the same poses, bit for bit, in every process of a machine, as KISS-ICP runs in one thread; on
    one with another number of cores the last digits may differ.

    max_range: metres; points farther away are left out
    deskew:    sweeps that carry firing times are taken for not yet compensated: the motion during a sweep is
               estimated as well. Wrong for sweeps that are compensated already, as those of Argoverse 2 are, which
               may carry firing times nevertheless.

    num_sweeps: how many have been registered since it last started anew

    Raises:
        ZeroFlowError: the package kiss-icp is not installed.
    """

    def __init__(self, *, max_range: float = 100.0, deskew: bool = True) -> None:
        self._max_range = max_range
        self._deskew = deskew
        _new_icp(max_range)  # says at once what is missing
        self.reset()

    def reset(self) -> None:
        """Start anew with the next sweep."""
        self.num_sweeps = 0
        self._icp = None
        self._seen: _Seen | None = None  # the newest sweep that was registered
        self._motion, self._motion_ns = SE3.identity(), 1  # of the vehicle up to then, and the time it took
        self._world_SE3_map = SE3.identity()

    def register(self, sweep: Sweep) -> SE3:
        """world_SE3_ego at the sweep's stamp; the world is the vehicle frame of the first sweep with points.

        sweep: the next one, in the vehicle frame (or in any that stands still in it, such as the scanner's)

        It starts anew, in a new world, at a stamp that goes back and after more than a second without a sweep.
        Through sweeps that show too little (no points in range, or all of them NaN), and for a stamp that repeats,
        the vehicle goes on as it did before.
        """
        if self._seen is not None and not 0 <= sweep.stamp_ns - self._seen.stamp_ns <= LONGEST_GAP_NS:
            self.reset()
        seen = self._look_at(sweep)
        if seen is None or (self._seen is not None and seen.moment_ns <= self._seen.moment_ns):
            return self._pose(sweep.stamp_ns)
        if self._seen is None:
            self._icp = _new_icp(self._max_range)
            self._icp.register_frame(seen.points, _NO_TIMES)
        else:
            if self.num_sweeps == 1 and seen.offset_ns is not None:
                self._begin_deskewed(seen)
            self._go_to(seen)
        self._seen = seen
        self.num_sweeps += 1
        return self._pose(sweep.stamp_ns)

    def _look_at(self, sweep: Sweep) -> _Seen | None:
        points = sweep.points.astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            usable = np.linalg.norm(points, axis=1) < self._max_range  # False for NaN
        if usable.sum() < _FEWEST_POINTS:
            return None
        if not self._deskew or sweep.time_offset_ns is None:
            return _Seen(sweep.stamp_ns, points[usable], sweep.stamp_ns, None)
        offset = sweep.time_offset_ns[usable].astype(np.float64)
        # The middle of the sweep: there an error in the assumed motion turns the cloud, but does not shift it,
        # whereas at its begin or end, where stamps are, such errors would feed on themselves.
        middle = round((offset.min() + offset.max()) / 2)
        return _Seen(sweep.stamp_ns, points[usable], sweep.stamp_ns + middle, offset - middle)

    def _begin_deskewed(self, second: _Seen) -> None:
        """Begin again with the first sweep, now that the second one shows how the vehicle moved in it."""
        self._go_to(replace(second, offset_ns=None))
        motion, took = self._motion, self._motion_ns
        self._icp = _new_icp(self._max_range)
        self._icp.register_frame(self._seen.at_its_moment(motion, took), _NO_TIMES)
        self._icp.last_delta = motion.matrix

    def _go_to(self, seen: _Seen) -> None:
        """Register one more sweep and take the motion from it."""
        took = seen.moment_ns - self._seen.moment_ns
        # What KISS-ICP takes for the motion to come is per sweep; sweeps may be missing.
        expected = _share(self._motion, took / self._motion_ns)
        before = SE3.from_matrix(self._icp.last_pose)
        self._icp.last_delta = expected.matrix
        points = seen.at_its_moment(expected, took)
        self._icp.register_frame(points, _NO_TIMES)
        motion = self._plausible(before, took)
        if motion is None:  # lost: a new map around where the vehicle should be
            motion = expected
            self._icp = _new_icp(self._max_range)
            self._icp.last_pose, self._icp.last_delta = before.matrix, expected.matrix
            self._icp.register_frame(points, _NO_TIMES)
        self._motion, self._motion_ns = motion, took
        if self.num_sweeps == 1:
            first = self._seen
            self._world_SE3_map = _share(motion, (first.moment_ns - first.stamp_ns) / took)

    def _plausible(self, before: SE3, took: int) -> SE3 | None:
        try:
            motion = before.inverse() @ SE3.from_matrix(self._icp.last_pose)
        except ValueError:  # not finite
            return None
        return motion if np.linalg.norm(motion.translation) <= _FASTEST * took * 1e-9 else None

    def _pose(self, stamp_ns: int) -> SE3:
        if self._seen is None:
            return SE3.identity()
        since = (stamp_ns - self._seen.moment_ns) / self._motion_ns
        return self._world_SE3_map @ SE3.from_matrix(self._icp.last_pose) @ _share(self._motion, since)


def _new_icp(max_range: float):
    """KISS-ICP with an empty map.

    Spinning scanners draw rings on the ground that travel along with the vehicle, and matching those says that it
    stands still. So only few of the points near the ground are matched, enough to hold height, roll and pitch.
    """
    try:
        from kiss_icp.config.config import AdaptiveThresholdConfig, DataConfig, MappingConfig, RegistrationConfig
        from kiss_icp.config.parser import KISSConfig
        from kiss_icp.kiss_icp import KissICP
        from kiss_icp.voxelization import voxel_down_sample
    except ImportError as error:
        raise ZeroFlowError(
            f"ego motion from the clouds alone needs the package kiss-icp ({error}): pip install kiss-icp"
        ) from error

    class KissIcp(KissICP):
        def voxelize(self, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            voxel = self.config.mapping.voxel_size
            for_map = voxel_down_sample(frame, 0.5 * voxel)
            low = _near_ground(for_map, _GROUND_CELL * voxel)
            matched = (voxel_down_sample(for_map[~low], 1.5 * voxel), voxel_down_sample(for_map[low], _SPARSE * voxel))
            return np.concatenate(matched), for_map

    # model_construct, as the usual constructor obeys environment variables that nobody expects here.
    config = KISSConfig.model_construct(
        data=DataConfig(max_range=max_range, min_range=0.0, deskew=False),
        registration=RegistrationConfig(max_num_threads=1),
        mapping=MappingConfig(voxel_size=max_range / _VOXELS_IN_RANGE),
        adaptive_threshold=AdaptiveThresholdConfig(),
    )
    return KissIcp(config)


def _near_ground(points: np.ndarray, cell: float) -> np.ndarray:
    """(N,) bool: hardly higher than the lowest of the points (N,3) in the same column, `cell` metres wide."""
    across, along = np.floor(points[:, :2] / cell).astype(np.int64).T
    columns, column = np.unique(across * 2**32 + along, return_inverse=True)
    lowest = np.full(len(columns), np.inf)
    np.minimum.at(lowest, column, points[:, 2])
    return points[:, 2] < lowest[column] + _LOW


@dataclass(frozen=True)
class _Seen:
    """What of a sweep is registered.

    stamp_ns:  of the sweep
    points:    (N,3) float64, metres, those in range, each as seen when it was fired
    moment_ns: of which the pose is estimated
    offset_ns: (N,) float64, nanoseconds from there, or None: all points are as seen then
    """

    stamp_ns: int
    points: np.ndarray
    moment_ns: int
    offset_ns: np.ndarray | None

    def at_its_moment(self, motion: SE3, took_ns: int) -> np.ndarray:
        """(N,3) the points as seen at the moment, when the vehicle moves by `motion` in `took_ns`."""
        return self.points if self.offset_ns is None else _moved(self.points, self.offset_ns / took_ns, motion)


def deskew(sweep: Sweep, motion: SE3, interval_ns: int) -> Sweep:
    """The sweep with all its points as seen at its stamp, from a vehicle that moves uniformly.

    sweep:       each point as seen when it was fired; one without time_offset_ns is returned as it is
    motion:      ego_SE3_ego: the vehicle `interval_ns` after the stamp, in the vehicle frame at the stamp
    interval_ns: nanoseconds, not 0; negative where the motion before the stamp is known

    Rows that are not finite stay so.
    """
    if sweep.time_offset_ns is None:
        return sweep
    points = _moved(sweep.points.astype(np.float64), sweep.time_offset_ns / interval_ns, motion)
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
        degrees.append(np.degrees(_turn(error)[1]))
    return np.array(metres), np.array(degrees)


def _share(motion: SE3, share: float) -> SE3:
    """What of a uniform motion is done after `share` of its time."""
    return interpolate(SE3.identity(), motion, share)


def _moved(points: np.ndarray, share: np.ndarray, motion: SE3) -> np.ndarray:
    """Points (N,3) float64, each moved by its own share (N,) of `motion`, as `interpolate` shares it."""
    axis, angle = _turn(motion)
    angles = (angle * share)[:, None]
    with np.errstate(invalid="ignore"):  # clouds hold inf rows
        across = np.cross(axis, points)
        turned = points + np.sin(angles) * across + (1 - np.cos(angles)) * np.cross(axis, across)
        return turned + share[:, None] * motion.translation


def _turn(motion: SE3) -> tuple[np.ndarray, float]:
    """Axis (3,) and angle in radians, 0 to π, of the rotation."""
    w, *xyz = motion.quaternion
    sine = float(np.linalg.norm(xyz))
    axis = np.array(xyz) / sine if sine > 0 else np.array([0.0, 0.0, 1.0])
    return axis, 2 * float(np.arctan2(sine, w))
