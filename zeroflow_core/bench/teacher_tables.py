"""The teacher's benchmark on screen: how good, how fast, and how near to what the device can do."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from zeroflow_core.bench import teacher_cost as cost
from zeroflow_core.bench.teacher_run import Batch, Run
from zeroflow_core.bench.teacher_summary import Summary, verdict
from zeroflow_core.evaluation.wording import NOTHING, count, metres, ratio, share

_ZERO = "zero flow"
_EACH = "each seed"
_PAPER = "× paper"
_DATASETS = (f"{cost.AV2_TRAIN_PAIRS:,} pairs", f"{cost.PAPER_PAIRS:,} pairs")


def print_tables(
    zero: dict[str, dict], summaries: Sequence[Summary], batches: Sequence[Batch], console: Console
) -> None:
    """All that was found, the floor first. zero: figures by each definition's name"""
    console.print(_accuracy(zero, summaries), _speed(summaries), _work(summaries))
    for sentence in filter(None, map(verdict, summaries)):
        console.print(sentence, soft_wrap=True)
    for summary in summaries:
        if summary.problems:
            console.print(f"{summary.name}: {summary.problems} of its runs gave no estimate", soft_wrap=True)
    if batches:
        console.print(_batches(batches))
    console.print(
        f"AV2's train split has {cost.AV2_TRAIN_PAIRS:,} pairs; the paper's recipe used {cost.PAPER_PAIRS:,}, and "
        f"labelling took {cost.PAPER_HOURS:g} hours of a {cost.PAPER_GPU} ({cost.PAPER_T4_S:g} s a pair; "
        f"{cost.PAPER_V100_S:g} s on a V100). Its abstract's {cost.PAPER_PAIRS_PER_S:g} pairs a second are what "
        f'"{_PAPER}" is against.',
        soft_wrap=True,
    )


def told(run: Run) -> str:
    """What came of a run, in a line."""
    epe = metres(run.errors["zeroflow"]["three_way_epe"])
    line = f"{run.name}, seed {run.seed}: {_digits(run.seconds)} s, {run.iterations:,} iterations, three-way EPE {epe}"
    return line if run.problem is None else f"{line}; {run.problem}"


def _accuracy(zero: dict[str, dict], summaries: Sequence[Summary]) -> Table:
    headings = ("three-way EPE", "÷ published", _EACH, "FD", "FS", "BS", "av2-2023 three-way")
    table = _table("Errors in metres; all but the last by ZeroFlow's definition, means over the seeds", headings)
    floor, theirs = zero["zeroflow"], zero["av2-2023"]["three_way_epe"]
    parts = [metres(floor[name]) for name in ("fd", "fs", "bs")]
    table.add_row(_ZERO, metres(floor["three_way_epe"]), NOTHING, NOTHING, *parts, metres(theirs))
    for one in summaries:
        table.add_row(
            one.name,
            metres(one.three_way_epe),
            ratio(one.epe_ratio),
            " ".join(map(metres, one.each_three_way_epe)),
            *(metres(value) for value in (one.fd, one.fs, one.bs, one.av2_2023)),
        )
    return table


def _speed(summaries: Sequence[Summary]) -> Table:
    headings = ("seconds", _EACH, "CPU s", "× published", _PAPER, "iterations", "ms/iteration", "memory")
    table = _table("Time and memory for a pair, medians over the seeds", headings)
    for one in summaries:
        table.add_row(
            one.name,
            _digits(one.seconds),
            " ".join(map(_digits, one.each_seconds)),
            _digits(one.cpu_seconds),
            NOTHING if one.speed_ratio is None else _digits(one.speed_ratio),
            _digits(one.paper_speed_ratio),
            f"{one.iterations:,.0f}",
            _digits(one.ms_per_iteration),
            _memory(one.memory_bytes),
        )
    return table


def _work(summaries: Sequence[Summary]) -> Table:
    headings = ("points", "FLOP/iteration", "FLOP/pair", "FLOP/s", "a matmul's", "share", *_DATASETS)
    table = _table("Arithmetic of the networks, and this machine's hours for many pairs like this one", headings)
    for one in summaries:
        table.add_row(
            one.name,
            f"{one.points:,.0f}",
            *map(_prefixed, (one.flops_per_iteration, one.flops, one.flops_per_s)),
            f"{_prefixed(one.matmul_rate)} {one.precision}",
            share(one.matmul_share),
            *(f"{_digits(hours)} h" for hours in (one.av2_train_hours, one.paper_recipe_hours)),
        )
    return table


def _batches(batches: Sequence[Batch]) -> Table:
    headings = ("in flight", "pairs", "first one's EPE", "pairs/s", _PAPER, "memory", *_DATASETS)
    table = _table("Many pairs at once", headings)
    for one in batches:
        hours = (cost.hours(pairs, one.pairs_per_s) for pairs in (cost.AV2_TRAIN_PAIRS, cost.PAPER_PAIRS))
        table.add_row(
            one.name,
            *map(count, (one.in_flight, one.pairs)),
            metres(one.three_way_epe),
            _digits(one.pairs_per_s),
            _digits(one.pairs_per_s / cost.PAPER_PAIRS_PER_S),
            _memory(one.memory_bytes),
            *(f"{_digits(each)} h" for each in hours),
        )
    return table


def _table(title: str, headings: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("", no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=heading != _EACH)
    return table


def _digits(value: float) -> str:
    """Three digits that count."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:#.3g}"


def _prefixed(value: float) -> str:
    """Such as 84.2 G."""
    for power, prefix in ((12, "T"), (9, "G"), (6, "M")):
        if value >= 10**power:
            return f"{_digits(value / 10**power)} {prefix}"
    return _digits(value)


def _memory(value: int | None) -> str:
    return NOTHING if value is None else f"{value / 2**20:,.0f} MiB"
