"""Where the vehicle was: from odometry and TF that come early, late, broken or not at all."""

from __future__ import annotations

import math
import threading
import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")

from ros_messages import SECOND, odometry, transform

from zeroflow_core.geometry import SE3
from zeroflow_ros.ego_motion import EgoMotion, NoPose, PoseHistory, PoseTooNew


def _pose(x: float) -> SE3:
    return SE3(np.eye(3), np.array([x, 0.0, 0.0]))


def _history(*stamps_ms: int) -> PoseHistory:
    """A vehicle that drives at 10 m/s along x."""
    history = PoseHistory()
    for stamp in stamps_ms:
        history.add(stamp * 1_000_000, _pose(stamp / 100))
    return history


def test_poses_are_interpolated_at_the_stamp():
    assert _history(0, 100).at(25_000_000).translation == pytest.approx([0.25, 0, 0])
    assert _history(0, 100).at(100_000_000).translation == pytest.approx([1, 0, 0])


def test_messages_that_overtook_each_other_are_put_in_order():
    assert _history(0, 200, 100).at(150_000_000).translation == pytest.approx([1.5, 0, 0])


def test_a_stamp_sent_twice_counts_once():
    history = _history(0, 100)
    history.add(100_000_000, _pose(7.0))
    assert len(history) == 2
    assert history.at(100_000_000).translation == pytest.approx([7, 0, 0])


def test_extrapolation_is_short_and_only_on_request():
    history = _history(0, 50, 100)
    assert history.at(150_000_000, extrapolate=True).translation == pytest.approx([1.5, 0, 0])
    with pytest.raises(PoseTooNew):
        history.at(150_000_000)
    with pytest.raises(PoseTooNew):
        history.at(201_000_000, extrapolate=True)
    with pytest.raises(PoseTooNew):
        _history(100).at(150_000_000, extrapolate=True)


def test_extrapolation_leans_on_more_than_one_short_step():
    history = _history(0, 100)
    history.add(100_000_001, _pose(1.001))  # 1 ns later and 1 mm further: the last step alone means 1e6 m/s
    assert history.at(150_000_000, extrapolate=True).translation == pytest.approx([1.5, 0, 0], abs=0.01)


def test_before_the_oldest_and_inside_a_gap_there_is_no_pose():
    with pytest.raises(NoPose):
        _history(100, 200).at(50_000_000)
    with pytest.raises(NoPose, match="gap"):
        _history(0, 1500).at(700_000_000)


def test_a_clock_that_jumps_back_starts_anew():
    history = _history(10_000, 10_100)
    history.add(0, _pose(0.0))
    assert len(history) == 1
    assert history.at(0).translation == pytest.approx([0, 0, 0])


def test_ten_seconds_are_kept():
    history = _history(*range(0, 30_000, 100))
    assert len(history) == 101


def _ego(mode: str = "auto", timeout: float = 0.0, published: bool = True, tf_possible: bool = True):
    bad, warned = [], []
    ego = EgoMotion(
        mode,
        timeout=timeout,
        odom_frame="odom",
        base_frame="base_link",
        odom_published=lambda: published,
        on_bad=bad.append,
        warn_once=warned.append,
        tf_possible=tf_possible,
    )
    return ego, bad, warned


