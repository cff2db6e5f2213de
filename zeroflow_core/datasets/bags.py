"""rosbag2 in and out, without a ROS installation: read any bag, write bags that every ROS 2 plays.

`Bag` hands out recorded messages as they are (raw CDR bytes, for replay), `read_sweeps` turns its clouds into
Sweeps, `write_bag` records Sweeps. Bags are written with metadata version 8, which rosbag2 from Humble to
Kilted reads (Humble rejects version 9).
"""

from __future__ import annotations

import logging
import sqlite3
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from zeroflow_core.datasets.point_cloud2 import CloudError, decode, fields_of, structured
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.files import new_folder
from zeroflow_core.geometry import SE3, interpolate
from zeroflow_core.pairs import Sweep

CLOUD = "sensor_msgs/msg/PointCloud2"
ODOMETRY = "nav_msgs/msg/Odometry"
TF = "tf2_msgs/msg/TFMessage"

_LONGEST_POSE_GAP_NS = 10**9  # between poses further apart, a straight line is no estimate any more
_TWIST_WINDOW_NS = 100_000_000  # poses a few ms apart differ by less than their noise

_log = logging.getLogger(__name__)


class TopicQoS(NamedTuple):
    """What the recorded publisher offered, as far as a replay needs it."""

    reliable: bool
    transient_local: bool
    depth: int


class Bag:
    """A rosbag2 for reading: sqlite3 or MCAP, plain or zstd-compressed, one file or split.

        with Bag("drive") as bag:
            bag.topics                              # {"/lidar/points": "sensor_msgs/msg/PointCloud2", ...}
            bag.qos("/tf_static").transient_local   # True for latched topics
            for time_ns, topic, cdr in bag.messages(["/lidar/points", "/odom"]):
                publisher[topic].publish(cdr)

    path:        the bag's folder (with its metadata.yaml), or one .db3 or .mcap file
    topics:      message type by topic name, in the order of the bag
    start_ns:    record time of the first message, 0 when the bag is empty
    duration_ns: from the first to the last message, 0 when the bag is empty

    Messages come with their record time (integer ns) and their complete CDR serialisation, header included,
    so rclpy publishes them unchanged. They come in time order; messages with the same time come in the order
    in which they were written. `messages` may be called again and again, which is how a replay loops.

    Raises:
        ZeroFlowError: there is no bag, it is damaged or unfinished, or a topic is not in it.
    """

    def __init__(self, path: Path | str) -> None:
        from rosbags.rosbag2 import Reader

        self.path = Path(path)
        what_to_give = "give the bag's folder or its .db3 or .mcap file"
        if not self.path.exists():
            raise ZeroFlowError(f"there is no bag at {self.path}; {what_to_give}")
        if self.path.is_dir() and not (self.path / "metadata.yaml").exists():
            files = sorted(p.name for p in self.path.iterdir() if p.suffix in (".db3", ".mcap"))
            advice = (
                f"the recording was not closed: run `ros2 bag reindex {self.path}`, or give {files[0]} itself"
                if files
                else "a rosbag2 is a folder with metadata.yaml and .db3 or .mcap files"
            )
            raise ZeroFlowError(f"{self.path} has no metadata.yaml; {advice}")
        if not self.path.is_dir() and self.path.suffix not in (".db3", ".mcap"):
            raise ZeroFlowError(f"{self.path} is not a rosbag2; {what_to_give}")
        try:
            self._reader = Reader(self.path)
            self._reader.open()
        except Exception as error:  # damaged files surface as anything from struct.error to AssertionError
            raise self._damaged(error) from error
        self.topics: dict[str, str] = {c.topic: c.msgtype for c in self._reader.connections}
        empty = self._reader.message_count == 0
        self.start_ns: int = 0 if empty else self._reader.start_time
        self.duration_ns: int = 0 if empty else self._reader.end_time - 1 - self._reader.start_time

    def close(self) -> None:
        if self._reader.is_open:
            self._reader.close()

    def __enter__(self) -> Bag:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def count(self, topic: str) -> int:
        """How many messages `topic` has."""
        return sum(c.msgcount for c in self._connections(topic))

    def qos(self, topic: str) -> TopicQoS:
        """What the publisher of `topic` offered; reliable, volatile, depth 10 where the bag does not say."""
        from rosbags.interfaces import QosDurability, QosReliability

        profiles = [q for c in self._connections(topic) for q in c.ext.offered_qos_profiles]
        if not profiles:
            return TopicQoS(reliable=True, transient_local=False, depth=10)
        return TopicQoS(
            reliable=all(q.reliability != QosReliability.BEST_EFFORT for q in profiles),
            transient_local=all(q.durability == QosDurability.TRANSIENT_LOCAL for q in profiles),
            depth=max(max(q.depth for q in profiles), 1),
        )

    def messages(self, topics: Sequence[str] | None = None) -> Iterator[tuple[int, str, bytes]]:
        """(record time in ns, topic, CDR bytes) of every message of `topics` (None: of all)."""
        names = list(self.topics) if topics is None else topics
        connections = [c for name in names for c in self._connections(name)]
        return self._read(connections)

    def _read(self, connections: list) -> Iterator[tuple[int, str, bytes]]:
        if not connections:  # rosbags takes an empty choice for all of them
            return
        try:
            for connection, time_ns, cdr in self._reader.messages(connections):
                yield time_ns, connection.topic, cdr
        except Exception as error:
            raise self._damaged(error) from error

    def _connections(self, topic: str) -> list:
        connections = [c for c in self._reader.connections if c.topic == topic]
        if not connections:
            raise ZeroFlowError(
                f"the bag {self.path} has no topic {topic}; its topics: {', '.join(self.topics) or 'none'}"
            )
        return connections

    def _damaged(self, error: Exception) -> ZeroFlowError:
        reason = str(error).rstrip(".") or type(error).__name__
        return ZeroFlowError(
            f"the bag {self.path} cannot be read ({reason}); it is damaged or incomplete: copy it again, "
            "or run `ros2 bag reindex` on it"
        )


