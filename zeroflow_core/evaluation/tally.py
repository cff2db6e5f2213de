"""Sums over groups of points: small enough to store for every pair, and added to pool pairs.

All pooling is over points, as the field does it, and happens by `add` alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

Tally = dict[str, list[float]]
"""Name of a group of points to the sums over its points; the first of them is their number."""


def sums(names: Sequence[str], group: np.ndarray, *columns: np.ndarray) -> Tally:
    """For every group that has points: their number, then the sum of each column.

    names:   of the groups
    group:   (N,) int, position of the point's group in `names`, negative for a point that does not count
    columns: (N,) each
    """
    counted = group >= 0
    group = group[counted]
    number = np.bincount(group, minlength=len(names))
    totals = [np.bincount(group, column[counted].astype(np.float64), len(names)) for column in columns]
    return {
        names[k]: [float(number[k]), *(float(total[k]) for total in totals)] for k in np.flatnonzero(number)
    }


def add(total: Tally, more: Tally) -> None:
    """Add `more` to `total`, in place."""
    for name, values in more.items():
        there = total.get(name)
        total[name] = list(values) if there is None else [a + b for a, b in zip(there, values, strict=True)]


def pooled(tally: Tally, names: Iterable[str], width: int) -> list[float]:
    """The sums of several groups together; groups without points add nothing.

    width: entries of a group, for the case that none has points
    """
    result = [0.0] * width
    for name in names:
        result = [a + b for a, b in zip(result, tally.get(name, [0.0] * width), strict=True)]
    return result


def mean(total: float, number: float) -> float | None:
    """None without points."""
    return total / number if number else None


def three_way(fd: Sequence[float], fs: Sequence[float], bs: Sequence[float], every: Sequence[float]) -> dict:
    """What all definitions report: three-way EPE, its parts (dynamic foreground, static foreground, background),
    how many points each has, and for which share of them the method gave a flow.

    fd, fs, bs, every: number of points, number of them covered, sum of their errors in metres. `every` counts all
        points that the definition scores.
    """
    parts = {"fd": fd, "fs": fs, "bs": bs}
    epe = {name: mean(part[2], part[0]) for name, part in parts.items()}
    complete = None not in epe.values()
    return {
        "three_way_epe": sum(epe.values()) / 3 if complete else None,
        **epe,
        "num_points": int(every[0]),
        **{f"num_{name}": int(part[0]) for name, part in parts.items()},
        "coverage": mean(every[1], every[0]),
        **{f"coverage_{name}": mean(part[1], part[0]) for name, part in parts.items()},
    }
