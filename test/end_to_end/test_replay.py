"""The replay node as a process of its own: what it plays, for whom it waits, and how it ends."""

from __future__ import annotations

import itertools
import signal
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")

from processes import SECOND, STEP, Peer, nanoseconds, street

from zeroflow_core.datasets.av2 import Log, find_logs
from zeroflow_core.datasets.bags import Bag, write_bag
from zeroflow_core.geometry import SE3
from zeroflow_core.pairs import Sweep

NODE, REPLAY = "zeroflow_ros.flow_node", "zeroflow_ros.replay_node"
SWEEPS = 5
TO_NODE = ["-r", "points:=/lidar/points", "-r", "odom:=/odom"]


@pytest.fixture(scope="module")
def bag(tmp_path_factory) -> Path:
    """Five sweeps of a vehicle at 5 m/s, from second 100 on."""
    path = tmp_path_factory.mktemp("bags") / "drive"
    sweeps = [
        Sweep(
            street(3000 + k, seed=k),
            100 * SECOND + k * STEP,
            world_SE3_ego=SE3(np.eye(3), np.array([0.5 * k, 0.0, 0.0])),
            intensity=np.full(3000 + k, k, np.float32),
        )
        for k in range(SWEEPS)
    ]
    write_bag(path, sweeps, {"up_lidar": SE3.identity()})
    return path


@pytest.fixture
def start_node(start_node):
    return partial(start_node, *TO_NODE)


@pytest.fixture
def peer():
    peer = Peer(cloud_topic="unused", odom_topic="unused_odom")
    yield peer
    peer.close()


def _hear(peer: Peer, topic: str = "/lidar/points", reliable: bool = True) -> list[bytes]:
    """What arrives on a cloud topic, as it is."""
    from rclpy.qos import QoSProfile, ReliabilityPolicy
    from sensor_msgs.msg import PointCloud2

    heard: list[bytes] = []
    reliability = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
    peer.node.create_subscription(
        PointCloud2, topic, heard.append, QoSProfile(depth=100, reliability=reliability), raw=True
    )
    return heard


def test_in_lockstep_every_pair_of_sweeps_becomes_one_flow(start, start_node, peer, bag):
    node = start_node()
    replay = start(REPLAY, bag, "--lockstep", "--rate", 0)
    assert replay.wait() == 0, replay.log
    peer.wait(lambda: len(peer.flows) == SWEEPS - 1, f"{SWEEPS - 1} flows")
    assert [flow.width for flow in peer.flows] == [3000 + k for k in range(1, SWEEPS)]
    stamps = [nanoseconds(flow.header.stamp) for flow in peer.flows]
    assert stamps == [100 * SECOND + k * STEP for k in range(1, SWEEPS)]
    counts = peer.counts()
    assert (counts["clouds_received"], counts["no_ego_motion"]) == (str(SWEEPS), "0"), node.log


def test_a_real_log_of_22_sweeps_gives_21_flows(start, start_node, peer, test_data, tmp_path):
    log = Log(next(path for path in find_logs(test_data / "kitti") if len(Log(path)) == 22))
    write_bag(tmp_path / "kitti", log.sweeps(), log.calibration())
    node = start_node()
    replay = start(REPLAY, tmp_path / "kitti", "--lockstep", "--rate", 0)
    assert replay.wait() == 0, replay.log
    peer.wait(lambda: len(peer.flows) == 21, "21 flows")
    for flow, sweep in zip(peer.flows, itertools.islice(log.sweeps(), 1, None), strict=True):
        assert nanoseconds(flow.header.stamp) == sweep.stamp_ns
        assert flow.width * flow.height == len(sweep)
    assert peer.counts()["skipped_busy"] == "0", node.log


def test_messages_are_published_as_they_were_recorded_and_the_clock_follows(start, peer, bag):
    from rosgraph_msgs.msg import Clock

    clouds, times = _hear(peer), []
    peer.node.create_subscription(Clock, "/clock", lambda message: times.append(nanoseconds(message.clock)), 1000)
    replay = start(REPLAY, bag, "--rate", 2)
    peer.wait(lambda: not replay.running, "the end of the replay")
    assert replay.wait() == 0, replay.log
    peer.wait(lambda: len(clouds) == SWEEPS, "all clouds")
    with Bag(bag) as recorded:
        cdrs = [bytes(cdr) for _, _, cdr in recorded.messages(["/lidar/points"])]
    assert clouds == [cdr + bytes(-len(cdr) % 4) for cdr in cdrs]  # DDS fills up to four bytes
    assert times == sorted(times) and len(times) > SWEEPS
    assert 100 * SECOND - STEP <= times[0] and times[-1] <= 100 * SECOND + (SWEEPS - 1) * STEP


