"""Bags written, read back bit for bit, and read from other people's layouts."""

from __future__ import annotations

import errno
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from bag_cases import (
    POINTS,
    SENSORS,
    START,
    STEP,
    STORE,
    assert_same,
    cloud_message,
    make_sweeps,
    messages_of,
    odometry_message,
    record,
    split,
    tf_message,
)
from rosbags.interfaces import QosDurability, QosReliability
from rosbags.rosbag2 import CompressionMode, StoragePlugin, Writer

from zeroflow_core.datasets.bags import CLOUD, ODOMETRY, TF, Bag, DamagedBag, find_bags, read_sweeps, write_bag
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.geometry import SE3
from zeroflow_core.pairs import Sweep

# --- what we write -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
def test_sweeps_come_back_bit_for_bit(tmp_path, storage):
    sweeps = make_sweeps(6)
    write_bag(tmp_path / "bag", iter(sweeps), SENSORS, storage=storage)
    for read, written in zip(read_sweeps(tmp_path / "bag"), sweeps, strict=True):
        assert_same(read, written)


def test_metadata_is_what_ros2_bag_play_reads(tmp_path):
    write_bag(tmp_path / "bag", make_sweeps(3), SENSORS)
    assert sorted(p.name for p in (tmp_path / "bag").iterdir()) == ["bag.db3", "metadata.yaml"]
    info = yaml.safe_load((tmp_path / "bag" / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert info["version"] == 8 and info["storage_identifier"] == "sqlite3"
    assert info["relative_file_paths"] == ["bag.db3"]
    assert info["starting_time"]["nanoseconds_since_epoch"] == START
    assert info["duration"]["nanoseconds"] == 2 * STEP
    assert info["message_count"] == 10
    topics = {t["topic_metadata"]["name"]: t for t in info["topics_with_message_count"]}
    expected = {"/lidar/points": (CLOUD, 3), "/odom": (ODOMETRY, 3), "/tf": (TF, 3), "/tf_static": (TF, 1)}
    assert {n: (t["topic_metadata"]["type"], t["message_count"]) for n, t in topics.items()} == expected
    for name, topic in topics.items():
        qos = topic["topic_metadata"]["offered_qos_profiles"]
        assert isinstance(qos, str)  # a list there is what Humble rejects
        (profile,) = yaml.safe_load(qos)
        assert profile["reliability"] == QosReliability.RELIABLE.value
        latched = profile["durability"] == QosDurability.TRANSIENT_LOCAL.value
        assert latched == (name == "/tf_static")
        assert profile["history"] == 1 and profile["depth"] >= 1


def test_mcap_is_written_with_the_name_of_the_bag(tmp_path):
    write_bag(tmp_path / "drive", make_sweeps(1), SENSORS, storage="mcap")
    assert sorted(p.name for p in (tmp_path / "drive").iterdir()) == ["drive.mcap", "metadata.yaml"]


@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
def test_odometry_and_tf_come_before_the_cloud_of_the_same_stamp(tmp_path, storage):
    # clouds of 1.3 MB: MCAP chunks end between messages with the same stamp
    write_bag(tmp_path / "bag", make_sweeps(3, points=60_000), SENSORS, storage=storage)
    with Bag(tmp_path / "bag") as bag:
        order = [(time_ns - START, topic) for time_ns, topic, _ in bag.messages()]
    trio = ["/tf", "/odom", "/lidar/points"]
    expected = [(0, "/tf_static")] + [(i * STEP, topic) for i in range(3) for topic in trio]
    assert order == expected


def test_messages_carry_frames_stamps_and_layout(tmp_path):
    sweeps = make_sweeps(2)
    write_bag(tmp_path / "bag", sweeps, SENSORS)
    for (time_ns, cloud), sweep in zip(messages_of(tmp_path / "bag", "/lidar/points"), sweeps, strict=True):
        assert time_ns == cloud.header.stamp.sec * 10**9 + cloud.header.stamp.nanosec == sweep.stamp_ns
        assert cloud.header.frame_id == "base_link"
        assert [(f.name, f.offset, f.datatype, f.count) for f in cloud.fields] == [
            ("x", 0, 7, 1),
            ("y", 4, 7, 1),
            ("z", 8, 7, 1),
            ("intensity", 12, 7, 1),
            ("ring", 16, 4, 1),
            ("t", 18, 6, 1),
        ]
        assert (cloud.height, cloud.width, cloud.point_step) == (1, len(sweep), 22)
        assert cloud.row_step == len(cloud.data) == 22 * len(sweep)
        assert not cloud.is_bigendian and not cloud.is_dense  # one row is NaN
        assert cloud.data[:12].tobytes() == sweep.points[0].tobytes()
    for (_, odom), (_, tf), sweep in zip(
        messages_of(tmp_path / "bag", "/odom"), messages_of(tmp_path / "bag", "/tf"), sweeps, strict=True
    ):
        (transform,) = tf.transforms
        assert odom.header.frame_id == transform.header.frame_id == "odom"
        assert odom.child_frame_id == transform.child_frame_id == "base_link"
        assert vars(odom.header.stamp) == vars(transform.header.stamp)
        position, moved = odom.pose.pose.position, transform.transform.translation
        assert [position.x, position.y, position.z] == [moved.x, moved.y, moved.z]
        assert [position.x, position.y, position.z] == sweep.world_SE3_ego.translation.tolist()
        assert vars(odom.pose.pose.orientation) == vars(transform.transform.rotation)
    ((_, static),) = messages_of(tmp_path / "bag", "/tf_static")
    assert [(t.header.frame_id, t.child_frame_id) for t in static.transforms] == [
        ("base_link", "lidar"),
        ("base_link", "camera"),
    ]
    shift = static.transforms[0].transform.translation
    assert [shift.x, shift.y, shift.z] == [1.0, 2.0, 3.0]


def test_velocity_is_in_the_frame_of_the_vehicle(tmp_path):
    write_bag(tmp_path / "bag", make_sweeps(8), SENSORS)
    for _, odom in messages_of(tmp_path / "bag", "/odom"):
        linear, angular = odom.twist.twist.linear, odom.twist.twist.angular
        # 3 m/s along x, 0.5 rad/s to the left; the chord of 0.1 s is off by little
        np.testing.assert_allclose([linear.x, linear.y, linear.z], [3, 0, 0], atol=0.08)
        np.testing.assert_allclose([angular.x, angular.y, angular.z], [0, 0, 0.5], atol=1e-6)
        covariance = odom.twist.covariance.reshape(6, 6)
        assert (np.diag(covariance) > 0).all() and np.count_nonzero(covariance) == 6
        assert (np.diag(odom.pose.covariance.reshape(6, 6)) > 0).all()


def test_a_single_sweep_has_no_velocity_and_says_so(tmp_path):
    write_bag(tmp_path / "bag", make_sweeps(1), SENSORS)
    ((_, odom),) = messages_of(tmp_path / "bag", "/odom")
    assert odom.twist.twist.linear.x == 0 and odom.twist.covariance[0] >= 1e6


def test_further_poses_are_recorded_between_the_sweeps(tmp_path):
    sweeps = make_sweeps(3)
    stamps = range(START - 30_000_000, START + 2 * STEP + 30_000_000, 20_000_000)
    poses = [(t, SE3(np.eye(3), np.array([t - START, 0.0, 0.0]))) for t in stamps]
    write_bag(tmp_path / "bag", sweeps, {}, poses=iter(poses))
    with Bag(tmp_path / "bag") as bag:
        assert "/tf_static" in bag.topics and bag.count("/tf_static") == 0
        times = [time_ns for time_ns, _, _ in bag.messages(["/odom"])]
        everything = [time_ns for time_ns, _, _ in bag.messages()]
    between = {t for t in stamps if START < t < START + 2 * STEP}
    assert times == sorted(between | {s.stamp_ns for s in sweeps})
    assert everything == sorted(everything)
    for read, written in zip(read_sweeps(tmp_path / "bag"), sweeps, strict=True):
        assert_same(read, written)


def test_without_odometry_and_tf(tmp_path):
    sweeps = [Sweep(s.points, s.stamp_ns) for s in make_sweeps(2)]
    write_bag(tmp_path / "bag", sweeps, SENSORS, odom=False, tf=False)
    with Bag(tmp_path / "bag") as bag:
        assert bag.topics == {"/lidar/points": CLOUD}
    for read, written in zip(read_sweeps(tmp_path / "bag"), sweeps, strict=True):
        assert read.world_SE3_ego is None and read.intensity is None and read.ring is None
        assert read.points.tobytes() == written.points.tobytes()


def test_only_one_of_odometry_and_tf(tmp_path):
    write_bag(tmp_path / "a", make_sweeps(2), SENSORS, odom=False)
    write_bag(tmp_path / "b", make_sweeps(2), SENSORS, tf=False)
    with Bag(tmp_path / "a") as a, Bag(tmp_path / "b") as b:
        assert set(a.topics) == {"/lidar/points", "/tf", "/tf_static"}
        assert set(b.topics) == {"/lidar/points", "/odom"}


def test_points_measured_before_the_stamp(tmp_path):
    offset = np.array([-5, 0, 7], np.int32)
    sweep = Sweep(np.zeros((3, 3), np.float32), START, time_offset_ns=offset)
    write_bag(tmp_path / "bag", [sweep], {}, odom=False, tf=False)
    (read,) = read_sweeps(tmp_path / "bag")
    np.testing.assert_array_equal(read.time_offset_ns, offset)


def test_an_empty_cloud_is_recorded_too(tmp_path):
    empty = Sweep(np.empty((0, 3), np.float32), START, SE3.identity(), time_offset_ns=np.empty(0, np.int32))
    write_bag(tmp_path / "bag", [empty], {})
    (read,) = read_sweeps(tmp_path / "bag")
    assert len(read) == 0 and read.world_SE3_ego is not None


# --- writing that fails ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sweeps, options, says",
    [
        ([], {}, "no sweeps"),
        (make_sweeps(2)[::-1], {}, "must ascend"),
        ([Sweep(np.zeros((1, 3), np.float32), START)], {}, "no pose"),
        ([Sweep(np.zeros((1, 3), np.float32), 2**62, SE3.identity())], {}, "must ascend"),
        (make_sweeps(1), {"storage": "tape"}, "'tape' is unknown; choose one of: sqlite3, mcap"),
    ],
)
@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
def test_what_makes_no_bag_is_said_and_leaves_nothing(tmp_path, sweeps, options, says, storage):
    with pytest.raises(ZeroFlowError, match=says):
        write_bag(tmp_path / "bag", sweeps, SENSORS, **({"storage": storage} | options))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
def test_an_interruption_leaves_nothing(tmp_path, storage):
    def interrupted():
        yield from make_sweeps(3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_bag(tmp_path / "bag", interrupted(), SENSORS, storage=storage)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_bag_is_not_touched(tmp_path):
    (tmp_path / "bag").mkdir()
    (tmp_path / "bag" / "mine").write_text("keep")
    with pytest.raises(ZeroFlowError, match="exists already"):
        write_bag(tmp_path / "bag", make_sweeps(1), SENSORS)
    assert (tmp_path / "bag" / "mine").read_text() == "keep"


@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path, storage):
    script = (
        "import sys; sys.path.insert(0, sys.argv[3])\n"
        "from test_bags import SENSORS, ZeroFlowError, make_sweeps, write_bag\n"
        "try: write_bag(sys.argv[1], make_sweeps(12, points=20_000), SENSORS, storage=sys.argv[2])\n"
        "except ZeroFlowError as error: print(error); sys.exit(1)\n"
    )
    limit = 2_000_000  # bytes a file may have: what a disk does when it is full, without filling one
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "bag"), storage, str(Path(__file__).parent)],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1, done.stderr
    assert "cannot write" in done.stdout and str(tmp_path / "bag") in done.stdout
    assert list(tmp_path.iterdir()) == []


