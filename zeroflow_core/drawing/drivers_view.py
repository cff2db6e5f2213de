"""A sweep as a driver would see it from a seat behind and above the vehicle, looking ahead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from zeroflow_core.drawing import colour_wheel
from zeroflow_core.drawing.axis import round_down
from zeroflow_core.drawing.backdrop import EGO, RING_TEXT, vehicle_scale, vehicle_shapes
from zeroflow_core.drawing.boxes import arrow_corners, box_corners, draw_arrow, draw_box
from zeroflow_core.drawing.camera import Camera
from zeroflow_core.drawing.lettering import Area, draw_speeds, inside, overlap
from zeroflow_core.drawing.lines import FINE, Lines
from zeroflow_core.drawing.moving import is_moving, line_colour
from zeroflow_core.drawing.points import grey
from zeroflow_core.drawing.view import BACKGROUND, View, font
from zeroflow_core.objects import MovingObject

_SKY, _HAZE, _GROUND = np.float32([[10, 13, 18], [27, 34, 44], [15, 19, 26]])
_RINGS = (10, 20, 50, 100)  # metres from the vehicle in a scene as large as a road
_RING = (47, 57, 71)
_DOT = 0.08  # metres: how large a point is
_LARGEST, _SMALLEST_STILL, _SMALLEST_MOVING = 9, 2, 3  # pixels of the larger picture
_FADE = 80.0  # metres over which the grey of what stands still falls to a third
_HIGH = 4.0  # metres above the ground: what is lightest
_RING_TEXT_AT = np.stack([(np.cos(turn), np.sin(turn), 0.0) for turn in np.deg2rad([-12, 12, -24, 24, 0, -40, 40])])
_NEAR = 0.6  # of the scene's width: as far away as speeds are written
_VEHICLE_OPACITY = 150  # of 255: it fills much of the picture


def draw_drivers_view(
    points: np.ndarray,
    velocity: np.ndarray | None = None,
    objects: Sequence[MovingObject] = (),
    *,
    trails: Sequence[np.ndarray] = (),
    ego_path: np.ndarray | None = None,
    size: tuple[int, int] = (1280, 720),
    metres_across: float = 102.4,
    magnify: float = 1.0,
    min_speed: float = 0.5,
    full_speed: float = 10.0,
) -> Image.Image:
    """Draw one sweep looking ahead, with what moves coloured, boxed and pointed at.

    points:   (N,3) metres in the vehicle frame; rows that are not finite are left out
    velocity: (N,3) m/s over ground in the same frame; rows that are not finite are drawn as standing still
    objects:  get a box, an arrow on the ground as long as one second of their motion, and, unless they are far
        away, their speed where it finds room
    trails:   for each object, (K,3) metres: where it came from, oldest first; or none at all
    ego_path: (K,3) metres: where the vehicle came from, likewise
    metres_across: of the scene: in a smaller one the eye is closer
    magnify:    how much larger than usual words and lines are
    min_speed:  m/s from which a point counts as moving
    full_speed: m/s at which its colour is full

    Returns an RGB image of `size` (width, height).
    """
    camera, view = Camera.over(size, metres_across), View(*size, 1.0, magnify=magnify)
    points = np.asarray(points, dtype=np.float32).reshape(-1, 3)
    ground = _ground(points)
    canvas = _backdrop(camera, ground, view.unit).copy()
    moving = is_moving(points, velocity, min_speed)
    still = _Dots(camera, points[~moving])
    still.draw(canvas, _greys(still, ground, camera.scale), _SMALLEST_STILL)
    occupied = np.zeros((*canvas.shape[:2], 1), dtype=bool)
    if velocity is not None:
        dots = _Dots(camera, points[moving])
        colours = colour_wheel.colours(np.reshape(velocity, (-1, 3))[moving][dots.kept], full_speed)
        dots.draw(canvas, colours, _SMALLEST_MOVING)
        dots.draw(occupied, np.ones((len(colours), 1)), _SMALLEST_MOVING)

    fine, width = Image.fromarray(canvas), 1.8 * view.unit
    in_sight = _in_sight(camera, objects)
    taken = [_around(np.concatenate([one.outline, camera.outline(one.arrow)])) for one in in_sight]
    distances = _draw_distances(fine, camera, ground, view.unit, taken)
    lines = Lines(fine)
    if ego_path is not None:
        lines.fading(camera.outline(ego_path, closed=False), EGO, width)
    for shape, colour in vehicle_shapes(vehicle_scale(metres_across)):
        corners = camera.outline(np.column_stack([shape, np.full(len(shape), ground)]))
        lines.fill(corners, BACKGROUND)  # what came from there lies below
        lines.fill(corners, (*colour, _VEHICLE_OPACITY))
    for shown, trail in zip(objects, trails, strict=False):
        below = trail - [0.0, 0.0, shown.size[2] / 2]
        lines.fading(camera.outline(below, closed=False), line_colour(shown, full_speed), width)
    for one in in_sight:
        colour = line_colour(one.shown, full_speed)
        draw_arrow(lines, camera, one.arrow, colour, width)
        draw_box(lines, camera, one.shown, colour, width)
    image = lines.done()
    near = [one for one in in_sight[::-1] if camera.distance(one.shown.centre) < _NEAR * metres_across]
    speeds = [(one.shown.speed, one.outline, None, line_colour(one.shown, full_speed)) for one in near]
    draw_speeds(image, view, speeds, occupied[::FINE, ::FINE, 0], (), distances)
    return image


@dataclass(frozen=True)
class _InSight:
    """An object in the picture. outline: (N,2) pixels of its box's corners; arrow: (7,3) metres."""

    shown: MovingObject
    outline: np.ndarray
    arrow: np.ndarray