@pytest.mark.parametrize("reliable", [True, False])
def test_clouds_can_be_renamed_and_be_best_effort(start, peer, bag, reliable):
    clouds = _hear(peer, "/front/points", reliable=reliable)
    options = [] if reliable else ["--best-effort"]
    replay = start(REPLAY, bag, *options, "--no-clock", "--ros-args", "-r", "/lidar/points:=/front/points")
    peer.wait(lambda: not replay.running, "the end of the replay")
    assert replay.wait() == 0, replay.log
    peer.wait(lambda: len(clouds) == SWEEPS, "all clouds")
    assert peer.node.count_publishers("/clock") == 0


def _recorded_anew(bag: Path, path: Path, change, more=()) -> Path:
    """The bag's messages at the times, and on the topics, that `change(time_ns, topic)` gives, in the order of time;
    and `more` messages: time, topic, content."""
    from rosbags.highlevel import AnyReader
    from rosbags.rosbag2 import Writer
    from rosbags.typesys import Stores, get_typestore

    store, messages = get_typestore(Stores.ROS2_HUMBLE), []
    with AnyReader([bag], default_typestore=store) as reader:
        for connection, time_ns, cdr in reader.messages():
            messages += [(*one, connection.msgtype, cdr) for one in change(time_ns, connection.topic)]
    messages += [(t, topic, one.__msgtype__, store.serialize_cdr(one, one.__msgtype__)) for t, topic, one in more]
    connections: dict = {}
    with Writer(path, version=8) as writer:
        for time_ns, topic, kind, cdr in sorted(messages, key=lambda message: message[0]):
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=store)
            writer.write(connections[topic], time_ns, cdr)
    return path


