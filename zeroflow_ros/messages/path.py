"""Where the vehicle has been, as a Path that RViz draws and programs chain poses by."""

from __future__ import annotations

from collections import deque

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, Pose, PoseStamped, Quaternion
from nav_msgs.msg import Path
from std_msgs.msg import Header

from zeroflow_core.geometry import SE3

_LONGEST_NS = 60_000_000_000
_FINE_NS = 2_000_000_000  # for so long back every pose is told
_COARSE_NS = 500_000_000  # and of those before, one in so much time


class PathWriter:
    """Remembers the vehicle's poses for a minute: all of the last two seconds, and two a second before that."""

    def __init__(self) -> None:
        self._poses: deque[tuple[int, np.ndarray, np.ndarray]] = deque()  # stamp, translation, quaternion
        self._coarse: deque[tuple[int, np.ndarray, np.ndarray]] = deque()

    def clear(self) -> None:
        self._poses.clear()
        self._coarse.clear()

    def add(self, stamp_ns: int, world_SE3_vehicle: SE3) -> None:
        """The newest pose. A stamp that goes back starts over; one that comes again has the later pose."""
        if self._poses and stamp_ns < self._poses[-1][0]:
            self.clear()
        if self._poses and stamp_ns == self._poses[-1][0]:
            self._poses.pop()
        self._poses.append((stamp_ns, world_SE3_vehicle.translation, world_SE3_vehicle.quaternion))
        while stamp_ns - self._poses[0][0] > _FINE_NS:
            oldest = self._poses.popleft()
            if not self._coarse or oldest[0] - self._coarse[-1][0] >= _COARSE_NS:
                self._coarse.append(oldest)
        while self._coarse and stamp_ns - self._coarse[0][0] > _LONGEST_NS:
            self._coarse.popleft()

    def message(self, header: Header, header_SE3_world: SE3) -> Path:
        """The poses in the frame of `header`, oldest first, each with a stamp of its own: so the newest says where the
        vehicle frame lies in the frame of `header`, and any two of them how the vehicle moved in between."""
        poses = [*self._coarse, *self._poses]
        message = Path(header=header)
        if not poses:
            return message
        stamps, translations, quaternions = zip(*poses, strict=True)
        places = header_SE3_world.transform(np.array(translations))
        turns = _turned(header_SE3_world.quaternion, np.array(quaternions))
        message.poses = [
            PoseStamped(
                header=Header(frame_id=header.frame_id, stamp=_time(stamp_ns)),
                pose=Pose(position=Point(x=x, y=y, z=z), orientation=Quaternion(w=qw, x=qx, y=qy, z=qz)),
            )
            for stamp_ns, (x, y, z), (qw, qx, qy, qz) in zip(stamps, places.tolist(), turns.tolist(), strict=True)
        ]
        return message


def _turned(turn: np.ndarray, quaternions: np.ndarray) -> np.ndarray:
    """Products (N,4) of one quaternion (w, x, y, z) with many (N,4)."""
    w, x, y, z = turn
    by = np.array([[w, -x, -y, -z], [x, w, -z, y], [y, z, w, -x], [z, -y, x, w]])
    return quaternions @ by.T


def _time(stamp_ns: int) -> Time:
    seconds, nanoseconds = divmod(stamp_ns, 1_000_000_000)
    return Time(sec=seconds, nanosec=nanoseconds)
