"""What can be evaluated: anything that gives the points of a pair a flow, by its name on the command line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from zeroflow_core.datasets.av2 import Log
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.evaluation.truth import read_truth
from zeroflow_core.ground import GroundRule, Patchwork, ground_rule, no_ground
from zeroflow_core.pairs import Flow, FramePair, as_flow

if TYPE_CHECKING:
    from zeroflow_core.nsfp.plain import OnIteration
    from zeroflow_core.nsfp.teacher import Label

GROUNDS = ("auto", "map", "patchwork", "none")
EITHER_GROUND = "map, else patchwork"  # in the name of a method that takes what a log has


@dataclass(frozen=True)
class Settings:
    """What a run evaluates, and on what.

    data, split: the folder that holds ``sensor/<split>/<log>``, and the split
    method:      one of METHODS
    checkpoint:  of the student
    labels:      for the method `labels`: a folder of stored flows, or None for the logs' own labels
    ground:      the ground rule in front of the method: ``map``, ``patchwork``, ``none``, or ``auto``: the student has
                 the one it was trained with, a teacher the map, and Patchwork++ where there is none
    device:      of student and teachers: ``auto``, ``cpu``, ``cuda`` or ``cuda:n``
    engine, precision: of the student, as load_student takes them
    streaming:   of the student, one of fastflow3d.anchored.STREAMING; where an anchored grid stands depends on the
                 pairs before, so a run that was interrupted differs from one in a piece by a little, and so does a
                 picture in the report from the pair's figures where it had to be estimated again, out of its sequence
    verify:      of the student, one of verification.flows.VERIFY
    teacher_config, seed: of a teacher, as Teacher takes them
    logs:        names of the logs to take; all when empty
    """

    data: Path
    split: str = "val"
    method: str = "student"
    checkpoint: str = "default"
    labels: Path | None = None
    ground: str = "auto"
    device: str = "auto"
    engine: str = "fast"
    precision: str = "auto"
    streaming: str = "none"
    verify: str = "auto"
    teacher_config: str = "fast"
    seed: int = 0
    logs: tuple[str, ...] = ()


class Method(Protocol):
    """name: one line that says what is evaluated; identity: plain data that tells this from any other method."""

    name: str
    identity: dict[str, Any]

    def ground_rule(self, log: Log | None) -> GroundRule:
        """What marks the ground of the log's sweeps, or of sweeps of no log, before `flow` sees them."""
        ...

    def flow(self, log: Log | None, i: int, pair: FramePair) -> Flow:
        """Flow of the pair of sweeps `i` and `i` + 1, which is also given as `pair`. Only `labels` needs the log."""
        ...


def make_method(settings: Settings) -> Method:
    """The method that `settings` name, ready to run.

    Raises:
        ZeroFlowError: an unknown name, or a checkpoint, device or folder that can't be used.
    """
    if settings.ground not in GROUNDS:
        raise ZeroFlowError(f"ground rule '{settings.ground}' is unknown; choose one of: {', '.join(GROUNDS)}")
    if settings.method not in METHODS:
        raise ZeroFlowError(f"method '{settings.method}' is unknown; choose one of: {', '.join(METHODS)}")
    _check_words_of_the_student(settings)
    return METHODS[settings.method](settings)


def _check_words_of_the_student(settings: Settings) -> None:
    """For every method: one command line serves them all, and a typing error must not wait for the student's turn."""
    from zeroflow_core.devices import PRECISIONS
    from zeroflow_core.fastflow3d.anchored import STREAMING
    from zeroflow_core.fastflow3d.student import ENGINES
    from zeroflow_core.verification.flows import VERIFY

    words = (("engine", ENGINES), ("precision", PRECISIONS), ("streaming", STREAMING), ("verify", VERIFY))
    for name, choices in words:
        word = getattr(settings, name)
        if word not in choices:
            raise ZeroFlowError(f"{name} '{word}' is unknown; choose one of: {', '.join(choices)}")


class StudentMethod:
    """A FastFlow3D checkpoint."""

    def __init__(self, settings: Settings) -> None:
        from zeroflow_core.fastflow3d.anchored import flow_estimator
        from zeroflow_core.fastflow3d.checkpoint import checkpoint_file
        from zeroflow_core.fastflow3d.student import load_student
        from zeroflow_core.verification.flows import is_verified

        student = load_student(
            settings.checkpoint, settings.device, engine=settings.engine, precision=settings.precision
        )
        self._estimate_flow = flow_estimator(student, settings.streaming, settings.verify)
        self._ground = _Ground(settings.ground, usual=student.metadata["ground"])
        streaming = "" if settings.streaming == "none" else f", streaming: {settings.streaming}"
        verified = is_verified(settings.verify, student.metadata)
        how = f"{student.engine}, {student.precision}, {student.device}, ground: {self._ground}{streaming}"
        how += ", verified" if verified else ""
        self.name = f"student {student.metadata['name']} ({how})"
        self.identity = {
            "checkpoint's sha256": digest(checkpoint_file(settings.checkpoint)),
            "ground": settings.ground,
            "engine": student.engine,
            "precision": student.precision,
            "streaming": settings.streaming,
            "verify": "always" if verified else "never",
        }

    def ground_rule(self, log: Log | None) -> GroundRule:
        return self._ground.rule(log)

    def flow(self, log: Log | None, i: int, pair: FramePair) -> Flow:
        return self._estimate_flow(pair)


