"""The whole picture of a scene beside the ones in pictures/, and what must make the comparison fail.

A drawing that was changed on purpose needs new pictures: ``python test/unit/test_scene_picture.py`` draws them. Look at
them before they are committed.

What is compared is means over 4 × 4 pixels in windows as large as a word, each of which may be a pixel off: letters
differ a little from one FreeType to the next, but a word that is missing is noticed.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageChops, ImageDraw
from scene_cases import road
from test_drawing import VISION, perceived

from zeroflow_core.drawing import birds_eye, camera, colour_wheel, drivers_view, legend, lettering, scene
from zeroflow_core.drawing.backdrop import EGO
from zeroflow_core.drawing.error_view import draw_error_view
from zeroflow_core.drawing.lines import Lines
from zeroflow_core.drawing.scene import LEAST_SIZE, VIEWS, draw_scene
from zeroflow_core.drawing.view import BACKGROUND
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.moments import Moment

PICTURES = Path(__file__).parent / "pictures"
_WORDS = {"title": "A road", "subtitle": "made of formulas", "figures": [("time", "1.0 s"), ("own speed", "6.0 m/s")]}
_CELL, _WINDOW = 4, (4, 8)  # pixels; cells down and across: 16 × 32 pixels, about a speed
_MOST, _MEAN = 15.0, 0.5  # difference of a window, and of all, in 0…255


def _errors() -> Image.Image:
    moment = road(truth=True)
    error = np.linalg.norm(moment.velocity - moment.truth, axis=1) * 0.2
    covered = np.arange(len(error)) % 3 > 0
    return draw_error_view(moment.points, error, scored=moment.points[:, 2] > 0, covered=covered, size=(640, 360))


CASES = {
    "truth_1280x720": lambda: draw_scene(road(truth=True), **_WORDS),
    "scene_1280x720": lambda: draw_scene(road(), **_WORDS),
    "scene_640x360": lambda: draw_scene(road(trails=False), size=(640, 360), **_WORDS),
    "truth_540x960": lambda: draw_scene(road(truth=True), size=(540, 960), **_WORDS),
    "driver_720x720": lambda: draw_scene(road(), size=(720, 720), views=("driver",), **_WORDS),
    "corner_1280x720": lambda: birds_eye.draw_birds_eye(
        road().points, road().velocity, road().objects, title="A road", subtitle="made of formulas"
    ),
    "error_640x360": _errors,
}


def _path(name: str) -> Path:
    return PICTURES / f"{name}.webp"


def difference(one: Image.Image, other: Image.Image) -> tuple[float, float]:
    """How much two pictures of the same size differ in the worst window, and in all: in 0…255, by the best of the
    shifts by up to a pixel for each window.
    """
    goal = np.asarray(other.convert("RGB").reduce(_CELL), dtype=np.float32)
    best = np.inf
    for shift in product((-1, 0, 1), repeat=2):
        cells = np.asarray(ImageChops.offset(one, *shift).reduce(_CELL), dtype=np.float32)
        sums = np.pad(np.abs(cells - goal).max(axis=2), ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
        down, across = _WINDOW
        windows = sums[down:, across:] - sums[:-down, across:] - sums[down:, :-across] + sums[:-down, :-across]
        best = np.minimum(best, windows / (down * across))
    return float(best.max()), float(best.mean())


def kept(image: Image.Image) -> Image.Image:
    """As it is in the file: 64 levels of each colour, which makes that a third smaller."""
    return image.point(lambda level: (level + 2) // 4 * 4)


def is_like(image: Image.Image, name: str) -> bool:
    with Image.open(_path(name)) as reference:
        assert image.size == reference.size
        worst, mean = difference(kept(image), reference)
    return worst <= _MOST and mean <= _MEAN


@pytest.mark.parametrize("name", CASES)
def test_the_picture_is_like_the_one_that_was_looked_at(name):
    assert _path(name).stat().st_size < 60_000
    assert is_like(CASES[name](), name)


def _without(module: object, name: str):
    """A break: that function of a module draws nothing."""
    return lambda patch: patch.setattr(module, name, lambda *arguments, **named: [])


def _replaced(module: object, name: str, change):
    """A break: that of a module is changed to what `change` makes of it."""
    return lambda patch: patch.setattr(module, name, change(getattr(module, name)))


def _other_speeds(draw_speeds):
    return lambda image, view, speeds, *rest: draw_speeds(image, view, [(s + 30, *more) for s, *more in speeds], *rest)


BREAKS = {
    "no speeds": _without(birds_eye, "draw_speeds"),
    "no speeds ahead": _without(drivers_view, "draw_speeds"),
    "wrong speeds": _replaced(birds_eye, "draw_speeds", _other_speeds),
    "wrong speeds ahead": _replaced(drivers_view, "draw_speeds", _other_speeds),
    "no scale bar": _without(birds_eye, "draw_scale_bar"),
    "a wrong scale bar": _replaced(lettering, "round_down", lambda old: lambda value: 2 * old(value)),
    "no distances of the rings": _without(drivers_view, "_draw_distances"),
    "no boxes ahead": _without(drivers_view, "draw_box"),
    "no arrows ahead": _without(drivers_view, "draw_arrow"),
    "no vehicle": _without(birds_eye, "draw_vehicle"),
    "no trails": lambda patch: patch.setattr(Lines, "fading", lambda *arguments: None),
    "no still points": _without(birds_eye, "draw_still"),
    "larger dots ahead": lambda patch: patch.setattr(drivers_view, "_DOT", 0.2),
    "other hues": lambda patch: patch.setattr(colour_wheel, "_HUE_AHEAD", np.deg2rad(120.0)),
    "paler colours": lambda patch: patch.setattr(colour_wheel, "_SPEED_EXPONENT", 0.8),
    "another camera": lambda patch: patch.setattr(camera, "_EYE", np.array([-8.0, 0.0, 5.0])),
    "a mirrored view": lambda patch: patch.setattr(
        scene, "draw_drivers_view", lambda p, v, o, **k: drivers_view.draw_drivers_view(p * [1, -1, 1], v, o, **k)
    ),
    "no title": _replaced(scene, "draw_header", lambda old: lambda i, w, u, title, *rest: old(i, w, u, " ", *rest)),
    "another figure": _replaced(
        scene, "draw_header", lambda old: lambda *more: old(*more[:-1], [("battery", "24 V"), *more[-1][1:]])
    ),
    "swapped names": _replaced(
        scene, "draw_name", lambda old: lambda i, p, u, name, n: old(i, p, u, "Truth" if p[0] == 0 else "Estimate", n)
    ),
    "no heading on the wheel": lambda patch: patch.setattr(legend, "_SIDES", ("left", "", "ahead", "back")),
    "a key without its sample": _without(legend, "_box"),
    "other words": _replaced(legend, "_keys", lambda old: lambda *a: [("something else", key[1]) for key in old(*a)]),
}


def _forget() -> None:
    """What is kept from picture to picture."""
    for remembered in (legend.legend_strip, legend.legend_panel, colour_wheel._hues, drivers_view._backdrop):
        remembered.cache_clear()


@pytest.mark.parametrize("broken", BREAKS)
def test_what_is_missing_or_wrong_is_noticed(broken, monkeypatch):
    _forget()
    BREAKS[broken](monkeypatch)
    try:
        assert not is_like(CASES["truth_1280x720"](), "truth_1280x720")
    finally:
        monkeypatch.undo()
        _forget()


def test_the_estimate_in_place_of_the_truth_is_noticed():
    moment = road(truth=True)
    same = replace(moment, truth=moment.velocity, true_objects=moment.objects)
    assert not is_like(draw_scene(same, **_WORDS), "truth_1280x720")


@pytest.mark.parametrize(
    "size", [(1280, 720), (640, 360), (1920, 1080), LEAST_SIZE, (600, 600), (480, 1100), (1500, 300)]
)
@pytest.mark.parametrize("views", [VIEWS, *((view,) for view in VIEWS)])
@pytest.mark.parametrize("truth", [False, True])
def test_every_shape_holds_everything(size, views, truth):
    """Nothing is written over an edge, and no view is squeezed out."""
    areas = []
    drawn = {name: getattr(scene, name) for name in ("draw_birds_eye", "draw_drivers_view")}
    with pytest.MonkeyPatch.context() as patch:
        for name, draw in drawn.items():
            patch.setattr(scene, name, lambda *a, draw=draw, **k: areas.append(k["size"]) or draw(*a, **k))
        image = draw_scene(road(truth=truth), size=size, views=views, **_WORDS)
    assert image.size == size and image.mode == "RGB"
    assert len(areas) == len(views) * (1 + truth)
    shown = sum(width * height for width, height in areas)
    assert shown > (0.3 if min(size) < 360 else 0.5) * size[0] * size[1], areas
    assert min(min(area) for area in areas) > 0.12 * min(size), areas


@pytest.mark.parametrize("size", [(1280, 720), (640, 360), (720, 1280)])
def test_nothing_moves_when_there_is_more_to_show(size, monkeypatch):
    """The first sweep of a film has no trails."""
    places = []
    draw = scene._draw_view
    monkeypatch.setattr(scene, "_draw_view", lambda image, area, *more: places.append(area) or draw(image, area, *more))
    for trails in (False, True):
        draw_scene(road(trails=trails), size=size, **_WORDS)
    assert places[:2] == places[2:] and len(places) == 4


@pytest.mark.parametrize("width", [320, 480, 563, 640, 720, 1280, 1920])
def test_all_of_the_legend_is_on_the_strip(width):
    unit = 0.75 if width < 560 else 1.0
    strip = np.asarray(legend.legend_strip(width, unit, 10.0, round(74 * unit))).astype(int)
    empty = strip[0, 0]
    for edge in (strip[:1], strip[-1:], strip[:, :2], strip[:, -2:]):
        assert (edge == empty).all()
    assert (strip != empty).any(axis=2).sum() > 6000 * unit**2


@pytest.mark.parametrize(("size", "views", "told"), [
    ((100, 400), VIEWS, "100x400 pixels are too few to draw a scene; make it 480x270 or more"),
    ((640, 360), (), "views must be one or both of birds-eye and driver, not none"),
    ((640, 360), ("driver", "side"), "views must be one or both of birds-eye and driver, not driver, side"),
    ((640, 360), ("driver", "driver"), "views must be one or both of birds-eye and driver, not driver, driver"),
])
def test_what_cannot_be_drawn_is_told_in_a_sentence(size, views, told):
    with pytest.raises(ZeroFlowError) as raised:
        draw_scene(road(), size=size, views=views)
    assert str(raised.value) == told


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("points", [
    np.empty((0, 3), np.float32),
    np.full((9, 3), np.nan, np.float32),
    np.array([[np.inf, 0, 0], [3e38, -3e38, 1], [1, 2, np.nan], [-8, 0, 4.2]], np.float32),
])
def test_strange_points_still_give_a_picture(points):
    moment = Moment(0, points, np.full_like(points, 3e38), truth=np.full_like(points, np.nan))
    assert draw_scene(moment, size=(640, 360)).size == (640, 360)
    assert draw_scene(Moment(0, points), size=(640, 360)).size == (640, 360)


def test_long_words_are_cut_and_many_figures_go_on_another_row():
    figures = [(f"figure {k}", f"{k}.0 m/s") for k in range(9)]
    image = draw_scene(road(), title="A title " * 30, subtitle="word " * 90, figures=figures, size=(640, 640))
    assert (np.asarray(image)[:, -3:] == BACKGROUND).all(axis=2)[:60].all(), "nothing runs into the edge"


@pytest.mark.parametrize("vision", VISION)
def test_the_vehicles_own_path_looks_unlike_that_of_anything_that_moves_to_everybody(vision):
    turn = np.deg2rad(np.arange(0, 360, 5))
    heading = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    for speed in (5.0, 10.0):  # no line is greyer than at half of the full speed
        moving = perceived(colour_wheel.colours(speed * heading, 10.0), vision)
        assert np.linalg.norm(moving - perceived(np.float32([EGO]), vision), axis=1).min() > 0.08


@pytest.mark.parametrize("shift", [(0.5, 0.0), (1.0, 1.0), (-1.0, 0.5)])
def test_letters_that_are_drawn_a_little_otherwise_are_not(shift, monkeypatch):
    write, (x, y) = ImageDraw.ImageDraw.text, shift
    _forget()
    monkeypatch.setattr(
        ImageDraw.ImageDraw, "text", lambda pen, at, *more, **named: write(pen, (at[0] + x, at[1] + y), *more, **named)
    )
    try:
        assert is_like(CASES["truth_1280x720"](), "truth_1280x720")
    finally:
        monkeypatch.undo()
        _forget()


def renew() -> None:
    for name, draw in CASES.items():
        kept(draw()).save(_path(name), lossless=True, quality=100, method=6)
        print(_path(name), _path(name).stat().st_size, "bytes")


if __name__ == "__main__":
    renew()
