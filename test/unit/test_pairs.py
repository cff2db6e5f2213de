"""Sweeps, pairs and flow on scenes small enough to know every number."""

from __future__ import annotations

import numpy as np
import pytest

from zeroflow_core.geometry import SE3
from zeroflow_core.ground import mark_ground, no_ground
from zeroflow_core.pairs import FramePair, Status, Sweep, estimate_flow, make_pair, remove_ego_motion

INTERVAL_NS = 100_000_000


def sweep(points, stamp_ns=0, pose=None, ground=None) -> Sweep:
    points = np.asarray(points, dtype=np.float32).reshape(-1, 3)
    is_ground = np.zeros(len(points), bool) if ground is None else np.asarray(ground)
    return Sweep(points, stamp_ns, world_SE3_ego=pose or SE3.identity(), is_ground=is_ground)


class Student:
    """Answers with what it is told and remembers what it was shown."""

    def __init__(self, answer):
        self.answer = answer

    def flow(self, pc0, pc1):
        self.seen = pc0, pc1
        return self.answer(pc0)


@pytest.mark.parametrize(
    "points",
    [np.zeros((3, 3)), np.zeros((3, 2), np.float32), np.zeros(3, np.float32)],
    ids=["float64", "two columns", "flat"],
)
def test_a_sweep_is_n_by_3_float32(points):
    with pytest.raises(ValueError, match="float32"):
        Sweep(points, 0)


@pytest.mark.parametrize("name", ["intensity", "ring", "time_offset_ns", "is_ground"])
def test_columns_of_a_sweep_are_as_long_as_its_points(name):
    with pytest.raises(ValueError, match=name):
        Sweep(np.zeros((3, 3), np.float32), 0, **{name: np.zeros(2)})


def test_the_second_sweep_comes_into_the_frame_of_the_first():
    # The ego stands at (10, 0), looks along y, drives 1 m and turns left by a quarter; a pole is at (10, 6).
    first = sweep([[6, 0, 0]], 0, SE3.from_yaw(np.pi / 2, np.array([10.0, 0.0, 0.0])))
    second = sweep([[0, -5, 0]], INTERVAL_NS, SE3.from_yaw(np.pi, np.array([10.0, 1.0, 0.0])))
    pole_in_second = second.world_SE3_ego.inverse().transform(np.array([[10.0, 6.0, 0.0]]))
    np.testing.assert_allclose(pole_in_second, second.points, atol=1e-12)

    pair = make_pair(first, second)
    np.testing.assert_array_equal(pair.pc0, first.points)
    np.testing.assert_allclose(pair.pc1, [[6, 0, 0]], atol=1e-6)
    assert pair.pc1.dtype == np.float32
    np.testing.assert_allclose(pair.ego0_SE3_ego1.translation, [1, 0, 0], atol=1e-12)
    assert pair.dt == pytest.approx(0.1)
    assert (pair.stamp0_ns, pair.stamp1_ns) == (0, INTERVAL_NS)


def test_poses_far_from_the_origin_cost_no_accuracy():
    city = np.array([5e6, -3e6, 100.0])
    first = sweep([[20, 1, 0]], 0, SE3.from_yaw(0.7, city))
    ahead = SE3.from_yaw(0.7, city) @ SE3(np.eye(3), np.array([2.0, 0.0, 0.0]))
    pair = make_pair(first, sweep([[18, 1, 0]], INTERVAL_NS, ahead))
    np.testing.assert_allclose(pair.pc1, pair.pc0, atol=1e-6)


def test_live_order_is_newest_first_and_dt_negative():
    newest, previous = sweep([[1, 0, 0]], INTERVAL_NS), sweep([[0, 0, 0]], 0)
    pair = make_pair(newest, previous)
    assert pair.dt == pytest.approx(-0.1)
    # The point came from 1 m behind in 0.1 s, so the way back to where it was is -1 m.
    flow = estimate_flow(Student(lambda pc0: np.array([[-1.0, 0.0, 0.0]])), pair)
    np.testing.assert_allclose(flow.velocity, [[10.0, 0.0, 0.0]], rtol=1e-6)
    assert flow.velocity.dtype == np.float32


