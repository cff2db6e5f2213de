"""SE3 against answers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from zeroflow_core.geometry import SE3, finite_rows, interpolate

QUARTER = np.pi / 2
# A quarter turn about x: y becomes z, z becomes -y.
ABOUT_X = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])


def random_pose(rng: np.random.Generator) -> SE3:
    return SE3.from_quaternion(rng.normal(size=4), rng.normal(0, 100, 3))


def test_yaw_turns_counter_clockwise_then_moves():
    pose = SE3.from_yaw(QUARTER, np.array([10.0, 20.0, 30.0]))
    np.testing.assert_allclose(pose.transform(np.array([[1.0, 2.0, 3.0]])), [[8.0, 21.0, 33.0]])


def test_composition_reads_from_right_to_left():
    world_SE3_ego = SE3.from_yaw(QUARTER, np.array([100.0, 0.0, 0.0]))
    ego_SE3_lidar = SE3(np.eye(3), np.array([1.0, 0.0, 2.0]))
    # The scanner is 1 m ahead of an ego that looks along world y.
    np.testing.assert_allclose((world_SE3_ego @ ego_SE3_lidar).translation, [100.0, 1.0, 2.0])
    np.testing.assert_allclose((ego_SE3_lidar @ world_SE3_ego).translation, [101.0, 0.0, 2.0])


def test_inverse_by_hand_and_in_general():
    np.testing.assert_allclose(
        SE3.from_yaw(QUARTER, np.array([10.0, 20.0, 30.0])).inverse().translation,
        [-20.0, 10.0, -30.0],
        atol=1e-12,
    )
    rng = np.random.default_rng(0)
    for _ in range(20):
        pose = random_pose(rng)
        np.testing.assert_allclose((pose @ pose.inverse()).matrix, np.eye(4), atol=1e-12)
        np.testing.assert_allclose(pose.inverse().matrix, np.linalg.inv(pose.matrix), atol=1e-9)


def test_rotate_leaves_the_translation_out():
    pose = SE3(ABOUT_X, np.array([5.0, 6.0, 7.0]))
    np.testing.assert_array_equal(pose.rotate(np.array([[0.0, 1.0, 0.0]])), [[0.0, 0.0, 1.0]])


@pytest.mark.parametrize("rows", [0, 1, 8192, 8193, 20_000])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_clouds_of_every_size_are_moved_as_one_matrix_moves_them(rows: int, dtype):
    rng = np.random.default_rng(rows)
    pose, points = random_pose(rng), rng.normal(0, 50, (rows, 3)).astype(dtype)
    exact = points.astype(np.float64) @ pose.rotation.T + pose.translation
    for moved, expected in ((pose.transform(points), exact), (pose.rotate(points), exact - pose.translation)):
        assert moved.shape == points.shape and moved.dtype == (np.float64 if dtype is np.int64 else dtype)
        np.testing.assert_allclose(moved, expected, rtol=1e-6 if dtype is np.float32 else 1e-12, atol=1e-5)
    np.testing.assert_array_equal(pose.transform(np.asfortranarray(points)), pose.transform(points))


def test_float32_clouds_are_moved_with_the_precision_of_float64():
    pose = SE3(ABOUT_X, np.array([1e7, -1e7, 1e7]))
    points = np.random.default_rng(0).normal(0, 50, (100, 3)).astype(np.float32)
    there = pose.transform(points.astype(np.float64))
    np.testing.assert_array_equal(pose.transform(points), there.astype(np.float32))


def test_rows_that_are_not_finite_stay_so_and_harm_no_others():
    points = np.ones((6, 3), dtype=np.float32)
    points[1, 0], points[2, 1], points[3, 2], points[4] = np.nan, np.inf, -np.inf, 3e38
    assert finite_rows(points).tolist() == [True, False, False, False, True, True]
    assert finite_rows(points[:0]).shape == (0,)
    moved = SE3.from_yaw(0.5, np.array([1.0, 2.0, 3.0])).transform(points)
    assert finite_rows(moved)[[0, 1, 2, 3, 5]].tolist() == [True, False, False, False, True]
    np.testing.assert_array_equal(SE3.identity().transform(points), points)
    assert SE3.identity().transform(points) is not points


@pytest.mark.parametrize(
    "wxyz, rotation",
    [
        ([1, 0, 0, 0], np.eye(3)),
        ([1, 1, 0, 0], ABOUT_X),
        ([-2, -2, 0, 0], ABOUT_X),  # neither length nor sign matters
        ([1, 0, 0, 1], [[0, -1, 0], [1, 0, 0], [0, 0, 1]]),
        ([1, 0, 1, 0], [[0, 0, 1], [0, 1, 0], [-1, 0, 0]]),
        ([0, 1, 0, 0], np.diag([1, -1, -1])),
        ([0, 0, 1, 0], np.diag([-1, 1, -1])),
        ([0, 0, 0, 1], np.diag([-1, -1, 1])),
        ([1, 1, 1, 1], [[0, 0, 1], [1, 0, 0], [0, 1, 0]]),
    ],
)
def test_quaternions_by_hand(wxyz, rotation):
    pose = SE3.from_quaternion(wxyz, np.zeros(3))
    np.testing.assert_allclose(pose.rotation, rotation, atol=1e-15)
    expected = np.array(wxyz) / np.linalg.norm(wxyz)
    assert pose.quaternion[0] >= 0
    assert abs(pose.quaternion @ expected) == pytest.approx(1.0, abs=1e-12)


def test_quaternion_and_matrix_there_and_back():
    rng = np.random.default_rng(1)
    for _ in range(200):
        pose = random_pose(rng)
        again = SE3.from_quaternion(pose.quaternion, pose.translation)
        np.testing.assert_allclose(again.rotation, pose.rotation, atol=1e-12)
        np.testing.assert_array_equal(SE3.from_matrix(pose.matrix).matrix, pose.matrix)


def test_points_keep_their_dtype_but_are_moved_in_double():
    far = SE3(np.eye(3), np.array([1e7, 0.0, 0.0]))
    point = np.array([[0.125, 0.0, 0.0]], dtype=np.float32)
    moved = (far.inverse() @ far).transform(point)
    assert moved.dtype == np.float32
    np.testing.assert_array_equal(moved, point)
    assert far.transform(point.astype(np.float64)).tolist() == [[10_000_000.125, 0.0, 0.0]]
    assert SE3.identity().transform(np.array([[1, 2, 3]])).dtype == np.float64


def test_rows_that_are_not_finite_stay_so_and_disturb_no_other():
    points = np.array([[np.nan, 0, 0], [1, 2, 3], [np.inf, 0, 0]], dtype=np.float32)
    with np.errstate(all="raise"):  # and no warning at 10 Hz
        moved = SE3.from_yaw(0.3, np.ones(3)).transform(points)
    assert np.isfinite(moved[1]).all() and not np.isfinite(moved[[0, 2]]).all(axis=1).any()


@pytest.mark.parametrize(
    "make",
    [
        lambda: SE3(np.eye(2), np.zeros(3)),
        lambda: SE3(np.eye(3), np.zeros(4)),
        lambda: SE3(np.eye(3) * 2, np.zeros(3)),
        lambda: SE3(np.diag([1.0, 1.0, -1.0]), np.zeros(3)),  # a mirror, not a rotation
        lambda: SE3(np.eye(3), np.array([0.0, np.nan, 0.0])),
        lambda: SE3.from_matrix(np.eye(3)),
        lambda: SE3.from_quaternion([0, 0, 0, 0], np.zeros(3)),
        lambda: SE3.from_quaternion([np.nan, 0, 0, 1], np.zeros(3)),
        lambda: SE3.from_quaternion([0, 0, 1], np.zeros(3)),
    ],
)
def test_what_is_no_pose_is_refused(make):
    with pytest.raises(ValueError):
        make()


def test_interpolation_by_hand():
    start, end = SE3.from_yaw(0.0, np.zeros(3)), SE3.from_yaw(1.0, np.array([4.0, 8.0, 0.0]))
    quarter = interpolate(start, end, 0.25)
    np.testing.assert_allclose(
        quarter.matrix, SE3.from_yaw(0.25, np.array([1.0, 2.0, 0.0])).matrix, atol=1e-12
    )
    np.testing.assert_allclose(interpolate(start, end, 0.0).matrix, start.matrix, atol=1e-12)
    np.testing.assert_allclose(interpolate(start, end, 1.0).matrix, end.matrix, atol=1e-12)


def test_interpolation_beyond_the_ends_keeps_the_velocity():
    start, end = SE3.from_yaw(0.0, np.zeros(3)), SE3.from_yaw(0.1, np.array([1.0, 0.0, 0.0]))
    np.testing.assert_allclose(
        interpolate(start, end, 2.0).matrix, SE3.from_yaw(0.2, np.array([2.0, 0.0, 0.0])).matrix, atol=1e-12
    )
    np.testing.assert_allclose(
        interpolate(start, end, -1.0).matrix,
        SE3.from_yaw(-0.1, np.array([-1.0, 0.0, 0.0])).matrix,
        atol=1e-12,
    )


def test_interpolation_takes_the_short_way_round():
    start, end = SE3.from_yaw(np.radians(170), np.zeros(3)), SE3.from_yaw(np.radians(-170), np.zeros(3))
    np.testing.assert_allclose(
        interpolate(start, end, 0.5).rotation, SE3.from_yaw(np.pi, np.zeros(3)).rotation, atol=1e-12
    )


def test_interpolation_between_equal_poses():
    pose = SE3.from_yaw(2.0, np.array([1.0, 2.0, 3.0]))
    np.testing.assert_allclose(interpolate(pose, pose, 0.3).matrix, pose.matrix, atol=1e-12)
