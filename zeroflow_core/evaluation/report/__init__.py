"""The HTML report of a run, and of several runs side by side: one file that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from zeroflow_core.evaluation import av2_2023
from zeroflow_core.evaluation.report.breakdowns import breakdowns
from zeroflow_core.evaluation.report.charts import histogram
from zeroflow_core.evaluation.report.comparison import compared_runs, incomparable
from zeroflow_core.evaluation.report.definitions import definition_cards, definition_details
from zeroflow_core.evaluation.report.markup import Markup, tag
from zeroflow_core.evaluation.report.page import Section, document, facts, folded, section, table, warning, write_page
from zeroflow_core.evaluation.report.worst_pairs import WorstPair, worst_pairs
from zeroflow_core.evaluation.wording import beside_others, count, duration, several

__all__ = ["WorstPair", "write_comparison", "write_report"]

_FAILURES_SHOWN = 10


def write_report(path: Path, metrics: dict, pairs: Sequence[dict], worst: Sequence[WorstPair]) -> None:
    """Write the report of one run.

    metrics: content of metrics.json
    pairs:   rows of pairs.csv, texts by column
    worst:   pairs to show in pictures, worst first

    Raises:
        ZeroFlowError: the file cannot be written.
    """
    sections = [
        definition_cards(metrics),
        *breakdowns([metrics["run"]["name"]], [metrics]),
        definition_details(metrics),
        _distributions(metrics, pairs),
        *([worst_pairs(worst)] if worst else []),
    ]
    header = [_about(metrics), _notes(metrics["run"]["notes"]), _failures(metrics["failed"])]
    write_page(path, document(metrics["run"]["name"], header, sections, f"zeroflow {metrics['run']['version']}"))


def write_comparison(path: Path, runs: Sequence[tuple[str, dict]]) -> None:
    """Write the report of several runs side by side.

    runs: name and content of metrics.json of each

    Raises:
        ZeroFlowError: the file cannot be written.
    """
    names, figures = [name for name, _ in runs], [metrics for _, metrics in runs]
    sections = [compared_runs(names, figures), *breakdowns(names, figures)]
    versions = ", ".join(dict.fromkeys(metrics["run"]["version"] for metrics in figures))
    header = incomparable(names, figures)
    write_page(path, document(f"{several(len(runs), 'run')} compared", header, sections, f"zeroflow {versions}"))


def _about(metrics: dict) -> Markup:
    run = metrics["run"]
    return facts(
        [
            ("Data", run["data"]),
            ("Split", run["split"]),
            ("Scored", f"{several(run['num_pairs'], 'pair')} of {several(run['num_logs'], 'log')}"),
            ("Method", run["method"]),
            *([("Checkpoint", run["checkpoint"])] if run.get("checkpoint") else []),
            ("Time per pair, median", duration(run["seconds"]["median"]) + beside_others(run["jobs"])),
            ("Version", run["version"]),
        ]
    )


def _notes(notes: Sequence[str]) -> list[Markup]:
    return [tag("p", f"{note[:1].upper()}{note[1:].removesuffix('.')}.", class_="faint note") for note in notes]


def _failures(failed: Sequence[dict]) -> Markup | None:
    if not failed:
        return None
    rows = [
        [one["log"], str(one["index"]), tag("span", str(one["stamp_ns"]), class_="unbroken"), one["error"]]
        for one in failed
    ]
    heading = ["Log", "Pair", "Stamp, ns", "What happened"]
    more = rows[_FAILURES_SHOWN:]
    return warning(
        f"{several(len(failed), 'pair')} failed",
        tag("p", "They are in no figure of this report. Running the same command again tries them once more."),
        table(heading, rows[:_FAILURES_SHOWN], class_="prose"),
        folded(f"{count(len(more))} more", table(heading, more, class_="prose")) if more else None,
    )


def _distributions(metrics: dict, pairs: Sequence[dict]) -> Section:
    """Over pairs: time, and the error of moving foreground."""

    def column(name: str) -> list[float]:
        return [float(row[name]) for row in pairs if row.get(name)]

    seconds, times = metrics["run"]["seconds"], column("seconds")
    mean = f"Mean {duration(seconds['mean'])}; the method alone, without reading and scoring."
    scale, unit = (1.0, "s") if (seconds["median"] or 0.0) >= 1.0 else (1000.0, "ms")
    marked = [(name, seconds[name]) for name in ("median", "p90") if seconds[name] is not None]
    return section(
        "pairs",
        "Pair by pair",
        tag("p", "How the pairs are spread. The last bar holds all that lies further right.", class_="lead"),
        tag(
            "div",
            tag(
                "div",
                tag("h3", "Run time"),
                histogram(times, "Number of pairs by run time", unit=unit, scale=scale, lines=marked),
                tag("p", mean, class_="faint"),
            ),
            tag(
                "div",
                tag("h3", "Error of moving foreground"),
                histogram(column(f"{av2_2023.NAME}/fd"), "Number of pairs by error of moving foreground", unit="m"),
                tag("p", "Foreground, dynamic of AV2 2023, each pair by itself.", class_="faint"),
            ),
            class_="columns",
        ),
    )
