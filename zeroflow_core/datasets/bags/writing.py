"""Sweeps as a rosbag2."""

from __future__ import annotations

import sqlite3
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from zeroflow_core.datasets.bags.messages import CLOUD, ODOMETRY, TF, typestore
from zeroflow_core.datasets.bags.trajectory import Trajectory
from zeroflow_core.datasets.point_cloud2 import fields_of, rows_of
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.files import new_folder
from zeroflow_core.geometry import SE3
from zeroflow_core.pairs import Sweep


def write_bag(
    out: Path | str,
    sweeps: Iterable[Sweep],
    static_transforms: Mapping[str, SE3],
    storage: str = "sqlite3",
    odom: bool = True,
    tf: bool = True,
    poses: Iterable[tuple[int, SE3]] = (),
) -> None:
    """Record sweeps as a rosbag2 that ``ros2 bag play`` plays, with their own stamps as record times.

    Topics: /lidar/points (PointCloud2 in base_link: x y z float32, and, where the sweeps have them, intensity
    float32, ring uint16, t uint32 nanoseconds since the stamp), /odom (odom → base_link: the sweeps' poses as
    they are, velocity from their differences), /tf (the same poses), /tf_static (latched). At equal stamps
    odometry and TF come before the cloud, so that a reader of both never waits.

    out:               the bag's folder, which appears when everything is written
    sweeps:            with ascending stamps; taken one by one, at most two in memory
    static_transforms: ego_SE3_sensor by the name of the sensor, for /tf_static
    storage:           "sqlite3" or "mcap" (Humble needs an extra package to play MCAP)
    odom, tf:          False leaves out /odom, or /tf and /tf_static
    poses:             (stamp in ns, world_SE3_ego), ascending: further poses between those of the sweeps

    Raises:
        ZeroFlowError: `out` exists or cannot be written, the sweeps have no poses or no order, or there are
            none.
    """
    from rosbags.rosbag2 import StoragePlugin, Writer, WriterError

    plugins = {"sqlite3": StoragePlugin.SQLITE3, "mcap": StoragePlugin.MCAP}
    if storage not in plugins:
        raise ZeroFlowError(f"the storage '{storage}' is unknown; choose one of: {', '.join(plugins)}")
    with new_folder(Path(out)) as folder:
        try:
            with Writer(folder, version=8, storage_plugin=plugins[storage]) as writer:
                _record(_Recorder(writer, odom, tf), sweeps, static_transforms, poses)
        except (sqlite3.Error, WriterError) as error:
            raise ZeroFlowError(f"cannot write the bag {out}: {error}") from error


def _record(
    recorder: _Recorder,
    sweeps: Iterable[Sweep],
    static_transforms: Mapping[str, SE3],
    poses: Iterable[tuple[int, SE3]],
) -> None:
    trajectory = Trajectory()
    further_poses = iter(poses)
    waiting = next(further_poses, None)
    written = 0  # of the trajectory
    previous_ns = -1
    for sweep, following in _with_next(sweeps):
        if not previous_ns < sweep.stamp_ns < 2**31 * 10**9:
            raise ZeroFlowError(
                f"stamps must ascend, from 0 to what ROS can hold: {sweep.stamp_ns} ns after {previous_ns} ns"
            )
        if recorder.needs_poses and sweep.world_SE3_ego is None:
            raise ZeroFlowError(f"the sweep at {sweep.stamp_ns} ns has no pose; write the bag without odometry and TF")
        if previous_ns < 0:
            recorder.static_transforms(sweep.stamp_ns, static_transforms)
            if sweep.world_SE3_ego is not None:
                trajectory.append(sweep.stamp_ns, sweep.world_SE3_ego)
        # Poses must be known beyond this sweep before its velocity can be taken.
        if following is not None and following.world_SE3_ego is not None:
            while waiting is not None and waiting[0] < following.stamp_ns:
                trajectory.append(*waiting)
                waiting = next(further_poses, None)
            trajectory.append(following.stamp_ns, following.world_SE3_ego)
        due = bisect_right(trajectory.stamps_ns, sweep.stamp_ns)
        for k in range(written, due):
            stamp_ns = trajectory.stamps_ns[k]
            recorder.pose(stamp_ns, trajectory[k], trajectory.twist(stamp_ns))
        written = due
        recorder.cloud(sweep)
        previous_ns = sweep.stamp_ns
    if previous_ns < 0:
        raise ZeroFlowError("there are no sweeps to write into a bag")


def _with_next(sweeps: Iterable[Sweep]) -> Iterator[tuple[Sweep, Sweep | None]]:
    """Each sweep with the one that follows it, None after the last."""
    iterator = iter(sweeps)
    current = next(iterator, None)
    for following in chain(iterator, [None]):
        if current is not None:
            yield current, following
        current = following


