"""The words on a picture: title, scale bar, and speeds that never cover each other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from zeroflow_core.drawing.axis import round_down
from zeroflow_core.drawing.view import BACKGROUND, FAINT_TEXT, PANEL, SMALLEST_TEXT, TEXT, View, font

Area = tuple[float, float, float, float]  # left, top, right, bottom in pixels


def draw_title(image: Image.Image, view: View, title: str, *subtitles: str) -> list[Area]:
    """Title and lines below it on a panel in the upper left corner. Returns the area they take, if any."""
    lines = [
        (text, font(size * view.unit), colour)
        for text, size, colour in ((title, 24, TEXT), *((line, 15, FAINT_TEXT) for line in subtitles))
        if text
    ]
    if not lines:
        return []
    margin, pad, gap = 16 * view.unit, 12 * view.unit, 6 * view.unit
    pen = ImageDraw.Draw(image, "RGBA")
    widest = max(pen.textlength(text, used) for text, used, _ in lines)
    heights = [sum(used.getmetrics()) for _, used, _ in lines]
    right = margin + 2 * pad + widest
    bottom = margin + 2 * pad + sum(heights) + gap * (len(lines) - 1)
    pen.rounded_rectangle((margin, margin, right, bottom), round(8 * view.unit), PANEL)
    top = margin + pad
    for (text, used, colour), height in zip(lines, heights, strict=True):
        pen.text((margin + pad, top), text, colour, used, "la")
        top += height + gap
    return [(margin, margin, right, bottom)]


def draw_scale_bar(image: Image.Image, view: View) -> list[Area]:
    """A round number of metres, on a panel in the lower left corner of a picture from above.

    Returns the area it takes: none where the picture is too small to read it.
    """
    used = font(13 * view.unit)
    if 13 * view.unit < SMALLEST_TEXT:
        return []
    metres = round_down(max(0.16 * view.width, 60 * view.unit) / view.pixels_per_metre)
    length, text = metres * view.pixels_per_metre, f"{metres:g} m"
    pen = ImageDraw.Draw(image, "RGBA")
    margin, pad, tick = 12 * view.unit, 9 * view.unit, 4 * view.unit
    width = length + 3 * pad + pen.textlength(text, used)
    height = sum(used.getmetrics()) + pad
    area = (margin, image.height - margin - height, margin + width, image.height - margin)
    pen.rounded_rectangle(area, round(6 * view.unit), PANEL)
    left, y = area[0] + pad, (area[1] + area[3]) / 2
    thick = max(1, round(1.5 * view.unit))
    for line in ((left, y, left + length, y), *((x, y - tick, x, y + tick) for x in (left, left + length))):
        pen.line(line, TEXT, thick)
    pen.text((left + length + pad, y), text, TEXT, used, "lm")
    return [area]


def fitting(text: str, used: ImageFont.FreeTypeFont, width: float) -> str:
    """`text`, or as much of its beginning as `width` pixels hold, with an ellipsis."""
    if used.getlength(text) <= width:
        return text
    for end in range(len(text) - 1, 0, -1):
        shorter = text[:end].rstrip() + "…"
        if used.getlength(shorter) <= width:
            return shorter
    return ""


def draw_speeds(
    image: Image.Image,
    view: View,
    speeds: Iterable[tuple[float, np.ndarray, np.ndarray | None, tuple[int, ...]]],
    occupied: np.ndarray,
    panels: Sequence[Area],
    texts: Sequence[Area] = (),
) -> list[Area]:
    """Write the speed of each object beside it, over no other text and over as little else as possible.

    speeds:   speed in m/s, corners (N,2) of the box in pixels, ends (2,2) of the arrow beyond whose tip the speed is
              written, or None: then it is written above the box; and the object's colour, of which the speed has a
              touch. The first choose first; one that finds no room, or whose box is out of sight, goes without
    occupied: (height, width) bool, what had better stay visible
    panels:   areas that hide what lies below them
    texts:    areas that hold text already
    Returns the areas of the speeds written.
    """
    pen, used = ImageDraw.Draw(image), font(15 * view.unit)
    written: list[Area] = []
    for speed, corners, arrow, colour in speeds:
        middle = (*corners.mean(axis=0), *corners.mean(axis=0))
        if not inside(middle, image.size) or any(overlap(middle, panel) for panel in panels):
            continue
        text = f"{speed:.1f} m/s"
        _, _, width, height = pen.textbbox((0, 0), text, used, "lt")
        areas = [
            (x - 2, y - 2, x + width + 2, y + height + 2)
            for x, y in _places(corners, arrow, width, height, gap=5 * view.unit)
        ]
        free = [
            area
            for area in areas
            if inside(area, image.size) and not any(overlap(area, other) for other in (*panels, *texts, *written))
        ]
        if free:
            left, top, right, bottom = min(free, key=lambda area: _covered(area, occupied))
            edge = round(2 * view.unit)
            ink = tuple((white + own) // 2 for white, own in zip(TEXT, colour, strict=True))
            pen.text((left + 2, top + 2), text, ink, used, "lt", stroke_width=edge, stroke_fill=BACKGROUND)
            written.append((left, top, right, bottom))
    return written


def _places(
    corners: np.ndarray, arrow: np.ndarray | None, width: float, height: float, gap: float
) -> list[tuple[float, float]]:
    """Upper left corners where a text of this size would stand well, the best first."""
    x, y = (corners.min(axis=0) + corners.max(axis=0)) / 2
    left, top = corners.min(axis=0) - gap
    right, bottom = corners.max(axis=0) + gap
    places = [
        (x - width / 2, top - height),
        (x - width / 2, bottom),
        (right, y - height / 2),
        (left - width, y - height / 2),
        (right, top - height),
        (right, bottom),
        (left - width, top - height),
        (left - width, bottom),
    ]
    if arrow is not None:
        start, tip = arrow
        along = (tip - start) / max(float(np.linalg.norm(tip - start)), 1e-6)
        half = np.array([width, height]) / 2
        places.insert(0, tuple(tip + along * (half + gap) - half))
    return places


def _covered(area: Area, occupied: np.ndarray) -> int:
    """24ths of the area that are occupied: a few dots more or less must not move a speed from sweep to sweep."""
    left, top, right, bottom = (int(edge) for edge in area)
    return int(24 * occupied[top:bottom, left:right].mean())


def inside(area: Area, size: tuple[int, int]) -> bool:
    """Whether an area is within a picture of `size`."""
    return area[0] >= 0 and area[1] >= 0 and area[2] <= size[0] and area[3] <= size[1]


def overlap(one: Area, other: Area) -> bool:
    """Whether two areas share more than an edge."""
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
