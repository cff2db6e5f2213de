"""A student's motion is taken back where the other sweep does not bear it out, and nowhere else."""

import numpy as np
import pytest
from motion_cases import CAR, STILL, WALL, jittered, shell
from scipy.spatial import cKDTree

from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.fastflow3d.anchored import flow_estimator
from zeroflow_core.geometry import SE3
from zeroflow_core.pairs import FramePair, Status, as_flow
from zeroflow_core.verification.flows import VERIFY, is_verified, verify_flow
from zeroflow_core.verification.kernels import gaps
from zeroflow_core.verification.verdicts import MOVES, STANDS, UNKNOWN, Rules, judge

POST = shell(1, 1, 2, at=(-9, 3, 0))
FORWARD = np.array([0.9, 0.1, 0])
RULES = Rules(alike=0.5, fewest=8, lowest=0.15, explained=0.8, refuted=0.9)


def pair_of(parts, dt_ns=100_000_000):
    """A FramePair of (points, true motion, what a student says), metres; its flow by the student; each point's part."""
    rng = np.random.default_rng(3)
    pc0 = np.concatenate([jittered(points, rng) for points, _, _ in parts]).astype(np.float32)
    pc1 = np.concatenate([jittered(points + motion, rng) for points, motion, _ in parts]).astype(np.float32)
    said = np.concatenate([np.broadcast_to(told, points.shape) for points, _, told in parts]).astype(np.float32)
    ground = [np.zeros(len(cloud), dtype=bool) for cloud in (pc0, pc1)]
    stamps = (0, dt_ns) if dt_ns > 0 else (-dt_ns, 0)
    pair = FramePair(pc0, pc1, *ground, *stamps, SE3.identity())
    return pair, as_flow(said, pc0, ground[0], pair.dt), np.repeat(np.arange(len(parts)), [len(p) for p, _, _ in parts])


@pytest.mark.parametrize("sign", [1, -1])
def test_a_car_keeps_what_was_said_and_what_stands_is_put_right(sign):
    pair, flow, part = pair_of(
        [(CAR, sign * FORWARD, sign * FORWARD), (WALL, STILL, [0.3, 0, 0]), (POST, STILL, [0, 0.5, 0])],
        sign * 100_000_000,
    )
    verified = verify_flow(flow, pair)
    np.testing.assert_array_equal(verified.vectors[part == 0], flow.vectors[part == 0])
    assert not verified.vectors[part > 0].any()
    np.testing.assert_array_equal(verified.status, flow.status)
    assert verified.dt == flow.dt and verified.vectors.dtype == np.float32


def test_a_speed_that_is_wrong_by_a_quarter_is_kept():
    """A student is right about what moves before it is about how fast."""
    pair, flow, _ = pair_of([(CAR, FORWARD, 0.75 * FORWARD)])
    np.testing.assert_array_equal(verify_flow(flow, pair).vectors, flow.vectors)


def test_what_is_slower_than_anyone_can_tell_stands():
    pair, flow, _ = pair_of([(CAR, STILL, [0.02, 0, 0])])
    assert flow.vectors.any() and not verify_flow(flow, pair).vectors.any()


def test_points_without_an_estimate_and_ground_stay_as_they_are():
    pair, flow, _ = pair_of([(CAR, FORWARD, FORWARD)])
    flow.vectors[::7], flow.status[::7] = np.nan, Status.OUT_OF_RANGE
    flow.vectors[3::7], flow.status[3::7] = 0, Status.GROUND
    verified = verify_flow(flow, pair)
    np.testing.assert_array_equal(verified.vectors, flow.vectors)
    np.testing.assert_array_equal(verified.status, flow.status)


def test_ground_and_missing_returns_of_the_other_sweep_bear_nothing_out():
    """The car is gone, and what lies where it is said to be is ground, or nowhere."""
    pair, flow, _ = pair_of([(CAR, FORWARD, FORWARD)])
    pair.is_ground1[:] = True
    assert not verify_flow(flow, pair).vectors.any()
    pair, flow, _ = pair_of([(CAR, FORWARD, FORWARD)])
    pair.pc1[5:] = np.nan
    assert not verify_flow(flow, pair).vectors.any()


@pytest.mark.parametrize("count", [0, 1, 5])
def test_next_to_nothing_to_go_by(count):
    pc0, pc1 = np.zeros((count, 3), np.float32), np.zeros((2, 3), np.float32)
    pair = FramePair(pc0, pc1, np.zeros(count, bool), np.zeros(2, bool), 0, 100_000_000, SE3.identity())
    flow = as_flow(np.full((count, 3), 0.5, np.float32), pc0, pair.is_ground0, pair.dt)
    assert verify_flow(flow, pair).vectors.shape == (count, 3) and not verify_flow(flow, pair).vectors.any()


@pytest.mark.parametrize("far", [10.0, 3e6, 3e38, np.inf, -np.inf])
def test_a_flow_that_diverged_stands_and_costs_nothing(far):
    """Points a student throws kilometres away must not make a grid of kilometres."""
    pair, flow, part = pair_of([(CAR, FORWARD, FORWARD), (WALL, STILL, [far, -far, 0])])
    verified = verify_flow(flow, pair)
    np.testing.assert_array_equal(verified.vectors[part == 0], flow.vectors[part == 0])
    assert not verified.vectors[part == 1].any()


