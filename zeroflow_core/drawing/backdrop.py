"""What every picture from above shows besides the points: range rings below them, the vehicle on top."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from zeroflow_core.drawing.lines import Lines
from zeroflow_core.drawing.view import BACKGROUND, View, font

_RING = np.array([34, 42, 54], dtype=np.float32)
_RING_TEXT = (98, 110, 126)
_RING_TEXT_AT = np.deg2rad(np.concatenate([[-30], np.arange(0, 360, 10)]))  # the first in sight is taken
_SMALLEST_TEXT = 6  # pixels; nobody reads what is smaller
_EGO, _EGO_GLASS = (236, 240, 245), (60, 70, 84)


@lru_cache(maxsize=4)
def backdrop(view: View) -> np.ndarray:
    """Background (height, width, 3) float32 with range rings and their distances; not to be written to."""
    column, row = np.meshgrid(np.arange(view.width) + 0.5, np.arange(view.height) + 0.5)
    ((ego_column, ego_row),) = view.pixels(np.zeros((1, 2)))
    distance = np.hypot(column - ego_column, row - ego_row)
    canvas = np.empty((view.height, view.width, 3), np.float32)
    canvas[:] = BACKGROUND
    step = _ring_step(view)
    radii = step * np.arange(1, int(distance.max() / view.pixels_per_metre / step) + 1)
    for radius in radii:
        ink = np.clip(1.1 - np.abs(distance - radius * view.pixels_per_metre), 0.0, 1.0)[..., None]
        canvas += ink * (_RING - canvas)
    image = Image.fromarray(canvas.astype(np.uint8))
    pen, used = ImageDraw.Draw(image), font(13 * view.unit)
    for radius in radii if 13 * view.unit >= _SMALLEST_TEXT else ():
        for x, y in view.pixels(radius * np.stack([np.cos(_RING_TEXT_AT), np.sin(_RING_TEXT_AT)], axis=1)):
            if abs(x / view.width - 0.5) < 0.45 and abs(y / view.height - 0.5) < 0.45:
                pen.text((x, y), f"{radius:g} m", _RING_TEXT, used, "mm", stroke_width=3, stroke_fill=BACKGROUND)
                break
    canvas = np.asarray(image, dtype=np.float32)
    canvas.setflags(write=False)
    return canvas


def draw_vehicle(lines: Lines, view: View) -> None:
    """The recording vehicle, in its own size."""
    body = [[2.3, 0.55], [1.9, 0.95], [-2.3, 0.95], [-2.3, -0.95], [1.9, -0.95], [2.3, -0.55]]
    lines.fill(view.pixels(np.array(body)), _EGO)
    lines.fill(view.pixels(np.array([[1.1, 0.75], [0.5, 0.65], [0.5, -0.65], [1.1, -0.75]])), _EGO_GLASS)
    lines.fill(view.pixels(np.array([[-1.4, 0.6], [-1.8, 0.7], [-1.8, -0.7], [-1.4, -0.6]])), _EGO_GLASS)


def _ring_step(view: View) -> int:
    """Metres between range rings: a round number, so that half the picture's height holds at most three."""
    above = view.height / 2 / view.pixels_per_metre
    return next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500) if above / step < 3.5 or step == 500)
