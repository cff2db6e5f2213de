"""Moving objects as a PointCloud2, a row for each: every ROS 2 reads it by field names and RViz shows it.

vision_msgs would say the same, but it is not in every installation; MarkerArray is for eyes.
"""

from __future__ import annotations

import array
import sys
from collections.abc import Sequence

import numpy as np
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

from zeroflow_core.datasets.point_cloud2 import fields_of
from zeroflow_core.tracking import Track

_FLOATS = ("x", "y", "z", "length", "width", "height", "yaw", "vx", "vy", "vz", "speed", "age")
_NAMES = [*_FLOATS, "id", "num_points", "predicted"]
_LAYOUT = np.dtype(
    {
        "names": _NAMES,
        "formats": ["f4"] * len(_FLOATS) + ["u4", "u4", "u1"],
        "offsets": [4 * k for k in range(len(_NAMES))],
        "itemsize": 4 * len(_NAMES),
    }
)


def objects_cloud(header: Header, tracks: Sequence[Track]) -> PointCloud2:
    """One row per track, in the frame and at the stamp of `header`, which `tracks` are in.

    Fields: x y z (centre of the box, metres), length width height (metres: along yaw, across it, along z), yaw
    (radians about z, from x to y: the way it moves), vx vy vz speed (m/s over ground), age (seconds since it was seen
    first), all float32; id, num_points (uint32; 0 points where predicted), predicted (uint8: 1 where it was not seen
    in this cloud and is where it would be by now).
    """
    rows = np.zeros(len(tracks), dtype=_LAYOUT)
    for row, track in zip(rows, tracks, strict=True):
        moving = track.object
        row["x"], row["y"], row["z"] = moving.centre
        row["length"], row["width"], row["height"] = moving.size
        row["vx"], row["vy"], row["vz"] = moving.velocity
        row["yaw"], row["speed"], row["age"] = moving.yaw, moving.speed, track.age_s
        row["id"], row["num_points"], row["predicted"] = track.id, moving.num_points, track.is_predicted
    message = PointCloud2(
        header=header,
        height=1,
        width=len(rows),
        fields=[PointField(name=n, offset=o, datatype=d, count=c) for n, o, d, c in fields_of(_LAYOUT)],
        is_bigendian=sys.byteorder != "little",
        point_step=_LAYOUT.itemsize,
        row_step=rows.nbytes,
        is_dense=True,
    )
    message.data = array.array("B", rows.tobytes())
    return message
