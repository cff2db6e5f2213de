"""What is in the world: actors made of boxes and upright cylinders, set along a street by a seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zeroflow_core.simulation.motion import ArcMotion

HORIZON_S = 4.0  # actors keep clear of each other this long


@dataclass(frozen=True)
class Solid:
    """A box (length, width) or an upright cylinder (radius) in its actor's frame.

    x, y:          centre in the actor's frame, metres
    bottom, top:   heights above the actor's ground, metres
    length, width: of a box; `radius` > 0 makes it a cylinder
    roughness:     standard deviation of the range inside it, metres (leaves scatter, steel does not)
    """

    bottom: float
    top: float
    length: float = 0.0
    width: float = 0.0
    radius: float = 0.0
    x: float = 0.0
    y: float = 0.0
    roughness: float = 0.0

    @property
    def reach(self) -> float:
        """Radius around the actor's origin that holds the solid, metres."""
        own = self.radius if self.radius > 0 else np.hypot(self.length, self.width) / 2
        return float(np.hypot(self.x, self.y) + own)


@dataclass(frozen=True)
class Actor:
    """Solids that move as one rigid body. category: AV2's name, or None for what AV2 does not label."""

    solids: tuple[Solid, ...]
    motion: ArcMotion
    category: str | None = None
    reflectance: float = 0.4

    @property
    def reach(self) -> float:
        return max(solid.reach for solid in self.solids)


@dataclass(frozen=True)
class Scene:
    """Actors on a plane z = slope_x · x + slope_y · y (world frame), and the vehicle that carries the scanner.

    ground_z: height of the ground in the vehicle frame below the ego, metres
    """

    actors: tuple[Actor, ...]
    ego: ArcMotion
    slope_x: float
    slope_y: float
    ground_z: float = -0.33


def make_street(seed: int) -> Scene:
    """A street with traffic, crossing traffic, walkers, parked cars, houses, trees and poles.

    Actors stand or move, at 0.5 to 25 m/s; one ego in four stands. The same seed gives the same scene.
    """
    rng = np.random.default_rng(seed)
    ego = ArcMotion(
        0.0,
        0.0,
        0.0,
        speed=0.0 if rng.random() < 0.25 else rng.uniform(1, 18),
        acceleration=rng.uniform(-1.5, 1.5),
        curvature=rng.normal(0, 0.008),
    )
    builder = _Builder(rng, ego)
    density = rng.uniform(0.3, 1.0)
    lane = rng.uniform(3.0, 4.0)

    for _ in range(round(7 * density) + 1):  # traffic along the street, both ways
        direction = rng.choice([-1, 1])
        lane_y = direction * -lane / 2 + rng.choice([0, -direction * lane]) + lane / 2
        yaw = 0.0 if direction > 0 else np.pi
        builder.moving_vehicle(rng.uniform(-55, 55), lane_y, yaw, speed=rng.uniform(2, 25))
    for _ in range(rng.integers(0, 5)):  # crossing, turning and free traffic
        yaw = rng.uniform(-np.pi, np.pi) if rng.random() < 0.5 else rng.choice([-1, 1]) * np.pi / 2
        x, y = rng.uniform(-45, 45, 2)
        builder.moving_vehicle(x, y, yaw, speed=rng.uniform(1, 15), curvature=rng.normal(0, 0.05))
    for _ in range(rng.integers(2, 14)):
        yaw = rng.uniform(-np.pi, np.pi)
        speed = 0.0 if rng.random() < 0.3 else rng.uniform(0.6, 2.2)
        builder.add(_walker(rng), rng.uniform(-35, 35), rng.uniform(-20, 20), yaw, speed, "PEDESTRIAN")
    for _ in range(rng.integers(0, 6)):
        x, y, yaw = rng.uniform(-40, 40), rng.uniform(-15, 15), rng.uniform(-np.pi, np.pi)
        builder.add(_cyclist(rng), x, y, yaw, rng.uniform(2, 8), "BICYCLIST")

    for side in (-1, 1):
        kerb = 2 * lane + rng.uniform(-1, 2)
        for x in np.arange(-60, 60, 6.5):
            if rng.random() < 0.75 * density:
                builder.add(_car(rng), x, side * kerb + rng.normal(0, 0.2), 0.0, 0.0, "REGULAR_VEHICLE")
        builder.roadside(side, kerb + 2.0)
    return Scene(
        tuple(builder.actors),
        ego,
        slope_x=rng.normal(0, 0.008),
        slope_y=rng.normal(0, 0.008),
        ground_z=-0.33 + rng.normal(0, 0.12),
    )


