"""Moving objects as a PointCloud2, a row for each: every ROS 2 reads it by field names and RViz shows it.

vision_msgs would say the same, but it is not in every installation; MarkerArray is for eyes.
"""

from __future__ import annotations

import array
import sys
from collections.abc import Iterable, Sequence

import numpy as np
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

from zeroflow_core.datasets.point_cloud2 import fields_of
from zeroflow_core.geometry import SE3
from zeroflow_core.objects import MovingObject
from zeroflow_core.tracking import Track
from zeroflow_ros.messages.fallback import read_points

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


_SAME_FRAME = SE3.identity()


def objects_cloud(header: Header, tracks: Sequence[Track], header_SE3_tracks: SE3 = _SAME_FRAME) -> PointCloud2:
    """One row per track, in the frame and at the stamp of `header`.

    header_SE3_tracks: from the frame that `tracks` are in, where boxes stand upright, into that of `header`

    Fields: x y z (centre of the box, metres), length width height (metres: along yaw, across it, upwards), yaw (radians
    about z, from x to y: which way it faces), vx vy vz speed (m/s over ground), age (seconds since it was seen first),
    all float32; id, num_points (uint32; 0 points where predicted), predicted (uint8: 1 where it was not seen in this
    cloud and is where it would be by now).
    """
    objects = [track.object for track in tracks]
    rows = np.zeros(len(tracks), dtype=_LAYOUT)
    centre = header_SE3_tracks.transform(_vectors(moving.centre for moving in objects))
    velocity = header_SE3_tracks.rotate(_vectors(moving.velocity for moving in objects))
    facing = header_SE3_tracks.rotate(_vectors([np.cos(moving.yaw), np.sin(moving.yaw), 0.0] for moving in objects))
    rows["x"], rows["y"], rows["z"] = centre.T
    rows["vx"], rows["vy"], rows["vz"] = velocity.T
    rows["length"], rows["width"], rows["height"] = _vectors(moving.size for moving in objects).T
    rows["yaw"] = np.arctan2(facing[:, 1], facing[:, 0])
    rows["speed"] = [moving.speed for moving in objects]
    rows["age"] = [track.age_s for track in tracks]
    rows["id"] = [track.id for track in tracks]
    rows["num_points"] = [moving.num_points for moving in objects]
    rows["predicted"] = [track.is_predicted for track in tracks]
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


def tracks_of(message: PointCloud2, frame_SE3_header: SE3 = _SAME_FRAME) -> list[Track]:
    """The objects that `objects_cloud` wrote down, in another frame if one is given. How often they were seen is not
    told: `hits` is 0. Rows that are not finite are left out.

    frame_SE3_header: into the frame, in which boxes are to stand upright, from that of the message
    """
    rows = read_points(message)
    rows = rows[np.isfinite(np.stack([rows[name] for name in _FLOATS])).all(axis=0)]

    def columns(*names: str) -> np.ndarray:
        return np.stack([rows[name] for name in names], axis=1).astype(np.float64)

    centre = frame_SE3_header.transform(columns("x", "y", "z"))
    velocity = frame_SE3_header.rotate(columns("vx", "vy", "vz"))
    facing = frame_SE3_header.rotate(_vectors([np.cos(yaw), np.sin(yaw), 0.0] for yaw in rows["yaw"]))
    yaw, size = np.arctan2(facing[:, 1], facing[:, 0]), columns("length", "width", "height")
    return [
        Track(
            id=int(row["id"]),
            object=MovingObject(centre[k], size[k], float(yaw[k]), velocity[k], int(row["num_points"])),
            age_s=float(row["age"]),
            hits=0,
            is_predicted=bool(row["predicted"]),
        )
        for k, row in enumerate(rows)
    ]


def _vectors(rows: Iterable) -> np.ndarray:
    return np.array(list(rows), dtype=np.float64).reshape(-1, 3)
