"""Flow, objects and path of one cloud, joined to what the core knows as a moment."""

from __future__ import annotations

import array
import math

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")

from nav_msgs.msg import Path
from rclpy.serialization import deserialize_message, serialize_message
from ros_messages import SECOND, cloud
from sensor_msgs.msg import PointCloud2

from zeroflow_core.datasets.point_cloud2 import decode
from zeroflow_core.geometry import SE3
from zeroflow_core.objects import MovingObject
from zeroflow_core.pairs import Status
from zeroflow_core.tracking import Track
from zeroflow_ros.messages.clouds import flow_message
from zeroflow_ros.messages.moments import MomentReader
from zeroflow_ros.messages.objects_cloud import objects_cloud, tracks_of
from zeroflow_ros.messages.path import PathWriter

STEP = SECOND // 10
MOUNT = SE3.from_yaw(math.pi / 2, np.array([1.0, 0.5, 1.8]))  # vehicle_SE3_cloud
POST = np.array([[30.0, 8.0, 1.0], [12.0, -6.0, 0.4]])  # in the world
SIZE = np.array([4.5, 1.9, 1.5])


def pose(stamp_ns: int) -> SE3:
    """A bend to the left at 10 m/s."""
    return SE3.from_yaw(0.2 * stamp_ns / SECOND, np.array([10.0 * stamp_ns / SECOND, 3.0, 0.0]))


def track(stamp_ns: int) -> Track:
    """A car that drives along the world's x at 6 m/s, in the vehicle frame."""
    vehicle_SE3_world = pose(stamp_ns).inverse()
    centre = vehicle_SE3_world.transform(np.array([[20.0 + 6.0 * stamp_ns / SECOND, 10.0, 0.8]]))[0]
    velocity = vehicle_SE3_world.rotate(np.array([[6.0, 0.0, 0.0]]))[0]
    yaw = float(np.arctan2(velocity[1], velocity[0]))
    return Track(7, MovingObject(centre, SIZE, yaw, velocity, 40), stamp_ns / SECOND, 3, stamp_ns % (2 * STEP) > 0)


class Node:
    """Writes what the flow node would, of clouds that show two posts."""

    def __init__(self) -> None:
        self.path = PathWriter()

    def messages(self, stamp_ns: int) -> tuple[PointCloud2, PointCloud2, Path]:
        header_SE3_vehicle, here = MOUNT.inverse(), pose(stamp_ns)
        points = header_SE3_vehicle.transform(here.inverse().transform(POST)).astype(np.float32)
        source = cloud(points, stamp_ns, "lidar")
        velocity = header_SE3_vehicle.rotate(np.array([[1.0, 0.0, 0.0], [np.nan] * 3])).astype(np.float32)
        flow = flow_message(source, decode(source), velocity, np.array([Status.OK, Status.OUT_OF_RANGE], np.uint8))
        objects = objects_cloud(source.header, [track(stamp_ns)], header_SE3_vehicle)
        self.path.add(stamp_ns, here)
        path = self.path.message(source.header, header_SE3_vehicle @ here.inverse())
        return tuple(deserialize_message(serialize_message(one), type(one)) for one in (flow, objects, path))


def assert_same(one: SE3, other: SE3, tolerance: float = 1e-9) -> None:
    np.testing.assert_allclose(one.matrix, other.matrix, atol=tolerance)


def test_messages_of_one_stamp_make_a_moment_in_the_vehicle_frame():
    reader, node, moments = MomentReader(), Node(), []
    stamps = [SECOND + k * STEP for k in range(8)]
    for stamp_ns in stamps:
        flow, objects, path = node.messages(stamp_ns)
        assert reader.add_flow(flow) == [] and reader.add_path(path) == []
        moments += reader.add_objects(objects)
    assert [moment.stamp_ns for moment in moments] == stamps
    assert reader.rest() == []
    for stamp_ns, moment in zip(stamps, moments, strict=True):
        np.testing.assert_allclose(moment.points, pose(stamp_ns).inverse().transform(POST), atol=1e-4)
        np.testing.assert_allclose(moment.velocity, [[1.0, 0.0, 0.0], [np.nan] * 3], atol=1e-6)
        assert moment.points.dtype == moment.velocity.dtype == np.float32
        (seen,), sent = moment.tracks, track(stamp_ns)
        assert (seen.id, seen.is_predicted, seen.object.num_points) == (7, sent.is_predicted, 40)
        np.testing.assert_allclose(seen.object.centre, sent.object.centre, atol=1e-4)
        np.testing.assert_allclose(seen.object.velocity, sent.object.velocity, atol=1e-5)
        np.testing.assert_allclose(seen.object.size, SIZE, atol=1e-6)
        assert seen.object.yaw == pytest.approx(sent.object.yaw, abs=1e-6)
        assert_same(moment.world_SE3_vehicle, pose(stamps[0]).inverse() @ pose(stamp_ns))
    assert len(moments[-1].ego_path) == len(moments[-1].paths[7]) == len(stamps)
    way = moments[-1].world_SE3_vehicle.transform(moments[-1].paths[7])
    np.testing.assert_allclose(np.linalg.norm(np.diff(way, axis=0), axis=1), 0.6, atol=1e-4)