def read_sweeps(path: Path | str, topic: str | None = None, odometry: str | None = None) -> Iterator[Sweep]:
    """The clouds of one PointCloud2 topic of a bag, in the order of recording.

    The points stay in the frame of the cloud, and `world_SE3_ego` is the pose of that frame: Odometry
    interpolated at the cloud's stamp, joined with the bag's static transforms where Odometry moves another
    frame. It is None where the bag has no Odometry around the stamp, or none for longer than a second, or no
    transform between the two frames. The stamp is the header's, or the record time where a driver left it 0.

    topic:    needed where the bag has several PointCloud2 topics
    odometry: needed where the bag has several nav_msgs/Odometry topics

    Raises:
        ZeroFlowError: no such bag or topic, several to choose from, or damage; while iterating: a cloud that
            cannot be decoded.
    """
    with Bag(path) as bag:
        topic = _only_topic(bag, CLOUD, topic, "topic")
        if topic is None:
            raise ZeroFlowError(f"the bag {path} has no PointCloud2 topic; its topics: {_listing(bag)}")
        odometry = _only_topic(bag, ODOMETRY, odometry, "odometry")
        trajectory, base_frame = _read_trajectory(bag, odometry)
        parents = _read_static_transforms(bag) if trajectory.stamps_ns else {}
    return _read_clouds(Path(path), topic, trajectory, base_frame, parents)


def _only_topic(bag: Bag, msgtype: str, wanted: str | None, parameter: str) -> str | None:
    """`wanted`, checked; or the one topic of `msgtype`; or None where there is none."""
    candidates = [name for name, type_ in bag.topics.items() if type_ == msgtype]
    if wanted is None:
        if len(candidates) > 1:
            raise ZeroFlowError(
                f"the bag {bag.path} has several {msgtype} topics; choose one as {parameter}: "
                f"{', '.join(candidates)}"
            )
        return candidates[0] if candidates else None
    if wanted not in candidates:
        raise ZeroFlowError(
            f"the bag {bag.path} has no {msgtype} topic {wanted}; its topics: {_listing(bag)}"
        )
    return wanted


