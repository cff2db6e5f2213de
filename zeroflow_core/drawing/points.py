"""Points as dots on a canvas (height, width, 3) float32 of sRGB values, drawn in place."""

from __future__ import annotations

import numpy as np

_LOW = np.array([58, 68, 82], dtype=np.float32)
_HIGH = np.array([172, 182, 194], dtype=np.float32)


def grey(height: np.ndarray) -> np.ndarray:
    """sRGB (N,3) float32 in 0…255 of what stands still, by heights (N,) or (N,1) from 0, the ground, to 1, high up."""
    return _LOW + (_HIGH - _LOW) * np.asarray(height, dtype=np.float32).reshape(-1, 1)


def draw_still(
    canvas: np.ndarray, pixels: np.ndarray, z: np.ndarray, tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
) -> None:
    """Soft grey dots, each spread over its four nearest pixels: the higher and the denser, the lighter.

    pixels: (N,2) float, column first, inside the canvas; z: (N,) metres
    tint:   what red, green and blue of the greys are multiplied by
    """
    if len(pixels) == 0:
        return
    rows, columns = canvas.shape[:2]
    height = np.clip((z - np.percentile(z, 10)) / 3.0, 0.0, 1.0)
    corner = np.floor(pixels - 0.5).astype(np.int64)
    fraction = pixels - 0.5 - corner
    at, share = [], []
    for right, below in ((0, 0), (1, 0), (0, 1), (1, 1)):
        share.append(np.abs(1 - right - fraction[:, 0]) * np.abs(1 - below - fraction[:, 1]))
        row = np.clip(corner[:, 1] + below, 0, rows - 1)
        column = np.clip(corner[:, 0] + right, 0, columns - 1)
        at.append(row * columns + column)
    at, share = np.concatenate(at), np.concatenate(share)
    ink = np.bincount(at, share, rows * columns)
    ink_height = np.bincount(at, share * np.tile(height, 4), rows * columns)

    drawn = np.flatnonzero(ink)
    mean_height = (ink_height[drawn] / ink[drawn])[:, None]
    cover = 1 - np.exp(-(0.9 + 1.1 * mean_height) * ink[drawn, None])
    flat = canvas.reshape(-1, 3)
    colours = np.float32(tint) * grey(mean_height)
    flat[drawn] += cover * (colours - flat[drawn])


def draw_moving(canvas: np.ndarray, pixels: np.ndarray, colours: np.ndarray, radius: float) -> np.ndarray:
    """Discs in the points' own colours; where they overlap, the mean of them.

    pixels: (N,2) float, column first; colours: (N,3) in 0…255; radius: pixels
    Returns the mask (height, width) bool of what they cover.
    """
    rows, columns = canvas.shape[:2]
    reach = int(np.ceil(radius))
    offset = np.arange(-reach, reach + 1)
    offset = np.stack(np.meshgrid(offset, offset), axis=-1).reshape(-1, 2)
    at = np.floor(pixels).astype(np.int64)[:, None] + offset
    share = np.clip(radius + 0.5 - np.linalg.norm(at + 0.5 - pixels[:, None], axis=2), 0.0, 1.0)
    point, place = np.nonzero((share > 0) & (at >= 0).all(axis=2) & (at < [columns, rows]).all(axis=2))
    share, at = share[point, place], at[point, place] @ [1, columns]

    ink = np.bincount(at, share, rows * columns)
    drawn = np.flatnonzero(ink)
    mean = np.empty((len(drawn), 3))
    for channel in range(3):
        inked = np.bincount(at, share * colours[point, channel], rows * columns)
        mean[:, channel] = inked[drawn] / ink[drawn]
    flat = canvas.reshape(-1, 3)
    flat[drawn] += np.minimum(ink[drawn, None], 1.0) * (mean - flat[drawn])
    return (ink > 0).reshape(rows, columns)
