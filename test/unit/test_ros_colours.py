"""The colours that viewers show points in, packed into the field rgb."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")

from zeroflow_core.drawing.colour_wheel import STILL, colours
from zeroflow_core.pairs import Status
from zeroflow_ros.messages.colours import FULL_SPEED, packed_colours


def _rgb(velocity, status=Status.OK, min_speed: float = 0.5) -> np.ndarray:
    """(N,3) in 0…255, as RViz, PCL and Foxglove unpack the field."""
    velocity = np.asarray(velocity, dtype=np.float32).reshape(-1, 3)
    status = np.broadcast_to(np.uint8(status), len(velocity))
    with np.errstate(over="ignore"):
        packed = packed_colours(velocity, np.linalg.norm(velocity, axis=1), status, min_speed)
    assert packed.dtype == np.float32 and packed.shape == (len(velocity),)
    bits = np.frombuffer(packed.tobytes(), np.uint32)
    assert (bits >> 24 == 0).all()  # so that it is never NaN, which changes on its way
    return np.column_stack([bits >> 16 & 255, bits >> 8 & 255, bits & 255]).astype(float)


def test_headings_and_speeds_have_the_colours_of_every_picture_here():
    random = np.random.default_rng(0)
    heading, speed = random.uniform(-np.pi, np.pi, 3000), random.uniform(0.6, 14.0, 3000)
    velocity = np.column_stack([speed * np.cos(heading), speed * np.sin(heading), np.zeros(3000)])
    assert np.abs(_rgb(velocity) - colours(velocity, FULL_SPEED)).max() < 10
    ahead, behind, left, right = _rgb([[9, 0, 0], [-9, 0, 0], [0, 9, 0], [0, -9, 0]])
    assert ahead[0] > ahead[2] + 100 and behind[2] > behind[0] + 100  # amber, blue
    assert left[1] > max(left[0], left[2]) and right[1] < min(right[0], right[2])  # green, pink


def test_what_stands_still_is_grey_ground_darker_and_what_is_unknown_darkest():
    nowhere = [np.nan] * 3
    still, slow = _rgb([[0, 0, 0], [0.3, 0.2, 0]])
    np.testing.assert_array_equal([still, slow], [np.rint(STILL)] * 2)
    (ground,), (far,), (lost,), (none,) = (
        _rgb([0, 0, 0], Status.GROUND),
        _rgb(nowhere, Status.OUT_OF_RANGE),
        _rgb(nowhere, Status.NOT_FINITE),
        _rgb(nowhere, Status.NO_ESTIMATE),
    )
    assert (still > ground + 20).all() and (ground > far + 8).all()
    np.testing.assert_array_equal(far, lost)
    np.testing.assert_array_equal(far, none)


def test_colour_begins_at_the_speed_that_counts_as_moving():
    grey = np.rint(STILL)
    assert (_rgb([[0.9, 0, 0]], min_speed=1.0) == grey).all()
    assert (_rgb([[1.1, 0, 0]], min_speed=1.0) != grey).any()
    assert np.ptp(_rgb([[10, 0, 0]])) > np.ptp(_rgb([[2, 0, 0]])) > np.ptp(_rgb([[0.6, 0, 0]])) > 10


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("velocity", [[3e38, 3e38, 0], [np.inf, 0, 0], [np.inf, -np.inf, np.inf], [1e-45, 0, 9]])
def test_nonsense_has_some_colour(velocity):
    assert _rgb(velocity).shape == (1, 3)


def test_a_cloud_of_nothing_has_none():
    assert _rgb(np.empty((0, 3))).shape == (0, 3)
