"""A simulated drive as sweeps with their truth, and as a log in AV2's layout."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from zeroflow_core.datasets.av2 import Cuboid, FlowLabels
from zeroflow_core.datasets.av2_writer import LogWriter, new_log, write_table
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.evaluation.errors import DYNAMIC_SPEED
from zeroflow_core.geometry import SE3
from zeroflow_core.simulation.log_map import write_map
from zeroflow_core.simulation.scan import SimulatedSweep, Simulator
from zeroflow_core.simulation.scanners import Scanner, scanner_named
from zeroflow_core.simulation.scene import Scene
from zeroflow_core.simulation.scenes import check_scene, make_scene
from zeroflow_core.simulation.truth import ActorBox

_POSES_PER_SWEEP = 10
_LATE = 0.2  # share of a sweep by which its beams may lag
_STEP_M = 0.02  # of the coordinates as they are stored, in float16

# Changes with the simulation: the same arguments then give another drive, which must not pass for the old one.
_EDITION = 1


@dataclass(frozen=True)
class Drive:
    """All that a simulated log is a function of, on the same type of device.

    scene:   one of SCENES: street, junction, highway
    density: of the traffic, 1 being usual

    Raises:
        ZeroFlowError: fewer than one sweep, a negative seed, an unknown scene, or a density out of range.
    """

    seed: int
    sweeps: int
    scanner: Scanner
    scene: str = "street"
    density: float = 1.0

    def __post_init__(self) -> None:
        if self.sweeps < 1:
            raise ZeroFlowError(f"{self.sweeps} sweeps cannot be simulated; ask for at least 1")
        check_scene(self.scene, self.seed, self.density)

    @property
    def id(self) -> str:
        """A name for the log, in the form of AV2's: equal drives have equal names."""
        return str(uuid.uuid5(uuid.NAMESPACE_URL, json.dumps([_EDITION, asdict(self)])))

    def simulator(self, device: str = "cpu") -> Simulator:
        """The scanner in its world. device: cpu, cuda or cuda:n"""
        seconds = (self.sweeps + 1) * self.scanner.sweep_s  # the flow of the last sweep ends an interval after it
        world = make_scene(self.scene, seed=self.seed, seconds=seconds, density=self.density)
        return Simulator(world, self.scanner, seed=self.seed, device=device)


def simulate_sweeps(
    seed: int,
    sweeps: int,
    scanner: str | Scanner = "av2",
    scene: str = "street",
    density: float = 1.0,
    device: str = "cpu",
) -> Iterator[SimulatedSweep]:
    """`sweeps` consecutive sweeps of one drive; the same arguments give the same points.

    scanner: one of SCANNERS (av2, hdl64, os1-128, vlp32, small), or any other
    The other arguments are those of Drive and Drive.simulator.

    Raises:
        ZeroFlowError: see Drive; or an unknown scanner.
    """
    simulator = _drive(seed, sweeps, scanner, scene, density).simulator(device)
    return (simulator.sweep(k) for k in range(sweeps))


def _drive(seed: int, sweeps: int, scanner: str | Scanner, scene: str, density: float) -> Drive:
    return Drive(seed, sweeps, scanner_named(scanner) if isinstance(scanner, str) else scanner, scene, density)


def simulate_log(
    out: Path,
    seed: int,
    sweeps: int = 30,
    scanner: str | Scanner = "av2",
    scene: str = "street",
    density: float = 1.0,
    device: str = "cpu",
) -> None:
    """Write one drive as a log to the folder `out`; arguments and errors as of simulate_sweeps and write_drive."""
    write_drive(Path(out), _drive(seed, sweeps, scanner, scene, density), device)


def write_drive(
    out: Path, drive: Drive, device: str = "cpu", on_sweep: Callable[[int], None] = lambda points: None
) -> None:
    """Write a drive as a log to the folder `out`, which appears when everything is written.

    It holds what a log of AV2's sensor dataset holds, but for cameras. Points are in float16, and everything below
    is for the points as they are stored. Cuboids are of the objects that at least one beam of the log meets, whenever
    they are within range; each stands where the beams met it, and has one size, which holds its points in all sweeps,
    smeared as they are. Beside that there are

    ``flow_labels/<stamp>.feather`` for every sweep but the last: AV2's columns (flow_tx_m, flow_ty_m, flow_tz_m:
        total flow into the next vehicle frame, ego motion included; classes, dynamic, is_ground_0), then instance
        (int32, -1 for the surroundings; in hexadecimal the last group of the object's track_uuid) and limb_flow_tx_m,
        limb_flow_ty_m, limb_flow_tz_m (float32: total flow where legs and arms have their own motion, which
        flow_t*_m, like AV2's, leaves out);
    ``flow_labels.feather`` where there are two sweeps: AV2's columns of the only pair;
    ``velocity/<stamp>.feather`` for every sweep: velocity_x_mps, velocity_y_mps, velocity_z_mps (float32: over
        ground, in the sweep's vehicle frame, over the interval before the sweep, as the live node estimates it),
        is_dynamic (bool, at least 0.5 m/s) and instance.

    on_sweep: called with the number of points after each sweep that is written

    Raises:
        ZeroFlowError: `out` exists already, or it cannot be written.
    """
    with new_log(out) as log:
        simulator = drive.simulator(device)
        tracks = _Tracks(simulator.scene, drive.id)
        log.add_calibration(simulator.mounting)
        previous: SimulatedSweep | None = None
        for k in range(drive.sweeps):
            simulated = simulator.sweep(k)
            log.add_sweep(simulated.sweep)
            tracks.add(simulated)
            _add_velocity(log, simulated)
            if previous is not None:
                _add_labels(log, previous, simulated, tracks.classes)
            previous = simulated
            on_sweep(len(simulated.sweep))
        for stamp_ns, cuboids in tracks.cuboids():
            log.add_cuboids(stamp_ns, cuboids)
        poses = _add_poses(log, simulator, drive.sweeps)
        write_map(log.folder / "map", out.name, simulator.scene, np.array([pose.translation[:2] for pose in poses]))


