"""A sweep from above: what stands still in grey, what moves in the colours of its heading and speed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageChops

from zeroflow_core.drawing import colour_wheel
from zeroflow_core.drawing.backdrop import EGO, backdrop, draw_distances, draw_vehicle, vehicle_scale
from zeroflow_core.drawing.legend import draw_legend
from zeroflow_core.drawing.lettering import draw_scale_bar, draw_speeds, draw_title
from zeroflow_core.drawing.lines import Lines
from zeroflow_core.drawing.moving import is_moving, line_colour
from zeroflow_core.drawing.points import draw_moving, draw_still
from zeroflow_core.drawing.view import BACKGROUND, View
from zeroflow_core.objects import MovingObject


def draw_birds_eye(
    points: np.ndarray,
    velocity: np.ndarray | None = None,
    objects: Sequence[MovingObject] = (),
    *,
    trails: Sequence[np.ndarray] = (),
    ego_path: np.ndarray | None = None,
    title: str = "",
    subtitle: str = "",
    size: tuple[int, int] = (1280, 720),
    metres_across: float = 102.4,
    centre: tuple[float, float] = (0.0, 0.0),
    magnify: float = 1.0,
    legend: bool = True,
    min_speed: float = 0.5,
    full_speed: float = 10.0,
) -> Image.Image:
    """Draw one sweep from above, with what moves coloured, boxed and pointed at.

    points:   (N,3) metres in the vehicle frame; rows that are not finite are left out
    velocity: (N,3) m/s over ground in the same frame; rows that are not finite are drawn as standing still
    objects:  get a box, an arrow as long as one second of their motion, and their speed where it finds room
    trails:   for each object, (K,3) metres: where it came from, oldest first; or none at all
    ego_path: (K,3) metres: where the vehicle came from, likewise
    metres_across: width of the picture in metres
    centre:     what is in the middle of the picture, metres in the vehicle frame
    magnify:    how much larger than usual words, dots and lines are: 2 in a picture to be shown at half its size
    legend:     show the colour wheel
    min_speed:  m/s from which a point counts as moving
    full_speed: m/s at which its colour is full

    Returns an RGB image of `size` (width, height).
    """
    view = View(*size, size[0] / metres_across, centre, magnify)
    points = np.asarray(points, dtype=np.float32).reshape(-1, 3)
    velocity = np.zeros_like(points) if velocity is None else np.asarray(velocity, dtype=np.float32)
    inside, pixels = view.inside(points)
    points, velocity = points[inside], velocity.reshape(-1, 3)[inside]
    moving = is_moving(points, velocity, min_speed)

    canvas = backdrop(view).copy()
    draw_still(canvas, pixels[~moving], points[~moving, 2])
    colours = colour_wheel.colours(velocity[moving], full_speed)
    occupied = draw_moving(canvas, pixels[moving], colours, radius=max(1.2, 1.4 * view.unit))
    image = Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8))
    distances = draw_distances(image, view)
    dots, image = image, _draw_lines(image, view, objects, trails, ego_path, full_speed)
    occupied |= np.asarray(ImageChops.difference(dots, image).convert("L")) > 0

    panels = [draw_legend(image, view, full_speed)] if legend else []
    panels += draw_title(image, view, title, subtitle) + draw_scale_bar(image, view)
    nearest_first = sorted(objects, key=lambda shown: float(np.hypot(*shown.centre[:2])))
    speeds = [
        (shown.speed, _corners(view, shown), _arrow(view, shown), line_colour(shown, full_speed))
        for shown in nearest_first
    ]
    draw_speeds(image, view, speeds, occupied, panels, distances)
    return image


def _draw_lines(
    image: Image.Image,
    view: View,
    objects: Sequence[MovingObject],
    trails: Sequence[np.ndarray],
    ego_path: np.ndarray | None,
    full_speed: float,
) -> Image.Image:
    """The vehicle, each object's box and arrow, and where they came from, on a copy of `image`."""
    lines, width = Lines.over(image), 2.0 * view.unit
    if ego_path is not None:
        lines.fading(view.pixels(ego_path), EGO, width)
    for shown, trail in zip(objects, trails, strict=False):
        lines.fading(view.pixels(trail), line_colour(shown, full_speed), width)
    draw_vehicle(lines, view, vehicle_scale(image.width / view.pixels_per_metre))
    for shown in objects:
        colour = line_colour(shown, full_speed)
        box = _corners(view, shown)
        box = np.concatenate([box, box[:2]])  # past the start, so that the last corner is joined too
        lines.fill(box, (*colour, 38))
        lines.stroke(box, (*BACKGROUND, 160), 2.2 * width)
        lines.stroke(box, colour, width)
    for shown in objects:
        colour = line_colour(shown, full_speed)
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
        lines.fill(middle + (barbs - middle) * (1 + 6 * view.unit / head), (*BACKGROUND, 200))
        lines.stroke(np.stack([start, neck]), (*BACKGROUND, 200), 2.4 * width)
        lines.stroke(np.stack([start, neck + along]), colour, 1.2 * width)
        lines.fill(barbs, colour)
    return lines.done()


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
