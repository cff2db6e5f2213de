"""Moving objects as RViz draws them."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")

from std_msgs.msg import Header
from visualization_msgs.msg import Marker

from zeroflow_core.objects import MovingObject
from zeroflow_ros.markers import marker_array

CAR = MovingObject(np.array([10.0, 2.0, 0.5]), np.array([4.5, 1.8, 1.5]), 0.5, np.array([8.0, 6.0, 0.0]), 200)
FLAT = MovingObject(np.array([5.0, 0.0, 0.0]), np.array([1.0, 0.5, 0.0]), 0.0, np.array([0.0, -2.0, 0.0]), 12)


def test_an_object_is_a_box_an_arrow_of_one_second_and_its_speed():
    header = Header(frame_id="lidar")
    clear, box, arrow, text = marker_array(header, [CAR]).markers
    assert clear.action == Marker.DELETEALL
    assert all(marker.header == header for marker in (clear, box, arrow, text))
    assert (box.type, arrow.type, text.type) == (Marker.CUBE, Marker.ARROW, Marker.TEXT_VIEW_FACING)
    assert (box.scale.x, box.scale.y, box.scale.z) == pytest.approx((4.5, 1.8, 1.5))
    assert 2 * math.atan2(box.pose.orientation.z, box.pose.orientation.w) == pytest.approx(0.5)
    assert (arrow.points[0].x, arrow.points[0].y) == pytest.approx((10, 2))
    assert (arrow.points[1].x, arrow.points[1].y) == pytest.approx((18, 8))
    assert text.text == "10.0 m/s" and text.pose.position.z > 1.25
    assert 0 < box.color.a < 1


def test_markers_vanish_by_themselves_and_have_names_of_their_own():
    markers = marker_array(Header(), [CAR, FLAT]).markers[1:]
    assert len({(marker.ns, marker.id) for marker in markers}) == 6
    assert all(0 < marker.lifetime.nanosec <= 500_000_000 and marker.lifetime.sec == 0 for marker in markers)


def test_nothing_that_moves_only_deletes():
    (only,) = marker_array(Header(), []).markers
    assert only.action == Marker.DELETEALL


def test_a_box_without_height_can_still_be_drawn():
    box = marker_array(Header(), [FLAT]).markers[1]
    assert min(box.scale.x, box.scale.y, box.scale.z) > 0
