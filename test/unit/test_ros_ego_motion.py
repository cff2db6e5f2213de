"""Where the vehicle was: from odometry and TF that come early, late, broken or not at all."""

from __future__ import annotations

import math
import threading
import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")

from ros_messages import SECOND, odometry, transform

from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.geometry import SE3
from zeroflow_ros.live.ego_motion import EgoMotion, NoPose, NoPoseYet, PoseHistory


def _pose(x: float) -> SE3:
    return SE3(np.eye(3), np.array([x, 0.0, 0.0]))


def _history(*stamps_ms: int) -> PoseHistory:
    """A vehicle that drives at 10 m/s along x."""
    history = PoseHistory()
    for stamp in stamps_ms:
        history.add(stamp * 1_000_000, _pose(stamp / 100))
    return history


def test_poses_are_interpolated_at_the_stamp():
    assert _history(0, 100).at(25_000_000).translation == pytest.approx([0.25, 0, 0])
    assert _history(0, 100).at(100_000_000).translation == pytest.approx([1, 0, 0])


def test_messages_that_overtook_each_other_are_put_in_order():
    assert _history(0, 200, 100).at(150_000_000).translation == pytest.approx([1.5, 0, 0])


def test_a_stamp_sent_twice_counts_once():
    history = _history(0, 100)
    history.add(100_000_000, _pose(7.0))
    assert len(history) == 2
    assert history.at(100_000_000).translation == pytest.approx([7, 0, 0])


def test_extrapolation_is_short_and_only_on_request():
    history = _history(0, 50, 100)
    assert history.at(150_000_000, extrapolate=True).translation == pytest.approx([1.5, 0, 0])
    with pytest.raises(NoPoseYet):
        history.at(150_000_000)
    with pytest.raises(NoPoseYet):
        history.at(201_000_000, extrapolate=True)
    with pytest.raises(NoPoseYet):
        _history(100).at(150_000_000, extrapolate=True)


def test_extrapolation_leans_on_more_than_one_short_step():
    history = _history(0, 100)
    history.add(100_000_001, _pose(1.001))  # 1 ns later and 1 mm further: the last step alone means 1e6 m/s
    assert history.at(150_000_000, extrapolate=True).translation == pytest.approx([1.5, 0, 0], abs=0.01)


def test_before_the_oldest_and_inside_a_gap_there_is_no_pose():
    with pytest.raises(NoPose):
        _history(100, 200).at(50_000_000)
    with pytest.raises(NoPose, match="gap"):
        _history(0, 1500).at(700_000_000)


def test_a_clock_that_jumps_back_starts_anew():
    history = _history(10_000, 10_100)
    history.add(0, _pose(0.0))
    assert len(history) == 1
    assert history.at(0).translation == pytest.approx([0, 0, 0])


def test_ten_seconds_are_kept():
    history = _history(*range(0, 30_000, 100))
    assert len(history) == 101


class Told:
    """What EgoMotion had to say."""

    def __init__(self) -> None:
        self.bad_odometry: list[str] = []
        self.bad_transforms: list[str] = []
        self.switches: list[str] = []
        self.warned: list[str] = []


def _ego(
    mode: str = "auto",
    timeout: float = 0.0,
    odom_published: bool = True,
    tf_published: bool = False,
    tf_possible: bool = True,
    mounting: SE3 | None = None,
) -> tuple[EgoMotion, Told]:
    told = Told()
    ego = EgoMotion(
        mode,
        timeout=timeout,
        odom_frame="odom",
        base_frame="base_link",
        mounting=mounting,
        odom_published=lambda: odom_published,
        tf_published=lambda: tf_published,
        tf_possible=tf_possible,
        on_bad_odometry=told.bad_odometry.append,
        on_bad_transform=told.bad_transforms.append,
        on_switch=told.switches.append,
        warn_once=told.warned.append,
    )
    return ego, told


