"""Who takes part in traffic: models as drivers move them, drawn in the shares that a city or a highway has."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zeroflow_core.simulation import people, poses, vehicles
from zeroflow_core.simulation.model import Model
from zeroflow_core.simulation.paths import Path
from zeroflow_core.simulation.stage import Part
from zeroflow_core.simulation.terrain import Terrain

KINDS = ("car", "van", "box truck", "truck", "tractor", "bus", "motorcycle", "bicycle")
SHARES = {
    "city": (0.70, 0.09, 0.04, 0.03, 0.01, 0.05, 0.03, 0.05),
    "parked": (0.83, 0.12, 0.02, 0.01, 0.0, 0.0, 0.02, 0.0),
    "highway": (0.68, 0.10, 0.05, 0.05, 0.10, 0.01, 0.01, 0.0),
    "slow lane": (0.42, 0.12, 0.09, 0.08, 0.25, 0.03, 0.01, 0.0),
    "bicycles": (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0),
}
FASTEST = {"truck": 25.0, "tractor": 25.0, "box truck": 27.0, "bus": 27.0}  # m/s


@dataclass(frozen=True)
class Rig:
    """What moves as one: a vehicle, a rider on a machine, a tractor with its trailer.

    models:  all but the trailer, on one track
    trailer: and `hitch`, where the tractor carries it, and `kingpin`, the same of the trailer: x in their frames
    fastest: m/s
    lively:  factor on its acceleration
    """

    models: tuple[Model, ...]
    trailer: Model | None = None
    hitch: float = 0.0
    kingpin: float = 0.0
    leans: bool = False
    fastest: float = 60.0
    lively: float = 1.0

    @property
    def front(self) -> float:
        """From its middle forward, metres."""
        return max(model.centre[0] + model.size[0] / 2 for model in self.models)

    @property
    def rear(self) -> float:
        """From its middle back to the last of it, metres."""
        if self.trailer is not None:
            return self.trailer.size[0] / 2 + self.kingpin - self.hitch
        return max(model.size[0] / 2 - model.centre[0] for model in self.models)

    def parts(self, terrain: Terrain, path: Path, s: np.ndarray) -> tuple[Part, ...]:
        """All of it with the middle at arc lengths `s` (K,) of a path."""
        track = poses.ride(terrain, path, s, self.models[0].size, self.leans)
        parts = [Part(model, track, s if model.limbs else None) for model in self.models]
        if self.trailer is not None:
            length, width, _ = self.trailer.size
            towed = poses.tow(terrain, track, self.hitch, self.kingpin, -0.33 * length, width)
            parts.append(Part(self.trailer, towed))
        return tuple(parts)


def vehicle(rng: np.random.Generator, kinds: str) -> Rig:
    """Some vehicle; kinds: one of SHARES. Parked machines have no riders."""
    kind = KINDS[rng.choice(len(KINDS), p=SHARES[kinds])]
    fastest = FASTEST.get(kind, 60.0)
    if kind == "tractor":
        tractor, trailer, back, kingpin = vehicles.tractor_trailer(rng)
        return Rig((tractor,), trailer, -back, kingpin, fastest=fastest, lively=0.5)
    if kind == "bicycle":
        return Rig(people.cyclist(rng), leans=True, fastest=float(rng.uniform(2.5, 8.0)), lively=0.7)
    if kind == "motorcycle" and kinds == "parked":
        return Rig((vehicles.motorcycle(rng),))
    if kind == "motorcycle":
        return Rig(people.motorcyclist(rng), leans=True, lively=1.4)
    heavy = {"box truck": vehicles.box_truck, "truck": vehicles.truck, "bus": vehicles.bus}
    if kind in heavy:
        return Rig((heavy[kind](rng),), fastest=fastest, lively=0.7)
    return Rig(((vehicles.car if kind == "car" else vehicles.van)(rng),), lively=float(rng.uniform(0.8, 1.3)))


def on_foot(rng: np.random.Generator) -> Rig:
    """Someone who walks, at times with a stroller, or goes by wheelchair."""
    draw = rng.random()
    if draw < 0.04:
        return Rig(people.with_stroller(rng))
    return Rig((people.wheelchair(rng) if draw < 0.05 else people.pedestrian(rng),))
