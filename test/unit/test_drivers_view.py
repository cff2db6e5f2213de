"""The view ahead: known places on known pixels, near before far, and words that keep out of each other's way."""

from dataclasses import replace

import numpy as np
import pytest
from scene_cases import moving_object, road

from zeroflow_core.drawing import colour_wheel, drivers_view
from zeroflow_core.drawing.boxes import arrow_corners, box_corners, draw_box
from zeroflow_core.drawing.camera import Camera
from zeroflow_core.drawing.drivers_view import draw_drivers_view
from zeroflow_core.drawing.lines import Lines

CAMERA = Camera.over((1280, 720), 102.4)
AHEAD = colour_wheel.colours(np.array([[10.0, 0.0]]), 10.0)[0]
BACK = colour_wheel.colours(np.array([[-10.0, 0.0]]), 10.0)[0]


def pixel(x, y, z):
    return CAMERA.pixels(CAMERA.seen_from(np.array([[x, y, z]])))[0]


def like(image, colour, tolerance=25):
    """(rows, columns) bool: pixels of that colour."""
    return np.abs(np.asarray(image).astype(int) - np.int64(colour)).max(axis=2) < tolerance


def test_the_camera_looks_ahead_over_the_vehicle():
    column, row = pixel(1e6, 0.0, 0.0)
    assert column == pytest.approx(640) and row == pytest.approx(CAMERA.horizon, abs=0.1)
    near, far = pixel(10.0, 0.0, 0.0), pixel(30.0, 0.0, 0.0)
    assert near[1] > far[1] > row, "the ground rises towards the horizon"
    assert pixel(20.0, 5.0, 0.0)[0] < 640 < pixel(20.0, -5.0, 0.0)[0], "left is on the left"
    assert pixel(20.0, 0.0, 3.0)[1] < pixel(20.0, 0.0, 0.0)[1], "up is up"
    assert pixel(50.0, 0.0, CAMERA.eye[2])[1] == pytest.approx(CAMERA.horizon), "at the eye's height is the horizon"


def test_a_pixel_is_as_far_from_the_axis_as_its_angle_says():
    """By the angles between the lines of sight, which know nothing of how the camera is turned."""
    one, other = np.array([12.0, 3.0, 1.0]), np.array([25.0, -6.0, 2.5])
    rays = [place - CAMERA.eye for place in (one, other)]
    expected = rays[0] @ rays[1] / np.prod([np.linalg.norm(ray) for ray in rays])
    seen = [np.append(pixel(*place) - [640, 360], CAMERA.focal) for place in (one, other)]
    assert seen[0] @ seen[1] / np.prod([np.linalg.norm(ray) for ray in seen]) == pytest.approx(expected)


def test_a_moving_point_has_its_colour_at_its_place():
    points = np.array([[20.0, 4.0, 1.0], [15.0, -6.0, 2.0]])
    image = draw_drivers_view(points, np.array([[10.0, 0.0, 0.0], [-10.0, 0.0, 0.0]]))
    for place, colour in zip(points, (AHEAD, BACK), strict=True):
        rows, columns = np.nonzero(like(image, colour))
        assert (columns.mean(), rows.mean()) == pytest.approx(pixel(*place), abs=1.0)


def test_of_two_points_in_one_line_the_nearer_is_seen_whatever_their_order():
    near = np.array([10.0, 1.0, 1.0])
    far = CAMERA.eye + 3.0 * (near - CAMERA.eye)
    points, velocity = np.array([near, far]), np.array([[10.0, 0.0, 0.0], [-10.0, 0.0, 0.0]])
    for order in ([0, 1], [1, 0]):
        image = draw_drivers_view(points[order], velocity[order])
        assert like(image, AHEAD).any() and not like(image, BACK).any()


def test_dots_are_smaller_the_farther_they_are():
    sizes = []
    for x in (2.0, 10.0, 40.0):
        image = draw_drivers_view(np.array([[x, 2.0, 1.0]]), np.array([[10.0, 0.0, 0.0]]))
        sizes.append(like(image, AHEAD, 120).sum())
    assert sizes[0] > sizes[1] > sizes[2] >= 1


def test_what_is_behind_the_eye_or_not_finite_is_not_drawn():
    empty = np.asarray(draw_drivers_view(np.empty((0, 3))))
    points = np.array([[-30.0, 1.0, 0.0], [np.nan, 0.0, 0.0], [np.inf, 0.0, 0.0], [*CAMERA.eye]])
    np.testing.assert_array_equal(np.asarray(draw_drivers_view(points, np.full((4, 3), 5.0))), empty)
    behind = moving_object((-25.0, 3.0), (8.0, 0.0))
    np.testing.assert_array_equal(np.asarray(draw_drivers_view(np.empty((0, 3)), objects=[behind])), empty)


