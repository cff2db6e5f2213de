"""The picture from above: known points on known pixels, words that keep out of each other's way."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageDraw

from zeroflow_core.drawing import birds_eye, colour_wheel, lettering
from zeroflow_core.drawing.backdrop import draw_distances
from zeroflow_core.drawing.birds_eye import draw_birds_eye
from zeroflow_core.drawing.legend import draw_legend
from zeroflow_core.drawing.view import BACKGROUND, View
from zeroflow_core.objects import MovingObject

# Linear sRGB as people with the common deficiencies see it (Machado, Oliveira and Fernandes 2009, severity 1).
VISION = {
    "full": np.eye(3),
    "no long cones": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "no medium cones": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "no short cones": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def heading(degrees, speed=10.0):
    return speed * np.array([[np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees)), 0.0]])


def pixel_of(x, y, size=(1280, 720), metres_across=102.4):
    """Column and row where (x, y) in metres belongs; written out again here, on purpose."""
    scale = size[0] / metres_across
    return int(size[0] / 2 + x * scale), int(size[1] / 2 - y * scale)


def moving_object(x, y, velocity, size=(4.4, 1.8, 1.5)):
    yaw = float(np.arctan2(velocity[1], velocity[0]))
    return MovingObject(np.array([x, y, 0.8]), np.array(size), yaw, np.array([*velocity, 0.0]), 100)


def perceived(rgb, vision):
    """OKLab (N,3) of sRGB (N,3) in 0…255, through the eyes of `vision`."""
    encoded = np.asarray(rgb, dtype=np.float64) / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    linear = np.clip(linear @ np.asarray(VISION[vision]).T, 0, 1)
    cones = np.cbrt(
        linear @ np.array([[0.41222147, 0.21190350, 0.08830246],
                           [0.53633254, 0.68069955, 0.28171884],
                           [0.05144599, 0.10739696, 0.62997870]])
    )
    return cones @ np.array([[0.21045426, 1.97799850, 0.02590404],
                             [0.79361779, -2.42859221, 0.78277177],
                             [-0.00407205, 0.45059371, -0.80867577]])


def test_ahead_is_amber_left_green_back_blue_right_pink():
    ahead, left, back, right = (colour_wheel.colours(heading(d), 10.0)[0] for d in (0, 90, 180, 270))
    assert ahead[0] > ahead[1] > ahead[2] + 100
    assert left[1] > max(left[0], left[2])
    assert back[2] > back[1] > back[0]
    assert right[0] > right[2] > right[1] + 50


def test_speed_runs_from_grey_to_full_colour_and_stays_there():
    towards = np.concatenate([heading(0, speed) for speed in (0.0, 0.5, 2.0, 5.0, 10.0, 40.0)])
    spread = np.ptp(colour_wheel.colours(towards, 10.0), axis=1)
    assert (np.diff(spread[:5]) > 10).all()
    assert spread[5] == spread[4]
    np.testing.assert_array_equal(colour_wheel.colours(towards[:1], 10.0)[0], colour_wheel.STILL)


@pytest.mark.parametrize("vision", VISION)
def test_opposite_headings_and_standing_still_look_different_to_everybody(vision):
    degrees = np.arange(0, 360, 5)
    seen = perceived(colour_wheel.colours(np.concatenate([heading(d) for d in degrees]), 10.0), vision)
    still = perceived(colour_wheel.STILL[None], vision)
    assert np.linalg.norm(seen - np.roll(seen, len(degrees) // 2, axis=0), axis=1).min() > 0.12
    assert np.linalg.norm(seen - still, axis=1).min() > 0.06


def test_the_wheel_shows_each_heading_where_the_picture_does():
    wheel = colour_wheel.wheel(101, 10.0)
    for degrees, (row, column) in {0: (50, 95), 90: (5, 50), 180: (50, 5), 270: (95, 50)}.items():
        expected = colour_wheel.colours(heading(degrees, speed=9.0), 10.0)[0]
        np.testing.assert_allclose(wheel[row, column, :3], expected, atol=6)
        assert wheel[row, column, 3] == 255
    assert wheel[0, 0, 3] == 0


@pytest.mark.parametrize("size", [(1280, 720), (640, 360), (1920, 1080)])
def test_a_moving_point_is_a_dot_of_its_colour_at_its_place(size):
    points = np.array([[20.0, 10.0, 1.0], [-15.0, -12.0, 1.0]])
    velocity = np.concatenate([heading(0), heading(180)])
    picture = np.asarray(draw_birds_eye(points, velocity, size=size)).astype(int)
    assert picture.shape == (size[1], size[0], 3)
    for point, motion in zip(points, velocity, strict=True):
        column, row = pixel_of(*point[:2], size=size)
        seen = picture[row - 1:row + 2, column - 1:column + 2].reshape(-1, 3)
        expected = colour_wheel.colours(motion[None], 10.0)[0]
        assert np.abs(seen - expected).max(axis=1).min() < 12, "its colour"
        around = picture[row - 6:row + 7, column - 6:column + 7].reshape(-1, 3)
        assert (np.abs(around - BACKGROUND).max(axis=1) < 40).sum() > 100, "a dot, not a blot"


def test_still_points_and_points_without_an_estimate_are_grey_and_high_ones_lighter():
    points = np.array([[10.0, 20.0, 0.0]] * 5 + [[20.0, 20.0, 0.0], [30.0, 20.0, 4.0], [25.0, -20.0, 0.0]])
    velocity = np.zeros_like(points)
    velocity[5] = np.nan
    velocity[7] = [np.inf, 0.0, 0.0]
    picture = np.asarray(draw_birds_eye(points, velocity)).astype(int)
    columns, rows = np.array([pixel_of(x, y) for x, y, _ in points[[4, 5, 6, 7]]]).T
    seen = np.array([picture[r - 1:r + 2, c - 1:c + 2].reshape(-1, 3).max(axis=0)
                     for r, c in zip(rows, columns, strict=True)])
    assert (np.ptp(seen, axis=1) < 40).all()
    assert (seen > np.array(BACKGROUND) + 5).all()
    assert seen[2].max() > seen[1].max() + 30


@pytest.mark.parametrize("points", [
    np.empty((0, 3)),
    np.full((20, 3), np.nan),
    np.array([[np.inf, 0.0, 0.0], [1e9, -1e9, 0.0], [1.0, 2.0, np.nan]]),
])
def test_nothing_to_draw_still_gives_a_picture_with_vehicle_and_legend(points):
    picture = np.asarray(draw_birds_eye(points, np.full_like(points, 3.0)))
    assert picture[360, 640].min() > 50, "the vehicle"
    legend = picture[16:206, 1280 - 222:1280 - 16].reshape(-1, 3).astype(int)
    hues = colour_wheel.colours(np.concatenate([heading(d, 8.0) for d in range(0, 360, 45)]), 10.0)
    for hue in hues:
        assert np.abs(legend - hue).max(axis=1).min() < 12, "the colour wheel"
    assert (picture[250:, 700:] == BACKGROUND).all(axis=2).mean() > 0.9


def test_an_object_gets_a_box_and_an_arrow_as_long_as_a_second():
    empty = np.empty((0, 3))
    without = np.asarray(draw_birds_eye(empty)).astype(int)
    picture = np.asarray(draw_birds_eye(empty, objects=[moving_object(-20.0, 10.0, (8.0, 0.0))])).astype(int)
    colour = colour_wheel.colours(heading(0, 8.0), 10.0)[0]
    drawn = (np.abs(picture - colour).max(axis=2) < 25) & (np.abs(picture - without).max(axis=2) > 25)
    rows, columns = np.nonzero(drawn)
    left, top = pixel_of(-20.0 - 2.2, 10.0 + 0.9)
    tip, bottom = pixel_of(-20.0 + 2.2 + 8.0, 10.0 - 0.9)
    assert (columns.min(), columns.max()) == (pytest.approx(left, abs=3), pytest.approx(tip, abs=3))
    assert (rows.min(), rows.max()) == (pytest.approx(top, abs=3), pytest.approx(bottom, abs=3))


def test_speeds_overlap_neither_each_other_nor_the_panels():
    rng = np.random.default_rng(3)
    view = View(1280, 720, 12.5)
    image = Image.new("RGB", (1280, 720))
    panels = [draw_legend(image, view, 10.0), *lettering.draw_title(image, view, "Title", "More")]
    assert len(panels) == 2
    speeds = []
    for x, y in rng.uniform([0, 0], [1280, 720], (60, 2)):
        corners = np.array([[20, 10], [20, -10], [-20, -10], [-20, 10]])
        speeds.append((3.0, [x, y] + corners, [x, y] + np.array([[20, 0], [60, 0]]), (90, 140, 240)))
    written = lettering.draw_speeds(image, view, speeds, np.zeros((720, 1280), bool), panels)
    assert len(written) > 25
    areas = [*panels, *written]
    for i, one in enumerate(areas):
        assert 0 <= one[0] < one[2] <= 1280 and 0 <= one[1] < one[3] <= 720
        for other in areas[:i]:
            assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]


@pytest.mark.parametrize("degrees", range(0, 360, 30))
def test_a_speed_is_close_to_the_tip_of_its_arrow_and_off_it(degrees):
    view, start = View(1280, 720, 12.5), np.array([640.0, 360.0])
    tip = start + 90 * np.array([np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))])
    corners = start + np.array([[20, 10], [20, -10], [-20, -10], [-20, 10]])
    image, nothing = Image.new("RGB", (1280, 720)), np.zeros((720, 1280), bool)
    ((left, top, right, bottom),) = lettering.draw_speeds(
        image, view, [(3.0, corners, np.stack([start, tip]), (90, 140, 240))], nothing, []
    )
    off = np.maximum(0, np.maximum([left, top] - tip, tip - [right, bottom]))
    assert np.hypot(*off) < 12
    along = start + np.linspace(0, 0.9, 20)[:, None] * (tip - start)
    assert not ((along > [left, top]) & (along < [right, bottom])).all(axis=1).any()


def test_a_speed_has_a_touch_of_its_objects_colour_and_stays_light():
    view, corners = View(1280, 720, 12.5), np.array([[660, 370], [660, 350], [620, 350], [620, 370]])
    inks = []
    for colour in ((240, 170, 0), (80, 140, 255)):
        image = Image.new("RGB", (1280, 720))
        lettering.draw_speeds(image, view, [(3.0, corners, None, colour)], np.zeros((720, 1280), bool), [])
        inks.append(np.asarray(image).reshape(-1, 3).astype(int).max(axis=0))
    amber, blue = inks
    assert amber[0] > amber[2] + 60 and blue[2] > blue[0] + 60
    assert min(amber.sum(), blue.sum()) > 480


def test_an_object_on_the_words_of_a_ring_has_its_speed_all_the_same(monkeypatch):
    written = []
    write = birds_eye.draw_speeds
    monkeypatch.setattr(birds_eye, "draw_speeds", lambda *given: written.extend(write(*given)))
    at = np.deg2rad(-30)  # where the distances are written
    shown = moving_object(20 * np.cos(at), 20 * np.sin(at), (8.0, 0.0))
    draw_birds_eye(np.empty((0, 3)), objects=[shown])
    assert len(written) == 1


def test_the_distances_of_the_rings_are_not_lost_among_the_points():
    rng = np.random.default_rng(0)
    crowd = np.column_stack([rng.uniform(-50, 50, (200_000, 2)), rng.uniform(0, 3, 200_000)])
    view = View(1280, 720, 12.5)
    areas = draw_distances(Image.new("RGB", (1280, 720)), view)
    assert len(areas) >= 3
    image = draw_birds_eye(crowd)
    for area in areas:
        word = np.asarray(image.crop(tuple(int(edge) for edge in area))).astype(int)
        assert (word == BACKGROUND).all(axis=2).mean() > 0.15, "a dark edge around each letter"


@pytest.mark.parametrize("size", [(1280, 720), (640, 120), (320, 110), (400, 900)])
def test_distances_of_the_rings_do_not_overlap(size):
    areas = draw_distances(Image.new("RGB", size), View(*size, size[0] / 102.4, magnify=0.75 * 720 / size[1]))
    assert areas
    for k, one in enumerate(areas):
        assert not any(lettering.overlap(one, other) for other in areas[:k])


def test_what_is_only_predicted_is_pale():
    seen = moving_object(10.0, 5.0, (8.0, 0.0))
    strongest = []
    for shown in (seen, replace(seen, num_points=0)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(birds_eye, "draw_speeds", lambda *given: [])
            image = np.asarray(draw_birds_eye(np.empty((0, 3)), objects=[shown], legend=False)).astype(int)
        strongest.append((image[..., 0] - image[..., 2]).max())  # amber, as nothing else here
    assert strongest[1] < 0.75 * strongest[0] and strongest[1] > 50


def test_title_and_subtitle_are_written():
    empty = np.empty((0, 3))
    bare = np.asarray(draw_birds_eye(empty))
    titled = np.asarray(draw_birds_eye(empty, title="Scene flow", subtitle="12 points"))
    changed = (bare != titled).any(axis=2)
    assert changed[:110, :400].any()
    assert not changed[110:].any() and not changed[:, 400:].any()


@pytest.mark.parametrize(("size", "metres_across"), [((1280, 720), 102.4), ((640, 640), 20.0), ((900, 420), 7.0)])
def test_the_scale_bar_is_as_long_as_it_says(size, metres_across, monkeypatch):
    said = []
    write = ImageDraw.ImageDraw.text

    def listen(pen, at, text, *more, **named):
        said.append((at, text))
        return write(pen, at, text, *more, **named)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", listen)
    image = np.asarray(draw_birds_eye(np.empty((0, 3)), legend=False, size=size, metres_across=metres_across))
    (x, y), text = said[-1]
    metres = float(text.removesuffix(" m"))
    assert f"{metres:e}"[0] in "125" and x < size[0] / 2 and y > 0.9 * size[1]
    bar = (image[round(y) - 1 : round(y) + 2, : int(x) - 2].min(axis=2) > 190).any(axis=0).nonzero()[0]
    assert np.ptp(bar) + 1 == pytest.approx(metres * size[0] / metres_across, abs=3)


def test_trails_lead_to_the_object_and_to_the_vehicle():
    path = np.linspace(-2.0, 0.0, 11)[:, None]
    shown = moving_object(20.0, -15.0, (8.0, 0.0))
    places = {"trails": [shown.centre + path * shown.velocity], "ego_path": path * [10.0, 0.0, 0.0]}
    without = np.asarray(draw_birds_eye(np.empty((0, 3)), objects=[shown])).astype(int)
    changed = np.abs(np.asarray(draw_birds_eye(np.empty((0, 3)), objects=[shown], **places)).astype(int) - without)
    changed = changed.max(axis=2)
    for (start, end), y in (((4.0, 17.0), -15.0), ((-20.0, -3.0), 0.0)):
        (left, row), (right, _) = pixel_of(start, y), pixel_of(end, y)
        along = changed[row - 1 : row + 2, left + 3 : right - 3].max(axis=0)
        assert (along > 20).all(), "a line without gaps"
        assert along[-20:].mean() > along[:20].mean() + 40, "fainter the longer ago"
    assert (changed > 0).mean() < 0.01


def test_in_a_small_scene_the_vehicle_is_no_car():
    def drawn(metres_across):
        image = np.asarray(draw_birds_eye(np.empty((0, 3)), legend=False, metres_across=metres_across))
        return np.ptp((image[360].min(axis=1) > 220).nonzero()[0]) / (1280 / metres_across)

    assert drawn(102.4) == pytest.approx(4.6, abs=0.3) and drawn(40.0) == pytest.approx(4.6, abs=0.3)
    assert drawn(10.0) == pytest.approx(4.6 / 4, abs=0.1)