class _Builder:
    """Adds actors that never run into one another or the ego; fixed things may touch, as in a street."""

    def __init__(self, rng: np.random.Generator, ego: ArcMotion) -> None:
        self.rng, self.actors = rng, []
        self._times = np.arange(0.0, HORIZON_S, 0.1)
        self._centres, self._radii = self._discs((Solid(0, 1, 4.8, 1.9),), ego)
        self._moves = np.ones(len(self._radii), dtype=bool)

    def add(self, solids, x, y, yaw, speed, category=None, acceleration=0.0, curvature=0.0) -> None:
        solids, motion = tuple(solids), ArcMotion(x, y, yaw, speed, acceleration, curvature)
        centres, radii = self._discs(solids, motion)
        fixed = speed == 0 and category is None
        rivals = self._moves if fixed else np.ones_like(self._moves)
        gap = np.linalg.norm(self._centres[rivals][:, None] - centres[None], axis=-1).min(axis=-1)
        if (gap > self._radii[rivals][:, None] + radii + 0.3).all():
            self.actors.append(Actor(solids, motion, category, reflectance=self.rng.uniform(0.1, 0.9)))
            self._centres = np.concatenate([self._centres, centres])
            self._radii = np.concatenate([self._radii, radii])
            self._moves = np.concatenate([self._moves, np.full(len(radii), not fixed)])

    def _discs(self, solids: tuple[Solid, ...], motion: ArcMotion) -> tuple[np.ndarray, np.ndarray]:
        """Discs that cover the actor: centres (D,T,2) over time and radii (D,)."""
        x, y, yaw = motion.at(self._times)
        centres, radii = [], []
        for solid in solids:
            length, width = max(solid.length, 2 * solid.radius), max(solid.width, 2 * solid.radius)
            count = int(np.clip(np.ceil(length / max(width, 1e-3)), 1, 12))
            for along in (np.arange(count) + 0.5) / count * length - length / 2 + solid.x:
                centres.append(np.stack([x + along * np.cos(yaw), y + along * np.sin(yaw)], axis=-1))
                radii.append(max(width, length / count) / 2)
        return np.array(centres), np.array(radii)

    def moving_vehicle(self, x, y, yaw, speed, curvature=0.0) -> None:
        rng = self.rng
        kind = rng.choice(4, p=[0.76, 0.09, 0.05, 0.1])
        solids, category = [
            (_car(rng), "REGULAR_VEHICLE"),
            (_truck(rng), "TRUCK"),
            (_bus(rng), "BUS"),
            (_cyclist(rng), "MOTORCYCLIST"),
        ][kind]
        self.add(solids, x, y, yaw, speed, category, rng.uniform(-2, 2), curvature)

    def roadside(self, side: int, start: float) -> None:
        """Houses, trees, poles, bushes, fences and what stands about, on one side of the street."""
        rng = self.rng
        x, front = -70.0, start + rng.uniform(3, 14)
        while x < 70:
            length, depth = rng.uniform(6, 28), rng.uniform(6, 15)
            if rng.random() < 0.85:
                yaw = rng.normal(0, 0.05)
                house = Solid(0, rng.uniform(3, 14), length, depth)
                self._fixed([house], x + length / 2, side * (front + depth / 2 + rng.uniform(0, 3)), yaw)
            x += length + rng.uniform(0, 8)
        for _ in range(rng.integers(5, 20)):
            x, y = rng.uniform(-55, 55), side * rng.uniform(start, start + 18)
            height = rng.uniform(3.5, 9)
            trunk = Solid(0, height, radius=rng.uniform(0.08, 0.3))
            crown = Solid(0.45 * height, height, radius=rng.uniform(0.8, 2.8), roughness=0.35)
            self._fixed([trunk, crown], x, y)
        for _ in range(rng.integers(4, 16)):
            x, y = rng.uniform(-55, 55), side * rng.uniform(start - 1, start + 8)
            self._fixed([Solid(0, rng.uniform(0.8, 8), radius=rng.uniform(0.04, 0.2))], x, y)
        for _ in range(rng.integers(3, 16)):
            x, y, yaw = rng.uniform(-50, 50), side * rng.uniform(start, start + 16), rng.uniform(-3, 3)
            bush = Solid(0, rng.uniform(0.3, 2.2), *rng.uniform(0.5, 6, 2), roughness=rng.uniform(0.03, 0.2))
            self._fixed([bush], x, y, yaw)
        for _ in range(rng.integers(0, 6)):
            x, y, yaw = rng.uniform(-50, 50), side * rng.uniform(start, start + 12), rng.choice([0, np.pi / 2])
            self._fixed([Solid(0, rng.uniform(0.5, 2.5), rng.uniform(3, 20), 0.1)], x, y, yaw)
        for _ in range(rng.integers(3, 18)):
            x, y, yaw = rng.uniform(-50, 50), side * rng.uniform(start - 1.5, start + 14), rng.uniform(-3, 3)
            self._fixed([Solid(0, rng.uniform(0.2, 2.5), *rng.uniform(0.3, 3, 2))], x, y, yaw)

    def _fixed(self, solids, x, y, yaw=0.0) -> None:
        self.add(solids, x, y, yaw, speed=0.0)


