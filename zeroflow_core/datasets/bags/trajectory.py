"""Poses by stamp, many of them in little memory."""

from __future__ import annotations

from array import array
from bisect import bisect_left

import numpy as np

from zeroflow_core.geometry import SE3, interpolate

LONGEST_POSE_GAP_NS = 10**9  # between poses further apart, a straight line is no estimate any more

_TWIST_WINDOW_NS = 100_000_000  # poses a few ms apart differ by less than their noise
_NUMBERS = 7  # of a pose: its quaternion (w, x, y, z), its translation


class Trajectory:
    """Poses (world_SE3_base) by ascending stamp."""

    def __init__(self) -> None:
        self.stamps_ns = array("q")
        self._numbers = array("d")

    def add(self, stamp_ns: int, pose: SE3) -> None:
        """A pose at any stamp; `sort` before asking for poses."""
        self.stamps_ns.append(stamp_ns)
        self._numbers.extend([*pose.quaternion, *pose.translation])

    def sort(self) -> None:
        """Bring added poses into order; of several with the same stamp the last one stands."""
        stamps, rows = np.array(self.stamps_ns), np.array(self._numbers).reshape(-1, _NUMBERS)
        order = np.argsort(stamps, kind="stable")
        order = order[np.diff(stamps[order], append=2**63 - 1) != 0]
        self.stamps_ns, self._numbers = array("q", stamps[order].tobytes()), array("d", rows[order].tobytes())

    def __len__(self) -> int:
        return len(self.stamps_ns)

    def append(self, stamp_ns: int, pose: SE3) -> None:
        """A later pose; one that is not later than the last is left out."""
        if not self.stamps_ns or stamp_ns > self.stamps_ns[-1]:
            self.add(stamp_ns, pose)

    def __getitem__(self, k: int) -> SE3:
        numbers = np.array(self._numbers[k * _NUMBERS : (k + 1) * _NUMBERS])
        return SE3.from_quaternion(numbers[:4], numbers[4:])

    @property
    def is_constant(self) -> bool:
        """Whether all poses are the same one."""
        rows = np.array(self._numbers).reshape(-1, _NUMBERS)
        return bool(len(rows)) and bool(np.abs(rows - rows[0]).max() < 1e-9)

    def at(self, stamp_ns: int, longest_gap_ns: int | None = None) -> SE3 | None:
        """The pose at `stamp_ns`, interpolated; None outside, or in a gap longer than `longest_gap_ns`."""
        after = bisect_left(self.stamps_ns, stamp_ns)
        if after == len(self):
            return None
        if self.stamps_ns[after] == stamp_ns:
            return self[after]
        if after == 0:
            return None
        start, end = self.stamps_ns[after - 1], self.stamps_ns[after]
        if longest_gap_ns is not None and end - start > longest_gap_ns:
            return None
        return interpolate(self[after - 1], self[after], (stamp_ns - start) / (end - start))

    def twist(self, stamp_ns: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Linear (3,) m/s and angular (3,) rad/s velocity in the base frame, from the poses around
        `stamp_ns`, which must lie within the trajectory; None for a single pose."""
        start = max(stamp_ns - _TWIST_WINDOW_NS // 2, self.stamps_ns[0])
        end = min(stamp_ns + _TWIST_WINDOW_NS // 2, self.stamps_ns[-1])
        if start == end:
            return None
        before, now, after = self.at(start), self.at(stamp_ns), self.at(end)
        seconds = (end - start) * 1e-9
        turn = SE3(after.rotation @ before.rotation.T, np.zeros(3)).quaternion
        half_angle = np.arctan2(np.linalg.norm(turn[1:]), turn[0])
        angular = 2 * turn[1:] / np.sinc(half_angle / np.pi) / seconds
        linear = (after.translation - before.translation) / seconds
        return now.rotation.T @ linear, now.rotation.T @ angular
