"""A camera that looks ahead from behind and above the vehicle: how places become pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_EYE = np.array([-8.0, 0.0, 4.2])  # metres in the vehicle frame, where the scene is _SCENE metres across
_SCENE, _CLOSER = 102.4, 0.7  # below 1: people in a room are not as small as the room is
_HALF_WIDTH, _HALF_HEIGHT = np.tan(np.deg2rad([35.0, 24.0]))  # what is seen to each side of straight on, at least one
_HORIZON = 0.32  # part of the picture's height above the horizon
_NEAREST = 0.1  # of the eye's height: what is nearer is not drawn


@dataclass(frozen=True)
class Camera:
    """Metres to pixels: x (forward) away from the eye, y (left) to the left, z up.

    scale: 1 for a scene as large as a road; for a smaller one, such as a room, the eye is closer
    """

    width: int
    height: int
    scale: float = 1.0

    @classmethod
    def over(cls, size: tuple[int, int], metres_across: float) -> Camera:
        """The camera for a scene that is `metres_across` wide."""
        return cls(*size, float(np.clip(metres_across / _SCENE, 0.02, 2.0) ** _CLOSER))

    @property
    def eye(self) -> np.ndarray:
        """(3,) metres in the vehicle frame."""
        return self.scale * _EYE

    def distance(self, position: np.ndarray) -> float:
        """Metres over ground from the eye to a position (3,)."""
        return float(np.hypot(*(position - self.eye)[:2]))

    @property
    def nearest(self) -> float:
        """Metres ahead of the eye; what is nearer is not in the picture."""
        return _NEAREST * float(self.eye[2])

    @property
    def focal(self) -> float:
        """Pixels per metre at a depth of one metre."""
        return max(self.width / 2 / _HALF_WIDTH, self.height / 2 / _HALF_HEIGHT)

    @property
    def horizon(self) -> float:
        """Row of what is infinitely far ahead, at any height."""
        return _HORIZON * self.height

    def seen_from(self, positions: np.ndarray) -> np.ndarray:
        """Positions (N,3) in the vehicle frame as (N,3): metres to the right, down, and straight ahead of the eye."""
        offset = np.asarray(positions, dtype=np.float64) - self.eye
        tangent = (self.height / 2 - self.horizon) / self.focal  # of the angle by which the camera looks down
        cos = 1 / np.hypot(1.0, tangent)
        sin = tangent * cos
        return np.stack([-offset[:, 1], -sin * offset[:, 0] - cos * offset[:, 2],
                         cos * offset[:, 0] - sin * offset[:, 2]], axis=1)

    def pixels(self, seen: np.ndarray) -> np.ndarray:
        """Pixels (N,2), column first, of positions (N,3) as `seen_from` gives them, at least `nearest` ahead."""
        return seen[:, :2] * (self.focal / seen[:, 2:]) + [self.width / 2, self.height / 2]

    def outline(self, positions: np.ndarray, closed: bool = True) -> np.ndarray:
        """Pixels (M,2) of what is in front of the eye of a flat area with corners (N,3), or of a line through them.

        Empty where nothing is.
        """
        seen = self.seen_from(positions)
        kept = []
        for k, here in enumerate(seen):
            if k or closed:
                before = seen[k - 1]
                if (before[2] >= self.nearest) != (here[2] >= self.nearest):
                    part = (self.nearest - before[2]) / (here[2] - before[2])
                    kept.append(before + part * (here - before))
            if here[2] >= self.nearest:
                kept.append(here)
        return self.pixels(np.array(kept)) if kept else np.empty((0, 2))
