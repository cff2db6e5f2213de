"""What the flow node makes of a cloud message, and the message it answers with."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")

from ros_messages import SECOND, cloud, rows

from zeroflow_core.datasets.point_cloud2 import Cloud, decode
from zeroflow_core.geometry import SE3
from zeroflow_ros.messages.clouds import flow_message, nanoseconds, to_sweep
from zeroflow_ros.messages.colours import packed_colours
from zeroflow_ros.messages.fallback import plain_read_points
from zeroflow_ros.parameters.settings import OUTPUT_FIELDS, Settings

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
    assert got.dtype.names == ("x", "y", "z", "intensity", "vx", "vy", "vz", "speed", "rgb", "status")
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


def test_fields_come_in_the_order_in_which_they_are_chosen():
    source = cloud(POINTS, 0, times=np.array([0, 7, 8, 9]))
    ring = np.array([3, 2, 1, 65535], np.uint16)
    decoded = Cloud(decode(source).points, ring=ring, time_offset_ns=np.array([-5, 7, 8, 2**31 - 1], np.int32))
    message = flow_message(source, decoded, VELOCITY, STATUS, ("status", "ring", "speed", "t"))
    assert [(f.name, f.offset) for f in message.fields][3:] == [("status", 12), ("ring", 14), ("speed", 16), ("t", 20)]
    assert message.point_step == 24
    got = plain_read_points(message)
    np.testing.assert_array_equal(got["ring"], ring)
    np.testing.assert_array_equal(got["t"], decoded.time_offset_ns)
    np.testing.assert_array_equal(got["status"], STATUS)
    np.testing.assert_array_equal(got["speed"], np.array([5, np.nan, 0, 2], np.float32))


@pytest.mark.parametrize("seed", range(20))
def test_every_choice_of_fields_gives_aligned_rows_that_read_back(seed: int):
    rng = np.random.default_rng(seed)
    fields = tuple(str(name) for name in rng.permutation(OUTPUT_FIELDS)[: rng.integers(0, len(OUTPUT_FIELDS) + 1)])
    source = cloud(POINTS, 0, intensity=np.array([10, 20, 30, 40]))
    message = flow_message(source, decode(source), VELOCITY, STATUS, fields)
    assert tuple(field.name for field in message.fields) == ("x", "y", "z", *fields)
    assert message.point_step % 4 == 0 and len(message.data) == 4 * message.point_step
    got = plain_read_points(message)
    for field in message.fields:
        assert field.count == 1 and field.offset % got[field.name].dtype.itemsize == 0
    expected = {"vx": VELOCITY[:, 0], "vy": VELOCITY[:, 1], "vz": VELOCITY[:, 2], "status": STATUS}
    expected |= {"intensity": [10, 20, 30, 40], "ring": [0] * 4, "t": [0] * 4, "speed": np.float32([5, np.nan, 0, 2])}
    colours = packed_colours(VELOCITY, np.float32([5, np.nan, 0, 2]), STATUS, min_speed=0.5)
    expected["rgb"] = colours.view(np.uint32)
    for name in fields:
        np.testing.assert_array_equal(got[name].view(np.uint32) if name == "rgb" else got[name], expected[name])
    np.testing.assert_array_equal(decode(message).points, POINTS)


def test_the_layout_does_not_depend_on_what_the_cloud_has():
    rich, poor = cloud(POINTS, 0, intensity=np.ones(4), times=np.ones(4)), cloud(POINTS, 0)
    answers = [flow_message(source, decode(source), VELOCITY, STATUS, OUTPUT_FIELDS) for source in (rich, poor)]
    assert answers[0].fields == answers[1].fields and answers[0].point_step == answers[1].point_step


def test_the_usual_fields_are_the_default_of_the_parameter():
    source = cloud(POINTS, 0)
    usual = flow_message(source, decode(source), VELOCITY, STATUS)
    chosen = flow_message(source, decode(source), VELOCITY, STATUS, Settings().output_fields)
    assert usual == chosen


def test_colours_are_by_the_heading_in_the_vehicle_frame_and_from_the_speed_that_counts_as_moving():
    source = cloud(POINTS, 0)

    def colours_of(**more) -> np.ndarray:
        return plain_read_points(flow_message(source, decode(source), VELOCITY, STATUS, ("rgb",), **more))["rgb"]

    turned = VELOCITY @ np.float32([[0, 1, 0], [-1, 0, 0], [0, 0, 1]])
    usual, from_vehicle = colours_of(), colours_of(velocity_in_vehicle=turned)
    speed = np.float32([5, np.nan, 0, 2])
    np.testing.assert_array_equal(from_vehicle, packed_colours(turned, speed, STATUS, 0.5))
    assert usual[0] != from_vehicle[0] and usual[2] == from_vehicle[2]
    slow = colours_of(min_speed=3.0)
    assert slow[0] == usual[0] and slow[3] != usual[3]


def test_speeds_beyond_all_bounds_are_no_warning(recwarn):
    source = cloud(POINTS, 0)
    velocity = np.full((4, 3), 3e38, np.float32)
    got = plain_read_points(flow_message(source, decode(source), velocity, STATUS))
    assert np.isinf(got["speed"]).all() and not recwarn.list


def test_flow_of_an_empty_cloud_is_empty():
    source = cloud(np.empty((0, 3), np.float32), 0)
    message = flow_message(source, decode(source), np.empty((0, 3), np.float32), np.empty(0, np.uint8))
    assert message.width * message.height == 0 and len(message.data) == 0
    assert [field.name for field in message.fields][-1] == "status"
    assert len(decode(message)) == 0 and message.is_dense


def test_points_in_the_vehicle_frame_stay_bit_for_bit():
    points = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    sweep = to_sweep(decode(cloud(points, 5)), 5, SE3.identity(), SE3.identity())
    np.testing.assert_array_equal(sweep.points, points)
    assert sweep.stamp_ns == 5


def test_points_of_a_mounted_sensor_come_into_the_vehicle_frame():
    vehicle_SE3_cloud = SE3.from_yaw(math.pi / 2, np.array([1.0, 0.0, 2.0]))
    sweep = to_sweep(decode(cloud(np.array([[3, 0, 0]]), 0)), 0, SE3.identity(), vehicle_SE3_cloud)
    assert sweep.points[0] == pytest.approx([1, 3, 2], abs=1e-6)


@pytest.mark.parametrize("vehicle_SE3_cloud", [SE3.identity(), SE3.from_yaw(0.5, np.array([1.0, 2.0, 3.0]))])
@pytest.mark.parametrize("intensity", [None, np.zeros(5)])
def test_what_is_no_return_is_nan_and_the_message_stays_as_it_was(vehicle_SE3_cloud: SE3, intensity):
    points = np.float32([[1, 2, 3], [0, 0, 0], [np.inf, 1, 1], [np.nan, 0, 0], [0, 0, 1e-3]])
    message = cloud(points, 0, intensity=intensity)
    before = bytes(message.data)
    sweep = to_sweep(decode(message), 0, SE3.identity(), vehicle_SE3_cloud)
    np.testing.assert_array_equal(np.isnan(sweep.points).all(axis=1), [False, True, True, True, False])
    np.testing.assert_allclose(sweep.points[[0, 4]], vehicle_SE3_cloud.transform(points[[0, 4]]))
    assert sweep.points.flags.c_contiguous and bytes(message.data) == before


def test_stamps_are_exact_nanoseconds():
    assert nanoseconds(cloud(POINTS, 1_700_000_000_123_456_789).header.stamp) == 1_700_000_000_123_456_789
