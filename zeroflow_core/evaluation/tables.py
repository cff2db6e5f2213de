"""A run's figures as text for a terminal or a pipe, and those of several runs side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from zeroflow_core.evaluation import av2_2023, av2_2024, zeroflow_paper
from zeroflow_core.evaluation.comparing import FIGURES, Kind, best_text, mismatch, scored
from zeroflow_core.evaluation.results import DEFINITIONS, PARTS
from zeroflow_core.evaluation.wording import NOTHING, PART_NAMES, beside_others, fitted

_LEAST_WIDTH = 80  # characters; in less room numbers would be cut off


@dataclass(frozen=True)
class Unit:
    """How a number is written: times `scale`, with so many decimals."""

    scale: float = 1.0
    decimals: int = 4

    def text(self, value: float | None) -> str:
        return NOTHING if value is None else f"{self.scale * value:,.{self.decimals}f}"

    def difference(self, value: float | None, first: float | None) -> str:
        if value is None or first is None:
            return NOTHING
        text = f"{self.scale * (value - first):+,.{self.decimals}f}"
        return text if text.strip("+-0.") else "="


METRES, RATIO, RADIANS = Unit(), Unit(), Unit(decimals=3)
PER_CENT, MILLISECONDS, COUNT = Unit(100, 1), Unit(1000, 1), Unit(decimals=0)
_UNITS = {
    Kind.METRES: METRES,
    Kind.RADIANS: RADIANS,
    Kind.RATIO: RATIO,
    Kind.SHARE: PER_CENT,
    Kind.SECONDS: MILLISECONDS,
    Kind.COUNT: COUNT,
}


def print_run(metrics: dict, console: Console) -> None:
    """One run: every definition's three-way error and its parts, and what each definition has beyond them.

    metrics: content of metrics.json
    """
    console.width = max(console.width, _LEAST_WIDTH)
    console.print(Text(_described(metrics)), soft_wrap=True)
    for table in (_errors(metrics), _accuracies(metrics), _classes(metrics)):
        console.print()
        console.print(table)
    run = metrics["run"]
    median, p90 = (MILLISECONDS.text(run["seconds"][key]) for key in ("median", "p90"))
    iou = RATIO.text(metrics[av2_2023.NAME]["dynamic_iou"])
    console.print()
    told = f" dynamic IoU {iou} ({av2_2023.NAME}); median pair {median} ms, p90 {p90} ms{beside_others(run['jobs'])}"
    console.print(Text(told), soft_wrap=True)
    for note in run["notes"]:
        console.print(Text(f" Note: {note}"), soft_wrap=True)


def print_comparison(runs: Sequence[dict], names: Sequence[str], console: Console) -> None:
    """Several runs side by side: the best of each row is marked, and from the second on Δ is the difference to the
    first, unless they can't be compared. Runs that don't fit beside the first follow below.

    runs:  contents of metrics.json
    names: of the runs, each another
    """
    for name, metrics in zip(names, runs, strict=True):
        console.print(Text.assemble((name, "bold"), f": {_described(metrics)}"), soft_wrap=True)
    other = mismatch(runs)
    lines, others = list(_lines(runs, fair=other is None)), list(range(1, len(runs)))
    while others:
        shown = len(others)
        while shown > 1 and _width(lines, [0, *others[:shown]]) > console.width:
            shown -= 1
        console.print()
        _print_beside(lines, names, [0, *others[:shown]], console)
        others = others[shown:]
    told = "Metres where nothing else is said; dynamic: error ÷ speed."
    console.print()
    console.print(Text(told if other else f"{told} * is the best of its row, Δ is to the first run.", "dim"))
    if other is not None:
        told = "; ".join(f"{name}: {of_run}" for name, of_run in zip(names, other.scored, strict=True))
        console.print(Text(f"Not comparable: the runs scored other {other.what} ({told}).", "yellow"), soft_wrap=True)


@dataclass(frozen=True)
class _Line:
    """A row of a comparison: of each run its value, and its difference to the first run's, if that says anything."""

    definition: str  # empty but for the first line of a definition
    name: str
    values: list[Text]
    differences: list[Text] | None

    def cells(self, chosen: Sequence[int]) -> list[Text]:
        """Two of names, the first chosen run's value, then of each other one the difference, if any, and the value."""
        return [Text(self.definition, "bold"), Text(self.name), *_in_columns(chosen, self.values, self.differences)]


