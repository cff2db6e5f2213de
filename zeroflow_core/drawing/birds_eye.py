"""A sweep from above: what stands still in grey, what moves in the colours of its heading and speed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from zeroflow_core.drawing import colour_wheel
from zeroflow_core.drawing.lettering import draw_legend, draw_speeds, draw_title
from zeroflow_core.drawing.points import draw_moving, draw_still
from zeroflow_core.drawing.view import BACKGROUND, View, font
from zeroflow_core.objects import MovingObject

_RING = np.array([34, 42, 54], dtype=np.float32)
_RING_TEXT, _RING_TEXT_AT = (98, 110, 126), np.deg2rad(-30.0)
_EGO, _EGO_GLASS = (236, 240, 245), (60, 70, 84)
_FINE = 2  # lines are drawn this much larger, then averaged down


def draw_birds_eye(
    points: np.ndarray,
    velocity: np.ndarray | None = None,
    objects: Sequence[MovingObject] = (),
    *,
    title: str = "",
    subtitle: str = "",
    size: tuple[int, int] = (1280, 720),
    metres_across: float = 102.4,
    min_speed: float = 0.5,
    full_speed: float = 10.0,
) -> Image.Image:
    """Draw one sweep from above, with what moves coloured, boxed and pointed at.

    points:   (N,3) metres in the vehicle frame; rows that are not finite are left out
    velocity: (N,3) m/s over ground in the same frame; rows that are not finite are drawn as standing still
    objects:  get a box, an arrow as long as one second of their motion, and their speed where it finds room
    metres_across: width of the picture in metres
    min_speed:  m/s from which a point counts as moving
    full_speed: m/s at which its colour is full

    Returns an RGB image of `size` (width, height).
    """
    view = View(*size, size[0] / metres_across)
    points = np.asarray(points, dtype=np.float32).reshape(-1, 3)
    velocity = np.zeros_like(points) if velocity is None else np.asarray(velocity, dtype=np.float32)
    pixels, points, velocity = _visible(view, points, velocity.reshape(-1, 3))
    with np.errstate(invalid="ignore"):
        moving = np.isfinite(velocity).all(axis=1) & (np.linalg.norm(velocity, axis=1) >= min_speed)

    canvas = _backdrop(view).copy()
    draw_still(canvas, pixels[~moving], points[~moving, 2])
    colours = colour_wheel.colours(velocity[moving], full_speed)
    occupied = draw_moving(canvas, pixels[moving], colours, radius=max(1.2, 1.4 * view.unit))
    dots = np.clip(canvas, 0, 255).astype(np.uint8)
    image = _draw_lines(Image.fromarray(dots), view, objects, full_speed)
    occupied |= (np.asarray(image) != dots).any(axis=2)

    panels = [draw_legend(image, view, full_speed), *draw_title(image, view, title, subtitle)]
    nearest_first = sorted(objects, key=lambda shown: float(np.hypot(*shown.centre[:2])))
    speeds = [(shown.speed, _corners(view, shown), _arrow(view, shown)) for shown in nearest_first]
    draw_speeds(image, view, speeds, occupied, panels)
    return image


def _visible(
    view: View, points: np.ndarray, velocity: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels (M,2) float32 of the points in the picture, those points and their velocities."""
    pixels = view.pixels(points).astype(np.float32)
    with np.errstate(invalid="ignore"):
        inside = (pixels >= 0).all(axis=1) & (pixels < [view.width, view.height]).all(axis=1)
    inside &= np.isfinite(points[:, 2])
    return pixels[inside], points[inside], velocity[inside]


@lru_cache(maxsize=4)
def _backdrop(view: View) -> np.ndarray:
    """Background (height, width, 3) float32 with range rings and their distances."""
    column, row = np.meshgrid(np.arange(view.width) + 0.5, np.arange(view.height) + 0.5)
    distance = np.hypot(column - view.width / 2, row - view.height / 2)
    canvas = np.empty((view.height, view.width, 3), np.float32)
    canvas[:] = BACKGROUND
    step = _ring_step(view)
    radii = step * np.arange(1, int(distance.max() / view.pixels_per_metre / step) + 1)
    for radius in radii:
        ink = np.clip(1.1 - np.abs(distance - radius * view.pixels_per_metre), 0.0, 1.0)[..., None]
        canvas += ink * (_RING - canvas)
    image = Image.fromarray(canvas.astype(np.uint8))
    pen, used = ImageDraw.Draw(image), font(13 * view.unit)
    for radius in radii:
        ((x, y),) = view.pixels(radius * np.array([[np.cos(_RING_TEXT_AT), np.sin(_RING_TEXT_AT)]]))
        pen.text((x, y), f"{radius:g} m", _RING_TEXT, used, "mm", stroke_width=3, stroke_fill=BACKGROUND)
    return np.asarray(image, dtype=np.float32)


