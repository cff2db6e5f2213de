"""The way of a vehicle from its clouds alone, sweep after sweep."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from zeroflow_core.ego_motion.icp import new_icp
from zeroflow_core.ego_motion.start import likely_shift
from zeroflow_core.ego_motion.uniform import moved, share_of
from zeroflow_core.geometry import SE3
from zeroflow_core.pairs import Sweep

LONGEST_GAP_NS = 1_000_000_000  # between two sweeps; nobody knows what the vehicle did in a longer one
_FEWEST_POINTS = 50  # in range; fewer say nothing about where the scanner is
_FASTEST = 100.0  # m/s; a vehicle that is faster has been lost
_TOP_SPEED = 50.0  # m/s, up to which it is looked for at the start
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
        new_icp(max_range)  # says at once what is missing
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
            self._icp = new_icp(self._max_range)
            self._icp.register_frame(seen.points, _NO_TIMES)
        else:
            if self.num_sweeps == 1:
                self._begin(seen)
            self._go_to(seen)
        self._seen = seen
        self.num_sweeps += 1
        return self._pose(sweep.stamp_ns)

    def _look_at(self, sweep: Sweep) -> _Seen | None:
        x, y, z = (column.astype(np.float64) for column in sweep.points.T)
        with np.errstate(invalid="ignore", over="ignore"):
            usable = x * x + y * y + z * z < self._max_range**2  # False for NaN
        if usable.sum() < _FEWEST_POINTS:
            return None
        points = np.compress(usable, sweep.points, axis=0).astype(np.float64)
        if not self._deskew or sweep.time_offset_ns is None:
            return _Seen(sweep.stamp_ns, points, sweep.stamp_ns, None)
        offset = sweep.time_offset_ns[usable].astype(np.float64)
        # The middle of the sweep: there an error in the assumed motion turns the cloud, but does not shift it,
        # whereas at its begin or end, where stamps are, such errors would feed on themselves.
        middle = round((offset.min() + offset.max()) / 2)
        offset -= middle
        return _Seen(sweep.stamp_ns, points, sweep.stamp_ns + middle, offset if offset.any() else None)

    def _begin(self, second: _Seen) -> None:
        """Begin again with the first sweep, now that the second one shows how fast the vehicle is.

        KISS-ICP looks for matches 1 m around where it expects them, and at first it expects a vehicle that stands:
        one that is faster, it would never catch. And a first sweep that is deskewed needs a motion, too.
        """
        first, took = self._seen, second.moment_ns - self._seen.moment_ns
        shift = likely_shift(first.points, second.points, _TOP_SPEED * took * 1e-9)
        self._motion, self._motion_ns = SE3(np.eye(3), shift), took
        if second.offset_ns is not None:
            self._go_to(replace(second, offset_ns=None))  # both as fired: their distortions are alike
        self._icp = new_icp(self._max_range)
        self._icp.register_frame(first.at_its_moment(self._motion, took), _NO_TIMES)

    def _go_to(self, seen: _Seen) -> None:
        """Register one more sweep and take the motion from it."""
        took = seen.moment_ns - self._seen.moment_ns
        # What KISS-ICP takes for the motion to come is per sweep; sweeps may be missing.
        expected = share_of(self._motion, took / self._motion_ns)
        before = SE3.from_matrix(self._icp.last_pose)
        self._icp.last_delta = expected.matrix
        points = seen.at_its_moment(expected, took)
        self._icp.register_frame(points, _NO_TIMES)
        motion = self._plausible(before, took)
        if motion is None:  # lost: a new map around where the vehicle should be
            motion = expected
            self._icp = new_icp(self._max_range)
            self._icp.last_pose, self._icp.last_delta = before.matrix, expected.matrix
            self._icp.register_frame(points, _NO_TIMES)
        self._motion, self._motion_ns = motion, took
        if self.num_sweeps == 1:
            first = self._seen
            self._world_SE3_map = share_of(motion, (first.moment_ns - first.stamp_ns) / took)

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
        return self._world_SE3_map @ SE3.from_matrix(self._icp.last_pose) @ share_of(self._motion, since)


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
        return self.points if self.offset_ns is None else moved(self.points, self.offset_ns / took_ns, motion)
