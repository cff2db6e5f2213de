"""A small world whose every point is seen in every sweep, so that each label can be checked against the other cloud."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from zeroflow_core.datasets.av2_writer import new_log
from zeroflow_core.datasets.pseudo_labels import label_folders
from zeroflow_core.datasets.stored_flow import write_stored_flow
from zeroflow_core.distillation.training.prepared import Source
from zeroflow_core.distillation.training.recipes import Recipe, recipe
from zeroflow_core.distillation.training.samples import Sample
from zeroflow_core.fastflow3d import config as sizes
from zeroflow_core.fastflow3d.config import FastFlow3DConfig
from zeroflow_core.geometry import SE3
from zeroflow_core.pairs import Sweep

TINY = FastFlow3DConfig((-8.0, -8.0, -3.0), (8.0, 8.0, 3.0), pillar_size=0.5, channels=4, blocks=(1, 2))
STEP = np.array([0.6, 0.25, 0.0])  # metres that what moves moves from sweep to sweep
INTERVAL_NS = 100_000_000
BEAMS = 8


@dataclass(frozen=True)
class World:
    """Points as they are at the first sweep, (N,3); the last ones move by STEP a sweep."""

    points: np.ndarray
    moving: np.ndarray
    order: np.random.Generator

    def at(self, k: int) -> np.ndarray:
        return self.points + k * STEP * self.moving[:, None]


def pose(k: int) -> SE3:
    """Of the vehicle at sweep `k`: it drives and turns."""
    return SE3.from_yaw(0.05 * k, np.array([40.0 + 0.7 * k, -3.0 + 0.1 * k, 1.0]))


def make_world(seed: int, standing: int = 240, moving: int = 80) -> World:
    rng = np.random.default_rng(seed)
    low, high = np.array([-7.0, -7.0, -1.5]), np.array([7.0, 7.0, 1.5])
    points = np.concatenate([rng.uniform(low, high, (standing, 3)), rng.uniform(-1, 1, (moving, 3)) * [2, 1, 0.8]])
    return World(pose(0).transform(points), np.arange(standing + moving) >= standing, rng)


def write_pairs(
    root: Path, name: str, sweeps: int, seed: int, *, reverse: bool = True, strange: bool = False
) -> Path:
    """A log with exact labels of all its pairs below `root`; rows in another order in every sweep. Gives its folder.

    strange: some points lie outside the grid or are NaN, and some labels are not valid
    """
    world = make_world(seed)
    orders = [world.order.permutation(len(world.points)) for _ in range(sweeps)]
    clouds = [pose(k).inverse().transform(world.at(k)).astype(np.float32)[orders[k]] for k in range(sweeps)]
    known = [np.ones(len(cloud), dtype=bool) for cloud in clouds]
    if strange:
        for cloud, valid in zip(clouds, known, strict=True):
            cloud[5:9] += np.float32([60, 0, 0])
            cloud[20:24] = np.nan
            valid[40:60] = False
    stamps = [1_000_000_000 + k * INTERVAL_NS for k in range(sweeps)]
    path = root / "logs" / "sensor" / "train" / name
    with new_log(path, np.float32) as log:
        log.add_calibration({"up_lidar": SE3.identity()})
        for k in range(sweeps):
            ring = (orders[k] % BEAMS).astype(np.uint16)
            log.add_sweep(Sweep(clouds[k], stamps[k], pose(k), ring=ring))
    labels = label_folders(root / "labels", "train", "nsfp")
    for k in range(sweeps - 1):
        for folder, of, sign in ((labels.forward, k, 1), (labels.reverse, k + 1, -1)):
            if folder == labels.reverse and not reverse:
                continue
            residual = pose(of).inverse().rotate(sign * STEP * world.moving[:, None])[orders[of]]
            write_stored_flow(folder / name / f"{stamps[of]}.feather", residual, known[of])
    return path


def make_source(root: Path, sweeps: tuple[int, ...] = (4, 3), *, weight: float = 1.0, **how: bool) -> Source:
    """A source whose logs have so many sweeps each."""
    logs = tuple(write_pairs(root, f"log{n}", count, seed=n, **how) for n, count in enumerate(sweeps))
    labels = label_folders(root / "labels", "train", "nsfp")
    if not how.get("reverse", True):
        labels = type(labels)(labels.forward, None)
    return Source(logs, labels, "none", weight)


def tiny_student(monkeypatch) -> str:
    """The name of a size small enough to learn in no time."""
    monkeypatch.setitem(sizes.SIZES, "tiny", TINY)
    return "tiny"


def quick(**changes) -> Recipe:
    """The fast recipe, in fp32 and with few epochs."""
    return recipe("fast", **{"epochs": 2, "batch": 3, "visits": 1, "bf16": False, **changes})


def off_surface(sample: Sample) -> np.ndarray:
    """Metres from where the labels say pc0's points will be to pc1; of those with a label."""
    known = np.isfinite(sample.label).all(axis=1)
    return cKDTree(sample.pc1).query((sample.pc0 + sample.label)[known])[0]
