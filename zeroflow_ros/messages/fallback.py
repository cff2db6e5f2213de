"""Stand-ins for what the ROS 2 wheels of PyPI lack: `read_points` of sensor_msgs_py, `Buffer` of tf2_ros.

The names without prefix are the real ones where they can be imported and the plain ones elsewhere; both take
the same arguments (here: the part of them this package uses) and give the same answers, which a test compares.
tf2_msgs cannot be replaced: `TFMessage` is None where it is missing, and then nothing can arrive on /tf.
"""

from __future__ import annotations

from bisect import bisect_left, insort

import numpy as np
from geometry_msgs.msg import TransformStamped
from sensor_msgs.msg import PointCloud2

from zeroflow_core.datasets.point_cloud2 import dtype_of
from zeroflow_core.geometry import SE3, interpolate

_CACHE_NS = 10_000_000_000  # as tf2: ten seconds of every transform


def plain_read_points(cloud: PointCloud2) -> np.ndarray:
    """Every field of a cloud's points, structured (N,): a view, for clouds without padding between rows."""
    layout = dtype_of(cloud.fields, cloud.point_step, cloud.is_bigendian)
    return np.frombuffer(cloud.data, layout, cloud.width * cloud.height)


class PlainTransformException(Exception):
    """No transform between two frames at that time."""


class PlainBuffer:
    """A tree of transforms over time; in between two stamps it interpolates, outside of them it refuses."""

    def __init__(self) -> None:
        self._parents: dict[str, str] = {}
        self._fixed: dict[str, SE3] = {}
        self._moving: dict[str, list[tuple[int, SE3]]] = {}

    def set_transform(self, transform: TransformStamped, authority: str) -> None:
        """Add ``parent_SE3_child`` at its stamp; what is more than ten seconds older is forgotten."""
        child = self._connect(transform)
        self._fixed.pop(child, None)
        history = self._moving.setdefault(child, [])
        stamp_ns = transform.header.stamp.sec * 1_000_000_000 + transform.header.stamp.nanosec
        if history and stamp_ns < history[-1][0] - _CACHE_NS:
            return
        insort(history, (stamp_ns, _pose(transform)), key=lambda entry: entry[0])
        del history[: bisect_left(history, history[-1][0] - _CACHE_NS, key=lambda entry: entry[0])]

    def set_transform_static(self, transform: TransformStamped, authority: str) -> None:
        """Add ``parent_SE3_child`` for all times."""
        child = self._connect(transform)
        self._moving.pop(child, None)
        self._fixed[child] = _pose(transform)

    def clear(self) -> None:
        """Forget every transform that is not static."""
        self._moving = {child: [] for child in self._moving}

    def lookup_transform(self, target_frame: str, source_frame: str, time) -> TransformStamped:
        """``target_SE3_source`` at `time` (rclpy.time.Time); time 0 is the latest common to the chain.

        Raises:
            TransformException: an unknown frame, frames that are not connected or form a loop, or a time outside the
                history.
        """
        up_source, up_target = self._path_to_root(source_frame), self._path_to_root(target_frame)
        if up_source[-1] != up_target[-1]:
            raise PlainTransformException(f"frames '{target_frame}' and '{source_frame}' are not connected")
        # The shared part of the way to the root cancels out, and must not ask for transforms it doesn't need.
        while len(up_source) > 1 and len(up_target) > 1 and up_source[-2] == up_target[-2]:
            up_source.pop()
            up_target.pop()
        edges = up_source[:-1] + up_target[:-1]
        stamp_ns = time.nanoseconds or self._latest_common(edges)
        root_SE3_source = self._compose(up_source[:-1], stamp_ns)
        root_SE3_target = self._compose(up_target[:-1], stamp_ns)
        return _message(root_SE3_target.inverse() @ root_SE3_source, target_frame, source_frame, stamp_ns)

    def _connect(self, transform: TransformStamped) -> str:
        parent, child = transform.header.frame_id.lstrip("/"), transform.child_frame_id.lstrip("/")
        self._parents[child] = parent
        return child

    def _path_to_root(self, frame: str) -> list[str]:
        if frame not in self._parents and frame not in self._parents.values():
            raise PlainTransformException(f"frame '{frame}' is unknown")
        path = [frame]
        while path[-1] in self._parents:
            path.append(self._parents[path[-1]])
            if len(path) > len(self._parents) + 1:
                raise PlainTransformException(f"the frames above '{frame}' form a loop")
        return path

    def _latest_common(self, edges: list[str]) -> int:
        newest = [self._moving[child][-1][0] for child in edges if self._moving.get(child)]
        return min(newest, default=0)

    def _compose(self, edges: list[str], stamp_ns: int) -> SE3:
        root_SE3_frame = SE3.identity()
        for child in edges:
            root_SE3_frame = self._edge(child, stamp_ns) @ root_SE3_frame
        return root_SE3_frame

    def _edge(self, child: str, stamp_ns: int) -> SE3:
        if child in self._fixed:
            return self._fixed[child]
        history = self._moving[child]
        k = bisect_left(history, stamp_ns, key=lambda entry: entry[0])
        if k < len(history) and history[k][0] == stamp_ns:
            return history[k][1]
        if k == 0 or k == len(history):
            known = f"{history[0][0]} to {history[-1][0]} ns" if history else "nothing"
            raise PlainTransformException(
                f"'{self._parents[child]}' to '{child}' at {stamp_ns} ns would be an extrapolation: {known} known"
            )
        (before_ns, before), (after_ns, after) = history[k - 1], history[k]
        return interpolate(before, after, (stamp_ns - before_ns) / (after_ns - before_ns))


def _pose(transform: TransformStamped) -> SE3:
    q, t = transform.transform.rotation, transform.transform.translation
    return SE3.from_quaternion(np.array([q.w, q.x, q.y, q.z]), np.array([t.x, t.y, t.z]))


def _message(pose: SE3, target_frame: str, source_frame: str, stamp_ns: int) -> TransformStamped:
    message = TransformStamped()
    message.header.frame_id, message.child_frame_id = target_frame, source_frame
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 1_000_000_000)
    rotation, translation = message.transform.rotation, message.transform.translation
    rotation.w, rotation.x, rotation.y, rotation.z = map(float, pose.quaternion)
    translation.x, translation.y, translation.z = map(float, pose.translation)
    return message


try:
    from sensor_msgs_py.point_cloud2 import read_points
except ImportError:
    read_points = plain_read_points

try:
    from tf2_ros import Buffer, TransformException
except ImportError:
    Buffer, TransformException = PlainBuffer, PlainTransformException

try:
    from tf2_msgs.msg import TFMessage
except ImportError:
    TFMessage = None
