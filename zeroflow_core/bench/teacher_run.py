"""One measurement of the teacher, in a process that does nothing else, so that its memory is its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from time import perf_counter, process_time
from typing import TYPE_CHECKING

import numpy as np

from zeroflow_core.bench.memory import PeakMemory
from zeroflow_core.bench.teacher_cost import matmul_rate
from zeroflow_core.bench.teacher_pair import read_pair
from zeroflow_core.datasets.av2 import Log
from zeroflow_core.evaluation.figures import figures_of
from zeroflow_core.evaluation.truth import as_estimate, read_truth
from zeroflow_core.nsfp.config import TeacherConfig
from zeroflow_core.pairs import FramePair
from zeroflow_core.workers import cores

if TYPE_CHECKING:
    from zeroflow_core.nsfp.teacher import Teacher

_WARM_UP_ITERATIONS, _WARM_UP_POINTS = 10, 500
_ROUNDS = 3  # times as many pairs as are in flight: the last ones have the device to themselves


@dataclass(frozen=True)
class Task:
    """name: of the configuration, such as nsfp:fast; log, index: the pair; device: cpu, cuda or cuda:n"""

    name: str
    config: TeacherConfig
    log: Path
    index: int
    seed: int
    device: str


@dataclass(frozen=True)
class Run:
    """One pair, labelled by itself.

    teacher:      its own name for itself
    threads:      of the process
    seconds:      for the label alone
    cpu_seconds:  of all threads meanwhile; fewer than seconds × threads where others wanted the cores, too
    iterations:   made, on `points` points each
    loss:         None without an estimate; then `problem` says why
    memory_bytes: at the most, beyond what the process (on a GPU: its tensors there) had before
    precision:    of the networks: fp32, tf32 or bf16
    matmul_rate:  operations a second of a plain product of that precision, taken right afterwards
    errors:       figures by each definition's name
    """

    name: str
    seed: int
    teacher: str
    threads: int
    seconds: float
    cpu_seconds: float
    iterations: int
    points: int
    loss: float | None
    problem: str | None
    memory_bytes: int | None
    precision: str
    matmul_rate: float
    errors: dict[str, dict]


@dataclass(frozen=True)
class Batch:
    """Many pairs, up to `in_flight` of them at once.

    pairs, different: labelled in all, and how many of them are not the same
    pairs_per_s:      from the first one's start to the last one's end
    iterations:       mean
    problems:         pairs without an estimate
    three_way_epe:    of the first pair, metres, by ZeroFlow's definition: company must not change a label
    """

    name: str
    in_flight: int
    pairs: int
    different: int
    seconds: float
    pairs_per_s: float
    iterations: float
    problems: int
    three_way_epe: float | None
    memory_bytes: int | None


def measure_run(task: Task, report: Callable[[Run], None]) -> None:
    """Label the task's pair once, on all cores."""
    import torch

    torch.set_num_threads(cores())  # a worker has one
    log = Log(task.log)
    pair, truth = read_pair(log, task.index), read_truth(log, task.index)
    _warm_up(task, [pair])
    teacher = _teacher(task)
    memory = PeakMemory(task.device)
    start, cpu_start = perf_counter(), process_time()
    label = teacher.label_one(pair)
    _finish(task.device)
    seconds, cpu_seconds, memory_bytes = perf_counter() - start, process_time() - cpu_start, memory.taken()
    report(
        Run(
            name=task.name,
            seed=task.seed,
            teacher=teacher.name,
            threads=torch.get_num_threads(),
            seconds=seconds,
            cpu_seconds=cpu_seconds,
            iterations=label.iterations,
            points=label.points,
            loss=label.loss if np.isfinite(label.loss) else None,
            problem=label.problem,
            memory_bytes=memory_bytes,
            precision=teacher.precision,
            matmul_rate=matmul_rate(teacher.precision, task.device),
            errors=figures_of(truth, as_estimate(label.flow)),
        )
    )


def measure_batch(task: Task, in_flight: int, report: Callable[[Batch], None]) -> None:
    """Label three times as many pairs as are in flight: those of the task's log from its pair on, again and again."""
    import torch

    torch.set_num_threads(cores())
    log = Log(task.log)
    indices = [(task.index + k) % (len(log) - 1) for k in range(min(len(log) - 1, _ROUNDS * in_flight))]
    different, truth = [read_pair(log, i) for i in indices], read_truth(log, task.index)
    pairs = list(islice(cycle(different), _ROUNDS * in_flight))
    _warm_up(task, pairs[:in_flight], in_flight)
    teacher = _teacher(task, in_flight)
    memory = PeakMemory(task.device)
    start = perf_counter()
    labels = list(teacher.label(pairs))
    _finish(task.device)
    seconds, memory_bytes = perf_counter() - start, memory.taken()
    report(
        Batch(
            name=task.name,
            in_flight=in_flight,
            pairs=len(labels),
            different=len(different),
            seconds=seconds,
            pairs_per_s=len(labels) / seconds,
            iterations=float(np.mean([label.iterations for label in labels])),
            problems=sum(label.problem is not None for label in labels),
            three_way_epe=figures_of(truth, as_estimate(labels[0].flow))["zeroflow"]["three_way_epe"],
            memory_bytes=memory_bytes,
        )
    )


def _teacher(task: Task, in_flight: int | None = None, config: TeacherConfig | None = None) -> Teacher:
    from zeroflow_core.nsfp.teacher import Teacher

    config = task.config if config is None else config
    several = {} if in_flight is None else {"pairs_in_flight": in_flight}
    return Teacher(config.method, config, device=task.device, seed=task.seed, **several)


def _warm_up(task: Task, pairs: list[FramePair], in_flight: int | None = None) -> None:
    """A few iterations, so that loading and compiling is not timed. On the CPU a few points are enough; kernels of a
    GPU are made or chosen for a size."""
    if task.device == "cpu":
        pairs = [_thinned(pair) for pair in pairs]
    config = replace(task.config, iterations=min(_WARM_UP_ITERATIONS, task.config.iterations))
    for _ in _teacher(task, in_flight, config).label(pairs):
        pass
    _finish(task.device)


def _thinned(pair: FramePair) -> FramePair:
    step0, step1 = (max(1, len(cloud) // _WARM_UP_POINTS) for cloud in (pair.pc0, pair.pc1))
    return replace(
        pair,
        pc0=pair.pc0[::step0],
        pc1=pair.pc1[::step1],
        is_ground0=pair.is_ground0[::step0],
        is_ground1=pair.is_ground1[::step1],
    )


def _finish(device: str) -> None:
    """Wait for what the device was given to do."""
    if device != "cpu":
        import torch

        torch.cuda.synchronize(device)