def test_odometry_gives_the_pose_in_its_child_frame():
    ego, _, warned = _ego()
    ego.add_odometry(odometry(0, 0.0, child="vehicle"))
    ego.add_odometry(odometry(SECOND // 10, 1.0, child="vehicle"))
    place = ego.locate(SECOND // 20, "vehicle")
    assert place.world_SE3_vehicle.translation == pytest.approx([0.5, 0, 0])
    np.testing.assert_array_equal(place.vehicle_SE3_cloud.matrix, np.eye(4))
    assert warned == []


@pytest.mark.parametrize("x, w", [(math.nan, 1.0), (math.inf, 1.0), (0.0, 0.0), (0.0, math.nan)])
def test_odometry_that_is_no_pose_is_reported_and_ignored(x: float, w: float):
    ego, bad, _ = _ego()
    ego.add_odometry(odometry(0, 1.0))
    ego.add_odometry(odometry(10, x, w=w))
    ego.add_odometry(odometry(20, 3.0))
    assert len(bad) == 1
    assert ego.locate(10, "base_link").world_SE3_vehicle.translation == pytest.approx([2, 0, 0])


def test_a_cloud_waits_for_odometry_that_is_under_way():
    ego, _, _ = _ego(timeout=10.0)
    ego.add_odometry(odometry(0, 0.0))
    late = threading.Timer(0.1, ego.add_odometry, [odometry(SECOND, 5.0)])
    late.start()
    assert ego.locate(SECOND, "base_link").world_SE3_vehicle.translation == pytest.approx([5, 0, 0])
    late.join()


def test_a_cloud_waits_no_longer_than_the_timeout():
    ego, _, _ = _ego(timeout=0.05)
    ego.add_odometry(odometry(0, 0.0))
    with pytest.raises(NoPose, match="1.000 s older"):
        ego.locate(SECOND, "base_link")


def test_stopping_wakes_up_who_waits():
    ego, _, _ = _ego(mode="odom", timeout=60.0)
    threading.Timer(0.05, ego.stop).start()
    start = time.monotonic()
    with pytest.raises(NoPose):
        ego.locate(0, "base_link")
    assert time.monotonic() - start < 30


def test_auto_without_any_source_says_what_to_do_at_once():
    ego, _, _ = _ego(timeout=60.0, published=False)
    with pytest.raises(NoPose, match="ego_motion to kiss_icp .* or to none"):
        ego.locate(0, "base_link")


def test_none_is_a_vehicle_that_stands():
    ego, _, _ = _ego(mode="none")
    assert ego.locate(123, "base_link").world_SE3_vehicle.translation == pytest.approx([0, 0, 0])


@pytest.mark.parametrize("mode", ["tf", "auto"])
def test_transforms_give_the_pose(mode: str):
    ego, _, _ = _ego(mode=mode, published=False)
    ego.add_transforms([transform("odom", "base_link", (0, 0, 0), stamp_ns=SECOND)], static=False)
    ego.add_transforms([transform("odom", "base_link", (2, 0, 0), stamp_ns=2 * SECOND)], static=False)
    assert ego.locate(3 * SECOND // 2, "base_link").world_SE3_vehicle.translation == pytest.approx([1, 0, 0])
    with pytest.raises(NoPose):
        ego.locate(3 * SECOND, "base_link")


def test_transforms_survive_a_clock_that_jumps_back():
    ego, _, _ = _ego(mode="tf")
    ego.add_transforms([transform("odom", "base_link", (9, 0, 0), stamp_ns=90 * SECOND)], static=False)
    ego.add_transforms([transform("odom", "base_link", (1, 0, 0), stamp_ns=SECOND)], static=False)
    assert ego.locate(SECOND, "base_link").world_SE3_vehicle.translation == pytest.approx([1, 0, 0])


def test_the_mounting_of_the_sensor_comes_from_static_transforms():
    ego, _, warned = _ego()
    ego.add_odometry(odometry(0))
    ego.add_transforms([transform("base_link", "lidar", (1, 0, 2))], static=True)
    assert ego.locate(0, "lidar").vehicle_SE3_cloud.translation == pytest.approx([1, 0, 2])
    assert warned == []


@pytest.mark.parametrize("tf_possible", [True, False])
def test_an_unknown_mounting_is_taken_for_none_with_a_warning(tf_possible: bool):
    ego, _, warned = _ego(tf_possible=tf_possible)
    ego.add_odometry(odometry(0))
    np.testing.assert_array_equal(ego.locate(0, "lidar").vehicle_SE3_cloud.matrix, np.eye(4))
    ego.locate(0, "lidar")
    assert len(warned) == 1 and "'lidar'" in warned[0]
    assert ("tf2_msgs" in warned[0]) is not tf_possible


def test_a_mounting_that_becomes_known_is_used():
    ego, _, _ = _ego()
    ego.add_odometry(odometry(0))
    ego.locate(0, "lidar")
    ego.add_transforms([transform("base_link", "lidar", (1, 0, 2))], static=True)
    assert ego.locate(0, "lidar").vehicle_SE3_cloud.translation == pytest.approx([1, 0, 2])