def test_the_flow_itself_is_not_changed():
    pair, flow, _ = pair_of([(WALL, STILL, [0.3, 0, 0])])
    before = flow.vectors.copy()
    verify_flow(flow, pair)
    np.testing.assert_array_equal(flow.vectors, before)


def test_few_points_of_a_thing_are_asked_and_say_the_same():
    rng = np.random.default_rng(1)
    points = np.concatenate([jittered(CAR, rng), jittered(WALL, rng)])
    motion = np.concatenate([np.broadcast_to(FORWARD, CAR.shape), np.broadcast_to([0.3, 0, 0], WALL.shape)])
    others = np.concatenate([jittered(CAR + FORWARD, rng), jittered(WALL, rng)])
    every, some = (judge(points, motion, others, 0.1, Rules(0.5, 8, 0.15, 0.85, 0.85, n)) for n in (None, 50))
    np.testing.assert_array_equal(every, some)
    assert set(every[: len(CAR)]) == {MOVES} and set(every[len(CAR) :]) == {STANDS}


def test_a_thing_has_one_verdict_and_touching_things_that_move_apart_have_their_own():
    beside = CAR + [0, 2.0, 0]  # 0.2 m away, and the other way
    rng = np.random.default_rng(1)
    points, others = np.concatenate([CAR, beside]), np.concatenate([CAR + FORWARD, beside])
    motion = np.concatenate([np.broadcast_to(FORWARD, CAR.shape), np.broadcast_to(-FORWARD, CAR.shape)])
    verdict = judge(jittered(points, rng), motion, jittered(others, rng), 0.1, RULES)
    # but for cells that both are in
    assert (verdict[: len(CAR)] == MOVES).mean() > 0.75 and (verdict[len(CAR) :] == STANDS).mean() > 0.75


def test_too_few_points_are_unknown():
    few = np.array([[30.0, 0, 0], [30.1, 0, 0], [30.0, 0.1, 0]])
    assert set(judge(few, np.full((3, 3), 0.4), few + 0.4, 0.1, RULES)) == {UNKNOWN}


@pytest.mark.parametrize("side, farthest", [(0.5, 1.0), (0.7, 1.0), (3.0, 1.0)])
def test_gaps_are_the_distances_to_the_nearest_points(side, farthest):
    rng = np.random.default_rng(7)
    queries, others = rng.uniform([-5, -9, -1], [8, 6, 2], (700, 3)), rng.uniform(-10, 10, (900, 3)).astype(np.float32)
    low = queries[:, :2].min(axis=0)
    shape = np.floor((queries[:, :2].max(axis=0) - low) / side).astype(np.int64) + 1
    expected = np.minimum(cKDTree(others.astype(np.float64)).query(queries)[0], farthest)
    assert 0.2 < (expected < farthest).mean() < 0.9
    np.testing.assert_allclose(gaps(queries, others, low, side, shape, farthest), expected, rtol=1e-12)


def test_a_query_at_the_rim_of_the_grid_finds_its_neighbour():
    """Alone it is the rim, and by rounding may seem to lie beyond."""
    rng = np.random.default_rng(2)
    for query in rng.uniform(-60, 60, (3000, 3)):
        other = query + rng.normal(0, 0.2, 3)
        expected = min(np.linalg.norm(other - query), 1.0)
        answer = gaps(query[None], other[None], query[:2], 0.5, np.array([1, 1]), 1.0)
        assert answer == pytest.approx(expected, abs=1e-9)


def test_the_side_of_a_long_thing_slides_within_itself():
    """What cannot be told stands, whatever is true: the price of the check."""
    rng = np.random.default_rng(4)
    side = rng.uniform([0, 0, 0], [12, 0.05, 2.5], (900, 3))
    again = rng.uniform([0, 0, 0], [12, 0.05, 2.5], (900, 3))
    for metres, verdict in ((0.2, STANDS), (2.0, MOVES)):
        motion = np.array([metres, 0, 0])
        assert set(judge(side, np.broadcast_to(motion, side.shape), again + motion, 0.1, RULES)) == {verdict}


class Student:
    def __init__(self, metadata, said):
        self.metadata, self._said = metadata, said

    def flow(self, pc0, pc1):
        return self._said


@pytest.mark.parametrize("made_for_it", [True, False])
@pytest.mark.parametrize("streaming", ["none", "anchored"])
def test_a_student_is_verified_as_it_was_made_for_or_as_is_asked(made_for_it, streaming):
    pair, flow, _ = pair_of([(WALL, STILL, [0.3, 0, 0])])
    student = Student({"verify": True} if made_for_it else {}, flow.vectors)
    moves = {choice: flow_estimator(student, streaming, choice)(pair).vectors.any() for choice in VERIFY}
    assert moves == {"auto": not made_for_it, "always": False, "never": True}


def test_an_unknown_choice_is_refused():
    with pytest.raises(ZeroFlowError, match="verify 'yes' is unknown; choose one of: auto, always, never"):
        is_verified("yes", {})
