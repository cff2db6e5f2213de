"""The figures of weights on every set, on a terminal and as Markdown for a model card."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from zeroflow_core.bench.weights_methods import FORWARD, REVERSE, ZERO
from zeroflow_core.bench.weights_sets import REAL, STATIC, WORLDS
from zeroflow_core.evaluation.wording import NOTHING, count, duration, ratio, several

TITLES = {
    REAL: "Recorded sweeps",
    WORLDS: "Simulated worlds never trained on",
    STATIC: "The ego drives, nothing else moves",
}
NOTES = (
    "Three-way EPE and its parts by the 2023 rules of Argoverse 2, in metres: FD is foreground that moves, FS "
    "foreground that stands, BS background; dynamic (error ÷ speed) and static (metres) by its 2024 rules. "
    "Moving ÷ zero: the error of all that moves by 0.5 m/s and more, beside that of ego motion alone. Too fast: the "
    "share of standing points above 0.5 m/s, ground left out; and of all points. Reverse is the flow of the newest "
    "sweep towards the one before, which the live node asks for.",
)


@dataclass(frozen=True)
class _Column:
    """heading; text: of a method's figures and zero flow's on the same set; static: it says something of STATIC sets"""

    heading: str
    text: Callable[[dict, dict], str]
    static: bool = False


def _figure(direction: str, name: str, told: Callable[[float | None], str]) -> Callable[[dict, dict], str]:
    return lambda own, zero: told((own[direction] or {}).get(name))


def _beside_zero(own: dict, zero: dict) -> str:
    ours, theirs = (of[FORWARD]["three_way_epe"] for of in (own, zero))
    return ratio(ours / theirs if ours is not None and theirs else None)


def _moving_beside_zero(direction: str) -> Callable[[dict, dict], str]:
    def text(own: dict, zero: dict) -> str:
        figures = own[direction] or {"moving_epe": None}
        error = figures["moving_epe"]
        return ratio(None if error is None else error / figures["moving_epe_zero"])

    return text


def _metres(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3f}"


def _share(value: float | None) -> str:
    return NOTHING if value is None else f"{100 * value:.2f}%"


_COLUMNS = (
    _Column("three-way", _figure(FORWARD, "three_way_epe", _metres)),
    _Column("÷ zero", _beside_zero),
    _Column("FD", _figure(FORWARD, "fd", _metres)),
    _Column("FS", _figure(FORWARD, "fs", _metres), static=True),
    _Column("BS", _figure(FORWARD, "bs", _metres), static=True),
    _Column("dynamic", _figure(FORWARD, "mean_dynamic", ratio)),
    _Column("static", _figure(FORWARD, "mean_static", _metres)),
    _Column("moving ÷ zero", _moving_beside_zero(FORWARD)),
    _Column("too fast", _figure(FORWARD, "too_fast", _share), static=True),
    _Column("of all", _figure(FORWARD, "too_fast_of_all", _share), static=True),
    _Column("reverse: moving ÷ zero", _moving_beside_zero(REVERSE)),
    _Column("reverse: too fast", _figure(REVERSE, "too_fast", _share), static=True),
)


def print_tables(results: dict[str, Any], console: Console) -> None:
    """All that is known. results: content of the JSON file"""
    for title, columns, rows in _tables(results):
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
        for k, heading in enumerate(("", "", *columns)):
            table.add_column(heading.replace(" ", "\n"), justify="left" if k < 2 else "right", no_wrap=True)
        before = None
        for name, method, *cells in rows:
            table.add_row("" if name == before else name, method, *cells)
            before = name
        console.print(table)
    for sentence in (*NOTES, *_about(results)):
        console.print(sentence, soft_wrap=True)


def markdown(results: dict[str, Any]) -> str:
    """The same, as Markdown. results: content of the JSON file"""
    lines = []
    for title, columns, rows in _tables(results):
        lines += [f"**{title}**", "", f"| set | weights | {' | '.join(columns)} |", "|---|---" + "|---:" * len(columns)]
        lines[-1] += "|"
        lines += [f"| {' | '.join(row)} |" for row in rows]
        lines.append("")
    return "\n".join([*lines, *(f"{sentence}\n" for sentence in (*NOTES, *_about(results)))])


def _tables(results: dict[str, Any]) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """Title, headings and rows by the kind of set; the first two cells of a row are the set and the method."""
    for kind, title in TITLES.items():
        columns = [column for column in _COLUMNS if column.static or kind != STATIC]
        rows = [
            [one["name"], method, count(one["pairs"])]
            + [column.text(own, one["scores"][ZERO]) for column in columns]
            for one in results["sets"]
            if one["kind"] == kind
            for method, own in one["scores"].items()
            if not (kind == STATIC and method == ZERO)  # it is never wrong there
        ]
        if rows:
            yield title, ["pairs", *(column.heading for column in columns)], rows


def _about(results: dict[str, Any]) -> Iterator[str]:
    yield f"{'; '.join(f'{name}: {said}' for name, said in results['methods'].items())}."
    times = {name: _seconds(results, name) for name in results["methods"] if name != ZERO}
    told = ", ".join(f"{name} {duration(seconds)}" for name, seconds in times.items() if seconds is not None)
    threads, load, cores = several(results["threads"], "thread"), results["load"], several(results["cpus"], "core")
    if told:
        yield f"Median time of a pair: {told} ({results['machine']}, {threads}, load {load:.1f} on {cores})."
    if results["left_out"]:
        yield f"Left out: {'; '.join(results['left_out'])}."


def _seconds(results: dict[str, Any], method: str) -> float | None:
    """Median over the sets."""
    values = [one["scores"][method]["seconds"] for one in results["sets"]]
    return statistics.median(values) if values and None not in values else None
