"""Where clouds were taken by what a bag's /tf and /tf_static say, however the frames are arranged."""

from __future__ import annotations

import numpy as np
import pytest
from bag_cases import POINTS, START, STEP, cloud_message, odometry_message, record, tf_message

from zeroflow_core.datasets.bags import Bag, read_sweeps
from zeroflow_core.datasets.bags.poses import tf_poses
from zeroflow_core.datasets.bags.transforms import read_transforms
from zeroflow_core.geometry import SE3

MOUNT = SE3.from_yaw(0.4, np.array([1.0, 0.2, 1.8]))
FOOT = SE3(np.eye(3), np.array([0.0, 0.0, 0.3]))


def base_at(time_ns: int) -> SE3:
    """Straight ahead at 10 m/s: an interpolated pose is exact."""
    return SE3(np.eye(3), np.array([(time_ns - START) * 1e-8, 0.0, 0.0]))


def moving(parent: str, child: str, pose=base_at, start: int = START, stop: int = START + 10 * STEP) -> list:
    times = range(start, stop, STEP)
    return [("/tf", tf_message((parent, child, pose(t)), time_ns=t), t) for t in times]


def static(parent: str, child: str, transform: SE3) -> list:
    return [("/tf_static", tf_message((parent, child, transform)), START)]


