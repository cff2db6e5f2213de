"""The generated world: its truth is exact, its files are AV2's, and a seed is all there is to it."""

import numpy as np
import pytest
from pyarrow import feather

from zeroflow_core.datasets.av2 import Log
from zeroflow_core.datasets.bags import read_sweeps
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.ground import Patchwork, mark_ground, no_ground
from zeroflow_core.pairs import make_pair, remove_ego_motion
from zeroflow_core.resources import share_file
from zeroflow_core.simulation import small_bag
from zeroflow_core.simulation.log import simulate_log, simulate_sweeps
from zeroflow_core.simulation.motion import ArcMotion
from zeroflow_core.simulation.scanner import SCANNERS, Scanner, scan
from zeroflow_core.simulation.scene import Actor, Scene, Solid, make_street

EXACT = Scanner(elevations=(-6.0, -3.0, 0.0), columns=720, range_noise=0.0, dropout=0.0, forward=0.0, height=1.5)
STANDING = ArcMotion(0.0, 0.0, 0.0)


def scene_of(*actors, ego=STANDING):
    return Scene(actors, ego, slope_x=0.0, slope_y=0.0, ground_z=0.0)


def test_arc_motion_by_hand():
    straight = ArcMotion(1.0, 2.0, np.pi / 2, speed=3.0)
    np.testing.assert_allclose(straight.at(2.0), (1.0, 8.0, np.pi / 2), atol=1e-12)
    circle = ArcMotion(0.0, 0.0, 0.0, speed=np.pi, curvature=0.5)  # radius 2: half a turn in two seconds
    np.testing.assert_allclose(circle.at(2.0), (0.0, 4.0, np.pi), atol=1e-12)
    braking = ArcMotion(0.0, 0.0, 0.0, speed=4.0, acceleration=-2.0)
    np.testing.assert_allclose(np.array(braking.at(np.array([1.0, 2.0, 9.0])))[0], (3.0, 4.0, 4.0))
    starting = ArcMotion(0.0, 0.0, 0.0, speed=2.0, acceleration=2.0)
    np.testing.assert_allclose(np.array(starting.at(np.array([-1.0, -5.0])))[0], (-1.0, -1.0))


def test_a_wall_and_a_post_are_where_they_are():
    wall = Actor((Solid(0.0, 4.0, length=0.2, width=10.0),), ArcMotion(10.0, 0.0, 0.0))
    post = Actor((Solid(0.0, 4.0, radius=0.5),), ArcMotion(0.0, -8.0, 0.0))
    simulated = scan(scene_of(wall, post), EXACT, 0.0, 0, np.random.default_rng(0))
    on_wall, on_post = (simulated.sweep.points[simulated.actor == k].astype(float) for k in (0, 1))
    np.testing.assert_allclose(on_wall[:, 0], 9.9, atol=1e-4)
    assert np.abs(on_wall[:, 1]).max() == pytest.approx(5.0, abs=0.1)
    np.testing.assert_allclose(np.hypot(on_post[:, 0], on_post[:, 1] + 8.0), 0.5, atol=1e-4)
    ground = simulated.sweep.points[simulated.actor < 0]
    assert len(ground) > 500 and np.abs(ground[:, 2]).max() < 0.06
    behind = (ground[:, 0] > 10.2) & (np.abs(ground[:, 1] / ground[:, 0]) < 0.45)
    assert not behind.any(), "the wall hides the ground behind it"


def test_truth_is_the_rigid_motion_of_the_object():
    body = (Solid(0.2, 2.0, length=4.0, width=2.0),)
    motion = ArcMotion(12.0, 3.0, 0.4, speed=12.0, curvature=0.05)
    simulated = scan(scene_of(Actor(body, motion, "REGULAR_VEHICLE")), EXACT, 0.0, 0, np.random.default_rng(0))
    rows = simulated.actor == 0
    points, fired = simulated.sweep.points[rows].astype(float), simulated.sweep.time_offset_ns[rows] * 1e-9
    for sign, moved in ((1, simulated.forward), (-1, simulated.backward)):
        for point, at, flow in zip(points, fired, moved[rows], strict=True):
            step = motion.pose(at + sign * 0.1) @ motion.pose(at).inverse()
            np.testing.assert_allclose(point + flow, step.transform(point[None])[0], atol=1e-4)
    assert not simulated.forward[~rows].any() and not simulated.backward[~rows].any()


def test_ego_motion_cancels_in_the_common_frame():
    wall = Actor((Solid(0.0, 4.0, length=0.2, width=40.0),), ArcMotion(25.0, 0.0, 0.0))
    ego = ArcMotion(0.0, 0.0, 0.0, speed=10.0, curvature=0.03)
    rng = np.random.default_rng(0)
    scene = scene_of(wall, ego=ego)
    first, second = (scan(scene, EXACT, t, round(t * 1e9), rng) for t in (0.0, 0.1))
    pair = make_pair(*(mark_ground(s.sweep, no_ground) for s in (first, second)))
    for points, actor in ((pair.pc0, first.actor), (pair.pc1, second.actor)):
        np.testing.assert_allclose(points[actor == 0][:, 0], 24.9, atol=2e-3)
    moved = np.abs(second.sweep.points[second.actor == 0][:, 0] - 24.9)
    assert np.median(moved) > 0.8, "without compensation the wall would come closer"