class _Recorder:
    """Turns sweeps and poses into messages of an open rosbags Writer."""

    def __init__(self, writer: Any, odom: bool, tf: bool) -> None:
        self._writer, self._store = writer, typestore()
        self._types = self._store.types
        self._connections: dict[str, Any] = {}
        # In the order in which messages with the same stamp are written.
        if tf:
            self._add("/tf_static", TF, depth=1, transient_local=True)
            self._add("/tf", TF, depth=100)
        if odom:
            self._add("/odom", ODOMETRY, depth=100)
        self._add("/lidar/points", CLOUD, depth=5)

    @property
    def needs_poses(self) -> bool:
        return "/odom" in self._connections or "/tf" in self._connections

    def static_transforms(self, stamp_ns: int, transforms: Mapping[str, SE3]) -> None:
        if "/tf_static" in self._connections and transforms:
            stamped = [self._transform(stamp_ns, "base_link", name, t) for name, t in transforms.items()]
            self._write("/tf_static", stamp_ns, self._types[TF](stamped))

    def pose(self, stamp_ns: int, pose: SE3, twist: tuple[np.ndarray, np.ndarray] | None) -> None:
        if "/tf" in self._connections:
            stamped = self._transform(stamp_ns, "odom", "base_link", pose)
            self._write("/tf", stamp_ns, self._types[TF]([stamped]))
        if "/odom" in self._connections:
            make = self._make
            linear, angular = (np.zeros(3), np.zeros(3)) if twist is None else twist
            message = self._types[ODOMETRY](
                header=self._header(stamp_ns, "odom"),
                child_frame_id="base_link",
                pose=make(
                    "geometry_msgs/msg/PoseWithCovariance",
                    make(
                        "geometry_msgs/msg/Pose",
                        make("geometry_msgs/msg/Point", *map(float, pose.translation)),
                        self._quaternion(pose),
                    ),
                    _covariance(0.05, 0.005),
                ),
                twist=make(
                    "geometry_msgs/msg/TwistWithCovariance",
                    make(
                        "geometry_msgs/msg/Twist",
                        make("geometry_msgs/msg/Vector3", *map(float, linear)),
                        make("geometry_msgs/msg/Vector3", *map(float, angular)),
                    ),
                    _covariance(0.2, 0.02) if twist is not None else _covariance(1e3, 1e3),
                ),
            )
            self._write("/odom", stamp_ns, message)

    def cloud(self, sweep: Sweep) -> None:
        packed = rows_of(sweep)
        message = self._types[CLOUD](
            header=self._header(sweep.stamp_ns, "base_link"),
            height=1,
            width=len(packed),
            fields=[self._make("sensor_msgs/msg/PointField", *f) for f in fields_of(packed.dtype)],
            is_bigendian=False,
            point_step=packed.dtype.itemsize,
            row_step=packed.nbytes,
            data=packed.view(np.uint8),
            is_dense=bool(np.isfinite(sweep.points).all()),
        )
        self._write("/lidar/points", sweep.stamp_ns, message)

    def _add(self, topic: str, msgtype: str, depth: int, transient_local: bool = False) -> None:
        from rosbags import interfaces as ros

        forever = ros.QosTime(9223372036, 854775807)  # as rosbag2 records "no deadline"
        qos = ros.Qos(
            history=ros.QosHistory.KEEP_LAST,
            depth=depth,
            reliability=ros.QosReliability.RELIABLE,
            durability=ros.QosDurability.TRANSIENT_LOCAL if transient_local else ros.QosDurability.VOLATILE,
            deadline=forever,
            lifespan=forever,
            liveliness=ros.QosLiveliness.AUTOMATIC,
            liveliness_lease_duration=forever,
            avoid_ros_namespace_conventions=False,
        )
        self._connections[topic] = self._writer.add_connection(
            topic, msgtype, typestore=self._store, offered_qos_profiles=[qos]
        )

    def _write(self, topic: str, stamp_ns: int, message: Any) -> None:
        cdr = self._store.serialize_cdr(message, message.__msgtype__)
        self._writer.write(self._connections[topic], stamp_ns, cdr)

    def _make(self, msgtype: str, *values: Any) -> Any:
        return self._types[msgtype](*values)

    def _header(self, stamp_ns: int, frame: str) -> Any:
        stamp = self._make("builtin_interfaces/msg/Time", *divmod(stamp_ns, 10**9))
        return self._make("std_msgs/msg/Header", stamp, frame)

    def _quaternion(self, pose: SE3) -> Any:
        w, x, y, z = map(float, pose.quaternion)
        return self._make("geometry_msgs/msg/Quaternion", x, y, z, w)

    def _transform(self, stamp_ns: int, parent: str, child: str, transform: SE3) -> Any:
        return self._make(
            "geometry_msgs/msg/TransformStamped",
            self._header(stamp_ns, parent),
            child,
            self._make(
                "geometry_msgs/msg/Transform",
                self._make("geometry_msgs/msg/Vector3", *map(float, transform.translation)),
                self._quaternion(transform),
            ),
        )


def _covariance(linear: float, angular: float) -> np.ndarray:
    """Row-major (36,) from standard deviations in metres and radians (or per second), axes independent."""
    return np.diag([linear**2] * 3 + [angular**2] * 3).ravel()
