"""A highway: several lanes each way, fast or jammed, rails, gantries, banks, trees and noise walls."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from zeroflow_core.simulation import layout, roadside
from zeroflow_core.simulation.crowds import Ride, Stream, ego_driver, fill, set_off
from zeroflow_core.simulation.paths import Course, Path, shift
from zeroflow_core.simulation.scene import RoadMap, Scene
from zeroflow_core.simulation.solids import Material
from zeroflow_core.simulation.stage import Stage
from zeroflow_core.simulation.surroundings import Verge, plant, seldom_annotated
from zeroflow_core.simulation.terrain import Terrain
from zeroflow_core.simulation.tracks import knot_times
from zeroflow_core.simulation.traffic import Driver
from zeroflow_core.simulation.vehicles import block

REACH = 125.0  # metres of highway ahead of and behind the ego
ASIDE = 80.0  # metres of world to either side
PIECE = 12.0  # metres of rail in one piece


@dataclass(frozen=True)
class Plan:
    """Measures of a highway, metres.

    begin, end: of what is there to see, as s of the course; traffic comes and goes `beyond` metres further
    median:     from the middle to the innermost lane; lanes: each way; lane: width of one; shoulder: beyond the lanes
    """

    course: Course
    begin: float
    end: float
    beyond: float
    median: float
    lanes: int
    lane: float
    shoulder: float

    @property
    def half_width(self) -> float:
        return self.median + self.lanes * self.lane + self.shoulder

    def across(self, k: float) -> float:
        """From the road's middle to that of lane k, the inner one being 0."""
        return self.median + (k + 0.5) * self.lane

    def path(self, direction: int, k: int) -> Path:
        """Along lane k; direction: 1 with rising s, -1 against."""
        ends = (self.begin - self.beyond, self.end + self.beyond)
        return self.course.path(*ends[::direction], -direction * self.across(k))

    def change(self, direction: int, k: int, to: int, over: float, length: float) -> Path:
        """Along lane k and, after `over` metres of path, within `length` metres into lane `to`."""
        begin, end = (self.begin - self.beyond, self.end + self.beyond)[::direction]
        d = shift(-direction * self.across(k), -direction * self.across(to), over, length)
        return self.course.path(begin, end, lambda s: d((s - begin) * direction))


def make_highway(seed: int, seconds: float, density: float) -> Scene:
    """See scenes.make_scene."""
    rng = np.random.default_rng([seed, 3])
    times = knot_times(seconds)
    jam = rng.random() < 0.15
    speed = float(rng.uniform(1.5, 9) if jam else rng.uniform(18, 30))
    plan = _plan(rng, seconds, speed)
    height = 0.0 if rng.random() < 0.3 else float(rng.uniform(-1.5, 4.5))
    terrain = Terrain(
        roads=(plan.course.road(plan.half_width),),
        bank=(height, 2.0, max(8.0, 2.5 * abs(height)) + float(rng.uniform(0, 6))),
        **layout.relief(rng),
    )
    outline = plan.course.at(np.linspace(plan.begin, plan.end, 60)[:, None], np.array([-ASIDE, ASIDE]))
    stage = Stage(times, terrain, outline.min(axis=(0, 1)) - 5, outline.max(axis=(0, 1)) + 5)
    set_off(stage, *_traffic(rng, times, plan, speed, density))
    _surround(stage, rng, plan)
    return stage.scene("highway", _map(plan))


def _plan(rng: np.random.Generator, seconds: float, speed: float) -> Plan:
    start, heading = rng.uniform(-100, 100, 2), float(rng.uniform(-np.pi, np.pi))
    bend = 0.0 if rng.random() < 0.3 else float(rng.uniform(-1, 1)) / 600
    return Plan(
        Course((float(start[0]), float(start[1])), heading, bend),
        -REACH,
        REACH + speed * (seconds + 1),
        beyond=30.0 * seconds + 50.0,
        median=float(rng.uniform(1.6, 4.5)),
        lanes=2 if rng.random() < 0.5 else 3,
        lane=float(rng.uniform(3.5, 3.75)),
        shoulder=float(rng.uniform(2.0, 3.2)),
    )


