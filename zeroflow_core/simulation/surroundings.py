"""What stands along a road: houses, gardens, trees, lamps, furniture; a few metres of it after another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zeroflow_core.simulation import roadside, vehicles
from zeroflow_core.simulation.model import Model
from zeroflow_core.simulation.paths import Course
from zeroflow_core.simulation.roadside import Solids
from zeroflow_core.simulation.solids import Material
from zeroflow_core.simulation.stage import Stage

ANNOTATED = 0.1  # share of signs and bollards that are actors


@dataclass(frozen=True)
class Verge:
    """One side of a road from s = begin to end.

    side:     1 left, -1 right
    edge:     of the road, metres from its middle
    sidewalk: its width, metres
    setback:  of the houses behind the sidewalk, metres
    """

    course: Course
    begin: float
    end: float
    side: int
    edge: float
    sidewalk: float
    setback: float

    def at(self, s: float, beyond: float) -> np.ndarray:
        """World point (2,) at s, `beyond` metres from the road's edge."""
        return self.course.at(s, self.side * (self.edge + beyond))

    def yaw(self, s: float) -> float:
        """Heading of something at s whose +y looks at the road."""
        return float(self.course.yaw(s)) + np.pi * (self.side > 0)

    def along(self, rng: np.random.Generator, gap: float, jitter: float = 0.3) -> np.ndarray:
        """Values of s about every `gap` metres."""
        count = int((self.end - self.begin) / gap)
        return self.begin + (np.arange(count) + 0.5 + rng.uniform(-jitter, jitter, count)) * gap


def houses(stage: Stage, rng: np.random.Generator, verge: Verge) -> None:
    """Buildings in the style of the street: rows wall to wall, detached houses, offices; a second row behind gaps."""
    style = rng.choice(3, p=[0.5, 0.25, 0.25])
    s = verge.begin + rng.uniform(0, 10)
    while s < verge.end:
        kind = style if rng.random() < 0.85 else rng.integers(3)
        # in the bend's inside fronts that lie further back are shorter than the road
        shrink = 1 - verge.course.curvature * verge.side * (verge.edge + verge.sidewalk + verge.setback)
        length = (rng.uniform(18, 45), rng.uniform(9, 15), rng.uniform(18, 40))[kind]
        building = (
            roadside.facade_row(rng, length)
            if kind == 0
            else roadside.house(rng)
            if kind == 1
            else roadside.office_block(rng, length)
        )
        step = length / max(shrink, 0.4)
        if rng.random() < 0.96:
            back = verge.sidewalk + verge.setback + rng.uniform(0, 1.5 if kind == 0 else 4.0)
            middle = s + step / 2
            stage.place(building, verge.at(middle, back), verge.yaw(middle), clear=verge.sidewalk)
            if rng.random() < 0.7:
                behind = roadside.house(rng)
                stage.place(behind, verge.at(middle, back + rng.uniform(18, 28)), verge.yaw(middle), clear=6.0)
        s += step + (rng.uniform(0.3, 3) if rng.random() < 0.85 else rng.uniform(5, 14))


def gardens(stage: Stage, rng: np.random.Generator, verge: Verge) -> None:
    """Hedges, fences and walls along the sidewalk, bushes and trees behind, cars in drives."""
    kinds = (roadside.hedge, roadside.fence, roadside.wall)
    s, front = verge.begin, verge.sidewalk + 0.5
    while s < verge.end and verge.setback > 2.5:
        run, kind = rng.uniform(5, 18), kinds[rng.integers(3)]
        if rng.random() < 0.75:
            state = rng.bit_generator.state
            for piece in np.arange(s + 2, s + run - 1, 4.0):
                rng.bit_generator.state = state  # every piece of a run is alike
                stage.place(kind(rng, 4.0), verge.at(piece, front), verge.yaw(piece), base=4.0)
        elif rng.random() < 0.6:
            car = vehicles.car(rng)
            if verge.setback > 5.5:
                yaw = verge.yaw(s + run / 2) + np.pi / 2 * rng.choice([-1, 1])
                stage.park(car, verge.at(s + run / 2, verge.sidewalk + verge.setback / 2 + 0.6), yaw)
        s += run + rng.uniform(1.0, 4.0)
    for s in verge.along(rng, 5.0, 0.5):
        beyond = verge.sidewalk + rng.uniform(1.2, max(verge.setback + 1, 3.0))
        green = roadside.bush(rng) if rng.random() < 0.7 else plant(rng)
        stage.place(green, verge.at(s, beyond), rng.uniform(0, 2 * np.pi))
    for s in verge.along(rng, 9.0, 0.5):  # what is seen between the houses
        beyond = verge.sidewalk + verge.setback + rng.uniform(2, 35)
        green = plant(rng) if rng.random() < 0.7 else roadside.bush(rng)
        stage.place(green, verge.at(s, beyond), rng.uniform(0, 2 * np.pi))


