"""Poses from clouds alone and points at their own moments, against simulated drives that know both exactly."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from zeroflow_core.bench.odometry_run import as_fired
from zeroflow_core.datasets import av2
from zeroflow_core.ego_motion import KissOdometry, deskew, deskews, relative_pose_errors
from zeroflow_core.ego_motion.icp import new_icp
from zeroflow_core.ego_motion.start import likely_shift
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.geometry import SE3, interpolate
from zeroflow_core.pairs import Sweep

STEP = 100_000_000
SWEEPS = 8


@lru_cache
def drive() -> tuple[list[Sweep], list[Sweep]]:
    """A small scanner in a street, about a metre a sweep: as seen at the stamps, and as fired."""
    from zeroflow_core.simulation.log import Drive
    from zeroflow_core.simulation.scanners import scanner_named

    simulator = Drive(1, SWEEPS, scanner_named("small"), "street").simulator()
    seen = [simulator.sweep(k).sweep for k in range(SWEEPS)]
    return seen, [as_fired(sweep, simulator) for sweep in seen]


def register(sweeps: list[Sweep], **options) -> list[SE3]:
    odometry = KissOdometry(**options)
    return [odometry.register(sweep) for sweep in sweeps]


def poses(sweeps: list[Sweep]) -> list[SE3]:
    return [sweep.world_SE3_ego for sweep in sweeps]


def step(poses: list[SE3], k: int) -> np.ndarray:
    """How far the vehicle moves between sweeps `k` and `k` + 1, in the frame of the former."""
    return (poses[k].inverse() @ poses[k + 1]).translation


# --- deskew ------------------------------------------------------------------------------------------------

MOTION = SE3.from_quaternion(np.array([1.0, 0.05, -0.1, 0.3]), np.array([1.0, 2.0, 0.3]))


@pytest.mark.parametrize("interval_ns", [STEP, -STEP, 3 * STEP])
def test_each_point_is_moved_by_its_share_of_the_motion(interval_ns: int):
    rng = np.random.default_rng(0)
    points = rng.normal(0, 20, (60, 3)).astype(np.float32)
    offsets = rng.integers(-STEP // 2, 2 * STEP, 60).astype(np.int32)
    moved = deskew(Sweep(points, 7, time_offset_ns=offsets), MOTION, interval_ns)
    expected = [
        interpolate(SE3.identity(), MOTION, offset / interval_ns).transform(point[None].astype(float))[0]
        for point, offset in zip(points, offsets, strict=True)
    ]
    np.testing.assert_allclose(moved.points, expected, atol=1e-5)
    assert moved.points.dtype == np.float32 and moved.stamp_ns == 7


def test_a_sweep_without_times_or_motion_stays_as_it_is():
    sweep = Sweep(np.ones((3, 3), np.float32), 0)
    assert deskew(sweep, MOTION, STEP) is sweep
    timed = replace(sweep, time_offset_ns=np.arange(3, dtype=np.int32) * 10**7)
    np.testing.assert_array_equal(deskew(timed, SE3.identity(), STEP).points, sweep.points)


def test_rows_without_a_point_stay_so_in_silence():
    points = np.array([[1, 2, 3], [np.nan] * 3, [np.inf, 0, 0]], np.float32)
    with np.errstate(all="raise"):
        moved = deskew(Sweep(points, 0, time_offset_ns=np.full(3, 10**7, np.int32)), MOTION, STEP)
    np.testing.assert_array_equal(np.isfinite(moved.points).all(axis=1), [True, False, False])


# --- errors ------------------------------------------------------------------------------------------------


def test_errors_are_those_of_the_motion_between_neighbours_in_whatever_world():
    true = [SE3.from_yaw(0.1 * k, np.array([k, 0.0, 0.0])) for k in range(4)]
    elsewhere = SE3.from_yaw(2.0, np.array([50.0, -7.0, 3.0]))
    slip = SE3.from_yaw(np.radians(2.0), np.array([0.3, 0.4, 0.0]))
    estimated = [elsewhere @ true[0], elsewhere @ true[1], elsewhere @ true[2] @ slip, elsewhere @ true[3] @ slip]
    metres, degrees = relative_pose_errors(estimated, true)
    assert degrees == pytest.approx([0, 2, 0], abs=1e-5)
    assert metres[:2] == pytest.approx([0, 0.5], abs=1e-9)
    assert metres[2] > 0.01  # after a slip, the same step leads elsewhere
    with pytest.raises(ValueError):
        relative_pose_errors(estimated, true[:3])


# --- KISS-ICP ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["compensated", "fired", "deskewed"])
def test_the_motion_of_a_drive_is_found_to_centimetres(way: str):
    seen, fired = drive()
    estimated = register(seen if way == "compensated" else fired, deskew=way == "deskewed")
    metres, degrees = relative_pose_errors(estimated, poses(seen))
    assert np.linalg.norm(step(poses(seen), 0)) > 0.8
    assert metres.mean() < 0.04 and metres.max() < 0.08
    assert degrees.mean() < 0.15


@pytest.mark.parametrize("sweeps", [22, 78])
def test_on_real_drives_the_motion_is_that_of_the_poses_they_came_with(test_data: Path, sweeps: int):
    """Agreement, not truth: those poses are KISS-ICP's as well."""
    log = av2.Log(next(path for path in av2.find_logs(test_data / "kitti") if len(av2.Log(path)) == sweeps))
    odometry, estimated, given = KissOdometry(), [], []
    for sweep in log.sweeps():
        estimated.append(odometry.register(sweep))
        given.append(sweep.world_SE3_ego)
    metres, degrees = relative_pose_errors(estimated, given)
    way = np.linalg.norm(np.diff([pose.translation for pose in given], axis=0), axis=1)
    print(
        f"{way.sum():.1f} m in {len(way)} steps; a step differs by {100 * metres.mean():.1f} cm (the first five "
        f"{100 * metres[:5].mean():.1f}, at most {100 * metres[5:].max():.1f} from then on) and by "
        f"{degrees.mean():.3f} degrees (at most {degrees.max():.3f})"
    )
    assert odometry.num_sweeps == sweeps
    # The given ones begin with a vehicle that stands, and catch up with it later.
    assert metres[5:].mean() < 0.04 and metres[5:].max() < 0.1
    assert degrees.mean() < 0.1 and degrees.max() < 0.4


