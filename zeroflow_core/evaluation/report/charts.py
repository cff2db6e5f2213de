"""Small charts as SVG. Colours, fonts and weights are the page's (page.py); here is only where things are.

Every chart is as wide as its viewBox in CSS pixels, says in `label` what it shows, and leaves out values that are
None.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import floor, log10

from zeroflow_core.drawing.axis import Axis, round_down, round_up
from zeroflow_core.evaluation.report.markup import Markup, tag
from zeroflow_core.evaluation.report.page import MARKS

HALF, FULL = 548, 1136  # width of a chart in a column, and across both
_SMALLEST = 1e-3  # metres; where an axis of errors ends at the latest
_WIDEST_LABEL = 240  # pixels, in a chart of rows
_SHAPES = 5  # of marks

Values = Sequence[float | None]  # one a run


@dataclass(frozen=True)
class Row:
    """One group of points in a chart of rows.

    values:    its error in each run, metres
    reference: what answering no motion scores, metres
    note:      text at the end of the row
    """

    label: str
    values: Values
    reference: float | None = None
    note: str = ""


def rows_of_dots(
    rows: Sequence[Row], label: str, *, notes: str = "", write: Callable[[float | None], str] | None
) -> Markup:
    """A row for each group: a dot for each run's error, on a logarithmic axis, a tick for answering no motion.

    notes: what the notes are
    write: how an error is written beside the marks, where there is one run
    """
    runs = max((len(row.values) for row in rows), default=0)
    known = [value for row in rows for value in (*row.values, row.reference) if value is not None]
    if not known:
        return nothing()
    height = 18 + 8 * runs
    labels = [_shortened(row.label) for row in rows]
    left = max(16 + max(map(_width, labels)), 30)  # half of the axis's first number is on the left of it
    right = HALF - 14 - max(_width(text) for text in (notes, *(row.note for row in rows)))  # of the errors
    written = write is not None and runs == 1
    axis = _error_axis(known, left, right - (82 if written else 22))
    top, bottom = 4, 4 + height * len(rows)

    marks = _grid_across(axis, top, bottom, below=min(known) < axis.low)
    marks.append(tag("text", notes, x=HALF, y=bottom + 18, text_anchor="end", class_="faint"))
    if written:
        marks.append(tag("text", "error, m", x=right, y=bottom + 18, text_anchor="end", class_="faint"))
    for k, row in enumerate(rows):
        y = top + (k + 0.5) * height
        marks.append(tag("text", labels[k], x=left - 12, y=y + 4, text_anchor="end"))
        marks.append(tag("text", row.note, x=HALF, y=y + 4, text_anchor="end", class_="faint"))
        if written:
            marks.append(tag("text", write(row.values[0]), x=right, y=y + 4, text_anchor="end"))
        if k:
            marks.append(_line(0, top + k * height, HALF, top + k * height, "hair"))
        for run, value in enumerate(row.values):
            if value is not None:
                at = y + 8 * (run - (runs - 1) / 2)
                if row.reference is not None:
                    marks.append(_line(axis.at(row.reference), at, axis.at(value), at, f"reach run{run % MARKS}"))
                marks.append(_dot(axis.at(value), at, run, 4.2, "left" if value < axis.low else None))
        if row.reference is not None:
            x = axis.at(row.reference)
            marks.append(_line(x, y - height / 2 + 5, x, y + height / 2 - 5, "reference"))
    return _svg(HALF, bottom + 34, label, marks)


@dataclass(frozen=True)
class Point:
    """x, y and the number of points behind them."""

    x: float
    y: float
    weight: int


def curves(title: str, series: Sequence[Sequence[Point]], label: str, *, top: float, gap: float) -> Markup:
    """Normalised error over speed, one line a run; the line at 1 is answering no motion.

    series: points by rising x, which is m/s; a run without points has an empty one
    top:    where the axis ends
    gap:    points further apart than this are not joined
    """
    width, height, left, bottom = 262, 206, 30, 206 - 36
    across = Axis(0.0, 21.0, left, width - 8)
    up = Axis(0.0, top, bottom, 28)
    marks = [tag("text", title, x=0, y=13, class_="title")]
    for tick in (0.0, 0.5, 1.0, 1.5, 2.0):
        if tick <= up.high:
            marks.append(_line(left, up.at(tick), width, up.at(tick), "reference" if tick == 1.0 else "grid"))
            marks.append(tag("text", f"{tick:g}", x=left - 6, y=up.at(tick) + 4, text_anchor="end", class_="faint"))
    for tick, text in ((0, "0"), (5, "5"), (10, "10"), (15, "15"), (20.6, ">20 m/s")):
        anchor = "end" if tick > 20 else "middle"
        marks.append(
            tag("text", text, x=across.at(tick) + 8 * (tick > 20), y=bottom + 18, text_anchor=anchor, class_="faint")
        )
    if not any(series):
        middle = (left + width) / 2
        marks.append(tag("text", "no moving points", x=middle, y=up.at(0.75) + 4, text_anchor="middle", class_="faint"))
    for run, points in enumerate(series):
        for before, after in zip(points, points[1:], strict=False):
            if after.x - before.x <= gap:
                ends = across.at(before.x), up.at(before.y), across.at(after.x), up.at(after.y)
                marks.append(_line(*ends, f"curve run{run % MARKS}"))
        for point in points:
            radius = min(1.6 + 0.5 * log10(max(point.weight, 1)), 4.0)
            marks.append(_dot(across.at(point.x), up.at(point.y), run, radius, "up" if point.y > up.high else None))
    return _svg(width, height, label, marks)


def histogram(
    values: Sequence[float], label: str, *, unit: str, scale: float = 1.0, lines: Sequence[tuple[str, float]] = ()
) -> Markup:
    """How many of the values lie where. The last bar holds everything beyond it.

    scale: what values are multiplied by to be in `unit`
    lines: names and values to mark
    """
    values = sorted(scale * value for value in values)
    if not values:
        return nothing()
    low, high = _common_range(values)
    height, left, right, bottom, top = 210, 36, HALF - 26, 210 - 36, 42
    across = Axis(low, high, left, right)
    bars = 28
    counts = [0] * bars
    for value in values:
        counts[min(floor((value - low) / (high - low) * bars), bars - 1)] += 1
    up = Axis(0.0, max(counts) * 1.04, bottom, top)
    marks = [_line(left, bottom, right, bottom, "grid")]
    marks.append(tag("text", "pairs", x=0, y=12, class_="faint"))
    for tick in up.ticks:
        if tick == round(tick):
            marks.append(_line(left, up.at(tick), right, up.at(tick), "grid"))
            marks.append(tag("text", f"{tick:,.0f}", x=left - 6, y=up.at(tick) + 4, text_anchor="end", class_="faint"))
    written = [(across.at(tick), f"{tick:.5g}") for tick in across.ticks]
    marks += _numbers(_with_unit(written, unit), bottom + 18)
    wide = (right - left) / bars
    for k, count in enumerate(counts):
        if count:
            y = up.at(count)
            x = left + k * wide + 0.5
            marks.append(tag("rect", x=x, y=y, width=wide - 1, height=bottom - y, class_="run0"))
    for k, (name, value) in enumerate(lines):
        x = across.at(scale * value)
        anchor, shift = ("start", 5) if x < right - 90 else ("end", -5)
        marks.append(_line(x, top - 14 + 13 * k, x, bottom, "reference"))
        shown = scale * value
        text = f"{name} {shown:,.0f} {unit}" if shown >= 999.5 else f"{name} {shown:.3g} {unit}"
        marks.append(tag("text", text, x=x + shift, y=top - 6 + 13 * k, text_anchor=anchor))
    return _svg(HALF, height, label, marks)


def _common_range(values: Sequence[float]) -> tuple[float, float]:
    """Where a histogram of these sorted values begins and ends: without the few that lie far beyond the others."""
    least, common, most = values[0], values[floor(0.95 * (len(values) - 1))], values[-1]
    if least == most:
        return 0.0, 2 * most or 1.0
    low = round_down(least) if least > 0.5 * common else 0.0
    enough = low + 2.5 * (common - low)
    return low, 1.02 * (min(most, enough) if enough > low else most)


def ranked(names: Sequence[str], values: Sequence[Values], label: str) -> Markup:
    """Many groups along x in the order given, a dot for each run's error; too many for a name each.

    values: of each group, one a run, metres
    """
    known = [value for group in values for value in group if value is not None]
    if not known:
        return nothing()
    height, left, bottom, top = 240, 46, 240 - 34, 16
    up = Axis(0.0, max(*known, 1e-6) * 1.05, bottom, top)
    across = Axis(0.0, max(len(values) - 1, 1), left + 12, FULL - 12)
    marks = []
    for tick in up.ticks:
        marks.append(_line(left, up.at(tick), FULL, up.at(tick), "grid"))
        text = f"{tick:g} m" if tick == up.ticks[-1] else f"{tick:g}"
        marks.append(tag("text", text, x=left - 6, y=up.at(tick) + 4, text_anchor="end", class_="faint"))
    for k, group in enumerate(values):
        for run, value in enumerate(group):
            if value is not None:
                dot = _dot(across.at(k), up.at(value), run, 3.2)
                marks.append(tag("g", tag("title", f"{names[k]}: {value:.4f} m"), dot))
    for k, anchor in ((0, "start"), (len(names) - 1, "end")):
        x = across.at(k) + (-6 if anchor == "start" else 6)
        marks.append(tag("text", names[k], x=x, y=bottom + 20, text_anchor=anchor, class_="faint"))
    return _svg(FULL, height, label, marks)


def shares(parts: Sequence[tuple[str, float | None]], whole: float, label: str) -> Markup:
    """One bar of parts end to end; `whole` is the value that would fill the width."""
    width, x, marks = 300, 0.0, []
    for k, (name, value) in enumerate(parts):
        if value and whole:
            part = min(value / whole, 1.0) * width
            bar = tag("rect", x=x, y=0, width=min(max(part - 1, 0.5), width - x), height=8, class_=f"part{k}")
            marks.append(tag("g", tag("title", name), bar))
            x = min(x + part, width - 0.5)
    return _svg(width, 8, label, marks, preserveAspectRatio="none")


def colour_bar(colours: Sequence[str], ticks: Sequence[tuple[float, str]], label: str) -> Markup:
    """An upright scale of colours, the first at the bottom.

    colours: in even steps, as CSS writes them
    ticks:   where, from 0 at the bottom to 1 at the top, and what to write there
    """
    width, height, top, bottom = 64, 164, 8.0, 156.0
    step = (bottom - top) / len(colours)
    marks = [
        tag("rect", x=0, y=bottom - (k + 1) * step, width=11, height=step + 0.5 * (k > 0), fill=colour)
        for k, colour in enumerate(colours)
    ]
    for part, text in ticks:
        y = bottom - part * (bottom - top)
        marks += [_line(11, y, 15, y, "reference"), tag("text", text, x=20, y=y + 4)]
    return _svg(width, height, label, marks)


def key(run: int) -> Markup:
    """The mark of a run, for legends."""
    return tag("svg", _dot(7, 7, run, 4.6), width=14, height=14, viewBox="0 0 14 14", aria_hidden="true")


def nothing() -> Markup:
    """What stands in place of a chart that would have nothing to show."""
    return tag("p", "No such points.", class_="nothing")


def _dot(x: float, y: float, run: int, radius: float, beyond: str | None = None) -> Markup:
    """A run's mark; its shape tells, too, for those who don't see the colours apart.

    beyond: "left" or "up", where the axis ends before the value
    """
    r, class_ = radius, f"run{run % MARKS}"
    if beyond == "left":
        return _polygon([(x - r, y), (x + r, y - r), (x + r, y + r)], class_)
    if beyond == "up":
        return _polygon([(x, y - r), (x + r, y + r), (x - r, y + r)], class_)
    shape = run % _SHAPES
    if shape == 1:
        return _polygon([(x, y - 1.25 * r), (x + 1.25 * r, y), (x, y + 1.25 * r), (x - 1.25 * r, y)], class_)
    if shape == 2:
        return tag("rect", x=x - 0.9 * r, y=y - 0.9 * r, width=1.8 * r, height=1.8 * r, class_=class_)
    if shape == 3:
        return _polygon([(x, y + 1.2 * r), (x + 1.15 * r, y - 0.8 * r), (x - 1.15 * r, y - 0.8 * r)], class_)
    if shape == 4:
        long, thin = 1.25 * r, 0.42 * r
        arm = [(-thin, -long), (thin, -long), (thin, -thin)]
        corners = [*arm, *((-v, u) for u, v in arm), *((-u, -v) for u, v in arm), *((v, -u) for u, v in arm)]
        return _polygon([(x + u, y + v) for u, v in corners], class_)
    return tag("circle", cx=x, cy=y, r=r, class_=class_)


def _width(text: str) -> float:
    """Pixels that a text takes, rather too many than too few: fonts differ, and DejaVu, a wide one, is common."""
    return sum(map(_width_of, text))


def _width_of(letter: str) -> float:
    if letter in "ijl.,:;'|!I ":
        return 4.4
    if letter in "frt-()[]/":
        return 5.6
    if letter in "mwMW…@%&+<=>" or letter > "\u1fff":
        return 12.2
    return 9.6 if letter.isupper() or not letter.isascii() else 7.8


def _shortened(label: str) -> str:
    """Its beginning and its end, where all of it would leave no room for the chart."""
    kept, text = len(label), label
    while _width(text) > _WIDEST_LABEL:
        kept -= 1
        text = f"{label[: (kept + 1) // 2]}…{label[len(label) - kept // 2 :]}"
    return text


def _polygon(corners: Sequence[tuple[float, float]], class_: str) -> Markup:
    return tag("polygon", points=" ".join(f"{x:.2f},{y:.2f}" for x, y in corners), class_=class_)


def _line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def _grid_across(axis: Axis, top: float, bottom: float, *, below: bool) -> list[Markup]:
    """Lines and numbers in metres. below: there are values that lie before the axis begins"""
    written = [(axis.at(tick), f"≤ {tick:g}" if tick == axis.low and below else f"{tick:g}") for tick in axis.ticks]
    lines = [_line(x, top, x, bottom, "grid") for x, _ in written]
    return lines + _numbers(_with_unit(written, "m"), bottom + 18)


def _with_unit(written: list[tuple[float, str]], unit: str) -> list[tuple[float, str]]:
    """The last number of an axis says what all are in."""
    return [*written[:-1], *((x, f"{text} {unit}") for x, text in written[-1:])]


def _numbers(written: Sequence[tuple[float, str]], y: float) -> list[Markup]:
    """Below an axis that runs across, each around its x. The last is there, others where they touch no neighbour."""

    def touch(one: tuple[float, str], other: tuple[float, str]) -> bool:
        return other[0] - one[0] < (_width(one[1]) + _width(other[1])) / 2 + 4

    *others, last = written
    shown: list[tuple[float, str]] = []
    for number in others:
        if not (shown and touch(shown[-1], number)) and not touch(number, last):
            shown.append(number)
    return [tag("text", text, x=x, y=y, text_anchor="middle", class_="faint") for x, text in (*shown, last)]


def _error_axis(known: Sequence[float], start: float, end: float) -> Axis:
    """Logarithmic, from a round number to a round number, a decade at least."""
    positive = [value for value in known if value > 0] or [_SMALLEST]
    high = round_up(max(*positive, 2 * _SMALLEST))
    low = min(max(round_down(min(positive)), _SMALLEST), high / 10)
    return Axis(low, high, start, end, logarithmic=True)


def _svg(width: float, height: float, label: str, marks: Sequence[Markup], **more: str) -> Markup:
    size = {"width": width, "height": height, "viewBox": f"0 0 {width:g} {height:g}"}
    return tag("svg", marks, role="img", aria_label=label, **size, **more)