# --- reading other people's bags ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "plugin, compression",
    [
        (StoragePlugin.SQLITE3, CompressionMode.FILE),
        (StoragePlugin.SQLITE3, CompressionMode.MESSAGE),
        (StoragePlugin.MCAP, CompressionMode.FILE),
        (StoragePlugin.MCAP, CompressionMode.STORAGE),
        (StoragePlugin.MCAP, CompressionMode.MESSAGE),
    ],
)
def test_zstd_compressed_bags(tmp_path, plugin, compression):
    messages = [("/points", cloud_message(POINTS + i, START + i), START + i) for i in range(5)]
    record(tmp_path / "bag", messages, plugin=plugin, compression=compression)
    sweeps = list(read_sweeps(tmp_path / "bag"))
    assert [s.stamp_ns for s in sweeps] == [START + i for i in range(5)]
    for i, sweep in enumerate(sweeps):
        np.testing.assert_array_equal(sweep.points, POINTS + i)


@pytest.mark.parametrize("listed", [None, [2, 0, 1]])
@pytest.mark.parametrize("plugin", list(StoragePlugin))
def test_split_bags(tmp_path, plugin, listed):
    expected = [START + part * 10 + i for part in range(3) for i in range(2)]
    parts = [
        record(tmp_path / f"part{k}", [("/p", cloud_message(POINTS, t), t) for t in stamps], plugin=plugin)
        for k, stamps in enumerate(zip(expected[::2], expected[1::2], strict=True))
    ]
    bag = split(tmp_path / "bag", parts, listed)
    assert [s.stamp_ns for s in read_sweeps(bag)] == expected
    with Bag(bag) as opened:
        assert opened.count("/p") == 6 and opened.duration_ns == 21
        assert [t for t, _, _ in opened.messages()] == expected
        assert [t for t, _, _ in opened.messages(["/p"], START + 11)] == expected[3:]


