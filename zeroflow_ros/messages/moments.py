"""What the node says of a cloud in several topics, put together again, as whoever looks on needs it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import numpy as np
from geometry_msgs.msg import Pose
from nav_msgs.msg import Path
from sensor_msgs.msg import PointCloud2

from zeroflow_core.geometry import SE3
from zeroflow_core.moments import Moment, Trails
from zeroflow_ros.messages.clouds import nanoseconds
from zeroflow_ros.messages.fallback import read_points
from zeroflow_ros.messages.objects_cloud import tracks_of

_MOST_WAITING = 3  # clouds: what belongs to an older one does not come any more
_MOST_POSES = 100
_GONE_NS = 1_000_000_000  # without a path for so long, there is none any more
_Content = TypeVar("_Content")


class MomentReader:
    """Joins the messages of `flow`, ``~/objects`` and ``~/path`` that have one stamp.

    A moment is ready when all that is expected has come, or flow for three later clouds has. Without ``~/path`` the
    vehicle frame is the cloud's own and its pose is not known; but a cloud here and there that has none, as when a node
    is too busy, is left out: it would jump. Without ``~/objects`` nothing is tracked. Not for two threads at once.

    Messages that are damaged are taken for ones that have not come.

    objects, path: whether those are expected
    damaged:       how many messages were damaged
    """

    def __init__(self, *, objects: bool = True, path: bool = True) -> None:
        self._expects = objects, path
        self._flows: dict[int, PointCloud2] = {}
        self._objects: dict[int, PointCloud2] = {}
        self._paths: dict[int, Path] = {}
        self._poses: dict[int, SE3] = {}  # world_SE3_vehicle by stamp
        self._trails = Trails()
        self.damaged = 0

    def add_flow(self, message: PointCloud2) -> list[Moment]:
        """Returns the moments that are ready now, oldest first; so do the others."""
        stamp_ns = nanoseconds(message.header.stamp)
        starts_over = bool(self._flows) and stamp_ns < max(self._flows)
        before = self.rest() if starts_over else []
        self._flows[stamp_ns] = message
        return before + self._ready()

    def add_objects(self, message: PointCloud2) -> list[Moment]:
        _keep(self._objects, nanoseconds(message.header.stamp), message)
        return self._ready()

    def add_path(self, message: Path) -> list[Moment]:
        _keep(self._paths, nanoseconds(message.header.stamp), message)
        return self._ready()

    def rest(self) -> list[Moment]:
        """Those that still wait for something, when nothing more is to come."""
        return [moment for stamp_ns in sorted(self._flows) for moment in self._moment(stamp_ns)]

    def _ready(self) -> list[Moment]:
        ready = []
        for stamp_ns in sorted(self._flows):
            come = stamp_ns in self._objects, stamp_ns in self._paths
            complete = all(here or not expected for here, expected in zip(come, self._expects, strict=True))
            if not complete and len(self._flows) <= _MOST_WAITING:
                break  # its successors wait for it: moments come in order
            ready += self._moment(stamp_ns)
        return ready

    def _moment(self, stamp_ns: int) -> list[Moment]:
        """That one, or none where it is left out."""
        flow, path, objects = (kept.pop(stamp_ns, None) for kept in (self._flows, self._paths, self._objects))
        vehicle_SE3_cloud = self._read(_vehicle_SE3_cloud, path)
        if vehicle_SE3_cloud is None and 0 <= stamp_ns - max(self._poses, default=stamp_ns + 1) <= _GONE_NS:
            return []
        rows = self._read(_points_and_velocity, flow)
        if rows is None:
            return []
        points, velocity = rows
        world_SE3_vehicle = None
        if vehicle_SE3_cloud is not None:
            points, velocity = vehicle_SE3_cloud.transform(points), vehicle_SE3_cloud.rotate(velocity)
            world_SE3_vehicle = self._follow(path, vehicle_SE3_cloud)
        frame_SE3_header = SE3.identity() if vehicle_SE3_cloud is None else vehicle_SE3_cloud
        tracks = self._read(partial(tracks_of, frame_SE3_header=frame_SE3_header), objects) or []
        ego_path, paths = self._trails.update(stamp_ns, world_SE3_vehicle, tracks)
        moment = Moment(
            stamp_ns=stamp_ns,
            points=points,
            velocity=velocity,
            tracks=tracks,
            world_SE3_vehicle=world_SE3_vehicle,
            ego_path=ego_path,
            paths=paths,
        )
        return [moment]

    def _read(self, read: Callable[[Any], _Content | None], message: Any) -> _Content | None:
        """What a message says; None where there is none, or one that is damaged."""
        try:
            return None if message is None else read(message)
        except (ValueError, TypeError, AssertionError):  # those of NumPy and sensor_msgs_py
            self.damaged += 1
            return None

    def _follow(self, path: Path, vehicle_SE3_cloud: SE3) -> SE3:
        """The vehicle's pose in a world that begins with the first path, by the newest pose that is known already."""
        world_SE3_vehicle = SE3.identity()
        for posed in reversed(path.poses[:-1]):
            known = self._poses.get(nanoseconds(posed.header.stamp))
            cloud_SE3_then = None if known is None else self._read(_pose, posed.pose)
            if cloud_SE3_then is not None:
                vehicle_SE3_then = vehicle_SE3_cloud @ cloud_SE3_then
                world_SE3_vehicle = known @ vehicle_SE3_then.inverse()
                break
        else:
            self._poses.clear()
            self._trails = Trails()
        _keep(self._poses, nanoseconds(path.poses[-1].header.stamp), world_SE3_vehicle, _MOST_POSES)
        return world_SE3_vehicle


def _keep(kept: dict, stamp_ns: int, value: object, most: int = 2 * _MOST_WAITING) -> None:
    kept.pop(stamp_ns, None)
    kept[stamp_ns] = value
    while len(kept) > most:
        del kept[next(iter(kept))]


def _points_and_velocity(flow: PointCloud2) -> tuple[np.ndarray, np.ndarray]:
    """(N,3) float32 each."""
    rows = read_points(flow)
    points, velocity = (
        np.stack([rows[name] for name in names], axis=1).astype(np.float32)
        for names in (("x", "y", "z"), ("vx", "vy", "vz"))
    )
    return points, velocity


def _vehicle_SE3_cloud(path: Path) -> SE3 | None:
    return _pose(path.poses[-1].pose).inverse() if path.poses else None


def _pose(pose: Pose) -> SE3:
    place, turn = pose.position, pose.orientation
    return SE3.from_quaternion(np.array([turn.w, turn.x, turn.y, turn.z]), np.array([place.x, place.y, place.z]))