def test_streets_are_collision_free_and_have_traffic():
    for seed in range(5):
        scene = make_street(seed)
        moving = [actor for actor in scene.actors if actor.motion.speed > 0]
        assert len(scene.actors) > 40 and len(moving) >= 3
        for time in np.arange(0, 3, 0.25):
            spots = np.array([actor.motion.at(time)[:2] for actor in moving])
            ego = np.array(scene.ego.at(time)[:2])
            assert np.hypot(*(spots - ego).T).min() > 1.0
            apart = np.hypot(*(spots[:, None] - spots[None]).transpose(2, 0, 1)) + 99 * np.eye(len(spots))
            assert apart.min() > 0.5


@pytest.mark.parametrize("scanner, low, high", [("av2", 60e3, 115e3), ("hdl64", 70e3, 119e3), ("small", 5e3, 10e3)])
def test_sweeps_look_like_the_scanner_s(scanner, low, high):
    (simulated,) = simulate_sweeps(5, 1, scanner)
    assert low < len(simulated.sweep) < high
    assert len(np.unique(simulated.sweep.ring)) == len(SCANNERS[scanner].elevations)
    assert 0 <= simulated.sweep.time_offset_ns.min() and simulated.sweep.time_offset_ns.max() < 1e8


def test_patchwork_finds_the_generated_ground():
    (simulated,) = simulate_sweeps(5, 1, "av2")
    truth = simulated.actor < 0
    marked = mark_ground(simulated.sweep, Patchwork()).is_ground
    assert (marked & truth).sum() / (marked | truth).sum() > 0.8


def test_same_seed_same_sweeps():
    first, again, other = (list(simulate_sweeps(seed, 2, "small")) for seed in (4, 4, 5))
    for a, b in zip(first, again, strict=True):
        assert np.array_equal(a.sweep.points, b.sweep.points) and np.array_equal(a.forward, b.forward)
    assert not np.array_equal(first[0].sweep.points[:100], other[0].sweep.points[:100])


def test_log_is_av2_s_with_labels_and_velocity(tmp_path):
    simulate_log(tmp_path / "log", seed=4, sweeps=3, scanner="small")
    log, drive = Log(tmp_path / "log"), list(simulate_sweeps(4, 3, "small"))
    assert len(log) == 3 and log.flow_labels(2) is None
    for k, simulated in enumerate(drive):
        sweep = log.sweep(k)
        np.testing.assert_array_equal(sweep.points, simulated.sweep.points.astype(np.float16).astype(np.float32))
        table = feather.read_table(tmp_path / "log" / "velocity" / f"{sweep.stamp_ns}.feather")
        velocity = np.stack([table[f"velocity_{axis}_mps"].to_numpy() for axis in "xyz"], axis=1)
        np.testing.assert_allclose(velocity, -simulated.backward / 0.1, atol=1e-5)
    labels = log.flow_labels(0)
    ego0_SE3_ego1 = log.pose(log.stamps_ns[0]).inverse() @ log.pose(log.stamps_ns[1])
    residual = remove_ego_motion(drive[0].sweep.points, labels.total_flow, ego0_SE3_ego1)
    np.testing.assert_allclose(residual, drive[0].forward, atol=1e-5)
    assert labels.dynamic.any() and not labels.dynamic.all()
    assert set(labels.classes[labels.dynamic]) <= {3, 4, 7, 15, 17, 19, 25} and labels.is_ground0.any()
    with pytest.raises(ZeroFlowError, match="exists already"):
        simulate_log(tmp_path / "log", seed=4, sweeps=3, scanner="small")


def test_bad_arguments_are_named(tmp_path):
    with pytest.raises(ZeroFlowError, match="0 sweeps"):
        simulate_log(tmp_path / "log", seed=1, sweeps=0)
    with pytest.raises(ZeroFlowError, match="scanner 'sonar'"):
        simulate_log(tmp_path / "log", seed=1, sweeps=2, scanner="sonar")
    assert not list(tmp_path.iterdir())


def test_the_bag_in_the_repository_is_the_one_its_script_makes():
    sweeps = list(read_sweeps(share_file("rosbags/small_scanner")))
    drive = list(simulate_sweeps(small_bag.SEED, small_bag.SWEEPS, "small"))
    assert len(sweeps) == len(drive)
    for sweep, simulated in zip(sweeps, drive, strict=True):
        assert sweep.stamp_ns == simulated.sweep.stamp_ns and len(sweep) == len(simulated.sweep)
        np.testing.assert_allclose(sweep.points, simulated.sweep.points, atol=1e-4)


