"""What colours and lines mean: the colour wheel, alone on a picture's corner or with everything else on a strip."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from zeroflow_core.drawing import colour_wheel
from zeroflow_core.drawing.backdrop import draw_vehicle
from zeroflow_core.drawing.lettering import Area
from zeroflow_core.drawing.lines import Lines
from zeroflow_core.drawing.moving import paler
from zeroflow_core.drawing.view import BACKGROUND, FAINT_TEXT, PANEL, TEXT, View, font

_SIDES = ("left", "right", "ahead", "back")
_SIDE_TEXT, _KEY_TEXT, _RANGE_TEXT = 13, 13, 14  # pixels at unit 1
_ROW, _GAP, _SAMPLE = 20, 14, 34  # between keys; around everything; width of what a key explains


def draw_legend(image: Image.Image, view: View, full_speed: float) -> Area:
    """The colour wheel on a panel in the upper right corner. Returns the area it takes."""
    legend = legend_panel(view.unit, full_speed)
    margin = round(16 * view.unit)
    left = image.width - margin - legend.width
    image.paste(legend, (left, margin), legend)
    return left, margin, left + legend.width, margin + legend.height


@lru_cache(maxsize=4)
def legend_panel(unit: float, full_speed: float) -> Image.Image:
    """RGBA: the colour wheel with its words on a panel with round corners; not to be drawn on. unit: their size."""
    width, height = round(206 * unit), round(190 * unit)
    panel = Image.new("RGBA", (width, height))
    pen = ImageDraw.Draw(panel)
    pen.rounded_rectangle((0, 0, width - 1, height - 1), round(8 * unit), PANEL)
    wheel = _labelled_wheel(unit, full_speed, round(104 * unit))
    panel.paste(wheel, ((width - wheel.width) // 2, round(7 * unit)), wheel)
    text = _ring_and_rim(full_speed)
    pen.text((width / 2, height - 11 * unit), text, TEXT, font(_RANGE_TEXT * unit), "mb")
    return panel


def _ring_and_rim(full_speed: float) -> str:
    """What the colour wheel's ring and rim stand for."""
    return f"ring {full_speed / 2:g}, rim {full_speed:g} m/s"


def _labelled_wheel(unit: float, full_speed: float, diameter: int) -> Image.Image:
    """RGBA: the colour wheel, a ring at half of `full_speed` in it, and the headings around it.

    unit: size of the words, 1 in a picture of 720 lines; diameter: pixels, of the wheel without them
    """
    small, gap = font(_SIDE_TEXT * unit), 5 * unit
    beside = round(max(small.getlength(side) for side in _SIDES[2:]) + gap + 1)
    above = round(sum(small.getmetrics()) + gap - 2 * unit)
    image = Image.new("RGBA", (diameter + 2 * beside, diameter + 2 * above))
    image.paste(Image.fromarray(colour_wheel.wheel(diameter, full_speed)), (beside, above))
    pen, x, y = ImageDraw.Draw(image), image.width / 2, image.height / 2
    ring, edge = diameter / 4, diameter / 2 + gap
    pen.ellipse((x - ring, y - ring, x + ring, y + ring), outline=(*BACKGROUND, 150), width=max(1, round(unit)))
    for side, place, anchor in zip(
        _SIDES, ((x, y - edge), (x, y + edge), (x + edge, y), (x - edge, y)), ("mb", "mt", "lm", "rm"), strict=True
    ):
        pen.text(place, side, FAINT_TEXT, small, anchor)
    return image


@lru_cache(maxsize=8)
def legend_strip(width: int, unit: float, full_speed: float, diameter: int) -> Image.Image:
    """Everything that a scene shows, explained on an RGB strip `width` pixels wide and as high as it needs; not to be
    drawn on.

    unit:     size of words and lines, 1 in a picture of 720 lines
    diameter: of the colour wheel, pixels
    """
    wheel = _labelled_wheel(unit, full_speed, diameter)
    keys = _keys(full_speed)
    used, gap, row = font(_KEY_TEXT * unit), _GAP * unit, _ROW * unit
    sample = _SAMPLE * unit
    widths = [sample + gap / 2 + used.getlength(text) for text, _ in keys]
    beside = width - wheel.width - 3 * gap
    columns = _columns(widths, beside, 2 * gap)
    below = max(widths) > beside
    high = len(columns[0]) * row
    height = wheel.height + gap + high if below else max(wheel.height, high)
    strip = Image.new("RGB", (width, round(height + gap)), BACKGROUND)
    left = (width - wheel.width) / 2 if below else gap
    top = gap / 2 if below else (strip.height - wheel.height) / 2
    strip.paste(wheel, (round(left), round(top)), wheel)

    lines, texts = Lines.over(strip), []
    x = gap if below else wheel.width + 2.5 * gap
    for column in columns:
        y = strip.height - gap / 2 - high if below else (strip.height - len(column) * row) / 2
        for k in column:
            y += row / 2
            text, draw = keys[k]
            draw(lines, x, y, sample, unit)
            texts.append(((x + sample + gap / 2, y), text))
            y += row / 2
        x += max(widths[k] for k in column) + 2 * gap
    strip = lines.done()
    pen = ImageDraw.Draw(strip)
    for place, text in texts:
        pen.text(place, text, TEXT, used, "lm")
    return strip


