"""What every picture from above shows besides the points: range rings below them, the vehicle on top."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from zeroflow_core.drawing.lettering import Area
from zeroflow_core.drawing.lines import Lines
from zeroflow_core.drawing.view import BACKGROUND, SMALLEST_TEXT, View, font

_RING = np.array([34, 42, 54], dtype=np.float32)
RING_TEXT = (122, 134, 150)
_RING_TEXT_AT = np.deg2rad(np.concatenate([[-30], np.arange(0, 360, 10)]))  # the first in sight is taken
EGO, _EGO_GLASS = (236, 240, 245), (60, 70, 84)
_VEHICLE = (  # corners in metres, and their colour
    ([[2.3, 0.55], [1.9, 0.95], [-2.3, 0.95], [-2.3, -0.95], [1.9, -0.95], [2.3, -0.55]], EGO),
    ([[1.1, 0.75], [0.5, 0.65], [0.5, -0.65], [1.1, -0.75]], _EGO_GLASS),
    ([[-1.4, 0.6], [-1.8, 0.7], [-1.8, -0.7], [-1.4, -0.6]], _EGO_GLASS),
)
_ROAD = 40.0  # metres: the width of the smallest picture of a road


@lru_cache(maxsize=4)
def backdrop(view: View) -> np.ndarray:
    """Background (height, width, 3) float32 with range rings, not to be written to."""
    column, row = np.meshgrid(np.arange(view.width) + 0.5, np.arange(view.height) + 0.5)
    ((ego_column, ego_row),) = view.pixels(np.zeros((1, 2)))
    distance = np.hypot(column - ego_column, row - ego_row)
    canvas = np.empty((view.height, view.width, 3), np.float32)
    canvas[:] = BACKGROUND
    for radius in _radii(view):
        ink = np.clip(1.1 - np.abs(distance - radius * view.pixels_per_metre), 0.0, 1.0)[..., None]
        canvas += ink * (_RING - canvas)
    canvas.setflags(write=False)
    return canvas


def draw_distances(image: Image.Image, view: View) -> list[Area]:
    """Write on each range ring how far away it is. Returns the areas it takes."""
    pen, used = ImageDraw.Draw(image), font(13 * view.unit)
    areas = []
    for radius in _radii(view) if 13 * view.unit >= SMALLEST_TEXT else ():
        for x, y in view.pixels(radius * np.stack([np.cos(_RING_TEXT_AT), np.sin(_RING_TEXT_AT)], axis=1)):
            if abs(x / view.width - 0.5) < 0.45 and abs(y / view.height - 0.5) < 0.45:
                text = f"{radius:g} m"
                edge = max(1, round(2 * view.unit))
                pen.text((x, y), text, RING_TEXT, used, "mm", stroke_width=edge, stroke_fill=BACKGROUND)
                areas.append(pen.textbbox((x, y), text, used, "mm"))
                break
    return areas


def vehicle_scale(metres_across: float) -> float:
    """How much smaller than a car the recording vehicle is drawn: what drives in a small scene is no car."""
    return min(1.0, metres_across / _ROAD)


def vehicle_shapes(scale: float) -> list[tuple[np.ndarray, tuple[int, ...]]]:
    """The recording vehicle, as large as a car at scale 1: corners (N,2) in metres and colour of its body and panes."""
    return [(scale * np.array(shape), colour) for shape, colour in _VEHICLE]


def draw_vehicle(lines: Lines, view: View, scale: float) -> None:
    """The recording vehicle, as large as a car at scale 1."""
    for shape, colour in vehicle_shapes(scale):
        lines.fill(view.pixels(shape), colour)


def _radii(view: View) -> np.ndarray:
    """Metres, of the range rings that reach into the picture: round numbers, of which half its height holds three at
    most, or a quarter of its width where it is flat."""
    room = max(view.height, view.width / 2) / 2 / view.pixels_per_metre
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500) if room / step < 3.5 or step == 500)
    half = np.array([view.width, view.height]) / 2 / view.pixels_per_metre
    farthest = float(np.hypot(*(np.abs(view.centre) + half)))
    return step * np.arange(1, int(farthest / step) + 1)
