"""What a student learns from: logs, simulated and recorded, and their labels. What is there is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from zeroflow_core.datasets.av2 import Log
from zeroflow_core.distillation.labelling.label import LabelProgress, LabelSettings, label
from zeroflow_core.distillation.labelling.work import threads_kept
from zeroflow_core.distillation.making.settings import MakeSettings
from zeroflow_core.distillation.making.telling import Telling
from zeroflow_core.distillation.making.truth import write_truth
from zeroflow_core.distillation.pairs import choose_pairs
from zeroflow_core.distillation.sources import find_sources
from zeroflow_core.distillation.training.label_sources import source_of
from zeroflow_core.distillation.training.prepared import Source
from zeroflow_core.distillation.training.train import labelled_pairs
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.evaluation.wording import several
from zeroflow_core.simulation.logs import simulate_logs

SIMULATE, IMPORT, LABEL = "simulate", "import", "label"
_SPLIT = "train"


@dataclass(frozen=True)
class Logs:
    """Logs that are labelled together.

    name:    001-av2, recorded-001: of their folder in ``data``
    scanner: that was simulated; "" of recorded logs
    """

    name: str
    scanner: str
    logs: tuple[Path, ...]


@dataclass(frozen=True)
class Taught:
    """
    source:   to learn from
    manifest: of its labels; None where the simulation's truth took their place
    pairs:    with labels
    """

    logs: Logs
    source: Source
    manifest: dict[str, Any] | None

    @property
    def pairs(self) -> int:
        return len(labelled_pairs(self.source))


def teach(settings: MakeSettings, telling: Telling) -> list[Taught]:
    """Make the logs and their labels.

    Raises:
        ZeroFlowError: a source that can't be read, a teacher that fails, or the file system refuses.
        OutOfTime: what is complete stays.
    """
    recorded = [] if settings.truth else _import(settings, telling)  # first, as what is wrong with them shows there
    simulated = _simulate(settings, telling)
    if settings.truth:
        return _take_truth(settings, simulated, telling)
    groups = [*simulated, *recorded]
    _check_ground(settings, groups)
    with threads_kept():
        return _label(settings, groups, telling)


def _simulate(settings: MakeSettings, telling: Telling) -> list[Logs]:
    telling.begin(SIMULATE)
    chunks = list(settings.plan.chunks())
    total, done, new, groups = sum(chunk.logs * chunk.sweeps for chunk in chunks), 0, 0, []
    for chunk in chunks:
        telling.progress(done, total, chunk.name)

        def on_sweep(points: int, kept: bool, name: str = chunk.name) -> None:
            nonlocal done
            done += 1
            telling.progress(done, total, name)

        written = simulate_logs(
            settings.out / "data" / chunk.name,
            _SPLIT,
            chunk.logs,
            chunk.sweeps,
            chunk.seed,
            chunk.scanner,
            chunk.scene,
            chunk.density,
            chunk.randomise,
            settings.device,
            settings.jobs,
            on_sweep,
        )
        new += len(written.new)
        groups.append(Logs(chunk.name, chunk.scanner, tuple(sorted(written.logs))))  # as other commands find them
    if groups:
        telling.line(f"simulated {_number_of(groups)}, {new} of them now, in {telling.took}")
    return groups


def _import(settings: MakeSettings, telling: Telling) -> list[Logs]:
    telling.begin(IMPORT)
    groups = []
    for number, one in enumerate(settings.plan.recorded, start=1):
        name = f"recorded-{number:03d}"
        logs = find_sources(
            one.source,
            settings.out / "data" / name,
            lambda now: telling.progress(now.done, now.total, now.bag.name),
        )
        groups.append(Logs(name, "", tuple(logs)))
    if groups:
        telling.line(f"{_number_of(groups)} recorded, read in {telling.took}")
    return groups


def _check_ground(settings: MakeSettings, groups: Sequence[Logs]) -> None:
    """Whether all logs can be given to one student; said before they are labelled, which takes long."""
    if settings.plan.ground is not None or settings.plan.teacher.ground != "auto":
        return
    rules = {group.name: all(Log(log).has_map_ground for log in group.logs) for group in groups}
    if len(set(rules.values())) > 1:
        first = next(name for name, has_map in rules.items() if not has_map)
        raise ZeroFlowError(
            f"{first} has logs without a map of the ground, others have maps, and a student knows one rule for the "
            'ground; let the recipe say "ground": "patchwork"'
        )


def _label(settings: MakeSettings, groups: Sequence[Logs], telling: Telling) -> list[Taught]:
    telling.begin(LABEL)
    teacher = settings.plan.teacher
    before, total, taught = 0, sum(len(choose_pairs(group.logs)) for group in groups), []

    def on_pair(name: str, first: int, now: LabelProgress) -> None:
        telling.progress(first + now.done, total, f"{name}{f', {now.failed} failed' if now.failed else ''}")

    begun = settings.begun
    for group in groups:
        how = LabelSettings(
            logs=group.logs,
            split=_SPLIT,
            out=settings.out / "data" / group.name / "labels",
            method=teacher.method,
            teacher_config=teacher.config,
            device=settings.device,
            ground=teacher.ground,
            seed=teacher.seed,
            jobs=settings.jobs,
            retry=not begun,
        )
        manifest = label(how, partial(on_pair, group.name, before)).manifest
        before += len(choose_pairs(group.logs))
        source = source_of(how.out, ground=settings.plan.ground)
        taught.append(Taught(group, replace(source, logs=group.logs), manifest))
    done, failed = (sum(one.manifest["counts"][kind] for one in taught) for kind in ("labelled", "failed"))
    telling.line(f"labelled {several(done, 'pair')} by {taught[0].source.teacher} in {telling.took}; {failed} failed")
    if failed and not begun:
        telling.line(f"It goes on without {several(failed, 'pair')}: none is tried again once a training has begun.")
    return taught


def _take_truth(settings: MakeSettings, groups: Sequence[Logs], telling: Telling) -> list[Taught]:
    telling.begin(LABEL)
    before, total, taught = 0, sum(len(choose_pairs(group.logs)) for group in groups), []

    def on_pair(name: str, first: int, done: int) -> None:
        telling.progress(first + done, total, name)

    for group in groups:
        root = settings.out / "data" / group.name
        write_truth(group.logs, _SPLIT, root / "truth", partial(on_pair, group.name, before))
        before += len(choose_pairs(group.logs))
        ground = settings.plan.ground or settings.plan.teacher.ground
        source = source_of(root / "truth", data=root, split=_SPLIT, ground=ground)
        taught.append(Taught(group, replace(source, logs=group.logs), None))
    telling.line(f"took the simulation's truth for {several(total, 'pair')} in {telling.took}")
    return taught


def _number_of(groups: Sequence[Logs]) -> str:
    return several(sum(len(group.logs) for group in groups), "log")
