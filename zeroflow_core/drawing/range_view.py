"""A sweep as its scanner sees it: azimuth across with ahead in the middle, elevation up, range as colour."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from zeroflow_core.drawing import colour_wheel
from zeroflow_core.drawing.legend import draw_legend
from zeroflow_core.drawing.scale import on_log_scale, scale_colours
from zeroflow_core.drawing.view import BACKGROUND, FAINT_TEXT, TEXT, View, font

NEAR, FAR = 2.0, 100.0  # metres at the ends of the scale, which is logarithmic

_STILL_NEAR, _STILL_FAR = np.array([176.0, 186.0, 198.0]), np.array([54.0, 63.0, 76.0])
_SKY = (18, 23, 31)
_SIDES = {180: "behind", 90: "left", 0: "ahead", -90: "right", -180: "behind"}


@dataclass(frozen=True)
class _Field:
    """The part of the picture where returns are drawn: how angles become pixels.

    left, top, width, height: pixels
    low, high: elevations at its lower and upper edge, degrees
    unit: size of text and lines: 1 in a picture of 360 lines
    """

    left: int
    top: int
    width: int
    height: int
    low: float
    high: float
    unit: float

    def x(self, azimuth: np.ndarray | float) -> np.ndarray | float:
        """Pixels from the field's left edge of azimuths in degrees, left of the vehicle positive."""
        return (0.5 - azimuth / 360) * self.width

    def y(self, elevation: np.ndarray | float) -> np.ndarray | float:
        """Pixels below the field's upper edge of elevations in degrees."""
        return (self.high - elevation) / (self.high - self.low) * self.height


def range_colours(distance: np.ndarray) -> np.ndarray:
    """sRGB (N,3) float32 in 0…255 of distances (N,) in metres."""
    return scale_colours(1 - _on_scale(distance))


def draw_range_view(
    points: np.ndarray,
    velocity: np.ndarray | None = None,
    *,
    origin: tuple[float, float, float] | np.ndarray = (0.0, 0.0, 0.0),
    title: str = "",
    subtitle: str = "",
    size: tuple[int, int] = (1280, 360),
    elevations: tuple[float, float] = (-30.0, 20.0),
    min_speed: float = 0.5,
    full_speed: float = 10.0,
) -> Image.Image:
    """Draw one sweep as seen from its scanner. Where returns overlap, the nearest is seen.

    points:     (N,3) metres, x forward, y left, z up; rows that are not finite are left out
    velocity:   (N,3) m/s over ground in the same frame. With it, what moves has the colours of its heading and
                speed, and the rest is grey, the nearer the lighter; rows that are not finite stand still
    origin:     where the scanner is in the frame of the points, metres
    elevations: lowest and highest elevation of the picture, degrees
    min_speed:  m/s from which a point counts as moving
    full_speed: m/s at which its colour is full

    Returns an RGB image of `size` (width, height).
    """
    with np.errstate(invalid="ignore", over="ignore"):
        offset = np.asarray(points, dtype=np.float64).reshape(-1, 3) - np.asarray(origin, dtype=np.float64)
        distance = np.linalg.norm(offset, axis=1)
    seen = np.flatnonzero(np.isfinite(distance) & (distance > 0))
    seen = seen[np.argsort(-distance[seen], kind="stable")]  # the nearest is drawn last
    offset, distance = offset[seen], distance[seen]
    colours = range_colours(distance)
    if velocity is not None:
        colours = _flow_colours(distance, np.reshape(velocity, (-1, 3))[seen], min_speed, full_speed)

    unit = size[1] / 360
    left, top, right, bottom = (round(margin * unit) for margin in (58, 46, 138, 30))
    field = _Field(left, top, size[0] - left - right, size[1] - top - bottom, *elevations, unit)
    image = Image.new("RGB", size, BACKGROUND)
    image.paste(Image.fromarray(_returns(field, offset, distance, colours)), (left, top))
    _draw_axes(image, field)
    _draw_title(image, field, title, subtitle)
    if velocity is None:
        _draw_scale(image, field)
    else:
        wide_as_margin = View(size[0], round(1.2 * size[1]), 1.0)
        draw_legend(image, wide_as_margin, full_speed)
    return image


def _on_scale(distance: np.ndarray) -> np.ndarray:
    """0 at NEAR and closer, 1 at FAR and beyond, even steps of the logarithm between."""
    return on_log_scale(distance, NEAR, FAR)