class _Tracks:
    """A scene's actors as annotated tracks: those that are seen in the log, each with one box for all of it."""

    def __init__(self, scene: Scene, log_id: str) -> None:
        from av2.evaluation.scene_flow.constants import CATEGORY_TO_INDEX

        count = len(scene.actors)
        self._categories = [actor.category for actor in scene.actors]
        self._ids = [f"{log_id.rpartition('-')[0]}-{k:012x}" for k in range(count)]
        # one more: index -1 is the background
        self.classes = np.array([CATEGORY_TO_INDEX[name] for name in self._categories] + [0], dtype=np.uint8)
        self._sweeps: list[tuple[int, SE3, list[ActorBox]]] = []
        self._low, self._high = np.full((count, 3), np.inf), np.full((count, 3), -np.inf)
        self._num_points = np.zeros(count, dtype=np.int64)

    def add(self, simulated: SimulatedSweep) -> None:
        for box in simulated.cuboids:
            self._low[box.actor] = np.minimum(self._low[box.actor], box.low - _STEP_M)
            self._high[box.actor] = np.maximum(self._high[box.actor], box.high + _STEP_M)
            self._num_points[box.actor] += box.num_points
        sweep = simulated.sweep
        self._sweeps.append((sweep.stamp_ns, sweep.world_SE3_ego.inverse(), simulated.cuboids))

    def cuboids(self) -> Iterator[tuple[int, list[Cuboid]]]:
        """Stamp of each sweep, and its objects in the vehicle frame."""
        with np.errstate(invalid="ignore"):  # of actors that never came near
            middle, size = (self._low + self._high) / 2, self._high - self._low
        for stamp_ns, ego_SE3_city, boxes in self._sweeps:
            seen = [box for box in boxes if self._num_points[box.actor]]
            poses = [ego_SE3_city @ box.city_SE3_body @ SE3(np.eye(3), middle[box.actor]) for box in seen]
            yield (
                stamp_ns,
                [
                    Cuboid(self._categories[box.actor], self._ids[box.actor], pose, size[box.actor], box.num_points)
                    for box, pose in zip(seen, poses, strict=True)
                ],
            )


def _add_poses(log: LogWriter, simulator: Simulator, sweeps: int) -> list[SE3]:
    """Poses from the first stamp until the last beam of the last sweep; like AV2's, many more than sweeps."""
    seconds = simulator.scanner.sweep_s
    times = np.arange(round((sweeps + _LATE) * _POSES_PER_SWEEP) + 1) / _POSES_PER_SWEEP * seconds
    poses = [simulator.ego_pose(time) for time in times]
    for time, pose in zip(times, poses, strict=True):
        log.add_pose(simulator.stamp_ns(0) + round(time * 1e9), pose)
    return poses


def _add_labels(log: LogWriter, first: SimulatedSweep, second: SimulatedSweep, classes: np.ndarray) -> None:
    ego1_SE3_ego0 = second.sweep.world_SE3_ego.inverse() @ first.sweep.world_SE3_ego
    stored = first.sweep.points.astype(np.float16).astype(np.float64)

    def total(flow: np.ndarray, rows: slice | np.ndarray = slice(None)) -> np.ndarray:
        return (ego1_SE3_ego0.transform(stored[rows] + flow[rows]) - stored[rows]).astype(np.float32)

    seconds = (second.sweep.stamp_ns - first.sweep.stamp_ns) * 1e-9
    labels = FlowLabels(
        total_flow=total(first.flow),
        classes=classes[first.actor],
        dynamic=np.linalg.norm(first.flow, axis=1) >= DYNAMIC_SPEED * seconds,
        is_ground0=first.is_ground,
    )
    limb_flow, swings = labels.total_flow.copy(), np.any(first.limb_flow != first.flow, axis=1)
    limb_flow[swings] = total(first.limb_flow, swings)
    columns = {f"limb_flow_t{axis}_m": limb_flow[:, k] for k, axis in enumerate("xyz")}
    log.add_labels(first.sweep.stamp_ns, labels, {"instance": first.actor.astype(np.int32)} | columns)


def _add_velocity(log: LogWriter, simulated: SimulatedSweep) -> None:
    columns = {f"velocity_{axis}_mps": simulated.velocity[:, k] for k, axis in enumerate("xyz")}
    columns["is_dynamic"] = np.linalg.norm(simulated.velocity, axis=1) >= DYNAMIC_SPEED
    columns["instance"] = simulated.actor.astype(np.int32)
    write_table(log.folder / "velocity" / f"{simulated.sweep.stamp_ns}.feather", columns)


def read_velocity(log: Path, stamp_ns: int) -> np.ndarray | None:
    """Velocity over ground (N,3) float32, in m/s, of a simulated log's points at a stamp, in the sweep's vehicle frame.

    None where the log does not know it, as no recorded one does.
    """
    path = log / "velocity" / f"{stamp_ns}.feather"
    if not path.exists():
        return None
    from pyarrow import feather

    table = feather.read_table(path)
    return np.stack([table[f"velocity_{axis}_mps"].to_numpy() for axis in "xyz"], axis=1)
