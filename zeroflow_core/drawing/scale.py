"""The colours of an amount, dark to light in even steps, so that every colour vision sees the order."""

from __future__ import annotations

import numpy as np

# Little to much in sRGB. Lightness rises in even steps of OKLab.
_COLOURS = np.array(
    [
        [72, 58, 154],
        [120, 64, 156],
        [163, 72, 146],
        [198, 86, 131],
        [226, 106, 110],
        [246, 132, 92],
        [255, 164, 83],
        [255, 198, 81],
        [244, 234, 104],
    ],
    dtype=np.float32,
)


def scale_colours(part: np.ndarray) -> np.ndarray:
    """sRGB (...,3) float32 in 0…255 of amounts (...) between 0, the darkest colour, and 1, the lightest."""
    at = np.asarray(part) * (len(_COLOURS) - 1)
    stops = np.arange(len(_COLOURS))
    return np.stack([np.interp(at, stops, channel) for channel in _COLOURS.T], axis=-1).astype(np.float32)


def on_log_scale(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 at `low` and below, 1 at `high` and above, even steps of the logarithm between."""
    return np.clip(np.log(np.maximum(values, low) / low) / np.log(high / low), 0.0, 1.0)
