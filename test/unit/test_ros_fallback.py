"""The stand-ins for sensor_msgs_py and tf2_ros, held against the real ones where these are installed."""

from __future__ import annotations

import array
import math

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")

from rclpy.time import Time
from ros_messages import SECOND, transform
from sensor_msgs.msg import PointCloud2, PointField

from zeroflow_ros.messages import fallback

QUARTER_TURN = (math.sqrt(0.5), 0.0, 0.0, math.sqrt(0.5))  # about z


@pytest.fixture(params=["plain", "sensor_msgs_py"])
def read_points(request):
    """The plain one and the real one must pass the same tests."""
    if request.param == "plain":
        return fallback.plain_read_points
    reason = "sensor_msgs_py is not installed"
    return pytest.importorskip("sensor_msgs_py.point_cloud2", reason=reason).read_points


@pytest.mark.parametrize("count", [0, 3])
@pytest.mark.parametrize("order", "<>")
def test_every_field_of_a_cloud_is_read(read_points, count: int, order: str):
    layout = {"names": ["x", "t", "ring"], "formats": [order + "f4", order + "i4", "u1"], "offsets": [4, 8, 15]}
    points = np.zeros(count, np.dtype(layout | {"itemsize": 18}))
    points["x"], points["t"], points["ring"] = np.arange(count) / 4, np.arange(count) - 70_000, np.arange(count)
    kinds = zip(("x", "t", "ring"), (4, 8, 15), (PointField.FLOAT32, PointField.INT32, PointField.UINT8), strict=True)
    cloud = PointCloud2(height=1, width=count, point_step=18, row_step=18 * count, is_bigendian=order == ">")
    cloud.fields = [PointField(name=name, offset=offset, datatype=kind, count=1) for name, offset, kind in kinds]
    cloud.data = array.array("B", points.tobytes())
    columns = read_points(cloud)
    assert columns.shape == (count,) and columns.dtype.names == ("x", "t", "ring")
    for name in columns.dtype.names:
        np.testing.assert_array_equal(columns[name], points[name])


@pytest.fixture(params=["plain", "tf2_ros"])
def tree(request):
    """The plain buffer and the real one must pass the same tests: (buffer, its exception)."""
    if request.param == "plain":
        return fallback.PlainBuffer(), fallback.PlainTransformException
    tf2_ros = pytest.importorskip("tf2_ros", reason="tf2_ros is not installed")
    return tf2_ros.Buffer(), tf2_ros.TransformException


def _at(buffer, target: str, source: str, stamp_ns: int) -> tuple[np.ndarray, np.ndarray]:
    """(x, y, z) and (w, x, y, z) with w >= 0."""
    found = buffer.lookup_transform(target, source, Time(nanoseconds=stamp_ns)).transform
    t, q = found.translation, found.rotation
    wxyz = np.array([q.w, q.x, q.y, q.z])
    return np.array([t.x, t.y, t.z]), wxyz if wxyz[0] >= 0 else -wxyz


