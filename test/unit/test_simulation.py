"""Sweeps of simple scenes, where everything is known by hand, and of the real ones, whose truth must hold together."""

from dataclasses import replace

import numpy as np
import pytest

from zeroflow_core.datasets.bags import read_sweeps
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.ground import Patchwork, mark_ground, no_ground
from zeroflow_core.pairs import make_pair
from zeroflow_core.resources import share_file
from zeroflow_core.simulation import small_bag
from zeroflow_core.simulation.log import simulate_sweeps
from zeroflow_core.simulation.scan import Simulator
from zeroflow_core.simulation.scanners import SCANNERS, Head, Scanner, adjusted, randomised
from zeroflow_core.simulation.scene import EGO_HEIGHT, Actor, Body, Scene
from zeroflow_core.simulation.solids import Material, Shape, Solid, Windows
from zeroflow_core.simulation.terrain import Terrain
from zeroflow_core.simulation.tracks import Track, knot_times

TIMES = knot_times(1.0)
HEAD = Head("lidar", (-6.0, -3.0, 0.0), 720, position=(0.0, 0.0, 1.17))
EXACT = Scanner((HEAD,), range_noise=0.0, dropout=0.0, sensitivity=1e-12, own_body=())
PLAIN = Material(reflectance=0.5)


def arc(x=0.0, y=0.0, yaw=0.0, speed=0.0, yaw_rate=0.0, z=0.0) -> Track:
    """Along a circle (or a straight line) from (x, y, yaw) at time 0."""
    heading = yaw + yaw_rate * TIMES
    chord = speed * TIMES * np.sinc(yaw_rate * TIMES / (2 * np.pi))
    middle = yaw + yaw_rate * TIMES / 2
    position = np.stack([x + chord * np.cos(middle), y + chord * np.sin(middle), 0 * TIMES + z], axis=1)
    return Track(position, np.stack([0 * TIMES, 0 * TIMES, heading], axis=1))


def scene_of(*bodies: Body, actors: tuple[Actor, ...] = (), ego: Track | None = None) -> Scene:
    return Scene("test", TIMES, Terrain(), bodies, actors, ego or arc(z=EGO_HEIGHT))


def box(length, width, height, x=0.0, y=0.0) -> Solid:
    return Solid(Shape.BOX, (length / 2, width / 2, height / 2), (x, y, height / 2), material=PLAIN)


def vehicle(track: Track, length=4.0, width=2.0, actor=0) -> tuple[Body, Actor]:
    body = Body((box(length, width, 2.0),), track, actor)
    return body, Actor("REGULAR_VEHICLE", actor, (length, width, 2.0), (0.0, 0.0, 1.0))


def test_a_wall_a_post_and_the_ground_are_where_they_are():
    wall = box(0.2, 10.0, 4.0, x=10.0)
    post = Solid(Shape.CYLINDER, (0.5, 0.5, 2.0), (0.0, -8.0, 2.0), material=PLAIN)
    simulated = Simulator(scene_of(Body((wall, post))), EXACT, seed=0).sweep(0)
    points = simulated.sweep.points.astype(float)
    high = points[:, 2] > -0.2
    on_wall = high & (points[:, 0] > 5)
    np.testing.assert_allclose(points[on_wall][:, 0], 9.9, atol=1e-4)
    assert np.abs(points[on_wall][:, 1]).max() == pytest.approx(5.0, abs=0.1)
    on_post = high & (points[:, 1] < -5)
    np.testing.assert_allclose(np.hypot(points[on_post][:, 0], points[on_post][:, 1] + 8.0), 0.5, atol=1e-4)
    assert (simulated.is_ground == ~(on_wall | on_post)).all() and simulated.is_ground.sum() > 700
    assert np.abs(points[simulated.is_ground][:, 2] + EGO_HEIGHT).max() < 0.05
    ground = points[simulated.is_ground]
    assert not ((ground[:, 0] > 10.2) & (np.abs(ground[:, 1] / ground[:, 0]) < 0.45)).any(), "the wall hides it"
    assert (simulated.actor == -1).all() and not simulated.flow.any()


