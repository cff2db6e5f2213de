"""Pairs of sweeps to measure: from logs, real or simulated, or simulated on the spot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from zeroflow_core.bench.statistics import Sample
from zeroflow_core.datasets.av2 import Log
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.geometry import SE3
from zeroflow_core.pairs import Sweep, remove_ego_motion

_BY_BEAMS = {32: "vlp32", 64: "hdl64", 128: "os1-128"}
_UNKNOWN_ORIGIN = (0.0, 0.0, 1.56)  # where the beams of an HDL-64E meet on KITTI's car, in the middle of its two blocks
_GROUND_THRESHOLD = 0.4  # metres, as in ground.MapRaster
_SIMULATED_FROM = 10  # sweep of a simulated scene to begin with, so that its first second has brought it to life


def resembling(log: Log) -> str | None:
    """Name of the simulated scanner that has the heads and beams of the log's, if there is one."""
    ring = log.sweep(0).ring
    if ring is None or len(ring) == 0 or ring.max() == 0:
        return None
    places = [pose.translation for name, pose in log.calibration().items() if "lidar" in name]
    if any(np.linalg.norm(place - places[0]) > 0.1 for place in places):
        return "av2"
    return _BY_BEAMS.get(1 << int(ring.max()).bit_length())  # the highest beams may have seen nothing but sky


def log_samples(log: Log, count: int) -> Iterator[Sample]:
    """At most `count` pairs spread evenly over the log; none from a log of one sweep."""
    pairs = len(log) - 1
    chosen = sorted({int((k + 0.5) * pairs / count) for k in range(count)}) if pairs > 0 else []
    ground, origin = log.map_ground(), _origin(log.calibration())
    for i in chosen:
        sweep0, sweep1, labels = log.sweep(i), log.sweep(i + 1), log.flow_labels(i)
        velocity = None
        if labels is not None:
            ego0_SE3_ego1 = sweep0.world_SE3_ego.inverse() @ sweep1.world_SE3_ego
            residual = remove_ego_motion(sweep0.points, labels.total_flow, ego0_SE3_ego1)
            velocity = residual / ((sweep1.stamp_ns - sweep0.stamp_ns) * 1e-9)
        yield Sample(sweep0, sweep1, origin, ground, velocity)


def check_simulation(sensor: str, scene: str, device: str) -> None:
    """Complain at once about what would fail only after a while.

    Raises:
        ZeroFlowError: the sensor or the scene is unknown, or the device cannot be used.
    """
    import torch

    from zeroflow_core.simulation.scanners import scanner_named
    from zeroflow_core.simulation.scenes import SCENES

    scanner_named(sensor)
    if scene not in SCENES:
        raise ZeroFlowError(f"scene '{scene}' is unknown; choose one of: {', '.join(SCENES)}")
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ZeroFlowError(f"the device {device} cannot be used: {str(error).splitlines()[0]}") from error


def simulated_samples(sensor: str, scene: str, seed: int, count: int, device: str) -> Iterator[Sample]:
    """One pair of each of `count` scenes, made from `seed`, `seed` + 1 and so on, rounded as logs are."""
    from zeroflow_core.simulation.scan import Simulator
    from zeroflow_core.simulation.scanners import scanner_named
    from zeroflow_core.simulation.scenes import make_scene

    scanner = scanner_named(sensor)
    for k in range(seed, seed + count):
        world = make_scene(scene, seed=k, seconds=(_SIMULATED_FROM + 3) * scanner.sweep_s, density=1.0)
        simulator = Simulator(world, scanner, seed=k, device=device)
        first, second = (simulator.sweep(_SIMULATED_FROM + i) for i in (0, 1))

        def near_terrain(sweep: Sweep, terrain=world.terrain) -> np.ndarray:
            city = sweep.world_SE3_ego.transform(sweep.points.astype(np.float64))
            return city[:, 2] <= terrain.at(city[:, :2]) + _GROUND_THRESHOLD

        dt = (second.sweep.stamp_ns - first.sweep.stamp_ns) * 1e-9
        sweeps = _as_stored(first.sweep), _as_stored(second.sweep)
        yield Sample(*sweeps, _origin(simulator.mounting), near_terrain, first.flow / dt)


def _origin(mounting: dict[str, SE3]) -> np.ndarray:
    """(3,) where the LiDARs are on the average, metres."""
    places = [pose.translation for name, pose in mounting.items() if "lidar" in name]
    origin = np.mean(places, axis=0) if places else np.zeros(3)
    return origin if np.linalg.norm(origin) > 0.1 else np.array(_UNKNOWN_ORIGIN)


def _as_stored(sweep: Sweep) -> Sweep:
    """The sweep with the precision that a log has: coordinates in float16."""
    return replace(sweep, points=sweep.points.astype(np.float16).astype(np.float32))