@pytest.mark.parametrize("choice, source, expected", [
    ("auto", "kiss_icp", True), ("auto", "odom", False), ("auto", "odometry", False), ("auto", "tf", False),
    ("auto", "none", False), ("always", "odom", True), ("never", "kiss_icp", False),
])  # fmt: skip
def test_clouds_are_deskewed_where_no_driver_can_have_done_it(choice: str, source: str, expected: bool):
    assert deskews(choice, source) is expected


def test_the_world_is_the_frame_of_the_first_sweep():
    seen, fired = drive()
    for estimated in (register(seen, deskew=False), register(fired)):
        np.testing.assert_array_equal(estimated[0].matrix, np.eye(4))
        true = poses(seen)[0].inverse() @ poses(seen)[-1]
        assert np.linalg.norm(estimated[-1].translation - true.translation) < 0.2


def test_deskewed_by_the_estimated_motion_points_are_where_they_would_be_seen_at_the_stamp():
    seen, fired = drive()
    estimated = register(fired)
    motion = estimated[3].inverse() @ estimated[4]
    error = np.linalg.norm(deskew(fired[3], motion, STEP).points - seen[3].points, axis=1)
    assert np.linalg.norm(fired[3].points - seen[3].points, axis=1).mean() > 0.3
    assert error.mean() < 0.03


def _plain(per_sweep: float, sweeps: int = 6) -> list[Sweep]:
    """A plain with posts, for a vehicle that goes so many metres a sweep. Of the points, nine in ten are ground, and
    look the same from everywhere, as the rings of a spinning scanner do."""
    azimuth = np.linspace(-np.pi, np.pi, 900, endpoint=False)
    radii = 1.7 / np.tan(np.radians(np.linspace(2.5, 25, 30)))
    ground = np.concatenate([np.stack([r * np.cos(azimuth), r * np.sin(azimuth), 0 * azimuth], 1) for r in radii])
    posts = np.column_stack([np.random.default_rng(0).uniform(-40, 40, (80, 2)), np.zeros(80)])
    upright = (posts[:, None] + np.linspace(0.1, 3, 40)[:, None] * [0, 0, 1]).reshape(-1, 3)
    seen = [np.concatenate([ground, upright - [per_sweep * k, 0, 0]]) for k in range(sweeps)]
    return [Sweep(points.astype(np.float32), k * STEP) for k, points in enumerate(seen)]