def test_points_are_where_the_object_is_when_the_beam_passes():
    body, actor = vehicle(arc(12.0, 3.0, 0.4, speed=12.0, yaw_rate=0.6))
    simulated = Simulator(scene_of(body, actors=(actor,)), EXACT, seed=0).sweep(1)
    rows = np.flatnonzero(simulated.actor == 0)
    assert len(rows) > 15
    for row in rows:
        time = 0.1 + simulated.sweep.time_offset_ns[row] * 1e-9
        local = (
            body.track.pose(TIMES, time)
            .inverse()
            .transform(simulated.sweep.points[row : row + 1].astype(float) + [0, 0, EGO_HEIGHT])[0]
        )
        assert np.min(np.abs(np.abs(local[:2]) - [2.0, 1.0])) < 1e-3, "on a side of the box"


def test_flow_is_the_motion_of_the_box_from_sweep_to_sweep():
    ego = arc(speed=8.0, yaw_rate=0.2, z=EGO_HEIGHT)
    first, second = vehicle(arc(14.0, 3.0, 0.4, 12.0, 0.6)), vehicle(arc(18.0, -8.0, -2.8, 30.0), actor=1)
    scene = scene_of(first[0], second[0], actors=(first[1], second[1]), ego=ego)
    simulator = Simulator(scene, EXACT, seed=0)
    before, now, after = (simulator.sweep(k) for k in (2, 3, 4))
    pose = now.sweep.world_SE3_ego
    for actor in (0, 1):
        poses = [next(b for b in s.cuboids if b.actor == actor).city_SE3_body for s in (before, now, after)]
        rows = now.actor == actor
        assert rows.sum() > 15
        city = pose.transform(now.sweep.points[rows].astype(float))
        for other, vectors in ((poses[2], now.flow), (poses[0], now.backward)):
            carried = (other @ poses[1].inverse()).transform(city)
            np.testing.assert_allclose(pose.rotate(vectors[rows].astype(float)), carried - city, atol=1e-4)
    speed = np.linalg.norm(now.flow[now.actor == 1], axis=1)
    assert 2.5 < speed.mean() < 3.5, "about 30 m/s for a tenth of a second"
    np.testing.assert_array_equal(now.flow, now.limb_flow)


def test_boxes_stand_where_the_beams_met_the_object():
    body, actor = vehicle(arc(0.0, -8.0, 0.0, speed=30.0))
    simulator = Simulator(scene_of(body, actors=(actor,)), EXACT, seed=0)
    simulated = simulator.sweep(0)
    (found,) = simulated.cuboids
    stamp = body.track.pose(TIMES, 0.0).translation
    assert found.city_SE3_object.translation[0] - stamp[0] > 1.0, "the beams come round later than the stamp"
    local = found.city_SE3_object.inverse().transform(
        simulated.sweep.world_SE3_ego.transform(simulated.sweep.points[simulated.actor == 0].astype(float))
    )
    assert (np.abs(local) <= found.size / 2 + 1e-4).all() and found.num_points == len(local) > 50
    assert found.size[0] < 4.0 + 0.8 and found.size[1] < 2.2
    again = found.city_SE3_body.translation + [0, 0, 1.0]
    assert np.linalg.norm(again - found.city_SE3_object.translation) < 0.5


def test_the_box_of_an_object_on_the_seam_drifts_from_the_end_of_the_sweep_to_its_beginning():
    """Behind a head that starts there: seen in the last columns first, in both a little later, then in the first."""
    body, actor = vehicle(arc(-12.0, 3.0, 0.0, speed=0.0))
    turning = scene_of(body, actors=(actor,), ego=arc(z=EGO_HEIGHT, yaw_rate=-0.9))
    simulator = Simulator(turning, EXACT, seed=0)
    moments = np.array([simulator._truth.passing(k)[0] - 0.1 * k for k in range(9)])
    assert (moments > 0).all() and (moments < 0.1).all()
    assert np.abs(np.diff(moments)).max() < 0.06, "no jump of a whole sweep"
    assert np.ptp(moments) > 0.08