def _in_columns(chosen: Sequence[int], of_values: Sequence, of_differences: Sequence | None) -> list:
    """What stands in, or over, the columns of the chosen runs: the first one has no difference."""
    if of_differences is None:
        return [of_values[k] for k in chosen]
    return [one for k in chosen for one in (of_differences[k], of_values[k])][1:]


def _lines(runs: Sequence[dict], *, fair: bool) -> Iterator[_Line]:
    """fair: the runs can be compared"""
    for definition, figures in FIGURES.items():
        for k, figure in enumerate(figures):
            unit = _UNITS[figure.kind]
            values = [figure.of(run[definition]) for run in runs]
            texts = [unit.text(value) for value in values]
            best = best_text(figure, values, texts) if fair else None
            yield _Line(
                definition if k == 0 else "",
                figure.short,
                [Text(f"{text}*", "bold green") if text == best else Text(f"{text} ") for text in texts],
                [Text(unit.difference(value, values[0]), "dim") for value in values] if fair else None,
            )


def _print_beside(lines: Sequence[_Line], names: Sequence[str], chosen: Sequence[int], console: Console) -> None:
    """The chosen runs as one table, whose numbers stay whole; long names are cut."""
    widths = _widths(lines, chosen)
    of_values = _in_columns(chosen, names, None if lines[0].differences is None else ["Δ"] * len(names))
    narrowest = min(width for width, heading in zip(widths[2:], of_values, strict=True) if heading != "Δ")
    spare = max(0, console.width - _width(lines, chosen)) // len(chosen)
    fitting = dict(zip(names, fitted(names, narrowest + spare), strict=True))
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for k, (heading, width) in enumerate(zip(["", "", *of_values], widths, strict=True)):
        heading = fitting.get(heading, heading)
        justify = "left" if k < 2 else "right"
        table.add_column(Text(heading), width=max(width, len(heading)), justify=justify, no_wrap=True)
    for line in lines:
        if line.definition:
            table.add_section()
        table.add_row(*line.cells(chosen))
    console.width = max(console.width, _width(lines, chosen))
    console.print(table)


def _widths(lines: Sequence[_Line], chosen: Sequence[int]) -> list[int]:
    """Of the columns, in characters, without names."""
    return [max(map(len, column)) for column in zip(*(line.cells(chosen) for line in lines), strict=True)]


def _width(lines: Sequence[_Line], chosen: Sequence[int]) -> int:
    """Of the table, with a space on either side of a column and one between two."""
    return sum(width + 3 for width in _widths(lines, chosen)) - 1


def _described(metrics: dict) -> str:
    run, failed = metrics["run"], len(metrics["failed"])
    what = f"{run['name']} on {run['split']} of {run['data']}, {scored(metrics)}"
    return f"{what}, {failed} failed" if failed else what


def _table(*headings: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for k, heading in enumerate(headings):
        table.add_column(heading, justify="right" if k else "left", no_wrap=True)
    return table


def _errors(metrics: dict) -> Table:
    table = _table("metres", "three-way", "FD", "FS", "BS", "points", "covered %")
    for module in DEFINITIONS:
        figures = metrics[module.NAME]
        parts = [METRES.text(figures[part]) for part in PARTS]
        counts = COUNT.text(figures["num_points"]), PER_CENT.text(figures["coverage"])
        table.add_row(Text(module.NAME, "bold"), *parts, *counts)
    return table


def _accuracies(metrics: dict) -> Table:
    table = _table("", "AccS %", "AccR %", "angle error, rad")
    figures = metrics[av2_2023.NAME]
    for part in PART_NAMES:
        shares = [PER_CENT.text(figures[f"acc_{kind}_{part}"]) for kind in ("strict", "relax")]
        table.add_row(f"{av2_2023.NAME} {part.upper()}", *shares, RADIANS.text(figures[f"angle_error_{part}"]))
    shares = [PER_CENT.text(metrics[zeroflow_paper.NAME][f"acc_{kind}"]) for kind in ("strict", "relax")]
    table.add_row(f"{zeroflow_paper.NAME} FD", *shares, "")
    return table


def _classes(metrics: dict) -> Table:
    table = _table(f"{av2_2024.NAME}", "moving, error ÷ speed", "standing, metres", "points")
    figures = metrics[av2_2024.NAME]
    mean = RATIO.text(figures["mean_dynamic"]), METRES.text(figures["mean_static"])
    table.add_row(Text("mean", "bold"), *mean, COUNT.text(figures["num_points"]))
    for name, found in figures["classes"].items():
        table.add_row(
            name, RATIO.text(found["dynamic"]), METRES.text(found["static"]), COUNT.text(found["num_points"])
        )
    return table
