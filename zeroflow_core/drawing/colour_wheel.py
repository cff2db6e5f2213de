"""The colour of a velocity: heading gives the hue, speed how far it stands out from grey.

The hues run through OKLab, a space of even perceived steps. Ahead and behind are amber and blue, which every
common colour vision tells apart; left is lighter than right, because green and pink are not for everybody.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

STILL = np.array([88, 96, 108], dtype=np.float32)  # sRGB of speed 0

_HUE_AHEAD = np.deg2rad(80.0)  # amber
_LIGHTNESS, _LIGHTNESS_SWING = 0.73, 0.12
_LIGHTEST = np.deg2rad(55.0)  # heading of the lightest colour: ahead and to the left
_MAX_CHROMA = 0.19
_SPEED_EXPONENT = 0.4  # below 1, so that a pedestrian is not as grey as a wall
_LAB_TO_CONES = np.array(
    [
        [1.0, 1.0, 1.0],
        [0.3963377774, -0.1055613458, -0.0894841775],
        [0.2158037573, -0.0638541728, -1.2914855480],
    ]
)
_CONES_TO_RGB = np.array(
    [
        [4.0767416621, -1.2684380046, -0.0041960863],
        [-3.3077115913, 2.6097574011, -0.7034186147],
        [0.2309699292, -0.3413193965, 1.7076147010],
    ]
)


def colours(velocity: np.ndarray, full_speed: float) -> np.ndarray:
    """sRGB (N,3) float32 in 0…255 of velocities (N,2) or (N,3) in m/s, z ignored.

    full_speed: m/s from which the colour is full
    """
    with np.errstate(over="ignore"):
        speed = np.hypot(velocity[:, 0], velocity[:, 1])
    heading = np.arctan2(velocity[:, 1], velocity[:, 0])
    table = _hues()
    hue = table[np.round(heading * (len(table) / (2 * np.pi))).astype(np.int64) % len(table)]
    strength = np.clip(speed / full_speed, 0.0, 1.0)[:, None] ** _SPEED_EXPONENT
    return (STILL + (hue - STILL) * strength).astype(np.float32)


def wheel(diameter: int, full_speed: float) -> np.ndarray:
    """RGBA (diameter, diameter, 4) uint8: every heading and speed, x to the right, y up."""
    radius = diameter / 2
    offset = (np.arange(diameter) + 0.5 - radius) / radius
    x, y = np.meshgrid(offset, -offset)
    velocity = full_speed * np.stack([x.ravel(), y.ravel()], axis=1)
    image = np.empty((diameter, diameter, 4), dtype=np.uint8)
    image[..., :3] = colours(velocity, full_speed).reshape(diameter, diameter, 3)
    image[..., 3] = 255 * np.clip((1.0 - np.hypot(x, y)) * radius, 0.0, 1.0)
    return image


@lru_cache(maxsize=1)
def _hues() -> np.ndarray:
    """sRGB (360,3) float32 of full speed, one row per degree of heading; as much chroma as sRGB can show."""
    heading = np.deg2rad(np.arange(360.0))
    hue = _HUE_AHEAD + heading
    lightness = _LIGHTNESS + _LIGHTNESS_SWING * np.cos(heading - _LIGHTEST)
    shown, beyond = np.zeros(360), np.full(360, _MAX_CHROMA)
    for _ in range(20):
        chroma = (shown + beyond) / 2
        linear = _linear_rgb(lightness, chroma * np.cos(hue), chroma * np.sin(hue))
        fits = ((linear >= 0.0) & (linear <= 1.0)).all(axis=1)
        shown, beyond = np.where(fits, chroma, shown), np.where(fits, beyond, chroma)
    linear = np.clip(_linear_rgb(lightness, shown * np.cos(hue), shown * np.sin(hue)), 0.0, 1.0)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return (255 * encoded).astype(np.float32)


def _linear_rgb(lightness: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """OKLab to linear sRGB (N,3), by the constants of the space's definition."""
    cones = (np.column_stack([lightness, a, b]) @ _LAB_TO_CONES) ** 3
    return cones @ _CONES_TO_RGB
