"""Several runs side by side: what they are, every definition's figures with the best marked, and a warning."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from zeroflow_core.evaluation.comparing import FIGURES, RUN, Figure, Kind, best_text, mismatch
from zeroflow_core.evaluation.report.breakdowns import run_legend
from zeroflow_core.evaluation.report.definitions import DEFINITIONS
from zeroflow_core.evaluation.report.markup import Content, Markup, tag
from zeroflow_core.evaluation.report.page import Section, group_row, section, table, warning
from zeroflow_core.evaluation.wording import count, duration, metres, ratio, share

_WRITE: dict[Kind, Callable[[float | None], str]] = {
    Kind.METRES: metres,
    Kind.RADIANS: ratio,
    Kind.RATIO: ratio,
    Kind.SHARE: share,
    Kind.SECONDS: duration,
    Kind.COUNT: count,
}


def compared_runs(names: Sequence[str], runs: Sequence[dict]) -> Section:
    """What the runs are, and their figures by every definition."""
    fair = mismatch(runs) is None
    titles = {**{one.key: one.title for one in DEFINITIONS}, RUN: "Run time"}
    rows: list = []
    for definition, figures in FIGURES.items():
        rows.append(group_row(titles[definition], 1 + len(runs)))
        rows += [[one.name, *_written(one, [one.of(run[definition]) for run in runs], fair)] for one in figures]
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
    caption = "The best of each row is marked." if fair else ""
    return section(
        "figures",
        "Figures",
        run_legend(names, zero=False),
        table(["Run", "Method", "Data", "Split", "Logs", "Pairs", "Failed"], about, class_="prose"),
        tag("div", table(["", *names], rows, caption=caption), class_="blocks"),
    )


def incomparable(names: Sequence[str], runs: Sequence[dict]) -> Markup | None:
    """A warning where the runs did not score the same points, with what each scored."""
    other = mismatch(runs)
    if other is None:
        return None
    return warning(
        "These runs are not comparable",
        tag("p", f"They scored other {other.what}, so a difference in error may come from that alone."),
        table(["Run", "Scored"], list(zip(names, other.scored, strict=True)), class_="prose"),
    )


def _written(figure: Figure, values: Sequence[float | None], fair: bool) -> list[Content]:
    """The values as text, the best with a mark where it is fair to compare them."""
    texts = [_WRITE[figure.kind](value) for value in values]
    best = best_text(figure, values, texts) if fair else None
    return [tag("strong", text, class_="best") if text == best else text for text in texts]
