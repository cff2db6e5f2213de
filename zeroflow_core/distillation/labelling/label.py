"""The first stage of distillation: a teacher labels pairs of sweeps, and the labels go to disk.

    labels = label(LabelSettings(logs, "train", Path("labels"))).labels

``<out>/<split>_<method>_flow_feather/`` and ``…_reverse/`` get the labels (see datasets.pseudo_labels), manifest.json
says what they are and how good, and journal/ what was done. Called again, it goes on. A label depends on its pair
alone, and files appear whole or not at all: on one type of CPU they are the same to the byte, however often the work
was interrupted and however it was spread.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from zeroflow_core.datasets.av2 import Log
from zeroflow_core.datasets.ground_choice import GROUNDS
from zeroflow_core.datasets.pseudo_labels import PseudoLabels, label_folders
from zeroflow_core.devices import choose_device
from zeroflow_core.distillation.labelling.chunks import Chunk, Deaths, chunks_of, shard_of
from zeroflow_core.distillation.labelling.manifest import LabelFolder
from zeroflow_core.distillation.labelling.ray_cluster import Cluster, ray_cluster
from zeroflow_core.distillation.labelling.work import Work, identity_of, label_chunk, with_precision
from zeroflow_core.distillation.pairs import PairRef, choose_pairs
from zeroflow_core.distillation.sources import check_split
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.evaluation.journal import Record
from zeroflow_core.nsfp.config import TeacherConfig, teacher_config
from zeroflow_core.workers import cores, run_in_workers

# Pairs at a time: few on a CPU, so that none waits for another at the end; batches on a GPU; on Ray records come with
# a chunk's end.
_MOST_ON_CPU, _MOST_ON_GPU = 8, 1024
_MOST_ON_RAY_CPU, _MOST_ON_RAY_GPU = 4, 256


@dataclass(frozen=True)
class LabelSettings:
    """
    logs:           folders of the logs, whose names differ
    split:          what the labels' folder is called after
    out:            where they go
    method, teacher_config, seed: of the teacher, as Teacher takes them; a configuration of one's own says the method
    device:         ``auto`` or ``cuda`` (all GPUs that torch sees), ``cuda:n`` or ``cpu``
    ground:         what the teacher does not see: ``map``, ``patchwork``, ``none``, or ``auto``, the map where there is
                    one, else Patchwork++
    per_log:        label only so many pairs of each log
    shard:          (i, n): only the i-th of n parts, counted from 0; other processes do the others
    jobs:           processes; else one a GPU, or one a core
    retry:          pairs that failed in an earlier call are tried again
    ray:            spread the work over the Ray cluster at this address; see ray_cluster

    Raises:
        ZeroFlowError: one of them can't be.
    """

    logs: tuple[Path, ...]
    split: str
    out: Path
    method: str = "nsfp"
    teacher_config: str | TeacherConfig = "fast"
    device: str = "auto"
    ground: str = "auto"
    seed: int = 0
    per_log: int | None = None
    shard: tuple[int, int] = (0, 1)
    jobs: int | None = None
    retry: bool = True
    ray: str | None = None

    def __post_init__(self) -> None:
        check_split(self.split)
        if self.ground not in GROUNDS:
            raise ZeroFlowError(f"ground rule '{self.ground}' is unknown; choose one of: {', '.join(GROUNDS)}")
        if self.jobs is not None and self.jobs < 1:
            raise ZeroFlowError(f"{self.jobs} jobs cannot label anything; ask for at least 1")
        shard_of((), self.shard)
        if isinstance(self.teacher_config, str):
            teacher_config(self.method, self.teacher_config)
        if self.ray is None:  # else it is of the cluster's machines
            choose_device(self.device)


@dataclass(frozen=True)
class LabelProgress:
    """
    done:         pairs that have been gone through, of `total`
    kept:         of them, those that an earlier call had done
    failed:       of them, those that failed
    pairs_per_s:  of this call; 0 before the first
    device_hours: of GPUs or of CPU cores, in this call
    device:       ``cuda`` or ``cpu``
    """

    done: int
    total: int
    kept: int
    failed: int
    pairs_per_s: float
    device_hours: float
    device: str


@dataclass(frozen=True)
class Labelled:
    """
    labels:   where they are
    manifest: content of manifest.json
    failed:   records of the pairs that failed: log, index, error
    """

    labels: PseudoLabels
    manifest: dict[str, Any]
    failed: list[Record]


def label(settings: LabelSettings, on_progress: Callable[[LabelProgress], None] = lambda progress: None) -> Labelled:
    """Label what is not labelled yet. A pair that fails is recorded, and tried again by the next call, unless
    that is told not to.

    on_progress: called at the start, with what was done before, and after every pair

    Raises:
        ZeroFlowError: settings that can't be used, no pairs, `out` holds other labels or can't be written, or
            processes die one after the other. What was labelled stays.
    """
    logs = check_logs(settings)
    every = choose_pairs(list(logs.values()), settings.per_log)
    own = shard_of(every, settings.shard)
    out = Path(os.path.abspath(settings.out))
    config = settings.teacher_config
    config = teacher_config(settings.method, config) if isinstance(config, str) else config
    work = Work(config, settings.device, settings.seed, settings.ground, out, settings.split)
    folder = LabelFolder(out, label_folders(out, settings.split, config.method), settings.shard)
    with ExitStack() as stack:
        crew: _Processes | _RayCrew
        if settings.ray is None:
            crew = _Processes(work, settings.jobs)
        else:
            crew = _RayCrew(stack.enter_context(ray_cluster(settings.ray, work, settings.jobs)))
        name, identity = crew.identity()
        stack.enter_context(folder.held())
        configuration = {"split": settings.split, **identity, "ground": settings.ground}
        folder.claim(configuration, _described(logs, every))
        tally = _Tally(folder, own, settings.retry, identity["device"], on_progress)
        tally.start()
        try:
            if tally.missing:
                crew.label(tally)
                tally.check()
        finally:
            _remove_unfinished(folder, own)
        manifest = folder.summarise(name)
    return Labelled(folder.labels, manifest, tally.failed)


def check_logs(settings: LabelSettings) -> dict[str, Path]:
    """The logs by their names, in their order.

    Raises:
        ZeroFlowError: two have one name, or one lacks the map that is asked for.
    """
    logs: dict[str, Path] = {}
    for path in (Path(os.path.abspath(path)) for path in settings.logs):
        if logs.setdefault(path.name, path) != path:
            raise ZeroFlowError(
                f"{logs[path.name]} and {path} have the same name, and labels are found by it; label them into "
                "different folders"
            )
        if settings.ground == "map" and not Log(path).has_map_ground:
            raise ZeroFlowError(f"the log {path} has no map with ground heights; choose --ground patchwork")
    return logs


def _described(logs: Mapping[str, Path], refs: Iterable[PairRef]) -> dict[str, dict[str, Any]]:
    pairs: dict[str, int] = defaultdict(int)
    for ref in refs:
        pairs[ref.log.name] += 1
    return {name: {"path": str(path), "sweeps": len(Log(path)), "pairs": pairs[name]} for name, path in logs.items()}


def _by_log(refs: Iterable[PairRef]) -> dict[Path, list[int]]:
    indices: dict[Path, list[int]] = defaultdict(list)
    for ref in refs:
        indices[ref.log].append(ref.index)
    return indices


def _remove_unfinished(folder: LabelFolder, refs: Iterable[PairRef]) -> None:
    for path, indices in _by_log(refs).items():
        stamps = Log(path).stamps_ns
        folder.remove_unfinished(path.name, [(int(stamps[i]), int(stamps[i + 1])) for i in indices])


class _Tally:
    """What is done of a shard, what is missing, and who is told.

    missing: pairs that are not done yet, in their order
    failed:  records of those that failed
    """

    def __init__(
        self,
        folder: LabelFolder,
        refs: Sequence[PairRef],
        retry: bool,
        device: str,
        on_progress: Callable[[LabelProgress], None],
    ) -> None:
        self._folder, self._refs, self._retry = folder, refs, retry
        self._device, self._on_progress = device, on_progress
        self._deaths = Deaths()
        self._done: set[tuple[str, int]] = set()
        self._start, self._seconds, self._kept = time.monotonic(), 0.0, 0
        self.missing: list[PairRef] = []
        self.failed: list[Record] = []

    def start(self) -> None:
        _remove_unfinished(self._folder, self._refs)
        for path, indices in _by_log(self._refs).items():
            over = self._folder.finished(path.name, Log(path).stamps_ns)
            if not self._retry:
                over |= self._folder.failed(path.name)
            self.missing += [PairRef(path, i) for i in indices if i not in over]
        self._kept = len(self._refs) - len(self.missing)
        self._show()

    def add(self, record: Record) -> None:
        """Keep the record of a pair."""
        key = record["log"], record["index"]
        if key in self._done:
            return
        self._folder.append(record)
        self._done.add(key)
        self._deaths.pair_is_done()
        self._seconds += record["seconds"]
        if "error" in record:
            self.failed.append(record)
        self._show()

    def after_death(self, chunk: Chunk, cause: str) -> list[Chunk]:
        """The chunks to do in place of one whose process died; a pair that is to blame has failed."""
        left = tuple(ref for ref in chunk if (ref.log.name, ref.index) not in self._done)
        chunks = self._deaths.chunks_after(left, cause)
        if left and not chunks:
            (ref,) = left
            self.add({"log": ref.log.name, "index": ref.index, "error": cause, "seconds": 0.0})
        return chunks

    def check(self) -> None:
        """Whether all that was labelled is where it should be.

        Raises:
            ZeroFlowError: it is not, as workers on other machines see another `out`.
        """
        finished = {path: self._folder.finished(path.name, Log(path).stamps_ns) for path in _by_log(self.missing)}
        lost = sum(ref.index not in finished[ref.log] for ref in self.missing) - len(self.failed)
        if lost > 0:
            raise ZeroFlowError(
                f"{lost} of {len(self.missing)} pairs were labelled, but their files are not in {self._folder.out}; "
                "give an --out that is the same folder on every machine, and leave it alone meanwhile"
            )

    def _show(self) -> None:
        done, elapsed = len(self._done), max(time.monotonic() - self._start, 1e-3)
        self._on_progress(
            LabelProgress(
                self._kept + done,
                len(self._refs),
                self._kept,
                len(self.failed),
                done / elapsed,
                self._seconds / 3600,
                self._device,
            )
        )


class _Processes:
    """This machine's processes: one a GPU or a core."""

    def __init__(self, work: Work, jobs: int | None) -> None:
        device = choose_device(work.device)
        self._on_gpu = device != "cpu"
        gpus = _gpus(device) if self._on_gpu else []
        self._processes = jobs or (len(gpus) if self._on_gpu else cores())
        self._environments: list[dict[str, str]] = [{}]
        if self._on_gpu:
            threads = str(max(1, cores() // self._processes))
            self._environments = [{"CUDA_VISIBLE_DEVICES": gpu, "OMP_NUM_THREADS": threads} for gpu in gpus]
        self._asked, self._work = replace(work, device=device), replace(work, device="cuda" if self._on_gpu else "cpu")

    def identity(self) -> tuple[str, dict[str, Any]]:
        name, identity = identity_of(self._asked)
        self._work = with_precision(self._work, identity["precision"])
        return name, identity

    def label(self, tally: _Tally) -> None:
        chunks = chunks_of(tally.missing, self._processes, _MOST_ON_GPU if self._on_gpu else _MOST_ON_CPU)
        run_in_workers(
            label_chunk,
            [(self._work, chunk) for chunk in chunks],
            self._processes,
            tally.add,
            on_death=lambda task, cause: [(self._work, chunk) for chunk in tally.after_death(task[1], cause)],
            environments=self._environments,
        )


class _RayCrew:
    """The workers of a Ray cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def identity(self) -> tuple[str, dict[str, Any]]:
        return self._cluster.identity()

    def label(self, tally: _Tally) -> None:
        most = _MOST_ON_RAY_CPU if self._cluster.work.device == "cpu" else _MOST_ON_RAY_GPU
        self._cluster.label(chunks_of(tally.missing, self._cluster.slots, most), tally.add, tally.after_death)


def _gpus(device: str) -> list[str]:
    """How CUDA_VISIBLE_DEVICES names the GPUs of `device`, ``cuda`` being all that there are."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(k) for k in range(torch.cuda.device_count())]
    index = torch.device(device).index
    return names[: torch.cuda.device_count()] if index is None else [names[index]]