@pytest.mark.parametrize("plugin, suffix", [(StoragePlugin.SQLITE3, ".db3"), (StoragePlugin.MCAP, ".mcap")])
def test_a_single_storage_file_is_a_bag_too(tmp_path, plugin, suffix):
    record(tmp_path / "bag", [("/points", cloud_message(POINTS, START), START)], plugin=plugin)
    assert len(list(read_sweeps(tmp_path / "bag" / f"bag{suffix}"))) == 1


def test_the_topic_is_chosen_where_there_is_one_and_asked_for_where_not(tmp_path):
    one, two = cloud_message(POINTS, START), cloud_message(POINTS + 1, START)
    bag = record(
        tmp_path / "bag", [("/front", one, START), ("/rear", two, START), ("/tf", tf_message(), START)]
    )
    with pytest.raises(ZeroFlowError, match="several .* topics; choose one as topic: /front, /rear"):
        read_sweeps(bag)
    (sweep,) = read_sweeps(bag, topic="/rear")
    np.testing.assert_array_equal(sweep.points, POINTS + 1)
    for wrong in ("/left", "/tf"):
        with pytest.raises(ZeroFlowError, match=f"no {CLOUD} topic {wrong}; its topics: /front"):
            read_sweeps(bag, topic=wrong)


def test_a_bag_without_clouds_lists_what_it_has(tmp_path):
    bag = record(tmp_path / "bag", [("/odom", odometry_message(SE3.identity(), START), START)])
    with pytest.raises(ZeroFlowError, match=r"no PointCloud2 topic; its topics: /odom \(nav_msgs"):
        read_sweeps(bag)


