"""Traffic in lanes, people on sidewalks, rows of parked cars: many at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zeroflow_core.simulation import poses
from zeroflow_core.simulation.cast import Rig, on_foot, vehicle
from zeroflow_core.simulation.paths import Course, Path
from zeroflow_core.simulation.people import bystander
from zeroflow_core.simulation.scene import EGO_SIZE
from zeroflow_core.simulation.stage import Part, Stage
from zeroflow_core.simulation.traffic import HEADWAY, STANDING, Driver, drive, moods

NEAR = 210.0  # metres; who never comes that near the ego is left out
Ride = tuple[Rig, Driver]


@dataclass(frozen=True)
class Stream:
    """A lane to be filled with traffic.

    path:     of those who stay in it
    begin, end: arc lengths between which vehicles start, metres
    speed:    usual, m/s
    spacing:  between vehicles, on average, metres; inf for none
    kinds:    of vehicles, see cast.vehicle
    restless: how often someone brakes, times a minute
    turns:    (rising arc length, path) where paths leave it; who starts before may take one of the next two
    turning:  share of those who do
    stops:    (arc length, from time, until time) of lines to halt at
    """

    path: Path
    begin: float
    end: float
    speed: float
    spacing: float
    kinds: str = "city"
    restless: float = 2.0
    turns: tuple[tuple[float, Path], ...] = ()
    turning: float = 0.2
    stops: tuple[tuple[float, float, float], ...] = ()


def ego_driver(
    rng: np.random.Generator, times: np.ndarray, path: Path, start: float, speed: float, restless: float, stops=()
) -> Driver:
    """Who drives the scanner about; at 0 m/s it stands all the time."""
    half = EGO_SIZE[0] / 2
    return Driver(path, start, speed, moods(rng, times, speed, restless), half, half, None, tuple(stops))


def fill(rng: np.random.Generator, times: np.ndarray, lane: Stream, ego: Driver | None = None) -> list[Ride]:
    """Vehicles one behind the other in a lane, each with its driver, the foremost first; `ego` is in it too."""
    rides: list[Ride] = []
    leader, waiting = None, ego
    s = lane.end - rng.exponential(min(lane.spacing, 1e6)) * 0.5
    while s > lane.begin and np.isfinite(lane.spacing):
        rig = vehicle(rng, lane.kinds)
        speed = min(lane.speed * rng.uniform(0.85, 1.15), rig.fastest)
        if waiting is not None and s - rig.rear < waiting.start + waiting.front + STANDING + waiting.speed * HEADWAY:
            waiting.leader, leader, waiting = leader, waiting, None
            if leader.leader is not None:
                leader.speed = _calm(leader.speed, leader.leader, leader.start + leader.front)
        if leader is not None:
            s = min(s, leader.start - leader.rear - rig.front - STANDING - rng.uniform(0.3, 1.3) * speed * HEADWAY)
        turns = [path for where, path in lane.turns if where > s + 20][:2]
        path = turns[rng.integers(len(turns))] if turns and rng.random() < lane.turning else lane.path
        wish = moods(rng, times, speed, lane.restless)
        speed = speed if leader is None else _calm(speed, leader, s + rig.front)
        for line, begin, _ in lane.stops:
            if begin <= times[0] and line > s + rig.front:
                speed = min(speed, np.sqrt(2 * 1.5 * (line - s - rig.front)))
        driver = Driver(path, s, speed, wish, rig.front, rig.rear, leader, lane.stops, rig.lively)
        rides.append((rig, driver))
        leader = driver
        s -= rig.rear + STANDING + speed * HEADWAY + rng.exponential(lane.spacing)
    if waiting is not None:
        waiting.leader = leader
        waiting.speed = waiting.speed if leader is None else _calm(waiting.speed, leader, waiting.start + waiting.front)
    return [(rig, driver) for rig, driver in rides if driver.start > lane.begin]


def _calm(speed: float, leader: Driver, front: float) -> float:
    """The speed from which one behind `leader` with its front at arc length `front` can well brake, m/s."""
    gap = max(leader.start - leader.rear - front - STANDING, 0.0)
    return float(min(speed, np.sqrt(leader.speed**2 + 2 * 1.2 * gap)))


def set_off(stage: Stage, ego: Driver, rides: list[Ride]) -> None:
    """Drive everybody; the ego enters the stage first, then who comes near it and has room, one after the other."""
    travelled = drive([ego, *(driver for _, driver in rides)], stage.times)
    stage.enter_ego(poses.ego(stage.terrain, ego.path, travelled[0], EGO_SIZE))
    looks = slice(None, None, 10)
    there = ego.path.at(travelled[0, looks])
    for (rig, driver), s in zip(rides, travelled[1:], strict=True):
        if np.linalg.norm(driver.path.at(s[looks]) - there, axis=1).min() < NEAR:
            stage.enter(*rig.parts(stage.terrain, driver.path, s))


def park_row(
    stage: Stage,
    rng: np.random.Generator,
    course: Course,
    begin: float,
    end: float,
    d: float,
    share: float,
    keep_clear=(),
) -> None:
    """Parked vehicles along a road from s = begin to end, `d` metres to the left of its middle, wheels to the kerb.

    share:      of the places that are taken
    keep_clear: (s, metres to either side) where nobody parks: side streets, crossings
    """
    s = begin + rng.uniform(0, 4)
    while s < end:
        rig = vehicle(rng, "parked")
        length = rig.front + rig.rear
        if rng.random() < share:
            against = (d > 0) != (rng.random() < 0.06)  # a few stand the wrong way round
            yaw = float(course.yaw(s + length / 2)) + np.pi * against + rng.normal(0, 0.012)
            middle = course.at(s + length / 2, d + rng.normal(0, 0.1))
            if all(abs(s + length / 2 - where) > gap + length / 2 for where, gap in keep_clear):
                stage.park(rig.models[0], middle, yaw)
        s += length + rng.uniform(0.5, 1.6)


def walk(stage: Stage, rng: np.random.Generator, ways: list[tuple[Path, float]]) -> None:
    """People, now and then two together, on paths and from arc lengths there; who would bump into something stays out.

    ways: the same path may come as often as there are people on it
    """
    people = []
    for path, start in ways:
        speed = float(np.clip(rng.normal(1.35, 0.3), 0.6, 2.2))
        wish = moods(rng, stage.times, speed, 1.0)
        for beside in (-0.4, 0.4) if rng.random() < 0.3 else (rng.normal(0, 0.1),):
            way = path.beside(float(beside))
            people.append((on_foot(rng), Driver(way, start + rng.normal(0, 0.05), speed, wish, 0.3, 0.3)))
    for (rig, driver), s in zip(people, drive([driver for _, driver in people], stage.times), strict=True):
        track = poses.ride(stage.terrain, driver.path, s, (0.5, 0.0, 0.0))
        track.turn[:, :2] = 0.0
        stage.enter(*(Part(model, track, s) for model in rig.models), margin=0.05)


def linger(stage: Stage, rng: np.random.Generator, xy: np.ndarray) -> None:
    """One to four people who stand at `xy` (2,), facing each other."""
    count = rng.choice(4, p=[0.5, 0.3, 0.15, 0.05]) + 1
    around, radius = rng.uniform(0, 2 * np.pi), (0.0, 0.5, 0.55, 0.65)[count - 1]
    for angle in around + 2 * np.pi / count * np.arange(count):
        where = xy + radius * np.array([np.cos(angle), np.sin(angle)])
        stage.park(bystander(rng), where, angle + np.pi + rng.normal(0, 0.2), margin=0.0)
