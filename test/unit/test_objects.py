"""Moving objects from hand-made boxes whose place, size and velocity are known exactly."""

import sys

import numpy as np
import pytest

from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.geometry import SE3
from zeroflow_core.objects import moving_objects


def lattice(size, step=0.2):
    """Points (N,3) that fill a box of this size around the origin, corners included."""
    axes = [np.linspace(-side / 2, side / 2, max(2, round(side / step) + 1)) for side in size]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)


def box(size, centre, yaw, speed, step=0.2):
    """Points of a box turned by `yaw` and driving at `speed` m/s where it points, and their velocity."""
    points = SE3.from_yaw(yaw, np.asarray(centre)).transform(lattice(size, step))
    velocity = np.broadcast_to([speed * np.cos(yaw), speed * np.sin(yaw), 0.0], points.shape)
    return points.astype(np.float32), velocity.astype(np.float32)


def together(*boxes):
    return tuple(np.concatenate(arrays) for arrays in zip(*boxes, strict=True))


def test_two_boxes_are_two_objects_with_their_own_place_size_and_velocity():
    car = box((4.4, 1.8, 1.4), (12.0, 3.5, 0.9), np.deg2rad(170), 8.0)
    walker = box((0.6, 0.6, 1.8), (-6.0, -4.0, 1.0), np.deg2rad(-90), 1.5)
    found = moving_objects(*together(walker, car))

    assert [f.num_points for f in found] == [len(car[0]), len(walker[0])]
    first, second = found
    np.testing.assert_allclose(first.centre, [12.0, 3.5, 0.9], atol=1e-3)
    np.testing.assert_allclose(first.size, [4.4, 1.8, 1.4], atol=1e-3)
    np.testing.assert_allclose(first.velocity, 8 * np.array([np.cos(2.96706), np.sin(2.96706), 0]), atol=1e-4)
    assert first.yaw == pytest.approx(np.deg2rad(170), abs=1e-4)
    assert first.speed == pytest.approx(8.0, abs=1e-4)
    np.testing.assert_allclose(second.centre, [-6.0, -4.0, 1.0], atol=1e-3)
    np.testing.assert_allclose(second.size, [0.6, 0.6, 1.8], atol=1e-3)
    np.testing.assert_allclose(second.velocity, [0.0, -1.5, 0.0], atol=1e-4)


def test_rows_that_stand_still_or_are_not_finite_take_no_part():
    points, velocity = box((4.4, 1.8, 1.4), (12.0, 3.5, 0.9), 0.0, 8.0)
    expected = moving_objects(points, velocity)[0]
    still = points + np.float32([0.0, 1.0, 0.0])
    no_estimate, no_point = points + np.float32([5.0, 0.0, 0.0]), np.full_like(points, np.nan)
    found = moving_objects(
        np.concatenate([points, still, no_estimate, no_point]),
        np.concatenate([velocity, np.zeros_like(velocity), np.full_like(velocity, np.nan), velocity]),
    )
    assert len(found) == 1
    assert found[0].num_points == len(points)
    np.testing.assert_allclose(found[0].centre, expected.centre)


def test_cars_passing_each_other_closely_stay_apart():
    ours = box((4.4, 1.8, 1.4), (10.0, 0.0, 0.8), 0.0, 7.0)
    theirs = box((4.4, 1.8, 1.4), (10.0, 2.4, 0.8), np.pi, 7.0)  # 0.6 m between them
    found = moving_objects(*together(ours, theirs))
    assert sorted(round(float(f.velocity[0])) for f in found) == [-7, 7]
    assert all(f.num_points == len(ours[0]) for f in found)
    assert all(abs(f.size[1] - 1.8) < 0.01 for f in found)


def test_a_bus_and_an_oncoming_car_beside_it_stay_apart():
    bus = box((14.0, 2.5, 3.0), (20.0, 0.0, 1.6), np.pi, 3.0)
    car = box((4.4, 1.8, 1.4), (17.0, 2.8, 0.8), 0.0, 7.0)  # after half a second still beside it
    found = moving_objects(*together(bus, car))
    assert [round(float(f.velocity[0])) for f in found] == [-3, 7]
    assert [f.num_points for f in found] == [len(bus[0]), len(car[0])]


def test_a_car_about_to_reach_a_slower_one_stays_apart():
    slow = box((4.4, 1.8, 1.4), (10.0, 0.0, 0.8), 0.0, 2.0)
    fast = box((4.4, 1.8, 1.4), (2.6, 0.0, 0.8), 0.0, 8.0)  # 3 m behind: touching in half a second
    assert len(moving_objects(*together(slow, fast))) == 2