def test_odometry_is_interpolated_at_the_stamp(tmp_path):
    start, end = SE3.from_yaw(0.0, np.array([1.0, 0, 0])), SE3.from_yaw(0.4, np.array([3.0, 4.0, 0]))
    times = {
        "before": START - 1,
        "quarter": START + STEP // 4,
        "end": START + STEP,
        "after": START + STEP + 1,
    }
    messages = [("/points", cloud_message(POINTS, t, "base_link"), t) for t in times.values()]
    # recorded late and out of order, as happens
    messages += [("/o", odometry_message(end, START + STEP), START + 5)]
    messages += [("/o", odometry_message(start, START), START + 6)]
    sweeps = dict(zip(times, read_sweeps(record(tmp_path / "bag", messages)), strict=True))
    assert sweeps["before"].world_SE3_ego is None and sweeps["after"].world_SE3_ego is None
    np.testing.assert_allclose(
        sweeps["quarter"].world_SE3_ego.matrix, SE3.from_yaw(0.1, np.array([1.5, 1.0, 0.0])).matrix, atol=1e-9
    )
    np.testing.assert_allclose(sweeps["end"].world_SE3_ego.matrix, end.matrix, atol=1e-12)


def test_a_long_gap_in_the_odometry_is_no_pose(tmp_path):
    poses = [("/o", odometry_message(SE3.identity(), t), t) for t in (START, START + 2 * 10**9)]
    clouds = [("/p", cloud_message(POINTS, t, "base_link"), t) for t in (START, START + 10**9)]
    on_time, in_gap = read_sweeps(record(tmp_path / "bag", poses + clouds))
    assert on_time.world_SE3_ego is not None and in_gap.world_SE3_ego is None


