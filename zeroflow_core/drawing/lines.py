"""Lines and areas without jagged edges."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

_FINE = 2  # everything is drawn this much larger, then averaged down


class Lines:
    """What is drawn goes on a larger copy of `image`; `done` gives it back in the size of `image`.

    Corners are (N,2) in pixels of `image`, colours RGB or RGBA, widths in pixels.
    """

    def __init__(self, image: Image.Image) -> None:
        self._fine = image.resize((image.width * _FINE, image.height * _FINE), Image.Resampling.NEAREST)
        self._pen = ImageDraw.Draw(self._fine, "RGBA")

    def stroke(self, corners: np.ndarray, colour: tuple[int, ...], width: float) -> None:
        self._pen.line(
            [tuple(corner) for corner in corners * _FINE], colour, max(1, round(width * _FINE)), joint="curve"
        )

    def fill(self, corners: np.ndarray, colour: tuple[int, ...]) -> None:
        self._pen.polygon([tuple(corner) for corner in corners * _FINE], colour)

    def done(self) -> Image.Image:
        return self._fine.reduce(_FINE)
