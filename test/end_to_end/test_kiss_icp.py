"""A recording that holds clouds and nothing else, over real DDS: the flow node finds the vehicle's motion in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")
pytest.importorskip("kiss_icp", reason="kiss-icp is not installed")

from processes import Peer, Process, tiny_checkpoint

from zeroflow_core.datasets.av2 import Log, find_logs
from zeroflow_core.datasets.bags import Bag, write_bag

NODE, REPLAY = "zeroflow_ros.flow_node", "zeroflow_ros.replay_node"


@pytest.fixture
def peer():
    peer = Peer(cloud_topic="unused", odom_topic="unused_odom")
    yield peer
    peer.close()


def test_a_real_drive_without_odometry_and_tf_becomes_flow(tmp_path: Path, peer, test_data):
    log = Log(next(path for path in find_logs(test_data / "kitti") if len(Log(path)) == 22))
    write_bag(tmp_path / "clouds", log.sweeps(), {}, odom=False, tf=False)
    with Bag(tmp_path / "clouds") as bag:
        assert [topic for topic in bag.topics] == ["/lidar/points"]
    checkpoint = tiny_checkpoint(tmp_path / "tiny.safetensors")
    parameters = [f"checkpoint:={checkpoint}", "device:=cpu", "ego_motion:=kiss_icp"]
    words = [word for parameter in parameters for word in ("-p", parameter)]
    node = Process(tmp_path, NODE, "--ros-args", "-r", "points:=/lidar/points", *words)
    replay = None
    try:
        node.wait_for("ready: ")
        replay = Process(tmp_path, REPLAY, tmp_path / "clouds", "--lockstep", "--rate", 0)
        assert replay.wait() == 0, replay.log
        peer.wait(lambda: len(peer.flows) == 21, "21 flows")
        counts = peer.counts()
        assert (counts["ego_motion"], counts["clouds_received"]) == ("kiss_icp", "22"), node.log
        assert all(counts[name] == "0" for name in ("no_ego_motion", "ego_motion_jump", "internal_error")), node.log
        assert np.diff([flow.header.stamp.sec + 1e-9 * flow.header.stamp.nanosec for flow in peer.flows]).min() > 0
    finally:
        for process in filter(None, (replay, node)):
            process.kill()