def _in_sight(camera: Camera, objects: Sequence[MovingObject]) -> list[_InSight]:
    """The objects of which a corner at least is in the picture, the farthest first."""
    found = []
    for shown in sorted(objects, key=lambda shown: -camera.distance(shown.centre)):
        outline = camera.outline(box_corners(shown))
        if ((outline >= 0) & (outline < [camera.width, camera.height])).all(axis=1).any():
            found.append(_InSight(shown, outline, arrow_corners(shown, camera.scale)))
    return found


class _Dots:
    """Points in front of a camera, the farthest first.

    kept:  (M,) rows of those of the points given that are in the picture
    depth: (M,) metres ahead of the eye
    z:     (M,) metres
    """

    def __init__(self, camera: Camera, points: np.ndarray) -> None:
        with np.errstate(invalid="ignore"):
            seen = camera.seen_from(points)
            ahead = np.flatnonzero(seen[:, 2] >= camera.nearest)
            ahead = ahead[np.argsort(-seen[ahead, 2])]
            pixels = FINE * camera.pixels(seen[ahead])
            column, row = pixels.T
            shown = (column >= 0) & (row >= 0) & (column < FINE * camera.width) & (row < FINE * camera.height)
        self.kept, self._pixels = ahead[shown], pixels[shown]
        self.depth, self.z = seen[self.kept, 2], points[self.kept, 2]
        self._diameter = np.round(_DOT * camera.scale * camera.focal * FINE / self.depth)

    def draw(self, canvas: np.ndarray, colours: np.ndarray, smallest: int) -> None:
        """Discs at least `smallest` pixels wide on `canvas` (rows, columns, C), in `colours` (M,C)."""
        rows, columns, channels = canvas.shape
        flat, colours = canvas.reshape(-1, channels), colours.astype(canvas.dtype)
        diameters = np.clip(self._diameter, smallest, _LARGEST).astype(np.int64)
        for diameter in np.unique(diameters):  # small to large is far to near
            group = slice(*np.searchsorted(diameters, [diameter, diameter + 1]))
            disc = _disc(int(diameter))
            corner = np.floor(self._pixels[group] - (diameter - 1) / 2).astype(np.int64)
            column = np.clip(corner[:, :1] + disc[:, 0], 0, columns - 1)
            row = np.clip(corner[:, 1:] + disc[:, 1], 0, rows - 1)
            flat[row * columns + column] = colours[group, None]


