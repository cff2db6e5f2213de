"""A crossing of two roads with traffic lights: who waits, who crosses, who turns, people on the crossings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zeroflow_core.simulation import roadside
from zeroflow_core.simulation.crowds import Ride, Stream, ego_driver, fill, linger, park_row, set_off, walk
from zeroflow_core.simulation.layout import corners, crossing, lane, lane_along, relief, strip
from zeroflow_core.simulation.paths import Course, Path, turn
from zeroflow_core.simulation.scene import EGO_SIZE, RoadMap, Scene
from zeroflow_core.simulation.stage import Stage
from zeroflow_core.simulation.surroundings import Verge, roadsides
from zeroflow_core.simulation.terrain import Terrain
from zeroflow_core.simulation.tracks import knot_times
from zeroflow_core.simulation.traffic import Driver

REACH = 100.0  # metres of every road from the middle, more where the ego comes from and goes to
ASIDE = 60.0  # metres of world beside the roads
CLEARING = 2.5  # seconds in which nobody has green


@dataclass(frozen=True)
class Arm:
    """One of the four roads out of the junction; s counts from its middle outwards, incoming traffic has d > 0.

    length:    of what is there to see; outer: where the paths of incoming traffic begin, metres
    lanes:     each way; lane: width of one; parking: width of the strip to park in
    half_width, sidewalk: metres
    zebra:     s of the pedestrian crossing's middle; incoming traffic waits 3.5 m before it
    red:       (from, until) when incoming traffic has to wait, seconds
    """

    course: Course
    length: float
    outer: float
    lanes: int
    lane: float
    parking: float
    half_width: float
    sidewalk: float
    zebra: float
    red: tuple[tuple[float, float], ...]

    @property
    def line(self) -> float:
        """s of the stop line, metres."""
        return self.zebra + 3.5

    def leave(self, k: int) -> Path:
        """The way out in lane k, 0 being the inner one, from well before the middle."""
        return self.course.path(-25.0, self.length, -(k + 0.5) * self.lane)

    @property
    def halts(self) -> tuple[tuple[float, float, float], ...]:
        """The same as arc lengths of the incoming paths, for Driver.stops."""
        return tuple((self.outer - self.line, begin, end) for begin, end in self.red)


@dataclass(frozen=True)
class Ways:
    """The paths of an arm's lane through the junction, all from the arm's outer end."""

    straight: Path
    left: Path | None
    right: Path | None


def make_junction(seed: int, seconds: float, density: float) -> Scene:
    """See scenes.make_scene."""
    rng = np.random.default_rng([seed, 2])
    times = knot_times(seconds)
    speed, waits = float(rng.uniform(5.0, 14.0)), rng.random() < 0.25
    aim = ("straight", "left", "right")[rng.choice(3, p=[0.4, 0.3, 0.3])]
    start = 0.0 if waits else float(rng.uniform(0, 3.0 * speed))  # metres to the stop line
    arms, radius = _arms(rng, seconds, start, speed, aim, waits)
    roads = (arms[0].course.road(arms[0].half_width), arms[1].course.road(arms[1].half_width))
    terrain = Terrain(roads=roads, kerb=float(rng.uniform(0.10, 0.16)), corner_radius=radius, **relief(rng))
    outline = np.concatenate([arm.course.at(arm.length, np.array([-ASIDE, ASIDE])) for arm in arms])
    stage = Stage(times, terrain, outline.min(axis=0) - 5, outline.max(axis=0) + 5)

    set_off(stage, *_traffic(rng, times, arms, radius, start, 0.0 if waits else speed, speed, aim, density))
    for arm in arms:
        begin = arm.line + 10
        if arm.parking > 1 and begin < arm.length:
            for d in (-1, 1):
                at = d * (arm.half_width - arm.parking / 2 + 0.1)
                park_row(stage, rng, arm.course, begin, arm.length, at, rng.uniform(0.3, 0.95))
    _people(stage, rng, arms, radius, density)
    _surround(stage, rng, arms)
    return stage.scene("junction", _map(arms, radius))


def _arms(rng, seconds: float, start: float, speed: float, aim: str, waits: bool) -> tuple[list[Arm], float]:
    """The four arms, to the left one after the other, the ego's first; and the radius of the corners."""
    middle, heading = rng.uniform(-150, 150, 2), float(rng.uniform(-np.pi, np.pi))
    skew, radius = np.deg2rad(rng.uniform(70, 110)), float(rng.uniform(5, 9))
    reds = _signals(rng, seconds, waits)
    roads = []
    for _ in range(2):
        lanes, width = 1 if rng.random() < 0.45 else 2, float(rng.uniform(3.0, 3.6))
        parking = float(rng.uniform(2.1, 2.5)) if rng.random() < 0.6 else 0.5
        roads.append((lanes, width, parking, lanes * width + parking, float(rng.uniform(2.2, 4.8))))
    # clockwise arms are to the left of those who come in
    out = {"straight": 2, "left": 3, "right": 1}[aim]
    arms = []
    for k in range(4):
        mine, other = roads[k % 2][3], roads[(k + 1) % 2][3]
        zebra = (other + mine * abs(np.cos(skew))) / np.sin(skew) + 3.5
        length = REACH + (start if k == 0 else (seconds + 1) * speed if k == out else 0.0)
        course = Course((float(middle[0]), float(middle[1])), heading + np.pi * (k // 2) + skew * (k % 2))
        outer = length + 12.0 * seconds
        arms.append(Arm(course, length, outer, *roads[k % 2], float(zebra), reds[k % 2]))
    return arms, radius


def _signals(rng: np.random.Generator, seconds: float, waits: bool) -> list[tuple[tuple[float, float], ...]]:
    """When the ego's road and the other one have red."""
    green, now = 1 if waits else 0, -20.0
    change = rng.uniform(1, 14) if waits else rng.uniform(5, 16)
    reds: list[list[tuple[float, float]]] = [[], []]
    while now < seconds + 1:
        reds[1 - green].append((float(now), float(change + CLEARING)))
        now, green, change = float(change), 1 - green, change + rng.uniform(10, 20)
    return [tuple(red) for red in reds]


def _ways(arms: list[Arm], a: int, k: int, radius: float) -> Ways:
    """Through the junction from arm `a` in its lane k."""
    arm, ahead = arms[a], arms[(a + 2) % 4]
    straight = arm.course.path(arm.outer, -ahead.length, (k + 0.5) * arm.lane)
    left = right = None
    if k == 0:
        to = arms[(a + 3) % 4]
        left = turn(straight, to.leave(0), to.half_width + 1.0)
    if k == arm.lanes - 1:
        to = arms[(a + 1) % 4]
        right = turn(straight, to.leave(to.lanes - 1), radius + min(arm.parking, to.parking) + 1.2)
    return Ways(straight, left, right)


def _traffic(rng, times, arms: list[Arm], radius: float, start, speed, wish, aim, density) -> tuple[Driver, list[Ride]]:
    """The ego's driver, `start` metres before the line of the first arm, and all others with what they drive."""
    mine = {"left": 0, "right": arms[0].lanes - 1}.get(aim, int(rng.integers(arms[0].lanes)))
    path = getattr(_ways(arms, 0, mine, radius), aim)
    at = arms[0].outer - arms[0].line - start - EGO_SIZE[0] / 2
    ego = ego_driver(rng, times, path, at, wish, 1.0, arms[0].halts)
    ego.speed = speed
    rides = []
    for a, arm in enumerate(arms):
        for k in range(arm.lanes):
            ways = _ways(arms, a, k, radius)
            turns = tuple((arm.outer - arm.line, way) for way in (ways.left, ways.right) if way is not None)
            flow = Stream(
                ways.straight,
                0.0,
                ways.straight.length,
                float(rng.uniform(5, 13)),
                float(rng.uniform(25, 70)) / density if density else np.inf,
                restless=1.0,
                turns=turns,
                turning=0.5,
                stops=arm.halts,
            )
            rides += fill(rng, times, flow, ego if a == 0 and k == mine else None)
    # whoever comes later gives way to who is there, so nobody always should
    return ego, [rides[i] for i in rng.permutation(len(rides))]


def _people(stage: Stage, rng: np.random.Generator, arms: list[Arm], radius: float, density: float) -> None:
    """On the crossings while the cars wait, round the corners, and waiting at them."""
    ways: list[tuple[Path, float]] = []
    for a, arm in enumerate(arms):
        beyond = arm.half_width + min(1.7, arm.sidewalk - 0.4)
        for begin, end in arm.red:
            for _ in range(rng.poisson(2.0 * density)):
                when = rng.uniform(begin + 2.0, max(end - arm.half_width / 0.65 - 2, begin + 3))
                side, at = rng.choice([-1, 1]), arm.zebra + rng.uniform(-1.6, 1.6)
                path = arm.course.crossing(at, np.pi / 2).path(-side * beyond - side * 3.0, side * (beyond + 12.0))
                ways.append((path, beyond + 3.0 - arm.half_width - 1.3 * when))
        neighbour = arms[(a + 1) % 4]
        for _ in range(rng.poisson(4.5 * density)):
            near = arm.half_width + rng.uniform(1.3, max(arm.sidewalk - 0.4, 1.4))
            far = neighbour.half_width + rng.uniform(1.3, max(neighbour.sidewalk - 0.4, 1.4))
            corner = turn(
                arm.course.path(arm.length, -30.0, near), neighbour.course.path(-30.0, neighbour.length, -far), radius
            )
            path = corner if rng.random() < 0.5 else Path(corner.points[::-1])
            ways.append((path, rng.uniform(0, path.length)))
    walk(stage, rng, ways)
    for arm in arms:
        for _ in range(rng.poisson(2.0 * density)):
            d = rng.choice([-1, 1]) * (arm.half_width + rng.uniform(0.7, 1.5))
            linger(stage, rng, arm.course.at(arm.zebra + rng.uniform(-2, 2), d))
        for _ in range(rng.poisson(1.5 * density)):
            d = rng.choice([-1, 1]) * (arm.half_width + rng.uniform(0.8, max(arm.sidewalk - 0.4, 1.0)))
            linger(stage, rng, arm.course.at(rng.uniform(arm.line, arm.length), d))


def _surround(stage: Stage, rng: np.random.Generator, arms: list[Arm]) -> None:
    setback = float(rng.uniform(0, 3) if rng.random() < 0.5 else rng.uniform(3, 12))
    for arm in arms:
        for side in (1, -1):
            light = Verge(arm.course, arm.zebra, arm.length, side, arm.half_width, arm.sidewalk, setback)
            if side == 1 or rng.random() < 0.5:  # incoming traffic has d > 0
                stage.place(roadside.traffic_light(rng), light.at(arm.zebra + 2.6 * side, 0.5), light.yaw(arm.zebra))
    for k, arm in enumerate(arms):
        other = arms[(k + 1) % 4]
        for side in (1, -1):
            begin = arm.zebra - 2.0 if k % 2 == 0 else other.half_width + other.sidewalk + setback + 4.0
            verge = Verge(arm.course, begin, arm.length, side, arm.half_width, arm.sidewalk, setback)
            roadsides(stage, rng, verge)


def _map(arms: list[Arm], radius: float) -> RoadMap:
    drivable, paths = [], []
    for arm, back in zip(arms[:2], arms[2:], strict=True):
        drivable.append(strip(arm.course, -back.length, arm.length, -arm.half_width, arm.half_width))
    main, cross = arms[:2]
    drivable += corners(main.course, main.half_width, cross.course, cross.half_width, radius)
    for a, arm in enumerate(arms):
        for k in range(arm.lanes):
            d = (k + 0.5) * arm.lane
            paths.append(lane(arm.course, arm.length, arm.line, d, arm.lane))
            paths.append(lane(arm.course, arm.line, arm.length, -d, arm.lane))
            ways = _ways(arms, a, k, radius)
            exits = (
                (ways.straight, arms[(a + 2) % 4]),
                (ways.left, arms[(a + 3) % 4]),
                (ways.right, arms[(a + 1) % 4]),
            )
            for way, out in exits:
                if way is not None:
                    begin, end = arm.length - arm.line, way.length - (out.length - out.line)
                    paths.append(lane_along(way, begin, end, arm.lane, is_intersection=True))
    walks = tuple(crossing(arm.course, arm.zebra, arm.half_width) for arm in arms)
    return RoadMap(tuple(drivable), tuple(paths), walks)
