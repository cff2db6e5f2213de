"""Where the vehicle was and what stood still there, as messages in the frame of the newest cloud."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")

from rclpy.serialization import deserialize_message, serialize_message
from ros_messages import SECOND, cloud
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header

from zeroflow_core.datasets.point_cloud2 import decode
from zeroflow_core.geometry import SE3
from zeroflow_core.pairs import Status, Sweep
from zeroflow_ros.live.frames import Frame
from zeroflow_ros.live.pipeline import Velocities
from zeroflow_ros.live.surroundings import Surroundings
from zeroflow_ros.messages.clouds import nanoseconds, points_message
from zeroflow_ros.messages.fallback import plain_read_points
from zeroflow_ros.messages.path import PathWriter
from zeroflow_ros.parameters.settings import Settings

STEP = SECOND // 10
MOUNT = SE3.from_yaw(math.pi / 2, np.array([1.0, 0.5, 1.8]))  # vehicle_SE3_cloud


def _pose(stamp_ns: int) -> SE3:
    """A bend to the left at 10 m/s."""
    return SE3.from_yaw(0.2 * stamp_ns / SECOND, np.array([10.0 * stamp_ns / SECOND, 3.0, 0.0]))


def _transform(pose) -> SE3:
    """Of a geometry_msgs/Pose."""
    turn, place = pose.orientation, pose.position
    return SE3.from_quaternion(np.array([turn.w, turn.x, turn.y, turn.z]), np.array([place.x, place.y, place.z]))


def _result(stamp_ns: int, points=None, velocity=None, status=None, pose: SE3 | None = None, series: int = 0):
    """Of points in the world."""
    pose = pose or _pose(stamp_ns)
    points = np.zeros((1, 3)) if points is None else np.asarray(points, dtype=np.float64).reshape(-1, 3)
    in_vehicle = pose.inverse().transform(points).astype(np.float32)
    velocity = np.zeros_like(in_vehicle) if velocity is None else np.asarray(velocity, np.float32)
    status = np.full(len(points), Status.OK, np.uint8) if status is None else np.asarray(status, np.uint8)
    message = cloud(MOUNT.inverse().transform(in_vehicle), stamp_ns, "lidar")
    frame = Frame(message, decode(message), Sweep(in_vehicle, stamp_ns, pose), MOUNT, "odom")
    return Velocities(frame, MOUNT.inverse().rotate(velocity), velocity, status, series)


def test_the_path_leads_to_where_the_vehicle_is_in_the_frame_of_the_cloud():
    surroundings = Surroundings()
    stamps = [SECOND + k * STEP for k in range(12)]
    for stamp_ns in stamps:
        result = _result(stamp_ns)
        assert surroundings.take(result)
        path = surroundings.path(result)
    assert path.header == result.message.header
    assert [nanoseconds(pose.header.stamp) for pose in path.poses] == stamps
    assert {pose.header.frame_id for pose in path.poses} == {"lidar"}
    cloud_SE3_world = (_pose(stamps[-1]) @ MOUNT).inverse()
    for stamp_ns, stamped in zip(stamps, path.poses, strict=True):
        np.testing.assert_allclose(
            _transform(stamped.pose).matrix, (cloud_SE3_world @ _pose(stamp_ns)).matrix, atol=1e-9
        )
    np.testing.assert_allclose(_transform(path.poses[-1].pose).matrix, MOUNT.inverse().matrix, atol=1e-9)
    assert deserialize_message(serialize_message(path), type(path)) == path


def test_the_path_is_the_vehicle_s_own_wherever_clouds_are_raised_to():
    """A student knows the ground at some height; what is raised for it is to be seen nowhere outside."""
    raised = SE3(np.eye(3), np.array([0.0, 0.0, -0.33]))
    plain, lowered = Surroundings(), Surroundings()
    for k in range(3):
        result = _result(SECOND + k * STEP)
        sweep = replace(result.frame.sweep, world_SE3_ego=result.frame.sweep.world_SE3_ego @ raised.inverse())
        frame = replace(result.frame, sweep=sweep, vehicle_SE3_cloud=raised @ MOUNT, raised_m=-0.33)
        other = replace(result, frame=frame)
        assert plain.take(result) and lowered.take(other)
    for one, same in zip(plain.path(result).poses, lowered.path(other).poses, strict=True):
        np.testing.assert_allclose(_transform(one.pose).matrix, _transform(same.pose).matrix, atol=1e-9)


def test_two_paths_chain_by_any_stamp_that_both_have():
    writer, header = PathWriter(), Header(frame_id="lidar")
    paths = []
    for k in range(30):
        writer.add(SECOND + k * STEP, _pose(SECOND + k * STEP))
        paths.append(writer.message(header, (_pose(SECOND + k * STEP) @ MOUNT).inverse()))
    for before, after in zip(paths, paths[1:], strict=False):
        known = {nanoseconds(pose.header.stamp): _transform(pose.pose) for pose in after.poses}
        last = before.poses[-1]
        moved = known[nanoseconds(last.header.stamp)] @ _transform(last.pose).inverse()
        stamp_ns = nanoseconds(last.header.stamp)
        expected = (_pose(stamp_ns + STEP) @ MOUNT).inverse() @ _pose(stamp_ns) @ MOUNT
        np.testing.assert_allclose(moved.matrix, expected.matrix, atol=1e-9)


@pytest.mark.parametrize("rate", [10, 20, 100])
def test_a_path_is_a_minute_long_and_far_fewer_poses_than_clouds(rate: int):
    writer = PathWriter()
    for k in range(70 * rate):
        writer.add(k * SECOND // rate, _pose(k * SECOND // rate))
    stamps = [nanoseconds(pose.header.stamp) for pose in writer.message(Header(), SE3.identity()).poses]
    assert (stamps == sorted(stamps)) and len(stamps) <= 2 * rate + 122
    assert 59.4 * SECOND <= stamps[-1] - stamps[0] <= 60 * SECOND
    assert max(np.diff(stamps)) <= 0.6 * SECOND and np.diff(stamps[-rate:]).max() <= SECOND / rate + 1


def test_a_path_of_nothing_is_empty_and_a_stamp_that_goes_back_begins_a_new_one():
    writer = PathWriter()
    assert not writer.message(Header(), SE3.identity()).poses
    for k in range(9):
        writer.add(k * SECOND, SE3.identity())
    writer.add(SECOND, SE3.identity())
    assert len(writer.message(Header(), SE3.identity()).poses) == 1
    for _ in range(2):  # as with flow_target previous, when two clouds have one partner
        writer.add(SECOND + STEP, _pose(STEP))
    assert len(writer.message(Header(), SE3.identity()).poses) == 2


def test_the_map_is_what_stood_still_without_ground_and_unknown_points():
    surroundings = Surroundings()
    points = [[30, 1.1, 1], [30, 2.1, 1], [30, 3.1, 1], [30, 4.1, 1], [30, 5.1, 1]]
    velocity = np.zeros((5, 3))
    velocity[1], velocity[2] = [0.3, 0.0, 0.2], [3.0, 0.0, 0.0]
    velocity[4] = np.nan
    status = [Status.OK, Status.OK, Status.OK, Status.GROUND, Status.OUT_OF_RANGE]
    result = _result(SECOND, points, velocity, status)
    surroundings.take(result)
    message = surroundings.map(result, Settings())
    assert message.header == result.message.header and [f.name for f in message.fields] == ["x", "y", "z"]
    np.testing.assert_allclose(decode(message).points, result.cloud.points[:2], atol=1e-5)
    later = _result(2 * SECOND, [[30, 9.1, 1]])
    surroundings.take(later)
    got = decode(surroundings.map(later, Settings())).points
    expected = (_pose(2 * SECOND) @ MOUNT).inverse().transform(np.array([points[0], points[1], [30, 9.1, 1]]))
    np.testing.assert_allclose(got[np.argsort(got[:, 0])], expected[np.argsort(expected[:, 0])], atol=1e-4)
    soon = _result(3 * SECOND, [[30, 9.1, 1]])
    surroundings.take(soon)
    assert surroundings.map(soon, Settings(map_seconds=1.5)).width == 1


def test_a_new_series_has_neither_path_nor_map_of_the_one_before():
    surroundings = Surroundings()
    for k, series in enumerate([0, 0, 0, 4, 4]):
        result = _result(k * STEP, [[30, k + 0.1, 1]], series=series)
        surroundings.take(result)
        assert len(surroundings.path(result).poses) == surroundings.map(result, Settings()).width == k % 3 + 1


def test_a_cloud_without_a_single_return_is_nowhere_and_changes_nothing():
    surroundings = Surroundings()
    surroundings.take(_result(SECOND))
    message = cloud(np.full((3, 3), np.nan, np.float32), SECOND + STEP)
    frame = Frame(message, decode(message), Sweep(decode(message).points, SECOND + STEP), SE3.identity(), "none")
    nothing = np.full((3, 3), np.nan, np.float32)
    assert not surroundings.take(Velocities(frame, nothing, nothing, np.full(3, Status.NOT_FINITE, np.uint8), 0))
    after = _result(SECOND + 2 * STEP)
    surroundings.take(after)
    assert len(surroundings.path(after).poses) == 2


def test_points_become_a_cloud_that_everybody_reads():
    points = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    message = points_message(Header(frame_id="lidar"), points)
    assert (message.height, message.width, message.point_step, message.row_step) == (1, 7, 12, 84)
    assert message.is_dense and len(message.data) == 84
    rows = plain_read_points(message)
    np.testing.assert_array_equal(np.column_stack([rows[axis] for axis in "xyz"]), points)
    empty = points_message(Header(), points[:0])
    assert empty.width == 0 and deserialize_message(serialize_message(empty), PointCloud2) == empty
