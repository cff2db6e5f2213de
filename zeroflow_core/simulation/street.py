"""A street in a city: traffic both ways, parked rows, sidewalks with people, side streets, houses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zeroflow_core.simulation import surroundings
from zeroflow_core.simulation.crowds import Stream, ego_driver, fill, linger, park_row, set_off, walk
from zeroflow_core.simulation.layout import corners, crossing, lane, relief, strip
from zeroflow_core.simulation.paths import Course, Path, turn
from zeroflow_core.simulation.roadside import stop_sign
from zeroflow_core.simulation.scene import RoadMap, Scene
from zeroflow_core.simulation.stage import Stage
from zeroflow_core.simulation.surroundings import Verge
from zeroflow_core.simulation.terrain import Terrain
from zeroflow_core.simulation.tracks import knot_times

REACH = 115.0  # metres of street ahead of and behind the ego
ASIDE = 75.0  # metres of world to either side
SIDE_REACH = 90.0  # metres of side streets


@dataclass(frozen=True)
class Plan:
    """Measures of a street, metres.

    begin, end: of what is there to see, as s of the course; traffic comes and goes `beyond` metres further
    lanes:   in each direction; lane: width of one
    bicycles: width of the strip for them, parking: of the one to park in, sidewalk: beyond the kerb
    """

    course: Course
    begin: float
    end: float
    beyond: float
    lanes: int
    lane: float
    bicycles: float
    parking: float
    sidewalk: float

    @property
    def half_width(self) -> float:
        return self.lanes * self.lane + self.bicycles + self.parking

    def path(self, direction: int, across: float) -> Path:
        """Along the street, `across` metres to the right of its middle; direction: 1 with rising s, -1 against."""
        ends = (self.begin - self.beyond, self.end + self.beyond)
        return self.course.path(*ends[::direction], -direction * across)

    def lane_path(self, direction: int, k: int) -> Path:
        """Along lane k, the inner one being 0."""
        return self.path(direction, (k + 0.5) * self.lane)


@dataclass(frozen=True)
class SideStreet:
    """A narrow street that crosses the main one at its `s`; course: begins in the main one's middle."""

    course: Course
    s: float
    half_width: float

    def leave(self, way: int) -> Path:
        """Away from the main street; way: 1 to its left, -1 to its right."""
        return self.course.path(-20 * way, SIDE_REACH * way, -way * self.half_width / 2)

    def arrive(self, way: int) -> Path:
        """Towards the main street and across it; way: 1 if it comes from the right."""
        return self.course.path(-SIDE_REACH * way, SIDE_REACH * way, -way * self.half_width / 2)


@dataclass(frozen=True)
class Zebra:
    """A pedestrian crossing at s, and the times from when until when it is taken."""

    s: float
    taken: tuple[tuple[float, float], ...]


def make_street(seed: int, seconds: float, density: float) -> Scene:
    """See scenes.make_scene."""
    rng = np.random.default_rng([seed, 1])
    times = knot_times(seconds)
    stands = rng.random() < 0.2
    speed = 0.0 if stands else float(rng.uniform(3.0, 15.0))
    plan = _plan(rng, seconds, speed)
    sides, zebra, radius = _side_streets(rng, plan), _zebra(rng, seconds), float(rng.uniform(4, 8))
    roads = (plan.course.road(plan.half_width), *(side.course.road(side.half_width) for side in sides))
    terrain = Terrain(roads=roads, kerb=float(rng.uniform(0.10, 0.16)), corner_radius=radius, **relief(rng))
    outline = plan.course.at(np.linspace(plan.begin, plan.end, 60)[:, None], np.array([-ASIDE, ASIDE]))
    stage = Stage(times, terrain, outline.min(axis=(0, 1)) - 5, outline.max(axis=(0, 1)) + 5)

    set_off(stage, *_traffic(rng, times, plan, sides, zebra, speed, density))
    _park(stage, rng, plan, sides, zebra)
    _people(stage, rng, plan, zebra, density)
    _surround(stage, rng, plan, sides)
    return stage.scene("street", _map(plan, sides, zebra, radius))


def _traffic(rng, times: np.ndarray, plan: Plan, sides: list[SideStreet], zebra: Zebra | None, speed, density) -> tuple:
    """The ego's driver, and all others with what they drive; the ego would like to go at `speed` m/s."""
    ego_lane, rides = int(rng.integers(plan.lanes)), []
    path = plan.lane_path(1, ego_lane)
    ego = ego_driver(rng, times, path, plan.beyond - plan.begin, speed, 2.5, _halts(plan, path, zebra))
    for direction in (1, -1):
        for k in range(plan.lanes):
            path, mine = plan.lane_path(direction, k), direction == 1 and k == ego_lane
            flow = Stream(
                path,
                0.0,
                path.length,
                max(speed, 3.0) if mine else float(rng.uniform(5, 13.5)),
                float(rng.uniform(35, 110)) / density if density else np.inf,
                restless=float(rng.uniform(1, 6)),
                turns=_turns(plan, sides, direction, k),
                stops=_halts(plan, path, zebra),
            )
            rides += fill(rng, times, flow, ego if mine else None)
        if plan.bicycles:
            path = plan.path(direction, plan.lanes * plan.lane + plan.bicycles / 2)
            spacing = 50 / density if density else np.inf
            rides += fill(rng, times, Stream(path, 0.0, path.length, 6.0, spacing, "bicycles"))
    return ego, rides + _from_sides(rng, times, plan, sides, density)


