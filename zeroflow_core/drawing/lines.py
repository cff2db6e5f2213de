"""Lines and areas without jagged edges."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

FINE = 2  # everything is drawn this much larger, then averaged down


class Lines:
    """What is drawn goes on a copy of a picture that is FINE times as large; `done` gives it back in its size.

    Corners are (N,2) in pixels of the picture, colours RGB or RGBA, widths in pixels. Where there are too few corners
    nothing is drawn.
    """

    def __init__(self, fine: Image.Image) -> None:
        """fine: the larger picture, drawn on"""
        self._fine = fine
        self._pen = ImageDraw.Draw(fine, "RGBA")

    @classmethod
    def over(cls, image: Image.Image) -> Lines:
        """For lines on a copy of `image`."""
        return cls(image.resize((image.width * FINE, image.height * FINE), Image.Resampling.NEAREST))

    def stroke(self, corners: np.ndarray, colour: tuple[int, ...], width: float) -> None:
        if len(corners) >= 2:
            self._pen.line((corners * FINE).ravel().tolist(), colour, max(1, round(width * FINE)), joint="curve")

    def fading(self, corners: np.ndarray, colour: tuple[int, ...], width: float) -> None:
        """A line that is faint where it begins and all there where it ends."""
        for k in range(len(corners) - 1):
            self.stroke(corners[k : k + 2], (*colour, round(40 + 180 * (k + 1) / (len(corners) - 1))), width)

    def fill(self, corners: np.ndarray, colour: tuple[int, ...]) -> None:
        if len(corners) >= 3:
            self._pen.polygon((corners * FINE).ravel().tolist(), colour)

    def done(self) -> Image.Image:
        return self._fine.reduce(FINE)
