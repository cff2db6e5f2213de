"""What a distillation shows of itself: curves over its training, and a pair it did not learn from, before and after."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from zeroflow_core.datasets.av2 import Log
from zeroflow_core.datasets.pseudo_labels import PseudoLabels
from zeroflow_core.distillation.pairs import PairRef, evenly
from zeroflow_core.distillation.training.curves import CURVES, VALIDATION
from zeroflow_core.distillation.training.prepared import students_ground
from zeroflow_core.drawing.birds_eye import draw_birds_eye
from zeroflow_core.drawing.curves import Curve, Panel, draw_curves
from zeroflow_core.drawing.view import BACKGROUND
from zeroflow_core.evaluation.errors import DYNAMIC_SPEED
from zeroflow_core.evaluation.report.worst_pairs import where_the_error_is
from zeroflow_core.fastflow3d.anchored import flow_estimator
from zeroflow_core.fastflow3d.checkpoint import load_model
from zeroflow_core.fastflow3d.config import SIZES
from zeroflow_core.fastflow3d.model import FastFlow3D
from zeroflow_core.fastflow3d.student import Student, load_student
from zeroflow_core.ground import mark_ground
from zeroflow_core.pairs import estimate_flow, make_pair

_LOOKED_AT = 40  # held-back pairs, of which the one with most motion is shown
_BELIEVED = 0.15  # of the points with a label: where a teacher sees more of them move, it is usually wrong
_SIDE, _GAP = 620, 10  # pixels
_FASTEST = 1e6  # metres per pair that a picture tells apart
_SMOOTHED = 21  # rows of the curves


def draw_training(training: Path) -> Image.Image:
    """Loss and validation over the steps, from the files that `train` leaves in the folder `training`."""
    rows, validated = (_columns(training / name) for name in (CURVES, VALIDATION))
    steps, loss = rows.get("step", np.zeros(0)), rows.get("loss", np.zeros(0))
    at = validated.get("step", np.zeros(0))

    def curves(names: dict[str, str]) -> list[Curve]:
        return [Curve(at, validated[key], name, marks=True) for key, name in names.items() if key in validated]

    def reference(key: str, name: str) -> list[tuple[str, float]]:
        known = validated.get(key, np.zeros(0))
        known = known[np.isfinite(known)]
        return [(name, float(known[-1]))] if len(known) else []

    losses = [Curve(steps, loss, faint=True), Curve(steps, _smooth(loss), "mean")]
    panels = [
        Panel("Loss", "of the training's batches", losses),
        Panel(
            "Held-back pairs",
            "metres from the teacher's labels",
            curves({"heldback/moving_epe": "moving", "heldback/still_epe": "still"}),
            reference("heldback/zero_moving_epe", "moving, zero flow"),
        ),
    ]
    labelled = curves({f"val/{part}": name for part, name in _PARTS.items()})
    if labelled:
        panels.append(Panel("Labelled logs", "metres from their labels (av2-2023)", labelled))
    return draw_curves(panels, "steps")


_PARTS = {"three_way_epe": "three-way", "fd": "FD", "fs": "FS", "bs": "BS"}


def _columns(path: Path) -> dict[str, np.ndarray]:
    """The columns of a CSV file as floats, NaN where a cell is empty; none where there is no file."""
    if not path.exists():
        return {}
    with open(path, newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
        return {name: np.array([float(row[name] or "nan") for row in rows]) for name in reader.fieldnames or ()}


def _smooth(values: np.ndarray) -> np.ndarray:
    """The mean of each value and its neighbours, fewer at the ends."""
    window = np.ones(min(_SMOOTHED, max(len(values), 1)))
    weights = np.convolve(np.ones(len(values)), window, "same")[: len(values)]
    return np.convolve(values, window, "same")[: len(values)] / weights


def draw_before_after(
    held_back: Sequence[PairRef], labels: PseudoLabels, student: str, checkpoint: Path, device: str, seed: int
) -> Image.Image:
    """A held-back pair in which the teacher sees much motion, from above: as the student saw it before its training,
    as it sees it now, and as the teacher does.

    student:    a size, or the checkpoint that the training started from
    checkpoint: of the student as it is now
    """
    pair = _liveliest(held_back, labels)
    log, i = Log(pair.log), pair.index
    after = load_student(checkpoint, device, engine="reference")
    before = Student(_untrained(student, seed), after.metadata, after.device)
    rule = students_ground(pair.log, after.metadata["ground"])
    frames = make_pair(*(mark_ground(log.sweep(k), rule) for k in (i, i + 1)))
    label, _ = labels.read(log, i)
    motion = np.linalg.norm(np.nan_to_num(label), axis=1)
    centre, across = where_the_error_is(frames.pc0, np.where(motion >= DYNAMIC_SPEED * frames.dt, motion, 0.0))
    began = "random weights" if student in SIZES else student
    views = {
        f"Before training ({began})": estimate_flow(before, frames).vectors,
        "After": flow_estimator(after)(frames).vectors,
        "The teacher's label": label,
    }
    look = {"size": (_SIDE, _SIDE), "metres_across": across, "centre": centre, "magnify": 1.15}
    where = f"{log.log_id}, pair {i}, {across:g} m across", "it has not learned from this pair", ""
    image = Image.new("RGB", (3 * _SIDE + 2 * _GAP, _SIDE), BACKGROUND)
    for k, ((title, flow), subtitle) in enumerate(zip(views.items(), where, strict=True)):
        velocity = np.clip(flow, -_FASTEST, _FASTEST) / np.float32(frames.dt)
        view = draw_birds_eye(frames.pc0, velocity, title=title, subtitle=subtitle, legend=k == 2, **look)
        image.paste(view, (k * (_SIDE + _GAP), 0))
    return image


def _liveliest(held_back: Sequence[PairRef], labels: PseudoLabels) -> PairRef:
    def motion(pair: PairRef) -> tuple[bool, int]:
        log = Log(pair.log)
        label, _ = labels.read(log, pair.index)
        dt = (log.stamps_ns[pair.index + 1] - log.stamps_ns[pair.index]) * 1e-9
        with np.errstate(invalid="ignore"):
            moving = int((np.linalg.norm(label, axis=1) >= DYNAMIC_SPEED * dt).sum())
        believed = moving <= _BELIEVED * np.isfinite(label[:, 0]).sum()
        return believed, moving if believed else -moving

    return max(evenly(held_back, _LOOKED_AT), key=motion)


def _untrained(student: str, seed: int) -> FastFlow3D:
    if student not in SIZES:
        return load_model(student)[0]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return FastFlow3D(SIZES[student])