def _columns(widths: list[float], room: float, gap: float) -> list[range]:
    """Which keys stand in each column: as many columns as find room, up to three."""
    for number in (3, 2):
        rows = -(-len(widths) // number)
        columns = [range(k, min(k + rows, len(widths))) for k in range(0, len(widths), rows)]
        if sum(max(widths[k] for k in column) + gap for column in columns) <= room + gap:
            return columns
    return [range(len(widths))]


_Draw = Callable[[Lines, float, float, float, float], None]  # lines, left, middle, width, unit


def _keys(full_speed: float) -> list[tuple[str, _Draw]]:
    """What there is to explain beside the wheel, and how to draw a sample of it."""
    return [
        ("hue: which way it moves", _hues),
        (f"strength: how fast; {_ring_and_rim(full_speed)}", _strengths),
        ("grey: stands still", _greys),
        ("the vehicle itself", _vehicle),
        ("box and arrow: a moving object, its next second", _box),
        ("pale box: not seen just now, where it should be", _pale_box),
        ("line behind: where it came from", _trail),
    ]


def _colour(heading: float, part: float) -> tuple[int, ...]:
    """Of the wheel, `part` of the way to its rim."""
    turn = np.deg2rad(heading)
    velocity = part * np.array([[np.cos(turn), np.sin(turn)]])
    return tuple(int(value) for value in colour_wheel.colours(velocity, 1.0)[0])


def _patches(lines: Lines, x: float, y: float, width: float, unit: float, colours: list[tuple[int, ...]]) -> None:
    step, half = width / len(colours), 5 * unit
    for k, colour in enumerate(colours):
        left, right = x + k * step, x + (k + 1) * step
        lines.fill(np.array([[left, y - half], [right, y - half], [right, y + half], [left, y + half]]), colour)


def _hues(lines: Lines, x: float, y: float, width: float, unit: float) -> None:
    _patches(lines, x, y, width, unit, [_colour(heading, 1.0) for heading in range(0, 360, 20)])


def _strengths(lines: Lines, x: float, y: float, width: float, unit: float) -> None:
    _patches(lines, x, y, width, unit, [_colour(0.0, part) for part in np.linspace(0, 1, 16)])


def _greys(lines: Lines, x: float, y: float, width: float, unit: float) -> None:
    _patches(lines, x, y, width, unit, [(level, level + 10, level + 22) for level in range(58, 168, 7)])


def _box(lines: Lines, x: float, y: float, width: float, unit: float) -> None:
    _box_and_arrow(lines, x, y, width, unit, _colour(0.0, 1.0))


def _pale_box(lines: Lines, x: float, y: float, width: float, unit: float) -> None:
    _box_and_arrow(lines, x, y, width, unit, paler(_colour(0.0, 1.0)))


def _box_and_arrow(lines: Lines, x: float, y: float, width: float, unit: float, colour: tuple[int, ...]) -> None:
    half, side = 4.5 * unit, 0.42 * width
    box = np.array([[x, y - half], [x + side, y - half], [x + side, y + half], [x, y + half]])
    lines.fill(box, (*colour, 60))
    lines.stroke(np.concatenate([box, box[:2]]), colour, 1.8 * unit)
    tip = x + width
    lines.stroke(np.array([[x + side, y], [tip - 6 * unit, y]]), colour, 2.2 * unit)
    lines.fill(np.array([[tip, y], [tip - 9 * unit, y - 4.5 * unit], [tip - 9 * unit, y + 4.5 * unit]]), colour)


def _trail(lines: Lines, x: float, y: float, width: float, unit: float) -> None:
    along = np.linspace(0, 1, 9)
    corners = np.column_stack([x + width * along, y + 3 * unit * np.cos(3 * along)])
    lines.fading(corners, _colour(0.0, 1.0), 2.0 * unit)


def _vehicle(lines: Lines, x: float, y: float, width: float, unit: float) -> None:
    draw_vehicle(lines, View(round(2 * x + width), round(2 * y), 6 * unit), 1.0)
