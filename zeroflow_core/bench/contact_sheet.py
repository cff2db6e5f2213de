"""Sweeps below each other, each from above and as its scanner sees it: real and simulated side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from zeroflow_core.bench.statistics import Sample
from zeroflow_core.drawing.birds_eye import draw_birds_eye
from zeroflow_core.drawing.range_view import draw_range_view
from zeroflow_core.drawing.view import BACKGROUND
from zeroflow_core.errors import ZeroFlowError

_ABOVE, _SEEN, _GAP = (640, 360), (1280, 360), 8  # pixels
_MAGNIFY = 1.4  # words that can be read in a view this small


def save_contact_sheet(path: Path, rows: Sequence[tuple[str, Sample]]) -> None:
    """One row for each title and sample: from above over 80 m with what moves in colour, then as the scanner sees it.

    Raises:
        ZeroFlowError: the file cannot be written.
    """
    low, high = _elevations([sample for _, sample in rows])
    height = _ABOVE[1] + _GAP
    sheet = Image.new("RGB", (_ABOVE[0] + _GAP + _SEEN[0], len(rows) * height - _GAP), BACKGROUND)
    for k, (title, sample) in enumerate(rows):
        points = sample.sweep0.points
        above = draw_birds_eye(
            points, sample.velocity, size=_ABOVE, metres_across=80.0, title=title, legend=k == 0, magnify=_MAGNIFY
        )
        seen = draw_range_view(
            points,
            origin=sample.origin,
            size=_SEEN,
            elevations=(low, high),
            title=title,
            subtitle=f"{len(points):,} returns",
        )
        sheet.paste(above, (0, k * height))
        sheet.paste(seen, (_ABOVE[0] + _GAP, k * height))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(path)
    except OSError as error:
        raise ZeroFlowError(f"cannot write {path}: {error.strerror or error}") from error


def _elevations(samples: Sequence[Sample]) -> tuple[float, float]:
    """Lowest and highest elevation in whole five degrees that show nearly all returns of every sample."""
    lowest, highest = [], []
    for sample in samples:
        offset = sample.sweep0.points - sample.origin
        offset = offset[np.isfinite(offset).all(axis=1)]
        if len(offset):
            elevation = np.rad2deg(np.arctan2(offset[:, 2], np.hypot(offset[:, 0], offset[:, 1])))
            low, high = np.percentile(elevation, [0.2, 99.8])
            lowest.append(low)
            highest.append(high)
    if not lowest:
        return -30.0, 20.0
    return float(np.floor(min(lowest) / 5 - 0.2) * 5), float(np.ceil(max(highest) / 5 + 0.2) * 5)
