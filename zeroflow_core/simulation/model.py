"""What a vehicle or a person is made of, before it stands anywhere."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zeroflow_core.simulation.solids import Shape, Solid


@dataclass(frozen=True)
class Limb:
    """A part that swings about a joint as its owner travels: a leg, an arm, a pedalling thigh.

    solids: in the limb's frame, whose origin is the joint and whose axes at rest are the body's
    joint:  (x, y, z) in the body's frame, metres
    swing:  amplitude about the y axis, radians
    stride: metres travelled per full swing to and fro
    phase:  radians
    """

    solids: tuple[Solid, ...]
    joint: tuple[float, float, float]
    swing: float
    stride: float
    phase: float = 0.0

    def angle(self, travelled: np.ndarray) -> np.ndarray:
        """Pitch (...) about the joint in radians after `travelled` (...) metres."""
        return self.swing * np.sin(2 * np.pi * np.asarray(travelled) / self.stride + self.phase)


@dataclass(frozen=True)
class Model:
    """A rigid body with limbs, in its own frame: origin on the ground below its middle, x forward, z up.

    category:     AV2's name, such as REGULAR_VEHICLE; None for what AV2 does not annotate
    size, centre: of its box in the body's frame, metres: holds every solid, limbs at every angle of their swing
    """

    category: str | None
    solids: tuple[Solid, ...]
    size: tuple[float, float, float] = (0.0, 0.0, 0.0)
    centre: tuple[float, float, float] = (0.0, 0.0, 0.0)
    limbs: tuple[Limb, ...] = ()


def boxed(category: str | None, solids: list[Solid], limbs: list[Limb] = []) -> Model:  # noqa: B006
    """The model with the tightest box around its solids and its limbs in every position."""
    corners = [_corners(solid) for solid in solids]
    for limb in limbs:
        for angle in np.linspace(-limb.swing, limb.swing, 9):
            c, s = np.cos(angle), np.sin(angle)
            turn = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
            corners += [_corners(solid) @ turn.T + limb.joint for solid in limb.solids]
    low, high = np.concatenate(corners).min(axis=0), np.concatenate(corners).max(axis=0)
    size, centre = high - low, (high + low) / 2
    return Model(category, tuple(solids), tuple(map(float, size)), tuple(map(float, centre)), tuple(limbs))


def _corners(solid: Solid) -> np.ndarray:
    """Points (M,3) in the body's frame whose bounding box is the solid's."""
    h, rotation = np.array(solid.half), solid.rotation
    if solid.shape is Shape.BOX:
        extent = np.abs(rotation) @ h
    elif solid.shape is Shape.ELLIPSOID:
        extent = np.sqrt((rotation * h) ** 2 @ np.ones(3))
    else:
        extent = np.sqrt((rotation[:, :2] * h[:2]) ** 2 @ np.ones(2)) + np.abs(rotation[:, 2]) * h[2]
    return np.array(solid.centre) + np.array([extent, -extent])