def _ring_step(view: View) -> int:
    """Metres between range rings: a round number that puts at most three of them above the vehicle."""
    above = view.height / 2 / view.pixels_per_metre
    return next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500) if above / step < 3.5 or step == 500)


def _draw_lines(
    image: Image.Image, view: View, objects: Sequence[MovingObject], full_speed: float
) -> Image.Image:
    """The vehicle, and each object's box and arrow, on a copy of `image`."""
    fine = image.resize((image.width * _FINE, image.height * _FINE), Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(fine, "RGBA")
    line = 2.0 * view.unit * _FINE

    def stroke(corners: np.ndarray, colour: tuple[int, ...], width: float) -> None:
        pen.line([tuple(corner) for corner in corners * _FINE], colour, max(1, round(width)), joint="curve")

    def fill(corners: np.ndarray, colour: tuple[int, ...]) -> None:
        pen.polygon([tuple(corner) for corner in corners * _FINE], colour)

    body = [[2.3, 0.55], [1.9, 0.95], [-2.3, 0.95], [-2.3, -0.95], [1.9, -0.95], [2.3, -0.55]]
    fill(view.pixels(np.array(body)), _EGO)
    fill(view.pixels(np.array([[1.1, 0.75], [0.5, 0.65], [0.5, -0.65], [1.1, -0.75]])), _EGO_GLASS)
    fill(view.pixels(np.array([[-1.4, 0.6], [-1.8, 0.7], [-1.8, -0.7], [-1.4, -0.6]])), _EGO_GLASS)

    for shown in objects:
        colour = _line_colour(shown, full_speed)
        box = _corners(view, shown)
        box = np.concatenate([box, box[:2]])  # past the start, so that the last corner is joined too
        fill(box, (*colour, 38))
        stroke(box, (*BACKGROUND, 160), 2.2 * line)
        stroke(box, colour, line)
    for shown in objects:
        colour = _line_colour(shown, full_speed)
        start, tip = _arrow(view, shown)
        length = float(np.linalg.norm(tip - start))
        if length < 4 * view.unit:
            continue
        along = (tip - start) / length
        across = np.array([-along[1], along[0]])
        head = min(11 * view.unit, 0.6 * length)
        neck = tip - head * along
        barbs = np.stack([tip, neck + 0.5 * head * across, neck - 0.5 * head * across])
        middle = barbs.mean(axis=0)
        fill(middle + (barbs - middle) * (1 + 6 * view.unit / head), (*BACKGROUND, 200))
        stroke(np.stack([start, neck]), (*BACKGROUND, 200), 2.4 * line)
        stroke(np.stack([start, neck + along]), colour, 1.2 * line)
        fill(barbs, colour)
    return fine.reduce(_FINE)


def _line_colour(shown: MovingObject, full_speed: float) -> tuple[int, ...]:
    """The colour of the object's points, but never greyer than at half of `full_speed`: lines are thin."""
    velocity = shown.velocity * max(1.0, 0.5 * full_speed / max(shown.speed, 1e-6))
    return tuple(int(value) for value in colour_wheel.colours(velocity[None], full_speed)[0])


def _arrow(view: View, shown: MovingObject) -> np.ndarray:
    """Start and tip (2,2) in pixels: from the middle of the front to where that will be in a second."""
    front = shown.centre[:2] + shown.size[0] / 2 * np.array([np.cos(shown.yaw), np.sin(shown.yaw)])
    return view.pixels(np.stack([front, front + shown.velocity[:2]]))


def _corners(view: View, shown: MovingObject) -> np.ndarray:
    """Corners (4,2) of the box in pixels, at least half a metre wide so that pedestrians are seen."""
    along = np.array([np.cos(shown.yaw), np.sin(shown.yaw)])
    across = np.array([-along[1], along[0]])
    length, width = np.maximum(shown.size[:2], 0.5) / 2
    signs = np.array([[1, 1], [1, -1], [-1, -1], [-1, 1]])
    return view.pixels(shown.centre[:2] + signs[:, :1] * length * along + signs[:, 1:] * width * across)
