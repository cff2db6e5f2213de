"""Bags for tests: recorded by this project, and in other people's layouts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import CompressionFormat, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from zeroflow_core.datasets.bags import CLOUD, ODOMETRY, TF
from zeroflow_core.datasets.point_cloud2 import fields_of, structured
from zeroflow_core.geometry import SE3
from zeroflow_core.pairs import Sweep

STORE = get_typestore(Stores.ROS2_HUMBLE)
START = 1_700_000_000_000_000_000
STEP = 100_000_000
SENSORS = {"lidar": SE3.from_yaw(0.1, np.array([1.0, 2.0, 3.0])), "camera": SE3.identity()}
POINTS = np.arange(12, dtype=np.float32).reshape(4, 3)


def make_sweeps(count: int, points: int = 50) -> list[Sweep]:
    """The ego turns left at 0.5 rad/s and drives at 3 m/s along its own x, on a circle of 6 m."""
    rng = np.random.default_rng(2)
    sweeps = []
    for i in range(count):
        angle = 0.5 * 0.1 * i
        position = np.array([4000 + 6 * np.sin(angle), -900 + 6 * (1 - np.cos(angle)), 12.0])
        cloud = rng.normal(0, 20, (points + i, 3)).astype(np.float32)
        cloud[i % points] = np.nan
        sweeps.append(
            Sweep(
                cloud,
                START + i * STEP,
                world_SE3_ego=SE3.from_yaw(angle, position),
                intensity=rng.random(points + i).astype(np.float32),
                ring=rng.integers(0, 64, points + i).astype(np.uint16),
                time_offset_ns=rng.integers(0, STEP, points + i).astype(np.int32),
            )
        )
    return sweeps


def assert_same(read: Sweep, written: Sweep) -> None:
    assert read.stamp_ns == written.stamp_ns
    assert read.points.tobytes() == written.points.tobytes()
    for name in ("intensity", "ring", "time_offset_ns"):
        got, expected = getattr(read, name), getattr(written, name)
        if expected is None:
            assert got is None
        else:
            np.testing.assert_array_equal(got, expected)
            assert got.dtype == expected.dtype
    np.testing.assert_allclose(read.world_SE3_ego.matrix, written.world_SE3_ego.matrix, rtol=0, atol=1e-9)


def messages_of(path: Path, topic: str) -> list:
    """Deserialised by rosbags alone, as an independent reader."""
    with AnyReader([path]) as reader:
        connections = [c for c in reader.connections if c.topic == topic]
        return [(t, reader.deserialize(raw, c.msgtype)) for c, t, raw in reader.messages(connections)]


def stamp_of(time_ns: int):
    return STORE.types["builtin_interfaces/msg/Time"](*divmod(time_ns, 10**9))


def message_of(columns: dict[str, np.ndarray], time_ns: int, frame: str = "velodyne", **spoilt):
    packed = structured(columns)
    attributes = {
        "header": STORE.types["std_msgs/msg/Header"](stamp_of(time_ns), frame),
        "height": 1,
        "width": len(packed),
        "fields": [STORE.types["sensor_msgs/msg/PointField"](*field) for field in fields_of(packed.dtype)],
        "is_bigendian": False,
        "point_step": packed.itemsize,
        "row_step": packed.nbytes,
        "data": packed.view(np.uint8),
        "is_dense": True,
    }
    return STORE.types[CLOUD](**(attributes | spoilt))


def cloud_message(points: np.ndarray, time_ns: int, frame: str = "velodyne", **spoilt):
    return message_of({name: points[:, axis] for axis, name in enumerate("xyz")}, time_ns, frame, **spoilt)


def odometry_message(pose: SE3, time_ns: int, child: str = "base_link", quaternion=None):
    make = STORE.types
    w, x, y, z = map(float, pose.quaternion) if quaternion is None else quaternion
    zero = make["geometry_msgs/msg/Vector3"](0.0, 0.0, 0.0)
    return make[ODOMETRY](
        header=make["std_msgs/msg/Header"](stamp_of(time_ns), "odom"),
        child_frame_id=child,
        pose=make["geometry_msgs/msg/PoseWithCovariance"](
            make["geometry_msgs/msg/Pose"](
                make["geometry_msgs/msg/Point"](*map(float, pose.translation)),
                make["geometry_msgs/msg/Quaternion"](x, y, z, w),
            ),
            np.zeros(36),
        ),
        twist=make["geometry_msgs/msg/TwistWithCovariance"](make["geometry_msgs/msg/Twist"](zero, zero), np.zeros(36)),
    )


def tf_message(*transforms: tuple[str, str, SE3], time_ns: int = 0):
    make = STORE.types
    stamped = []
    for parent, child, transform in transforms:
        w, x, y, z = map(float, transform.quaternion)
        stamped.append(
            make["geometry_msgs/msg/TransformStamped"](
                make["std_msgs/msg/Header"](stamp_of(time_ns), parent),
                child,
                make["geometry_msgs/msg/Transform"](
                    make["geometry_msgs/msg/Vector3"](*map(float, transform.translation)),
                    make["geometry_msgs/msg/Quaternion"](x, y, z, w),
                ),
            )
        )
    return make[TF](stamped)


def record(path: Path, messages, *, plugin=StoragePlugin.SQLITE3, version=9, compression=None) -> Path:
    """messages: (topic, message, record time in ns)."""
    writer = Writer(path, version=version, storage_plugin=plugin)
    if compression is not None:
        writer.set_compression(compression, CompressionFormat.ZSTD)
    connections = {}
    with writer:
        for topic, message, time_ns in messages:
            msgtype = message.__msgtype__
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, msgtype, typestore=STORE)
            writer.write(connections[topic], time_ns, STORE.serialize_cdr(message, msgtype))
    return path


def split(bag: Path, parts: list[Path], listed: list[int] | None = None) -> Path:
    """One bag of the storage files of others, in the order `listed` in its metadata."""
    bag.mkdir()
    infos = [yaml.safe_load((part / "metadata.yaml").read_text())["rosbag2_bagfile_information"] for part in parts]
    files = [next(file for file in part.iterdir() if file.suffix != ".yaml") for part in parts]
    for file in files:
        file.rename(bag / file.name)
    whole = infos[0]
    topics = {topic["topic_metadata"]["name"]: topic for info in infos for topic in info["topics_with_message_count"]}
    for name, topic in topics.items():
        topic["message_count"] = sum(
            one["message_count"]
            for info in infos
            for one in info["topics_with_message_count"]
            if one["topic_metadata"]["name"] == name
        )
    starts = [info["starting_time"]["nanoseconds_since_epoch"] for info in infos]
    ends = [start + info["duration"]["nanoseconds"] for start, info in zip(starts, infos, strict=True)]
    whole["relative_file_paths"] = [files[k].name for k in listed or range(len(files))]
    whole["topics_with_message_count"] = list(topics.values())
    whole["message_count"] = sum(info["message_count"] for info in infos)
    whole["starting_time"]["nanoseconds_since_epoch"] = min(starts)
    whole["duration"]["nanoseconds"] = max(ends) - min(starts)
    (bag / "metadata.yaml").write_text(yaml.safe_dump({"rosbag2_bagfile_information": whole}))
    return bag
