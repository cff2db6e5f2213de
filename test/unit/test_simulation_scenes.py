"""Scenes: who is where, and that nobody runs into anybody."""

import functools
import itertools

import numpy as np
import pytest
import torch

from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.geometry import SE3
from zeroflow_core.simulation.paths import Course, Path, turn
from zeroflow_core.simulation.scan import Simulator
from zeroflow_core.simulation.scanners import SCANNERS
from zeroflow_core.simulation.scene import EGO_CENTRE_X, EGO_HEIGHT, EGO_SIZE, Scene
from zeroflow_core.simulation.scenes import SCENES, make_scene
from zeroflow_core.simulation.solids import rotation_from_turn
from zeroflow_core.simulation.tracks import KNOT_S, Track
from zeroflow_core.simulation.traffic import Driver, drive

AV2_CATEGORIES = {
    "REGULAR_VEHICLE", "LARGE_VEHICLE", "BOX_TRUCK", "TRUCK", "TRUCK_CAB", "VEHICULAR_TRAILER", "BUS", "SCHOOL_BUS",
    "MOTORCYCLE", "MOTORCYCLIST", "BICYCLE", "BICYCLIST", "PEDESTRIAN", "STROLLER", "WHEELCHAIR", "BOLLARD",
    "CONSTRUCTION_CONE", "CONSTRUCTION_BARREL", "STOP_SIGN", "SIGN",
}  # fmt: skip
TOGETHER = (
    {"TRUCK_CAB", "VEHICULAR_TRAILER"},
    {"BICYCLE", "BICYCLIST"},
    {"MOTORCYCLE", "MOTORCYCLIST"},
    {"PEDESTRIAN", "STROLLER"},
)
ON_FOOT = ("PEDESTRIAN", "STROLLER", "WHEELCHAIR")
WORLDS = [(name, seed) for name in SCENES for seed in (1, 2)]
each_world = pytest.mark.parametrize(("name", "seed"), WORLDS)


@functools.cache
def world(name: str, seed: int) -> Scene:
    return make_scene(name, seed, 4.0)


def track(scene: Scene, actor: int) -> Track:
    return scene.bodies[scene.actors[actor].body].track


def moving(scene: Scene) -> list[int]:
    return [i for i in range(len(scene.actors)) if np.ptp(track(scene, i).position[:, :2], axis=0).max() > 0.3]


def outlines(scene: Scene) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Middles (A,T,2), yaws (A,T) and half sizes (A,2) of all boxes, the ego's last, five times a second."""
    tracks = [track(scene, i) for i in range(len(scene.actors))] + [scene.ego]
    centres = [actor.centre[:2] for actor in scene.actors] + [(EGO_CENTRE_X, 0.0)]
    sizes = [actor.size[:2] for actor in scene.actors] + [EGO_SIZE[:2]]
    position = np.stack([t.position[::10, :2] for t in tracks])
    yaw, centre = np.stack([t.turn[::10, 2] for t in tracks]), np.array(centres)[:, None]
    c, s = np.cos(yaw), np.sin(yaw)
    offset = np.stack([c * centre[..., 0] - s * centre[..., 1], s * centre[..., 0] + c * centre[..., 1]], axis=-1)
    return position + offset, yaw, np.array(sizes) / 2