@pytest.mark.parametrize("rate", [0, 4])
def test_in_lockstep_a_pose_behind_its_cloud_is_not_held_back(start, peer, bag, tmp_path, rate):
    """An answer may wait for it."""
    from nav_msgs.msg import Odometry
    from rclpy.qos import DurabilityPolicy, QoSProfile
    from sensor_msgs.msg import PointCloud2
    from std_msgs.msg import Header

    late = _recorded_anew(
        bag, tmp_path / "late", lambda t, topic: [(t + (STEP // 2 if topic == "/odom" else 0), topic)]
    )
    latched = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    waiting, poses, answers = [], [0], peer.node.create_publisher(Header, "processed", latched)

    def answer() -> None:
        while waiting and (poses[-1] >= nanoseconds(waiting[0].stamp) or poses == [0]):
            answers.publish(waiting.pop(0))

    def on_cloud(message: PointCloud2) -> None:
        waiting.append(message.header)
        answer()

    def on_odometry(message: Odometry) -> None:
        poses.append(nanoseconds(message.header.stamp))
        answer()

    peer.node.create_subscription(PointCloud2, "/lidar/points", on_cloud, 10)
    peer.node.create_subscription(Odometry, "/odom", on_odometry, 10)
    replay = start(REPLAY, late, "--lockstep", "--rate", rate, "--answer-timeout", 10)
    peer.wait(lambda: not replay.running, "the end of the replay")
    assert replay.wait() == 0, replay.log
    assert len(poses) == 1 + SWEEPS and "no answer" not in replay.log


def test_in_lockstep_only_what_the_answering_node_takes_is_waited_for(start, start_node, peer, bag, tmp_path):
    """Somebody looks at the clouds of another scanner, which the flow node does not hear."""
    two = _recorded_anew(
        bag,
        tmp_path / "two",
        lambda t, topic: [(t, topic), (t + STEP // 2, "/other/points")] if topic == "/lidar/points" else [(t, topic)],
    )
    seen = _hear(peer, "/other/points")
    start_node()
    replay = start(REPLAY, two, "--lockstep", "--rate", 0)
    assert replay.wait() == 0, replay.log
    peer.wait(lambda: len(peer.flows) == SWEEPS - 1 and len(seen) == SWEEPS, "all flows, all clouds of the other")
    assert "no answer" not in replay.log


def test_a_clock_in_the_bag_is_the_only_one(start, peer, bag, tmp_path):
    from rosbags.typesys import Stores, get_typestore
    from rosgraph_msgs.msg import Clock

    make = get_typestore(Stores.ROS2_HUMBLE).types
    ticks = [
        (100 * SECOND + k * STEP // 4, "/clock", make["rosgraph_msgs/msg/Clock"](
            make["builtin_interfaces/msg/Time"](12, k)
        ))
        for k in range(4 * SWEEPS)
    ]  # fmt: skip
    simulated = _recorded_anew(bag, tmp_path / "simulated", lambda t, topic: [(t, topic)], ticks)
    times: list[tuple[int, int]] = []
    clouds = _hear(peer)
    peer.node.create_subscription(Clock, "/clock", lambda told: times.append((told.clock.sec, told.clock.nanosec)), 100)
    replay = start(REPLAY, simulated, "--rate", 2)
    peer.wait(lambda: not replay.running, "the end of the replay")
    assert replay.wait() == 0, replay.log
    peer.wait(lambda: len(clouds) == SWEEPS, "all clouds")
    assert times == [(12, k) for k in range(4 * SWEEPS)]


def test_topics_can_be_chosen(start, peer, bag):
    _hear(peer)
    replay = start(REPLAY, bag, "--topics", "/lidar/points", "--loop", "--rate", 0)
    peer.wait(lambda: peer.node.count_publishers("/lidar/points") == 1, "the replay")
    assert peer.node.count_publishers("/odom") == 0
    replay.signal(signal.SIGINT)
    assert replay.wait() == 0


def test_a_loop_goes_on_until_a_signal_and_the_node_starts_anew_each_time(start, start_node, peer, bag):
    start_node()
    replay = start(REPLAY, bag, "--lockstep", "--loop", "--rate", 0)
    peer.wait(lambda: len(peer.flows) >= 3 * (SWEEPS - 1), "three rounds of flows")
    replay.signal(signal.SIGTERM)
    assert replay.wait() == 0
    assert "Traceback" not in replay.log
    stamps = [nanoseconds(flow.header.stamp) for flow in peer.flows[: 2 * (SWEEPS - 1)]]
    assert stamps == 2 * [100 * SECOND + k * STEP for k in range(1, SWEEPS)]
    counts = peer.counts()
    assert int(counts["time_jump"]) >= 2 and counts["no_ego_motion"] == "0"


def test_a_node_that_does_not_answer_is_told_and_counts_as_failure(start, peer, bag):
    clouds = _hear(peer)
    replay = start(REPLAY, bag, "--lockstep", "--rate", 0, "--answer-timeout", 0.3)
    peer.wait(lambda: not replay.running, "the end of the replay")
    assert replay.wait() == 1
    assert replay.log.count("no answer to the cloud at") == SWEEPS
    stamps = [int.from_bytes(cdr[8:12], "little") // STEP for cdr in clouds]
    assert stamps == [0, 0, 0, 1, 2, 3, 4]  # the first one thrice, as nobody may have known the publisher yet


def test_without_a_subscriber_it_says_what_to_do(start, bag):
    replay = start(REPLAY, bag, "--wait", 1)
    assert replay.wait() == 1
    assert "nobody subscribed to /lidar/points within 1 s" in replay.log and "Traceback" not in replay.log


def test_a_signal_while_it_waits_ends_it_in_good_order(start, bag):
    replay = start(REPLAY, bag)
    replay.wait_for("waiting for a subscriber")
    replay.signal(signal.SIGINT)
    assert replay.wait() == 0
    assert "Traceback" not in replay.log


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        (["/nowhere/bag"], "there is no bag at /nowhere/bag"),
        (["BAG", "--topics", "/camera"], "no topic /camera"),
        (["BAG", "--topics", "/odom"], "no sensor_msgs/msg/PointCloud2 topic"),
    ],
)
def test_what_cannot_be_played_is_told_in_one_sentence(start, bag, arguments, complaint):
    replay = start(REPLAY, *[bag if word == "BAG" else word for word in arguments])
    assert replay.wait() == 1
    assert complaint in replay.log and "Traceback" not in replay.log


@pytest.mark.skipif(find_spec("tf2_msgs") is not None, reason="tf2_msgs is installed")
def test_topics_of_types_that_are_not_installed_are_left_out_with_a_line(start, bag):
    replay = start(REPLAY, bag, "--wait", 0.1)
    replay.wait()
    assert replay.log.count("not playing /tf: its type tf2_msgs/msg/TFMessage is not installed here") == 1
    assert replay.log.count("not playing /tf_static") == 1
