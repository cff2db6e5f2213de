"""Streaming: on an anchored grid the student sees each cloud once, and says what it says of the clouds as they lie."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.fastflow3d.anchored import AnchoredStudent, flow_estimator
from zeroflow_core.fastflow3d.config import FastFlow3DConfig
from zeroflow_core.fastflow3d.model import FastFlow3D
from zeroflow_core.fastflow3d.student import Student
from zeroflow_core.geometry import SE3
from zeroflow_core.pairs import Flow, FramePair, Status, Sweep, estimate_flow, make_pair

SMALL = FastFlow3DConfig(minimum=(-8, -8, -3), maximum=(8, 8, 3), pillar_size=0.5, channels=4, blocks=(1, 2))
STEP_NS = 100_000_000
VELOCITY = np.array([5.0, 2.0, 0.1])  # metres per second in the world
MOVES = np.arange(400)[:, None] % 5 == 0
FAR_AWAY = np.array([3e4, -2e4, 80.0])  # where cities are in AV2's maps


class Witness:
    """Keeps what it is shown; says where each row went, and nothing beyond `reach` metres from the grid's middle."""

    def __init__(self, reach: float = np.inf) -> None:
        self.reach = reach
        self.seen: list[tuple[np.ndarray, np.ndarray]] = []

    def flow(self, pc0: np.ndarray, pc1: np.ndarray) -> np.ndarray:
        self.seen.append((pc0, pc1))
        return np.where(np.abs(pc0).max(axis=1, keepdims=True) < self.reach, pc1 - pc0, np.nan)


def _student(engine: str) -> Student:
    torch.manual_seed(5)
    return Student(FastFlow3D(SMALL).eval(), {}, "cpu", engine=engine)


@pytest.fixture(scope="module")
def student() -> Student:
    return _student("reference")


def _pose(x: float, yaw: float = 0.0) -> SE3:
    """Somewhere on a hillside."""
    pitched = SE3.from_quaternion(np.array([1.0, 0.01, 0.03, 0.0]), FAR_AWAY)
    return pitched @ SE3.from_yaw(yaw, np.array([x, 0.3 * x, 0.0]))


def _drive(poses: list[SE3], holes: bool = True) -> list[Sweep]:
    """Points that stand, every fifth of them moving, as seen from each pose; a tenth is ground, and of those with
    holes two rows are not finite."""
    n = 400
    world = poses[0].transform(np.random.default_rng(7).uniform((-7, -7, -1), (7, 7, 1), (n, 3)))
    sweeps = []
    for k, pose in enumerate(poses):
        seen = pose.inverse().transform(world + 0.1 * k * np.where(MOVES, VELOCITY, 0)).astype(np.float32)
        if holes:
            seen[3 + k, 0], seen[50] = np.nan, np.inf
        sweeps.append(Sweep(seen, k * STEP_NS, world_SE3_ego=pose, is_ground=np.arange(n) % 10 == 1))
    return sweeps


def _shown(sweep: Sweep) -> np.ndarray:
    return np.isfinite(sweep.points).all(axis=1) & ~sweep.is_ground


def _pairs(sweeps: list[Sweep], live: bool) -> Iterator[FramePair]:
    for before, after in zip(sweeps, sweeps[1:], strict=False):
        yield make_pair(after, before) if live else make_pair(before, after)


def _equal(flow: Flow, other: Flow) -> None:
    np.testing.assert_array_equal(flow.vectors, other.vectors)
    np.testing.assert_array_equal(flow.status, other.status)
    assert flow.dt == other.dt and flow.vectors.dtype == np.float32


LIVE = pytest.mark.parametrize("live", [True, False], ids=["newest first", "forwards"])


@LIVE
def test_of_a_vehicle_that_stands_still_it_says_the_same_bit_for_bit(student, live):
    anchored = AnchoredStudent(student)
    for pair in _pairs(_drive([SE3.identity()] * 4), live):
        flow = anchored.estimate_flow(pair)
        _equal(flow, estimate_flow(student, pair))
        assert (flow.status == Status.OK).sum() > 300