def test_a_pose_between_two_stamps_is_interpolated(tree):
    buffer, _ = tree
    buffer.set_transform(transform("odom", "base_link", (0, 0, 0), stamp_ns=10 * SECOND), "test")
    buffer.set_transform(transform("odom", "base_link", (4, 0, 0), QUARTER_TURN, stamp_ns=11 * SECOND), "test")
    translation, quaternion = _at(buffer, "odom", "base_link", 10 * SECOND + SECOND // 4)
    assert translation == pytest.approx([1, 0, 0], abs=1e-9)
    eighth = math.radians(90 / 4) / 2
    assert quaternion == pytest.approx([math.cos(eighth), 0, 0, math.sin(eighth)], abs=1e-9)


def test_a_chain_is_followed_through_static_and_moving_edges_in_both_directions(tree):
    buffer, _ = tree
    buffer.set_transform(transform("odom", "base_link", (10, 0, 0), QUARTER_TURN, stamp_ns=5 * SECOND), "test")
    buffer.set_transform_static(transform("base_link", "lidar", (1, 0, 2)), "test")
    translation, _ = _at(buffer, "odom", "lidar", 5 * SECOND)
    assert translation == pytest.approx([10, 1, 2], abs=1e-9)  # one metre ahead of a vehicle that looks along y
    translation, _ = _at(buffer, "lidar", "odom", 5 * SECOND)
    assert translation == pytest.approx([-1, 10, -2], abs=1e-9)


def test_frames_below_one_parent_need_nothing_above_it(tree):
    buffer, _ = tree
    buffer.set_transform(transform("odom", "base_link", (9, 9, 9), stamp_ns=SECOND), "test")
    buffer.set_transform_static(transform("base_link", "lidar", (1, 0, 2)), "test")
    buffer.set_transform_static(transform("base_link", "camera", (2, 0, 1)), "test")
    translation, _ = _at(buffer, "camera", "lidar", 100 * SECOND)
    assert translation == pytest.approx([-1, 0, 1])


def test_time_zero_is_the_latest(tree):
    buffer, _ = tree
    for k in (1, 2, 3):
        buffer.set_transform(transform("odom", "base_link", (k, 0, 0), stamp_ns=k * SECOND), "test")
    assert _at(buffer, "odom", "base_link", 0)[0] == pytest.approx([3, 0, 0])


@pytest.mark.parametrize("stamp_ns", [SECOND // 2, 2 * SECOND + 1])
def test_times_outside_the_history_are_refused(tree, stamp_ns: int):
    buffer, error = tree
    for k in (1, 2):
        buffer.set_transform(transform("odom", "base_link", (k, 0, 0), stamp_ns=k * SECOND), "test")
    with pytest.raises(error):
        _at(buffer, "odom", "base_link", stamp_ns)


def test_unknown_and_unconnected_frames_are_refused(tree):
    buffer, error = tree
    buffer.set_transform_static(transform("a", "b", (1, 0, 0)), "test")
    buffer.set_transform_static(transform("c", "d", (1, 0, 0)), "test")
    with pytest.raises(error):
        _at(buffer, "a", "nowhere", 0)
    with pytest.raises(error):
        _at(buffer, "a", "d", 0)


def test_frames_in_a_loop_are_refused(tree):
    buffer, error = tree
    for parent, child in (("a", "b"), ("b", "c"), ("c", "a"), ("c", "lidar")):
        buffer.set_transform_static(transform(parent, child, (1, 0, 0)), "test")
    for target, source in (("a", "b"), ("c", "lidar"), ("lidar", "b")):
        with pytest.raises(error):
            _at(buffer, target, source, 0)


def test_ten_seconds_are_remembered(tree):
    buffer, error = tree
    for k in range(1, 21):
        buffer.set_transform(transform("odom", "base_link", (k, 0, 0), stamp_ns=k * SECOND), "test")
    assert _at(buffer, "odom", "base_link", 11 * SECOND)[0] == pytest.approx([11, 0, 0])
    with pytest.raises(error):
        _at(buffer, "odom", "base_link", 8 * SECOND)


def test_clear_forgets_motion_and_keeps_mountings(tree):
    buffer, error = tree
    buffer.set_transform(transform("odom", "base_link", (1, 0, 0), stamp_ns=SECOND), "test")
    buffer.set_transform_static(transform("base_link", "lidar", (0, 0, 2)), "test")
    buffer.clear()
    assert _at(buffer, "base_link", "lidar", 0)[0] == pytest.approx([0, 0, 2])
    with pytest.raises(error):
        _at(buffer, "odom", "base_link", SECOND)
    buffer.set_transform(transform("odom", "base_link", (5, 0, 0), stamp_ns=SECOND // 2), "test")
    assert _at(buffer, "odom", "base_link", SECOND // 2)[0] == pytest.approx([5, 0, 0])
