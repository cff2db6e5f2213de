"""What the parts of a picture from above agree on: how metres become pixels, the palette, the font."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import ImageFont

BACKGROUND = (13, 17, 23)
PANEL = (18, 23, 31, 235)
TEXT, FAINT_TEXT = (236, 240, 245), (158, 168, 180)
SMALLEST_TEXT = 6  # pixels; nobody reads what is smaller


@dataclass(frozen=True)
class View:
    """Metres to pixels: x (forward) to the right, y (left) up.

    centre:  what is in the middle of the picture, metres in the vehicle frame
    magnify: how much larger than usual words, dots and lines are: 2 in a picture to be shown at half its size
    """

    width: int
    height: int
    pixels_per_metre: float
    centre: tuple[float, float] = (0.0, 0.0)
    magnify: float = 1.0

    def pixels(self, xy: np.ndarray) -> np.ndarray:
        """Positions (N,2) or (N,3) in metres to pixels (N,2) float64, column first."""
        xy = np.asarray(xy, dtype=np.float64)
        across = self.width / 2 + (xy[:, 0] - self.centre[0]) * self.pixels_per_metre
        down = self.height / 2 - (xy[:, 1] - self.centre[1]) * self.pixels_per_metre
        return np.stack([across, down], axis=1)

    @property
    def unit(self) -> float:
        """Size of what does not scale with the scene, such as text and line widths: 1 at 720 lines."""
        return self.magnify * self.height / 720

    def inside(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which of the points (N,3) are finite and in the picture, (N,) bool, and the pixels (M,2) float32 of those."""
        with np.errstate(invalid="ignore", over="ignore"):  # too far away for a float32 is outside, too
            pixels = self.pixels(points).astype(np.float32)
            column, row = pixels.T
            inside = (column >= 0) & (row >= 0) & (column < self.width) & (row < self.height)
        inside &= np.isfinite(points[:, 2])
        return inside, pixels[inside]


@lru_cache(maxsize=16)
def font(pixels: float) -> ImageFont.FreeTypeFont:
    """The font that Pillow brings along, so that pictures look the same on every machine."""
    return ImageFont.load_default(size=pixels)
