"""Poses, firing times and ground where the truth is known: what `odometry` measures, without its tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np

from zeroflow_core.datasets.av2 import Log
from zeroflow_core.ego_motion import KissOdometry, deskew, relative_pose_errors
from zeroflow_core.geometry import SE3
from zeroflow_core.ground import Patchwork, ground_z_of
from zeroflow_core.pairs import Sweep
from zeroflow_core.simulation.log import Drive
from zeroflow_core.simulation.scan import Simulator
from zeroflow_core.simulation.scanners import scanner_named
from zeroflow_core.simulation.scenes import SCENES

FEWEST_SWEEPS = 3  # of a simulated log: two pairs
_SEED = 100  # of the first simulated log; others have seeds that follow
_NEAR = 50.0  # metres, for the apparent motion of what stands: about as far as the student sees
_AROUND = 20.0  # metres, for the true height of the ground
_EVERY = 5  # sweeps: Patchwork++ is asked about one in so many


@dataclass(frozen=True)
class PoseErrors:
    """Of the poses of a log, for each of its P pairs of consecutive sweeps.

    metres, degrees: (P,) error of the motion between the two
    apparent:        (P,) metres that standing points within 50 m seem to move by it, mean over the points
    seconds:         for a sweep, mean
    """

    metres: np.ndarray
    degrees: np.ndarray
    apparent: np.ndarray
    seconds: float


@dataclass(frozen=True)
class GroundErrors:
    """Of ground found without a map.

    overlap: (K,) intersection over union of Patchwork++'s mask and the true one within 50 m, for some sweeps; of real
             logs the true one is the map's by ZeroFlow's rule (0.4 m), and av2_overlap by AV2's (0.3 m)
    ground_z, true_ground_z: metres, in the vehicle frame, median over the same sweeps; None where too little shows it
    """

    overlap: np.ndarray
    av2_overlap: np.ndarray | None
    ground_z: float | None
    true_ground_z: float


@dataclass(frozen=True)
class SimulatedLog:
    """What was measured of a simulated log.

    sensor, scene: of which
    step:     metres that the vehicle moves in a sweep, mean
    poses:    errors from sweeps as seen at the stamp (compensated), each point as seen when it was fired (fired), and
              the same deskewed by KissOdometry (deskewed)
    fired_m, deskewed_m: (M,) metres between points as fired, or deskewed by the estimated motion, and where they would
              be seen at the stamp; some of the points of all sweeps
    """

    sensor: str
    scene: str
    step: float
    poses: dict[str, PoseErrors]
    fired_m: np.ndarray
    deskewed_m: np.ndarray
    ground: GroundErrors


@dataclass(frozen=True)
class RealLog:
    """What was measured of a recorded log; poses has None for a log of one sweep."""

    name: str
    sweeps: int
    step: float
    poses: PoseErrors | None
    ground: GroundErrors | None


def simulated_log(sensor: str, number: int, sweeps: int) -> SimulatedLog:
    """Simulated log `number` of a scanner, of so many sweeps: scenes take turns."""
    scene = SCENES[number % len(SCENES)]
    drive = Drive(_SEED + number, sweeps, scanner_named(sensor), scene)
    simulator = drive.simulator()
    simulated = [simulator.sweep(k) for k in range(drive.sweeps)]
    seen = [one.sweep for one in simulated]
    fired = [as_fired(sweep, simulator) for sweep in seen]
    true = _poses(seen)
    deskewed, seconds = _estimate(fired, deskew=True)
    restored = [deskew(fired[k], *_motion(deskewed, fired, k)) for k in range(len(fired))]
    return SimulatedLog(
        sensor=sensor,
        scene=scene,
        step=_step(true),
        poses={
            "compensated": _errors(*_estimate(seen, deskew=False), seen),
            "fired": _errors(*_estimate(fired, deskew=False), seen),
            "deskewed": _errors(deskewed, seconds, seen),
        },
        fired_m=_apart(fired, seen),
        deskewed_m=_apart(restored, seen),
        ground=_ground(seen[::_EVERY], [one.is_ground for one in simulated[::_EVERY]]),
    )


def real_log(log: Log) -> RealLog:
    """Agreement with a recorded log's own poses, and with its map of the ground, where it has one.

    Points of AV2's logs are compensated, so they are not deskewed.
    """
    sweeps = list(log.sweeps())
    raster, some, ground = log.map_ground(), sweeps[::_EVERY], None
    if raster is not None:
        ground = _ground(some, [raster(one) for one in some], [raster.as_av2()(one) for one in some])
    poses = _errors(*_estimate(sweeps, deskew=False), sweeps) if len(sweeps) > 1 else None
    return RealLog(log.log_id, len(sweeps), _step(_poses(sweeps)), poses, ground)


def as_fired(sweep: Sweep, simulator: Simulator) -> Sweep:
    """A simulated sweep with each point as the moving vehicle saw it when it was fired, not as seen at the stamp."""
    city = sweep.world_SE3_ego.transform(sweep.points.astype(np.float64))
    begin = sweep.stamp_ns - simulator.stamp_ns(0)
    moments, column = np.unique(sweep.time_offset_ns, return_inverse=True)
    poses = [simulator.ego_pose((begin + int(moment)) * 1e-9).inverse() for moment in moments]
    rotation, translation = (np.stack([getattr(p, part) for p in poses]) for part in ("rotation", "translation"))
    points = np.einsum("nij,nj->ni", rotation[column], city) + translation[column]
    return replace(sweep, points=points.astype(np.float32))


def _poses(sweeps: Sequence[Sweep]) -> list[SE3]:
    return [sweep.world_SE3_ego for sweep in sweeps]


def _estimate(sweeps: Sequence[Sweep], deskew: bool) -> tuple[list[SE3], float]:
    """Poses, and seconds for a sweep."""
    odometry = KissOdometry(deskew=deskew)
    begin = perf_counter()
    poses = [odometry.register(sweep) for sweep in sweeps]
    return poses, (perf_counter() - begin) / len(sweeps)


def _errors(estimated: Sequence[SE3], seconds: float, sweeps: Sequence[Sweep]) -> PoseErrors:
    """sweeps: with the true poses, and points as seen at the stamp"""
    true = _poses(sweeps)
    metres, degrees = relative_pose_errors(estimated, true)
    apparent = []
    for k, sweep in enumerate(sweeps[1:]):
        points = sweep.points[np.linalg.norm(sweep.points[:, :2], axis=1) < _NEAR].astype(np.float64)
        seen = (estimated[k].inverse() @ estimated[k + 1]).transform(points)
        stood = (true[k].inverse() @ true[k + 1]).transform(points)
        apparent.append(np.linalg.norm(seen - stood, axis=1).mean())
    return PoseErrors(metres, degrees, np.array(apparent), seconds)


def _motion(poses: Sequence[SE3], sweeps: Sequence[Sweep], k: int) -> tuple[SE3, int]:
    """From sweep `k` to the next one, or for the last one back to the one before: ego_SE3_ego and nanoseconds."""
    other = k + 1 if k + 1 < len(poses) else k - 1
    return poses[k].inverse() @ poses[other], sweeps[other].stamp_ns - sweeps[k].stamp_ns


def _step(poses: Sequence[SE3]) -> float:
    if len(poses) < 2:
        return 0.0
    return float(np.linalg.norm(np.diff([pose.translation for pose in poses], axis=0), axis=1).mean())


def _apart(sweeps: Sequence[Sweep], true: Sequence[Sweep]) -> np.ndarray:
    """Metres between the same points of both, for one in ten."""
    pairs = zip(sweeps, true, strict=True)
    return np.concatenate([np.linalg.norm(a.points[::10] - b.points[::10], axis=1) for a, b in pairs])


def _ground(
    sweeps: Sequence[Sweep], true: Sequence[np.ndarray], true_av2: Sequence[np.ndarray] | None = None
) -> GroundErrors:
    found = [Patchwork()(sweep) for sweep in sweeps]
    around = [mask & (np.linalg.norm(s.points[:, :2], axis=1) < _AROUND) for s, mask in zip(sweeps, true, strict=True)]
    heights = [s.points[mask, 2] for s, mask in zip(sweeps, around, strict=True)]
    return GroundErrors(
        overlap=_overlaps(sweeps, found, true),
        av2_overlap=None if true_av2 is None else _overlaps(sweeps, found, true_av2),
        ground_z=ground_z_of(sweeps),
        true_ground_z=float(np.median([np.median(z) for z in heights])),
    )


def _overlaps(sweeps: Sequence[Sweep], found: Sequence[np.ndarray], true: Sequence[np.ndarray]) -> np.ndarray:
    overlaps = []
    for sweep, one, other in zip(sweeps, found, true, strict=True):
        near = np.abs(sweep.points[:, :2]).max(axis=1) < _NEAR
        overlaps.append((one & other & near).sum() / max(((one | other) & near).sum(), 1))
    return np.array(overlaps)
