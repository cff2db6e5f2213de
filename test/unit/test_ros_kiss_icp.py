"""The flow node's stages where clouds tell the vehicle's motion, and where they are not yet compensated for it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")

from ros_messages import SECOND, Log, cloud, ego_motion, odometry, transform

from zeroflow_core.ego_motion import KissOdometry, OdometryFailed
from zeroflow_core.geometry import SE3
from zeroflow_core.ground import no_ground
from zeroflow_core.pairs import Status
from zeroflow_ros.live.ego_motion import Place
from zeroflow_ros.live.health import Health, Problem
from zeroflow_ros.live.pipeline import Dropped, Pipeline
from zeroflow_ros.parameters.declared import Settings

STEP = SECOND // 10
SPEED = 8.0  # m/s, of the vehicle
TIMES = np.linspace(0, STEP, 2000, endpoint=False).astype(np.uint32)


def _square() -> np.ndarray:
    """A place with houses and a floor: (2000,3) metres, 30 m around, the same every time."""
    rng = np.random.default_rng(3)
    walls = rng.uniform([-30, -30, 0], [30, 30, 4], (1600, 3))
    side = rng.integers(0, 4, 1600)
    walls[side < 2, 0] = np.where(side[side < 2] == 0, -25, 28) + 4 * (walls[side < 2, 1] > 3)
    walls[side >= 2, 1] = np.where(side[side >= 2] == 2, -22, 19) - 3 * (walls[side >= 2, 0] > 5)
    floor = rng.uniform([-20, -18, 0], [24, 15, 0.02], (400, 3))
    return np.concatenate([walls, floor])


SQUARE = _square()
MOUNT = SE3.from_yaw(np.pi / 2, np.array([1.0, 0.5, 1.8]))


def _pose(seconds) -> SE3:
    return SE3.from_yaw(0.2 * seconds, np.array([SPEED * seconds, 0.0, 0.0]))


class Partner:
    """A student that keeps what it is shown and says that each point went to the row of its own number."""

    metadata = {"ground_z": 0.0}

    def __init__(self) -> None:
        self.shown: list[tuple[np.ndarray, np.ndarray]] = []

    def flow(self, pc0: np.ndarray, pc1: np.ndarray) -> np.ndarray:
        self.shown.append((pc0, pc1))
        return pc1 - pc0 if len(pc0) == len(pc1) else np.zeros_like(pc0)


class Known:
    """Ego motion that is known exactly."""

    def locate(self, stamp_ns: int, cloud_frame: str) -> Place:
        return Place(_pose((stamp_ns - SECOND) * 1e-9), SE3.identity(), "odom")


def _pipeline(known: bool = False, **settings):
    """known: the ego motion is known exactly, instead of told by the clouds"""
    ego = Known() if known else ego_motion("kiss_icp", warn_once=print)
    settings["ego_motion"] = "odom" if known else "kiss_icp"
    student, health = Partner(), Health(Log())
    chosen = replace(Settings(), **settings)
    pipeline = Pipeline(student, no_ground, lambda: chosen, ego, health)
    return pipeline, student, health


def _cloud(k: float, frame: str = "base_link", mount: SE3 | None = None, stamp_ns: int | None = None):
    """What is seen of the square, `k` steps after its start."""
    world_SE3_cloud = _pose(0.1 * k) @ (mount or SE3.identity())
    stamp_ns = SECOND + round(k * STEP) if stamp_ns is None else stamp_ns
    return cloud(world_SE3_cloud.inverse().transform(SQUARE).astype(np.float32), stamp_ns, frame)


def _as_fired(k: int):
    """The same with every point as seen at its own time."""
    poses = [_pose(0.1 * k + 1e-9 * float(time)) for time in TIMES]
    points = np.stack([pose.inverse().transform(p[None])[0] for pose, p in zip(poses, SQUARE, strict=True)])
    return cloud(points.astype(np.float32), SECOND + k * STEP, times=TIMES)


def test_without_odometry_and_tf_what_stands_still_has_nearly_no_velocity():
    pipeline, _, health = _pipeline()
    for k in range(6):
        result = pipeline.feed(_cloud(k))
    assert (result.status == Status.OK).all()
    assert np.linalg.norm(result.velocity, axis=1).mean() < 0.2 < 0.1 * SPEED
    assert health.counts()["no_ego_motion"] == 0


def test_the_mounting_on_tf_static_is_used():
    pipeline, student, _ = _pipeline()
    pipeline._ego_motion.add_transforms([transform("base_link", "lidar", MOUNT.translation, MOUNT.quaternion)], True)
    for k in range(6):
        result = pipeline.feed(_cloud(k, "lidar", MOUNT))
    assert np.linalg.norm(result.velocity, axis=1).mean() < 0.2
    np.testing.assert_allclose(student.shown[-1][0], _pose(0.5).inverse().transform(SQUARE), atol=1e-3)


def test_another_frame_starts_anew_and_is_served_again():
    pipeline, _, _ = _pipeline()
    for k in range(3):
        pipeline.feed(_cloud(k))
    with pytest.raises(Dropped) as dropped:
        pipeline.feed(_cloud(3, "other", MOUNT))
    assert dropped.value.problem is Problem.FRAME_CHANGED
    for k in range(4, 8):
        result = pipeline.feed(_cloud(k, "other", MOUNT))
    assert np.linalg.norm(result.velocity, axis=1).mean() < 0.2


def test_after_more_than_a_second_nobody_knows_the_motion():
    pipeline, _, _ = _pipeline(max_gap=5.0)
    for k in range(3):
        pipeline.feed(_cloud(k))
    with pytest.raises(Dropped, match="KISS-ICP") as dropped:
        pipeline.feed(_cloud(13))
    assert dropped.value.problem is Problem.NO_EGO_MOTION
    assert pipeline.feed(_cloud(14)) is not None


def test_a_clock_that_jumps_back_starts_a_new_series():
    pipeline, _, health = _pipeline()
    for k in range(3):
        pipeline.feed(_cloud(k, stamp_ns=100 * SECOND + k * STEP))
    assert pipeline.feed(_cloud(0)) is None
    result = pipeline.feed(_cloud(1))
    assert health.counts()["time_jump"] == 1
    assert np.linalg.norm(result.velocity, axis=1).mean() < 0.4


def test_a_cloud_that_is_too_poor_to_register_is_bridged():
    pipeline, student, _ = _pipeline()
    for k in range(4):
        pipeline.feed(_cloud(k))
    poor = cloud(_pose(0.4).inverse().transform(SQUARE[:20]).astype(np.float32), SECOND + 4 * STEP)
    assert pipeline.feed(poor) is not None
    pipeline.feed(_cloud(5))
    assert len(student.shown[-1][1]) == 20
    pipeline.feed(_cloud(6))
    shown = student.shown[-1]
    assert np.linalg.norm(shown[1] - shown[0], axis=1).mean() < 0.02


def _odometry(k: int):
    message = odometry(SECOND + k * STEP)
    pose, there = message.pose.pose, _pose(0.1 * k)
    pose.position.x, pose.position.y, pose.position.z = map(float, there.translation)
    pose.orientation.w, pose.orientation.x, pose.orientation.y, pose.orientation.z = map(float, there.quaternion)
    return message


def test_odometry_that_ends_gives_way_to_the_clouds_and_takes_over_when_it_is_back():
    health, switches = Health(Log()), []
    ego = ego_motion("auto", on_switch=switches.append)
    pipeline = Pipeline(Partner(), no_ground, Settings, ego, health)
    said, speeds = {}, {}
    for k in range(50):
        if k < 10 or k >= 35:
            ego.add_odometry(_odometry(k))
        try:
            result = pipeline.feed(_cloud(k))
        except Dropped as dropped:
            said[k] = dropped.problem
        else:
            said[k] = health.facts["ego_motion"]
            if result is not None:
                speeds[k] = np.linalg.norm(result.velocity, axis=1).mean()
    assert [said[k] for k in range(10)] == ["odom"] * 10
    first = next(k for k in range(10, 35) if said[k] == "kiss_icp")
    # A little may be extrapolated, and for a second it may still come; then there is a gap in what is known.
    assert 20 <= first <= 22 and {said[k] for k in range(12, first)} == {Problem.NO_EGO_MOTION, Problem.GAP}
    assert [said[k] for k in range(first + 2, 35)] == ["kiss_icp"] * (33 - first)
    assert [said[k] for k in range(35, 50)] == ["odom"] * 15
    assert len(switches) == 2
    # Poses of two sources are never paired, so that what stands still does so all the time.
    assert 0 not in speeds and 35 not in speeds
    assert set(range(36, 50)) <= set(speeds) and max(speeds[k] for k in range(36, 50)) < 0.01
    assert max(speeds.values()) < 0.4


class Mortal(KissOdometry):
    """Dies of the cloud of one moment, as a process may, and is born again."""

    def register(self, sweep):
        if sweep.stamp_ns == SECOND + 4 * STEP:
            self.reset()
            raise OdometryFailed("KISS-ICP's process is gone")
        return super().register(sweep)


def test_a_failure_of_kiss_icp_costs_its_cloud_and_begins_a_new_series():
    health = Health(Log())
    ego = ego_motion("kiss_icp", warn_once=print)
    pipeline = Pipeline(Partner(), no_ground, Settings, ego, health, Mortal())
    results = [pipeline.feed(_cloud(k)) for k in range(4)]
    with pytest.raises(Dropped, match=r"has no ego motion: KISS-ICP's process is gone") as dropped:
        pipeline.feed(_cloud(4))
    assert dropped.value.problem == Problem.NO_EGO_MOTION
    results += [pipeline.feed(_cloud(k)) for k in range(5, 8)]
    assert [k for k, result in enumerate(results) if result is None] == [0, 4]
    assert len({result.series for result in results[1:4]}) == len({result.series for result in results[5:]}) == 1
    assert results[3].series != results[5].series


# --- clouds that are not compensated -----------------------------------------------------------------------


@pytest.mark.parametrize("known", [True, False])
def test_clouds_are_compensated_where_that_is_asked_for(known: bool):
    pipeline, student, _ = _pipeline(known, deskew="always")
    for k in range(5):
        result = pipeline.feed(_as_fired(k))
    true = _pose(0.4).inverse().transform(SQUARE)
    seen = np.stack([result.cloud.points, student.shown[-1][0]])
    error = np.linalg.norm(seen - true, axis=2).mean(axis=1)
    assert error[0] > 0.3 and error[1] < (0.01 if known else 0.03)
    np.testing.assert_array_equal(result.cloud.points, _points_of(_as_fired(4)))  # what is published is what came


def _points_of(message) -> np.ndarray:
    return np.frombuffer(bytes(message.data), "<f4").reshape(len(TIMES), 4)[:, :3]


def test_without_being_asked_nothing_is_compensated():
    pipeline, student, health = _pipeline(known=True)
    for k in range(2):
        pipeline.feed(_as_fired(k))
    np.testing.assert_array_equal(student.shown[-1][0], _points_of(_as_fired(1)))
    assert health._logger.lines == []


def test_clouds_without_times_that_should_be_compensated_are_told_once():
    pipeline, _, health = _pipeline(known=True, deskew="always")
    for k in range(3):
        pipeline.feed(_cloud(k))
    (line,) = health._logger.lines
    assert "deskew is set, but clouds have no times" in line


@pytest.mark.parametrize("known", [True, False])
def test_the_first_cloud_is_compensated_as_soon_as_its_motion_is_known(known: bool):
    pipeline, student, _ = _pipeline(known, deskew="always", flow_target="previous")
    pipeline.feed(_as_fired(0))
    result = pipeline.feed(_as_fired(1))
    error = [np.linalg.norm(seen - SQUARE, axis=1).mean() for seen in (result.cloud.points, student.shown[0][0])]
    assert error[0] > 0.3 and error[1] < (0.01 if known else 0.05)


def test_a_cloud_after_a_gap_is_compensated_by_the_motion_after_it():
    pipeline, student, _ = _pipeline(deskew="always", max_gap=5.0, flow_target="previous")
    for k in (0, 1, 2):
        pipeline.feed(_as_fired(k))
    with pytest.raises(Dropped, match="KISS-ICP"):
        pipeline.feed(_as_fired(20))
    pipeline.feed(_as_fired(21))
    true = _pose(2.0).inverse().transform(SQUARE)
    assert np.linalg.norm(student.shown[-1][0] - true, axis=1).mean() < 0.05