def test_rings_on_the_ground_that_travel_along_dont_hold_the_vehicle():
    estimated = register(_plain(0.5))
    for k in range(5):
        assert step(estimated, k) == pytest.approx([0.5, 0, 0], abs=0.05 if k else 0.1)


@pytest.mark.parametrize("per_sweep", [2.9, -1.6, 4.7])
def test_a_vehicle_that_is_fast_from_the_first_sweep_on_is_caught(per_sweep: float):
    estimated = register(_plain(per_sweep))
    for k in range(5):
        assert step(estimated, k) == pytest.approx([per_sweep, 0, 0], abs=0.05 if k else 0.2)


def test_the_likely_shift_is_that_of_what_stands_upright():
    fast = _plain(2.9, 2)
    np.testing.assert_array_equal(likely_shift(fast[0].points, fast[1].points, 5.0), [3.0, 0, 0])
    np.testing.assert_array_equal(likely_shift(fast[1].points, fast[0].points, 5.0), [-3.0, 0, 0])
    assert np.abs(likely_shift(fast[0].points, fast[1].points, 1.2)).max() <= 1.2


def test_a_vehicle_beside_that_is_as_fast_does_not_outnumber_what_stands():
    beside = np.random.default_rng(1).uniform([-3, 2.5, 0.2], [2, 4.5, 1.8], (30_000, 3)).astype(np.float32)
    first, second = (np.concatenate([sweep.points, beside]) for sweep in _plain(2.9, 2))
    np.testing.assert_array_equal(likely_shift(first, second, 5.0), [3.0, 0, 0])


def test_without_a_hint_the_likely_shift_is_none():
    ground = _plain(0.0, 1)[0].points[:27_000]
    for first, second in ((ground, ground), (ground[:0], ground), (ground, ground[:0])):
        np.testing.assert_array_equal(likely_shift(first, second, 5.0), np.zeros(3))


def _bytes(estimated: list[SE3]) -> bytes:
    return b"".join(pose.matrix.tobytes() for pose in estimated)


ELSEWHERE = """
import sys, numpy as np
from zeroflow_core.ego_motion import KissOdometry
from zeroflow_core.pairs import Sweep

with np.load(sys.argv[1]) as stored:
    sweeps = [Sweep(stored[f"points{k}"], k * 10**8, time_offset_ns=stored[f"times{k}"]) for k in range(5)]
odometry = KissOdometry()
print(b"".join(odometry.register(sweep).matrix.tobytes() for sweep in sweeps).hex())
"""


def test_the_same_sweeps_give_the_same_poses_bit_for_bit_in_any_process(tmp_path):
    """Another process, with settings for KISS-ICP in its environment that must not count."""
    sweeps = [replace(sweep, stamp_ns=k * STEP) for k, sweep in enumerate(drive()[1][:5])]
    expected = _bytes(register(sweeps))
    assert _bytes(register(sweeps)) == expected
    points = {f"points{k}": sweep.points for k, sweep in enumerate(sweeps)}
    np.savez(tmp_path / "sweeps.npz", **points, **{f"times{k}": s.time_offset_ns for k, s in enumerate(sweeps)})
    settings = {"KISS_ICP_REGISTRATION": '{"max_num_threads": 4}', "KISS_ICP_DATA": '{"max_range": 9, "min_range": 3}'}
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(tmp_path / "sweeps.npz")],
        env=os.environ | settings | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.strip() == expected.hex(), done.stderr


