"""What stands still, gathered from sweep to sweep."""

from __future__ import annotations

import math

import numpy as np
import pytest

from zeroflow_core.geometry import SE3
from zeroflow_core.still_map import StillMap

SECOND = 1_000_000_000
WALL = np.stack([np.full(40, 10.05), np.arange(40) * 0.25 - 5, np.full(40, 1.05)], axis=1)  # a cell for each point


def _update(world: StillMap, points, stamp_ns: int = SECOND, pose: SE3 | None = None, moving=None) -> np.ndarray:
    points = np.asarray(points, dtype=np.float32).reshape(-1, 3)
    moving = np.zeros(len(points), bool) if moving is None else np.asarray(moving)
    return world.update(points, ~moving, moving, stamp_ns, pose or SE3.identity())


def _sorted(points: np.ndarray) -> np.ndarray:
    return points[np.lexsort(np.round(points, 3).T)]


def test_what_is_seen_once_stays_where_it_is_in_the_world_while_the_vehicle_drives_and_turns():
    world = StillMap()
    utm = np.array([5e5, 4.2e6, 300.0])  # where float32 would know half metres
    for k in range(5):
        pose = SE3.from_yaw(0.3 * k, utm + [2.0 * k, 0.5 * k, 0.0])
        seen = pose.inverse().transform(WALL + utm)[8 * k : 8 * k + 8]
        got = _update(world, seen, (1 + k) * SECOND, pose)
        np.testing.assert_allclose(_sorted(got), _sorted(pose.inverse().transform(WALL + utm)[: 8 * k + 8]), atol=2e-3)
        assert got.dtype == np.float32 and got.shape == (8 * k + 8, 3)


def test_a_cell_has_one_point_the_first():
    world = StillMap(cell=0.5)
    _update(world, [[1.1, 1.1, 1.1]])
    got = _update(world, [[1.4, 1.2, 1.4], [1.2, 1.3, 1.3], [1.6, 1.1, 1.1]], 2 * SECOND)
    np.testing.assert_allclose(_sorted(got), np.float32([[1.1, 1.1, 1.1], [1.6, 1.1, 1.1]]), atol=1e-6)


def test_cells_are_as_large_around_zero_as_elsewhere():
    world = StillMap(cell=0.5)
    assert len(_update(world, [[-0.1, -0.1, -0.1], [0.1, 0.1, 0.1]])) == 2


def test_what_was_not_seen_for_some_seconds_is_forgotten_and_what_is_seen_again_is_not():
    world = StillMap(seconds=2.0)
    _update(world, WALL)
    for k in range(1, 5):
        got = _update(world, WALL[:10], (1 + k) * SECOND)
        assert len(got) == (40 if k <= 2 else 10)
    world.seconds = 0.5
    assert len(_update(world, WALL[:1], 6 * SECOND)) == 1


def test_where_something_moves_nothing_stands_still():
    world = StillMap()
    _update(world, WALL)
    got = _update(world, WALL[:7] + 0.01, 2 * SECOND, moving=np.ones(7, bool))
    np.testing.assert_allclose(_sorted(got), _sorted(WALL[7:]), atol=1e-5)
    both = np.concatenate([WALL[:3], WALL[:3]])
    assert len(_update(StillMap(), both, moving=[False] * 3 + [True] * 3)) == 0


def test_what_is_neither_still_nor_moving_says_nothing():
    world = StillMap()
    neither = np.zeros(40, bool)
    assert len(world.update(WALL.astype(np.float32), neither, neither, SECOND, SE3.identity())) == 0


def test_only_what_is_near_the_vehicle_is_kept():
    world = StillMap(reach=20.0)
    assert len(_update(world, [[19, 0, 0], [21, 0, 0], [0, -30, 0]])) == 1
    behind = SE3(np.eye(3), np.array([40.0, 0, 0]))
    assert len(_update(world, np.empty((0, 3)), 2 * SECOND, behind)) == 0 and len(world) == 0


def test_beyond_the_most_points_those_seen_last_stay():
    world = StillMap(most_points=30)
    _update(world, WALL[:20])
    got = _update(world, WALL[20:], 2 * SECOND)
    assert len(got) == len(world) == 30
    np.testing.assert_allclose(_sorted(got)[-20:, 1].max(), WALL[-1, 1], atol=1e-5)
    assert set(np.round(WALL[20:, 1], 2)) <= set(np.round(got[:, 1].astype(float), 2))


@pytest.mark.filterwarnings("error")
def test_rows_that_are_not_finite_take_no_part():
    points = WALL.copy()
    points[3], points[5, 2], points[7, 0] = np.nan, np.inf, 1e30
    assert len(_update(StillMap(), points)) == 37
    assert _update(StillMap(), np.full((4, 3), np.nan)).shape == (0, 3)


def test_a_stamp_that_goes_back_starts_over_and_so_does_clear():
    world = StillMap()
    _update(world, WALL, 9 * SECOND)
    assert len(_update(world, WALL[:2], SECOND)) == 2
    world.clear()
    assert len(world) == 0 and len(_update(world, WALL[:1], SECOND)) == 1


def test_a_long_drive_keeps_no_more_than_what_is_around():
    world, random = StillMap(seconds=2.0), np.random.default_rng(0)
    sizes = []
    for k in range(60):
        points = random.uniform([-60, -60, 0], [60, 60, 3], (2000, 3))
        pose = SE3.from_yaw(math.sin(k / 9), np.array([3.0 * k, 0.0, 0.0]))
        sizes.append(len(_update(world, points, SECOND + k * SECOND // 10, pose)))
    assert max(sizes) <= 2000 * 21 and max(sizes[30:]) <= 1.05 * max(sizes[:30])
    assert (np.diff(world._cells) > 0).all()
