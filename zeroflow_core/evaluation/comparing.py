"""What a comparison of runs shows, on a terminal and on a page: which figures, the best of each, and if it is fair."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from zeroflow_core.evaluation import av2_2023, av2_2024, zeroflow_paper
from zeroflow_core.evaluation.results import DEFINITIONS
from zeroflow_core.evaluation.wording import PART_NAMES, count, readable, several

RUN = "run"  # beside the definitions' names: what is known of the run itself


class Kind(Enum):
    """What a figure is, which decides how it is written."""

    METRES = auto()
    RADIANS = auto()
    RATIO = auto()
    SHARE = auto()
    SECONDS = auto()
    COUNT = auto()


@dataclass(frozen=True)
class Figure:
    """One row.

    short, name: on a terminal, and on a page
    path:        keys to it from the definition's figures
    best:        min or max of the runs' values, or None where no value is better than another
    """

    short: str
    name: str
    path: tuple[str, ...]
    kind: Kind = Kind.METRES
    best: Callable | None = min

    def of(self, figures: dict) -> float | None:
        value: Any = figures
        for key in self.path:
            value = value[key]
        return value


_ERRORS = (
    Figure("three-way", "Three-way EPE, m", ("three_way_epe",)),
    *(Figure(part.upper(), f"{name}, m", (part,)) for part, name in PART_NAMES.items()),
)
_SCORED = (
    Figure("covered, %", "Covered", ("coverage",), Kind.SHARE, max),
    Figure("points", "Points", ("num_points",), Kind.COUNT, None),
)
FIGURES: dict[str, tuple[Figure, ...]] = {
    av2_2023.NAME: (
        *_ERRORS,
        Figure("AccS FD, %", "AccS, foreground, dynamic", ("acc_strict_fd",), Kind.SHARE, max),
        Figure("AccR FD, %", "AccR, foreground, dynamic", ("acc_relax_fd",), Kind.SHARE, max),
        Figure("angle FD, rad", "Angle error, foreground, dynamic, rad", ("angle_error_fd",), Kind.RADIANS),
        Figure("dynamic IoU", "Dynamic IoU", ("dynamic_iou",), Kind.RATIO, max),
        *_SCORED,
    ),
    av2_2024.NAME: (
        Figure("mean dynamic", "Mean dynamic, normalised", ("mean_dynamic",), Kind.RATIO),
        *(
            Figure(f" {name}", f"{readable(name)}, dynamic", ("classes", name, "dynamic"), Kind.RATIO)
            for name in av2_2024.CLASSES
            if name != "BACKGROUND"  # of which nothing moves
        ),
        Figure("mean static", "Mean static, m", ("mean_static",)),
        *_ERRORS,
        *_SCORED,
    ),
    zeroflow_paper.NAME: (
        *_ERRORS,
        Figure("AccS, %", "AccS", ("acc_strict",), Kind.SHARE, max),
        Figure("AccR, %", "AccR", ("acc_relax",), Kind.SHARE, max),
        *_SCORED,
    ),
    RUN: (Figure("median pair, ms", "Median per pair", ("seconds", "median"), Kind.SECONDS),),
}


def best_text(figure: Figure, values: Sequence[float | None], texts: Sequence[str]) -> str | None:
    """How the best of the runs' values is written; None unless, as written, it is better than another."""
    known = {text: value for text, value in zip(texts, values, strict=True) if value is not None}
    return figure.best(known, key=known.__getitem__) if figure.best and len(known) > 1 else None


@dataclass(frozen=True)
class Mismatch:
    """Why runs can't be compared.

    what:   that they scored other …
    scored: what each of them scored
    """

    what: str
    scored: list[str]


def mismatch(runs: Sequence[dict]) -> Mismatch | None:
    """What keeps the runs' figures from being compared: other logs, pairs or points; None where nothing does.

    Another folder alone is no reason: the same logs may lie in two places.

    runs: contents of metrics.json
    """
    pairs = [{log: of_log["num_pairs"] for log, of_log in run["per_log"].items()} for run in runs]
    if _differ([one.keys() for one in pairs]):
        places = [f"{run[RUN]['split']} of {run[RUN]['data']}" for run in runs]
        if _differ(places):
            return Mismatch("data", [f"{scored(run)} of {place}" for run, place in zip(runs, places, strict=True)])
        return Mismatch("logs", [scored(run) for run in runs])
    if _differ(pairs):
        return Mismatch("pairs of the same logs", [scored(run) for run in runs])
    for module in DEFINITIONS:
        points = [run[module.NAME]["num_points"] for run in runs]
        if _differ(points):
            return Mismatch("points of the same pairs", [f"{count(number)} by {module.NAME}" for number in points])
    return None


def scored(metrics: dict) -> str:
    """How much a run scored, such as "2 logs, 310 pairs"."""
    return f"{several(metrics[RUN]['num_logs'], 'log')}, {several(metrics[RUN]['num_pairs'], 'pair')}"


def _differ(values: Sequence[object]) -> bool:
    return any(value != values[0] for value in values)
