"""The flow node as a process of its own, over real DDS: what it answers, survives and how it ends."""

from __future__ import annotations

import itertools
import math
import signal
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")

from processes import SECOND, STEP, Peer, Process, cloud, nanoseconds, odometry, street

NODE = "zeroflow_ros.flow_node"
HOURS = itertools.count(1)


@pytest.fixture(scope="module")
def shared_node(tmp_path_factory, checkpoint):
    """One node for all tests that want no parameters of their own, in a namespace of its own."""
    parameters = ["-p", f"checkpoint:={checkpoint}", "-p", "device:=cpu", "-p", "ego_motion_timeout:=0.5"]
    with Process(tmp_path_factory.mktemp("shared"), NODE, "--ros-args", "-r", "__ns:=/shared", *parameters) as node:
        node.wait_for("ready: ")
        yield node


@pytest.fixture
def shared_peer(shared_node):
    with Peer(namespace="shared") as peer:
        peer.connect()
        yield peer


@pytest.fixture
def now() -> int:
    """A stamp in ns, far after all those of the tests before."""
    return next(HOURS) * 3600 * SECOND


def test_the_start_says_what_it_takes_its_time_for(shared_node):
    assert 0 < shared_node.log.index("preparing the student; the first time") < shared_node.log.index("ready: ")


def test_every_pair_of_clouds_gives_one_flow_with_the_rows_of_the_newest(shared_peer, now):
    peer, before = shared_peer, shared_peer.counts()
    sent = [cloud(street(4000 + k, seed=k), now + k * STEP, "base_link") for k in range(6)]
    for k, message in enumerate(sent):
        peer.send(message, odometry(now + k * STEP, x=0.5 * k))
    peer.wait(lambda: len(peer.flows) >= 5, "five flows")
    assert len(peer.flows) == 5
    for source, flow in zip(sent[1:], peer.flows, strict=True):
        assert flow.header == source.header
        assert flow.width * flow.height == source.width
        assert len(flow.data) == flow.width * flow.point_step
        assert [field.name for field in flow.fields] == "x y z intensity vx vy vz speed rgb status".split()
        xyz = np.frombuffer(flow.data, np.uint8).reshape(-1, flow.point_step)[:, :12]
        assert xyz.tobytes() == bytes(source.data)
    counts = peer.counts()
    assert _since(before, counts, "clouds_received", "flows_published") == [6, 5]
    assert all(float(counts[f"total_{name}_ms"]) > 0 for name in ("p50", "p99"))
    assert (counts["device"], counts["checkpoint"]) == ("cpu", "random")


def _since(before: dict[str, str], counts: dict[str, str], *names: str) -> list[int]:
    return [int(counts[name]) - int(before[name]) for name in names]


def test_previous_answers_for_the_cloud_before(start_node, peer):
    start_node(flow_target="previous", ego_motion="none")
    peer.connect(clouds_only=True)
    sent = [cloud(street(3000 + k, seed=k), SECOND + k * STEP) for k in range(3)]
    for message in sent:
        peer.send(message)
    peer.wait(lambda: len(peer.flows) >= 2, "two flows")
    assert [flow.header for flow in peer.flows] == [message.header for message in sent[:2]]
    assert [flow.width for flow in peer.flows] == [3000, 3001]


def _cut(now: int):
    message = cloud(street(), now)
    message.data = message.data[:-1]
    return message


def _without_z(now: int):
    message = cloud(street(), now)
    message.fields = message.fields[:2]
    return message


def _mad_steps(now: int):
    message = cloud(street(), now)
    message.point_step, message.row_step = 0, 4_000_000_000
    return message


def _huge(now: int):
    points = street()
    points[::7] = 1e30
    points[::11] = -1e30
    points[::13] = np.inf
    return cloud(points, now)


def _big_endian(now: int):
    points = street()
    message = cloud(points, now)
    message.is_bigendian = True
    message.data = cloud(points.byteswap(), now).data
    return message