def test_what_does_not_come_is_not_waited_for_and_moments_stay_in_order():
    reader, node, moments = MomentReader(), Node(), []
    stamps = [SECOND + k * STEP for k in range(8)]
    for stamp_ns in stamps:
        flow, objects, path = node.messages(stamp_ns)
        moments += reader.add_flow(flow)
        if stamp_ns != stamps[2]:  # the objects of this one were left out
            moments += reader.add_objects(objects)
        if stamp_ns != stamps[4]:
            moments += reader.add_path(path)
    moments += reader.rest()
    assert [moment.stamp_ns for moment in moments] == [*stamps[:4], *stamps[5:]], "nobody knows where that one was"
    assert [len(moment.tracks) for moment in moments] == [1, 1, 0, 1, 1, 1, 1]
    assert_same(moments[-1].world_SE3_vehicle, pose(stamps[0]).inverse() @ pose(stamps[-1]))


def test_a_path_that_has_ended_is_not_waited_for_for_ever():
    reader, node, moments = MomentReader(objects=False), Node(), []
    for k in range(30):
        flow, _, path = node.messages(SECOND + k * STEP)
        moments += reader.add_flow(flow)
        moments += reader.add_path(path) if k < 5 else []
    known = [moment.world_SE3_vehicle is not None for moment in moments]
    assert known[:5] == [True] * 5 and known[5:] and not any(known[5:])
    assert moments[5].stamp_ns > moments[4].stamp_ns + SECOND


def test_flow_alone_is_shown_in_the_frame_of_the_cloud():
    reader, node, moments = MomentReader(), Node(), []
    for k in range(6):
        moments += reader.add_flow(node.messages(SECOND + k * STEP)[0])
    assert len(moments) == 3
    in_cloud = MOUNT.inverse().transform(pose(SECOND).inverse().transform(POST))
    np.testing.assert_allclose(moments[0].points, in_cloud, atol=1e-4)
    assert moments[0].world_SE3_vehicle is None and list(moments[0].tracks) == []
    assert len(moments + reader.rest()) == 6


def test_what_is_not_expected_is_not_waited_for():
    flow, objects, path = Node().messages(SECOND)
    (moment,) = MomentReader(objects=False, path=False).add_flow(flow)
    assert moment.world_SE3_vehicle is None
    reader = MomentReader(objects=False)
    assert reader.add_flow(flow) == []
    (moment,) = reader.add_path(path)
    assert_same(moment.world_SE3_vehicle, SE3.identity())


def test_a_recording_that_starts_over_gives_every_moment_and_a_world_of_its_own():
    reader, moments = MomentReader(), []
    for stamps in ([5 * SECOND, 5 * SECOND + STEP], [SECOND, SECOND + STEP]):
        node = Node()
        for stamp_ns in stamps:
            flow, objects, path = node.messages(stamp_ns)
            moments += reader.add_flow(flow)
            moments += reader.add_path(path)
            if stamp_ns != 5 * SECOND + STEP:
                moments += reader.add_objects(objects)
    assert [moment.stamp_ns for moment in moments] == [5 * SECOND, 5 * SECOND + STEP, SECOND, SECOND + STEP]
    assert_same(moments[2].world_SE3_vehicle, SE3.identity())
    assert len(moments[3].ego_path) == 2, "trails do not lead into the other world"


def test_objects_go_through_their_cloud_unharmed():
    header = cloud(np.zeros((1, 3)), SECOND).header
    sent = [track(0), track(STEP)]
    for one, other in zip(tracks_of(objects_cloud(header, sent)), sent, strict=True):
        assert (one.id, one.age_s, one.is_predicted) == (other.id, pytest.approx(other.age_s), other.is_predicted)
        np.testing.assert_allclose(one.object.centre, other.object.centre, atol=1e-5)
    assert tracks_of(objects_cloud(header, [])) == []


def _short(message) -> None:
    message.data = array.array("B", b"123")


def _without_steps(message) -> None:
    message.point_step = 0


def _of_points(message) -> None:
    message.fields = message.fields[:3]


def _nowhere(path: Path) -> None:
    path.poses[-1].pose.position.x = math.nan


def _unturned(path: Path) -> None:
    turn = path.poses[-1].pose.orientation
    turn.x = turn.y = turn.z = turn.w = 0.0


def _beyond(objects: PointCloud2) -> None:
    objects.data = array.array("B", np.full(len(objects.data) // 4, np.nan, np.float32).tobytes())


@pytest.mark.parametrize(
    ("which", "spoil", "shown"),
    [
        (0, _short, False),
        (0, _without_steps, False),
        (0, _of_points, False),
        (1, _short, True),
        (1, _of_points, True),
        (1, _beyond, True),
        (2, _nowhere, False),
        (2, _unturned, False),
    ],
)
def test_a_damaged_message_is_as_if_it_had_not_come(which, spoil, shown):
    reader, node, moments = MomentReader(), Node(), []
    stamps = [SECOND + k * STEP for k in range(5)]
    for stamp_ns in stamps:
        flow, objects, path = messages = node.messages(stamp_ns)
        if stamp_ns == stamps[2]:
            spoil(messages[which])
        moments += reader.add_flow(flow) + reader.add_objects(objects) + reader.add_path(path)
    tracks = {moment.stamp_ns: len(moment.tracks) for moment in moments}
    assert tracks == dict.fromkeys(stamps[:2] + stamps[3:], 1) | ({stamps[2]: 0} if shown else {})
    assert reader.damaged == (spoil is not _beyond), "a row that is not finite is no damage"
    assert_same(moments[-1].world_SE3_vehicle, pose(stamps[0]).inverse() @ pose(stamps[-1]))
