"""What the flow node makes of a cloud message, and the message it answers with."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")

from ros_messages import SECOND, cloud, rows

from zeroflow_core.datasets.point_cloud2 import decode
from zeroflow_core.geometry import SE3
from zeroflow_ros.clouds import flow_message, nanoseconds, to_sweep

POINTS = np.array([[1, 2, 3], [np.nan, 0, 0], [7, 8, 9], [4, 5, 6]], dtype=np.float32)
VELOCITY = np.array([[3, 4, 0], [np.nan, np.nan, np.nan], [0, 0, 0], [0, -2, 0]], dtype=np.float32)
STATUS = np.array([0, 3, 1, 0], dtype=np.uint8)


def test_flow_has_a_row_for_each_point_in_the_same_order():
    source = cloud(POINTS, 12 * SECOND + 345, "lidar", intensity=np.array([10, 20, 30, 40]))
    message = flow_message(source, decode(source), VELOCITY, STATUS)
    assert message.header == source.header
    assert (message.height, message.width, message.row_step) == (1, 4, 4 * message.point_step)
    assert len(message.data) == message.height * message.row_step
    got = rows(message)
    assert got.dtype.names == ("x", "y", "z", "intensity", "vx", "vy", "vz", "speed", "status")
    np.testing.assert_array_equal(np.column_stack([got["x"], got["y"], got["z"]]), POINTS)
    np.testing.assert_array_equal(np.column_stack([got["vx"], got["vy"], got["vz"]]), VELOCITY)
    np.testing.assert_array_equal(got["speed"], np.array([5, np.nan, 0, 2], np.float32))
    np.testing.assert_array_equal(got["intensity"], np.array([10, 20, 30, 40], np.float32))
    np.testing.assert_array_equal(got["status"], STATUS)
    assert not message.is_dense


def test_flow_keeps_the_organisation_of_the_cloud():
    source = cloud(POINTS, 0)
    source.height, source.width, source.row_step = 2, 2, 24
    message = flow_message(source, decode(source), VELOCITY, STATUS)
    assert (message.height, message.width, message.row_step) == (2, 2, 2 * message.point_step)
    np.testing.assert_array_equal(rows(message)["x"], POINTS[:, 0])


def test_flow_of_a_cloud_without_intensity_has_zeros_there():
    source = cloud(POINTS[2:], 0)
    message = flow_message(source, decode(source), VELOCITY[2:], STATUS[2:])
    np.testing.assert_array_equal(rows(message)["intensity"], [0, 0])
    assert message.is_dense


def test_flow_of_an_empty_cloud_is_empty():
    source = cloud(np.empty((0, 3), np.float32), 0)
    message = flow_message(source, decode(source), np.empty((0, 3), np.float32), np.empty(0, np.uint8))
    assert message.width * message.height == 0 and len(message.data) == 0
    assert [field.name for field in message.fields][-1] == "status"


def test_points_in_the_vehicle_frame_stay_bit_for_bit():
    points = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    sweep = to_sweep(decode(cloud(points, 5)), 5, SE3.identity(), SE3.identity())
    np.testing.assert_array_equal(sweep.points, points)
    assert sweep.stamp_ns == 5


def test_points_of_a_mounted_sensor_come_into_the_vehicle_frame():
    vehicle_SE3_cloud = SE3.from_yaw(math.pi / 2, np.array([1.0, 0.0, 2.0]))
    sweep = to_sweep(decode(cloud(np.array([[3, 0, 0]]), 0)), 0, SE3.identity(), vehicle_SE3_cloud)
    assert sweep.points[0] == pytest.approx([1, 3, 2], abs=1e-6)


def test_stamps_are_exact_nanoseconds():
    assert nanoseconds(cloud(POINTS, 1_700_000_000_123_456_789).header.stamp) == 1_700_000_000_123_456_789
