"""Messages to test with, made without the code under test; and who takes them."""

from __future__ import annotations

import array

import numpy as np
from geometry_msgs.msg import TransformStamped
from nav_msgs.msg import Odometry
from sensor_msgs.msg import PointCloud2, PointField

from zeroflow_ros.live.ego_motion import EgoMotion

SECOND = 1_000_000_000


def cloud(points: np.ndarray, stamp_ns: int, frame: str = "base_link", intensity=None, times=None) -> PointCloud2:
    """x y z (and intensity) as little-endian float32, and t (uint32, nanoseconds) where there are times; one row."""
    layout = [(name, "<f4") for name in ("x", "y", "z")]
    layout += [("intensity", "<f4")] if intensity is not None else []
    layout += [("t", "<u4")] if times is not None else []
    packed = np.zeros(len(points), layout)
    for name, column in zip(("x", "y", "z"), points.T, strict=True):
        packed[name] = column
    if intensity is not None:
        packed["intensity"] = intensity
    if times is not None:
        packed["t"] = times
    message = PointCloud2(height=1, width=len(points), point_step=packed.itemsize, is_dense=True)
    message.row_step = message.point_step * len(points)
    message.fields = [
        PointField(name=name, offset=4 * k, datatype=6 if name == "t" else 7, count=1)
        for k, name in enumerate(packed.dtype.names)
    ]
    message.data = array.array("B", packed.tobytes())
    message.header.frame_id = frame
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, SECOND)
    return message


def odometry(stamp_ns: int, x: float = 0.0, child: str = "base_link", w: float = 1.0) -> Odometry:
    """The vehicle at (x, 0, 0), not turned."""
    message = Odometry(child_frame_id=child)
    message.header.frame_id = "odom"
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, SECOND)
    message.pose.pose.position.x = x
    message.pose.pose.orientation.w = w
    return message


def transform(parent: str, child: str, xyz, wxyz=(1.0, 0.0, 0.0, 0.0), stamp_ns: int = 0) -> TransformStamped:
    """``parent_SE3_child``."""
    message = TransformStamped(child_frame_id=child)
    message.header.frame_id = parent
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, SECOND)
    translation, rotation = message.transform.translation, message.transform.rotation
    translation.x, translation.y, translation.z = map(float, xyz)
    rotation.w, rotation.x, rotation.y, rotation.z = map(float, wxyz)
    return message


def rows(message: PointCloud2) -> np.ndarray:
    """The points of a message as a structured array, by its own description."""
    formats = {2: "u1", 4: "<u2", 6: "<u4", 7: "<f4", 8: "<f8"}
    dtype = np.dtype(
        {
            "names": [f.name for f in message.fields],
            "formats": [formats[f.datatype] for f in message.fields],
            "offsets": [f.offset for f in message.fields],
            "itemsize": message.point_step,
        }
    )
    return np.frombuffer(bytes(message.data), dtype)


class Log:
    """Takes the place of rclpy's logger."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def warning(self, text: str) -> None:
        self.lines.append(text)


def ego_motion(mode: str, **more) -> EgoMotion:
    """With nobody who publishes anything, no wish to wait, and complaints that are failures; `more` says otherwise."""

    def complain(text: str) -> None:
        raise AssertionError(text)

    quiet = {"odom_published": lambda: False, "tf_published": lambda: False, "tf_possible": True}
    quiet |= dict.fromkeys(("on_bad_odometry", "on_bad_transform", "on_switch", "warn_once"), complain)
    names = {"timeout": 0.0, "odom_frame": "odom", "base_frame": "base_link"}
    return EgoMotion(mode, **names | quiet | more)
