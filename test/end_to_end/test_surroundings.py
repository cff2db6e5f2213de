"""Map and path of a flow node, over real DDS: for whoever listens, and only then."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")

from nav_msgs.msg import Path
from processes import SECOND, STEP, Peer, cloud, nanoseconds, odometry, street
from sensor_msgs.msg import PointCloud2

WALL = np.stack([np.full(60, 12.05), np.arange(60) * 0.5 - 15, np.full(60, 1.05)], axis=1).astype(np.float32)


def test_who_listens_gets_what_stood_still_and_the_way_of_the_vehicle_in_the_newest_clouds_frame(start_node):
    node = start_node("-r", "__ns:=/around", min_speed=50.0, mounting="1 0 2 0 0 0")  # nothing is that fast
    peer = Peer(namespace="around")
    try:
        peer.connect()
        maps, paths = [], []
        peer.send(cloud(street(), SECOND, "lidar"), odometry(SECOND))
        assert peer.counts().get("map_p50_ms") is None
        hear = peer.node.create_subscription
        hear(PointCloud2, "flow_node/map", maps.append, 10)
        hear(Path, "flow_node/path", paths.append, 10)
        topics = ("flow_node/map", "flow_node/path")
        peer.wait(lambda: all(peer.node.count_publishers(topic) == 1 for topic in topics), "the publishers")
        peer.counts()  # which comes once a second: by then the node knows, too, who listens
        sent = []
        for k in range(1, 6):
            now = 10 * SECOND + k * STEP
            seen = np.concatenate([street(), WALL - np.float32([k, 0, 0])])  # of a vehicle that drives at 10 m/s
            sent.append(cloud(seen, now, "lidar"))
            peer.send(sent[-1], odometry(now, x=float(k)))
        peer.wait(lambda: len(maps) == 4 and len(paths) == 4, "maps and paths")
        assert [message.header for message in maps] == [message.header for message in sent[1:]]
        points = np.frombuffer(maps[-1].data, np.float32).reshape(-1, 3)
        assert maps[-1].point_step == 12 and len(points) == maps[-1].width
        wall = points[np.abs(points[:, 0] - (WALL[0, 0] - 5)) < 0.2]
        assert set(np.round(WALL[:, 1], 2)) <= set(np.round(wall[:, 1], 2))
        path = paths[-1]
        assert path.header == sent[-1].header
        assert [nanoseconds(pose.header.stamp) for pose in path.poses] == [10 * SECOND + k * STEP for k in (2, 3, 4, 5)]
        np.testing.assert_allclose([pose.pose.position.x for pose in path.poses], [-4, -3, -2, -1], atol=1e-6)
        assert all(pose.header.frame_id == "lidar" for pose in path.poses)
        assert float(peer.counts()["map_p50_ms"]) > 0
    finally:
        peer.close()
    assert "Traceback" not in node.log