def _organised(now: int):
    message = cloud(street(), now)
    message.height, message.width, message.row_step = 4, message.width // 4, message.row_step // 4
    return message


# Clouds that are answered by a flow, and clouds that are counted and dropped.
ODD = {
    "big endian": _big_endian,
    "organised": _organised,
    "1e30 and inf": _huge,
    "one point": lambda now: cloud(street(1), now),
    "mostly NaN": lambda now: cloud(np.where(np.arange(4000)[:, None] % 9, np.nan, street()), now),
}
BAD = {
    "cut": (_cut, "malformed"),
    "without z": (_without_z, "malformed"),
    "mad steps": (_mad_steps, "malformed"),
    "stamp twice": (lambda now: cloud(street(), now - STEP), "duplicate_stamp"),
    "frame of another": (lambda now: cloud(street(), now, "elsewhere"), "frame_changed"),
    "a second late": (lambda now: cloud(street(), now + SECOND), "gap"),
}


def test_odd_clouds_are_answered_bad_ones_counted_and_good_ones_served_again(shared_node, shared_peer, now):
    peer = shared_peer
    expected = dict.fromkeys({problem for _, problem in BAD.values()}, 0)

    def series() -> None:
        """Two good clouds, far from what was before; the second is answered."""
        nonlocal now
        now += 5 * SECOND
        for k in range(2):
            now += STEP
            peer.odom_out.publish(odometry(now))
            peer.odom_out.publish(odometry(now + STEP))
            peer.odom_out.publish(odometry(now + SECOND + STEP))
            peer.send(cloud(street(seed=k), now))

    for make in ODD.values():
        series()
        peer.flows.clear()
        message = make(now + STEP)
        peer.send(message)
        peer.wait(lambda: peer.flows, "a flow")
        assert peer.flows[-1].width * peer.flows[-1].height == message.width * message.height
        now += STEP
    before = peer.counts()
    for make, problem in BAD.values():
        series()
        expected[problem] += 1
        peer.send(make(now + STEP))
        now += SECOND + STEP
    peer.flows.clear()
    series()
    peer.wait(lambda: peer.flows, "a flow after all that")
    counts = peer.counts()
    found = dict(zip(expected, _since(before, counts, *expected), strict=True))
    # Every series begins more than max_gap after the one before.
    expected["gap"] += len(BAD) + 1
    assert found == expected
    assert counts["internal_error"] == "0", shared_node.log
    assert "Traceback" not in shared_node.log


def test_empty_clouds_and_clouds_of_nan_get_a_flow_of_as_many_rows(shared_peer, now):
    peer, before = shared_peer, shared_peer.counts()
    for k, points in enumerate([street(), street()[:0], np.full((9, 3), np.nan, np.float32), street(3000)]):
        peer.send(cloud(points, now + k * STEP), odometry(now + k * STEP))
    peer.wait(lambda: len(peer.flows) >= 3, "three flows")
    assert [flow.width * flow.height for flow in peer.flows] == [0, 9, 3000]
    assert _since(before, peer.counts(), "no_points") == [2]