def test_a_far_sparse_car_is_one_object():
    rng = np.random.default_rng(0)
    outline = [(40.0, y) for y in np.arange(-0.9, 1.0, 0.3)] + [(x, 0.9) for x in np.arange(40.8, 44.0, 0.8)]
    scan_lines = np.array([[x, y, z] for z in (0.5, 1.2) for x, y in outline])
    velocity = np.array([-9.0, 0.0, 0.0]) + rng.normal(0.0, 0.5, scan_lines.shape)
    found = moving_objects(scan_lines, velocity)
    assert [f.num_points for f in found] == [len(scan_lines)]


def test_a_wheel_seen_apart_from_the_body_belongs_to_the_car_unless_it_moves_otherwise():
    rear = box((0.2, 1.8, 1.4), (10.0, 3.5, 0.9), 0.0, 8.0)
    side = box((4.4, 0.2, 1.4), (12.1, 4.3, 0.9), 0.0, 8.0)
    wheel = box((0.4, 0.2, 0.6), (13.0, 2.7, 0.4), 0.0, 8.0, step=0.05)  # 1.4 m from the side
    found = moving_objects(*together(rear, side, wheel))
    assert [f.num_points for f in found] == [len(rear[0]) + len(side[0]) + len(wheel[0])]
    np.testing.assert_allclose(found[0].size, [4.4, 1.8, 1.5], atol=0.01)
    cyclist = wheel[0], 0.5 * wheel[1]
    assert len(moving_objects(*together(rear, side, cyclist))) == 2


def test_noisy_velocities_do_not_split_an_object_and_the_median_forgives_outliers():
    rng = np.random.default_rng(1)
    points, velocity = box((4.4, 1.8, 1.4), (12.0, 3.5, 0.9), 0.3, 8.0)
    velocity = velocity + rng.normal(0.0, 0.7, velocity.shape).astype(np.float32)
    velocity[::10] *= 0.3
    found = moving_objects(points, velocity)
    assert len(found) == 1
    assert np.linalg.norm(found[0].velocity - [8 * np.cos(0.3), 8 * np.sin(0.3), 0.0]) < 0.3


def test_a_slow_box_is_turned_by_its_shape_and_keeps_its_length_along_the_motion():
    points, velocity = box((4.4, 1.8, 1.4), (5.0, 5.0, 0.8), np.deg2rad(40), 0.8)
    turned = SE3.from_yaw(np.deg2rad(20), np.zeros(3)).rotate(velocity)  # heading off by 20 degrees
    found = moving_objects(points, turned)[0]
    assert np.rad2deg(found.yaw) == pytest.approx(40, abs=1.0)
    np.testing.assert_allclose(found.size[:2], [4.4, 1.8], atol=0.1)


def test_noise_is_no_object():
    rng = np.random.default_rng(2)
    points, velocity = box((4.4, 1.8, 1.4), (5.0, 5.0, 0.8), 0.0, 5.0)
    headings = rng.uniform(-np.pi, np.pi, len(points))
    apart = 5 * np.stack([np.cos(headings), np.sin(headings), np.zeros(len(points))], axis=1)
    assert moving_objects(points, apart) == []
    assert moving_objects(points[:9], velocity[:9]) == []
    speck, its_velocity = box((0.25, 0.25, 0.25), (5.0, 5.0, 0.8), 0.0, 5.0, step=0.05)
    assert moving_objects(speck, its_velocity) == []
    assert len(moving_objects(speck, its_velocity, min_extent=0.2)) == 1


def test_what_is_beyond_reason_takes_no_part(recwarn):
    points, velocity = box((4.4, 1.8, 1.4), (5.0, 5.0, 0.8), 0.0, 5.0)
    wild = points.copy(), velocity.copy()
    wild[0][0::4] = 1e30
    wild[0][1::4, 2] = -np.inf
    wild[1][2::4] = 1e30
    wild[1][3::4, 0] = np.inf
    found = moving_objects(*together((points, velocity), wild))
    assert [f.num_points for f in found] == [len(points)]
    assert [str(warning.message) for warning in recwarn if warning.category is RuntimeWarning] == []


def test_when_everything_moves_a_part_of_it_is_enough():
    rng = np.random.default_rng(7)
    points = rng.uniform((-60, -60, 0), (60, 60, 1), (200_000, 3))
    found = moving_objects(points, np.broadcast_to([3.0, 0.0, 0.0], points.shape))
    assert sum(f.num_points for f in found) <= 50_000
    assert found[0].size[0] > 100


def test_nothing_in_nothing_out():
    assert moving_objects(np.empty((0, 3)), np.empty((0, 3))) == []
    assert moving_objects(np.full((50, 3), np.nan), np.full((50, 3), np.nan)) == []


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"\(N, 3\)"):
        moving_objects(np.zeros((5, 3)), np.zeros((4, 3)))


def test_without_open3d_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "open3d", None)
    with pytest.raises(ZeroFlowError, match="pip install 'open3d"):
        moving_objects(*box((4.4, 1.8, 1.4), (5.0, 5.0, 0.8), 0.0, 5.0))