def overlap(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two rectangles, as corners (4,2), overlap: no edge's normal separates them."""
    for corners in (a, b):
        for normal in corners[1:3] - corners[:2]:
            p, q = a @ normal, b @ normal
            if p.max() < q.min() or q.max() < p.min():
                return False
    return True


def hardest(where: Track) -> float:
    """The largest acceleration over ground along a track, from knot to knot and averaged over 0.1 s, m/s²."""
    acceleration = np.diff(where.position[:, :2], 2, axis=0) / KNOT_S**2
    means = np.cumsum(np.concatenate([np.zeros((1, 2)), acceleration]), axis=0)
    return float(np.linalg.norm(means[5:] - means[:-5], axis=1).max() / 5)


@each_world
def test_nobody_runs_into_anybody(name: str, seed: int) -> None:
    scene = world(name, seed)
    middle, yaw, half = outlines(scene)
    signs = np.array([[1, 1], [1, -1], [-1, -1], [-1, 1]])
    ego, movers = len(scene.actors), [*moving(scene), len(scene.actors)]
    reach = np.hypot(*half.T)
    for i, j in itertools.product(movers, range(len(middle))):
        kinds = {scene.actors[k].category for k in (i, j) if k != ego}
        if i == j or (abs(i - j) == 1 and kinds in TOGETHER):
            continue
        for t in np.nonzero(np.linalg.norm(middle[i] - middle[j], axis=1) < reach[i] + reach[j])[0]:
            boxes = []
            for k in (i, j):
                turn = rotation_from_turn(np.array([0, 0, yaw[k, t]]))[:2, :2]
                boxes.append(middle[k, t] + (signs * half[k]) @ turn.T)
            assert not overlap(*boxes), f"actors {i} and {j} ({kinds}) at knot {t * 10}"


@each_world
def test_nothing_fixed_stands_in_the_way(name: str, seed: int) -> None:
    scene = world(name, seed)
    middle, yaw, half = outlines(scene)
    solids = [solid for body in scene.bodies if body.track is None for solid in body.solids]
    centres, reach = np.array([s.centre for s in solids]), np.linalg.norm([s.half for s in solids], axis=1)
    for i in [*moving(scene), len(scene.actors)]:
        z = (scene.ego if i == len(scene.actors) else track(scene, i)).position[::10, 2]
        for t, at in enumerate(middle[i]):
            for k in np.nonzero(np.linalg.norm(centres[:, :2] - at, axis=1) < reach + np.hypot(*half[i]))[0]:
                # points of a thin core of the solid between knee and roof, in the box's frame
                solid = solids[k]
                core = np.array(list(itertools.product(*(np.linspace(-0.7, 0.7, 9) * h for h in solid.half))))
                points = core @ solid.rotation.T + centres[k]
                points = points[(points[:, 2] > z[t] + 0.5) & (points[:, 2] < z[t] + 1.4), :2] - at
                c, s = np.cos(yaw[i, t]), np.sin(yaw[i, t])
                inside = np.abs(points @ np.array([[c, -s], [s, c]])) < half[i]
                assert not inside.all(axis=1).any(), f"actor {i} in a {solid.shape.name} at {centres[k]}"


@each_world
def test_wheels_and_feet_are_on_the_ground(name: str, seed: int) -> None:
    scene = world(name, seed)
    for i in range(len(scene.actors)):
        position = track(scene, i).position[::7]
        edge = scene.terrain.beyond_edge(*map(torch.from_numpy, position[:, :2].T.copy())).numpy()
        half = 0.3 if scene.actors[i].category in ON_FOOT else scene.actors[i].size[0] / 2
        away = np.abs(edge) > half + 0.2 if scene.terrain.kerb else edge < -half
        off = np.abs(position[:, 2] - scene.terrain.at(position[:, :2]))[away]
        assert (off < 0.06).all(), (scene.actors[i].category, off.max())
    wheel = scene.ego.position - [0, 0, EGO_HEIGHT]
    assert np.abs(wheel[:, 2] - scene.terrain.at(wheel[:, :2])).max() < 0.05


@each_world
def test_tracks_are_smooth_and_speeds_as_in_traffic(name: str, seed: int) -> None:
    scene = world(name, seed)
    for i in [*moving(scene), None]:
        category = "EGO" if i is None else scene.actors[i].category
        where = scene.ego if i is None else track(scene, i)
        assert where.position.shape == where.turn.shape == (len(scene.times), 3)
        speed = np.linalg.norm(np.diff(where.position, axis=0), axis=1) / KNOT_S
        on_foot = category in ON_FOOT
        assert speed.max() < (2.8 if on_foot else 9.0 if category == "BICYCLIST" else 36.0), category
        assert np.abs(np.diff(where.turn, axis=0)).max() < (0.12 if on_foot else 0.03), category
        if not on_foot:
            assert hardest(where) < 4.0, category


def test_the_trailer_hangs_on_its_hitch() -> None:
    found = 0
    for seed in (1, 2):
        scene = world("highway", seed)
        for i, actor in enumerate(scene.actors):
            if actor.category == "VEHICULAR_TRAILER":
                cab, trailer = track(scene, i - 1), track(scene, i)
                gap = np.linalg.norm(cab.position - trailer.position, axis=1)
                assert scene.actors[i - 1].category == "TRUCK_CAB"
                assert np.ptp(gap) < 0.1  # a bend shortens it a little
                found += 1
    assert found > 3


@pytest.mark.parametrize("name", ["street", "junction"])
def test_legs_swing_about_their_joints(name: str) -> None:
    scene = world(name, 1)
    walkers = {i for i in moving(scene) if scene.actors[i].category == "PEDESTRIAN"}
    owners = [scene.bodies[scene.actors[body.actor].body] for body in scene.bodies if body.actor in walkers]
    limbs = [body for body in scene.bodies if body.actor in walkers]
    swings, arms = [], []
    for limb, owner in zip(limbs, owners, strict=True):
        if limb is not owner:
            swings.append(np.ptp(limb.track.turn[:, 1]))
            arms.append(np.ptp(np.linalg.norm(limb.track.position - owner.track.position, axis=1)))
    assert len(swings) > 20
    assert np.median(swings) > 0.4
    assert max(arms) < 1e-6


@pytest.mark.parametrize("name", SCENES)
def test_the_same_arguments_give_the_same_world(name: str) -> None:
    one, two = make_scene(name, 5, 1.0), make_scene(name, 5, 1.0)
    assert one.actors == two.actors
    assert len(one.bodies) == len(two.bodies)
    for a, b in zip(one.bodies, two.bodies, strict=True):
        assert a.solids == b.solids
        if a.track is not None:
            assert a.track.position.tobytes() == b.track.position.tobytes()
            assert a.track.turn.tobytes() == b.track.turn.tobytes()
    assert one.ego.position.tobytes() == two.ego.position.tobytes()
    assert make_scene(name, 6, 1.0).ego.position.tobytes() != one.ego.position.tobytes()


@pytest.mark.parametrize("name", SCENES)
def test_density_makes_traffic(name: str) -> None:
    none, few, many = (len(moving(make_scene(name, 2, 0.5, density))) for density in (0, 0.5, 2))
    assert none == 0
    assert 0 < 1.3 * few < many


@each_world
def test_actors_are_what_av2_knows_and_lie_within_single_precision(name: str, seed: int) -> None:
    scene = world(name, seed)
    assert {actor.category for actor in scene.actors} <= AV2_CATEGORIES
    assert all(scene.bodies[actor.body].actor == i for i, actor in enumerate(scene.actors))
    assert np.abs(scene.ego.position[:, :2]).max() < 1500
    assert (name == "highway") != any(actor.category == "PEDESTRIAN" for actor in scene.actors)


@each_world
def test_few_signs_and_bollards_are_annotated(name: str, seed: int) -> None:
    categories = [actor.category for actor in world(name, seed).actors]
    assert categories.count("SIGN") <= 12
    assert categories.count("BOLLARD") <= 12


@pytest.mark.parametrize("name", SCENES)
def test_an_av2_sweep_has_as_many_points_as_real_ones(name: str) -> None:
    simulated = Simulator(world(name, 1), SCANNERS["av2"], 1).sweep(0)
    assert 78_000 < len(simulated.sweep) < 122_000


@each_world
def test_the_map_knows_where_the_ego_drives(name: str, seed: int) -> None:
    from matplotlib.path import Path as Outline

    scene = world(name, seed)
    where = scene.ego.position[:, :2]
    assert np.any([Outline(area).contains_points(where) for area in scene.roads.drivable], axis=0).all()
    for lane in scene.roads.lanes:
        middle = (lane.left + lane.right) / 2
        along = np.diff(middle, axis=0)
        to_left = (lane.left - middle)[:-1]
        assert (along[:, 0] * to_left[:, 1] - along[:, 1] * to_left[:, 0] > 0).all()
    in_lane = [
        Outline(np.concatenate([lane.left, lane.right[::-1]])).contains_points(where) for lane in scene.roads.lanes
    ]
    assert np.any(in_lane, axis=0).mean() > 0.9


def test_the_ego_stands_drives_and_turns() -> None:
    turned, speeds = [], []
    for seed in (0, 4, 6):
        ego = make_scene("junction", seed, 6.0, 0.0).ego
        assert hardest(ego) < 4.0
        turned.append(abs(ego.turn[-1, 2] - ego.turn[0, 2]))
        speeds += list(np.linalg.norm(np.diff(ego.position, axis=0), axis=1) / KNOT_S)
    assert max(turned) > 1.1
    assert min(turned) < 0.05
    assert min(speeds) < 1e-6
    assert max(speeds) > 8.0


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("motorway", 1, 1.0), "street, junction, highway"),
        (("street", -1, 1.0), "seed"),
        (("street", 1, 0.0), "seconds"),
        (("street", 1, float("nan")), "seconds"),
        (("street", 1, 1.0, 3.5), "density"),
        (("street", 1, 1.0, -0.1), "density"),
    ],
)
def test_bad_arguments_are_named(arguments: tuple, word: str) -> None:
    with pytest.raises(ZeroFlowError, match=word):
        make_scene(*arguments)