def test_odometry_gives_the_pose_in_its_child_frame():
    ego, told = _ego()
    ego.add_odometry(odometry(0, 0.0, child="vehicle"))
    ego.add_odometry(odometry(SECOND // 10, 1.0, child="vehicle"))
    place = ego.locate(SECOND // 20, "vehicle")
    assert place.world_SE3_vehicle.translation == pytest.approx([0.5, 0, 0])
    np.testing.assert_array_equal(place.vehicle_SE3_cloud.matrix, np.eye(4))
    assert told.warned == []


@pytest.mark.parametrize("x, w", [(math.nan, 1.0), (math.inf, 1.0), (0.0, 0.0), (0.0, math.nan)])
def test_odometry_that_is_no_pose_is_reported_and_ignored(x: float, w: float):
    ego, told = _ego()
    ego.add_odometry(odometry(0, 1.0))
    ego.add_odometry(odometry(10, x, w=w))
    ego.add_odometry(odometry(20, 3.0))
    assert len(told.bad_odometry) == 1
    assert ego.locate(10, "base_link").world_SE3_vehicle.translation == pytest.approx([2, 0, 0])


def test_a_cloud_waits_for_odometry_that_is_under_way():
    ego, _ = _ego(timeout=10.0)
    ego.add_odometry(odometry(0, 0.0))
    late = threading.Timer(0.1, ego.add_odometry, [odometry(SECOND, 5.0)])
    late.start()
    assert ego.locate(SECOND, "base_link").world_SE3_vehicle.translation == pytest.approx([5, 0, 0])
    late.join()


def test_a_recording_that_starts_over_is_waited_for():
    ego, _ = _ego(mode="odom", timeout=10.0)
    ego.add_odometry(odometry(100 * SECOND, 9.0))
    late = threading.Timer(0.1, ego.add_odometry, [odometry(SECOND, 5.0)])
    late.start()
    assert ego.locate(SECOND, "base_link").world_SE3_vehicle.translation == pytest.approx([5, 0, 0])
    late.join()


def test_a_cloud_waits_no_longer_than_the_timeout():
    ego, _ = _ego(timeout=0.05)
    ego.add_odometry(odometry(0, 0.0))
    with pytest.raises(NoPose, match="1.000 s older"):
        ego.locate(SECOND, "base_link")


def test_stopping_wakes_up_who_waits():
    ego, _ = _ego(mode="odom", timeout=60.0)
    threading.Timer(0.05, ego.stop).start()
    start = time.monotonic()
    with pytest.raises(NoPose):
        ego.locate(0, "base_link")
    assert time.monotonic() - start < 30


def test_none_is_a_vehicle_that_stands():
    ego, _ = _ego(mode="none")
    place = ego.locate(123, "base_link")
    assert place.source == "none" and place.world_SE3_vehicle.translation == pytest.approx([0, 0, 0])


@pytest.mark.parametrize("mode", ["tf", "auto"])
def test_transforms_give_the_pose(mode: str):
    ego, _ = _ego(mode=mode, odom_published=False)
    ego.add_transforms([transform("odom", "base_link", (0, 0, 0), stamp_ns=SECOND)], static=False)
    ego.add_transforms([transform("odom", "base_link", (2, 0, 0), stamp_ns=2 * SECOND)], static=False)
    assert ego.locate(3 * SECOND // 2, "base_link").world_SE3_vehicle.translation == pytest.approx([1, 0, 0])
    with pytest.raises(NoPose):
        ego.locate(12 * SECOND // 5, "base_link")


def test_transforms_survive_a_clock_that_jumps_back():
    ego, _ = _ego(mode="tf")
    ego.add_transforms([transform("odom", "base_link", (9, 0, 0), stamp_ns=90 * SECOND)], static=False)
    ego.add_transforms([transform("odom", "base_link", (1, 0, 0), stamp_ns=SECOND)], static=False)
    assert ego.locate(SECOND, "base_link").world_SE3_vehicle.translation == pytest.approx([1, 0, 0])


def test_the_mounting_of_the_sensor_comes_from_static_transforms():
    ego, told = _ego()
    ego.add_odometry(odometry(0))
    ego.add_transforms([transform("base_link", "lidar", (1, 0, 2))], static=True)
    assert ego.locate(0, "lidar").vehicle_SE3_cloud.translation == pytest.approx([1, 0, 2])
    assert told.warned == []


@pytest.mark.parametrize("tf_possible", [True, False])
def test_an_unknown_mounting_is_taken_for_none_with_a_warning(tf_possible: bool):
    ego, told = _ego(tf_possible=tf_possible)
    ego.add_odometry(odometry(0))
    np.testing.assert_array_equal(ego.locate(0, "lidar").vehicle_SE3_cloud.matrix, np.eye(4))
    ego.locate(0, "lidar")
    assert len(told.warned) == 1 and "'lidar'" in told.warned[0]
    assert ("tf2_msgs" in told.warned[0]) is not tf_possible


def test_a_mounting_that_becomes_known_is_used():
    ego, _ = _ego()
    ego.add_odometry(odometry(0))
    ego.locate(0, "lidar")
    ego.add_transforms([transform("base_link", "lidar", (1, 0, 2))], static=True)
    assert ego.locate(0, "lidar").vehicle_SE3_cloud.translation == pytest.approx([1, 0, 2])


def test_the_mounting_that_the_settings_give_is_used_whatever_transforms_say():
    given = SE3.from_yaw(1.0, np.array([1.0, 2.0, 3.0]))
    ego, told = _ego(mounting=given, timeout=60.0)
    ego.add_odometry(odometry(0))
    ego.add_transforms([transform("base_link", "lidar", (9, 9, 9))], static=True)
    for frame in ("lidar", "base_link", "unknown", ""):
        assert ego.locate(0, frame).vehicle_SE3_cloud is given
    assert told.warned == []


def test_frames_with_a_leading_slash_are_the_same():
    ego, told = _ego(mode="tf")
    ego.add_transforms([transform("/odom", "/base_link", (3, 0, 0), stamp_ns=SECOND)], static=False)
    ego.add_transforms([transform("/base_link", "/lidar", (1, 0, 2))], static=True)
    place = ego.locate(SECOND, "/lidar")
    assert place.world_SE3_vehicle.translation == pytest.approx([3, 0, 0])
    assert place.vehicle_SE3_cloud.translation == pytest.approx([1, 0, 2])
    assert told.warned == []


# --- transforms that are none ------------------------------------------------------------------------------


@pytest.mark.parametrize("static", [True, False])
@pytest.mark.parametrize(
    "broken",
    [
        transform("odom", "base_link", (math.nan, 0, 0), stamp_ns=2),
        transform("odom", "base_link", (0, math.inf, 0), stamp_ns=2),
        transform("odom", "base_link", (0, 0, 0), (0, 0, 0, 0), stamp_ns=2),
        transform("odom", "base_link", (0, 0, 0), (math.nan, 0, 0, 1), stamp_ns=2),
        transform("base_link", "base_link", (5, 0, 0), stamp_ns=2),
        transform("base_link", "/base_link", (5, 0, 0), stamp_ns=2),
    ],
)
def test_a_transform_that_is_no_pose_is_reported_and_the_others_are_used(broken, static: bool):
    ego, told = _ego(mode="tf")
    for stamp_ns in (1, 3):
        ego.add_transforms([transform("odom", "base_link", (stamp_ns, 0, 0), stamp_ns=stamp_ns)], static=False)
        ego.add_transforms([broken], static)
    assert len(told.bad_transforms) == 2 and "'base_link'" in told.bad_transforms[0]
    assert ego.locate(2, "base_link").world_SE3_vehicle.translation == pytest.approx([2, 0, 0])


def test_transforms_in_a_circle_and_strange_stamps_give_no_pose_and_end():
    ego, told = _ego(mode="tf")
    names = ["odom", "a", "base_link", "b"]
    for parent, child in zip(names, [*names[1:], names[0]], strict=True):
        ego.add_transforms([transform(parent, child, (1, 0, 0), stamp_ns=SECOND)], static=False)
    for frame in ("unknown", "base_link", "b"):
        with pytest.raises(NoPose):
            ego.locate(SECOND, frame)
    negative = transform("odom", "base_link", (1, 0, 0))
    negative.header.stamp.sec = -5
    ego.add_transforms([negative], static=False)
    with pytest.raises(NoPose):
        ego.locate(-5 * SECOND, "base_link")


# --- auto --------------------------------------------------------------------------------------------------

STEP = SECOND // 10


def _drive(ego: EgoMotion, steps: range, feed: str = "") -> list[str]:
    """The sources of clouds at 10 Hz; `feed` brings poses of the same moments, a little earlier. "" where none is
    known."""
    sources = []
    for k in steps:
        if feed == "odom":
            ego.add_odometry(odometry(k * STEP, float(k)))
        if feed == "tf":
            ego.add_transforms([transform("odom", "base_link", (k, 0, 0), stamp_ns=k * STEP)], static=False)
        try:
            place = ego.locate(k * STEP, "base_link")
        except NoPose:
            sources.append("")
        else:
            assert (place.world_SE3_vehicle is None) is (place.source == "kiss_icp")
            sources.append(place.source)
    return sources


def test_with_nothing_but_clouds_these_tell_at_once():
    ego, told = _ego(timeout=60.0, odom_published=False)
    start = time.monotonic()
    assert _drive(ego, range(5)) == ["kiss_icp"] * 5
    assert time.monotonic() - start < 30
    assert told.switches == []


def test_a_publisher_that_says_nothing_is_waited_for_once():
    ego, told = _ego(timeout=0.3, odom_published=True, tf_published=True)
    start = time.monotonic()
    _drive(ego, range(1))
    assert time.monotonic() - start > 0.25
    ego.timeout = 60.0
    assert _drive(ego, range(1, 50)) == ["kiss_icp"] * 49
    assert time.monotonic() - start < 30
    assert told.switches == []


@pytest.mark.parametrize("feed", ["odom", "tf"])
def test_poses_are_taken_where_they_come_and_nothing_is_switched(feed: str):
    ego, told = _ego()
    assert _drive(ego, range(1, 30), feed) == [feed] * 29
    assert told.switches == []


def test_odometry_is_waited_for_at_the_start_where_somebody_publishes_it():
    ego, told = _ego(timeout=10.0)
    late = threading.Timer(0.1, ego.add_odometry, [odometry(SECOND, 5.0)])
    late.start()
    assert ego.locate(SECOND, "base_link").source == "odom"
    late.join()
    assert told.switches == []


@pytest.mark.parametrize("feed", ["odom", "tf"])
def test_poses_that_appear_later_are_taken_from_then_on(feed: str):
    ego, told = _ego()
    assert _drive(ego, range(1, 10)) == ["kiss_icp"] * 9
    assert _drive(ego, range(10, 20), feed) == [feed] * 10
    assert len(told.switches) == 1 and "KISS-ICP" in told.switches[0]


@pytest.mark.parametrize("feed", ["odom", "tf"])
def test_when_poses_end_the_clouds_take_over_and_wait_no_more_until_there_are_some_again(feed: str):
    ego, told = _ego()
    _drive(ego, range(1, 20), feed)
    silent = _drive(ego, range(20, 40))
    lost = silent.count("")
    assert 9 <= lost <= 11 and set(silent[-9:]) == {"kiss_icp"}
    assert "older" in told.switches[0] if feed == "odom" else len(told.switches) == 1
    ego.timeout = 0.5
    start = time.monotonic()
    assert set(_drive(ego, range(40, 140))) == {"kiss_icp"}
    assert time.monotonic() - start < 20  # and not 100 times 0.5 s
    assert _drive(ego, range(140, 150), feed) == [feed] * 10
    assert len(told.switches) == 2


def test_transforms_take_over_from_odometry_and_give_way_to_it():
    ego, told = _ego()
    _drive(ego, range(1, 10), "odom")
    assert _drive(ego, range(10, 40), "tf")[-10:] == ["tf"] * 10
    assert _drive(ego, range(40, 50), "odom") == ["odom"] * 10
    assert len(told.switches) == 2


@pytest.mark.parametrize("offset_s", [-1000, 1000])
def test_odometry_of_another_clock_is_given_up(offset_s: int):
    ego, told = _ego()
    sources = []
    for k in range(20_000, 20_040):
        ego.add_odometry(odometry(k * STEP + offset_s * SECOND, float(k)))
        sources += _drive(ego, range(k, k + 1))
    assert sources.count("") <= 11 and set(sources[-20:]) == {"kiss_icp"}
    assert len(told.switches) == 1


def test_transforms_of_other_frames_are_no_ego_motion():
    ego, told = _ego(odom_published=False, tf_published=True)
    ego.add_transforms([transform("base_link", "wheel", (1, 0, 0), stamp_ns=SECOND)], static=False)
    ego.add_transforms([transform("odom", "base_link", (1, 0, 0))], static=True)
    assert _drive(ego, range(10, 13)) == ["kiss_icp"] * 3
    assert told.switches == []


def test_clouds_go_on_in_the_vehicle_frame_of_the_odometry_before():
    ego, told = _ego()
    ego.add_transforms([transform("car", "lidar", (1, 0, 2))], static=True)
    ego.add_odometry(odometry(0, child="car"))
    for stamp_ns in (0, 5 * SECOND):
        place = ego.locate(stamp_ns, "lidar")
        assert place.vehicle_SE3_cloud.translation == pytest.approx([1, 0, 2])
    assert place.source == "kiss_icp" and told.warned == []


def test_without_kiss_icp_it_is_said_what_to_do(monkeypatch):
    monkeypatch.setattr("zeroflow_ros.live.ego_motion.kiss_icp_missing", lambda: "kiss-icp is missing")
    ego, told = _ego(odom_published=False)
    with pytest.raises(NoPose, match="remap 'odom' .* pip install kiss-icp.* ego_motion to none"):
        ego.locate(0, "base_link")
    assert _drive(ego, range(1, 10), "odom") == ["odom"] * 9
    assert set(_drive(ego, range(11, 40))) == {""} and told.switches == []
    with pytest.raises(ZeroFlowError, match="kiss-icp is missing"):
        _ego("kiss_icp")
