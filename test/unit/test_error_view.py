"""The picture of errors: a known error at a known place has a known colour, and every other point has its own."""

import numpy as np
import pytest
from PIL import Image
from test_drawing import VISION, perceived, pixel_of

from zeroflow_core.drawing.birds_eye import draw_birds_eye
from zeroflow_core.drawing.error_view import LARGE, NO_FLOW, SMALL, draw_error_legend, draw_error_view, error_colours
from zeroflow_core.drawing.view import BACKGROUND, View


def picture(points, error, scored=True, covered=True, **more):
    points = np.asarray(points, dtype=np.float32).reshape(-1, 3)

    def each(value, dtype):
        return np.broadcast_to(np.asarray(value, dtype=dtype), len(points))

    known = {"scored": each(scored, bool), "covered": each(covered, bool)}
    return np.asarray(draw_error_view(points, each(error, np.float64), **known, **more)).astype(int)


def around(image, x, y, reach=1):
    column, row = pixel_of(x, y)
    return image[row - reach:row + reach + 1, column - reach:column + reach + 1].reshape(-1, 3)


def nearest(seen, colour):
    return np.abs(seen - np.asarray(colour, dtype=float)).max(axis=1).min()


@pytest.mark.parametrize("error", [0.06, 0.2, 0.7, 5.0])
def test_an_error_is_a_dot_of_its_colour_at_its_place(error):
    seen = picture([[20.0, 10.0, 1.0]], error)
    assert nearest(around(seen, 20.0, 10.0), error_colours(np.array([error]))[0]) < 12
    assert np.ptp(around(seen, -20.0, 10.0)) < 40


def test_small_errors_are_grey_and_nothing_else():
    points = [[20.0, 10.0, 1.0]] * 5
    np.testing.assert_array_equal(picture(points, 0.0), picture(points, 0.99 * SMALL))
    grey = around(picture(points, 0.0), 20.0, 10.0)
    assert (np.ptp(grey, axis=1) < 40).all() and grey.max() > 55
    assert np.ptp(around(picture(points, 1.01 * SMALL), 20.0, 10.0), axis=1).max() > 60


def test_the_larger_the_error_the_lighter_for_every_eye():
    shown = error_colours(np.geomspace(SMALL, LARGE, 33))
    for vision in VISION:
        lightness = perceived(shown, vision)[:, 0]
        assert (np.diff(lightness) > 0).all(), vision
        assert lightness[-1] - lightness[0] > 0.4, vision
    np.testing.assert_array_equal(error_colours(np.array([0.0, 50.0])), error_colours(np.array([SMALL, LARGE])))


def test_points_that_are_not_scored_are_faint_whatever_their_error():
    points = [[20.0, 10.0, 1.0]] * 5
    faint, scored = (around(picture(points, error, scored=known), 20.0, 10.0) for error, known in ((9.0, 0), (0.0, 1)))
    above = [seen.max(axis=0) - BACKGROUND for seen in (faint, scored)]
    assert (above[0] > 5).all(), "but they are seen"
    assert (above[0] < 0.6 * above[1]).all()
    np.testing.assert_array_equal(picture(points, np.nan, scored=False), picture(points, 9.0, scored=False))


def test_points_without_a_flow_are_told_apart():
    points = [[20.0, 10.0, 1.0]] * 5
    wrong = around(picture(points, 1.0, covered=False), 20.0, 10.0, reach=4)
    assert nearest(wrong, NO_FLOW) < 25, "a ring"
    assert nearest(wrong, error_colours(np.array([1.0]))[0]) < 12, "around the colour of the error"
    assert nearest(around(picture(points, 1.0), 20.0, 10.0, reach=4), NO_FLOW) > 60
    right = around(picture(points, 0.0, covered=False), 20.0, 10.0)
    assert (right[:, 1] - right[:, 0]).max() > 25, "a touch of it where nothing is wrong"
    greenness = perceived(error_colours(np.geomspace(SMALL, LARGE, 9)), "full")[:, 1]
    assert greenness.min() > -0.04 > -0.08 > perceived([NO_FLOW], "full")[0, 1], "a hue the scale does not have"