def _flow_colours(distance: np.ndarray, velocity: np.ndarray, min_speed: float, full_speed: float) -> np.ndarray:
    """sRGB (N,3) in 0…255: grey by distance for what stands, the colour wheel's for what moves."""
    with np.errstate(invalid="ignore"):
        moving = np.isfinite(velocity).all(axis=1) & (np.linalg.norm(velocity, axis=1) >= min_speed)
    colours = _STILL_NEAR + (_STILL_FAR - _STILL_NEAR) * _on_scale(distance)[:, None]
    colours[moving] = colour_wheel.colours(velocity[moving], full_speed)
    return colours


def _returns(field: _Field, offset: np.ndarray, distance: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """The field (height, width, 3) uint8 with every return as an upright dash, the last one on top.

    A dash, because beams lie further apart than firings.
    """
    azimuth = np.rad2deg(np.arctan2(offset[:, 1], offset[:, 0]))
    elevation = np.rad2deg(np.arcsin(np.clip(offset[:, 2] / distance, -1.0, 1.0)))
    column = np.floor(field.x(azimuth)).astype(np.int64) % field.width
    row = np.floor(field.y(elevation)).astype(np.int64)
    inside = np.flatnonzero((row >= 0) & (row < field.height))
    row, column = row[inside], column[inside]

    thick = max(1, round(field.unit))
    last = np.full((field.height, field.width), -1, dtype=np.int64)
    for across in range(thick):
        for down in range(-thick, thick + 1):
            at = (np.clip(row + down, 0, field.height - 1), (column + across) % field.width)
            np.maximum.at(last, at, inside)
    canvas = np.full((field.height, field.width, 3), _SKY, dtype=np.uint8)
    drawn = last >= 0
    canvas[drawn] = np.clip(colours[last[drawn]], 0, 255)
    return canvas


def _draw_axes(image: Image.Image, field: _Field) -> None:
    """Ticks in degrees: azimuth below, elevation on the left."""
    pen, used, unit = ImageDraw.Draw(image), font(12 * field.unit), field.unit
    line, tick = max(1, round(unit)), 4 * unit
    bottom = field.top + field.height
    for degrees in range(180, -181, -45):
        x = field.left + min(field.x(degrees), field.width - 1)
        pen.line((x, bottom, x, bottom + tick), FAINT_TEXT, line)
        side = _SIDES.get(degrees)
        text = f"{abs(degrees)}°" if side is None else f"{side} {abs(degrees)}°" if degrees else side
        pen.text((x, bottom + tick + 2 * unit), text, TEXT if side else FAINT_TEXT, used, "mt")
    span = field.high - field.low
    step = next(step for step in (1, 2, 5, 10, 15, 30, 45) if span / step <= 6 or step == 45)
    for degrees in np.arange(np.ceil(field.low / step) * step, field.high + 1e-6, step):
        y = field.top + field.y(degrees)
        pen.line((field.left - tick, y, field.left - 1, y), FAINT_TEXT, line)
        text = f"{degrees:+.0f}°" if degrees else "0°"
        pen.text((field.left - tick - 3 * unit, y), text, FAINT_TEXT, used, "rm")


def _draw_title(image: Image.Image, field: _Field, title: str, subtitle: str) -> None:
    """Above the field, one after the other, on one line."""
    pen, used, unit = ImageDraw.Draw(image), font(18 * field.unit), field.unit
    pen.text((field.left, 23 * unit), title, TEXT, used, "lm")
    indent = pen.textlength(title, used) + 14 * unit if title else 0
    pen.text((field.left + indent, 24 * unit), subtitle, FAINT_TEXT, font(13 * unit), "lm")


def _draw_scale(image: Image.Image, field: _Field) -> None:
    """The colours of the distances on an upright bar to the right of the field, near at the bottom."""
    unit, width = field.unit, round(14 * field.unit)
    left = field.left + field.width + round(22 * unit)
    image.paste(Image.fromarray(_scale_bar(width, field.height)), (left, field.top))
    pen, used = ImageDraw.Draw(image), font(12 * unit)
    for metres in (2, 5, 10, 20, 50, 100):
        y = field.top + (1 - _on_scale(np.array(float(metres)))) * (field.height - 1)
        x = left + width
        pen.line((x, y, x + 4 * unit, y), FAINT_TEXT, max(1, round(unit)))
        pen.text((x + 8 * unit, y), f"{metres} m", FAINT_TEXT, used, "lm")


@lru_cache(maxsize=4)
def _scale_bar(width: int, height: int) -> np.ndarray:
    """(height, width, 3) uint8, FAR at the top."""
    part = 1 - (np.arange(height) + 0.5) / height
    colours = range_colours(NEAR * (FAR / NEAR) ** part)
    return np.repeat(colours[:, None], width, axis=1).astype(np.uint8)
