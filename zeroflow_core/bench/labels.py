"""`labels`: how right pseudo-labels are, as the teacher wrote them and as a student learns them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from zeroflow_core.bench.machine import described
from zeroflow_core.datasets.av2 import Log
from zeroflow_core.files import new_file

if TYPE_CHECKING:
    from zeroflow_core.distillation.training.prepared import Source
    from zeroflow_core.distillation.training.samples import Sample

_FAST = 0.5  # m/s: from there on something moves
_ROWS = {
    "false_motion": "standing points, labelled as moving",
    "still_unknown": "… without a label",
    "missed_motion": "moving points, labelled as standing",
    "moving_unknown": "… without a label",
    "moving_epe": "error of those labelled as moving, metres",
    "moving_epe_of_zero": "what zero flow has there",
}


def labels(
    folders: Annotated[list[Path], typer.Argument(help="What zeroflow distill label wrote for logs with labels.")],
    pairs: Annotated[int, typer.Option(min=1, help="Pairs of each folder, at most, spread evenly.")] = 6,
    ground: Annotated[str, typer.Option(help="Left out: map, patchwork or none.")] = "patchwork",
    json_file: Annotated[Path | None, typer.Option("--json", help="File for the figures.")] = None,
) -> None:
    """Compare pseudo-labels with what really moved, raw and refined.

    Refined is what the recipe "fast" learns from. Points that the teacher had
    an answer for count, ground left out, in both directions of time.

    Example: python -m zeroflow_core.bench labels out/default/data/*/labels
    """
    results = {}
    progress = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        console=Console(stderr=True), disable=not Console(stderr=True).is_terminal, transient=True,
    )  # fmt: skip
    with progress:
        for folder in progress.track(folders, description="folders"):
            results[str(folder)] = _judge(folder, pairs, ground)
    console = Console(highlight=False)
    for folder, kinds in results.items():
        table = Table("", *kinds, title=folder, title_justify="left")
        for k, row in enumerate(_ROWS.values()):
            table.add_row(row, *(f"{figures[k]:.3f}" if k > 3 else f"{figures[k]:.1%}" for figures in kinds.values()))
        console.print(table)
    if json_file is not None:
        with new_file(json_file, "w") as file:
            named = {
                folder: {kind: dict(zip(_ROWS, figures, strict=True)) for kind, figures in kinds.items()}
                for folder, kinds in results.items()
            }
            json.dump({"bench": "labels", **described("cpu"), "ground": ground, "folders": named}, file, indent=1)


def _judge(folder: Path, pairs: int, ground: str) -> dict[str, list[float]]:
    """The figures of _ROWS by kind, ``raw`` and ``refined``.

    Raises:
        ZeroFlowError: labels that are missing or damaged, or of logs whose motion nobody knows.
    """
    from zeroflow_core.distillation.pairs import evenly
    from zeroflow_core.distillation.training.label_sources import source_of
    from zeroflow_core.distillation.training.refinement import refine
    from zeroflow_core.distillation.training.train import labelled_pairs

    source = source_of(folder, ground=ground)
    sums = {"raw": np.zeros(8), "refined": np.zeros(8)}
    for ref in evenly(labelled_pairs(source), pairs):
        for sample, truth in _samples(source, Log(ref.log), ref.index):
            for kind, label in (("raw", sample.label), ("refined", refine(sample).label)):
                counted = np.isfinite(truth).all(axis=1) & np.isfinite(sample.label).all(axis=1)
                sums[kind] += _sums(label[counted], truth[counted], abs(sample.dt))
    return {kind: _figures(values) for kind, values in sums.items()}


def _samples(source: Source, log: Log, i: int) -> Iterator[tuple[Sample, np.ndarray]]:
    """The pair of sweeps `i` and `i` + 1 without ground, forward and, where it is labelled, backward in time; and how
    its points really moved, (N,3), metres, NaN where nobody knows."""
    from zeroflow_core.distillation.labelling.errors import reverse_truth
    from zeroflow_core.distillation.training.prepared import students_ground
    from zeroflow_core.distillation.training.samples import Sample
    from zeroflow_core.evaluation.truth import read_truth
    from zeroflow_core.ground import mark_ground
    from zeroflow_core.pairs import make_pair

    rule = students_ground(log.path, source.ground)
    sweeps = [mark_ground(log.sweep(k), rule) for k in (i, i + 1)]
    truths = read_truth(log, i), reverse_truth(log, i)
    for order, label, truth in zip((sweeps, sweeps[::-1]), source.labels.read(log, i), truths, strict=True):
        if label is None or truth is None:
            continue
        pair, flow = make_pair(*order), truth.scene_flow
        rows = np.flatnonzero(~pair.is_ground0)
        moved = np.where(flow.is_valid[:, None], flow.residual, np.nan)
        known = label[rows].astype(np.float32)
        yield Sample(pair.pc0[rows], pair.pc1[~pair.is_ground1], known, pair.dt), moved[rows]


def _figures(sums: np.ndarray) -> list[float]:
    """Of the _sums of all pairs."""
    still, false_motion, still_unknown, moving, missed, moving_unknown, error, motion = sums
    told = moving - missed - moving_unknown
    with np.errstate(invalid="ignore"):
        shares = [false_motion / still, still_unknown / still, missed / moving, moving_unknown / moving]
        return [float(value) for value in (*shares, error / told, motion / told)]


def _sums(label: np.ndarray, truth: np.ndarray, dt: float) -> np.ndarray:
    """Standing points, of them moving by their label, without one; moving points, of them standing by their label,
    without one; of those that move by both the errors, and the motion."""
    label, truth = label.astype(np.float64), truth.astype(np.float64)
    there = np.isfinite(label).all(axis=1)
    told = there & (np.linalg.norm(np.nan_to_num(label), axis=1) >= _FAST * dt)
    moves = np.linalg.norm(truth, axis=1) >= _FAST * dt
    both = moves & told
    return np.array([
        np.sum(~moves), np.sum(~moves & told), np.sum(~moves & ~there),
        np.sum(moves), np.sum(moves & there & ~told), np.sum(moves & ~there),
        np.linalg.norm(label[both] - truth[both], axis=1).sum(), np.linalg.norm(truth[both], axis=1).sum(),
    ])  # fmt: skip
