"""Several runs side by side: what they are, every definition's figures with the best marked, and a warning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from zeroflow_core.evaluation import av2_2023, av2_2024, zeroflow_paper
from zeroflow_core.evaluation.report.breakdowns import run_legend
from zeroflow_core.evaluation.report.definitions import DEFINITIONS, PARTS
from zeroflow_core.evaluation.report.markup import Content, Markup, tag
from zeroflow_core.evaluation.report.page import Section, group_row, section, table, warning
from zeroflow_core.evaluation.report.wording import count, duration, metres, ratio, readable, several, share

_LOWER, _HIGHER = min, max


@dataclass(frozen=True)
class _Figure:
    """One row. path: keys to it from the definition's figures; best: which value wins, or None"""

    name: str
    path: tuple[str, ...]
    write: Callable[[float | None], str] = metres
    best: Callable | None = _LOWER


_ERRORS = (_Figure("Three-way EPE, m", ("three_way_epe",)), *(_Figure(f"{PARTS[p]}, m", (p,)) for p in PARTS))
_SCORED = (
    _Figure("Covered", ("coverage",), share, _HIGHER),
    _Figure("Points", ("num_points",), count, None),
)
_FIGURES = {
    av2_2023.NAME: (
        *_ERRORS,
        _Figure("AccS, foreground, dynamic", ("acc_strict_fd",), share, _HIGHER),
        _Figure("AccR, foreground, dynamic", ("acc_relax_fd",), share, _HIGHER),
        _Figure("Angle error, foreground, dynamic, rad", ("angle_error_fd",), ratio),
        _Figure("Dynamic IoU", ("dynamic_iou",), ratio, _HIGHER),
        *_SCORED,
    ),
    av2_2024.NAME: (
        *_ERRORS,
        _Figure("Mean dynamic, normalised", ("mean_dynamic",), ratio),
        *(_Figure(f"{readable(name)}, dynamic", ("classes", name, "dynamic"), ratio) for name in av2_2024.CLASSES),
        _Figure("Mean static, m", ("mean_static",)),
        *_SCORED,
    ),
    zeroflow_paper.NAME: (
        *_ERRORS,
        _Figure("AccS", ("acc_strict",), share, _HIGHER),
        _Figure("AccR", ("acc_relax",), share, _HIGHER),
        *_SCORED,
    ),
}


def compared_runs(names: Sequence[str], runs: Sequence[dict]) -> Section:
    """What the runs are, and their figures by every definition."""
    rows: list = []
    for definition in DEFINITIONS:
        rows.append(group_row(definition.title, 1 + len(runs)))
        for figure in _FIGURES[definition.key]:
            values = [_value(run[definition.key], figure.path) for run in runs]
            if any(value is not None for value in values):
                rows.append([figure.name, *_marked(values, figure)])
    medians = [run["run"]["seconds"]["median"] for run in runs]
    rows.append(group_row("Run time", 1 + len(runs)))
    rows.append(["Median per pair", *_marked(medians, _Figure("", (), duration))])
    about = [
        [
            name,
            run["run"]["name"],
            run["run"]["data"],
            run["run"]["split"],
            count(run["run"]["num_logs"]),
            count(run["run"]["num_pairs"]),
            count(len(run["failed"])),
        ]
        for name, run in zip(names, runs, strict=True)
    ]
    return section(
        "figures",
        "Figures",
        run_legend(names, zero=False),
        table(["Run", "Method", "Data", "Split", "Logs", "Pairs", "Failed"], about, class_="prose"),
        tag("div", table(["", *names], rows, caption="The best of each row is marked."), class_="blocks"),
    )


def incomparable(names: Sequence[str], runs: Sequence[dict]) -> Markup | None:
    """A warning where the runs did not score the same points, with how many each scored."""
    differing = [one for one in DEFINITIONS if len({run[one.key]["num_points"] for run in runs}) > 1]
    if not differing:
        return None
    rows = [
        [name, several(run["run"]["num_pairs"], "pair"), *(count(run[one.key]["num_points"]) for one in differing)]
        for name, run in zip(names, runs, strict=True)
    ]
    return warning(
        "These runs are not comparable",
        tag("p", "They scored different points, so a difference in error may come from the points alone."),
        table(["Run", "Scored", *(f"{one.title}, points" for one in differing)], rows),
    )


def _value(figures: dict, path: Sequence[str]) -> float | None:
    """None, too, for a figure that a run of another version does not have."""
    value: object = figures
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, int | float) else None


def _marked(values: Sequence[float | None], figure: _Figure) -> list[Content]:
    """The values as text. The best has a mark, unless all are the same as written."""
    texts = [figure.write(value) for value in values]
    known = [value for value in values if value is not None]
    if figure.best is None or len(set(texts)) < 2 or len(known) < 2:
        return list(texts)
    best = figure.write(figure.best(known))
    return [tag("strong", text, class_="best") if text == best else text for text in texts]