@pytest.mark.parametrize("nothing", [np.empty((0, 3)), np.full((100, 3), np.nan), np.full((100, 3), 1e30)])
def test_through_a_sweep_without_points_the_vehicle_goes_on(nothing: np.ndarray):
    seen, fired = drive()
    blind = Sweep(nothing.astype(np.float32), fired[4].stamp_ns, time_offset_ns=np.zeros(len(nothing), np.int32))
    odometry = KissOdometry()
    estimated = [odometry.register(sweep) for sweep in [*fired[:4], blind, *fired[5:]]]
    assert odometry.num_sweeps == SWEEPS - 1
    assert step(estimated, 3) == pytest.approx(step(estimated, 2), abs=0.03)
    true = poses(seen)
    for k in (3, 4, 5):
        assert np.linalg.norm(step(estimated, k) - step(true, k)) < 0.15
    assert np.linalg.norm(step(estimated, 6) - step(true, 6)) < 0.05


def test_before_the_first_points_the_vehicle_stands():
    odometry = KissOdometry()
    empty = Sweep(np.empty((0, 3), np.float32), drive()[1][0].stamp_ns - STEP)
    np.testing.assert_array_equal(odometry.register(empty).matrix, np.eye(4))
    assert odometry.num_sweeps == 0
    estimated = [odometry.register(sweep) for sweep in drive()[1]]
    assert _bytes(estimated) == _bytes(register(drive()[1]))


def test_sweeps_may_be_missing():
    seen, fired = drive()
    kept = [k for k in range(SWEEPS) if k not in (3, 5)]
    estimated = register([fired[k] for k in kept])
    metres, _ = relative_pose_errors(estimated, [poses(seen)[k] for k in kept])
    assert metres.max() < 0.1


@pytest.mark.parametrize("jump_ns", [-5 * STEP, 10 * STEP])
def test_a_stamp_that_goes_back_and_a_long_gap_start_anew(jump_ns: int):
    first, second = drive()[1][:4], drive()[1][4:]
    shift = first[-1].stamp_ns + jump_ns - second[0].stamp_ns + (1 if jump_ns > 0 else 0)
    second = [replace(sweep, stamp_ns=sweep.stamp_ns + shift) for sweep in second]
    odometry = KissOdometry()
    for sweep in first:
        odometry.register(sweep)
    estimated = [odometry.register(second[0])]
    assert odometry.num_sweeps == 1
    np.testing.assert_array_equal(estimated[0].matrix, np.eye(4))
    estimated += [odometry.register(sweep) for sweep in second[1:]]
    assert _bytes(estimated) == _bytes(register(second))


def test_a_second_without_sweeps_is_not_too_long():
    sweeps = drive()[1][:2]
    odometry = KissOdometry()
    odometry.register(sweeps[0])
    odometry.register(replace(sweeps[1], stamp_ns=sweeps[0].stamp_ns + 10 * STEP))
    assert odometry.num_sweeps == 2


def test_a_stamp_that_repeats_changes_nothing():
    sweeps = drive()[1]
    odometry = KissOdometry()
    once = [odometry.register(sweep) for sweep in sweeps[:3]]
    np.testing.assert_array_equal(odometry.register(sweeps[2]).matrix, once[2].matrix)
    assert odometry.num_sweeps == 3
    assert _bytes([*once, odometry.register(sweeps[3])]) == _bytes(register(sweeps[:4]))


@pytest.mark.parametrize("nonsense", [np.nan, 50.0])
def test_when_lost_the_vehicle_goes_on_and_is_found_again(monkeypatch, nonsense: float):
    """KISS-ICP says something impossible about the fifth sweep: not finite, or 50 m in a tenth of a second."""
    seen, fired = drive()
    calls = []

    def failing_icp(max_range):
        icp = new_icp(max_range)
        register_frame = icp.register_frame

        def failing(points, times):
            register_frame(points, times)
            calls.append(len(points))
            if len(calls) == 7:  # two sweeps are registered twice
                icp.last_pose = icp.last_pose + nonsense * np.eye(4, k=3)

        icp.register_frame = failing
        return icp

    monkeypatch.setattr("zeroflow_core.ego_motion.odometry.new_icp", failing_icp)
    estimated = register(fired)
    assert step(estimated, 3) == pytest.approx(step(estimated, 2), abs=0.03)
    metres, _ = relative_pose_errors(estimated, poses(seen))
    assert len(calls) == SWEEPS + 3 and metres.max() < 0.2


def test_without_kiss_icp_it_is_told_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "kiss_icp.kiss_icp", None)
    with pytest.raises(ZeroFlowError, match="pip install kiss-icp"):
        KissOdometry()
