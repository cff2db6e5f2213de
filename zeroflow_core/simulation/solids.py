"""The shapes that everything but the ground is made of: boxes, upright cylinders and ellipsoids, turned at will."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np


class Shape(IntEnum):
    """In the solid's own frame, whose half extents are (hx, hy, hz)."""

    BOX = 0
    CYLINDER = 1  # axis along the solid's own z, elliptic where hx and hy differ; lay it down by turning it
    ELLIPSOID = 2


@dataclass(frozen=True)
class Windows:
    """A grid of windows in the sides of a box, in metres: recessed, dark, and nearly half of the panes swallow beams.

    spacing: from one window to the next, along the wall and upwards
    size:    of one window, width and height
    sill:    height of the lowest row above the box's bottom
    depth:   how far the panes lie behind the wall
    """

    spacing: tuple[float, float] = (2.6, 3.0)
    size: tuple[float, float] = (1.2, 1.5)
    sill: float = 1.0
    depth: float = 0.15


@dataclass(frozen=True)
class Material:
    """How a surface answers a beam.

    reflectance: 0 … 1, share of the light sent back at normal incidence; retroreflectors above 1
    roughness:   mean depth below the surface at which beams end, metres; it differs from patch to patch of the surface
                 and stays the same there: leaves are deep, steel is not
    loss:        share of the surface that beams pass through to what is behind: glass, gaps between leaves
    """

    reflectance: float = 0.3
    roughness: float = 0.0
    loss: float = 0.0
    windows: Windows | None = None


@dataclass(frozen=True)
class Solid:
    """One shape in the frame of its body.

    half:   (hx, hy, hz), half extents, metres
    centre: (x, y, z) in the body's frame, metres
    turn:   (roll, pitch, yaw) of the solid in the body's frame, radians: R = Rz(yaw) Ry(pitch) Rx(roll)
    """

    shape: Shape
    half: tuple[float, float, float]
    centre: tuple[float, float, float] = (0.0, 0.0, 0.0)
    turn: tuple[float, float, float] = (0.0, 0.0, 0.0)
    material: Material = Material()

    @property
    def rotation(self) -> np.ndarray:
        """body_R_solid (3,3)."""
        return rotation_from_turn(np.array(self.turn))


def rotation_from_turn(turn: np.ndarray) -> np.ndarray:
    """Rz(yaw) Ry(pitch) Rx(roll), shape (...,3,3), from (roll, pitch, yaw) in radians, shape (...,3)."""
    (cr, cp, cy), (sr, sp, sy) = np.cos(turn).T, np.sin(turn).T
    rows = [
        [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
        [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
        [-sp, cp * sr, cp * cr],
    ]
    return np.moveaxis(np.array([[element.T for element in row] for row in rows]), (0, 1), (-2, -1))


def turn_from_rotation(rotation: np.ndarray) -> np.ndarray:
    """(roll, pitch, yaw) (...,3) of rotations (...,3,3), the inverse of rotation_from_turn; roll and yaw unwrapped."""
    pitch = -np.arcsin(np.clip(rotation[..., 2, 0], -1, 1))
    roll = np.arctan2(rotation[..., 2, 1], rotation[..., 2, 2])
    yaw = np.arctan2(rotation[..., 1, 0], rotation[..., 0, 0])
    if rotation.ndim == 2:
        return np.array([roll, pitch, yaw])
    return np.stack([np.unwrap(roll, axis=0), pitch, np.unwrap(yaw, axis=0)], axis=-1)


def solid_extent(solid: Solid, rotation: np.ndarray) -> np.ndarray:
    """Half extents (3,) of the box around a solid in a frame in which it is turned by `rotation` (3,3), metres."""
    half = np.array(solid.half)
    if solid.shape is Shape.BOX:
        return np.abs(rotation) @ half
    if solid.shape is Shape.ELLIPSOID:
        return np.linalg.norm(rotation * half, axis=1)
    return np.linalg.norm(rotation[:, :2] * half[:2], axis=1) + np.abs(rotation[:, 2]) * half[2]
