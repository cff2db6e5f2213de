"""Where the error is, of one run or of several: by speed, class and range, and by log.

Every section is a chart and, folded below it, the same in figures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from zeroflow_core.evaluation import av2_2023, av2_2024, breakdown
from zeroflow_core.evaluation.report.charts import Point, Row, curves, key, ranked, rows_of_dots
from zeroflow_core.evaluation.report.definitions import DEFINITIONS
from zeroflow_core.evaluation.report.markup import Content, Markup, tag
from zeroflow_core.evaluation.report.page import Section, folded, group_row, section, table, table_row
from zeroflow_core.evaluation.results import PARTS
from zeroflow_core.evaluation.wording import between, interval, metres, ratio, readable, several, share, short_names

_NAMED_LOGS = 24  # with more than these, the chart of the logs has no room for their names
_RUNS_BESIDE_A_CHART = 3  # a table with a column for each of more runs is too wide for half of the page
_BUCKET_MPS = 0.4
_FASTEST_MPS = 20.6  # where the bucket of all that is faster is drawn
_BUCKET_HEADING = ("EPE, m", "Speed, m/s", "Normalised")


@dataclass(frozen=True)
class _Group:
    """Some points. of_runs: of each run num_points, epe, epe_zero and coverage."""

    name: str
    of_runs: list[dict]

    @property
    def num_points(self) -> str:
        """Of every run, or the fewest and the most."""
        return between([one["num_points"] for one in self.of_runs])

    @property
    def zero(self) -> float | None:
        """None, too, where the runs differ, because they scored different points."""
        known = [one["epe_zero"] for one in self.of_runs if one["epe_zero"] is not None]
        return known[0] if known and max(known) - min(known) < 1e-6 else None


def breakdowns(names: Sequence[str], runs: Sequence[dict]) -> list[Section]:
    """All sections. names, runs: of each run its name and its metrics, in the same order."""
    return [make(names, runs) for make in (_by_speed, _by_bucket, _by_range, _by_class, _by_log)]


def run_legend(names: Sequence[str], *, zero: bool) -> Markup | None:
    """The marks of the runs, and with `zero` that of answering no motion."""
    several = len(names) > 1
    items = [tag("li", key(k), name if several else "the method") for k, name in enumerate(names) if several or zero]
    if zero:
        items.append(tag("li", tag("span", class_="reference"), "answering no motion"))
    return tag("ul", items, class_="runs") if items else None


def _by_speed(names: Sequence[str], runs: Sequence[dict]) -> Section:
    groups = [
        _Group(interval(of_runs[0]["from_mps"], of_runs[0]["to_mps"], "m/s"), list(of_runs))
        for of_runs in zip(*(run[breakdown.NAME]["speed"] for run in runs), strict=True)
    ]
    text = (
        "Mean end-point error of the points that truly have each speed, on a logarithmic axis: a mark on the line is "
        "no better than answering that nothing moves. The points are those of AV2 2023, here and by range and class."
    )
    return section(
        "speed",
        "Error by speed",
        tag("p", text, class_="lead"),
        run_legend(names, zero=True),
        tag(
            "div",
            _chart("Error by speed", groups, figures=False),
            _table(names, "Speed", groups),
            class_="columns" if len(names) <= _RUNS_BESIDE_A_CHART else "blocks",
        ),
    )


def _by_range(names: Sequence[str], runs: Sequence[dict]) -> Section:
    def groups(motion: str) -> list[_Group]:
        return [
            _Group(interval(of_runs[0]["from_m"], of_runs[0]["to_m"], "m"), [one[motion] for one in of_runs])
            for of_runs in zip(*(run[breakdown.NAME]["range"] for run in runs), strict=True)
        ]

    return _moving_and_standing("Range", names, groups, "By horizontal distance from the vehicle.")


def _by_class(names: Sequence[str], runs: Sequence[dict]) -> Section:
    found = [{one["name"]: one for one in run[breakdown.NAME]["class"]} for run in runs]
    nothing = dict.fromkeys(("moving", "standing"), {"num_points": 0, "epe": None, "epe_zero": None, "coverage": None})

    def groups(motion: str) -> list[_Group]:
        classes = dict.fromkeys(name for of_run in found for name in of_run)
        unsorted = [_Group(readable(name), [one.get(name, nothing)[motion] for one in found]) for name in classes]
        return sorted(unsorted, key=lambda group: -max(one["epe"] or 0.0 for one in group.of_runs))

    text = "By AV2’s category of the box a point lies in, the largest error first; background lies in none."
    return _moving_and_standing("Class", names, groups, text)


def _moving_and_standing(
    what: str, names: Sequence[str], groups: Callable[[str], list[_Group]], text: str
) -> Section:
    halves, below, beside = [], [], len(names) <= _RUNS_BESIDE_A_CHART
    for motion in ("moving", "standing"):
        known = [group for group in groups(motion) if any(one["num_points"] for one in group.of_runs)]
        chart = _chart(f"Error by {what.lower()}, {motion} points", known)
        title = f"{motion.capitalize()} points"
        figures = folded("Figures" if beside else f"{title}: figures", _table(names, what, known)) if known else None
        halves.append(tag("div", tag("h3", title), chart, figures if beside else None))
        below.append(None if beside else figures)
    return section(
        what.lower(),
        f"Error by {what.lower()}",
        tag("p", text, class_="lead"),
        run_legend(names, zero=True),
        tag("div", halves, class_="columns"),
        below,
    )


def _chart(label: str, groups: Sequence[_Group], *, figures: bool = True) -> Markup:
    """figures: write them beside the marks, where no table stands next to the chart"""
    rows = [
        Row(one.name, [of["epe"] for of in one.of_runs], one.zero, one.num_points if figures else "") for one in groups
    ]
    return rows_of_dots(rows, label, notes="points" if figures else "", write=metres if figures else None)


def _table(names: Sequence[str], what: str, groups: Sequence[_Group]) -> Markup:
    rows = []
    for group in groups:
        rows.append([group.name, group.num_points, metres(group.zero), *(metres(one["epe"]) for one in group.of_runs)])
        if len(names) == 1:
            rows[-1].append(share(group.of_runs[0]["coverage"]))
    errors = ["EPE, m", "Covered"] if len(names) == 1 else [f"{name}, m" for name in names]
    return table([what, "Points", "No motion, m", *errors], rows)


def _over(names: Sequence[str], before: int, each: int) -> list[tuple[str, int]]:
    """Names of the runs over their columns; a single run needs none."""
    return [("", before), *((name, each) for name in names)] if len(names) > 1 else []


def _by_bucket(names: Sequence[str], runs: Sequence[dict]) -> Section:
    figures, buckets = [run[av2_2024.NAME] for run in runs], []
    means = [text for one in figures for text in (ratio(one["mean_dynamic"]), metres(one["mean_static"]))]
    scores: list = [table_row(["Mean of the classes", "", *means], class_="strong")]
    for name in av2_2024.CLASSES:
        of_runs = [one["classes"][name] for one in figures]
        points = between([one["num_points"] for one in of_runs])
        cells = [text for one in of_runs for text in (ratio(one["dynamic"]), metres(one["static"]))]
        scores.append([readable(name), points, *cells])
        buckets += [group_row(readable(name), 2 + 3 * len(runs)), *_bucket_rows(of_runs)]
    text = (
        "The score of the AV2 2024 challenge: the mean error in a bucket of speeds over the mean speed in it, by "
        "class; 1 is answering no motion. A bucket is 0.04 m per pair wide, 0.4 m/s at 10 Hz. The larger a dot, the "
        "more points. A class’s dynamic score is the mean over its buckets from 0.4 m/s on, its static score the mean "
        "error below that, in metres; the mean of the classes counts each class alike, however many points it has."
    )
    return section(
        "buckets",
        "Normalised error",
        tag("p", text, class_="lead"),
        run_legend(names, zero=False),
        tag("div", _bucket_curves(figures), class_="columns panels"),
        tag(
            "div",
            table(["Class", "Points", *("Dynamic", "Static, m") * len(runs)], scores, over=_over(names, 2, 2)),
            class_="blocks",
        ),
        folded(
            "Figures of every bucket",
            table(["Bucket", "Points", *_BUCKET_HEADING * len(runs)], buckets, over=_over(names, 2, 3)),
        ),
    )


def _bucket_curves(figures: Sequence[dict]) -> list[Markup]:
    """One chart a class, all with the same axis."""
    of_classes = {name: [_curve(one["classes"][name]["buckets"]) for one in figures] for name in av2_2024.CLASSES}
    if not any(of_classes["BACKGROUND"]):  # as in AV2's own labels, where nothing of it moves
        del of_classes["BACKGROUND"]
    highest = max((point.y for series in of_classes.values() for one in series for point in one), default=0.0)
    top = next((top for top in (1.25, 1.5) if highest <= top), 2.0)
    return [
        curves(
            readable(name),
            series,
            f"Normalised error over speed, {readable(name)}",
            top=top,
            gap=1.6 * _BUCKET_MPS,
        )
        for name, series in of_classes.items()
    ]


def _curve(buckets: Sequence[dict]) -> list[Point]:
    return [
        Point(min(one["from_mps"] + _BUCKET_MPS / 2, _FASTEST_MPS), one["normalised"], one["num_points"])
        for one in buckets
        if one["normalised"] is not None
    ]


def _bucket_rows(of_runs: Sequence[dict]) -> list[list[Content]]:
    """One for each bucket that has points in any run."""
    by_speed = [{one["from_mps"]: one for one in of_run["buckets"]} for of_run in of_runs]
    rows = []
    for low in sorted({low for of_run in by_speed for low in of_run}):
        found = [of_run.get(low, {"num_points": 0}) for of_run in by_speed]
        high = next(one["to_mps"] for one in found if "to_mps" in one)
        row: list[Content] = [interval(low, high, "m/s"), between([one["num_points"] for one in found])]
        for one in found:
            row += [metres(one.get("epe")), ratio(one.get("speed")), ratio(one.get("normalised"))]
        rows.append(row)
    return rows


def _by_log(names: Sequence[str], runs: Sequence[dict]) -> Section:
    def figure(run: dict, log: str, definition: str, name: str) -> float | None:
        return run["per_log"].get(log, {}).get(definition, {}).get(name)

    def three_way(log: str) -> list[float | None]:
        return [figure(run, log, av2_2023.NAME, "three_way_epe") for run in runs]

    def worst(log: str, name: str) -> float:
        """Of the runs; below zero where none has it."""
        return max(-1.0 if (value := figure(run, log, av2_2023.NAME, name)) is None else value for run in runs)

    def pairs(log: str) -> str:
        return between([run["per_log"].get(log, {}).get("num_pairs", 0) for run in runs])

    every = dict.fromkeys(log for run in runs for log in run["per_log"])
    logs = sorted(every, key=lambda log: (worst(log, "three_way_epe"), worst(log, "fd")), reverse=True)
    label, text = "Three-way error of each log", "Three-way end-point error of AV2 2023, the worst log first."
    without = sum(worst(log, "three_way_epe") < 0 for log in logs)
    if without:
        text += (
            f" Last, by the error of moving foreground: {several(without, 'log')} without points in one of the three "
            "parts, and so without such an error."
        )
    if len(logs) <= _NAMED_LOGS:
        shown = zip(logs, short_names(logs), strict=True)
        rows = [Row(short, three_way(log), None, pairs(log)) for log, short in shown]
        chart = tag("div", rows_of_dots(rows, label, notes="pairs", write=metres), class_="columns")
    else:
        chart = tag("div", ranked(short_names(logs), [three_way(log) for log in logs], label), class_="scroll")
    parts = PARTS if len(runs) == 1 else PARTS[:1]
    cells = [
        [log, pairs(log), *(metres(figure(run, log, one.key, p)) for run in runs for one in DEFINITIONS for p in parts)]
        for log in logs
    ]
    if len(runs) == 1:
        over = [("", 2), *((one.title, len(parts)) for one in DEFINITIONS)]
        heading = ["Log", "Pairs", *("3-way", "FD", "FS", "BS") * len(DEFINITIONS)]
    else:
        over = _over(names, 2, len(DEFINITIONS))
        heading = ["Log", "Pairs", *[one.key for one in DEFINITIONS] * len(runs)]
    return section(
        "logs",
        "Error by log",
        tag("p", text, class_="lead"),
        run_legend(names, zero=False),
        chart,
        folded("Figures of every log", table(heading, cells, over=over)),
    )
