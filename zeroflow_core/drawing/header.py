"""What stands above the views: title, figures, and over each column its name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from PIL import Image, ImageDraw

from zeroflow_core.drawing.lettering import fitting
from zeroflow_core.drawing.view import FAINT_TEXT, TEXT, font

_TITLE, _SUBTITLE, _FIGURE, _NAME = 21, 14, 14, 16  # pixels at unit 1
_MARGIN, _GAP, _ROW, _BAND = 14, 18, 30, 27  # around everything, between words, from row to row, height of a name
_NAME_BAND = (24, 31, 41)


@dataclass(frozen=True)
class _Words:
    """Words that stay on one row: each with its size in pixels and its colour, and the pixels they take in width."""

    parts: tuple[tuple[str, float, tuple[int, ...]], ...]
    width: float


def draw_header(
    image: Image.Image, width: int, unit: float, title: str, subtitle: str, figures: Sequence[tuple[str, str]]
) -> int:
    """Title, what it adds, and figures at the top of `image`, in as many rows as `width` pixels need.

    Returns the pixels that they take in height, 0 where there is nothing to write.
    """
    margin, gap, room = _MARGIN * unit, _GAP * unit, width - 2 * _MARGIN * unit
    headline = [
        _headline(text, size * unit, colour, room)
        for text, size, colour in ((title, _TITLE, TEXT), (subtitle, _SUBTITLE, FAINT_TEXT))
        if text
    ]
    numbers = [_figure(name, value, unit, room) for name, value in figures]
    rows, numbers_width = _rows(headline, room, gap), _width(numbers, gap)
    at_the_right = bool(rows) and _width(rows[-1], gap) + gap + numbers_width <= room
    pen, y = ImageDraw.Draw(image), 3 * unit
    for row in rows if at_the_right else [*rows, *_rows(numbers, room, gap)]:
        y += _ROW * unit
        _write(pen, row, margin, y - 9 * unit, gap)
    if at_the_right:
        _write(pen, numbers, width - margin - numbers_width, y - 9 * unit, gap)
    return round(y + 2 * unit) if rows or numbers else 0


def _write(pen: ImageDraw.ImageDraw, row: Sequence[_Words], x: float, y: float, gap: float) -> None:
    """A row from `x` on, its base line at `y`."""
    for words in row:
        left = x
        for text, size, colour in words.parts:
            pen.text((left, y), text, colour, font(size), "ls")
            left += font(size).getlength(text)
        x += words.width + gap


def draw_name(image: Image.Image, place: tuple[int, int, int], unit: float, name: str, num_objects: int) -> int:
    """The name of a column on a band across it, and how much moves in it.

    place: left, top and right edge of the column in pixels
    Returns the height of the band.
    """
    left, top, right = place
    height = round(_BAND * unit)
    pen, large, small = ImageDraw.Draw(image), font(_NAME * unit), font(_SUBTITLE * unit)
    pen.rectangle((left, top, right - 1, top + height - 1), _NAME_BAND)
    x, base = left + _MARGIN * unit, top + height / 2 + 5.5 * unit
    pen.text((x, base), name, TEXT, large, "ls")
    counted = "1 moving object" if num_objects == 1 else f"{num_objects} moving objects"
    x += large.getlength(name) + _GAP * unit
    pen.text((x, base), fitting(counted, small, right - x), FAINT_TEXT, small, "ls")
    return height


def _headline(text: str, size: float, colour: tuple[int, ...], room: float) -> _Words:
    text = fitting(text, font(size), room)
    return _Words(((text, size, colour),), font(size).getlength(text))


def _figure(name: str, value: str, unit: float, room: float) -> _Words:
    """As wide as it is with any other digits, and with a few more of them: figures that follow stay where they are."""
    size, step = _FIGURE * unit, 8 * unit
    name = fitting(f"{name} ", font(size), room / 2)
    widest = font(size).getlength(name) + font(size).getlength(re.sub(r"\d", "0", value))
    return _Words(((name, size, FAINT_TEXT), (value, size, TEXT)), ceil(widest / step) * step)


def _width(row: Sequence[_Words], gap: float) -> float:
    return sum(words.width for words in row) + gap * max(len(row) - 1, 0)


def _rows(cells: Sequence[_Words], room: float, gap: float) -> list[list[_Words]]:
    """The cells in their order, each row no wider than `room` pixels, unless one alone is."""
    rows: list[list[_Words]] = []
    left = 0.0
    for cell in cells:
        if not rows or left + cell.width > room:
            rows.append([])
            left = 0.0
        rows[-1].append(cell)
        left += cell.width + gap
    return rows
