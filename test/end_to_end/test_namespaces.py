"""Two nodes in one domain, each with its own namespace or its own topics: neither hears the other."""

from __future__ import annotations

import time
from contextlib import ExitStack

import pytest

pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")

from processes import SECOND, STEP, Caller, Peer, Process, cloud, odometry, street, tiny_checkpoint

NODE = "zeroflow_ros.flow_node"
# One with everything in its namespace, one whose input comes from elsewhere.
LEFT = ("-r", "__ns:=/left")
RIGHT = ("-r", "__ns:=/right", "-r", "points:=/lidars/right/points", "-r", "odom:=/odometry/right")


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nodes")
    checkpoint = tiny_checkpoint(folder / "tiny.safetensors")
    parameters = ("-p", f"checkpoint:={checkpoint}", "-p", "device:=cpu")
    with ExitStack() as started:
        both = [
            started.enter_context(Process(folder, NODE, "--ros-args", *names, *parameters)) for names in (LEFT, RIGHT)
        ]
        for node in both:
            node.wait_for("ready: ")
        yield both


@pytest.fixture
def peers(nodes):
    away = {"cloud_topic": "/lidars/right/points", "odom_topic": "/odometry/right"}
    with Peer(namespace="left") as left, Peer(namespace="right", **away) as right:
        for peer in (left, right):
            peer.connect()
        yield left, right


def test_each_answers_to_its_own_clouds_alone(nodes, peers):
    for number, (peer, other) in enumerate([peers, peers[::-1]], start=1):
        heard, before = len(other.flows), other.counts()["clouds_received"]
        now = number * 1000 * SECOND
        for k in range(3):
            peer.send(cloud(street(2000 + number, seed=k), now + k * STEP), odometry(now + k * STEP))
        peer.wait(lambda: len(peer.flows) >= 2, "two flows")  # noqa: B023
        assert [flow.width for flow in peer.flows[-2:]] == [2000 + number] * 2
        assert other.counts()["clouds_received"] == before
        assert len(other.flows) == heard
        assert peer.counts()["clouds_received"] == "3"
    for node in nodes:
        assert "Traceback" not in node.log


def test_each_has_parameters_of_its_own(nodes):
    caller = Caller()
    try:
        before = caller.parameter("min_speed", "/right/flow_node").double_value
        caller.set_number("min_speed", before + 1.0, "/left/flow_node")
        assert caller.parameter("min_speed", "/left/flow_node").double_value == before + 1.0
        assert caller.parameter("min_speed", "/right/flow_node").double_value == before
    finally:
        caller.close()


def test_odometry_under_another_name_is_waited_for_from_the_first_cloud_on(tmp_path):
    words = ("-r", "__ns:=/third", "-r", "odom:=/odometry/third", "-p", "ego_motion_timeout:=5.0")
    checkpoint = tiny_checkpoint(tmp_path / "tiny.safetensors")
    node = Process(tmp_path, NODE, "--ros-args", *words, "-p", f"checkpoint:={checkpoint}", "-p", "device:=cpu")
    peer = Peer(namespace="third", odom_topic="/odometry/third")
    try:
        node.wait_for("ready: ")
        peer.connect()
        peer.cloud_out.publish(cloud(street(), SECOND))
        time.sleep(0.5)  # for a node that waits for nothing to go on without
        peer.odom_out.publish(odometry(SECOND))
        peer.wait(lambda: SECOND in peer.processed, "the answer to the cloud")
        counts = peer.counts()
        assert (counts["ego_motion"], counts["ego_motion_switched"]) == ("odom", "0"), node.log
    finally:
        peer.close()
        node.kill()