def test_a_turn_joins_two_paths_smoothly() -> None:
    into, out = Course().path(-50.0, 50.0, -2.0), Course(heading=np.pi / 2).path(-50.0, 50.0, -2.0)
    way = turn(into, out, 8.0)
    assert np.allclose(way.at(0.0), [-50, -2], atol=0.01)
    assert np.allclose(way.at(way.length), [2, 50], atol=0.3)
    assert 1 / 10 < way.curvature().max() < 1 / 6
    assert np.abs(np.diff(way.heading(np.arange(0, way.length, 0.25)))).max() < 0.06


def test_a_path_bends_steadily_between_its_points() -> None:
    angle, radius = np.arange(0, 3, 0.02), 8.0
    path = Path.through(radius * np.stack([np.cos(angle), np.sin(angle)], axis=1))
    s = np.arange(1.0, path.length - 1.0, 0.05)
    curvature = np.linalg.norm(np.diff(path.at(s), 2, axis=0), axis=1) / 0.05**2
    assert np.allclose(curvature, 1 / radius, rtol=0.15)
    assert np.allclose(path.at(np.array([0.0, path.length])), path.points[[0, -1]])
    beyond = path.at(np.array([-2.0, -1.0, 0.0]))
    assert np.allclose(np.diff(beyond, axis=0), 4 * (path.points[1] - path.points[0]))


