"""Curves over steps, side by side: how a training went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from zeroflow_core.drawing.axis import Axis
from zeroflow_core.drawing.lines import Lines
from zeroflow_core.drawing.view import BACKGROUND, FAINT_TEXT, PANEL, TEXT, font

COLOURS = ((255, 186, 92), (104, 170, 255), (122, 208, 132), (240, 132, 178))  # in the order of a panel's curves
_GRID, _REFERENCE = (42, 51, 64), (150, 160, 174)
_MARGIN, _GAP, _PAD = 20, 18, 20
_LEFT, _TOP, _BOTTOM = 56, 78, 50  # of a panel, outside its axes
_LINE = 20  # pixels between names


@dataclass(frozen=True)
class Curve:
    """
    x, y:  (N,), x ascending; values that are not finite are left out
    name:  written at its end; "" for none
    faint: in the background, such as the single values of what another curve is the mean of; of no colour of its own
    marks: each value has a dot: for few values
    """

    x: np.ndarray
    y: np.ndarray
    name: str = ""
    faint: bool = False
    marks: bool = False


@dataclass(frozen=True)
class Panel:
    """
    title, unit: what is drawn, and in what
    curves:      a faint one has the colour of the curve that follows it
    references:  names and values to compare with, as dashed lines
    """

    title: str
    unit: str
    curves: Sequence[Curve]
    references: Sequence[tuple[str, float]] = ()


def draw_curves(panels: Sequence[Panel], across: str, *, panel_size: tuple[int, int] = (480, 350)) -> Image.Image:
    """The panels side by side, each with axes of its own.

    across:     what x is
    panel_size: width and height of one panel, pixels

    Returns an RGB image.
    """
    width, height = panel_size
    number = max(len(panels), 1)
    size = 2 * _MARGIN + number * width + (number - 1) * _GAP, 2 * _MARGIN + height
    image = Image.new("RGB", size, BACKGROUND)
    for k, panel in enumerate(panels):
        image = _draw_panel(image, panel, across, (_MARGIN + k * (width + _GAP), _MARGIN, width, height))
    return image


def _draw_panel(image: Image.Image, panel: Panel, across: str, place: tuple[int, int, int, int]) -> Image.Image:
    left, top, width, height = place
    curves = [_finite(curve) for curve in panel.curves]
    pen = ImageDraw.Draw(image, "RGBA")
    pen.rounded_rectangle((left, top, left + width, top + height), 10, PANEL)
    pen.text((left + _PAD, top + 16), panel.title, TEXT, font(19), "la")
    pen.text((left + _PAD, top + 45), panel.unit, FAINT_TEXT, font(14), "la")
    if not any(len(curve.x) for curve in curves):
        pen.text((left + width / 2, top + height / 2), "nothing to draw yet", FAINT_TEXT, font(15), "mm")
        return image
    names = [name for name, _ in panel.references] + [curve.name for curve in curves]
    right = left + width - _PAD - max(pen.textlength(name, font(14)) for name in names) - 10 * any(names)
    along = Axis(0.0, max(float(curve.x[-1]) for curve in curves if len(curve.x)) or 1.0, left + _LEFT, right)
    highest = max([value for _, value in panel.references] + [float(y) for curve in curves for y in curve.y])
    up = Axis(0.0, 1.08 * highest if highest > 0 else 1.0, top + height - _BOTTOM, top + _TOP)

    _draw_grid(pen, along, up, across)
    lines, ends = Lines.over(image), []
    for name, value in panel.references:
        for x in np.arange(along.start, along.end - 4, 11.0):
            lines.stroke(np.array([[x, up.at(value)], [min(x + 6, along.end), up.at(value)]]), _REFERENCE, 1.5)
        ends.append((up.at(value), name, FAINT_TEXT))
    colours = iter(COLOURS * (1 + len(curves) // len(COLOURS)))
    colour = next(colours)
    for curve in curves:
        corners = np.array([[along.at(x), up.at(y)] for x, y in zip(curve.x, curve.y, strict=True)]).reshape(-1, 2)
        if len(corners) > 1:
            lines.stroke(corners, (*colour, 80) if curve.faint else colour, 1.0 if curve.faint else 2.4)
        if curve.marks or len(corners) == 1:
            for corner in corners:
                lines.fill(corner + 3.6 * _CIRCLE, colour)
        if not curve.faint:
            if len(corners):
                ends.append((corners[-1, 1], curve.name, colour))
            colour = next(colours)
    image = lines.done()
    _write_names(ImageDraw.Draw(image), along.end + 10, ends, (up.end, up.start))
    return image


_CIRCLE = np.array([[np.cos(a), np.sin(a)] for a in np.linspace(0, 2 * np.pi, 16, endpoint=False)])


def _finite(curve: Curve) -> Curve:
    x, y = np.asarray(curve.x, dtype=np.float64), np.asarray(curve.y, dtype=np.float64)
    known = np.isfinite(x) & np.isfinite(y)
    return Curve(x[known], y[known], curve.name, curve.faint, curve.marks)


def _draw_grid(pen: ImageDraw.ImageDraw, along: Axis, up: Axis, across: str) -> None:
    small = font(14)
    for tick in up.ticks:
        y = up.at(tick)
        pen.line((along.start, y, along.end, y), _GRID)
        pen.text((along.start - 9, y), f"{tick:g}", FAINT_TEXT, small, "rm")
    ticks = along.ticks
    every = -(-len(ticks) * 54 // max(round(along.end - along.start), 1))  # so that numbers don't touch
    for tick in ticks[:: max(every, 1)]:
        pen.text((along.at(tick), up.start + 8), f"{tick:,.0f}", FAINT_TEXT, small, "mt")
    pen.text((along.end, up.start + 28), across, FAINT_TEXT, small, "rt")


def _write_names(
    pen: ImageDraw.ImageDraw, x: float, ends: list[tuple[float, str, tuple[int, ...]]], limits: tuple[float, float]
) -> None:
    """Beside where the curves end, moved apart where they would touch. limits: highest and lowest place"""
    named = sorted(end for end in ends if end[1])
    places = [y for y, _, _ in named]
    for k in range(1, len(places)):
        places[k] = max(places[k], places[k - 1] + _LINE)
    beyond = max(places[-1] - limits[1], 0.0) if places else 0.0
    for k in reversed(range(len(places))):
        places[k] = min(places[k], limits[1] - _LINE * (len(places) - 1 - k)) if beyond else places[k]
    for y, (_, name, colour) in zip(places, named, strict=True):
        pen.text((x, y), name, colour, font(14), "lm")
