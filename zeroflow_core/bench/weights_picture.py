"""The errors of weights as bars: what moves, and what only seems to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw

from zeroflow_core.bench.weights_methods import FORWARD, ZERO
from zeroflow_core.drawing.axis import Axis
from zeroflow_core.drawing.curves import COLOURS
from zeroflow_core.drawing.view import BACKGROUND, FAINT_TEXT, PANEL, TEXT, font

_MARGIN, _GAP, _PAD = 20, 18, 20
_WIDTH = 620  # of a panel, pixels
_TOP, _BOTTOM = 84, 44  # of a panel, outside its bars
_BAR, _BETWEEN = 13, 14  # a bar's height, and the room between two sets
_LEGEND = 34
_GRID, _ZERO_COLOUR = (42, 51, 64), (110, 120, 134)


@dataclass(frozen=True)
class Bars:
    """One panel.

    title, unit: what is drawn, and in what
    rows:        name of each set, with a value for each method, None where there is none
    decimals:    of the numbers beside the bars
    """

    title: str
    unit: str
    rows: Sequence[tuple[str, Sequence[float | None]]]
    decimals: int


def draw_weights(results: dict[str, Any]) -> Image.Image:
    """Three-way errors of all sets in which something moves, zero flow's among them; beside them, of all sets, the
    share of standing points above 0.5 m/s.

    results: content of the JSON file

    Returns an RGB image.
    """
    methods = list(results["methods"])
    others = [name for name in methods if name != ZERO]

    def values(one: dict, names: Sequence[str], figure: str, scale: float = 1.0) -> list[float | None]:
        found = [one["scores"][name][FORWARD][figure] for name in names]
        return [None if value is None else scale * value for value in found]

    errors = [(one["name"], values(one, methods, "three_way_epe")) for one in results["sets"]]
    too_fast = [(one["name"], values(one, others, "too_fast", 100)) for one in results["sets"]]
    errors = [row for row in errors if any(value is not None for value in row[1])]
    colours = dict(zip(others, COLOURS * (1 + len(others) // len(COLOURS)), strict=False)) | {ZERO: _ZERO_COLOUR}
    panels = [
        (Bars("Three-way error", "metres per pair, 2023 rules of Argoverse 2", errors, 3), methods),
        (Bars("Standing points that seem to move", "per cent above 0.5 m/s, ground left out", too_fast, 2), others),
    ]
    panels = [(bars, names) for bars, names in panels if bars.rows]
    height = max(_TOP + _BOTTOM + len(bars.rows) * (len(names) * _BAR + _BETWEEN) for bars, names in panels)
    size = 2 * _MARGIN + len(panels) * (_WIDTH + _GAP) - _GAP, 2 * _MARGIN + _LEGEND + height
    image = Image.new("RGB", size, BACKGROUND)
    pen = ImageDraw.Draw(image, "RGBA")
    _draw_legend(pen, [(name, colours[name]) for name in methods])
    for k, (bars, names) in enumerate(panels):
        left = _MARGIN + k * (_WIDTH + _GAP)
        _draw_panel(pen, bars, [colours[name] for name in names], (left, _MARGIN + _LEGEND, _WIDTH, height))
    return image


def _draw_legend(pen: ImageDraw.ImageDraw, names: Sequence[tuple[str, tuple[int, ...]]]) -> None:
    x, y = float(_MARGIN + 4), _MARGIN + _LEGEND / 2 - 8
    for name, colour in names:
        pen.rectangle((x, y - 6, x + 12, y + 6), colour)
        pen.text((x + 20, y), name, TEXT, font(15), "lm")
        x += 20 + pen.textlength(name, font(15)) + 28


def _draw_panel(
    pen: ImageDraw.ImageDraw, bars: Bars, colours: Sequence[tuple[int, ...]], place: tuple[int, int, int, int]
) -> None:
    left, top, width, height = place
    pen.rounded_rectangle((left, top, left + width, top + height), 10, PANEL)
    pen.text((left + _PAD, top + 16), bars.title, TEXT, font(19), "la")
    pen.text((left + _PAD, top + 45), bars.unit, FAINT_TEXT, font(14), "la")
    start = left + _PAD + max(pen.textlength(name, font(14)) for name, _ in bars.rows) + 12
    known = [value for _, row in bars.rows for value in row if value is not None]
    room = pen.textlength(f"{max(known):.{bars.decimals}f}", font(12)) + 8
    along = Axis(0.0, max(known) or 1.0, start, left + width - _PAD - room)
    low = top + _TOP + len(bars.rows) * (len(colours) * _BAR + _BETWEEN) - _BETWEEN / 2
    for tick in along.ticks:
        x = along.at(tick)
        pen.line((x, top + _TOP - _BETWEEN / 2, x, low), _GRID)
        pen.text((x, low + 6), f"{tick:g}", FAINT_TEXT, font(13), "mt")
    y = float(top + _TOP)
    for name, row in bars.rows:
        pen.text((start - 12, y + len(row) * _BAR / 2), name, TEXT, font(14), "rm")
        for value, colour in zip(row, colours, strict=True):
            if value is not None:
                end = max(along.at(value), start + 1)  # a bar is seen
                pen.rectangle((start, y + 1, end, y + _BAR - 2), colour)
                pen.text((end + 6, y + _BAR / 2 - 0.5), f"{value:.{bars.decimals}f}", FAINT_TEXT, font(12), "lm")
            y += _BAR
        y += _BETWEEN
