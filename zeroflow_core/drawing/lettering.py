"""The words on a picture: title, colour-wheel legend, and speeds that never cover each other."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from zeroflow_core.drawing import colour_wheel
from zeroflow_core.drawing.view import BACKGROUND, FAINT_TEXT, PANEL, TEXT, View, font

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


def draw_legend(image: Image.Image, view: View, full_speed: float) -> Area:
    """The colour wheel on a panel in the upper right corner. Returns the area it takes."""
    legend = _legend(view.unit, full_speed)
    margin = round(16 * view.unit)
    left = image.width - margin - legend.width
    image.paste(legend, (left, margin), legend)
    return left, margin, left + legend.width, margin + legend.height


@lru_cache(maxsize=4)
def _legend(unit: float, full_speed: float) -> Image.Image:
    width, height, diameter = round(206 * unit), round(190 * unit), round(104 * unit)
    panel = Image.new("RGBA", (width, height))
    pen = ImageDraw.Draw(panel)
    pen.rounded_rectangle((0, 0, width - 1, height - 1), round(8 * unit), PANEL)
    left, top = (width - diameter) // 2, round(27 * unit)
    disc = Image.fromarray(colour_wheel.wheel(diameter, full_speed))
    panel.paste(disc, (left, top), disc)

    x, y = left + diameter / 2, top + diameter / 2
    ring, edge = diameter / 4, diameter / 2 + 5 * unit
    pen.ellipse((x - ring, y - ring, x + ring, y + ring), outline=(*BACKGROUND, 150))
    small = font(13 * unit)
    pen.text((x, y - edge), "left", FAINT_TEXT, small, "mb")
    pen.text((x, y + edge), "right", FAINT_TEXT, small, "mt")
    pen.text((x + edge, y), "ahead", FAINT_TEXT, small, "lm")
    pen.text((x - edge, y), "back", FAINT_TEXT, small, "rm")
    text = f"ring {full_speed / 2:g}, rim {full_speed:g} m/s"
    pen.text((x, height - 11 * unit), text, TEXT, font(14 * unit), "mb")
    return panel


def draw_speeds(
    image: Image.Image,
    view: View,
    speeds: Iterable[tuple[float, np.ndarray, np.ndarray]],
    occupied: np.ndarray,
    panels: list[Area],
) -> list[Area]:
    """Write the speed of each object beside it, over no other text and over as little else as possible.

    speeds:   speed in m/s, corners (4,2) of the box and ends (2,2) of the arrow in pixels. The first choose
              first; one that finds no room, or whose box is out of sight, goes without
    occupied: (height, width) bool, what had better stay visible
    panels:   areas that hold text already
    Returns the areas of the speeds written.
    """
    pen, used = ImageDraw.Draw(image), font(15 * view.unit)
    written: list[Area] = []
    for speed, corners, arrow in speeds:
        middle = (*corners.mean(axis=0), *corners.mean(axis=0))
        if not _inside(middle, image.size) or any(_overlap(middle, panel) for panel in panels):
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
            if _inside(area, image.size) and not any(_overlap(area, other) for other in panels + written)
        ]
        if free:
            left, top, right, bottom = min(free, key=lambda area: _covered(area, occupied))
            edge = round(2 * view.unit)
            pen.text((left + 2, top + 2), text, TEXT, used, "lt", stroke_width=edge, stroke_fill=BACKGROUND)
            written.append((left, top, right, bottom))
    return written


def _places(
    corners: np.ndarray, arrow: np.ndarray, width: float, height: float, gap: float
) -> list[tuple[float, float]]:
    """Upper left corners where a text of this size would stand well, the best first."""
    start, tip = arrow
    x, y = corners.mean(axis=0)
    left, top = np.minimum(corners.min(axis=0), arrow.min(axis=0)) - gap
    right, bottom = np.maximum(corners.max(axis=0), arrow.max(axis=0)) + gap
    return [
        (tip[0] + gap if tip[0] >= start[0] else tip[0] - gap - width, tip[1] - height / 2),
        (x - width / 2, top - height),
        (x - width / 2, bottom),
        (right, y - height / 2),
        (left - width, y - height / 2),
        (right, top - height),
        (right, bottom),
        (left - width, top - height),
        (left - width, bottom),
    ]


def _covered(area: Area, occupied: np.ndarray) -> int:
    left, top, right, bottom = (int(edge) for edge in area)
    return int(occupied[top:bottom, left:right].sum())


def _inside(area: Area, size: tuple[int, int]) -> bool:
    return area[0] >= 0 and area[1] >= 0 and area[2] <= size[0] and area[3] <= size[1]


def _overlap(one: Area, other: Area) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