def _car(rng: np.random.Generator) -> list[Solid]:
    length, width, height = rng.uniform(3.6, 5.2), rng.uniform(1.65, 2.05), rng.uniform(1.35, 2.0)
    waist = 0.55 * height
    body = Solid(rng.uniform(0.1, 0.3), waist, length, width)
    cabin = Solid(waist, height, rng.uniform(0.45, 0.75) * length, 0.9 * width, x=-rng.uniform(0.0, 0.1) * length)
    return [body, cabin]


def _truck(rng: np.random.Generator) -> list[Solid]:
    length, width, height = rng.uniform(6, 13), rng.uniform(2.2, 2.6), rng.uniform(2.6, 3.8)
    load = Solid(rng.uniform(0.5, 1.0), height, 0.72 * length, width, x=-0.14 * length)
    cab = Solid(0.3, rng.uniform(0.75, 1.0) * height, 0.22 * length, 0.95 * width, x=0.38 * length)
    return [load, cab]


def _bus(rng: np.random.Generator) -> list[Solid]:
    return [Solid(0.25, rng.uniform(2.8, 3.3), rng.uniform(8, 12.5), rng.uniform(2.3, 2.6))]


def _cyclist(rng: np.random.Generator) -> list[Solid]:
    wheels = Solid(0.0, 1.0, rng.uniform(1.5, 1.9), 0.12)
    rider = Solid(0.6, rng.uniform(1.5, 1.85), 0.5, 0.45, roughness=0.03)
    return [wheels, rider]


def _walker(rng: np.random.Generator) -> list[Solid]:
    height = rng.uniform(1.1, 1.95)
    legs = Solid(0.0, 0.5 * height, radius=rng.uniform(0.12, 0.2), roughness=0.04)
    body = Solid(0.5 * height, height, radius=rng.uniform(0.18, 0.32), roughness=0.03)
    return [legs, body]
