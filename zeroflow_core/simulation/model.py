"""What a vehicle or a person is made of, before it stands anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zeroflow_core.simulation.solids import Solid, rotation_from_turn, solid_extent


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


def boxed(category: str | None, solids: Sequence[Solid], limbs: Sequence[Limb] = ()) -> Model:
    """The model with the tightest box around its solids and its limbs in every position."""
    corners = [_corners(solid, np.eye(3)) for solid in solids]
    for limb in limbs:
        for angle in np.linspace(-limb.swing, limb.swing, 17):
            turn = rotation_from_turn(np.array([0.0, angle, 0.0]))
            corners += [_corners(solid, turn) + limb.joint for solid in limb.solids]
    low, high = np.concatenate(corners).min(axis=0), np.concatenate(corners).max(axis=0)
    size, centre = high - low, (high + low) / 2
    return Model(category, tuple(solids), tuple(map(float, size)), tuple(map(float, centre)), tuple(limbs))


def _corners(solid: Solid, turn: np.ndarray) -> np.ndarray:
    """Two points (2,3) whose bounding box is that of the solid, turned about the origin by `turn` (3,3)."""
    extent = solid_extent(solid, turn @ solid.rotation)
    return turn @ solid.centre + np.array([extent, -extent])
