"""PointCloud2 messages and the core's arrays: clouds in, flow out."""

from __future__ import annotations

import array
import sys

import numpy as np
from builtin_interfaces.msg import Time
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

from zeroflow_core.datasets.point_cloud2 import Cloud, fields_of, is_return
from zeroflow_core.geometry import SE3
from zeroflow_core.pairs import Sweep
from zeroflow_ros.messages.colours import packed_colours

# What a row of flow may hold besides x y z.
_FORMATS = {
    "intensity": "f4",
    "ring": "u2",
    "t": "i4",  # nanoseconds from the stamp, which may lie at either end of the sweep
    "vx": "f4",
    "vy": "f4",
    "vz": "f4",
    "speed": "f4",
    "rgb": "f4",  # whose bits are 0x00RRGGBB
    "status": "u1",
}
_USUAL_FIELDS = ("intensity", "vx", "vy", "vz", "speed", "rgb", "status")


def nanoseconds(stamp: Time) -> int:
    """A message's time as integer nanoseconds."""
    return stamp.sec * 1_000_000_000 + stamp.nanosec


def to_sweep(cloud: Cloud, stamp_ns: int, world_SE3_vehicle: SE3, vehicle_SE3_cloud: SE3) -> Sweep:
    """The cloud's points as a Sweep in the vehicle frame; an identity leaves them bit for bit as they came. In place of
    rows that are no returns there is NaN."""
    points = _contiguous(cloud.points)
    seen = is_return(points)
    if not np.array_equal(vehicle_SE3_cloud.matrix, np.eye(4)):
        points = vehicle_SE3_cloud.transform(points)
    if not seen.all():
        if np.may_share_memory(points, cloud.points):
            points = points.copy()
        points[~seen] = np.nan
    return Sweep(points, stamp_ns, world_SE3_vehicle, cloud.intensity, time_offset_ns=cloud.time_offset_ns)


def flow_message(
    source: PointCloud2,
    cloud: Cloud,
    velocity: np.ndarray,
    status: np.ndarray,
    fields: tuple[str, ...] = _USUAL_FIELDS,
    *,
    velocity_in_vehicle: np.ndarray | None = None,
    min_speed: float = 0.5,
) -> PointCloud2:
    """One row per point of `source`, in its order, organisation, frame and stamp.

    cloud:    the decoded `source`, N points
    velocity: (N,3), m/s over ground, in the frame of `source`; 0 on ground, NaN where there is no estimate
    status:   (N,) uint8, a zeroflow_core.pairs.Status for each point
    fields:   what follows x y z (float32, metres), in this order: intensity, vx, vy, vz, speed (float32), ring
              (uint16), t (int32, nanoseconds from the stamp), rgb (float32, as RViz, PCL and Foxglove read colours: see
              colours.py), status (uint8)
    velocity_in_vehicle: (N,3), the same in the vehicle frame, for rgb; `velocity` where None
    min_speed:           m/s; what is slower has no colour in rgb

    Rows have the same layout whatever the source has: intensity, ring and t are 0 where it has none. Values lie
    at multiples of their own size, rows at multiples of four. The cloud is dense when every x, y and z is finite.
    """
    layout = _layout(fields)
    message = PointCloud2(header=source.header, point_step=layout.itemsize, is_bigendian=sys.byteorder == "big")
    message.fields = _described(layout)
    # The message takes an array.array as it is; of anything else it copies byte after byte.
    data = array.array("B", bytes(1)) * (len(cloud) * layout.itemsize)
    rows = np.frombuffer(data, layout)
    points = cloud.points.T
    for name, values in zip("xyz", points, strict=True):
        rows[name] = values
    speed = _speed(velocity) if {"speed", "rgb"} & set(fields) else None
    for name in fields:
        if name == "rgb":
            heading = velocity if velocity_in_vehicle is None else velocity_in_vehicle
            values = packed_colours(heading, speed, status, min_speed)
        else:
            values = speed if name == "speed" else _column(name, cloud, velocity, status)
        if values is not None:
            rows[name] = values
    message.data = data
    message.is_dense = all(bool(np.isfinite(values).all()) for values in points)
    if len(cloud) > 0:
        message.height, message.width = source.height, source.width
    else:
        message.height = 1
    message.row_step = message.width * layout.itemsize
    return message


def points_message(header: Header, points: np.ndarray) -> PointCloud2:
    """A cloud of x y z (float32, metres) alone, of (N,3) points in the frame of `header`."""
    layout = _layout(())
    message = PointCloud2(header=header, point_step=layout.itemsize, is_bigendian=sys.byteorder == "big")
    message.fields = _described(layout)
    message.data = array.array("B", np.ascontiguousarray(points, dtype=np.float32).tobytes())
    message.height, message.width, message.row_step = 1, len(points), len(message.data)
    message.is_dense = bool(np.isfinite(points).all())
    return message


def _described(layout: np.dtype) -> list[PointField]:
    return [PointField(name=n, offset=o, datatype=d, count=c) for n, o, d, c in fields_of(layout)]


def _column(name: str, cloud: Cloud, velocity: np.ndarray, status: np.ndarray) -> np.ndarray | None:
    """The values (N,) of a field, or None where the cloud has none."""
    if name == "status":
        return status
    if name in ("vx", "vy", "vz"):
        return velocity[:, "xyz".index(name[1])]
    return {"intensity": cloud.intensity, "ring": cloud.ring, "t": cloud.time_offset_ns}[name]


def _speed(velocity: np.ndarray) -> np.ndarray:
    x, y, z = velocity.T
    with np.errstate(over="ignore"):  # nonsense in, infinity out
        return np.sqrt(x * x + y * y + z * z)


def _layout(fields: tuple[str, ...]) -> np.dtype:
    """A row: x y z and the fields, each at a multiple of its size, and the whole a multiple of four bytes."""
    names, formats, offsets, end = [], [], [], 0
    for name, format_ in [*((axis, "f4") for axis in "xyz"), *((name, _FORMATS[name]) for name in fields)]:
        size = np.dtype(format_).itemsize
        start = -(-end // size) * size
        names.append(name)
        formats.append(format_)
        offsets.append(start)
        end = start + size
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": -(-end // 4) * 4})


def _contiguous(points: np.ndarray) -> np.ndarray:
    """(N,3), the same array where it is contiguous. Column by column, as numpy copies rows of three slowly."""
    if points.flags.c_contiguous:
        return points
    copy = np.empty(points.shape, points.dtype)
    for axis in range(3):
        copy[:, axis] = points[:, axis]
    return copy
