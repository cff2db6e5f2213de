"""A real drive of which nothing but its clouds is known, over real DDS, through a node that is told nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")
pytest.importorskip("kiss_icp", reason="kiss-icp is not installed")

from processes import Peer, Process, tiny_checkpoint

from zeroflow_core.datasets.av2 import Log, find_logs
from zeroflow_core.datasets.bags import Bag, write_bag
from zeroflow_ros.live.health import Problem

NODE, REPLAY = "zeroflow_ros.flow_node", "zeroflow_ros.replay_node"
SWEEPS = 78
RAISED = np.float32([0.0, 0.0, 1.4])  # metres, by which the log's points are higher than the scanner gave them


@pytest.fixture
def peer():
    with Peer(cloud_topic="unused", odom_topic="unused_odom") as peer:
        yield peer


def test_a_real_drive_without_odometry_and_tf_becomes_flow(tmp_path: Path, peer, test_data):
    log = Log(next(path for path in find_logs(test_data / "kitti") if len(Log(path)) == SWEEPS))
    as_scanned = (replace(sweep, points=sweep.points - RAISED) for sweep in log.sweeps())
    write_bag(tmp_path / "clouds", as_scanned, {}, odom=False, tf=False)
    with Bag(tmp_path / "clouds") as bag:
        assert [topic for topic in bag.topics] == ["/lidar/points"]
    # The student that comes along is the only thing that is exchanged: it takes too long on a processor.
    checkpoint = tiny_checkpoint(tmp_path / "tiny.safetensors")
    node = Process(tmp_path, NODE, "--ros-args", "-r", "points:=/lidar/points", "-p", f"checkpoint:={checkpoint}")
    replay = None
    try:
        node.wait_for("ready: ")
        replay = Process(tmp_path, REPLAY, tmp_path / "clouds", "--lockstep", "--rate", 0)
        assert replay.wait() == 0, replay.log
        peer.wait(lambda: len(peer.flows) == SWEEPS - 1, f"{SWEEPS - 1} flows")
        counts = peer.counts()
        assert (counts["ego_motion"], counts["clouds_received"]) == ("kiss_icp", str(SWEEPS)), node.log
        assert float(counts["z_offset"].split()[0]) == pytest.approx(RAISED[2], abs=0.1)
        assert [name for name in Problem if counts[name.value] != "0"] == [], node.log
        assert np.diff([flow.header.stamp.sec + 1e-9 * flow.header.stamp.nanosec for flow in peer.flows]).min() > 0
    finally:
        for process in filter(None, (replay, node)):
            process.kill()