@pytest.mark.parametrize(
    "first, second, says",
    [
        (Sweep(np.zeros((1, 3), np.float32), 0), sweep([[0, 0, 0]], 1), "pose"),
        (sweep([[0, 0, 0]], 0), sweep([[0, 0, 0]], 0), "stamp"),
        (
            sweep([[0, 0, 0]], 0),
            Sweep(np.zeros((1, 3), np.float32), 1, world_SE3_ego=SE3.identity()),
            "mark_ground",
        ),
    ],
)
def test_what_makes_no_pair_is_refused(first, second, says):
    with pytest.raises(ValueError, match=says):
        make_pair(first, second)


def test_ego_motion_out_of_total_flow():
    # The ego moves 2 m ahead. Seen from it, a wall slides back by 2 m, a car with its speed stands still.
    ego0_SE3_ego1 = SE3(np.eye(3), np.array([2.0, 0.0, 0.0]))
    points = np.array([[10.0, 5.0, 1.0], [8.0, 0.0, 1.0]])
    total = np.array([[-2.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(
        remove_ego_motion(points, total, ego0_SE3_ego1), [[0, 0, 0], [2, 0, 0]], atol=1e-12
    )


def test_ego_rotation_out_of_total_flow():
    # A left turn on the spot by a quarter: what was ahead is now to the right.
    turn = SE3.from_yaw(np.pi / 2, np.zeros(3))
    total = np.array([[0.0, -7.0, 0.0]]) - np.array([[7.0, 0.0, 0.0]])
    np.testing.assert_allclose(
        remove_ego_motion(np.array([[7.0, 0.0, 0.0]]), total, turn), [[0, 0, 0]], atol=1e-12
    )


def test_estimate_flow_shows_the_student_no_ground_and_labels_every_point():
    nan = np.nan
    pair = FramePair(
        pc0=np.array(
            [[1, 0, 0], [2, 0, -2], [nan, 0, 0], [200, 0, 0], [3, 0, 0], [np.inf, 1, 1]], np.float32
        ),
        pc1=np.array([[1, 1, 0], [2, 0, -2], [3, 1, 0]], np.float32),
        is_ground0=np.array([False, True, False, False, False, False]),
        is_ground1=np.array([False, True, False]),
        stamp0_ns=0,
        stamp1_ns=INTERVAL_NS,
        ego0_SE3_ego1=SE3.identity(),
    )
    student = Student(lambda pc0: np.array([[0, 1, 0], [nan, nan, nan], [0, 2, 0]], np.float32))
    flow = estimate_flow(student, pair)
    np.testing.assert_array_equal(student.seen[0], pair.pc0[[0, 3, 4]])
    np.testing.assert_array_equal(student.seen[1], pair.pc1[[0, 2]])
    assert flow.status.dtype == np.uint8 and flow.vectors.dtype == np.float32
    assert flow.status.tolist() == [
        Status.OK,
        Status.GROUND,
        Status.NOT_FINITE,
        Status.OUT_OF_RANGE,
        Status.OK,
        Status.NOT_FINITE,
    ]
    none = [nan] * 3
    np.testing.assert_array_equal(flow.vectors, [[0, 1, 0], [0, 0, 0], none, none, [0, 2, 0], none])
    np.testing.assert_allclose(flow.velocity[4], [0, 20, 0], rtol=1e-6)


def test_flow_of_empty_clouds():
    pair = make_pair(sweep([], 0), sweep([], INTERVAL_NS))
    flow = estimate_flow(Student(lambda pc0: np.empty((0, 3), np.float32)), pair)
    assert flow.vectors.shape == (0, 3) and flow.status.shape == (0,)


def test_a_marked_sweep_goes_into_a_pair():
    first = Sweep(np.ones((2, 3), np.float32), 0, world_SE3_ego=SE3.identity())
    marked = mark_ground(first, no_ground)
    assert first.is_ground is None  # a Sweep is never changed, only replaced
    assert make_pair(marked, sweep([[1, 1, 1]], INTERVAL_NS)).is_ground0.tolist() == [False, False]
