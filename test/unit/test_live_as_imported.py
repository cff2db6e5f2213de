"""The live node sees what the student was trained on: the same messages through the import of bags and through the
node's pipeline."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")
pytest.importorskip("pypatchworkpp", reason="Patchwork++ is not installed")

from bag_cases import STORE
from drive_cases import MOUNT, Drive, message_of
from nav_msgs.msg import Odometry
from rclpy.serialization import deserialize_message
from ros_messages import Log as Lines
from ros_messages import ego_motion, transform
from sensor_msgs.msg import PointCloud2

from zeroflow_core.datasets.recording import Recording, import_bag, read_recording
from zeroflow_core.distillation.pairs import LogPairs
from zeroflow_core.ground import Patchwork
from zeroflow_core.pairs import FramePair, Status
from zeroflow_ros.live.health import Health
from zeroflow_ros.live.pipeline import Pipeline, Velocities
from zeroflow_ros.parameters.declared import Settings

DRIVE = Drive()
EVERY = 11  # of so many rows one is no return


def _clouds() -> list:
    """Clouds in which some rows are all zeros, and some not finite."""
    messages = []
    for k in range(len(DRIVE.stamps)):
        points = DRIVE.cloud(k)[0].copy()
        points[::EVERY] = 0.0
        points[1 :: 2 * EVERY] = np.nan
        columns = {name: points[:, axis] for axis, name in enumerate("xyz")}
        messages.append(("/points", message_of(columns, DRIVE.stamp_ns(k)), DRIVE.stamp_ns(k)))
    return messages


class Still:
    """A student for which nothing moves."""

    metadata: dict = {}

    def flow(self, pc0: np.ndarray, pc1: np.ndarray) -> np.ndarray:
        return np.zeros_like(pc0)


def _live(messages: list, recording: Recording) -> tuple[list[FramePair], list[Velocities]]:
    """The pairs that the node makes of the messages, and what it says of them."""
    mode = {"odometry": "odom", "kiss_icp": "kiss_icp"}[recording.ego_motion]
    ego = ego_motion(mode, base_frame=recording.vehicle_frame)
    settings = replace(Settings(), ego_motion=mode, z_offset=recording.z_offset, flow_target="previous")
    pipeline = Pipeline(Still(), Patchwork(), lambda: settings, ego, Health(Lines()))
    pairs, estimate = [], pipeline._estimate_flow
    pipeline._estimate_flow = lambda pair: (pairs.append(pair), estimate(pair))[1]
    ego.add_transforms([transform("base_link", "velodyne", MOUNT.translation, MOUNT.quaternion)], static=True)
    kinds = {"/points": PointCloud2, "/odom": Odometry}
    live = [
        (topic, deserialize_message(bytes(STORE.serialize_cdr(message, message.__msgtype__)), kinds[topic]))
        for topic, message, _ in messages
        if topic in kinds
    ]
    for topic, message in live:
        if topic == "/odom":
            ego.add_odometry(message)
    answers = [pipeline.feed(message) for topic, message in live if topic == "/points"]
    return pairs, [answer for answer in answers if answer is not None]


@pytest.mark.parametrize("ego_motion", ["odometry", "kiss_icp"])
def test_the_node_sees_what_the_import_writes(tmp_path: Path, ego_motion: str):
    pytest.importorskip("kiss_icp", reason="kiss-icp is not installed")
    messages = [*_clouds(), *DRIVE.mounting(), *(DRIVE.odometry() if ego_motion == "odometry" else [])]
    (log,) = import_bag(DRIVE.record(tmp_path / "bag", messages), tmp_path / "logs", ego_motion=ego_motion)
    live, answers = _live(messages, read_recording(log))
    stored = LogPairs(log, "patchwork")
    assert len(live) == len(DRIVE.stamps) - 1
    for i, (now, answer) in enumerate(zip(live, answers, strict=True)):
        then = stored.pair(i)
        seen0, seen1 = (np.isfinite(cloud).all(axis=1) for cloud in (now.pc0, now.pc1))
        np.testing.assert_array_equal(now.pc0[seen0], then.pc0)
        np.testing.assert_allclose(now.pc1[seen1], then.pc1, rtol=0, atol=1e-5)
        np.testing.assert_allclose(now.ego0_SE3_ego1.matrix, then.ego0_SE3_ego1.matrix, rtol=0, atol=1e-8)
        assert now.is_ground0.any() and not now.is_ground0[~seen0].any()
        np.testing.assert_array_equal(now.is_ground0[seen0], then.is_ground0)
        np.testing.assert_array_equal(now.is_ground1[seen1], then.is_ground1)
        assert (answer.status[~seen0] == Status.NOT_FINITE).all() and np.isnan(answer.velocity[~seen0]).all()
        assert (answer.status[seen0] != Status.NOT_FINITE).all() and (~seen0).sum() > len(seen0) // EVERY
