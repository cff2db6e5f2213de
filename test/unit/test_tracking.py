"""Numbers that stay, from hand-made objects and from a simulated log whose truth is known."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest

from zeroflow_core.geometry import SE3
from zeroflow_core.objects import MovingObject, moving_objects
from zeroflow_core.simulation.log import simulate_sweeps
from zeroflow_core.tracking import KEPT_SPEED, Tracker

STEP_NS = 100_000_000
HERE = SE3.identity()


def moving(x, y, vx, vy=0.0, size=(4.4, 1.8, 1.5), yaw=None, num_points=100):
    yaw = float(np.arctan2(vy, vx)) if yaw is None else yaw
    return MovingObject(np.array([x, y, 0.8]), np.array(size), yaw, np.array([vx, vy, 0.0]), num_points)


def seen_from(frame_SE3_world, one):
    ahead = frame_SE3_world.rotate(np.array([[np.cos(one.yaw), np.sin(one.yaw), 0.0]]))[0]
    return replace(
        one,
        centre=frame_SE3_world.transform(one.centre[None])[0],
        velocity=frame_SE3_world.rotate(one.velocity[None])[0],
        yaw=float(np.arctan2(ahead[1], ahead[0])),
    )


def follow(updates, tracker=None, start=0, **settings):
    """Tracks after each of `updates`, lists of objects a tenth of a second apart."""
    tracker = tracker or Tracker()
    return [tracker.update(found, start + k * STEP_NS, HERE, **settings) for k, found in enumerate(updates)]


def ids(tracks):
    return [track.id for track in tracks]


def test_an_object_is_reported_from_its_third_sweep_on_and_keeps_its_number():
    told = follow([[moving(10 + 0.8 * k, 3, 8.0)] for k in range(20)])
    assert [ids(tracks) for tracks in told] == [[], [], *[[1]] * 18]
    last = told[-1][0]
    assert (last.hits, last.is_predicted, last.object.num_points) == (20, False, 100)
    assert last.age_s == pytest.approx(1.9)
    np.testing.assert_allclose(last.object.centre, [25.2, 3, 0.8], atol=0.05)
    np.testing.assert_allclose(last.object.velocity, [8, 0, 0], atol=1e-6)
    np.testing.assert_allclose(last.object.size, [4.4, 1.8, 1.5], atol=1e-6)
    assert last.object.yaw == pytest.approx(0.0, abs=1e-9)
    assert ids(follow([[moving(0, 0, 8.0)]], confirmations=1)[0]) == [1]


def test_cars_that_pass_each_other_keep_their_numbers():
    rng = np.random.default_rng(0)
    told = []
    tracker = Tracker()
    for k in range(40):
        there = moving(-16 + 0.8 * k, 0.0, 8.0 + rng.normal(0, 0.5))
        back = moving(16 - 0.8 * k, 2.2, -8.0 + rng.normal(0, 0.5))
        found = [there, back] if rng.random() < 0.5 else [back, there]
        told.append(tracker.update(found, k * STEP_NS, HERE))
    assert all(ids(tracks) == [1, 2] for tracks in told[2:])
    ahead = {track.id: track.object.velocity[0] > 0 for track in told[2]}
    assert all(ahead[track.id] == (track.object.velocity[0] > 0) for tracks in told[2:] for track in tracks)


def test_people_who_cross_keep_their_numbers():
    told = follow(
        [
            [
                moving(-2 + 0.14 * k, 0.0, 1.4, size=(0.6, 0.6, 1.7)),
                moving(0.3, 2 - 0.14 * k, 0.0, -1.4, size=(0.6, 0.6, 1.7)),
            ]
            for k in range(30)
        ]
    )
    assert all(ids(tracks) == [1, 2] for tracks in told[2:])
    assert [round(float(track.object.velocity[0]), 1) for track in told[-1]] == [1.4, 0.0]


def test_people_who_walk_side_by_side_keep_their_numbers():
    size = (0.6, 0.6, 1.7)
    told = follow(
        [[moving(0.14 * k, y, 1.4, size=size) for y in ((0.0, 0.7) if k % 3 else (0.7, 0.0))] for k in range(20)]
    )
    assert all(ids(tracks) == [1, 2] for tracks in told[2:])
    first = told[2][0].object.centre[1]
    assert all(tracks[0].object.centre[1] == pytest.approx(first) for tracks in told[2:])


def test_what_comes_the_other_way_where_another_one_was_is_somebody_else():
    there = [[moving(0.8 * k, 0, 8.0)] for k in range(6)]
    back = [[moving(4.8 - 0.8 * k, 0, -8.0)] for k in range(6)]
    told = follow(there + back)
    assert ids(told[5]) == [1]
    assert [track.id for track in told[-1] if not track.is_predicted] == [2]


def test_a_car_that_is_hidden_for_a_moment_is_predicted_and_goes_on_with_its_number():
    hidden = range(10, 13)
    told = follow([[] if k in hidden else [moving(0.8 * k, 5, 8.0)] for k in range(20)])
    assert all(ids(tracks) == [1] for tracks in told[2:])
    for k in hidden:
        (track,) = told[k]
        assert track.is_predicted and track.object.num_points == 0
        np.testing.assert_allclose(track.object.centre[:2], [0.8 * k, 5], atol=0.1)
    assert not told[13][0].is_predicted
    assert told[-1][0].hits == 17


def test_what_is_gone_for_longer_than_the_timeout_is_forgotten_and_its_number_not_given_again():
    updates = [[moving(0.8 * k, 5, 8.0)] for k in range(5)] + [[]] * 10
    told = follow(updates, tracker := Tracker(), timeout=0.3)
    assert [bool(tracks) for tracks in told[4:]] == [True, True, True, True, *[False] * 7]
    again = follow([[moving(0.8 * k, 5, 8.0)] for k in range(15, 20)], tracker, start=15 * STEP_NS)
    assert ids(again[-1]) == [2]
    assert follow(updates, timeout=0.0)[5] == []


def test_in_stop_and_go_a_car_has_its_number_again_without_being_shown_while_it_stands():
    rng = np.random.default_rng(1)
    x, speed, told = 0.0, 6.0, []
    tracker, updates = Tracker(), 0
    for k in range(150):
        speed = max(speed - 0.3, 0.0) if k < 80 else min(speed + 0.2, 6.0)
        x += 0.1 * speed
        place = x + rng.normal(0, 0.05)
        found = [moving(place, 3, speed, yaw=0.0)] if speed >= 0.25 else []
        updates += bool(found)
        told.append((speed, tracker.update(found, k * STEP_NS, HERE)))
    assert {number for _, tracks in told for number in ids(tracks)} == {1}
    assert all(not tracks for _, tracks in told[40:80])
    assert [track.is_predicted for track in told[-1][1]] == [False]
    assert told[-1][1][0].hits == updates


def test_the_place_of_what_was_seen_but_briefly_is_not_remembered():
    brief = [[moving(0.05 * k, 3, 0.6, yaw=0.0)] for k in range(5)]
    told = follow(brief + [[]] * 20 + brief)
    assert ids(told[4]) == [1] and ids(told[-1]) == [2]


def test_a_vehicle_that_turns_on_the_spot_changes_nothing():
    tracker = Tracker()
    for k in range(30):
        world_SE3_frame = SE3.from_yaw(0.15 * k, np.array([0.5 * k, -0.3 * k, 0.0]))
        truth = seen_from(world_SE3_frame.inverse(), moving(15 - 0.5 * k, 8 + 0.5 * k, -5.0, 5.0))
        tracks = tracker.update([truth], k * STEP_NS, world_SE3_frame)
        if k >= 2:
            assert ids(tracks) == [1]
            np.testing.assert_allclose(tracks[0].object.centre, truth.centre, atol=1e-6)
            np.testing.assert_allclose(tracks[0].object.velocity, truth.velocity, atol=1e-6)
            assert np.cos(tracks[0].object.yaw - truth.yaw) > 1 - 1e-9


def test_an_object_is_taken_up_at_the_speed_and_kept_down_to_half_of_it():
    slow = follow([[moving(0.04 * k, 0, 0.4)] for k in range(10)], min_speed=0.5)
    assert all(tracks == [] for tracks in slow)
    speeds = [0.6] * 5 + [0.3] * 5
    told = follow([[moving(0.0, 0.0, speed)] for speed in speeds], tracker := Tracker(), min_speed=0.5)
    assert ids(told[-1]) == [1] and not told[-1][0].is_predicted
    (left,) = follow([[moving(0.0, 0.0, 0.2)]], tracker, start=10 * STEP_NS, min_speed=0.5)[0]
    assert left.is_predicted


def test_an_object_is_not_predicted_where_another_one_is_seen():
    def scene(k: int) -> list[MovingObject]:
        return [moving(10 + 0.5 * k, 0, 5.0), moving(10 + 0.5 * k, 9, 5.0), moving(15 - 0.5 * k, 0.4, -5.0)]

    trackers = Tracker(), Tracker()
    for tracker in trackers:
        assert ids(follow([scene(k) for k in range(5)], tracker)[-1]) == [1, 2, 3]
    _, aside, oncoming = scene(5)
    hidden = follow([[aside, oncoming]], trackers[0], start=5 * STEP_NS)[0]
    assert ids(hidden) == [2, 3]
    alone = follow([[aside]], trackers[1], start=5 * STEP_NS)[0]
    assert [(track.id, track.is_predicted) for track in alone] == [(1, True), (2, False), (3, True)]


def test_noise_that_flickers_gets_no_number():
    rng = np.random.default_rng(2)
    told = follow(
        [
            [
                moving(*rng.uniform(-50, 50, 2), *rng.normal(0, 1.0, 2), size=rng.uniform(0.3, 1.5, 3), num_points=12)
                for _ in range(40)
            ]
            for _ in range(60)
        ]
    )
    shown = sum(not track.is_predicted for tracks in told for track in tracks)
    assert shown <= 0.005 * 60 * 40


def test_among_thousands_of_specks_a_car_is_still_followed():
    rng = np.random.default_rng(3)
    tracker, told = Tracker(), []
    for k in range(8):
        specks = [
            moving(*rng.uniform(-50, 50, 2), *rng.normal(0, 1.0, 2), size=(0.4, 0.4, 0.4), num_points=11)
            for _ in range(2500)
        ]
        told.append(tracker.update([moving(0.8 * k, 60, 8.0), *specks], k * STEP_NS, HERE))
    cars = [[track.id for track in tracks if track.object.centre[1] > 55] for tracks in told[2:]]
    assert cars == [cars[0]] * 6 and len(cars[0]) == 1


def test_one_update_missed_before_it_is_confirmed_is_forgiven_but_not_two():
    def told(pattern):
        return ids(follow([[moving(0.8 * k, 0, 8.0)] if c == "x" else [] for k, c in enumerate(pattern)])[-1])

    assert told("xx.x") == [1]
    assert told("xx..x") == []


def test_clouds_may_come_at_any_pace():
    tracker, moment = Tracker(), 0.0
    for k, pause in enumerate([0.05, 0.1, 0.3, 0.7, 0.05, 1.2, 0.1]):
        moment += pause
        speed = 10.0 - moment  # braking
        tracks = tracker.update([moving(10 * moment - moment**2 / 2, 0, speed)], int(moment * 1e9), HERE)
        assert ids(tracks) == ([1] if k >= 2 else [])


def test_stamps_that_go_back_and_long_gaps_start_anew_with_new_numbers():
    tracker = Tracker()
    car = [[moving(0.8 * k, 0, 8.0)] for k in range(4)]
    assert ids(follow(car, tracker, start=10 * STEP_NS)[-1]) == [1]
    assert [ids(tracks) for tracks in follow(car, tracker, start=0)] == [[], [], [2], [2]]
    assert [ids(tracks) for tracks in follow(car, tracker, start=4 * STEP_NS + 2 * 10**9)] == [[], [], [3], [3]]
    tracker.reset()
    assert [ids(tracks) for tracks in follow(car, tracker, start=100 * STEP_NS)] == [[], [], [4], [4]]


def test_the_box_of_something_slow_does_not_flip():
    rng = np.random.default_rng(4)
    told = []
    tracker = Tracker()
    for k in range(40):
        quarter = rng.integers(4)
        size = (4.4, 1.8, 1.5) if quarter % 2 == 0 else (1.8, 4.4, 1.5)
        speed = 2.0 if k < 5 else 0.6
        yaw = 0.0 if k < 5 else float(quarter * np.pi / 2 + rng.normal(0, 0.1))
        found = moving(0.06 * k, 0, speed, size=(4.4, 1.8, 1.5) if k < 5 else size, yaw=yaw)
        told += tracker.update([found], k * STEP_NS, HERE)
    assert max(abs(track.object.yaw) for track in told) < 0.2
    assert min(track.object.size[0] for track in told) > 4.3


def test_a_car_that_turns_round_is_turned_at_once():
    told = follow([[moving(0.0, 0.0, 3.0 - 0.3 * k)] for k in range(20)])
    shown = [tracks for tracks in told[2:] if tracks]  # while it stands it is no moving object
    assert [ids(tracks) for tracks in shown] == [[1]] * len(shown) and len(shown) >= 15
    headings = [np.cos(tracks[0].object.yaw) for tracks in shown]
    assert min(np.abs(headings)) > 0.99  # never across
    assert headings[0] > 0 > headings[-1]


def test_what_is_half_hidden_keeps_its_size_and_the_side_that_is_seen():
    whole = [[moving(20, 0, 3.0)] for _ in range(10)]
    half = [[moving(18.9, 0, 3.0, size=(2.2, 1.8, 1.5))]]  # its far half; the viewer is at the origin
    track = follow(whole + half)[-1][0]
    assert track.object.size[0] > 4.0
    assert track.object.centre[0] - track.object.size[0] / 2 == pytest.approx(17.8, abs=0.3)


def test_two_ends_of_a_car_that_turn_out_to_be_one_keep_the_older_number():
    end = {"size": (1.0, 1.8, 1.5), "num_points": 30}
    rear, front = ([moving(x + 0.5 * k, 0, 5.0, **end) for k in range(7)] for x in (-1.2, 2.4))
    told = follow([[front[k]] for k in range(3)] + [[front[k], rear[k]] for k in range(3, 7)])
    assert ids(told[-1]) == [1]  # the other end is no object of its own
    told = follow([[rear[k], front[k]] for k in range(4)] + [[moving(2.6, 0, 5.0, size=(4.6, 1.8, 1.5))]])
    assert [ids(tracks) for tracks in told[-2:]] == [[1, 2], [1]]
    assert told[-1][0].hits == 5
    for first, second, middle in ((rear, front, 3.6), (front, rear, 1.6)):  # now it is nearer to the younger one
        told = follow([[first[k], second[k]] for k in range(4)] + [[moving(middle, 0, 5.0, size=(3.0, 1.8, 1.5))]])
        assert [ids(tracks) for tracks in told[-2:]] == [[1, 2], [1]]


def test_a_number_in_a_simulated_log_is_one_object_and_noise_has_none():
    """Truth is which actor a point belongs to; the flow is the true one with noise, and wrong in patches."""
    rng = np.random.default_rng(6)
    tracker, numbers_of, first_seen, first_shown = Tracker(), defaultdict(set), {}, {}
    num_false = num_shown = 0
    for k, simulated in enumerate(simulate_sweeps(1, 20, "vlp32", "junction")):
        points, speed = simulated.sweep.points, np.linalg.norm(simulated.velocity, axis=1)
        velocity = simulated.velocity + rng.normal(0, 0.1, points.shape).astype(np.float32)
        for _ in range(10):
            near = np.linalg.norm(points - points[rng.integers(len(points))], axis=1) < rng.uniform(0.3, 1.0)
            velocity[near] += np.append(rng.normal(0, 1.5, 2), 0.0).astype(np.float32)
        velocity[simulated.is_ground] = 0
        objects = moving_objects(points, velocity, min_speed=KEPT_SPEED * 0.5)
        tracks = tracker.update(objects, simulated.sweep.stamp_ns, simulated.sweep.world_SE3_ego)

        clear = (simulated.actor >= 0) & (speed > 1.0) & ~simulated.is_ground
        for actor in np.flatnonzero(np.bincount(simulated.actor[clear]) >= 40):
            first_seen.setdefault(int(actor), k)
        for track in (track for track in tracks if not track.is_predicted):
            inside = _inside(points, track.object) & ~simulated.is_ground
            of_actors = simulated.actor[inside & (simulated.actor >= 0) & (speed >= 0.25)]
            num_shown += 1
            if len(of_actors) < max(5, 0.25 * inside.sum()):
                num_false += 1
                continue
            actor = int(np.bincount(of_actors).argmax())
            numbers_of[actor].add(track.id)
            first_shown.setdefault(actor, k)
    delays = [first_shown[actor] - first_seen[actor] for actor in first_seen if actor in first_shown]
    switches = sum(len(numbers) - 1 for numbers in numbers_of.values())
    print(f"{len(delays)} of {len(first_seen)} clear actors tracked, {switches} switches; delays {sorted(delays)}")
    print(f"{num_shown} shown, {num_false} of them false")
    assert len(first_seen) >= 10 and num_shown >= 200
    assert len(delays) >= 0.9 * len(first_seen)  # people who walk together are one object
    assert np.median(delays) <= 2
    assert num_false <= 0.02 * num_shown
    assert switches <= 0.2 * len(numbers_of)


def _inside(points, box):
    offset = points - box.centre
    cosine, sine = np.cos(box.yaw), np.sin(box.yaw)
    along = np.abs(cosine * offset[:, 0] + sine * offset[:, 1])
    across = np.abs(cosine * offset[:, 1] - sine * offset[:, 0])
    length, width, height = box.size / 2 + 0.2
    return (along <= length) & (across <= width) & (np.abs(offset[:, 2]) <= height)
