"""From a plan to weights: import → simulate → label → train → a model card.

Every stage goes on where it was stopped and does nothing when it is complete. What is simulated, labelled and prepared
lies in the folder once, for all students and seeds; each training has a folder of its own, ``default-seed-1`` or
``default-truth-seed-1``, so that several can train side by side.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from zeroflow_core.devices import choose_device
from zeroflow_core.distillation.making.card import CARD, Facts, write_card
from zeroflow_core.distillation.making.parts import Parts, join_parts, read_parts, write_parts
from zeroflow_core.distillation.making.settings import MakeSettings
from zeroflow_core.distillation.making.teaching import Taught, teach
from zeroflow_core.distillation.making.telling import OutOfTime, Stage, Telling
from zeroflow_core.distillation.training.fitting import TrainProgress
from zeroflow_core.distillation.training.prepared import PreparedPairs
from zeroflow_core.distillation.training.state import step_of
from zeroflow_core.distillation.training.train import Trained, TrainSettings, labelled_pairs, split_pairs, train
from zeroflow_core.errors import ZeroFlowError, differences
from zeroflow_core.evaluation.wording import several
from zeroflow_core.fastflow3d.checkpoint import load_model, save_model
from zeroflow_core.fastflow3d.config import SIZES
from zeroflow_core.files import held, new_file, remove_unfinished
from zeroflow_core.version import VERSION

TRAIN = "train"
STUDENT, PLAN = "student.safetensors", "recipe.json"
_TABLE = "table.md"  # of the card, kept for when it is written again
_PATIENCE_S = 15.0  # for what is left of a run that was killed


@dataclass(frozen=True)
class Made:
    """
    student: the file, fp16; None where time was over before it was trained
    card:    beside it; None likewise
    stopped: the stage in which time was over, or ""
    """

    student: Path | None
    card: Path | None
    stopped: str = ""


def make(
    settings: MakeSettings,
    on_progress: Callable[[Stage], None] = lambda stage: None,
    on_line: Callable[[str], None] = lambda line: None,
) -> Made:
    """Make the weights, or go on where an earlier call stopped.

    on_line: called with a line on each stage that is complete

    Raises:
        ZeroFlowError: settings that can't be used, another process makes the same weights or the labels for them, or
            the file system refuses.
    """
    settings = replace(settings, device=choose_device(settings.device))
    parts = None if settings.from_parts is None else read_parts(settings.from_parts, settings.identity)
    if parts is not None:
        _check_behind(settings, parts)
    telling = Telling(on_progress, on_line, settings.minutes)
    with ExitStack() as training:
        try:
            with held(settings.out, "simulating or labelling in", _PATIENCE_S):
                training.enter_context(held(settings.run, "making weights in", _PATIENCE_S))
                remove_unfinished(settings.run, [STUDENT, PLAN, CARD, _TABLE])
                _claim(settings)
                taught = teach(settings, telling)
            _join(settings, parts, taught, telling)
            trained = _train(settings, taught, telling)
        except OutOfTime:
            return Made(None, None, telling.stage)
        student = _export(settings, trained)
        return Made(student, _tell_of(settings, taught, trained, student))


def pack(settings: MakeSettings, folder: Path) -> list[Path]:
    """Write what it takes to go on with this training elsewhere to `folder`; see write_parts."""
    return write_parts(settings.checkpoint.parent, folder, settings.identity)


def _claim(settings: MakeSettings) -> None:
    """Say what the training's folder is of; or see that the training there is of the same, before any work."""
    path = settings.run / PLAN
    if path.exists() and settings.checkpoint.exists():
        try:
            there = MakeSettings.identity_of(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ZeroFlowError(f"{path} can't be read; remove it, and it will be written again") from error
        unlike = differences(there, json.loads(json.dumps(settings.identity)))
        if unlike:
            raise ZeroFlowError(
                f"{settings.run} is of another recipe ({unlike}); choose another --out, or remove it to train afresh"
            )
    with new_file(path, "w") as file:
        file.write(json.dumps(settings.about, indent=1) + "\n")


def _check_behind(settings: MakeSettings, parts: Parts) -> None:
    """That no steps are lost by going on with the training that is there, if there is one."""
    path = settings.checkpoint
    there = step_of(path) if path.exists() else parts.step
    if parts.step > there:
        raise ZeroFlowError(
            f"the parts in {parts.folder} are further along ({several(parts.step, 'step')}) than {path.parent} "
            f"({several(there, 'step')}); remove that folder to go on from the parts, or leave --from-parts out"
        )


def _join(settings: MakeSettings, parts: Parts | None, taught: Sequence[Taught], telling: Telling) -> None:
    """Go on from parts, unless the training is there already."""
    training = settings.checkpoint.parent
    if parts is None:
        return
    if settings.checkpoint.exists():
        telling.line(f"{training} holds a training already, which goes on; the parts are not needed")
        return
    pairs = []
    for one in taught:
        kept, _ = split_pairs(labelled_pairs(one.source), settings.plan.held_back)
        prepared = PreparedPairs(one.source, kept, SIZES[settings.plan.student], None)
        pairs.append(f"{len(prepared)} ({prepared.digest})")
    join_parts(parts, training, pairs)
    telling.line(f"joined the parts in {parts.folder}: {parts.step:,} steps are done")


def _train(settings: MakeSettings, taught: Sequence[Taught], telling: Telling) -> Trained:
    telling.begin(TRAIN)
    plan = settings.plan
    how = TrainSettings(
        sources=tuple(one.source for one in taught),
        out=settings.checkpoint.parent,
        student=plan.student,
        recipe=settings.recipe,
        device=settings.device,
        seed=plan.seed,
        held_back=plan.held_back,
        prepared=settings.out / "prepared",
        name=f"{plan.name}-truth" if settings.truth else plan.name,
        about=_metadata(settings, taught),
    )

    def on_step(now: TrainProgress) -> None:
        loss = "" if now.loss is None else f", loss {now.loss:.4f}"
        note = f"epoch {min(now.epoch + 1, now.epochs)} of {now.epochs}{loss}{f', {now.note}' if now.note else ''}"
        telling.progress(now.step, now.steps, note)

    trained = train(how, on_step)
    figures = ", ".join(f"{name} {value:.4f}" for name, value in trained.figures.items() if value is not None)
    telling.line(f"trained {several(trained.steps, 'step')} in {trained.seconds / 60:.1f} minutes: {figures}")
    return trained


def _metadata(settings: MakeSettings, taught: Sequence[Taught]) -> dict[str, Any]:
    """Of the student, beside what the training writes by itself."""
    plan, pairs = settings.plan, {}
    for one in taught:
        name = one.logs.scanner or "recorded"
        pairs[name] = pairs.get(name, 0) + one.pairs
    chunks = [[entry.seed, entry.seed + entry.chunks - 1] for entry in plan.simulated]
    told = {
        "labels": "truth" if settings.truth else "pseudo",
        "pairs": pairs,
        "seeds": {"training": plan.seed, "teacher": plan.teacher.seed, "simulation": chunks},
        "made_by": "zeroflow_core.distillation.make_weights",
        "zeroflow": VERSION,
    }
    if settings.truth:  # which needs no clearing, but its student is to be compared with those of labels that do
        return {**told, "teacher": "none: the simulation's truth", "verify": plan.training.refine}
    return told


def _export(settings: MakeSettings, trained: Trained) -> Path:
    path = settings.run / STUDENT
    model, metadata = load_model(trained.student)
    kept = {key: value for key, value in metadata.items() if key not in ("format", "grid")}
    save_model(path, model, kept, half=True)
    return path


def _tell_of(settings: MakeSettings, taught: Sequence[Taught], trained: Trained, student: Path) -> Path:
    model, metadata = load_model(student)
    facts = Facts(
        plan=settings.plan,
        recipe=settings.recipe,
        truth=settings.truth,
        taught=taught,
        trained=trained,
        student=student,
        weights=sum(parameter.numel() for parameter in model.parameters()),
        metadata=metadata,
        table=_table(settings),
    )
    write_card(settings.run / CARD, facts)
    return settings.run / CARD


def _table(settings: MakeSettings) -> str | None:
    """For the card: that which is given, else the one that was given last."""
    path = settings.run / _TABLE
    if settings.table is not None:
        with new_file(path, "w") as file:
            file.write(settings.table)
    try:
        return path.read_text(encoding="utf-8") if path.exists() else None
    except OSError as error:
        raise ZeroFlowError(f"cannot read {path}: {error.strerror or error}") from error
