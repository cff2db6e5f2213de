"""A generated drive as a log in AV2 layout, with labels for every pair of sweeps."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise, tee
from pathlib import Path

import numpy as np

from zeroflow_core.datasets.av2 import FlowLabels, write_log
from zeroflow_core.datasets.folders import new_folder
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.evaluation.errors import DYNAMIC_SPEED
from zeroflow_core.geometry import SE3
from zeroflow_core.simulation.scanner import SCANNERS, SimulatedSweep, scan
from zeroflow_core.simulation.scene import Scene, make_street

START_NS = 1_000_000_000_000_000_000  # stamp of the first sweep


def simulate_sweeps(seed: int, sweeps: int, scanner: str = "av2") -> Iterator[SimulatedSweep]:
    """`sweeps` consecutive sweeps of the street `seed`; the same arguments give the same points.

    scanner: one of SCANNERS: av2, hdl64, vlp32, small

    Raises:
        ZeroFlowError: fewer than one sweep, or an unknown scanner.
    """
    if sweeps < 1:
        raise ZeroFlowError(f"{sweeps} sweeps cannot be generated; ask for at least 1")
    if scanner not in SCANNERS:
        raise ZeroFlowError(f"scanner '{scanner}' is unknown; choose one of: {', '.join(SCANNERS)}")
    return _sweeps(make_street(seed), seed, sweeps, scanner)


def simulate_log(out: Path, seed: int, sweeps: int = 30, scanner: str = "av2") -> None:
    """Write such a drive to the folder `out`, which appears when everything is written.

    Beside what an AV2 log holds there are ``flow_labels/<stamp>.feather`` for every pair, with AV2's columns
    (total flow, ego motion included), and ``velocity/<stamp>.feather`` for every sweep: velocity_x_mps,
    velocity_y_mps, velocity_z_mps (float32, over ground, in the sweep's vehicle frame, over the interval before
    the sweep, as the live node estimates it) and is_dynamic (bool, at least 0.5 m/s).

    Raises:
        ZeroFlowError: bad arguments, `out` exists already, or it cannot be written.
    """
    for_points, for_labels, for_velocity = tee(simulate_sweeps(seed, sweeps, scanner), 3)
    device, scene = SCANNERS[scanner], make_street(seed)
    mounting = SE3(np.eye(3), np.array([device.forward, 0.0, device.height]))
    with new_folder(Path(out)) as folder:
        labels = (_labels(*pair, scene) for pair in pairwise(for_labels))
        points = (simulated.sweep for simulated in for_points)
        write_log(folder, points, labels, {"up_lidar": mounting, "down_lidar": mounting})
        (folder / "velocity").mkdir()
        for simulated in for_velocity:
            velocity = -simulated.backward / np.float32(device.sweep_seconds)
            _write_velocity(folder / "velocity" / f"{simulated.sweep.stamp_ns}.feather", velocity)


def _sweeps(scene: Scene, seed: int, sweeps: int, scanner: str) -> Iterator[SimulatedSweep]:
    rng = np.random.default_rng([seed, 2])
    device = SCANNERS[scanner]
    for k in range(sweeps):
        time = k * device.sweep_seconds
        yield scan(scene, device, time, START_NS + round(time * 1e9), rng)


def _labels(first: SimulatedSweep, second: SimulatedSweep, scene: Scene) -> FlowLabels:
    """AV2's labels of a pair: total flow, from the first vehicle frame into the second."""
    ego1_SE3_ego0 = second.sweep.world_SE3_ego.inverse() @ first.sweep.world_SE3_ego
    points = first.sweep.points.astype(np.float64)
    index = _category_index()
    classes = np.array([index.get(actor.category, 0) for actor in scene.actors] + [0], dtype=np.uint8)
    seconds = (second.sweep.stamp_ns - first.sweep.stamp_ns) * 1e-9
    return FlowLabels(
        total_flow=(ego1_SE3_ego0.transform(points + first.forward) - points).astype(np.float32),
        classes=classes[first.actor],
        dynamic=np.linalg.norm(first.forward, axis=1) >= DYNAMIC_SPEED * seconds,
        is_ground0=first.actor < 0,
    )


def _category_index() -> dict[str, int]:
    """AV2's number for each category, 0 being background."""
    from av2.datasets.sensor.constants import AnnotationCategories

    return {str(c.value): k for k, c in enumerate(sorted(AnnotationCategories, key=lambda c: c.value), start=1)}


def _write_velocity(path: Path, velocity: np.ndarray) -> None:
    import pyarrow as pa
    from pyarrow import feather

    columns = {f"velocity_{axis}_mps": pa.array(velocity[:, k]) for k, axis in enumerate("xyz")}
    columns["is_dynamic"] = pa.array(np.linalg.norm(velocity, axis=1) >= DYNAMIC_SPEED)
    feather.write_feather(pa.table(columns), str(path))