def clouds(frame: str = "velodyne", at: tuple[int, ...] = (START + 3 * STEP // 2,)) -> list:
    return [("/points", cloud_message(POINTS, t, frame), t) for t in at]


AHEAD = base_at(START + 3 * STEP // 2)


@pytest.mark.parametrize(
    "transforms, world_SE3_cloud, names",
    [
        (moving("odom", "base_link") + static("base_link", "velodyne", MOUNT), AHEAD @ MOUNT, ("odom", "base_link")),
        # odom never jumps, map does
        (
            moving("map", "odom", lambda t: SE3.from_yaw(1.0, np.zeros(3)))
            + moving("/odom", "/base_link")
            + static("/base_link", "/velodyne", MOUNT),
            AHEAD @ MOUNT,
            ("odom", "base_link"),
        ),
        (moving("map", "base_link") + static("base_link", "velodyne", MOUNT), AHEAD @ MOUNT, ("map", "base_link")),
        # the vehicle is base_link, whatever is below it on the way
        (
            moving("odom", "base_footprint")
            + static("base_footprint", "base_link", FOOT)
            + static("base_link", "velodyne", MOUNT),
            AHEAD @ FOOT @ MOUNT,
            ("odom", "base_link"),
        ),
        # other names: what moves is the vehicle
        (
            static("earth", "start", MOUNT) + moving("start", "car") + static("car", "velodyne", MOUNT),
            AHEAD @ MOUNT,
            ("start", "car"),
        ),
        # namespaces
        (
            moving("robot/odom", "robot/base_link") + static("robot/base_link", "velodyne", MOUNT),
            AHEAD @ MOUNT,
            ("robot/odom", "robot/base_link"),
        ),
        # upside down, as some estimators publish
        (
            moving("base_link", "odom", lambda t: base_at(t).inverse()) + static("base_link", "velodyne", MOUNT),
            AHEAD @ MOUNT,
            ("odom", "base_link"),
        ),
        # a mast that turns on the vehicle
        (
            moving("odom", "base_link")
            + moving("base_link", "mast", lambda t: SE3.from_yaw((t - START) * 1e-9, np.array([0, 0, 1.0])))
            + static("mast", "velodyne", MOUNT),
            AHEAD @ SE3.from_yaw(0.15, np.array([0, 0, 1.0])) @ MOUNT,
            ("odom", "base_link"),
        ),
        # a mounting that is said again and again, but not at that time
        (
            moving("odom", "base_link") + moving("base_link", "velodyne", lambda t: MOUNT, start=START + 4 * STEP),
            AHEAD @ MOUNT,
            ("odom", "base_link"),
        ),
        # both say the same frame: what never moves is right
        (
            moving("odom", "base_link")
            + static("base_link", "velodyne", MOUNT)
            + moving("base_link", "velodyne", lambda t: FOOT),
            AHEAD @ MOUNT,
            ("odom", "base_link"),
        ),
        # a vehicle that stands still has a pose as well
        (
            moving("odom", "base_link", lambda t: FOOT) + static("base_link", "velodyne", MOUNT),
            FOOT @ MOUNT,
            ("odom", "base_link"),
        ),
    ],
)
def test_poses_by_transforms(tmp_path, transforms, world_SE3_cloud, names):
    bag = record(tmp_path / "bag", transforms + clouds())
    (sweep,) = read_sweeps(bag)
    np.testing.assert_allclose(sweep.world_SE3_ego.matrix, world_SE3_cloud.matrix, atol=1e-9)
    np.testing.assert_array_equal(sweep.points, POINTS)
    with Bag(bag) as opened:
        poses = tf_poses(read_transforms(opened), "velodyne")
    assert (poses.world, poses.base) == names


@pytest.mark.parametrize(
    "transforms",
    [
        [],
        [("/tf", tf_message(), START)],
        static("base_link", "velodyne", MOUNT),  # nothing moves
        static("odom", "velodyne", MOUNT),
        moving("odom", "base_link"),  # not joined
        moving("odom", "base_link") + static("base_link", "camera", MOUNT),
        static("velodyne", "a", MOUNT) + static("a", "velodyne", MOUNT),  # a ring
        static("velodyne", "velodyne", MOUNT),
        moving("a", "velodyne") + moving("velodyne", "a"),
    ],
)
def test_transforms_that_tell_no_poses(tmp_path, transforms):
    bag = record(tmp_path / "bag", transforms + clouds())
    with Bag(bag) as opened:
        poses = tf_poses(read_transforms(opened), "velodyne")
    assert poses is None
    (sweep,) = read_sweeps(bag)
    assert sweep.world_SE3_ego is None


def test_transforms_end_and_have_gaps(tmp_path):
    early, late = moving("odom", "velodyne", stop=START + 2 * STEP), moving("odom", "velodyne", start=START + 20 * STEP)
    times = (START - 1, START, START + STEP, START + 10 * STEP, START + 20 * STEP, START + 99 * STEP)
    sweeps = read_sweeps(record(tmp_path / "bag", early + late[:2] + clouds(at=times)))
    assert [sweep.world_SE3_ego is not None for sweep in sweeps] == [False, True, True, False, False, False]


def test_odometry_comes_first_and_transforms_where_it_does_not_fit(tmp_path):
    transforms = moving("odom", "base_link") + static("base_link", "velodyne", MOUNT)
    elsewhere = SE3(np.eye(3), np.array([7.0, 7.0, 7.0]))
    times = (START + STEP, START + 2 * STEP)
    for child, expected in (("base_link", elsewhere @ MOUNT), ("wheels", AHEAD @ MOUNT)):
        odometry = [("/odom", odometry_message(elsewhere, t, child), t) for t in times]
        (sweep,) = read_sweeps(record(tmp_path / child, transforms + odometry + clouds()))
        np.testing.assert_allclose(sweep.world_SE3_ego.matrix, expected.matrix, atol=1e-9)


@pytest.mark.parametrize(
    "transforms, base",
    [
        ([], "velodyne"),
        (static("base_link", "velodyne", MOUNT), "base_link"),
        (static("base_footprint", "base_link", FOOT) + static("base_link", "velodyne", MOUNT), "base_link"),
        (static("roof", "mast", FOOT) + static("mast", "velodyne", MOUNT), "roof"),
        (static("map", "velodyne", MOUNT), "velodyne"),
        (static("a", "velodyne", MOUNT) + static("velodyne", "a", MOUNT), "a"),
        (moving("base_link", "velodyne"), "velodyne"),
    ],
)
def test_what_a_scanner_is_fixed_to(tmp_path, transforms, base):
    with Bag(record(tmp_path / "bag", transforms + clouds())) as bag:
        tree = read_transforms(bag)
    assert tree.rigid_base("velodyne") == base
    assert tree.lookup(base, "velodyne", START) is not None


def test_what_is_no_transform_is_stepped_over(tmp_path):
    broken = tf_message(("odom", "velodyne", MOUNT), time_ns=START)
    broken.transforms[0].transform.rotation.w = float("nan")
    with Bag(record(tmp_path / "bag", [("/tf", broken, START)] + moving("odom", "base_link"))) as bag:
        tree = read_transforms(bag)
    assert not tree.joins("odom", "velodyne") and tree.joins("odom", "base_link")
