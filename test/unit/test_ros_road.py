"""The road of a cloud through its four threads: every cloud ends exactly once, whatever happens to it on the way."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")

from ros_messages import SECOND, Log, cloud

from zeroflow_core.geometry import SE3
from zeroflow_core.ground import no_ground
from zeroflow_ros.live.ego_motion import NoPose, Place
from zeroflow_ros.live.health import Health
from zeroflow_ros.live.pipeline import Pipeline
from zeroflow_ros.live.road import Road
from zeroflow_ros.live.students import StudentFailed
from zeroflow_ros.messages.clouds import nanoseconds
from zeroflow_ros.parameters.settings import Settings

STEP = SECOND // 10
POINTS = np.random.default_rng(1).uniform([-20, -20, 0], [20, 20, 2], (300, 3)).astype(np.float32)


class Outlets:
    """Keeps what is published; `broken` names what fails instead."""

    def __init__(self, flow: bool = True, objects: bool = True, surroundings: bool = False, broken: str = "") -> None:
        self.flow, self.objects, self.surroundings, self.broken = flow, objects, surroundings, broken
        self.flows, self.times, self.scenes, self.maps, self.processed = [], [], [], [], []
        self.poses: list[int] = []  # of each path
        self.gate = threading.Event()
        self.gate.set()

    def wants_flow(self) -> bool:
        return self.flow

    def wants_objects(self) -> bool:
        return self.objects

    def wants_surroundings(self) -> bool:
        return self.surroundings

    def publish_flow(self, result, settings) -> None:
        self._pass("flow")
        self.flows.append(nanoseconds(result.message.header.stamp))

    def publish_times(self, result, arrived: float) -> None:
        self.times.append(time.perf_counter() - arrived)

    def publish_objects(self, result, tracks, min_speed) -> None:
        assert self.gate.wait(10)
        self._pass("objects")
        self.scenes.append((nanoseconds(result.message.header.stamp), tracks))

    def publish_surroundings(self, result, settings, surroundings) -> None:
        surroundings.take(result)
        self.poses.append(len(surroundings.path(result).poses))
        self._pass("surroundings")
        self.maps.append(nanoseconds(result.message.header.stamp))

    def publish_processed(self, header) -> None:
        self._pass("processed")
        self.processed.append(nanoseconds(header.stamp))

    def _pass(self, what: str) -> None:
        if what == self.broken:
            raise RuntimeError(f"the middleware refuses {what}")


class Route:
    def __init__(self) -> None:
        self.lost = False

    def locate(self, stamp_ns: int, cloud_frame: str) -> Place:
        if self.lost:
            raise NoPose("nobody knows")
        return Place(SE3.identity(), SE3.identity(), "odom")


class Student:
    """Takes its time, or fails, as told; where the gate is closed it waits for that to open."""

    metadata = {"ground_z": 0.0}

    def __init__(self) -> None:
        self.seconds, self.failure = 0.0, None
        self.gate = threading.Event()
        self.gate.set()

    def flow(self, pc0: np.ndarray, pc1: np.ndarray) -> np.ndarray:
        time.sleep(self.seconds)
        assert self.gate.wait(60)
        if self.failure is not None:
            raise self.failure
        return np.full_like(pc0, 0.2)


class Scene:
    def __init__(self, outlets: Outlets | None = None, **settings) -> None:
        self.outlets, self.student, self.route = outlets or Outlets(), Student(), Route()
        self.health = Health(Log())
        chosen = replace(Settings(), estimate_z_offset=False, **settings)
        self.pipeline = Pipeline(self.student, no_ground, lambda: chosen, self.route, self.health)
        self.can_cluster = True
        self.road = Road(self.pipeline, self.outlets, lambda: chosen, self.health, lambda: self.can_cluster)
        self.sent = 0

    def send(self, message=None, wait: bool = True) -> None:
        """The next cloud, 0.1 s after the one before; by default until nothing more comes of it."""
        self.sent += 1
        self.health.cloud_received()
        self.road.put(message or cloud(POINTS, self.stamp_ns))
        if wait:
            self.wait(lambda: len(self.outlets.processed) >= self.sent)

    @property
    def stamp_ns(self) -> int:
        return self.sent * STEP

    def wait(self, done) -> None:
        deadline = time.monotonic() + 60
        while not done():
            assert time.monotonic() < deadline, f"{len(self.outlets.processed)} of {self.sent} processed"
            time.sleep(0.002)

    def outcomes(self) -> dict[str, int]:
        return {name: count for name, count in self.health.outcomes().items() if count}


def test_one_cloud_after_another_gives_flow_and_objects_and_the_first_has_no_partner():
    scene = Scene()
    car = np.random.default_rng(2).uniform([5, 5, 5], [9, 7, 6.5], (400, 3)).astype(np.float32)
    for k in range(8):
        scene.send(cloud(car - np.float32(0.2 * k), STEP * (k + 1)))  # -2 m/s along each axis, as the student says
    assert scene.outcomes() == {"flows_published": 7, "no_partner": 1}
    assert scene.outlets.flows == [k * STEP for k in range(2, 9)]
    assert [stamp for stamp, _ in scene.outlets.scenes] == scene.outlets.flows
    assert scene.outlets.processed == [k * STEP for k in range(1, 9)]
    confirmed = [len(tracks) for _, tracks in scene.outlets.scenes]
    assert confirmed == [0, 0, 1, 1, 1, 1, 1]


def test_while_the_student_is_busy_the_newest_cloud_waits_and_the_others_are_counted():
    scene = Scene()
    scene.send()
    scene.student.gate.clear()
    for _ in range(39):
        scene.send(wait=False)
        time.sleep(0.01)
    scene.wait(lambda: len(scene.outlets.processed) >= 30)
    scene.student.gate.set()
    scene.wait(lambda: len(scene.outlets.processed) == 40)
    outcomes = scene.outcomes()
    assert sum(outcomes.values()) == 40 and sorted(outcomes) == ["flows_published", "no_partner", "skipped_busy"]
    assert 2 <= outcomes["flows_published"] < 10 and scene.outlets.flows[-1] == 40 * STEP
    assert sorted(scene.outlets.processed) == [k * STEP for k in range(1, 41)]
    assert any(line.startswith("clouds come faster than they can be") for line in scene.health._logger.lines)


def test_a_cloud_is_paired_with_the_one_before_it_also_when_that_was_left_out():
    scene = Scene()
    seen = []
    flow = scene.student.flow
    scene.student.flow = lambda pc0, pc1: (seen.append((pc0 - pc1)[:, 0].mean()), flow(pc0, pc1))[1]
    for k in range(30):
        if k in (5, 20):
            (scene.student.gate.clear if k == 5 else scene.student.gate.set)()
        scene.sent += 1
        scene.health.cloud_received()
        scene.road.put(cloud(POINTS + np.float32([0.01 * k, 0, 0]), scene.stamp_ns))
        scene.wait(lambda: (newest := scene.pipeline._history.newest) and newest.sweep.stamp_ns == scene.stamp_ns)
    scene.wait(lambda: len(scene.outlets.processed) == 30)
    assert 1 < len(seen) < 29
    np.testing.assert_allclose(seen, 0.01, atol=1e-4)


def test_objects_that_take_their_time_do_not_hold_up_the_flow():
    scene = Scene()
    scene.outlets.gate.clear()
    scene.send()
    for k in range(1, 6):
        scene.send(wait=False)
        scene.wait(lambda count=k: len(scene.outlets.flows) == count)
    assert scene.outlets.scenes == []
    scene.outlets.gate.set()
    scene.wait(lambda: len(scene.outlets.processed) == 6)
    assert scene.health.counts()["objects_skipped"] == 3  # the second to fourth of five
    assert scene.outcomes() == {"flows_published": 5, "no_partner": 1}


def test_nobody_who_listens_is_worked_for_and_whoever_comes_gets_fresh_pairs():
    scene = Scene(Outlets(flow=False, objects=False))
    for _ in range(3):
        scene.send()
    assert scene.outcomes() == {"unwatched": 3}
    scene.outlets.objects = True
    for _ in range(3):
        scene.send()
    scene.outlets.objects = False
    scene.send()
    scene.outlets.flow = True
    for _ in range(2):
        scene.send()
    assert scene.outcomes() == {"unwatched": 4, "no_partner": 2, "flows_published": 3}
    assert len(scene.outlets.scenes) == 2


def test_map_and_path_are_made_for_whoever_wants_them_alone_and_need_no_objects():
    scene = Scene(Outlets(flow=False, objects=False, surroundings=True))
    scene.can_cluster = False
    for k in range(4):
        scene.outlets.objects = k == 2
        scene.send()
    assert (scene.outlets.maps, scene.outlets.scenes) == ([2 * STEP, 3 * STEP, 4 * STEP], [])
    scene.outlets.surroundings, scene.outlets.flow = False, True
    scene.send()
    assert len(scene.outlets.maps) == 3 and scene.outlets.processed == [k * STEP for k in range(1, 6)]


def test_a_road_begins_with_no_path_and_so_does_one_that_failed():
    outlets = Outlets(flow=False, objects=False, surroundings=True)
    for start in (0, 10):  # the node is deactivated and activated again: nobody knows whether the world is the same
        scene = Scene(outlets)
        outlets.processed.clear()
        for k in range(4):
            scene.send(cloud(POINTS, STEP * (start + k + 1)))
        assert scene.road.stop(patience=5.0)
    assert outlets.poses == [1, 2, 3, 1, 2, 3]
    scene = Scene(Outlets(flow=False, objects=False, surroundings=True))
    for k in range(5):
        scene.outlets.broken = "surroundings" if k == 2 else ""
        scene.send()
    assert scene.outlets.poses == [1, 2, 1, 2]


@pytest.mark.parametrize("broken, flows, drops", [
    ("flow", 4, {"publish_failed": 1}),
    ("objects", 5, {}),
    ("surroundings", 5, {}),
])  # fmt: skip
def test_what_the_middleware_refuses_is_counted_and_the_next_is_tried(broken: str, flows: int, drops: dict):
    scene = Scene(Outlets(surroundings=True))
    for k in range(6):
        scene.outlets.broken = broken if k == 3 else ""
        scene.send()
    assert scene.outcomes() == {"no_partner": 1, "flows_published": flows} | drops
    assert scene.health.counts()["publish_failed" if broken == "flow" else "objects_failed"] == 1


def test_an_error_nobody_thought_of_ends_its_cloud_only():
    scene = Scene()
    for k in range(8):
        scene.student.failure = KeyError("surprise") if k == 4 else None
        scene.send()
    assert scene.outcomes() == {"no_partner": 2, "internal_error": 1, "flows_published": 5}
    assert any("a cloud failed: KeyError: 'surprise'" in line for line in scene.health._logger.lines)


def test_when_stopped_it_takes_nothing_more_and_ends_what_it_has_begun():
    before = set(threading.enumerate())
    scene = Scene()
    scene.student.seconds = 0.2
    for _ in range(5):
        scene.send(wait=False)
    assert len(set(threading.enumerate()) - before) == 4
    assert scene.road.stop(patience=5.0)
    scene.send(wait=False)
    scene.wait(lambda: len(scene.outlets.processed) == 6)
    assert sum(scene.outcomes().values()) == 6
    assert set(threading.enumerate()) <= before


def test_a_student_that_hangs_is_not_waited_for():
    scene = Scene()
    begun, go_on = threading.Event(), threading.Event()
    scene.student.flow = lambda pc0, pc1: (begun.set(), go_on.wait(60.0), 0 * pc0)[2]
    for k in range(2):
        scene.send(wait=k == 0)
    assert begun.wait(5.0)
    start = time.monotonic()
    assert not scene.road.stop(patience=0.1)
    assert time.monotonic() - start < 30
    go_on.set()


def test_whatever_comes_every_cloud_ends_in_one_outcome_and_one_message():
    chance = random.Random(5)
    scene = Scene(max_gap=0.35)
    failures = [None, None, None, StudentFailed("no"), ValueError("what")]
    stamp_ns = SECOND
    for _ in range(300):
        scene.student.failure = chance.choice(failures)
        scene.student.seconds = chance.choice([0.0, 0.0, 0.003])
        scene.route.lost = chance.random() < 0.1
        scene.outlets.flow = chance.random() < 0.9
        scene.outlets.objects = chance.random() < 0.5
        scene.outlets.surroundings = chance.random() < 0.3
        scene.outlets.broken = chance.choice(["", "", "", "flow", "objects", "surroundings"])
        stamp_ns += chance.choice([STEP, STEP, STEP, 0, -STEP, 5 * STEP, -30 * STEP])
        stamp_ns = max(stamp_ns, SECOND)
        points = chance.choice([POINTS, POINTS, POINTS[:0], np.full((9, 3), np.nan, np.float32)])
        message = cloud(points, stamp_ns, chance.choice(["base_link"] * 9 + ["elsewhere"]))
        if chance.random() < 0.05:
            message.data = message.data[:-1]
        scene.send(message, wait=chance.random() < 0.7)
    scene.wait(lambda: len(scene.outlets.processed) == 300)
    outcomes = scene.outcomes()
    assert sum(outcomes.values()) == 300, outcomes
    assert len(outcomes) >= 10, outcomes


def test_a_tracker_that_failed_begins_anew(monkeypatch):
    class Fragile:
        broken = False

        def reset(self) -> None:
            self.broken = False

        def update(self, objects, stamp_ns, *_, **__) -> list:
            self.broken = self.broken or stamp_ns == 3 * STEP
            if self.broken:
                raise ValueError("in the middle of it")
            return []

    monkeypatch.setattr("zeroflow_ros.live.road.Tracker", Fragile)
    scene = Scene()
    for _ in range(6):
        scene.send()
    assert scene.health.counts()["objects_failed"] == 1
    assert len(scene.outlets.scenes) == 4


def test_objects_that_are_not_looked_for_because_of_the_end_are_no_problem():
    scene = Scene()
    scene.outlets.gate.clear()
    for k in range(3):  # the objects of the second are under way, those of the third wait
        scene.send(wait=k == 0)
        scene.wait(lambda: len(scene.outlets.flows) == k)  # noqa: B023
    threading.Timer(0.2, scene.outlets.gate.set).start()
    time.sleep(0.05)
    assert scene.road.stop(patience=5.0)
    assert len(scene.outlets.processed) == 3 and scene.health.counts()["objects_skipped"] == 0
