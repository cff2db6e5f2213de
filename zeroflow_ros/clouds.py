"""PointCloud2 messages and the core's arrays: clouds in, flow out."""

from __future__ import annotations

import numpy as np
from builtin_interfaces.msg import Time
from sensor_msgs.msg import PointCloud2, PointField

from zeroflow_core.datasets.point_cloud2 import Cloud, fields_of, is_return, structured
from zeroflow_core.geometry import SE3
from zeroflow_core.pairs import Sweep
from zeroflow_ros.fallback import create_cloud


def nanoseconds(stamp: Time) -> int:
    """A message's time as integer nanoseconds."""
    return stamp.sec * 1_000_000_000 + stamp.nanosec


def to_sweep(cloud: Cloud, stamp_ns: int, world_SE3_vehicle: SE3, vehicle_SE3_cloud: SE3) -> Sweep:
    """The cloud's points as a Sweep in the vehicle frame; an identity leaves them bit for bit as they came. In place of
    rows that are no returns there is NaN."""
    points = np.ascontiguousarray(cloud.points)
    if not np.array_equal(vehicle_SE3_cloud.matrix, np.eye(4)):
        points = vehicle_SE3_cloud.transform(points)
    seen = is_return(cloud.points)
    if not seen.all():
        points = np.where(seen[:, None], points, np.float32(np.nan))
    return Sweep(points, stamp_ns, world_SE3_vehicle, cloud.intensity, time_offset_ns=cloud.time_offset_ns)


def flow_message(source: PointCloud2, cloud: Cloud, velocity: np.ndarray, status: np.ndarray) -> PointCloud2:
    """One row per point of `source`, in its order, organisation, frame and stamp.

    cloud:    the decoded `source`, N points
    velocity: (N,3), m/s over ground, in the frame of `source`; 0 on ground, NaN where there is no estimate
    status:   (N,) uint8, a zeroflow_core.pairs.Status for each point

    Fields: x y z intensity vx vy vz speed (float32), status (uint8). Intensity is 0 where `source` has none.
    """
    velocity = velocity.astype(np.float32, copy=False)
    intensity = np.zeros(len(cloud), np.float32) if cloud.intensity is None else cloud.intensity
    x, y, z = cloud.points.T
    vx, vy, vz = velocity.T
    rows = structured(
        {
            "x": x,
            "y": y,
            "z": z,
            "intensity": intensity.astype(np.float32, copy=False),
            "vx": vx,
            "vy": vy,
            "vz": vz,
            "speed": np.sqrt(np.einsum("ij,ij->i", velocity, velocity)),
            "status": status.astype(np.uint8, copy=False),
        }
    )
    fields = [PointField(name=n, offset=o, datatype=d, count=c) for n, o, d, c in fields_of(rows.dtype)]
    message = create_cloud(source.header, fields, rows)
    if len(cloud) > 0:
        message.height, message.width = source.height, source.width
        message.row_step = source.width * message.point_step
    message.is_dense = bool(np.isfinite(cloud.points).all())
    return message