def test_a_clock_that_jumps_back_starts_a_new_series(shared_peer, now):
    peer, before = shared_peer, shared_peer.counts()
    for begin in (now + 500 * SECOND, now + 20 * SECOND):
        for k in range(3):
            peer.send(cloud(street(seed=k), begin + k * STEP), odometry(begin + k * STEP))
    peer.wait(lambda: len(peer.flows) >= 4, "four flows")
    assert [(nanoseconds(flow.header.stamp) - now) // STEP for flow in peer.flows] == [5001, 5002, 201, 202]
    assert _since(before, peer.counts(), "time_jump") == [1]


def test_clouds_wait_for_their_odometry_and_do_without_flow_when_it_fails(shared_node, shared_peer, now):
    peer, before = shared_peer, shared_peer.counts()
    peer.send(cloud(street(), now), odometry(now))
    peer.cloud_out.publish(cloud(street(), now + STEP))
    peer.odom_out.publish(odometry(now + STEP))  # after its cloud
    peer.wait(lambda: len(peer.flows) == 1, "the flow of a cloud that was ahead of its odometry")
    broken = odometry(now + 3 * STEP, x=math.nan)
    peer.send(cloud(street(), now + 3 * STEP), broken)
    assert _since(before, peer.counts(), "bad_odometry", "no_ego_motion") == [1, 1]
    assert "has no ego motion" in shared_node.log
    peer.send(cloud(street(), now + 4 * STEP), odometry(now + 4 * STEP))
    peer.wait(lambda: len(peer.flows) == 2, "flow again, now that there is odometry again")


def test_big_best_effort_clouds_arrive(start_node):
    """1.8 MB in 150,000 points: with Fast DDS's defaults not one of them would."""
    start_node(ground="none")
    peer = Peer(clouds_reliable=False)
    try:
        peer.connect()
        for k in range(4):
            peer.send(cloud(street(150_000, seed=k), SECOND + k * STEP), odometry(SECOND + k * STEP))
        peer.wait(lambda: len(peer.flows) == 3, "three flows")
        assert peer.counts()["lost_in_transport"] == "0"
    finally:
        peer.close()


def test_who_subscribes_to_markers_gets_them_with_the_stamp_of_the_cloud(shared_peer, now):
    peer = shared_peer
    for k in itertools.count():  # open3d may still be loading during the first ones
        peer.send(cloud(street(), now + k * STEP), odometry(now + k * STEP))
        if peer.markers:
            break
    for marker in peer.markers[0].markers:  # of a student that has learned nothing there may be none
        assert marker.header.frame_id == "base_link" and nanoseconds(marker.header.stamp) - now <= k * STEP


def test_without_open3d_there_is_flow_but_no_marker(tmp_path, checkpoint, peer):
    (tmp_path / "open3d.py").write_text("raise ImportError('libusb-1.0.so.0: no such file')")
    arguments = ("--ros-args", "-p", f"checkpoint:={checkpoint}", "-p", "device:=cpu")
    node = Process(tmp_path, NODE, *arguments, PYTHONPATH=f"{tmp_path}:{Path(__file__).parents[2]}")
    try:
        node.wait_for("ready: ")
        peer.connect()
        for k in range(3):
            peer.send(cloud(street(), SECOND + k * STEP), odometry(SECOND + k * STEP))
        peer.wait(lambda: len(peer.flows) == 2, "two flows")
        assert node.log.count("no markers, as open3d cannot be imported (libusb-1.0.so.0") == 1
        assert peer.markers == []
    finally:
        node.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_node_in_good_order(start_node, peer, number):
    node = start_node()
    peer.connect()
    peer.send(cloud(street(), SECOND), odometry(SECOND))
    peer.cloud_out.publish(cloud(street(200_000), SECOND + STEP))  # in the middle of its work
    node.signal(number)
    node.signal(number)  # ros2 launch and a terminal together send two
    assert node.wait() == 0
    assert "Traceback" not in node.log and "rror" not in node.log


def test_a_signal_during_the_start_ends_the_node_in_good_order(start_node):
    node = start_node(ready="")
    while node.running and "torch" not in Path(f"/proc/{node.pid}/maps").read_text():
        pass
    node.signal(signal.SIGINT)
    assert node.wait() == 0
    assert "Traceback" not in node.log


@pytest.mark.parametrize(
    "parameters, complaint",
    [
        ({"checkpoint": "/nowhere/weights.ckpt"}, "/nowhere/weights.ckpt: no such file"),
        ({"device": "abacus"}, "device 'abacus' is unknown"),
        ({"ego_motion": "gps"}, "parameter ego_motion is 'gps', but must be one of: auto, odom, tf, kiss_icp, none"),
    ],
)
def test_a_node_that_cannot_start_says_why_in_one_sentence(start_node, parameters, complaint):
    node = start_node(ready="", **parameters)
    assert node.wait() == 1
    assert complaint in node.log and "Traceback" not in node.log
