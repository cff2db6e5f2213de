"""The flow node's stages on messages, without topics: frames, signs, and every fault a cloud can have."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")

from ros_messages import SECOND, Log, cloud, ego_motion, odometry

from zeroflow_core.geometry import SE3
from zeroflow_core.ground import no_ground
from zeroflow_core.pairs import Status
from zeroflow_ros.live.ego_motion import NoPose, Place
from zeroflow_ros.live.health import Health, Problem
from zeroflow_ros.live.pipeline import Dropped, Pipeline
from zeroflow_ros.parameters.settings import Settings

STEP = SECOND // 10
POINTS = np.random.default_rng(1).uniform([-20, -20, 0], [20, 20, 2], (50, 3)).astype(np.float32)


class Oracle:
    """A student that knows: flow is where the same row went."""

    metadata = {"ground_z": 0.0}

    def __init__(self) -> None:
        self.seen: list[np.ndarray] = []
        self.partners: list[np.ndarray] = []

    def flow(self, pc0: np.ndarray, pc1: np.ndarray) -> np.ndarray:
        self.seen.append(pc0)
        self.partners.append(pc1)
        return pc1 - pc0


class Route:
    """Ego motion from a function of time instead of messages."""

    def __init__(self, pose=lambda stamp_ns: SE3.identity(), mount: SE3 | None = None) -> None:
        self.pose, self.mount = pose, mount or SE3.identity()

    def locate(self, stamp_ns: int, cloud_frame: str) -> Place:
        return Place(self.pose(stamp_ns), self.mount, "odom")


def _pipeline(route=None, rule=no_ground, **settings):
    student, health = Oracle(), Health(Log())
    chosen = replace(Settings(), **{"estimate_z_offset": False} | settings)
    return Pipeline(student, rule, lambda: chosen, route or Route(), health), student, health


def test_an_object_that_moves_has_its_velocity_at_the_newest_cloud():
    pipeline, _, _ = _pipeline()
    assert pipeline.feed(cloud(POINTS, SECOND)) is None
    moved = POINTS + np.float32([0.5, 0, 0])
    result = pipeline.feed(cloud(moved, SECOND + STEP))
    assert result.message.header.stamp.nanosec == STEP
    np.testing.assert_array_equal(result.cloud.points, moved)
    np.testing.assert_allclose(result.velocity, np.tile([5, 0, 0], (50, 1)), atol=1e-4)


def test_previous_gives_the_velocity_at_the_cloud_before():
    pipeline, _, _ = _pipeline(flow_target="previous")
    pipeline.feed(cloud(POINTS, SECOND))
    result = pipeline.feed(cloud(POINTS + np.float32([0.5, 0, 0]), SECOND + STEP))
    assert result.message.header.stamp.nanosec == 0
    np.testing.assert_array_equal(result.cloud.points, POINTS)
    np.testing.assert_allclose(result.velocity, np.tile([5, 0, 0], (50, 1)), atol=1e-4)


def test_what_stands_still_has_no_velocity_however_the_vehicle_drives_and_the_sensor_is_mounted():
    def pose(stamp_ns: int) -> SE3:
        return SE3.from_yaw(0.3 * stamp_ns / SECOND, np.array([8.0 * stamp_ns / SECOND, 0.0, 0.0]))

    mount = SE3.from_yaw(math.pi / 2, np.array([1.0, 0.5, 1.8]))
    pipeline, _, _ = _pipeline(Route(pose, mount), z_offset=-1.0)
    for stamp_ns in (SECOND, SECOND + STEP):
        world_SE3_cloud = pose(stamp_ns) @ mount
        seen = world_SE3_cloud.inverse().transform(POINTS)
        result = pipeline.feed(cloud(seen, stamp_ns, "lidar"))
    np.testing.assert_allclose(result.velocity, 0, atol=1e-4)


def test_velocity_is_given_in_the_frame_of_the_cloud():
    mount = SE3.from_yaw(math.pi / 2, np.array([1.0, 0.0, 2.0]))  # the sensor looks to the left
    pipeline, _, _ = _pipeline(Route(mount=mount))
    pipeline.feed(cloud(POINTS, SECOND, "lidar"))
    result = pipeline.feed(cloud(POINTS + np.float32([0, 1, 0]), SECOND + STEP, "lidar"))
    np.testing.assert_allclose(result.velocity, np.tile([0, 10, 0], (50, 1)), atol=1e-3)


@pytest.mark.parametrize("verify, speed", [("auto", 10), ("never", 10), ("always", 0)])
def test_motion_that_the_other_cloud_does_not_bear_out_is_taken_back_where_that_is_asked_for(verify, speed):
    pipeline, _, _ = _pipeline(Route(), verify=verify)
    for k in range(2):  # single points, far from one another: no two are a thing
        result = pipeline.feed(cloud(POINTS + np.float32([k, 0, 0]), SECOND + k * STEP, "lidar"))
    np.testing.assert_allclose(np.linalg.norm(result.velocity, axis=1), speed, atol=1e-3)


def test_the_student_sees_the_vehicle_frame_raised_by_z_offset():
    pipeline, student, _ = _pipeline(Route(mount=SE3(np.eye(3), np.array([0.0, 0.0, 1.8]))), z_offset=0.2)
    for k in range(2):
        pipeline.feed(cloud(POINTS, SECOND + k * STEP, "lidar"))
    np.testing.assert_allclose(student.seen[0], POINTS + np.float32([0, 0, 2.0]), atol=1e-6)


@pytest.mark.parametrize("target", ["current", "previous"])
def test_on_an_anchored_grid_a_cloud_is_shown_twice_with_the_same_numbers_and_velocities_stay(target):
    def pose(stamp_ns: int) -> SE3:
        return SE3.from_yaw(0.3 * stamp_ns / SECOND, np.array([8.0 * stamp_ns / SECOND, 0.0, 0.0]))

    mount = SE3.from_yaw(math.pi / 2, np.array([1.0, 0.5, 1.8]))
    usual, _, _ = _pipeline(Route(pose, mount), z_offset=-1.0, flow_target=target)
    anchored, student, _ = _pipeline(Route(pose, mount), z_offset=-1.0, flow_target=target, streaming="anchored")
    for k in range(5):
        stamp_ns = SECOND + k * STEP
        seen = (pose(stamp_ns) @ mount).inverse().transform(POINTS + np.float32([0.5 * k, 0, 0]))
        results = [pipeline.feed(cloud(seen, stamp_ns, "lidar")) for pipeline in (usual, anchored)]
        if k > 0:
            np.testing.assert_allclose(results[1].velocity, results[0].velocity, atol=3e-4)
            np.testing.assert_allclose(np.linalg.norm(results[1].velocity, axis=1), 5, atol=1e-3)
    clouds = student.seen if target == "previous" else student.seen[::-1]
    partners = student.partners if target == "previous" else student.partners[::-1]
    assert len(clouds) == 4
    for now, before in zip(clouds[1:], partners[:-1], strict=True):
        np.testing.assert_array_equal(now, before)


def test_every_point_gets_a_status():
    points = POINTS.copy()
    points[3] = np.nan
    pipeline, student, _ = _pipeline(rule=lambda sweep: sweep.points[:, 2] < 0.5)
    pipeline.feed(cloud(POINTS[POINTS[:, 2] >= 0.5][:10], SECOND))
    student.flow = lambda pc0, pc1: np.where(pc0[:, :1] > 10, np.nan, np.ones_like(pc0))
    result = pipeline.feed(cloud(points, SECOND + STEP))
    ground, far = points[:, 2] < 0.5, points[:, 0] > 10
    expected = np.where(ground, Status.GROUND, np.where(far, Status.OUT_OF_RANGE, Status.OK))
    expected[3] = Status.NOT_FINITE
    np.testing.assert_array_equal(result.status, expected)
    assert (result.velocity[expected == Status.GROUND] == 0).all()
    assert np.isnan(result.velocity[expected >= Status.OUT_OF_RANGE]).all()


def _no_pose(stamp_ns: int) -> SE3:
    raise NoPose("nobody knows")


def _cut(message):
    message.data = message.data[:-1]
    return message


def _without_z(message):
    message.fields = message.fields[:2]
    return message


FAULTS = {
    "cut": (lambda now: _cut(cloud(POINTS, now)), Problem.MALFORMED),
    "without z": (lambda now: _without_z(cloud(POINTS, now)), Problem.MALFORMED),
    "duplicate": (lambda now: cloud(POINTS, now - STEP), Problem.DUPLICATE_STAMP),
    "gap": (lambda now: cloud(POINTS, now + SECOND), Problem.GAP),
    "other frame": (lambda now: cloud(POINTS, now, "other"), Problem.FRAME_CHANGED),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_cloud_is_dropped_and_good_ones_are_served_again(fault: str):
    make, problem = FAULTS[fault]
    pipeline, _, _ = _pipeline()
    pipeline.feed(cloud(POINTS, SECOND))
    with pytest.raises(Dropped) as dropped:
        pipeline.feed(make(SECOND + STEP))
    assert dropped.value.problem is problem
    served = [_feed(pipeline, cloud(POINTS, 3 * SECOND + k * STEP)) for k in range(3)]
    assert served[-1] is not None and len(served[-1].velocity) == 50


def _feed(pipeline: Pipeline, message):
    try:
        return pipeline.feed(message)
    except Dropped:
        return None


def test_a_cloud_whose_place_is_unknown_is_dropped():
    pipeline, _, _ = _pipeline(Route(_no_pose))
    with pytest.raises(Dropped, match="nobody knows") as dropped:
        pipeline.feed(cloud(POINTS, SECOND))
    assert dropped.value.problem is Problem.NO_EGO_MOTION


def test_a_vehicle_that_jumps_is_dropped():
    pipeline, _, _ = _pipeline(Route(lambda stamp_ns: SE3(np.eye(3), np.array([stamp_ns // SECOND * 500.0, 0, 0]))))
    pipeline.feed(cloud(POINTS, 2 * SECOND - STEP))
    with pytest.raises(Dropped) as dropped:
        pipeline.feed(cloud(POINTS, 2 * SECOND))
    assert dropped.value.problem is Problem.EGO_MOTION_JUMP
    assert pipeline.feed(cloud(POINTS, 2 * SECOND + STEP)) is not None


def test_a_clock_that_jumps_back_starts_a_new_series():
    pipeline, _, health = _pipeline()
    pipeline.feed(cloud(POINTS, 100 * SECOND))
    assert pipeline.feed(cloud(POINTS, SECOND)) is None
    assert health.counts()["time_jump"] == 1
    assert pipeline.feed(cloud(POINTS, SECOND + STEP)) is not None


@pytest.mark.parametrize("count", [0, 7])
def test_a_cloud_without_a_finite_point_is_answered_and_is_no_partner(count: int):
    pipeline, student, health = _pipeline()
    pipeline.feed(cloud(POINTS, SECOND))
    result = pipeline.feed(cloud(np.full((count, 3), np.nan, np.float32), SECOND + STEP))
    assert result.velocity.shape == (count, 3) and (result.status == Status.NOT_FINITE).all()
    assert health.counts()["no_points"] == 1
    result = pipeline.feed(cloud(POINTS, SECOND + 2 * STEP))
    assert (result.status == Status.OK).all() and len(student.seen) == 1


def test_a_cloud_that_is_only_prepared_costs_no_network_but_is_a_partner():
    pipeline, student, _ = _pipeline()
    pipeline.feed(cloud(POINTS, SECOND))
    pipeline.prepare(cloud(POINTS, SECOND + STEP))
    assert student.seen == []
    assert pipeline.feed(cloud(POINTS + np.float32([0.5, 0, 0]), SECOND + 2 * STEP)) is not None
    np.testing.assert_array_equal(student.partners[0], POINTS)


# --- which clouds make a pair ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rate, interval, age",
    [
        (10, 0.1, 0.1),
        (20, 0.1, 0.1),
        (15, 0.1, 2 / 15),
        (30, 0.1, 0.1),
        (100, 0.1, 0.1),
        (5, 0.1, 0.2),
        (20, 0.05, 0.05),
    ],
)
def test_the_partner_is_the_cloud_nearest_to_the_interval_that_the_student_knows(
    rate: int, interval: float, age: float
):
    pipeline, _, _ = _pipeline(pair_interval=interval)
    answers = []
    for k in range(2 * rate):
        stamp_ns = SECOND + round(k * SECOND / rate)
        answers.append(pipeline.feed(cloud(POINTS + np.float32([0.001 * k, 0, 0]), stamp_ns)))
    first = next(k for k, answer in enumerate(answers) if answer is not None)
    assert 0.6 * interval <= first / rate <= max(age, 1 / rate)
    # What moves by 1 mm a cloud moves at `rate` mm/s, whatever the partner's age is, if it is the right one.
    np.testing.assert_allclose(answers[-1].velocity[:, 0], 0.001 * rate, rtol=0.05)
    assert all(answer is not None for answer in answers[first:])
    shown = pipeline._student._student
    moved = (shown.seen[-1] - shown.partners[-1])[:, 0].mean()
    np.testing.assert_allclose(moved, 0.001 * age * rate, rtol=0.05)


def test_an_interval_that_is_changed_while_running_takes_other_partners():
    pipeline, student, _ = _pipeline()
    settings = pipeline._settings()
    for k in range(20):
        if k == 10:
            pipeline._settings = lambda: replace(settings, pair_interval=0.2)
        pipeline.feed(cloud(POINTS + np.float32([0.001 * k, 0, 0]), SECOND + k * STEP // 2))
    shown = zip(student.seen, student.partners, strict=True)
    ages = [round(1000 * (seen - partner)[:, 0].mean()) for seen, partner in shown]
    assert ages[0] == 2 and ages[-1] == 4


def test_no_more_clouds_are_kept_than_pairs_need():
    pipeline, _, _ = _pipeline()
    for k in range(100):
        pipeline.feed(cloud(POINTS, SECOND + k * STEP // 4))
    assert len(pipeline._history._frames) <= 9


def test_a_cloud_that_another_overtook_is_dropped_and_four_in_a_row_are_a_clock_that_was_set_back():
    pipeline, _, health = _pipeline()
    for k in (0, 1, 3):
        pipeline.feed(cloud(POINTS, 10 * SECOND + k * STEP))
    with pytest.raises(Dropped) as dropped:
        pipeline.feed(cloud(POINTS, 10 * SECOND + 2 * STEP))
    assert dropped.value.problem is Problem.OUT_OF_ORDER
    assert pipeline.feed(cloud(POINTS, 10 * SECOND + 4 * STEP)) is not None
    outcomes = [_feed(pipeline, cloud(POINTS, 10 * SECOND + k * STEP // 20)) for k in range(7)]
    assert outcomes[:5] == [None] * 5 and health.counts()["time_jump"] == 1


def _street(z: float) -> np.ndarray:
    x, y = np.meshgrid(np.arange(-15, 15, 0.5), np.arange(-15, 15, 0.5))
    return np.stack([x.ravel(), y.ravel(), np.full(x.size, z)], axis=1).astype(np.float32)


def test_ground_far_from_where_the_student_knows_it_is_brought_there():
    pipeline, student, health = _pipeline(estimate_z_offset=True)
    answers = [pipeline.feed(cloud(_street(-1.8), SECOND + k * STEP)) for k in range(3)]
    (line,) = health._logger.lines
    assert "raised by 1.80 m" in line and health.facts["z_offset"] == "1.80 (estimated)"
    assert [answer is not None for answer in answers] == [False, True, True]
    np.testing.assert_allclose(student.seen[-1][:, 2], 0.0, atol=1e-5)
    np.testing.assert_array_equal(answers[-1].cloud.points, _street(-1.8))  # what is published is what came


def test_an_offset_that_is_changed_while_running_begins_a_new_series():
    pipeline, student, health = _pipeline()
    pipeline.feed(cloud(POINTS, SECOND))
    changed = replace(pipeline._settings(), z_offset=1.0)
    pipeline._settings = lambda: changed
    assert pipeline.feed(cloud(POINTS, SECOND + STEP)) is None
    assert pipeline.feed(cloud(POINTS, SECOND + 2 * STEP)) is not None
    np.testing.assert_allclose(student.seen[0], POINTS + np.float32([0, 0, 1]), atol=1e-6)
    assert sum(health.counts().values()) == 0


def test_ground_far_from_where_the_student_knows_it_is_told_once_with_the_remedy():
    pipeline, _, health = _pipeline()
    for k in range(3):
        pipeline.feed(cloud(_street(-1.8), SECOND + k * STEP))
    (line,) = health._logger.lines
    assert "z_offset to 1.80" in line
    pipeline, _, health = _pipeline(z_offset=1.8)
    pipeline.feed(cloud(_street(-1.8), SECOND))
    assert health._logger.lines == []


@pytest.mark.parametrize("rate", [10, 20, 30, 100])
def test_a_long_interval_finds_its_partner_at_any_rate(rate: int):
    pipeline, student, health = _pipeline(pair_interval=2.0, max_gap=2.0)
    clouds = [cloud(POINTS + np.float32([k / rate, 0, 0]), SECOND + k * SECOND // rate) for k in range(4 * rate)]
    answers = [pipeline.feed(one) for one in clouds]
    assert sum(answer is not None for answer in answers) >= 2 * rate
    steps = [float((pc1 - pc0)[0, 0]) for pc0, pc1 in zip(student.seen, student.partners, strict=True)]
    np.testing.assert_allclose(steps[-rate:], -2.0, atol=0.2)  # m at 1 m/s: two seconds


def test_a_mounting_that_arrives_after_the_first_clouds_makes_the_estimated_offset_void():
    route = Route()
    pipeline, student, health = _pipeline(route, estimate_z_offset=True)
    for k in range(2):
        pipeline.feed(cloud(_street(-1.8), SECOND + k * STEP))
    route.mount = SE3(np.eye(3), np.array([0.0, 0.0, 1.8]))
    answers = [_feed(pipeline, cloud(_street(-1.8), SECOND + k * STEP)) for k in (2, 3)]
    assert [answer is not None for answer in answers] == [False, True] and "z_offset" not in health.facts
    np.testing.assert_allclose(student.seen[-1][:, 2], 0.0, atol=1e-5)


def test_the_estimate_can_be_switched_on_and_off_while_the_node_runs():
    pipeline, student, health = _pipeline()
    for k, wanted in enumerate([False, False, True, True, False, False]):
        changed = replace(pipeline._settings(), estimate_z_offset=wanted)
        pipeline._settings = lambda now=changed: now
        pipeline.feed(cloud(_street(-1.8), SECOND + k * STEP))
    heights = [float(np.mean(seen[:, 2])) for seen in student.seen]
    np.testing.assert_allclose(heights, [-1.8, 0.0, -1.8], atol=1e-5)
    assert "z_offset" not in health.facts


def test_odometry_and_clouds_meet_in_the_pipeline():
    ego = ego_motion("auto", odom_published=lambda: True)
    pipeline, _, _ = _pipeline(ego)
    for k in range(2):
        ego.add_odometry(odometry(SECOND + k * STEP, x=0.7 * k))
        result = pipeline.feed(cloud(POINTS - np.float32([0.7 * k, 0, 0]), SECOND + k * STEP))
    np.testing.assert_allclose(result.velocity, 0, atol=1e-4)


def test_all_zeros_are_no_point_that_was_seen():
    mount = SE3(np.eye(3), np.array([0.0, 0.0, 1.8]))  # takes zeros to where something could be
    pipeline, student, health = _pipeline(Route(mount=mount))
    gaps = POINTS.copy()
    gaps[7:12] = 0.0
    student.flow = lambda pc0, pc1: (student.seen.append(pc0), student.partners.append(pc1), 0 * pc0)[2]
    for k in range(2):
        result = pipeline.feed(cloud(gaps, SECOND + k * STEP, "lidar"))
    assert (result.status[7:12] == Status.NOT_FINITE).all() and np.isnan(result.velocity[7:12]).all()
    assert (np.delete(result.status, np.arange(7, 12)) == Status.OK).all()
    np.testing.assert_array_equal(result.cloud.points, gaps)  # what is published is what came
    for shown in (student.seen[-1], student.partners[-1][np.isfinite(student.partners[-1]).all(axis=1)]):
        np.testing.assert_allclose(shown, np.delete(gaps, np.arange(7, 12), axis=0) + [0, 0, 1.8], atol=1e-6)
    result = pipeline.feed(cloud(np.zeros((4, 3), np.float32), SECOND + 2 * STEP, "lidar"))
    assert (result.status == Status.NOT_FINITE).all() and health.counts()["no_points"] == 1


def test_a_series_that_ends_while_the_student_works_keeps_its_number():
    pipeline, student, _ = _pipeline()
    pipeline.feed(cloud(POINTS, SECOND))
    series = pipeline.feed(cloud(POINTS, SECOND + STEP)).series
    frame = pipeline.prepare(cloud(POINTS, SECOND + 2 * STEP))

    def while_the_next_cloud_comes(pc0: np.ndarray, pc1: np.ndarray) -> np.ndarray:
        with pytest.raises(Dropped, match="another frame"):
            pipeline.prepare(cloud(POINTS, SECOND + 3 * STEP, "elsewhere"))
        return 0 * pc0

    student.flow = while_the_next_cloud_comes
    assert pipeline.estimate(frame).series == series
    student.flow = lambda pc0, pc1: 0 * pc0
    assert pipeline.feed(cloud(POINTS, SECOND + 4 * STEP, "elsewhere")).series == series + 1


@pytest.mark.filterwarnings("error")
def test_a_vehicle_that_jumps_out_of_the_universe_is_dropped():
    far = SE3(np.eye(3), np.array([1e300, 0.0, 0.0]))
    pipeline, _, _ = _pipeline(Route(lambda stamp_ns: far if stamp_ns == SECOND + STEP else SE3.identity()))
    pipeline.feed(cloud(POINTS, SECOND))
    for k in (1, 2):
        with pytest.raises(Dropped, match="the vehicle moved 1000"):
            pipeline.feed(cloud(POINTS, SECOND + k * STEP))
    assert pipeline.feed(cloud(POINTS, SECOND + 3 * STEP)) is not None


def test_what_a_frame_is_called_makes_no_line_longer_than_a_line():
    pipeline, _, health = _pipeline()
    for k, frame in enumerate(["lidar" * 20_000, "a\n[ERROR] b"]):
        pipeline.feed(cloud(POINTS[:0], SECOND + k * STEP, frame))
    assert len(health._logger.lines) == 1 and len(health._logger.lines[0]) < 200
    with pytest.raises(Dropped, match="^[^\n]*\\\\n.*$"):
        pipeline.feed(cloud(POINTS[:0], SECOND, "a\n[ERROR] b"))