def test_odometry_that_is_no_pose_is_stepped_over(tmp_path):
    good = odometry_message(SE3.identity(), START)
    zeros = odometry_message(SE3.identity(), START + 5, quaternion=(0.0, 0.0, 0.0, 0.0))
    nan = odometry_message(SE3.identity(), START + 6, quaternion=(np.nan, 0.0, 0.0, 0.0))
    messages = [("/o", m, START) for m in (good, zeros, nan)]
    messages += [("/p", cloud_message(POINTS, START + 5, "base_link"), START)]
    (sweep,) = read_sweeps(record(tmp_path / "bag", messages))
    assert sweep.world_SE3_ego is None


def test_several_odometry_topics_are_asked_about(tmp_path):
    wheel, lidar = SE3(np.eye(3), np.array([1.0, 0, 0])), SE3(np.eye(3), np.array([2.0, 0, 0]))
    bag = record(
        tmp_path / "bag",
        [
            ("/wheel", odometry_message(wheel, START), START),
            ("/lidar", odometry_message(lidar, START), START),
            ("/p", cloud_message(POINTS, START, "base_link"), START),
        ],
    )
    with pytest.raises(ZeroFlowError, match="choose one as odometry: /wheel, /lidar"):
        read_sweeps(bag)
    (sweep,) = read_sweeps(bag, odometry="/lidar")
    assert sweep.world_SE3_ego.translation[0] == 2.0


def test_the_pose_is_that_of_the_frame_of_the_cloud(tmp_path):
    """base_footprint ← base_link ← mast ← velodyne; Odometry moves base_link, clouds are in velodyne."""
    world_SE3_base = SE3.from_yaw(0.5, np.array([10.0, 20.0, 0.0]))
    base_SE3_mast = SE3.from_yaw(np.pi / 2, np.array([0.0, 0.0, 1.0]))
    mast_SE3_velodyne = SE3(np.eye(3), np.array([0.2, 0.0, 0.3]))
    footprint_SE3_base = SE3(np.eye(3), np.array([0.0, 0.0, 0.1]))
    messages = [
        ("/tf_static", tf_message(("base_footprint", "base_link", footprint_SE3_base)), START),
        ("/tf_static", tf_message(("base_link", "/mast", base_SE3_mast)), START),
        ("/tf_static", tf_message(("mast", "velodyne", mast_SE3_velodyne)), START),
        ("/odom", odometry_message(world_SE3_base, START), START),
        ("/points", cloud_message(POINTS, START, "velodyne"), START),
    ]
    (sweep,) = read_sweeps(record(tmp_path / "bag", messages))
    expected = world_SE3_base @ base_SE3_mast @ mast_SE3_velodyne
    np.testing.assert_allclose(sweep.world_SE3_ego.matrix, expected.matrix, atol=1e-12)
    np.testing.assert_array_equal(sweep.points, POINTS)

    messages[3] = ("/odom", odometry_message(world_SE3_base, START, child="base_footprint"), START)
    (sweep,) = read_sweeps(record(tmp_path / "other", messages))
    expected = world_SE3_base @ footprint_SE3_base @ base_SE3_mast @ mast_SE3_velodyne
    np.testing.assert_allclose(sweep.world_SE3_ego.matrix, expected.matrix, atol=1e-12)


