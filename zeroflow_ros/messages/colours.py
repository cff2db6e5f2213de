"""The colours of points for viewers: heading and speed as everywhere in this package, packed as PCL packs them."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from zeroflow_core.drawing.colour_wheel import STILL, colours
from zeroflow_core.pairs import Status

FULL_SPEED = 10.0  # m/s, from which a colour is full
_GROUND = (50, 55, 63)
_UNKNOWN = (40, 43, 50)  # still to be told from the background of the views
_HEADINGS, _STRENGTHS = 360, 64  # colours that are told apart


def packed_colours(velocity: np.ndarray, speed: np.ndarray, status: np.ndarray, min_speed: float) -> np.ndarray:
    """(N,) float32 whose bits are 0x00RRGGBB: by heading and speed what moves, grey what stands still, darker ground,
    and darkest what there is no estimate for.

    velocity:  (N,3), m/s over ground, in the vehicle frame, so that one hue is one way to go; NaN without estimate
    speed:     (N,), m/s, its length
    status:    (N,) uint8, a zeroflow_core.pairs.Status for each point
    min_speed: m/s; what is slower is grey
    """
    packed = _by_status()[status]
    rows = np.flatnonzero(speed >= min_speed)  # NaN is not
    if len(rows) > 0:
        vx, vy = velocity[rows, 0], velocity[rows, 1]
        with np.errstate(invalid="ignore", over="ignore"):  # nonsense in, some colour out
            heading = np.rint(np.nan_to_num(np.arctan2(vy, vx)) * np.float32(_HEADINGS / (2 * np.pi))).astype(np.int32)
            level = np.minimum(speed[rows] * np.float32(_STRENGTHS / FULL_SPEED), _STRENGTHS).astype(np.int32)
        packed[rows] = _by_motion()[heading % _HEADINGS, level]
    return packed.view(np.float32)


@lru_cache(maxsize=1)
def _by_status() -> np.ndarray:
    """uint32 of each Status, of what does not move."""
    shown = {Status.OK: STILL, Status.GROUND: _GROUND}
    return _packed(np.array([shown.get(status, _UNKNOWN) for status in Status]))


@lru_cache(maxsize=1)
def _by_motion() -> np.ndarray:
    """uint32 (headings, strengths + 1)."""
    angle, level = np.meshgrid(
        np.arange(_HEADINGS) * (2 * np.pi / _HEADINGS), np.arange(_STRENGTHS + 1), indexing="ij"
    )
    speed = (level + 0.5) * (FULL_SPEED / _STRENGTHS)
    velocity = np.stack([(speed * np.cos(angle)).ravel(), (speed * np.sin(angle)).ravel()], axis=1)
    return _packed(colours(velocity, FULL_SPEED)).reshape(angle.shape)


def _packed(rgb: np.ndarray) -> np.ndarray:
    """(N,) uint32 of (N,3) in 0…255."""
    red, green, blue = np.rint(rgb).astype(np.uint32).T
    return (red << 16) | (green << 8) | blue