@LIVE
def test_each_cloud_is_shown_with_the_same_numbers_in_both_its_pairs(live):
    witness = Witness()
    anchored = AnchoredStudent(witness)
    for pair in _pairs(_drive([_pose(1.1 * k, 0.02 * k) for k in range(6)]), live):
        anchored.estimate_flow(pair)
    for last, now in zip(witness.seen, witness.seen[1:], strict=False):
        again, first = (now[1], last[0]) if live else (now[0], last[1])
        np.testing.assert_array_equal(again, first)
        assert np.isfinite(again).all() and again.dtype == np.float32 and 330 < len(again) < 400


@LIVE
def test_the_fast_engine_encodes_only_the_new_cloud_and_says_the_same(live):
    class Twice:
        """Beside an engine that remembers, one that has never seen a cloud."""

        def __init__(self) -> None:
            self.student = _student("fast")
            self.spared: list[bool] = []

        def flow(self, pc0: np.ndarray, pc1: np.ndarray) -> np.ndarray:
            fresh = _student("fast")
            said = self.student.flow(pc0, pc1)
            np.testing.assert_array_equal(said, fresh.flow(pc0, pc1))
            self.spared.append(self.student.network.flops < fresh.network.flops)
            return said

    twice = Twice()
    anchored = AnchoredStudent(twice)
    for pair in _pairs(_drive([_pose(0.6 * k, 0.02 * k) for k in range(5)]), live):
        anchored.estimate_flow(pair)
    assert twice.spared == [False, True, True, True]


@LIVE
def test_under_way_it_says_what_the_student_says_of_clouds_in_the_anchors_frame(student, live):
    sweeps = _drive([_pose(1.1 * k, 0.02 * k) for k in range(5)])
    witness = Witness()
    heard, watched = AnchoredStudent(student), AnchoredStudent(witness)
    anchor = sweeps[1 if live else 0].world_SE3_ego
    for k, pair in enumerate(_pairs(sweeps, live)):
        targets = sweeps[k : k + 2][:: -1 if live else 1]
        flow = heard.estimate_flow(pair)
        watched.estimate_flow(pair)
        for cloud, sweep in zip(witness.seen[-1], targets, strict=True):
            anchor_SE3_ego = anchor.inverse() @ sweep.world_SE3_ego
            np.testing.assert_allclose(cloud, anchor_SE3_ego.transform(sweep.points)[_shown(sweep)], atol=3e-6)
        said = student.flow(*witness.seen[-1])
        said = (targets[0].world_SE3_ego.inverse() @ anchor).rotate(said)
        np.testing.assert_allclose(flow.vectors[_shown(targets[0])], said, atol=1e-6)
        assert np.nanmax(np.abs(said)) > 0.01 and np.isfinite(said[:, 0]).sum() > 200


@LIVE
def test_velocities_are_in_the_vehicle_frame_however_the_grid_lies(live):
    sweeps = _drive([_pose(0.9 * k, -0.03 * k) for k in range(6)], holes=False)
    anchored = AnchoredStudent(Witness())
    for k, pair in enumerate(_pairs(sweeps, live)):
        flow = anchored.estimate_flow(pair)
        ego_SE3_world = sweeps[k + live].world_SE3_ego.inverse()
        expected = np.where(MOVES, ego_SE3_world.rotate(VELOCITY[None]), 0)
        expected[pair.is_ground0] = 0
        np.testing.assert_allclose(flow.velocity, expected, atol=2e-4)
        assert not np.allclose(VELOCITY, expected[0], atol=0.02), "the frames differ"


@pytest.mark.parametrize(
    "poses, anew",
    [
        ([_pose(2.0 * k) for k in range(8)], [0, 4]),  # 2.09 m a step, so the fourth is more than 6.4 m away
        ([_pose(0, 0.06 * k) for k in range(8)], [0, 3, 6]),  # 3.4° a step
    ],
    ids=["by distance", "by angle"],
)
def test_the_grid_comes_along_when_the_vehicle_is_too_far_from_its_middle(student, poses, anew):
    anchored = AnchoredStudent(student)
    for k, pair in enumerate(_pairs(_drive(poses), live=False)):
        flow, usual = anchored.estimate_flow(pair), estimate_flow(student, pair)
        if k in anew:
            _equal(flow, usual)
        else:
            assert not np.array_equal(flow.vectors, usual.vectors, equal_nan=True)