class TeacherMethod:
    """NSFP or Fast NSF, optimised for every pair anew. A pair that gives it nothing to go by has not failed: its flow
    has no estimate, and the coverage tells. One for which memory ran out, or that diverged, has."""

    def __init__(self, settings: Settings) -> None:
        from zeroflow_core.nsfp.teacher import Teacher

        self._teacher = Teacher(settings.method, settings.teacher_config, device=settings.device, seed=settings.seed)
        self._ground = _Ground(settings.ground, usual="map")
        self.name = f"{self._teacher.name}, seed {settings.seed}, ground: {self._ground}"
        identity = {**self._teacher.identity, "ground": settings.ground}
        self.identity = json.loads(json.dumps(identity))  # as a file gives it back, where no tuples are

    def ground_rule(self, log: Log | None) -> GroundRule:
        return self._ground.rule(log)

    def flow(self, log: Log | None, i: int, pair: FramePair) -> Flow:
        label = self.label(pair)
        if label.failed:
            raise ZeroFlowError(f"{self._teacher.name}: {label.problem}")
        return label.flow

    def label(self, pair: FramePair, on_iteration: OnIteration | None = None) -> Label:
        """The flow and how the teacher came to it.

        on_iteration: as Teacher.label_one calls it
        """
        return self._teacher.label_one(pair, on_iteration)


class _Ground:
    """The ground rule in front of a method.

    asked: one of GROUNDS
    usual: what ``auto`` stands for: ``map`` (Patchwork++ where there is none), ``patchwork`` or ``none``
    """

    def __init__(self, asked: str, usual: str) -> None:
        self._name = usual if asked == "auto" else asked
        self._must_be_map = asked == "map"

    def __str__(self) -> str:
        falls_back = self._name == "map" and not self._must_be_map
        return EITHER_GROUND if falls_back else self._name

    def rule(self, log: Log | None) -> GroundRule:
        if self._name != "map":
            return ground_rule(self._name)
        raster = None if log is None else log.map_ground()
        if raster is None and self._must_be_map:
            what = "only AV2 logs have a map" if log is None else f"the log {log.path} has no map"
            raise ZeroFlowError(f"{what} with ground heights; choose --ground patchwork")
        return raster or Patchwork()


class ZeroMethod:
    """Nothing moves: zero residual flow everywhere, which is ego motion alone."""

    name = "zero flow (ego motion alone)"
    identity: dict[str, Any] = {}

    def __init__(self, settings: Settings) -> None:
        pass

    def ground_rule(self, log: Log | None) -> GroundRule:
        return no_ground

    def flow(self, log: Log | None, i: int, pair: FramePair) -> Flow:
        return as_flow(np.zeros_like(pair.pc0), pair.pc0, pair.is_ground0, pair.dt)


class LabelsMethod:
    """Flows stored in files, such as pseudo-labels; or the logs' own labels.

    Their error is what is lost on the way from total to residual flow: up to 0.8 mm with AV2's own files, which were
    made with poses in float32, nothing elsewhere.
    """

    def __init__(self, settings: Settings) -> None:
        from zeroflow_core.datasets.stored_flow import StoredFlows

        self._stored = None if settings.labels is None else StoredFlows(settings.labels)
        self.name = "the logs' own labels" if settings.labels is None else f"flows stored in {settings.labels}"
        self.identity = {"labels": None if settings.labels is None else str(settings.labels.resolve())}

    def ground_rule(self, log: Log | None) -> GroundRule:
        return no_ground

    def flow(self, log: Log, i: int, pair: FramePair) -> Flow:
        stored = self._stored
        vectors = read_truth(log, i).scene_flow.residual if stored is None else stored.read(log, i)[0]
        return as_flow(vectors, pair.pc0, pair.is_ground0, pair.dt)


METHODS: dict[str, Callable[[Settings], Method]] = {
    "student": StudentMethod,
    "nsfp": TeacherMethod,
    "fastnsf": TeacherMethod,
    "zero": ZeroMethod,
    "labels": LabelsMethod,
}


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