def _listing(bag: Bag) -> str:
    return ", ".join(f"{name} ({msgtype})" for name, msgtype in bag.topics.items()) or "none"


@dataclass
class _Trajectory:
    """Poses (world_SE3_base) by ascending stamp."""

    stamps_ns: list[int] = field(default_factory=list)
    poses: list[SE3] = field(default_factory=list)

    def append(self, stamp_ns: int, pose: SE3) -> None:
        if not self.stamps_ns or stamp_ns > self.stamps_ns[-1]:
            self.stamps_ns.append(stamp_ns)
            self.poses.append(pose)

    def at(self, stamp_ns: int, longest_gap_ns: int | None = None) -> SE3 | None:
        """The pose at `stamp_ns`, interpolated; None outside, or in a gap longer than `longest_gap_ns`."""
        after = bisect_left(self.stamps_ns, stamp_ns)
        if after == len(self.stamps_ns):
            return None
        if self.stamps_ns[after] == stamp_ns:
            return self.poses[after]
        if after == 0:
            return None
        start, end = self.stamps_ns[after - 1], self.stamps_ns[after]
        if longest_gap_ns is not None and end - start > longest_gap_ns:
            return None
        return interpolate(self.poses[after - 1], self.poses[after], (stamp_ns - start) / (end - start))

    def twist(self, stamp_ns: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Linear (3,) m/s and angular (3,) rad/s velocity in the base frame, from the poses around
        `stamp_ns`, which must lie within the trajectory; None for a single pose."""
        start = max(stamp_ns - _TWIST_WINDOW_NS // 2, self.stamps_ns[0])
        end = min(stamp_ns + _TWIST_WINDOW_NS // 2, self.stamps_ns[-1])
        if start == end:
            return None
        before, now, after = self.at(start), self.at(stamp_ns), self.at(end)
        seconds = (end - start) * 1e-9
        turn = SE3(after.rotation @ before.rotation.T, np.zeros(3)).quaternion
        half_angle = np.arctan2(np.linalg.norm(turn[1:]), turn[0])
        angular = 2 * turn[1:] / np.sinc(half_angle / np.pi) / seconds
        linear = (after.translation - before.translation) / seconds
        return now.rotation.T @ linear, now.rotation.T @ angular


def _read_trajectory(bag: Bag, topic: str | None) -> tuple[_Trajectory, str]:
    """The poses of an Odometry topic by stamp, and the frame that it moves."""
    trajectory, base_frame = _Trajectory(), ""
    if topic is None:
        return trajectory, base_frame
    by_stamp: dict[int, SE3] = {}
    for _, _, cdr in bag.messages([topic]):
        message = _deserialize(bag, topic, cdr, ODOMETRY)
        position, q = message.pose.pose.position, message.pose.pose.orientation
        try:
            pose = SE3.from_quaternion([q.w, q.x, q.y, q.z], [position.x, position.y, position.z])
        except ValueError:  # estimators publish zeros or NaN until they have converged
            continue
        by_stamp[_stamp_ns(message.header)] = pose
        base_frame = message.child_frame_id
    for stamp_ns in sorted(by_stamp):
        trajectory.append(stamp_ns, by_stamp[stamp_ns])
    return trajectory, base_frame


def _read_static_transforms(bag: Bag) -> dict[str, tuple[str, SE3]]:
    """(parent frame, parent_SE3_child) by child frame."""
    parents: dict[str, tuple[str, SE3]] = {}
    topics = [n for n, msgtype in bag.topics.items() if msgtype == TF and n.endswith("tf_static")]
    for _, topic, cdr in bag.messages(topics):
        for stamped in _deserialize(bag, topic, cdr, TF).transforms:
            t, q = stamped.transform.translation, stamped.transform.rotation
            try:
                transform = SE3.from_quaternion([q.w, q.x, q.y, q.z], [t.x, t.y, t.z])
            except ValueError:
                continue
            parents[_plain(stamped.child_frame_id)] = (_plain(stamped.header.frame_id), transform)
    return parents


def _plain(frame: str) -> str:
    return frame.lstrip("/")  # as ROS 1 wrote them


def _base_SE3_frame(base: str, frame: str, parents: Mapping[str, tuple[str, SE3]]) -> SE3 | None:
    """Static transform from `frame` into `base`, by way of their common root; None where they have none."""

    def climb(name: str) -> tuple[str, SE3]:
        root_SE3_name = SE3.identity()
        for _ in range(len(parents)):  # bounded: recorded frames may form a ring
            if name not in parents:
                break
            name, parent_SE3_child = parents[name]
            root_SE3_name = parent_SE3_child @ root_SE3_name
        return name, root_SE3_name

    base_root, root_SE3_base = climb(_plain(base))
    frame_root, root_SE3_frame = climb(_plain(frame))
    return root_SE3_base.inverse() @ root_SE3_frame if base_root == frame_root else None


def _read_clouds(
    path: Path,
    topic: str,
    trajectory: _Trajectory,
    base_frame: str,
    parents: Mapping[str, tuple[str, SE3]],
) -> Iterator[Sweep]:
    mounting: dict[str, SE3 | None] = {}
    with Bag(path) as bag:
        for time_ns, _, cdr in bag.messages([topic]):
            message = _deserialize(bag, topic, cdr, CLOUD)
            stamp_ns = _stamp_ns(message.header) or time_ns
            try:
                cloud = decode(message)
            except CloudError as error:
                raise ZeroFlowError(f"{topic} at {stamp_ns} ns in the bag {path}: {error}") from error
            pose = trajectory.at(stamp_ns, _LONGEST_POSE_GAP_NS)
            if pose is not None:
                frame = message.header.frame_id
                if frame not in mounting:
                    mounting[frame] = _base_SE3_frame(base_frame, frame, parents)
                    if mounting[frame] is None:
                        _log.warning(
                            "%s: Odometry moves '%s', clouds are in '%s', and no /tf_static joins the two: "
                            "the clouds have no pose",
                            path,
                            base_frame,
                            frame,
                        )
                pose = None if mounting[frame] is None else pose @ mounting[frame]
            yield Sweep(
                points=cloud.points,
                stamp_ns=stamp_ns,
                world_SE3_ego=pose,
                intensity=cloud.intensity,
                ring=cloud.ring,
                time_offset_ns=cloud.time_offset_ns,
            )


def _deserialize(bag: Bag, topic: str, cdr: bytes, msgtype: str) -> Any:
    try:
        return _typestore().deserialize_cdr(cdr, msgtype)
    except Exception as error:  # the generated code raises whatever the damaged bytes lead to
        raise ZeroFlowError(
            f"the bag {bag.path} has a damaged {msgtype} message in {topic} ({error}); copy the bag again"
        ) from error


def _stamp_ns(header: Any) -> int:
    return header.stamp.sec * 10**9 + header.stamp.nanosec


@lru_cache
def _typestore() -> Any:
    """rosbags' message types; ours are the same from Humble to Kilted."""
    from rosbags.typesys import Stores, get_typestore

    return get_typestore(Stores.ROS2_HUMBLE)


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
    trajectory = _Trajectory()
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
            raise ZeroFlowError(
                f"the sweep at {sweep.stamp_ns} ns has no pose; write the bag without odometry and TF"
            )
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
            recorder.pose(stamp_ns, trajectory.poses[k], trajectory.twist(stamp_ns))
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
        self._writer, self._store = writer, _typestore()
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
        columns = {name: sweep.points[:, axis] for axis, name in enumerate("xyz")}
        if sweep.intensity is not None:
            columns["intensity"] = sweep.intensity.astype(np.float32, copy=False)
        if sweep.ring is not None:
            columns["ring"] = sweep.ring.astype(np.uint16, copy=False)
        if sweep.time_offset_ns is not None:
            # The usual type, but it cannot say that a point was measured before the stamp.
            signed = len(sweep) > 0 and sweep.time_offset_ns.min() < 0
            columns["t"] = sweep.time_offset_ns.astype(np.int32 if signed else np.uint32)
        packed = structured(columns)
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
