"""Curves over steps: what is drawn lies where its numbers say, and names don't cover each other."""

from __future__ import annotations

import numpy as np
import pytest

from zeroflow_core.drawing import curves
from zeroflow_core.drawing.curves import COLOURS, Curve, Panel, draw_curves

STEPS = np.arange(0, 1001, 100.0)


def _pixels(image, colour: tuple[int, int, int]) -> np.ndarray:
    """(N,2) row and column of pixels of that colour."""
    return np.argwhere((np.asarray(image) == colour).all(axis=2))


def test_panels_stand_side_by_side():
    panel = Panel("Loss", "metres", [Curve(STEPS, STEPS)])
    one, three = (draw_curves([panel] * number, "steps", panel_size=(400, 300)) for number in (1, 3))
    assert one.size == (440, 340) and three.size == (1276, 340)
    assert (np.asarray(one)[:, 20:420] == np.asarray(three)[:, 20:420]).all()


def test_a_falling_curve_falls():
    image = draw_curves([Panel("Loss", "metres", [Curve(STEPS, 1 - STEPS / 1000, "loss")])], "steps")
    places = _pixels(image, COLOURS[0])
    places = places[places[:, 1] < 360]  # without the name behind it
    left, right = places[:, 1].min(), places[:, 1].max()
    middle = places[abs(places[:, 1] - (left + right) / 2) <= 1, 0].mean()
    top, bottom = places[places[:, 1] <= left + 1, 0].mean(), places[places[:, 1] >= right - 1, 0].mean()
    assert bottom - top > 150
    assert middle == pytest.approx((top + bottom) / 2, abs=6)


def test_each_curve_has_a_colour_and_a_faint_one_has_that_of_the_next():
    faint = Curve(STEPS, 0.5 + 0.4 * np.sin(STEPS), faint=True)
    panel = Panel("Loss", "metres", [faint, Curve(STEPS, STEPS / 1000, "mean"), Curve(STEPS, 0.1 + 0 * STEPS, "other")])
    image = draw_curves([panel], "steps")
    assert len(_pixels(image, COLOURS[0])) > 300 and len(_pixels(image, COLOURS[1])) > 300
    assert len(_pixels(image, COLOURS[2])) == 0
    alone = draw_curves([Panel("Loss", "metres", [Curve(STEPS, STEPS / 1000, "mean"), panel.curves[2]])], "steps")
    assert (np.asarray(image) != np.asarray(alone)).any()


def test_references_are_part_of_the_picture_and_of_its_axis():
    curve = Curve(STEPS, 0.1 + 0 * STEPS)
    low = draw_curves([Panel("Error", "metres", [curve])], "steps")
    high = draw_curves([Panel("Error", "metres", [curve], [("zero flow", 1.0)])], "steps")
    rows = [_pixels(image, COLOURS[0])[:, 0].mean() for image in (low, high)]
    assert rows[1] > rows[0] + 150  # a tenth of the height, where it was all of it before


def test_what_is_not_finite_is_left_out_and_nothing_at_all_is_said():
    known = STEPS / 1000
    holes = np.where(STEPS == 500, np.nan, known)
    plain, gap = (draw_curves([Panel("Loss", "m", [Curve(STEPS, y)])], "steps") for y in (known, holes))
    assert (np.asarray(plain) == np.asarray(gap)).mean() > 0.999  # it is a straight line
    empty = draw_curves([Panel("Loss", "m", [Curve(STEPS[:0], STEPS[:0], "loss")])], "steps")
    assert len(_pixels(empty, COLOURS[0])) == 0
    assert draw_curves([], "steps").width > 0


def test_a_single_value_has_a_mark():
    image = draw_curves([Panel("Error", "m", [Curve(STEPS[-1:], np.array([0.3]))])], "steps")
    assert 20 < len(_pixels(image, COLOURS[0])) < 80


def test_names_that_would_touch_are_moved_apart(monkeypatch):
    written = []

    class Pen:
        def text(self, place, name, *_):
            written.append((place[1], name))

    ends = [(100.0, "a", COLOURS[0]), (101.0, "b", COLOURS[1]), (198.0, "c", COLOURS[2]), (199.0, "d", COLOURS[3])]
    curves._write_names(Pen(), 10.0, ends, (50.0, 200.0))
    assert [name for _, name in written] == ["a", "b", "c", "d"]
    places = np.array([place for place, _ in written])
    assert (np.diff(places) >= 20).all() and places.max() <= 200
