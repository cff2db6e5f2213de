"""Moments to record, and what is read back of a recording, without the code under test."""

from __future__ import annotations

import subprocess
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from rerun.chunk import RrdReader

from zeroflow_core.geometry import SE3
from zeroflow_core.moments import Moment
from zeroflow_core.objects import MovingObject
from zeroflow_core.tracking import Track

SECOND = 1_000_000_000
BEGIN = 1_700_000_000 * SECOND
STEP = SECOND // 10


def moment(index: int, *, still: int = 200, moving: int = 40, truth: bool = False, known: bool = True) -> Moment:
    """A wall, and a car that drives away from it at 8 m/s; the vehicle drives forwards at 5 m/s and turns a little.

    The first row is NaN, the second has no velocity, and the third is slower than what counts as moving.
    """
    random = np.random.default_rng(7)
    wall = random.uniform([10, -5, 0], [10.1, 5, 3], (still, 3))
    world_SE3_vehicle = SE3.from_yaw(0.02 * index, np.array([0.5 * index, 0.0, 0.0]))
    vehicle_SE3_world = world_SE3_vehicle.inverse()
    centre = np.array([0.8 * index, 6.0, 0.8])
    car = centre + random.uniform([-2, -0.9, -0.7], [2, 0.9, 0.7], (moving, 3))
    points = vehicle_SE3_world.transform(np.concatenate([wall, car])).astype(np.float32)
    speed = vehicle_SE3_world.rotate(np.array([[8.0, 0.0, 0.0]]))[0]
    velocity = np.zeros_like(points)
    velocity[still:] = speed
    points[0], velocity[1], velocity[2] = np.nan, np.nan, [0.3, 0.0, 0.0]
    box = MovingObject(vehicle_SE3_world.transform(centre[None])[0], np.array([4.0, 1.8, 1.4]), 0.3, speed, moving)
    return Moment(
        BEGIN + index * STEP,
        points,
        velocity,
        [Track(12, box, 1.0, 5, False)] if moving else [],
        truth=np.where(velocity != 0, 2 * velocity, 0) if truth else None,
        true_objects=[MovingObject(box.centre, box.size, box.yaw, 2 * speed, moving)] if truth else (),
        world_SE3_vehicle=world_SE3_vehicle if known else None,
        ego_path=np.array([[-0.5, 0.0, 0.0], [0.0, 0.0, 0.0]]),
        paths={12: box.centre + np.array([[-0.8, 0.0, 0.0], [0.0, 0.0, 0.0]])} if moving else {},
    )


class Recording:
    """What is in a file: the components of each entity, by the stamp they were logged at, and as static."""

    def __init__(self, path: Path) -> None:
        self.at: dict[str, dict[int, dict[str, list]]] = {}
        self.static: dict[str, dict[str, list]] = {}
        self.sweeps: dict[int, int] = {}
        self.timelines: set[str] = set()
        reader = RrdReader(str(path))
        for chunk in reader.stream():
            batch = chunk.to_record_batch()
            columns = {name: batch.column(name) for name in batch.schema.names if ":" in name}
            self.timelines |= set(chunk.timeline_names)
            for row in range(batch.num_rows):
                values = {name.partition(":")[2]: column[row].as_py() for name, column in columns.items()}
                if chunk.is_static:
                    self.static.setdefault(chunk.entity_path, {}).update(values)
                    continue
                stamp_ns = batch.column("stamp")[row].value
                self.sweeps[stamp_ns] = batch.column("sweep")[row].as_py()
                self.at.setdefault(chunk.entity_path, {}).setdefault(stamp_ns, {}).update(values)
        self.views = _view_names(reader)

    def of(self, entity: str, component: str, stamp_ns: int = BEGIN) -> np.ndarray:
        return np.array(self.at[entity][stamp_ns][component])

    def colours(self, entity: str, stamp_ns: int = BEGIN) -> np.ndarray:
        """(N,3) uint8."""
        packed = self.of(entity, "colors", stamp_ns).astype(np.uint32)
        return np.stack([packed >> 24, packed >> 16 & 255, packed >> 8 & 255], axis=1).astype(np.uint8)


def _view_names(reader: RrdReader) -> list[str]:
    """Of the newest layout."""
    blueprints = reader.blueprints()
    names: list[str] = []
    for chunk in reader.stream(store=blueprints[-1]) if blueprints else ():
        batch = chunk.to_record_batch()
        if chunk.entity_path.startswith("/view/") and "ViewBlueprint:display_name" in batch.schema.names:
            names += [value for row in batch.column("ViewBlueprint:display_name").to_pylist() if row for value in row]
    return sorted(names)


def verify(path: Path) -> None:
    """By the viewer's own judgement."""
    program = Path(find_spec("rerun_cli").submodule_search_locations[0]) / "rerun"
    done = subprocess.run([program, "rrd", "verify", path], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
