"""The student's benchmark on screen: how fast, with how much memory and arithmetic, and how near the reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from zeroflow_core.bench.student_growth import Growth, Reading
from zeroflow_core.bench.student_run import Row
from zeroflow_core.evaluation.wording import NOTHING, count, duration, several, share

_BUSY = 0.25  # of the cores, by the load of the last minute, from which on times are not the student's alone
_TITLES = {
    "pair": "Time for a pair of clouds, taken in turns in one process",
    "points": "More and more points",
    "occupancy": "More and more pillars, as many points",
}


def heading(about: dict[str, Any]) -> str:
    """What is measured on what, in a line. about: the command's plain data on it"""
    commit = f" ({about['commit']})" if about["commit"] else ""
    busy = "; THE MACHINE IS BUSY: times say little" if about["load"] > _BUSY * about["cpus"] else ""
    return (
        f"FastFlow3D {about['size']}, {about['weights']}; {about['machine']}, {several(about['threads'], 'thread')}, "
        f"load {about['load']:.1f} on {several(about['cpus'], 'core')}; torch {about['torch']}, "
        f"zeroflow {about['version']}{commit}{busy}"
    )


def told(row: Row) -> str:
    """What came of a pair of clouds, in a line."""
    return f"{row.pair}, {row.dtype}: {_ms(row.engine_ms)}, reference {_ms(row.reference_ms)}, {row.ratio:.1f}× as fast"


def told_reading(reading: Reading) -> str:
    device = f", {_memory(reading.device)} on the GPU" if reading.device else ""
    return f"after {several(reading.frames, 'pair')}: {_memory(reading.resident)} resident{device}"


def print_tables(rows: Sequence[Row], growth: Growth | None, console: Console) -> None:
    """All that was found. The work and the answers are those of the usual pairs; sweeps have their times."""
    usual = [row for row in rows if row.kind == "pair"]
    for kind, title in _TITLES.items():
        its = [row for row in rows if row.kind == kind]
        if its:
            console.print(_times(title, its))
        if its and its == usual:
            console.print(_work(usual), _answers(usual))
    if rows:
        console.print(
            "Reference and engine are medians; p99 is the 99th percentile of so many pairs, with fewer than 100 the "
            'slowest one. Both clouds of a pair are new to the engine; with "reusing" it knows one, bit for bit, from '
            "the pair before.",
            soft_wrap=True,
        )
    if growth is not None:
        console.print(verdict(growth), soft_wrap=True)


def verdict(growth: Growth) -> str:
    """Whether memory grew, in a sentence."""
    first, last = growth.readings[0], growth.readings[-1]
    frames = last.frames - first.frames
    change = f"{'+' if growth.grown > 0 else '-'}{abs(growth.grown) / 2**20:.1f} MiB"
    said = "memory GREW" if growth.grew else "memory did not grow"
    return (
        f"{said}: {change} between the second and the last quarter of {several(last.frames, 'pair')}; "
        f"{_memory(first.resident)} resident after {count(first.frames)}, {_memory(last.resident)} "
        f"{several(frames, 'pair')} later"
    )


def _times(title: str, rows: Sequence[Row]) -> Table:
    headings = (
        "dtype",
        "points",
        "pillars",
        "from",
        "reference",
        "p99 (of)",
        "engine",
        "p99 (of)",
        "× as fast",
        "reusing",
    )
    table = _table(title, headings)
    for row in rows:
        table.add_row(
            row.pair,
            row.dtype,
            count(row.points),
            share(row.occupied),
            row.points_from,
            _ms(row.reference_ms),
            f"{_ms(row.reference_p99_ms)} ({row.reference_samples})",
            _ms(row.engine_ms),
            f"{_ms(row.engine_p99_ms)} ({row.engine_samples})",
            f"{row.ratio:.1f}",
            _ms(row.engine_reusing_ms),
        )
    return table


def _work(rows: Sequence[Row]) -> Table:
    headings = ("dtype", "GFLOP", "reference's", "… at best", "of matmul rate", "GB moved", "of copy rate")
    table = _table("Arithmetic and traffic, beside what this machine does at best", headings)
    for row in rows:
        table.add_row(
            row.pair,
            row.dtype,
            f"{row.engine_flops / 1e9:,.1f}",
            f"{row.reference_flops / 1e9:,.1f}",
            _ms(row.dense_ms),
            share(row.matmul_share),
            NOTHING if row.engine_bytes is None else f"{row.engine_bytes / 1e9:.2f}",
            share(row.copy_share),
        )
    one = rows[0]
    table.caption = "; ".join(
        [
            *(f"a product in {dtype}: {rate / 1e9:,.0f} GFLOP/s" for dtype, rate in _rates(rows).items()),
            f"a copy: {one.copy_rate / 1e9:,.1f} GB/s, read and written",
            "at best: the reference's operations at the product's rate",
        ]
    )
    table.caption_justify = "left"
    return table


def _rates(rows: Sequence[Row]) -> dict[str, float]:
    return {row.dtype: row.matmul_rate for row in rows}


def _answers(rows: Sequence[Row]) -> Table:
    headings = ("dtype", "mean", "p99.9", "largest", "same points", "start", "reference's", "memory", "reference's")
    table = _table(
        "Differences from the reference's flow in mm; time and most memory from weights to the first flow", headings
    )
    for row in rows:
        table.add_row(
            row.pair,
            row.dtype,
            *(f"{1000 * value:.4f}" for value in (row.difference_mean_m, row.difference_p999_m, row.difference_max_m)),
            "yes" if row.same_points else "NO",
            _ms(row.engine_start_ms),
            _ms(row.reference_start_ms),
            _memory(row.engine_memory_bytes),
            _memory(row.reference_memory_bytes),
        )
    return table


def _table(title: str, headings: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("", no_wrap=True)
    for name in headings:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _ms(value: float) -> str:
    return duration(value / 1000)


def _memory(value: int | None) -> str:
    return NOTHING if value is None else f"{value / 2**20:,.0f} MiB"
