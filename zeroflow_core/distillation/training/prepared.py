"""Pairs made ready for training, once: read, ground removed, joined with their labels, and kept on disk.

Reading two sweeps, marking their ground and reading two label files takes tens of milliseconds a pair, more than a GPU
takes to learn from it; what is kept here is read back in a few.
"""

from __future__ import annotations

import hashlib
import json
from copy import copy
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from zeroflow_core.datasets.av2 import Log
from zeroflow_core.datasets.ground_choice import ground_of
from zeroflow_core.datasets.pseudo_labels import PseudoLabels
from zeroflow_core.distillation.pairs import PairRef, evenly
from zeroflow_core.distillation.training.refinement import refine
from zeroflow_core.distillation.training.samples import TwoWaySample
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.fastflow3d.config import FastFlow3DConfig
from zeroflow_core.files import new_file
from zeroflow_core.geometry import SE3
from zeroflow_core.ground import GroundRule, mark_ground
from zeroflow_core.pairs import Sweep

_EDITION = 5  # to be raised whenever what is kept changes
_MARGIN = 1.1  # beyond the grid's corner, so that turned and scaled samples still fill the grid
_MARGIN_Z = 0.5  # metres


@dataclass(frozen=True)
class Source:
    """Labelled pairs to learn from.

    logs:   in AV2's layout
    labels: of their pairs
    ground: the rule that marks what the student is not to see: ``map`` (Patchwork++ in logs without one), ``patchwork``
            or ``none``
    weight: how often its pairs are seen, beside those of a source of weight 1
    teacher: that made the labels, in a line; "" where nobody says
    """

    logs: tuple[Path, ...]
    labels: PseudoLabels
    ground: str
    weight: float = 1.0
    teacher: str = ""


class PreparedPairs:
    """The pairs of a source, ready for training; each is prepared when it is first asked for.

    folder:  where they are kept; None keeps nothing
    refined: their labels, too, see refinement.refine
    """

    def __init__(
        self, source: Source, pairs: list[PairRef], config: FastFlow3DConfig, folder: Path | None, refined: bool = False
    ) -> None:
        self.source, self.pairs, self._refined = source, pairs, refined
        corner = np.abs([config.minimum[:2], config.maximum[:2]]).max(axis=0)
        self._reach = float(np.hypot(*corner)) * _MARGIN
        self._low, self._high = config.minimum[2] - _MARGIN_Z, config.maximum[2] + _MARGIN_Z
        self._folder = None if folder is None else folder / self._name()

    def _name(self) -> str:
        """Of the folder: the same for the same way of preparing."""
        labels = [path and str(path.resolve()) for path in (self.source.labels.forward, self.source.labels.reverse)]
        return _digest([_EDITION, self.source.ground, labels, self._reach, self._low, self._high, self._refined])

    @property
    def digest(self) -> str:
        """Tells these pairs and their labels from others: names and sizes, as dates change when files are copied."""
        return _digest([self._about(pair, dates=False) for pair in self.pairs])

    def _about(self, pair: PairRef, dates: bool = True) -> list:
        """Of what a pair is prepared: the files of its sweeps and labels, with their sizes and dates."""
        log, i = _open(pair.log), pair.index
        files = [*log.sweep_files(i, i + 2), *self.source.labels.files(log, i)]
        try:
            stats = [file.stat() for file in files]
        except OSError as error:
            raise ZeroFlowError(f"cannot read {error.filename}: {error.strerror or error}") from error
        told = [[stat.st_size, stat.st_mtime_ns] if dates else stat.st_size for stat in stats]
        return [log.log_id, i, told, str(pair.log.resolve()) if dates else None]

    def __len__(self) -> int:
        return len(self.pairs)

    def some(self, count: int) -> PreparedPairs:
        """At most `count` of the pairs, spread evenly."""
        fewer = copy(self)
        fewer.pairs = evenly(self.pairs, count)
        return fewer

    def __getitem__(self, k: int) -> TwoWaySample:
        """Pair number `k`.

        Raises:
            ZeroFlowError: one of its files is missing or damaged.
        """
        if self._folder is None:
            return self._prepare(self.pairs[k])
        log, i = _open(self.pairs[k].log), self.pairs[k].index
        path = self._folder / log.log_id / f"{log.stamps_ns[i]}.safetensors"
        made_of = _digest(self._about(self.pairs[k]))
        kept = _read(path, made_of)
        if kept is None:
            kept = self._prepare(self.pairs[k])
            _write(path, kept, made_of)
        return kept

    def _prepare(self, pair: PairRef) -> TwoWaySample:
        log, i = _open(pair.log), pair.index
        rule = students_ground(log.path, self.source.ground)
        sweeps = [mark_ground(log.sweep(k), rule) for k in (i, i + 1)]
        labels = self.source.labels.read(log, i)
        rows = [self._rows(sweep) for sweep in sweeps]
        label0, label1 = (
            None if label is None else label[kept].astype(np.float16) for label, kept in zip(labels, rows, strict=True)
        )
        ring0, ring1 = (
            None if sweep.ring is None else sweep.ring[kept] for sweep, kept in zip(sweeps, rows, strict=True)
        )
        sample = TwoWaySample(
            pc0=sweeps[0].points[rows[0]],
            pc1=sweeps[1].points[rows[1]],
            label0=label0,
            label1=label1,
            ego0_SE3_ego1=sweeps[0].world_SE3_ego.inverse() @ sweeps[1].world_SE3_ego,
            dt=(sweeps[1].stamp_ns - sweeps[0].stamp_ns) * 1e-9,
            ring0=ring0,
            ring1=ring1,
        )
        return _refined(sample) if self._refined else sample

    def _rows(self, sweep: Sweep) -> np.ndarray:
        """Of the points that training may ever look at."""
        x, y, z = sweep.points.T
        with np.errstate(invalid="ignore", over="ignore"):
            near = (np.hypot(x, y) < self._reach) & (z >= self._low) & (z < self._high)
        return np.flatnonzero(near & ~sweep.is_ground)


