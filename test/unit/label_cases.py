"""Small logs and a quick teacher, for the tests of labelling."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from zeroflow_core.datasets.av2_writer import write_log
from zeroflow_core.distillation.labelling.label import LabelSettings
from zeroflow_core.geometry import SE3
from zeroflow_core.nsfp.config import TeacherConfig
from zeroflow_core.pairs import Sweep

QUICK = TeacherConfig("nsfp", "fast", iterations=2, samples=16, precision="fp32")
QUICK_FAST_NSF = TeacherConfig(
    "fastnsf", "fast", iterations=2, samples=16, precision="fp32", minimum=(-6.0, -6.0, -2.0), maximum=(6.0, 6.0, 2.0)
)


def make_logs(folder: Path, logs: int, sweeps: int, seed: int = 0) -> tuple[Path, ...]:
    """Logs in ``<folder>/sensor/train``, in which a vehicle turns past points that move a little."""
    paths = [folder / "sensor" / "train" / f"log{k}" for k in range(logs)]
    for k, path in enumerate(paths):
        write_log(path, _sweeps(sweeps, np.random.default_rng([seed, k])), None, {})
    return tuple(paths)


def _sweeps(count: int, rng: np.random.Generator) -> Iterator[Sweep]:
    for i in range(count):
        points = rng.uniform(-5, 5, (60 + i % 7, 3)).astype(np.float32)
        yield Sweep(points, 1_000 + 100_000_000 * i, SE3.from_yaw(0.1 * i, np.array([0.5 * i, 0, 0])))


def settings(logs: tuple[Path, ...], out: Path, **others) -> LabelSettings:
    usual = {"teacher_config": QUICK, "device": "cpu", "ground": "none", "jobs": 2}
    return LabelSettings(logs, "train", out, **{**usual, **others})


def label_files(out: Path) -> dict[str, bytes]:
    """What the folders of labels hold, hidden files and all, by path."""
    folders = (folder for folder in out.iterdir() if "flow_feather" in folder.name)
    files = (file for folder in folders for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(out)): file.read_bytes() for file in files}


def inline(function, tasks, processes, on_progress, *, on_death=None, environments=()) -> None:
    """Stands in for run_in_workers: everything in this process."""
    for task in tasks:
        function(*task, on_progress)


def dies_at_three(work, refs, report) -> None:
    """Stands in for label_chunk; no worker survives pair 3 of log1."""
    for ref in refs:
        if (ref.log.name, ref.index) == ("log1", 3):
            os.kill(os.getpid(), signal.SIGKILL)
        report({"log": ref.log.name, "index": ref.index, "problem": "not asked", "seconds": 0.0})


def dying(work, chunk) -> list[dict]:
    """dies_at_three in the form of ray_cluster's task."""
    records: list[dict] = []
    dies_at_three(work, chunk, records.append)
    return records


def dies(work, refs, report) -> None:
    """Stands in for label_chunk."""
    os._exit(7)