def test_a_box_is_where_its_corners_are_and_hidden_edges_are_faint():
    car = moving_object((14.0, 5.0), (10.0, 0.0))
    lines = Lines.over(draw_drivers_view(np.empty((0, 3))))
    draw_box(lines, CAMERA, car, (255, 0, 0), 2.0)
    image = lines.done()
    corners = CAMERA.pixels(CAMERA.seen_from(box_corners(car)))
    rows, columns = np.nonzero(like(image, (255, 0, 0), 90))
    np.testing.assert_allclose([columns.min(), rows.min()], corners.min(axis=0), atol=3)
    np.testing.assert_allclose([columns.max(), rows.max()], corners.max(axis=0), atol=3)

    red = np.asarray(image).astype(int)[..., 0]
    # Seen from behind and from the right: the lower corner at the front left is hidden, that at the back right is not.
    def middle_of(one, other):
        column, row = (corners[one] + corners[other]) / 2
        return red[int(row) - 2 : int(row) + 3, int(column) - 2 : int(column) + 3].max()

    assert middle_of(2, 6) > 220 and middle_of(1, 2) > 220
    assert middle_of(0, 4) < 190 and middle_of(0, 3) < 190


def test_a_box_that_reaches_behind_the_eye_is_cut_and_not_turned_inside_out():
    truck = moving_object((-8.0, -3.0), (10.0, 0.0), size=(16.0, 2.5, 3.5))
    outline = CAMERA.outline(box_corners(truck)[[0, 1, 2, 3]])
    seen = CAMERA.seen_from(box_corners(truck))
    assert (seen[:, 2] < 0).any() and (seen[:, 2] > 0).any()
    assert len(outline) == 4 and (outline[:, 0] > 640).all(), "it stays on the right"
    image = draw_drivers_view(np.empty((0, 3)), objects=[truck])
    assert not like(image, AHEAD, 40)[:, :600].any()


def test_an_arrow_on_the_ground_is_as_long_as_a_second():
    car = moving_object((12.0, 4.0), (0.0, -6.0))
    arrow = arrow_corners(car, 1.0)
    np.testing.assert_allclose(arrow[3], [12.0, 4.0 - 2.2 - 6.0, 0.0], atol=1e-9)
    image = draw_drivers_view(np.empty((0, 3)), objects=[car])
    right = colour_wheel.colours(np.array([[0.0, -6.0]]), 10.0)[0]
    rows, columns = np.nonzero(like(image, right, 60))
    assert columns.max() == pytest.approx(pixel(*arrow[3])[0], abs=12)


def test_speeds_and_distances_overlap_neither_each_other_nor_an_edge(monkeypatch):
    rng = np.random.default_rng(5)
    objects = [moving_object(place, (3.0, 1.0)) for place in rng.uniform([6, -15], [45, 15], (40, 2))]
    written = []
    write = drivers_view.draw_speeds

    def listen(image, view, speeds, occupied, panels, distances):
        areas = write(image, view, speeds, occupied, panels, distances)
        written.extend([*areas, *distances])
        return areas

    monkeypatch.setattr(drivers_view, "draw_speeds", listen)
    image = draw_drivers_view(np.empty((0, 3)), objects=objects)
    assert len(written) > 12
    for k, one in enumerate(written):
        assert 0 <= one[0] < one[2] <= image.width and 0 <= one[1] < one[3] <= image.height
        for other in written[:k]:
            assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]


def test_the_vehicle_hides_where_it_came_from_below_itself():
    path = np.linspace([-20.0, -4.0, 0.0], [0.0, 0.0, 0.0], 30)
    size = (720, 720)
    without, with_path = (np.asarray(draw_drivers_view(np.empty((0, 3)), ego_path=p, size=size)) for p in (None, path))
    camera = Camera.over(size, 102.4)
    body = camera.pixels(camera.seen_from(np.array([[x, 0.0, 0.0] for x in np.linspace(-2.0, 2.0, 9)])))
    shown = [tuple(place.astype(int)) for place in body if (place < size).all()]
    assert len(shown) > 2
    for column, row in shown:
        assert (without[row, column] == with_path[row, column]).all()


def test_what_is_only_predicted_is_pale():
    seen = moving_object((12.0, 5.0), (0.0, 5.0))
    greens = []
    for shown in (seen, replace(seen, num_points=0)):
        image = np.asarray(draw_drivers_view(np.empty((0, 3)), objects=[shown])).astype(int)
        greens.append((image[..., 1] - image[..., 0]).max())
    assert 40 < greens[1] < 0.75 * greens[0]


@pytest.mark.parametrize("metres", [5.0, 20.0, 102.4, 400.0])
def test_range_rings_have_round_numbers(metres):
    for radius in drivers_view._rings(Camera.over((640, 360), metres)):
        assert f"{radius:.2e}"[:4] in ("1.00", "2.00", "4.00", "5.00", "2.50")


def test_the_ground_of_a_scanner_that_is_itself_the_origin_lies_below():
    lowered = road().points - np.float32([0.0, 0.0, 1.8])
    assert drivers_view._ground(road().points) == 0.0
    assert drivers_view._ground(lowered) == -1.75