@pytest.mark.parametrize("ring", [False, True])
def test_frames_that_nothing_joins_give_no_pose_and_one_warning(tmp_path, caplog, ring):
    messages = [("/odom", odometry_message(SE3.identity(), START + i), START) for i in range(2)]
    messages += [("/points", cloud_message(POINTS, START + i), START) for i in range(2)]
    if ring:
        messages += [
            ("/tf_static", tf_message(("a", "b", SE3.identity()), ("b", "a", SE3.identity())), START)
        ]
    sweeps = list(read_sweeps(record(tmp_path / "bag", messages)))
    assert [s.world_SE3_ego for s in sweeps] == [None, None]
    assert caplog.text.count("no /tf_static joins the two") == 1


def test_a_stamp_left_at_zero_becomes_the_record_time(tmp_path):
    (sweep,) = read_sweeps(record(tmp_path / "bag", [("/p", cloud_message(POINTS, 0), START + 3)]))
    assert sweep.stamp_ns == START + 3


def test_a_cloud_that_cannot_be_decoded_is_named(tmp_path):
    good, bad = cloud_message(POINTS, START), cloud_message(POINTS, START + 1, point_step=200)
    sweeps = read_sweeps(record(tmp_path / "bag", [("/p", good, START), ("/p", bad, START + 1)]))
    assert len(next(sweeps)) == 4
    with pytest.raises(ZeroFlowError, match=f"/p at {START + 1} ns in the bag .*: the cloud is incomplete"):
        next(sweeps)


def test_a_message_that_is_cut_off_is_named(tmp_path):
    with Writer(tmp_path / "bag", version=9) as writer:
        connection = writer.add_connection("/p", CLOUD, typestore=STORE)
        raw = STORE.serialize_cdr(cloud_message(POINTS, START), CLOUD)
        writer.write(connection, START, bytes(raw)[:40])
    with pytest.raises(ZeroFlowError, match="damaged .* message in /p"):
        list(read_sweeps(tmp_path / "bag"))


# --- Bag ---------------------------------------------------------------------------------------------------


def test_raw_messages_are_the_recorded_bytes(tmp_path):
    cloud, odom = cloud_message(POINTS, START), odometry_message(SE3.identity(), START)
    bag = record(tmp_path / "bag", [("/p", cloud, START + 1), ("/o", odom, START), ("/p", cloud, START + 2)])
    raw = bytes(STORE.serialize_cdr(cloud, CLOUD))
    with Bag(bag) as opened:
        assert opened.topics == {"/p": CLOUD, "/o": ODOMETRY}
        assert (opened.start_ns, opened.duration_ns) == (START, 2)
        assert (opened.count("/p"), opened.count("/o")) == (2, 1)
        for _ in range(2):  # as often as one likes
            assert list(opened.messages(["/p"])) == [(START + 1, "/p", raw), (START + 2, "/p", raw)]
        assert [topic for _, topic, _ in opened.messages()] == ["/o", "/p", "/p"]
        assert list(opened.messages([])) == []
        assert opened.qos("/p") == (True, False, 10)
        for ask in (opened.count, opened.qos, lambda t: opened.messages([t])):
            with pytest.raises(ZeroFlowError, match="has no topic /absent; its topics: /p, /o"):
                ask("/absent")


def test_qos_is_what_was_offered(tmp_path):
    write_bag(tmp_path / "bag", make_sweeps(1), SENSORS)
    with Bag(tmp_path / "bag") as bag:
        assert bag.qos("/tf_static") == (True, True, 1)
        assert bag.qos("/lidar/points") == (True, False, 5)


def test_a_bag_without_messages(tmp_path):
    with Writer(tmp_path / "bag", version=9) as writer:
        writer.add_connection("/p", CLOUD, typestore=STORE)
    with Bag(tmp_path / "bag") as bag:
        assert (bag.start_ns, bag.duration_ns, bag.count("/p")) == (0, 0, 0)
        assert list(bag.messages()) == []
    assert list(read_sweeps(tmp_path / "bag")) == []