def _refined(sample: TwoWaySample) -> TwoWaySample:
    label0 = refine(sample.forward()).label.astype(np.float16)
    label1 = None if sample.label1 is None else refine(sample.reverse()).label.astype(np.float16)
    return replace(sample, label0=label0, label1=label1)


@lru_cache(maxsize=8)
def _open(path: Path) -> Log:
    return Log(path)


@lru_cache(maxsize=8)
def students_ground(path: Path, name: str) -> GroundRule:
    """The ground rule called `name` in a student's metadata, for the log at `path`: ``map`` is Patchwork++ where there
    is no map. The last ones are kept, as a map's raster takes long to read."""
    return ground_of(_open(path), "auto" if name == "map" else name)


def _digest(about: list) -> str:
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:12]


def _write(path: Path, sample: TwoWaySample, made_of: str) -> None:
    from safetensors.numpy import save

    arrays = {
        "pc0": sample.pc0,
        "pc1": sample.pc1,
        "label0": sample.label0,
        "label1": sample.label1,
        "ring0": sample.ring0,
        "ring1": sample.ring1,
        "ego0_SE3_ego1": sample.ego0_SE3_ego1.matrix,
        "dt": np.array([sample.dt]),
    }
    there = {name: np.ascontiguousarray(values) for name, values in arrays.items() if values is not None}
    content = save(there, metadata={"made_of": made_of})
    with new_file(path, "wb") as file:
        file.write(content)


def _read(path: Path, made_of: str) -> TwoWaySample | None:
    """What is kept at `path`, or None where nothing is, or what is kept was made of other files."""
    from safetensors.numpy import load

    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ZeroFlowError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])  # safetensors' file format
        if header["__metadata__"]["made_of"] != made_of:
            return None
        arrays = load(content)
        return TwoWaySample(
            pc0=arrays["pc0"],
            pc1=arrays["pc1"],
            label0=arrays["label0"],
            label1=arrays.get("label1"),
            ego0_SE3_ego1=SE3.from_matrix(arrays["ego0_SE3_ego1"]),
            dt=float(arrays["dt"][0]),
            ring0=arrays.get("ring0"),
            ring1=arrays.get("ring1"),
        )
    except Exception as error:  # safetensors raises whatever the damaged bytes lead to
        raise ZeroFlowError(f"{path} is damaged ({error}); remove it, and it will be prepared again") from error