def test_velocity_is_physical_even_where_an_object_crosses_the_seam():
    """A vehicle follows the ego, aside: passed at a sweep's end first, later at its beginning, at constant speed."""
    body, actor = vehicle(arc(-14.0, 2.0, 0.0, speed=20.0))
    simulator = Simulator(scene_of(body, actors=(actor,), ego=arc(speed=20.0, yaw_rate=-0.6, z=EGO_HEIGHT)), EXACT, 0)
    moments = [simulator._truth.passing(k)[0] for k in range(8)]
    assert np.ptp(np.diff(moments)) > 0.01, "the interval between two passages varies"
    for k in range(8):
        simulated = simulator.sweep(k)
        speed = np.linalg.norm(simulated.velocity[simulated.actor == 0], axis=1)
        assert len(speed) and np.abs(speed - 20.0).max() < 1e-3
        np.testing.assert_array_equal(simulated.velocity[simulated.actor < 0], 0.0)


def test_ego_motion_cancels_in_the_common_frame():
    wall = Body((box(0.2, 40.0, 4.0, x=25.0),))
    simulator = Simulator(scene_of(wall, ego=arc(speed=10.0, yaw_rate=0.3, z=EGO_HEIGHT)), EXACT, seed=0)
    first, second = (simulator.sweep(k) for k in (0, 1))
    pair = make_pair(*(mark_ground(s.sweep, no_ground) for s in (first, second)))
    for points, simulated in ((pair.pc0, first), (pair.pc1, second)):
        np.testing.assert_allclose(points[~simulated.is_ground][:, 0], 24.9, atol=2e-3)
    moved = np.abs(second.sweep.points[~second.is_ground][:, 0] - 24.9)
    assert np.median(moved) > 0.8, "without compensation the wall would come closer"


def test_limbs_have_their_own_motion_and_the_track_its_rigid_one():
    walk = arc(6.0, 0.0, np.pi / 2, speed=1.4)
    torso = Body((box(0.3, 0.4, 1.8),), walk, 0)
    swing = np.stack([0 * TIMES, 0.5 * np.sin(9 * TIMES), 0 * TIMES + np.pi / 2], axis=1)
    leg = Body(
        (Solid(Shape.CYLINDER, (0.1, 0.1, 0.4), (0.5, 0.0, -0.4), material=PLAIN),),
        Track(walk.position + [0, 0, 0.9], swing),
        0,
    )
    actor = Actor("PEDESTRIAN", 0, (0.8, 0.8, 1.8), (0.0, 0.0, 0.9))
    low = replace(EXACT, heads=(replace(HEAD, elevations=(-12.0, -9.0, -6.0, -3.0, 0.0)),))
    simulated = Simulator(scene_of(torso, leg, actors=(actor,)), low, seed=0).sweep(2)
    person = simulated.actor == 0
    assert np.ptp(simulated.flow[person], axis=0).max() < 1e-5
    own = np.linalg.norm(simulated.limb_flow - simulated.flow, axis=1)
    on_leg = own > 1e-6
    assert on_leg.sum() > 3 and not on_leg[~person].any() and (person & ~on_leg).sum() > 3
    # by hand: the leg turns by swing(t + 0.1) - swing(t) about its hip
    row = np.flatnonzero(on_leg)[0]
    time = 0.2 + simulated.sweep.time_offset_ns[row] * 1e-9
    start, end = (leg.track.pose(TIMES, t) for t in (time, time + 0.1))
    city = simulated.sweep.world_SE3_ego.transform(simulated.sweep.points[row : row + 1].astype(float))
    expected = (end @ start.inverse()).transform(city) - city
    np.testing.assert_allclose(simulated.limb_flow[row], expected[0], atol=3e-3)  # the interval is nearly 0.1 s


def test_windows_let_beams_in_and_lie_behind_the_wall():
    front = Windows(spacing=(2.0, 3.0), size=(1.0, 3.0), sill=0.0, depth=0.5)
    solid = Solid(Shape.BOX, (0.5, 30.0, 3.0), (10.5, 0.0, 3.0), material=Material(0.5, windows=front))
    simulated = Simulator(scene_of(Body((solid,))), EXACT, seed=0).sweep(0)
    on_wall = ~simulated.is_ground
    x, y = simulated.sweep.points[on_wall, :2].T
    behind = x > 10.1
    facing = np.abs(y) < 5  # seen head on, the panes lie at their full depth
    np.testing.assert_allclose(x[~behind], 10.0, atol=1e-3)
    np.testing.assert_allclose(x[behind & facing], 10.5, atol=0.01)
    whole = Solid(solid.shape, solid.half, solid.centre, material=PLAIN)
    plain = Simulator(scene_of(Body((whole,))), EXACT, seed=0).sweep(0)
    lost = 1 - on_wall.sum() / (~plain.is_ground).sum()
    assert lost == pytest.approx(0.225, abs=0.05), "half the front is glass, and nearly half of that loses the beam"