def _zebra(rng: np.random.Generator, seconds: float) -> Zebra | None:
    if rng.random() < 0.4:
        return None
    s, begin, taken = float(rng.uniform(12, 60)), rng.uniform(-6, 8), []
    while begin < seconds:
        taken.append((float(begin), float(begin + rng.uniform(7, 12))))
        begin = taken[-1][1] + rng.uniform(4, 12)
    return Zebra(s, tuple(taken))


def _plan(rng: np.random.Generator, seconds: float, speed: float) -> Plan:
    begin, end = -REACH, REACH + speed * (seconds + 1)
    bend = 0.0 if rng.random() < 0.4 else float(rng.uniform(-1, 1)) * min(1 / 120, 2.6 / (end - begin))
    start, heading = rng.uniform(-150, 150, 2), float(rng.uniform(-np.pi, np.pi))
    return Plan(
        Course((float(start[0]), float(start[1])), heading, bend),
        begin,
        end,
        beyond=15.0 * seconds,
        lanes=1 if rng.random() < 0.6 else 2,
        lane=float(rng.uniform(3.0, 3.6)),
        bicycles=float(rng.uniform(1.5, 2.0)) if rng.random() < 0.5 else 0.0,
        parking=float(rng.uniform(2.1, 2.5)) if rng.random() < 0.85 else 0.4,
        sidewalk=float(rng.uniform(1.8, 4.8)),
    )


def _side_streets(rng: np.random.Generator, plan: Plan) -> list[SideStreet]:
    """About every 100 m, none where the ego starts."""
    sides, s = [], plan.begin + rng.uniform(10, 90)
    while s < plan.end - 20:
        if not -15 < s < 12:
            angle = np.pi / 2 + rng.normal(0, 0.08) * (plan.course.curvature == 0)
            half_width = float(rng.uniform(2.9, 4.6))
            sides.append(SideStreet(plan.course.crossing(s, float(angle)), float(s), half_width))
        s += rng.uniform(65, 160)
    return sides


def _turns(plan: Plan, sides: list[SideStreet], direction: int, lane: int) -> tuple[tuple[float, Path], ...]:
    """Ways out of a lane into the side streets: right from the outer one, left from the inner one."""
    path, turns = plan.lane_path(direction, lane), []
    for side in sides:
        where = path.nearest(plan.course.at(side.s))
        if lane == plan.lanes - 1:
            turns.append((where - 15, turn(path, side.leave(-direction), 6.5)))
        if lane == 0:
            turns.append((where - 15, turn(path, side.leave(direction), 10.0)))
    return tuple(sorted(turns, key=lambda way: way[0]))


def _halts(plan: Plan, path: Path, zebra: Zebra | None) -> tuple[tuple[float, float, float], ...]:
    """Lines before the zebra crossing on a path along the street, while people cross."""
    if zebra is None:
        return ()
    return tuple((path.nearest(plan.course.at(zebra.s)) - 3.2, begin, end) for begin, end in zebra.taken)


def _from_sides(rng, times: np.ndarray, plan: Plan, sides: list[SideStreet], density: float) -> list:
    """Traffic out of the side streets: it waits at the line, then crosses or turns right."""
    rides = []
    for side in sides:
        for way in (1, -1):
            straight = side.arrive(way)
            onto = plan.lane_path(way, plan.lanes - 1)
            line = SIDE_REACH - plan.half_width - 1.0
            go = float(rng.uniform(times[0] - 4, times[-1] + 6))
            flow = Stream(
                straight if rng.random() < 0.35 else turn(straight, onto, 6.5),
                5.0,
                line,
                float(rng.uniform(4, 10)),
                float(rng.uniform(40, 120)) / density if density else np.inf,
                stops=((line, times[0] - 1, go),),
            )
            rides += fill(rng, times, flow)
    return rides


def _park(stage: Stage, rng: np.random.Generator, plan: Plan, sides: list[SideStreet], zebra: Zebra | None) -> None:
    keep_clear = [(side.s, side.half_width + 7) for side in sides] + ([(zebra.s, 5.0)] if zebra else [])
    if plan.parking > 1:
        for way in (1, -1):
            d = way * (plan.half_width - plan.parking / 2 + 0.1)
            park_row(stage, rng, plan.course, plan.begin, plan.end, d, rng.uniform(0.3, 0.95), keep_clear)
    for side in sides:
        if side.half_width > 4.1:
            begin = plan.half_width + 9
            for way in (1, -1):  # on one side of it there is room
                near, far = sorted((way * begin, way * 70))
                park_row(stage, rng, side.course, near, far, side.half_width - 1.0, rng.uniform(0.3, 0.9))