def test_limits_are_given_in_metres_and_degrees():
    for limits, anew in (({"distance": 1.9}, {0, 1, 2}), ({"distance": 2.2}, {0, 2}), ({"angle": 1.6}, {0, 2})):
        witness = Witness()
        anchored = AnchoredStudent(witness, **limits)
        pairs = list(_pairs(_drive([_pose(2.0 * k, 0.02 * k) for k in range(4)]), live=False))
        for pair in pairs:
            anchored.estimate_flow(pair)
        shown = [pair.pc0[np.isfinite(pair.pc0).all(axis=1) & ~pair.is_ground0] for pair in pairs]
        assert {k for k in range(3) if np.array_equal(witness.seen[k][0], shown[k])} == anew


def test_pairs_that_share_no_cloud_are_anchored_anew(student):
    sweeps = _drive([_pose(0.7 * k) for k in range(5)])
    anchored = AnchoredStudent(student)
    for first, second in ((0, 1), (3, 4), (0, 1)):
        pair = make_pair(sweeps[first], sweeps[second])
        _equal(anchored.estimate_flow(pair), estimate_flow(student, pair))


@pytest.mark.parametrize("change", ["points", "count"])
def test_another_cloud_of_the_same_stamp_is_not_taken_for_the_one_before(student, change):
    sweeps = _drive([_pose(0.7 * k) for k in range(3)])
    anchored = AnchoredStudent(student)
    anchored.estimate_flow(make_pair(sweeps[0], sweeps[1]))
    points = sweeps[1].points + np.float32([0, 0, 0.001]) if change == "points" else sweeps[1].points[:-1]
    other = Sweep(points, STEP_NS, world_SE3_ego=_pose(0.7), is_ground=sweeps[1].is_ground[: len(points)])
    pair = make_pair(other, sweeps[2])
    _equal(anchored.estimate_flow(pair), estimate_flow(student, pair))


def test_out_of_range_is_what_lies_outside_the_grid_where_it_stands():
    def sweep(k: int, x: float) -> Sweep:
        world = np.float32([[9.0, 0, 0], [11.0, 0, 0], [-9.0, 0, 0], [-11.0, 0, 0], [0, 1, 0], [np.nan, 0, 0]])
        ground = np.arange(6) == 4
        return Sweep(world - np.float32([x, 0, 0]), k, world_SE3_ego=SE3.from_yaw(0, [x, 0, 0]), is_ground=ground)

    anchored = AnchoredStudent(Witness(reach=10))
    ok, far = Status.OK, Status.OUT_OF_RANGE
    for k, statuses in enumerate(([ok, far, ok, far], [ok, far, ok, far], [ok, ok, far, far])):
        pair = make_pair(sweep(k, 4.0 * k), sweep(k + 1, 4.0 * (k + 1)))
        flow = anchored.estimate_flow(pair)
        assert flow.status.tolist() == [*statuses, Status.GROUND, Status.NOT_FINITE]
        assert np.isnan(flow.vectors[flow.status > Status.GROUND]).all() and (flow.vectors[4] == 0).all()


@pytest.mark.parametrize("empty", [0, 1])
def test_clouds_without_a_point(student, empty):
    sweeps = _drive([_pose(0.5 * k) for k in range(3)])
    nothing = np.zeros((0, 3), np.float32)
    sweeps[empty] = Sweep(nothing, empty * STEP_NS, world_SE3_ego=_pose(0.5 * empty), is_ground=np.zeros(0, bool))
    anchored = AnchoredStudent(student)
    for pair in _pairs(sweeps, live=True):
        assert anchored.estimate_flow(pair).vectors.shape == pair.pc0.shape


def test_streaming_is_chosen_by_name(student):
    (pair,) = _pairs(_drive([_pose(0), _pose(1)]), live=True)
    unwatched = SimpleNamespace(flow=student.flow)
    for streaming in ("none", "anchored"):
        _equal(flow_estimator(unwatched, streaming)(pair), estimate_flow(student, pair))
    with pytest.raises(ZeroFlowError, match="streaming 'off' is unknown; choose one of: none, anchored"):
        flow_estimator(student, "off")


def test_where_an_anchored_grid_spares_nothing_it_says_so(student):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        flow_estimator(student, "none")
        flow_estimator(_student("fast"), "anchored")
    with pytest.warns(UserWarning, match="streaming anchored spares nothing here"):
        flow_estimator(student, "anchored")