def test_no_bag_at_all(tmp_path):
    with pytest.raises(ZeroFlowError, match="there is no bag"):
        Bag(tmp_path / "absent")
    with pytest.raises(ZeroFlowError, match="no metadata.yaml; a rosbag2 is a folder"):
        Bag(tmp_path)
    (tmp_path / "ros1.bag").write_bytes(b"#ROSBAG V2.0")
    with pytest.raises(ZeroFlowError, match="not a rosbag2"):
        Bag(tmp_path / "ros1.bag")


@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
def test_a_recording_that_was_not_closed(tmp_path, storage):
    write_bag(tmp_path / "bag", make_sweeps(2), SENSORS, storage=storage)
    (tmp_path / "bag" / "metadata.yaml").unlink()
    with pytest.raises(ZeroFlowError, match="ros2 bag reindex"):
        Bag(tmp_path / "bag")


@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
@pytest.mark.parametrize("keep", [0, 7, 60, 3_000, 0.5, 0.99])
def test_a_truncated_bag_is_one_sentence(tmp_path, storage, keep):
    write_bag(tmp_path / "bag", make_sweeps(4, points=5_000), SENSORS, storage=storage)
    (file,) = (p for p in (tmp_path / "bag").iterdir() if p.suffix != ".yaml")
    data = file.read_bytes()
    file.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    with pytest.raises(ZeroFlowError, match="damaged or incomplete"):
        list(read_sweeps(tmp_path / "bag"))


@pytest.mark.parametrize("text", ["", "][", "a: 1", "rosbag2_bagfile_information: {version: 99}"])
def test_odd_metadata_is_one_sentence(tmp_path, text):
    write_bag(tmp_path / "bag", make_sweeps(1), SENSORS)
    (tmp_path / "bag" / "metadata.yaml").write_text(text)
    with pytest.raises(ZeroFlowError, match="cannot be read"):
        Bag(tmp_path / "bag")


def test_a_format_that_cannot_be_read_is_not_called_damage(tmp_path):
    bag = record(tmp_path / "bag", [("/p", cloud_message(POINTS, START), START)], compression=CompressionMode.MESSAGE)
    metadata = bag / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace("zstd", "shrink"))
    with pytest.raises(ZeroFlowError, match="'shrink' is not supported.*ros2 bag convert") as error:
        Bag(bag)
    assert "damaged" not in str(error.value)


def test_mcap_of_something_else_than_ros2_is_not_called_damage(tmp_path):
    bag = record(tmp_path / "bag", [("/p", cloud_message(POINTS, START), START)], plugin=StoragePlugin.MCAP)
    data = (bag / "bag.mcap").read_bytes()
    (tmp_path / "other.mcap").write_bytes(data.replace(b"ros2", b"ros1", 1))
    with pytest.raises(ZeroFlowError, match="Profile is not ros2.*ros2 bag convert") as error:
        Bag(tmp_path / "other.mcap")
    assert not isinstance(error.value, DamagedBag)


def test_no_room_to_unpack_is_not_called_damage(tmp_path, monkeypatch):
    bag = record(tmp_path / "bag", [("/p", cloud_message(POINTS, START), START)], compression=CompressionMode.FILE)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", full)
    with pytest.raises(ZeroFlowError, match="no room to unpack the bag .*No space left.*TMPDIR") as error:
        Bag(bag)
    assert not isinstance(error.value, DamagedBag)


def test_bags_are_found_at_and_below_a_path(tmp_path):
    one = [("/p", cloud_message(POINTS, START), START)]
    drive = record(tmp_path / "all" / "monday" / "drive", one)
    record(tmp_path / "all" / "loose", one, plugin=StoragePlugin.MCAP)
    (tmp_path / "all" / "loose" / "metadata.yaml").unlink()
    (tmp_path / "all" / ".hidden").mkdir()
    (tmp_path / "all" / "notes.txt").write_text("fog")
    loose = tmp_path / "all" / "loose" / "loose.mcap"
    assert find_bags(tmp_path / "all") == [loose, drive]
    assert find_bags(drive) == [drive] and find_bags(drive / "drive.db3") == [drive / "drive.db3"]
    for path in (tmp_path / "all" / "notes.txt", tmp_path / "all" / ".hidden", tmp_path / "absent"):
        with pytest.raises(ZeroFlowError, match=f"there is no .*{path}; give the bag's folder"):
            find_bags(path)