def _people(stage: Stage, rng: np.random.Generator, plan: Plan, zebra: Zebra | None, density: float) -> None:
    """Walkers on the sidewalks and over the road, and those who stand about."""
    length, ways = plan.end - plan.begin, []
    seconds = stage.times[-1]
    for side in (1, -1):
        for _ in range(rng.poisson(length / 100 * 3.5 * density)):
            d = side * (plan.half_width + rng.uniform(1.3, max(plan.sidewalk - 0.5, 1.5)))
            direction = rng.choice([-1, 1])
            path = plan.course.path(*(plan.begin, plan.end)[::direction], d)
            ways.append((path, rng.uniform(0, path.length)))
    for begin, end in zebra.taken if zebra else ():
        for _ in range(rng.poisson(2.5 * density)):
            at = zebra.s + rng.uniform(-1.5, 1.5)
            ways.append(_over(rng, plan, at, rng.uniform(begin + 2.5, max(end - 4, begin + 3))))
    for _ in range(rng.poisson(1.5 * density)):  # and where there is none
        ways.append(_over(rng, plan, rng.uniform(-40, plan.end - 60), rng.uniform(-4, seconds)))
    walk(stage, rng, ways)
    for _ in range(rng.poisson(length / 100 * 1.2 * density)):
        d = rng.choice([-1, 1]) * (plan.half_width + rng.uniform(0.8, max(plan.sidewalk - 0.4, 1.0)))
        linger(stage, rng, plan.course.at(rng.uniform(plan.begin, plan.end), d))


def _over(rng: np.random.Generator, plan: Plan, s: float, when: float) -> tuple[Path, float]:
    """A way across the street at s, off the kerb about `when`, and where on it to be at time 0."""
    side, ahead, before = rng.choice([-1, 1]), rng.choice([-1, 1]), rng.choice([-1, 1])
    d = side * (plan.half_width + min(1.6, plan.sidewalk - 0.4))
    way = [(s - before * 25, d), (s, d), (s, -d), (s + ahead * 25, -d)]
    legs = zip(way, way[1:], strict=False)
    points = np.concatenate([np.linspace(a, b, int(np.hypot(*np.subtract(a, b)) / 0.25) + 1)[:-1] for a, b in legs])
    path = Path.through(plan.course.at(*points.T), ease=2.5)
    return path, path.nearest(plan.course.at(s, side * plan.half_width)) - 1.3 * when


def _surround(stage: Stage, rng: np.random.Generator, plan: Plan, sides: list[SideStreet]) -> None:
    setback = float(rng.uniform(0, 3) if rng.random() < 0.55 else rng.uniform(3, 9))
    for way in (1, -1):
        verge = Verge(plan.course, plan.begin, plan.end, way, plan.half_width, plan.sidewalk, setback)
        for side in sides:  # what belongs to the corners comes first
            facing = float(side.course.heading) + np.pi * (way < 0)
            back = plan.half_width + stage.terrain.corner_radius
            corner = side.course.at(way * back, way * (side.half_width + 0.7))
            stage.place(stop_sign(rng), corner, facing)
        surroundings.roadsides(stage, rng, verge)
        for side in sides:
            begin = plan.half_width + plan.sidewalk + max(setback, 3.0)
            for beside in (1, -1):
                near, far = sorted((way * begin, way * (ASIDE - 4)))
                surroundings.roadsides(
                    stage, rng, Verge(side.course, near, far, beside, side.half_width, 1.8, rng.uniform(1, 5))
                )


def _map(plan: Plan, sides: list[SideStreet], zebra: Zebra | None, radius: float) -> RoadMap:
    drivable = [strip(plan.course, plan.begin, plan.end, -plan.half_width, plan.half_width)]
    paths = [
        lane(plan.course, *(plan.begin, plan.end)[::way], -way * (k + 0.5) * plan.lane, plan.lane)
        for way in (1, -1)
        for k in range(plan.lanes)
    ]
    for side in sides:
        drivable.append(strip(side.course, -SIDE_REACH, SIDE_REACH, -side.half_width, side.half_width))
        drivable += corners(plan.course, plan.half_width, side.course, side.half_width, radius)
        for way in (1, -1):
            for begin, end in ((-SIDE_REACH, -plan.half_width), (plan.half_width, SIDE_REACH)):
                d = -way * side.half_width / 2
                paths.append(lane(side.course, *(begin, end)[::way], d, side.half_width))
    walks = (crossing(plan.course, zebra.s, plan.half_width),) if zebra else ()
    return RoadMap(tuple(drivable), tuple(paths), walks)