def test_what_is_far_dark_or_slanted_returns_less():
    def share(x: float, reflectance: float, yaw: float = 0.0) -> float:
        wall = Solid(Shape.BOX, (0.1, 3.0, 3.0), (x, 0.0, 3.0), (0.0, 0.0, yaw), Material(reflectance))
        real, perfect = Scanner((HEAD,), own_body=()), Scanner((HEAD,), sensitivity=1e-12, own_body=())
        hits = [Simulator(scene_of(Body((wall,))), scanner, 0).sweep(0) for scanner in (real, perfect)]
        return (~hits[0].is_ground).sum() / (~hits[1].is_ground).sum()

    assert share(20, 0.5) > 0.95
    assert share(190, 0.5) > share(190, 0.1) + 0.3
    assert share(100, 0.05) < share(50, 0.05) - 0.2
    assert share(60, 0.1, yaw=1.45) < share(60, 0.1) - 0.3


def test_the_vehicle_hides_what_lies_behind_its_own_roof():
    free, carried = (Simulator(scene_of(), replace(EXACT, own_body=b), 0).sweep(0) for b in ((), Scanner(()).own_body))
    assert len(carried.sweep) < len(free.sweep) - 50
    ahead = carried.sweep.points[np.abs(carried.sweep.points[:, 1]) < 0.5]
    assert (ahead[:, 0] < 0).all() or ahead[ahead[:, 0] > 0, 0].min() > 15


def test_noise_is_as_large_as_asked_for():
    wall = Body((box(0.2, 60.0, 40.0, x=10.0),))
    scanner = Scanner((replace(HEAD, columns=7200),), range_noise=0.05, dropout=0.2, own_body=())
    simulated = Simulator(scene_of(wall), scanner, seed=0).sweep(0)
    points = simulated.sweep.points[~simulated.is_ground].astype(float)
    ahead = points[np.abs(points[:, 1]) < 2]
    assert np.std(ahead[:, 0] - 9.9) == pytest.approx(0.05, rel=0.15)
    exact = Simulator(scene_of(wall), replace(scanner, dropout=0.0), seed=0).sweep(0)
    assert len(points) / (~exact.is_ground).sum() == pytest.approx(0.8, abs=0.04)


@pytest.mark.parametrize(
    "scanner, low, high", [("av2", 80e3, 120e3), ("hdl64", 90e3, 130e3), ("os1-128", 70e3, 125e3), ("small", 4e3, 10e3)]
)
def test_sweeps_look_like_the_scanner_s(scanner, low, high):
    (simulated,) = simulate_sweeps(5, 1, scanner)
    sweep, device = simulated.sweep, SCANNERS[scanner]
    assert low < len(sweep) < high
    assert len(np.unique(sweep.ring)) >= 0.95 * sum(len(head.elevations) for head in device.heads)
    assert (np.diff(sweep.time_offset_ns) >= 0).all(), "as fired"
    assert 0 <= sweep.time_offset_ns.min() and sweep.time_offset_ns.max() < 1.1e8
    assert sweep.intensity.min() >= 0 and sweep.intensity.max() <= 255 and 5 < np.median(sweep.intensity) < 60
    head = device.heads[0].vehicle_SE3_head
    beams = np.array([*device.heads[0].elevations])
    own = sweep.ring < len(beams)
    seen = head.inverse().transform(sweep.points[own].astype(float))
    elevation = np.degrees(np.arctan2(seen[:, 2], np.hypot(seen[:, 0], seen[:, 1])))
    # ego motion while the sweep is fired shifts what is seen close by
    assert np.median(np.abs(elevation - beams[sweep.ring[own]])) < 0.4


