"""What the parts of a picture from above agree on: how metres become pixels, the palette, the font."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import ImageFont

BACKGROUND = (13, 17, 23)
PANEL = (18, 23, 31, 235)
TEXT, FAINT_TEXT = (236, 240, 245), (158, 168, 180)


@dataclass(frozen=True)
class View:
    """Metres to pixels: vehicle in the middle, x (forward) to the right, y (left) up."""

    width: int
    height: int
    pixels_per_metre: float

    def pixels(self, xy: np.ndarray) -> np.ndarray:
        """Positions (N,2) or (N,3) in metres to pixels (N,2) float64, column first."""
        xy = np.asarray(xy, dtype=np.float64)
        across = self.width / 2 + xy[:, 0] * self.pixels_per_metre
        down = self.height / 2 - xy[:, 1] * self.pixels_per_metre
        return np.stack([across, down], axis=1)

    @property
    def unit(self) -> float:
        """Size of what does not scale with the scene, such as text and line widths: 1 at 720 lines."""
        return self.height / 720


@lru_cache(maxsize=16)
def font(pixels: float) -> ImageFont.FreeTypeFont:
    """The font that Pillow brings along, so that pictures look the same on every machine."""
    return ImageFont.load_default(size=pixels)