def _traffic(rng, times: np.ndarray, plan: Plan, speed: float, density: float) -> tuple[Driver, list[Ride]]:
    """The ego's driver, who likes to go at `speed` m/s, and all others with what they drive."""
    mine, rides = int(rng.integers(plan.lanes)), []
    begin = plan.beyond - plan.begin
    path = plan.path(1, mine)
    if rng.random() < 0.25:
        to = mine + 1 if mine == 0 else mine - 1
        over = begin + speed * rng.uniform(0, max(times[-1] - 4, 1))
        path = plan.change(1, mine, to, float(over), float(max(speed, 6) * rng.uniform(3.5, 5.5)))
    ego = ego_driver(rng, times, path, begin, speed, 2.0)
    against = float(rng.uniform(2, 9) if rng.random() < 0.12 else rng.uniform(21, 29))
    for direction, usual in ((1, speed), (-1, against)):
        for k in range(plan.lanes):
            with_ego = direction == 1 and k == mine
            slow = usual < 12
            here = usual if with_ego else usual + (-1.0 if slow else -2.5) * (k - mine) + rng.normal(0, 1)
            here = float(np.clip(here, 1.5, 30.0) if slow else np.clip(here, 17.5, 30.0))
            usual_gap = rng.uniform(3, 9) if slow else rng.uniform(20, 70)
            straight = plan.path(direction, k)
            flow = Stream(
                straight,
                0.0,
                straight.length,
                here,
                float(usual_gap) / density if density else np.inf,
                kinds="slow lane" if k == plan.lanes - 1 else "highway",
                restless=8.0 if slow else 3.0,
                turns=_changes(rng, plan, direction, k, here) if density else (),
                stops=(),
            )
            rides += fill(rng, times, flow, ego if with_ego else None)
    return ego, rides


def _changes(rng, plan: Plan, direction: int, k: int, speed: float) -> tuple[tuple[float, Path], ...]:
    """Paths into the neighbouring lanes, one every 80 m."""
    changes = []
    for over in np.arange(60.0, plan.end - plan.begin + 2 * plan.beyond - 60, 80.0):
        to = k + rng.choice([-1, 1])
        if 0 <= to < plan.lanes:
            length = max(speed, 6) * rng.uniform(3.5, 5.5)
            changes.append((float(over), plan.change(direction, k, int(to), float(over), float(length))))
    return tuple(changes)


def _surround(stage: Stage, rng: np.random.Generator, plan: Plan) -> None:
    course = plan.course
    for s in np.arange(plan.begin + rng.uniform(20, 110), plan.end - 20, rng.uniform(120, 240)):
        across = roadside.bridge if rng.random() < 0.3 else roadside.gantry
        facing = float(course.yaw(s)) + np.pi * rng.integers(2)
        stage.place(across(rng, 2 * plan.half_width + 1.5), course.at(s), facing, clear=None)

    inner = max(plan.median - 1.2, 0.15)
    rows = [(0.0, None)] if plan.median < 2.2 else [(inner, None), (-inner, None)]
    rows += [(side * (plan.half_width + 0.5), 0.1) for side in (1, -1) if rng.random() < 0.85]
    for d, clear in rows:
        _rail(stage, rng, plan, d, clear)
    for side in (1, -1):
        _beside(stage, rng, Verge(course, plan.begin, plan.end, side, plan.half_width, 0.0, 8.0))


def _rail(stage: Stage, rng: np.random.Generator, plan: Plan, d: float, clear: float | None) -> None:
    state = rng.bit_generator.state
    for s in np.arange(plan.begin + PIECE / 2, plan.end, PIECE):
        rng.bit_generator.state = state  # all pieces are alike
        yaw = float(plan.course.yaw(s)) + np.pi * (d > 0)
        length = PIECE * (1 - plan.course.curvature * d) + 0.02
        stage.place(roadside.guard_rail(rng, length), plan.course.at(s, d), yaw, base=PIECE, clear=clear)