def test_patchwork_finds_the_simulated_ground():
    (simulated,) = simulate_sweeps(5, 1, "hdl64")
    marked = mark_ground(simulated.sweep, Patchwork()).is_ground
    assert (marked & simulated.is_ground).sum() / (marked | simulated.is_ground).sum() > 0.8


@pytest.mark.parametrize("scene", ["street", "junction", "highway"])
def test_same_seed_same_bytes_in_any_order(scene):
    first, again, other = (list(simulate_sweeps(seed, 2, "small", scene)) for seed in (4, 4, 5))
    for a, b in zip(first, again, strict=True):
        for name in ("flow", "backward", "limb_flow", "actor", "is_ground"):
            assert getattr(a, name).tobytes() == getattr(b, name).tobytes()
        assert a.sweep.points.tobytes() == b.sweep.points.tobytes()
        assert a.sweep.intensity.tobytes() == b.sweep.intensity.tobytes()
    assert first[0].sweep.points[:100].tobytes() != other[0].sweep.points[:100].tobytes()


def test_adjusted_scanners():
    usual = SCANNERS["av2"]
    changed = adjusted(usual, height=2.5, tilt=3.0, beams=16, noise=0.03)
    assert [len(head.elevations) for head in changed.heads] == [16, 16] and changed.range_noise == 0.03
    assert changed.heads[0].position[2] + EGO_HEIGHT == pytest.approx(2.5)
    apart = [scanner.heads[0].position[2] - scanner.heads[1].position[2] for scanner in (usual, changed)]
    assert apart[0] == pytest.approx(apart[1])
    assert changed.heads[0].tilt[1] - usual.heads[0].tilt[1] == pytest.approx(np.radians(3))
    for wrong in ({"height": 0.1}, {"tilt": 90.0}, {"beams": 1}, {"beams": 33}, {"noise": -1.0}):
        with pytest.raises(ZeroFlowError, match="cannot be"):
            adjusted(usual, **wrong)


@pytest.mark.parametrize("height", [0.5, 1.2, 5.0])
@pytest.mark.parametrize("name", ["av2", "hdl64", "os1-128"])
def test_a_lower_scanner_sits_on_a_smaller_vehicle(name, height):
    usual, lower = SCANNERS[name], adjusted(SCANNERS[name], height=height)
    drawn = randomised(lower, np.random.default_rng(3))
    for scanner in (lower, drawn):
        heads = Simulator(scene_of(), scanner, 0)._heads
        free = [mounted.clear.float().mean().item() for mounted in Simulator(scene_of(), usual, 0)._heads]
        assert [mounted.clear.float().mean().item() for mounted in heads] == pytest.approx(free, abs=0.12)


def test_randomised_scanners_vary_around_what_they_are_given():
    noisy = adjusted(SCANNERS["vlp32"], noise=0.1)
    noise = [randomised(noisy, np.random.default_rng(seed)).range_noise for seed in range(20)]
    assert 0.06 < min(noise) < 0.1 < max(noise) < 0.7


def test_randomised_scanners_are_many_and_all_work():
    sizes = set()
    for seed in range(4):
        scanner = randomised(SCANNERS["small"], np.random.default_rng(seed))
        assert scanner == randomised(SCANNERS["small"], np.random.default_rng(seed))
        (simulated,) = simulate_sweeps(seed, 1, scanner)
        sizes.add(len(simulated.sweep))
        assert np.isfinite(simulated.sweep.points).all()
    assert len(sizes) == 4


def test_the_bag_in_the_repository_is_the_one_its_script_makes():
    """Another processor may round a few edges to the other side."""
    sweeps = list(read_sweeps(share_file("rosbags/small_scanner")))
    drive = list(simulate_sweeps(small_bag.SEED, small_bag.SWEEPS, "small", small_bag.SCENE))
    assert len(sweeps) == len(drive)
    for sweep, simulated in zip(sweeps, drive, strict=True):
        assert sweep.stamp_ns == simulated.sweep.stamp_ns
        assert len(sweep) == pytest.approx(len(simulated.sweep), rel=2e-3)
        stored, made = (set(map(tuple, np.round(p.points / 0.05).astype(int))) for p in (sweep, simulated.sweep))
        assert len(stored & made) > 0.95 * len(stored)