@lru_cache(maxsize=16)
def _disc(diameter: int) -> np.ndarray:
    """Column and row (K,2) of each pixel of a disc, from 0."""
    offset = np.arange(diameter)
    offset = np.stack(np.meshgrid(offset, offset), axis=-1).reshape(-1, 2)
    return offset[np.hypot(*(offset - (diameter - 1) / 2).T) <= diameter / 2]


def _greys(dots: _Dots, ground: float, scale: float) -> np.ndarray:
    """sRGB (M,3) of what stands still: the higher the lighter, lost in haze far away."""
    nearness = np.exp(-dots.depth / (_FADE * scale))[:, None]
    return _HAZE + (grey(np.clip((dots.z - ground) / (_HIGH * scale), 0.0, 1.0)) - _HAZE) * (0.3 + 0.7 * nearness)


def _ground(points: np.ndarray) -> float:
    """Height of the ground in metres, more or less: to lay the range rings on."""
    z = points[:: max(1, len(points) // 10_000), 2]
    z = z[np.isfinite(z)]
    return round(4 * float(np.percentile(z, 10))) / 4 if len(z) else 0.0


@lru_cache(maxsize=4)
def _backdrop(camera: Camera, ground: float, unit: float) -> np.ndarray:
    """Sky, ground and range rings (rows, columns, 3) uint8, FINE times as large; not to be written to."""
    row = np.arange(FINE * camera.height) + 0.5 - FINE * camera.horizon
    up, down = FINE * camera.horizon, FINE * (camera.height - camera.horizon)
    away = np.clip(np.where(row < 0, -row / up, row / down), 0.0, 1.0)[:, None] ** 0.4
    column = _HAZE + away * (np.where(row[:, None] < 0, _SKY, _GROUND) - _HAZE)
    image = Image.fromarray(np.repeat(column[:, None], FINE * camera.width, axis=1).astype(np.uint8))
    lines, turn = Lines(image), np.deg2rad(np.arange(0.0, 361.0, 3.0))
    for radius in _rings(camera):
        ring = radius * np.stack([np.cos(turn), np.sin(turn), np.zeros_like(turn)], axis=1) + [0.0, 0.0, ground]
        lines.stroke(camera.outline(ring, closed=False), _RING, 1.2 * unit)
    canvas = np.array(image)
    canvas.setflags(write=False)
    return canvas


def _rings(camera: Camera) -> list[float]:
    """Radii of the range rings, metres."""
    return [ring * round_down(camera.scale) for ring in _RINGS]


def _draw_distances(
    fine: Image.Image, camera: Camera, ground: float, unit: float, taken: Sequence[Area]
) -> list[Area]:
    """Write on the larger picture how far away the range rings are, where nothing is `taken`.

    Areas, given and returned, are in pixels of the smaller picture.
    """
    pen, used, areas = ImageDraw.Draw(fine), font(13 * unit * FINE), []
    for radius in _rings(camera):
        text = f"{radius:g} m"
        seen = camera.seen_from(radius * _RING_TEXT_AT + [0.0, 0.0, ground])
        for x, y in FINE * camera.pixels(seen[seen[:, 2] >= camera.nearest]):
            left, top, right, bottom = (edge / FINE for edge in pen.textbbox((x, y), text, used, "mm"))
            area = (left, top, right, bottom)
            if inside(area, (camera.width, camera.height)) and not any(overlap(area, o) for o in (*taken, *areas)):
                pen.text((x, y), text, RING_TEXT, used, "mm", stroke_width=2 * FINE, stroke_fill=BACKGROUND)
                areas.append(area)
                break
    return areas


def _around(corners: np.ndarray) -> Area:
    """The area that the corners (N,2) in pixels span."""
    (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
    return float(left), float(top), float(right), float(bottom)
