"""Moving objects as RViz draws them, and as a cloud for programs."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")

from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header
from visualization_msgs.msg import Marker, MarkerArray

from zeroflow_core.geometry import SE3
from zeroflow_core.objects import MovingObject
from zeroflow_core.tracking import Track
from zeroflow_ros.messages.fallback import plain_read_points
from zeroflow_ros.messages.markers import MarkerWriter, flow_lines
from zeroflow_ros.messages.objects_cloud import objects_cloud

HEADER = Header(frame_id="lidar")
CAR = Track(
    7,
    MovingObject(np.array([10.0, 2.0, 0.5]), np.array([4.5, 1.8, 1.5]), 0.5, np.array([8.0, 6.0, 0.0]), 200),
    age_s=1.5,
    hits=15,
    is_predicted=False,
)
FLAT = Track(
    9,
    MovingObject(np.array([5.0, 0.0, 0.0]), np.array([1.0, 0.5, 0.0]), 0.0, np.array([0.0, -2.0, 0.0]), 0),
    age_s=0.3,
    hits=3,
    is_predicted=True,
)
# A scanner that looks 30 degrees down and to the left.
TILTED = SE3(
    SE3.from_yaw(1.0, np.zeros(3)).rotation
    @ np.array([[math.cos(0.5), 0, math.sin(0.5)], [0, 1, 0], [-math.sin(0.5), 0, math.cos(0.5)]]),
    np.array([1.0, 2.0, 3.0]),
)


def written(*messages):
    """Markers of each message that a new writer makes of these tracks, by kind."""
    writer = MarkerWriter()
    return [writer.message(HEADER, tracks).markers for tracks in messages]


def test_an_object_is_a_box_an_arrow_of_one_second_its_number_and_its_speed():
    clear, box, arrow, text = written([CAR])[0]
    assert clear.action == Marker.DELETEALL
    assert all(marker.header == HEADER for marker in (clear, box, arrow, text))
    assert (box.type, arrow.type, text.type) == (Marker.CUBE, Marker.ARROW, Marker.TEXT_VIEW_FACING)
    assert (box.scale.x, box.scale.y, box.scale.z) == pytest.approx((4.5, 1.8, 1.5))
    assert 2 * math.atan2(box.pose.orientation.z, box.pose.orientation.w) == pytest.approx(0.5)
    assert (arrow.points[0].x, arrow.points[0].y) == pytest.approx((10, 2))
    assert (arrow.points[1].x, arrow.points[1].y) == pytest.approx((18, 8))
    assert text.text == "#7 10.0 m/s" and text.pose.position.z > 1.25
    assert 0 < box.color.a < 1


def test_ids_are_those_of_the_tracks_and_what_has_gone_is_deleted_once():
    first, second, third, fourth = written([CAR, FLAT], [FLAT], [FLAT], [])
    assert {(marker.ns, marker.id) for marker in first[1:]} == {
        (ns, number) for ns in ("box", "velocity", "speed") for number in (7, 9)
    }
    assert [(m.ns, m.id) for m in second if m.action == Marker.DELETE] == [("box", 7), ("velocity", 7), ("speed", 7)]
    assert [m.id for m in second if m.action == Marker.ADD] == [9, 9, 9]
    assert [m.action for m in third] == [Marker.ADD] * 3
    assert [(m.action, m.id) for m in fourth] == [(Marker.DELETE, 9)] * 3


def test_only_the_first_message_of_a_writer_deletes_everything_even_when_nothing_moves():
    first, second = written([], [])
    assert [marker.action for marker in first] == [Marker.DELETEALL]
    assert list(second) == []


def test_markers_vanish_by_themselves_when_the_node_is_gone():
    shown = [marker for marker in written([CAR, FLAT])[0] if marker.action == Marker.ADD]
    assert all(0 < marker.lifetime.sec + marker.lifetime.nanosec * 1e-9 <= 1 for marker in shown)


def test_what_is_predicted_is_paler():
    _, seen, _, text, predicted, *_ = written([CAR, FLAT])[0]
    assert predicted.color.a < 0.6 * seen.color.a
    assert text.color.a == 1.0


def test_a_box_without_height_can_still_be_drawn():
    box = written([FLAT])[0][1]
    assert min(box.scale.x, box.scale.y, box.scale.z) > 0


def test_in_the_frame_of_a_tilted_scanner_boxes_still_stand_upright():
    _, box, arrow, text = MarkerWriter().message(HEADER, [CAR], header_SE3_tracks=TILTED).markers
    place, turn = box.pose.position, box.pose.orientation
    pose = SE3.from_quaternion(np.array([turn.w, turn.x, turn.y, turn.z]), np.array([place.x, place.y, place.z]))
    back = TILTED.inverse() @ pose
    np.testing.assert_allclose(back.matrix, SE3.from_yaw(0.5, CAR.object.centre).matrix, atol=1e-6)
    tail, tip = (TILTED.inverse().transform(np.array([[end.x, end.y, end.z]]))[0] for end in arrow.points)
    np.testing.assert_allclose(tip - tail, CAR.object.velocity, atol=1e-6)
    over = text.pose.position
    np.testing.assert_allclose(
        TILTED.inverse().transform(np.array([[over.x, over.y, over.z]]))[0][:2], CAR.object.centre[:2], atol=1e-6
    )


def test_points_that_move_are_one_list_of_lines():
    rng = np.random.default_rng(0)
    points = rng.uniform(-50, 50, (30000, 3)).astype(np.float32)
    velocity = np.zeros_like(points)
    velocity[:9000, 1] = 4.0
    velocity[9000:9010] = np.nan
    points[10] = np.nan
    marker = flow_lines(HEADER, points, velocity, min_speed=0.5)
    assert (marker.type, marker.action, marker.ns, marker.id) == (Marker.LINE_LIST, Marker.ADD, "flow", 0)
    assert len(marker.points) == len(marker.colors) and 2000 < len(marker.points) <= 4000
    ends = np.array([[point.x, point.y, point.z] for point in marker.points]).reshape(-1, 2, 3)
    np.testing.assert_allclose(ends[:, 1] - ends[:, 0], np.tile([0.0, 2.0, 0.0], (len(ends), 1)), atol=1e-5)
    assert {tuple(point) for point in ends[:, 0].astype(np.float32)} <= {tuple(point) for point in points[:9000]}
    colour = written([Track(1, MovingObject(np.zeros(3), np.ones(3), 0, np.array([0, 5.0, 0]), 9), 0, 3, False)])[0][2]
    told = marker.colors[0]
    assert (told.r, told.g, told.b) == pytest.approx((colour.color.r, colour.color.g, colour.color.b), abs=0.01)


def test_lines_are_coloured_by_the_heading_in_the_vehicle_frame():
    velocity = np.tile(np.float32([0.0, 4.0, 0.0]), (20, 1))
    ahead = np.tile(np.float32([4.0, 0.0, 0.0]), (20, 1))
    lines = [flow_lines(HEADER, np.ones((20, 3)), *each, min_speed=0.5) for each in ((velocity,), (ahead,))]
    turned = flow_lines(HEADER, np.ones((20, 3)), velocity, min_speed=0.5, velocity_in_vehicle=ahead)
    assert turned.colors == lines[1].colors != lines[0].colors
    assert turned.points == lines[0].points


@pytest.mark.parametrize("speed", [0.0, 0.2, np.nan])
def test_without_points_that_move_the_lines_are_deleted(speed: float):
    marker = flow_lines(HEADER, np.ones((20, 3), np.float32), np.full((20, 3), speed / 2, np.float32), min_speed=0.5)
    assert (marker.action, marker.ns, len(marker.points)) == (Marker.DELETE, "flow", 0)
    assert flow_lines(HEADER, np.empty((0, 3)), np.empty((0, 3)), min_speed=0.5).action == Marker.DELETE


def test_lines_travel_with_the_other_markers():
    lines = flow_lines(HEADER, np.ones((20, 3)), np.ones((20, 3)), min_speed=0.5)
    message = MarkerWriter().message(HEADER, [CAR], lines)
    again = deserialize_message(serialize_message(message), MarkerArray).markers
    assert [(marker.ns, marker.id) for marker in again[1:]] == [("box", 7), ("velocity", 7), ("speed", 7), ("flow", 0)]
    assert again[-1].points == lines.points and len(again[-1].colors) == 40


def test_a_row_of_the_objects_cloud_says_all_about_an_object():
    message = deserialize_message(serialize_message(objects_cloud(HEADER, [CAR, FLAT])), PointCloud2)
    assert message.header == HEADER
    assert (message.height, message.width, message.is_dense, message.is_bigendian) == (1, 2, True, False)
    assert len(message.data) == message.row_step == 2 * message.point_step
    rows = plain_read_points(message)
    car = {name: rows[name][0].item() for name in rows.dtype.names}
    speed = 10.0
    assert car == pytest.approx(
        {"x": 10, "y": 2, "z": 0.5, "length": 4.5, "width": 1.8, "height": 1.5, "yaw": 0.5}
        | {"vx": 8, "vy": 6, "vz": 0, "speed": speed, "age": 1.5, "id": 7, "num_points": 200, "predicted": 0}
    )
    assert (rows["id"].tolist(), rows["predicted"].tolist(), rows["num_points"][1]) == ([7, 9], [0, 1], 0)
    assert rows["id"].dtype == rows["num_points"].dtype == np.uint32
    assert all(rows[name].dtype == np.float32 for name in ("x", "yaw", "vx", "age"))


def test_an_objects_cloud_in_another_frame_and_one_without_objects():
    rows = plain_read_points(objects_cloud(HEADER, [CAR], TILTED))
    centre = np.array([[rows["x"][0], rows["y"][0], rows["z"][0]]], dtype=np.float64)
    np.testing.assert_allclose(TILTED.inverse().transform(centre)[0], CAR.object.centre, atol=1e-5)
    assert rows["speed"][0] == pytest.approx(10.0)
    assert np.hypot(np.hypot(rows["vx"][0], rows["vy"][0]), rows["vz"][0]) == pytest.approx(10.0, rel=1e-5)
    facing = TILTED.rotate(np.array([[math.cos(0.5), math.sin(0.5), 0.0]]))[0]
    assert rows["yaw"][0] == pytest.approx(math.atan2(facing[1], facing[0]), abs=1e-6)
    nothing = objects_cloud(HEADER, [])
    assert (nothing.width, nothing.height, len(nothing.data)) == (0, 1, 0) and len(nothing.fields) == 15
