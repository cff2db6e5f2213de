"""What can be evaluated: anything that gives the points of a pair a flow, by its name on the command line."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from zeroflow_core.datasets.av2 import Log
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.evaluation.truth import read_truth
from zeroflow_core.ground import GroundRule, Patchwork, ground_rule, no_ground
from zeroflow_core.pairs import Flow, FramePair, Status, estimate_flow

GROUNDS = ("auto", "map", "patchwork", "none")


@dataclass(frozen=True)
class Settings:
    """What a run evaluates, and on what.

    data, split: the folder that holds ``sensor/<split>/<log>``, and the split
    method:      one of METHODS
    checkpoint:  of the student
    labels:      for the method `labels`: a folder of stored flows, or None for the logs' own labels
    ground:      the ground rule in front of the method: ``map``, ``patchwork``, ``none``, or ``auto``, as the student
                 was trained
    device, engine, precision: as load_student takes them
    logs:        names of the logs to take; all when empty
    """

    data: Path
    split: str = "val"
    method: str = "student"
    checkpoint: str = "default"
    labels: Path | None = None
    ground: str = "auto"
    device: str = "auto"
    engine: str = "reference"
    precision: str = "auto"
    logs: tuple[str, ...] = ()


class Method(Protocol):
    """name: one line that says what is evaluated; identity: plain data that tells this from any other method."""

    name: str
    identity: dict[str, Any]

    def ground_rule(self, log: Log) -> GroundRule:
        """What marks the ground of the log's sweeps before `flow` sees them."""
        ...

    def flow(self, log: Log, i: int, pair: FramePair) -> Flow:
        """Flow of the pair of sweeps `i` and `i` + 1, which is also given as `pair`."""
        ...


def make_method(settings: Settings) -> Method:
    """The method that `settings` name, ready to run.

    Raises:
        ZeroFlowError: an unknown name, or a checkpoint, device or folder that can't be used.
    """
    if settings.ground not in GROUNDS:
        raise ZeroFlowError(f"ground rule '{settings.ground}' is unknown; choose one of: {', '.join(GROUNDS)}")
    if settings.method in ("nsfp", "fastnsf"):
        raise ZeroFlowError(
            f"method '{settings.method}' is a teacher's, and this version has no teacher yet; "
            f"choose one of: {', '.join(METHODS)}"
        )
    if settings.method not in METHODS:
        raise ZeroFlowError(f"method '{settings.method}' is unknown; choose one of: {', '.join(METHODS)}")
    return METHODS[settings.method](settings)


class StudentMethod:
    """A FastFlow3D checkpoint."""

    def __init__(self, settings: Settings) -> None:
        from zeroflow_core.fastflow3d.checkpoint import checkpoint_file
        from zeroflow_core.fastflow3d.student import load_student

        self._student = load_student(
            settings.checkpoint, settings.device, engine=settings.engine, precision=settings.precision
        )
        trained_with = self._student.metadata["ground"]
        self._ground = trained_with if settings.ground == "auto" else settings.ground
        self._must_be_map = settings.ground == "map"
        self._patchwork = Patchwork()
        title = f"student {self._student.metadata['name']}"
        falls_back = self._ground == "map" and not self._must_be_map
        ground = "map, or patchwork where there is none" if falls_back else self._ground
        self.name = f"{title} ({self._student.precision}, {self._student.device}, ground: {ground})"
        self.identity = {
            "checkpoint's sha256": digest(checkpoint_file(settings.checkpoint)),
            "ground": settings.ground,
            "engine": settings.engine,
            "precision": self._student.precision,
        }

    def ground_rule(self, log: Log) -> GroundRule:
        if self._ground != "map":
            return self._patchwork if self._ground == "patchwork" else ground_rule(self._ground)
        raster = log.map_ground()
        if raster is None and self._must_be_map:
            raise ZeroFlowError(f"the log {log.path} has no map with ground heights; choose --ground patchwork")
        return raster or self._patchwork

    def flow(self, log: Log, i: int, pair: FramePair) -> Flow:
        return estimate_flow(self._student, pair)


class ZeroMethod:
    """Nothing moves: zero residual flow everywhere, which is ego motion alone."""

    name = "zero flow (ego motion alone)"
    identity: dict[str, Any] = {}

    def __init__(self, settings: Settings) -> None:
        pass

    def ground_rule(self, log: Log) -> GroundRule:
        return no_ground

    def flow(self, log: Log, i: int, pair: FramePair) -> Flow:
        return _complete(np.zeros(pair.pc0.shape, dtype=np.float32), pair)


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

    def ground_rule(self, log: Log) -> GroundRule:
        return no_ground

    def flow(self, log: Log, i: int, pair: FramePair) -> Flow:
        if self._stored is None:
            return _complete(read_truth(log, i).scene_flow.residual, pair)
        return _complete(self._stored.read(log, i)[0], pair)


METHODS: dict[str, Callable[[Settings], Method]] = {
    "student": StudentMethod,
    "zero": ZeroMethod,
    "labels": LabelsMethod,
}


def _complete(vectors: np.ndarray, pair: FramePair) -> Flow:
    """A flow whose status follows from the points and from where `vectors` are NaN."""
    status = np.full(len(vectors), Status.OK, dtype=np.uint8)
    status[~np.isfinite(vectors).all(axis=1)] = Status.OUT_OF_RANGE
    status[~np.isfinite(pair.pc0).all(axis=1)] = Status.NOT_FINITE
    return Flow(vectors, status, pair.dt)


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
