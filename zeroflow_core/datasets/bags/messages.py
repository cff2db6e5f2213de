"""The message types that are read and written here, by way of rosbags' own definitions of them."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

CLOUD = "sensor_msgs/msg/PointCloud2"
ODOMETRY = "nav_msgs/msg/Odometry"
TF = "tf2_msgs/msg/TFMessage"


@lru_cache
def typestore() -> Any:
    """rosbags' message types; ours are the same from Humble to Kilted."""
    from rosbags.typesys import Stores, get_typestore

    return get_typestore(Stores.ROS2_HUMBLE)


def stamp_ns(header: Any) -> int:
    """The stamp of a std_msgs/Header in nanoseconds."""
    return header.stamp.sec * 10**9 + header.stamp.nanosec


def plain(frame: str) -> str:
    """The name of a frame without the slash that ROS 1 put before it."""
    return frame.lstrip("/")