def _beside(stage: Stage, rng: np.random.Generator, verge: Verge) -> None:
    """Posts, signs, lamps, and behind them by turns noise walls, woods and open land with houses; trees far off."""
    for s in verge.along(rng, 50.0, 0.0):
        stage.place(_marker(), verge.at(s, 0.9), verge.yaw(s))
    for s in verge.along(rng, 60.0, 0.4):
        facing = float(verge.course.yaw(s)) + np.pi * (verge.side < 0)
        stage.place(seldom_annotated(rng, roadside.sign(rng)), verge.at(s, 1.6), facing)
    lamps = rng.random() < 0.3
    for s in verge.along(rng, 40.0, 0.02) if lamps else ():
        stage.place(roadside.lamp_post(rng), verge.at(s, 1.3), verge.yaw(s))
    s = verge.begin
    while s < verge.end:
        run = rng.uniform(40, 110)
        lined = (_noise_wall, _wood, _open_land)[rng.choice(3, p=[0.35, 0.5, 0.15])]
        lined(stage, rng, replace(verge, begin=s, end=min(s + run, verge.end)))
        s += run
    _plants(stage, rng, verge, 9.0, 20.0, 65.0, bushes=0.1)


def _noise_wall(stage: Stage, rng: np.random.Generator, verge: Verge) -> None:
    """With bushes before it, and trees that look over it."""
    beyond, height = rng.uniform(2.5, 6.0), rng.uniform(3.5, 6.5)
    material = Material(float(rng.uniform(0.2, 0.5)), 0.02)
    for s in np.arange(verge.begin, verge.end, 8.0):
        wall = (block((-4.05, 4.05), (-0.12, 0.12), (-1.0, height), material),)
        stage.place(wall, verge.at(s, beyond), verge.yaw(s), base=8.0)
    _plants(stage, rng, verge, 12.0, 1.5, beyond - 0.5, bushes=1.0)
    _plants(stage, rng, verge, 9.0, beyond + 3.0, beyond + 12.0, bushes=0.0)


def _wood(stage: Stage, rng: np.random.Generator, verge: Verge) -> None:
    """A thicket along its edge with trees behind, bushes before it."""
    beyond = rng.uniform(4.5, 10.0)
    for s in np.arange(verge.begin, verge.end, 7.5):
        if rng.random() < 0.95:
            stage.place(roadside.thicket(rng, 7.0), verge.at(s, beyond + rng.normal(0, 0.3)), verge.yaw(s), base=7.0)
    _plants(stage, rng, verge, 5.0, beyond + 3.0, beyond + 12.0, bushes=0.0)
    _plants(stage, rng, verge, 9.0, 1.5, beyond - 2.0, bushes=1.0)


def _open_land(stage: Stage, rng: np.random.Generator, verge: Verge) -> None:
    """A hedge, houses and halls, a tree here and there."""
    beyond = rng.uniform(3.0, 7.0)
    for s in verge.along(rng, rng.uniform(25, 50)):
        building = roadside.office_block(rng, rng.uniform(20, 45)) if rng.random() < 0.5 else roadside.house(rng)
        stage.place(building, verge.at(s, rng.uniform(11, 26)), verge.yaw(s) + rng.normal(0, 0.2), clear=8.0)
    for s in np.arange(verge.begin, verge.end, 6.0):
        if rng.random() < 0.8:
            stage.place(roadside.hedge(rng, 6.0), verge.at(s, beyond), verge.yaw(s), base=6.0)
    _plants(stage, rng, verge, 4.5, beyond + 1.5, 20.0, bushes=0.25)


def _plants(stage: Stage, rng: np.random.Generator, verge: Verge, gap: float, near: float, far: float, bushes: float):
    """One about every `gap` metres, between `near` and `far` metres beyond the edge. bushes: share of them"""
    for s in verge.along(rng, gap, 0.5):
        what = roadside.bush(rng) if rng.random() < bushes else plant(rng)
        stage.place(what, verge.at(s, rng.uniform(near, far)), rng.uniform(0, 2 * np.pi), clear=1.0)


def _marker() -> roadside.Solids:
    return (
        block((-0.05, 0.05), (-0.05, 0.05), (-roadside.SUNK, 0.85), Material(0.6)),
        block((-0.055, 0.055), (-0.055, 0.055), (0.7, 0.88), roadside.RETROREFLECTIVE),
    )


def _map(plan: Plan) -> RoadMap:
    ends, outer = (plan.begin, plan.end), plan.half_width
    inner = max(plan.median - 0.6, 0.3)
    drivable = (
        layout.strip(plan.course, *ends, -outer, -inner),
        layout.strip(plan.course, *ends, inner, outer),
    )
    lanes = tuple(
        layout.lane(plan.course, *ends[::way], -way * plan.across(k), plan.lane)
        for way in (1, -1)
        for k in range(plan.lanes)
    )
    return RoadMap(drivable, lanes)