def test_drivers_keep_their_distance_and_stop_at_lines() -> None:
    times, path = np.arange(0, 20, KNOT_S), Path.through(np.array([[0.0, 0.0], [500.0, 0.0]]))
    first = Driver(path, 60.0, 10.0, np.full(len(times), 12.0), stops=((120.0, 0.0, 15.0),))
    second = Driver(path, 30.0, 10.0, np.full(len(times), 15.0), leader=first)
    a, b = drive([first, second], times)
    waits = times < 15
    assert (a + first.front)[waits].max() < 120.5
    assert a[-1] > 125
    assert ((a - first.rear) - (b + second.front)).min() > 1.0
    assert (np.diff(a) >= 0).all()


def test_a_course_counts_along_and_across() -> None:
    course = Course((10.0, 5.0), 0.3, 1 / 150)
    road, s, d = course.road(4.0), np.linspace(-100, 200, 31), np.linspace(-20, 20, 31)
    assert np.allclose(road.lateral(*map(torch.from_numpy, course.at(s, d).T)).numpy(), d)
    pose = SE3(rotation_from_turn(np.array([0, 0, 0.3])), np.array([10.0, 5.0, 0.0]))
    assert np.allclose(course.at(0.0, 2.0), (pose.rotation @ [0, 2, 0] + pose.translation)[:2])