def test_a_large_error_is_seen_among_many_small_ones():
    crowd = picture([[20.0, 10.0, 1.0]] * 40, [0.06] * 39 + [2.0])
    assert nearest(around(crowd, 20.0, 10.0), error_colours(np.array([2.0]))[0]) < 12


@pytest.mark.parametrize("points", [np.empty((0, 3)), np.full((5, 3), np.nan), [[np.inf, 0, 0], [1e9, 0, 0]]])
def test_nothing_to_draw_still_gives_the_vehicle(points):
    seen = picture(points, 1.0)
    assert seen[360, 640].min() > 50
    assert (seen == BACKGROUND).all(axis=2).mean() > 0.9


def test_both_views_from_above_can_look_elsewhere_and_closer():
    points, velocity = np.array([[-30.0, 12.0, 1.0]]), np.array([[9.0, 0.0, 0.0]])
    look = {"size": (400, 400), "metres_across": 40.0, "centre": (-30.0, 12.0)}
    for seen in (
        picture(points, 1.0, **look),
        np.asarray(draw_birds_eye(points, velocity, legend=False, **look)).astype(int),
    ):
        assert np.ptp(seen[200, 200]) > 90, "in the middle"
        assert (np.ptp(seen.reshape(-1, 3), axis=1) > 90).sum() < 30, "and nowhere else"
    view = View(400, 400, 10.0, (-30.0, 12.0))
    np.testing.assert_allclose(view.pixels(np.array([[-29.0, 12.0], [-30.0, 13.0]])), [[210, 200], [200, 190]])


def test_magnified_dots_are_larger():
    points, velocity = np.array([[20.0, 10.0, 1.0]]), np.array([[9.0, 0.0, 0.0]])

    def coloured(image):
        return (np.ptp(np.asarray(image).astype(int), axis=2) > 90)[:, :1000].sum()

    plain, large = (coloured(draw_birds_eye(points, velocity, magnify=size, legend=False)) for size in (1.0, 2.0))
    assert large > 2.5 * plain
    plain, large = (coloured(picture(points, 1.0, magnify=size)) for size in (1.0, 2.0))
    assert large > 2.5 * plain


@pytest.mark.parametrize("size", [(1280, 720), (640, 640)])
def test_the_legend_has_every_colour_of_the_error_and_keeps_to_its_area(size):
    image = Image.new("RGB", size, BACKGROUND)
    left, top, right, bottom = draw_error_legend(image, View(*size, 10.0))
    assert 0 < left < right < size[0] and 0 < top < bottom < size[1]
    drawn = np.asarray(image).astype(int)
    rows, columns = np.nonzero((drawn != BACKGROUND).any(axis=2))
    assert left <= columns.min() <= columns.max() <= right and top <= rows.min() <= rows.max() <= bottom
    edge = drawn[int(top) + 8 : int(bottom) - 8, [int(left) + 6, int(right) - 6]]
    assert (np.ptp(edge, axis=(0, 1)) < 3).all(), "no word runs over the panel's edge"
    at = [np.abs(drawn - colour).max(axis=2).min() for colour in error_colours(np.geomspace(SMALL, LARGE, 20))]
    assert max(at) < 6
    assert np.abs(drawn - NO_FLOW).max(axis=2).min() < 6


def test_the_legend_goes_from_small_on_the_left_to_large_on_the_right():
    image = Image.new("RGB", (1280, 720))
    draw_error_legend(image, View(1280, 720, 10.0))
    middles = []
    for error in (0.05, 0.3, 2.0):
        near = np.abs(np.asarray(image).astype(int) - error_colours(np.array([error]))[0]).max(axis=2) < 8
        middles.append(np.nonzero(near)[1].mean())
    assert middles == sorted(middles) and middles[2] - middles[0] > 120
