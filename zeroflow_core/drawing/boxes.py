"""Boxes in perspective, and on the ground before them arrows as long as their next second."""

from __future__ import annotations

import numpy as np

from zeroflow_core.drawing.camera import Camera
from zeroflow_core.drawing.lines import Lines
from zeroflow_core.drawing.view import BACKGROUND
from zeroflow_core.objects import MovingObject

LEAST_SIDE = 0.5  # metres: so that pedestrians are seen
_SIGNS = np.array([[1, 1], [1, -1], [-1, -1], [-1, 1]])
_FACES = ((0, 1, 5, 4), (1, 2, 6, 5), (2, 3, 7, 6), (3, 0, 4, 7), (4, 5, 6, 7), (3, 2, 1, 0))
_SHAFT, _HEAD, _HEAD_LENGTH = 0.35, 1.2, 1.6  # metres: widths of the arrow's parts, and the most its head is long


def box_corners(shown: MovingObject) -> np.ndarray:
    """(8,3) metres: front left, front right, back right, back left, below and then above."""
    along, across = _directions(shown.yaw)
    length, width, height = np.maximum(shown.size, LEAST_SIDE) / 2
    sides = shown.centre + _SIGNS[:, :1] * length * along + _SIGNS[:, 1:] * width * across
    up = np.array([0.0, 0.0, height])
    return np.concatenate([sides - up, sides + up])


def draw_box(lines: Lines, camera: Camera, shown: MovingObject, colour: tuple[int, ...], width: float) -> None:
    """Faces that look at the eye are tinted, their edges strong; the edges behind them are faint."""
    corners = box_corners(shown)
    middle = corners.mean(axis=0)
    in_sight, edges = [], {}
    for face in _FACES:
        at = corners[list(face)]
        outwards = at.mean(axis=0) - middle
        seen = float(outwards @ (camera.eye - at[0])) > 0
        in_sight += [at] if seen else []
        for k, corner in enumerate(face):
            edge = frozenset((corner, face[k - 1]))
            edges[edge] = edges.get(edge, False) or seen
    for edge, seen in edges.items():
        if not seen:
            lines.stroke(camera.outline(corners[list(edge)], closed=False), (*colour, 110), width / 2)
    for face in in_sight:
        lines.fill(camera.outline(face), (*colour, 34))
    strong = [camera.outline(corners[list(edge)], closed=False) for edge, seen in edges.items() if seen]
    for edge in strong:
        lines.stroke(edge, (*BACKGROUND, 150), 2.2 * width)
    for edge in strong:
        lines.stroke(edge, colour, width)


def arrow_corners(shown: MovingObject, scale: float) -> np.ndarray:
    """(7,3) metres, the fourth being its tip: flat on the ground, from the middle of the front to where that will be in
    a second.

    scale: of its width, 1 for a road
    """
    length = float(np.hypot(*shown.velocity[:2]))
    along, across = _directions(float(np.arctan2(shown.velocity[1], shown.velocity[0])))
    start = shown.centre + _directions(shown.yaw)[0] * shown.size[0] / 2
    start[2] = shown.centre[2] - shown.size[2] / 2
    head = min(_HEAD_LENGTH * scale, 0.6 * length)
    neck, tip = start + (length - head) * along, start + length * along
    half, barb = _SHAFT / 2 * scale * across, _HEAD / _HEAD_LENGTH * head / 2 * across
    return np.stack([start + half, neck + half, neck + barb, tip, neck - barb, neck - half, start - half])


def draw_arrow(lines: Lines, camera: Camera, corners: np.ndarray, colour: tuple[int, ...], width: float) -> None:
    """The arrow with these corners (7,3)."""
    lines.fill(camera.outline(corners), (*colour, 215))
    middle = np.stack([(corners[0] + corners[-1]) / 2, corners[3]])
    lines.stroke(camera.outline(middle, closed=False), colour, width / 2)  # far away there is no more


def _directions(yaw: float) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors (3,) along `yaw` and to its left."""
    along = np.array([np.cos(yaw), np.sin(yaw), 0.0])
    return along, np.array([-along[1], along[0], 0.0])
