"""Trails: where things were, seen from where the vehicle is now."""

import numpy as np

from zeroflow_core.geometry import SE3
from zeroflow_core.moments import Moment, Trails
from zeroflow_core.objects import MovingObject
from zeroflow_core.tracking import Track


def track(number, x, y):
    size, velocity = np.array([4.0, 2.0, 1.5]), np.array([1.0, 0.0, 0.0])
    return Track(number, MovingObject(np.array([x, y, 0.5]), size, 0.0, velocity, 50), 1.0, 10, False)


def test_what_stands_in_the_world_leaves_a_trail_of_one_place_though_the_vehicle_turns():
    trails = Trails()
    post = np.array([[12.0, 5.0, 0.5]])
    for k in range(5):
        pose = SE3.from_yaw(0.2 * k, np.array([1.5 * k, 0.3 * k, 0.0]))
        ((x, y, _),) = pose.inverse().transform(post)
        ego_path, paths = trails.update(k * 10**8, pose, [track(7, x, y)])
    np.testing.assert_allclose(paths[7], np.tile(pose.inverse().transform(post), (5, 1)), atol=1e-9)
    np.testing.assert_allclose(pose.transform(ego_path), [[1.5 * k, 0.3 * k, 0.0] for k in range(5)], atol=1e-9)


def test_a_trail_is_no_longer_than_asked_and_ends_here():
    trails = Trails(seconds=0.3)
    for k in range(10):
        ego_path, _ = trails.update(k * 10**8, SE3.from_yaw(0.0, np.array([k, 0.0, 0.0])), [])
    np.testing.assert_allclose(ego_path[:, 0], [-3, -2, -1, 0], atol=1e-12)


def test_an_object_has_a_trail_from_when_it_was_seen_and_none_when_it_has_gone():
    trails = Trails()
    trails.update(0, SE3.identity(), [track(1, 0, 0)])
    _, paths = trails.update(10**8, SE3.identity(), [track(1, 1, 0), track(2, 5, 5)])
    assert {number: len(path) for number, path in paths.items()} == {1: 2, 2: 1}
    assert set(trails.update(2 * 10**8, SE3.identity(), [track(2, 6, 5)])[1]) == {2}


def test_a_stamp_that_goes_back_or_an_unknown_pose_starts_over():
    trails = Trails()
    for stamp in (0, 10**8, 10**7):
        ego_path, paths = trails.update(stamp, SE3.identity(), [track(1, 1, 0)])
    assert len(ego_path) == len(paths[1]) == 1
    trails.update(2 * 10**8, SE3.identity(), [])
    ego_path, paths = trails.update(3 * 10**8, None, [track(1, 4, 0)])
    np.testing.assert_array_equal(ego_path, np.zeros((1, 3)))
    np.testing.assert_array_equal(paths[1], [[4.0, 0.0, 0.5]])


def test_what_comes_again_with_the_same_stamp_takes_the_place_of_what_was_there():
    trails = Trails()
    for stamp, x in ((0, 0.0), (10**8, 1.0), (10**8, 1.5)):
        ego_path, paths = trails.update(stamp, SE3.from_yaw(0.0, np.array([x, 0.0, 0.0])), [track(1, 4, 0)])
    np.testing.assert_allclose(ego_path[:, 0], [-1.5, 0.0])
    np.testing.assert_allclose(paths[1][:, 0], [2.5, 4.0])


def test_a_moment_names_its_objects():
    moving = track(1, 2, 3)
    moment = Moment(0, np.zeros((0, 3), np.float32), tracks=[moving])
    assert moment.objects == [moving.object] and len(moment.ego_path) == 1
