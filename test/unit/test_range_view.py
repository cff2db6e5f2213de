"""The view of the scanner: known returns on known pixels, colours whose order every eye sees."""

import numpy as np
import pytest
from test_drawing import VISION, perceived

from zeroflow_core.drawing import colour_wheel
from zeroflow_core.drawing.range_view import FAR, NEAR, draw_range_view, range_colours

LEFT, TOP, RIGHT, BOTTOM = 58, 46, 1280 - 138, 360 - 30  # of the field, in a picture of 1280 × 360
SKY = np.array([18, 23, 31])


def point(azimuth, elevation, distance):
    azimuth, elevation = np.deg2rad([azimuth, elevation])
    flat = np.cos(elevation)
    return distance * np.array([flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(elevation)])


def pixel_of(azimuth, elevation):
    """Row and column of a direction between -30° and +20°; written out again here, on purpose."""
    column = LEFT + (180 - azimuth) / 360 * (RIGHT - LEFT)
    return int(TOP + (20 - elevation) / 50 * (BOTTOM - TOP)), int(column)


def picture(points, *args, **kwargs):
    return np.asarray(draw_range_view(np.array(points), *args, **kwargs)).astype(int)


@pytest.mark.parametrize(
    "azimuth, elevation", [(0.1, 0.1), (90.1, -10.1), (-90.1, 10.1), (179.8, 15.1), (-45.1, -25.1), (-179.5, 3.0)]
)
def test_a_return_is_a_dash_of_its_colour_in_its_direction(azimuth, elevation):
    seen = picture([point(azimuth, elevation, 20.0)])
    assert seen.shape == (360, 1280, 3)
    row, column = pixel_of(azimuth, elevation)
    np.testing.assert_allclose(seen[row - 1:row + 2, column], np.tile(range_colours(np.array([20.0])), (3, 1)), atol=1)
    drawn = (seen[TOP:BOTTOM, LEFT:RIGHT] != SKY).any(axis=2)
    assert drawn.sum() == 3


def test_the_scanner_may_stand_anywhere():
    origin = np.array([1.35, 0.2, 1.6])
    there = picture([point(30.0, -5.0, 12.0) + origin], origin=origin)
    here = picture([point(30.0, -5.0, 12.0)])
    np.testing.assert_array_equal(there, here)


def test_the_nearest_of_two_returns_is_seen_whatever_their_order():
    near, far = point(20.0, 5.0, 6.0), point(20.0, 5.0, 60.0)
    row, column = pixel_of(20.0, 5.0)
    for points in ([near, far], [far, near]):
        np.testing.assert_allclose(picture(points)[row, column], range_colours(np.array([6.0]))[0], atol=1)


def test_what_moves_has_the_colour_of_its_heading_and_what_stands_is_grey():
    points = np.array([point(40.0, 0.0, 10.0), point(-40.0, 0.0, 10.0), point(-80.0, 0.0, 60.0), point(9.0, 9.0, 9.0)])
    velocity = np.array([[0.0, 8.0, 0.0], [0.1, 0.0, 0.0], [np.nan, 1.0, 0.0], [np.inf, 9.0, 0.0]])
    seen = picture(points, velocity)
    moving, still, far, infinite = (seen[pixel_of(*angles)] for angles in ((40, 0), (-40, 0), (-80, 0), (9, 9)))
    np.testing.assert_allclose(moving, colour_wheel.colours(velocity[:1], 10.0)[0], atol=1)
    assert np.ptp(still) < 40 and np.ptp(far) < 40 and np.ptp(infinite) < 40
    assert still.mean() > far.mean() + 30, "the nearer the lighter"


def test_near_is_light_and_far_is_dark_in_even_steps_for_every_eye():
    shown = range_colours(np.geomspace(NEAR, FAR, 33))
    for vision in VISION:
        lightness = perceived(shown, vision)[:, 0]
        assert (np.diff(lightness) < 0).all(), vision
        assert lightness[0] - lightness[-1] > 0.4, vision
    steps = -np.diff(perceived(shown, "full")[:, 0])
    assert steps.max() < 1.5 * steps.mean() and steps.min() > 0.6 * steps.mean()
    np.testing.assert_array_equal(range_colours(np.array([0.1, 500.0])), range_colours(np.array([NEAR, FAR])))


@pytest.mark.parametrize(
    "points", [np.empty((0, 3)), np.full((5, 3), np.nan), np.array([[np.inf, 0, 0], [0, 0, 0]]), [point(0, 60, 5)]]
)
def test_nothing_to_see_is_an_empty_sky_with_a_scale(points):
    seen = picture(points)
    assert (seen[TOP:BOTTOM, LEFT:RIGHT] == SKY).all()
    beside = seen[TOP:BOTTOM, RIGHT:].reshape(-1, 3)
    for distance in (3.0, 10.0, 30.0, 90.0):
        assert np.abs(beside - range_colours(np.array([distance]))[0]).max(axis=1).min() < 6
    assert (seen[BOTTOM:, LEFT:RIGHT].max(axis=2) > 100).any(), "ticks"


def test_title_and_subtitle_stand_above_the_field():
    bare, titled = picture(np.empty((0, 3))), picture(np.empty((0, 3)), title="Street", subtitle="12 returns")
    changed = (bare != titled).any(axis=2)
    assert changed[:TOP].any() and not changed[TOP:].any()


@pytest.mark.parametrize("size", [(640, 180), (1280, 360), (2560, 720)])
def test_sizes(size):
    ring = np.array([point(azimuth, 0.0, 10.0) for azimuth in np.arange(-180, 180, 0.1)])
    seen = np.asarray(draw_range_view(ring, size=size)).astype(int)
    assert seen.shape == (size[1], size[0], 3)
    unit = size[1] / 360
    row = seen[int((TOP + 20 / 50 * (BOTTOM - TOP)) * unit)]
    colour = range_colours(np.array([10.0]))[0]
    columns = np.flatnonzero(np.abs(row - colour).max(axis=1) < 2)
    assert columns.min() == pytest.approx(LEFT * unit, abs=2)
    assert len(columns) == pytest.approx((RIGHT - LEFT) * unit, abs=4)