def alley(stage: Stage, rng: np.random.Generator, verge: Verge) -> None:
    """A row of trees by the kerb."""
    if verge.sidewalk < 2.2 or rng.random() < 0.25:
        return
    gap, conifers = rng.uniform(8, 16), rng.random() < 0.08
    for s in verge.along(rng, gap, 0.1):
        if rng.random() < 0.85:
            green = roadside.conifer(rng) if conifers else roadside.tree(rng)
            stage.place(green, verge.at(s, 0.8), rng.uniform(0, 2 * np.pi), clear=0.3)


def furniture(stage: Stage, rng: np.random.Generator, verge: Verge) -> None:
    """Lamps, posts, signs, bins, benches, bollards, a shelter, sometimes a building site."""
    low = 0.45
    lamps = roadside.lamp_post if rng.random() < 0.75 else roadside.pole
    for s in verge.along(rng, rng.uniform(22, 36), 0.05):
        stage.place(lamps(rng), verge.at(s, low), verge.yaw(s))
    for s in verge.along(rng, 16.0):
        facing = float(verge.course.yaw(s)) + np.pi * (verge.side < 0) + rng.normal(0, 0.1)
        stage.place(seldom_annotated(rng, roadside.sign(rng)), verge.at(s, low + 0.1), facing)
    for s in verge.along(rng, 13.0, 0.5):
        kind = (roadside.bin, roadside.bench, _thin_post, roadside.bin)[rng.integers(4)]
        beyond = low + 0.3 if rng.random() < 0.5 else verge.sidewalk - 0.4
        stage.place(kind(rng), verge.at(s, beyond), verge.yaw(s))
    if rng.random() < 0.5:
        middle = rng.uniform(verge.begin, verge.end)
        stage.place(roadside.bus_shelter(rng), verge.at(middle, max(verge.sidewalk - 1.0, 1.3)), verge.yaw(middle))
    for _ in range(rng.poisson((verge.end - verge.begin) / 120)):
        middle, count, bollard = rng.uniform(verge.begin, verge.end), rng.integers(3, 9), roadside.bollard(rng)
        for s in middle + 1.6 * np.arange(count):
            stage.place(seldom_annotated(rng, bollard), verge.at(s, 0.35), 0.0)
    if rng.random() < 0.2:
        middle, kind = rng.uniform(verge.begin, verge.end), (roadside.cone, roadside.barrel)[rng.integers(2)]
        for s in middle + 2.5 * np.arange(rng.integers(3, 8)):
            stage.place(kind(rng), verge.at(s, rng.uniform(-0.5, 0.2)), rng.uniform(0, 2 * np.pi), clear=None)


def roadsides(stage: Stage, rng: np.random.Generator, verge: Verge) -> None:
    """Everything along one side of a city's road."""
    houses(stage, rng, verge)
    furniture(stage, rng, verge)
    alley(stage, rng, verge)
    gardens(stage, rng, verge)


def seldom_annotated(rng: np.random.Generator, model: Model) -> Model | Solids:
    """The model, or most often its solids alone: AV2's annotators leave out most signs and bollards."""
    return model if rng.random() < ANNOTATED else model.solids


def plant(rng: np.random.Generator) -> Solids:
    return roadside.conifer(rng) if rng.random() < 0.25 else roadside.tree(rng)


def _thin_post(rng: np.random.Generator) -> Solids:
    """A cabinet, a hydrant, a parking meter."""
    wide, deep, high = rng.uniform(0.1, 0.5), rng.uniform(0.08, 0.25), rng.uniform(0.7, 1.5)
    material = Material(float(rng.uniform(0.15, 0.6)))
    return (vehicles.block((-wide, wide), (-deep, deep), (-roadside.SUNK, high), material),)
