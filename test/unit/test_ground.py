"""Ground rules on made ground whose every point is known."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from zeroflow_core.geometry import SE3
from zeroflow_core.ground import (
    MapRaster,
    estimate_ground_z,
    ground_rule,
    ground_z_of,
    mark_ground,
    no_ground,
    offset_to,
)
from zeroflow_core.pairs import Sweep


def as_sweep(points, pose=None) -> Sweep:
    return Sweep(np.asarray(points, dtype=np.float32).reshape(-1, 3), 0, world_SE3_ego=pose)


def road_with_boxes(sensor_height: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A flat road as a spinning scanner of `sensor_height` sees it and four 1.5 m boxes upon it; the points
    (N,3) in the scanner's frame and which of them are road."""
    rng = np.random.default_rng(seed)
    azimuth = np.linspace(-np.pi, np.pi, 900, endpoint=False)
    rings = []
    for elevation in np.radians(np.linspace(-25, -3, 40)):
        distance = sensor_height / np.tan(-elevation)
        if distance < 60:
            x, y = distance * np.cos(azimuth), distance * np.sin(azimuth)
            rings.append(np.column_stack([x, y, np.full_like(x, -sensor_height)]))
    road = np.concatenate(rings)
    road[:, 2] += rng.normal(0, 0.01, len(road))
    boxes = []
    for x, y in ((8.0, 3.0), (-12.0, 4.0), (15.0, -6.0), (-6.0, -9.0)):
        height = rng.uniform(0.3, 1.5, 400)
        along = rng.uniform(-2, 2, 400)
        boxes.append(np.column_stack([x + along, np.full(400, y), height - sensor_height]))
    points = np.concatenate([road, *boxes]).astype(np.float32)
    return points, np.arange(len(points)) < len(road)


# --- map raster --------------------------------------------------------------------------------------------

HEIGHTS = np.array([[10.0, 11.0, 12.0], [20.0, 21.0, np.nan]])  # rows are y, columns are x


def make_raster(**changes) -> MapRaster:
    values = {"heights": HEIGHTS, "rotation": np.eye(2), "translation": np.zeros(2), "scale": 1.0} | changes
    return MapRaster(**values)


def test_raster_takes_the_nearest_pixel():
    xy = np.array([[0.0, 0.0], [1.4, 0.4], [1.6, 0.0], [0.4, 0.6], [1.0, 1.0]])
    np.testing.assert_array_equal(make_raster().height_at(xy), [10, 11, 12, 20, 21])


def test_raster_rounds_halves_to_even_as_numpy_does():
    xy = np.array([[0.5, 0.0], [1.5, 0.0], [-0.5, 0.0]])
    np.testing.assert_array_equal(make_raster().height_at(xy), [10, 12, 10])


def test_raster_knows_nothing_outside():
    xy = np.array([[-0.6, 0], [2.6, 0], [0, 1.6], [0, -0.6], [2, 1], [np.nan, 0], [np.inf, 0], [1e30, 0]])
    with np.errstate(invalid="raise"):
        finite = make_raster().height_at(xy[:5])
    assert np.isnan(finite).all()
    with np.errstate(all="ignore"):
        assert np.isnan(make_raster().height_at(xy)).all()


def test_raster_turns_then_shifts_then_scales():
    # R = a quarter turn, t = (1, 2), s = 0.5: city (0, 2) → (-2, 0) → (-1, 2) → pixel (-0.5, 1)
    raster = make_raster(
        rotation=np.array([[0.0, -1.0], [1.0, 0.0]]), translation=np.array([1.0, 2.0]), scale=0.5
    )
    # city (-1, -1) → (1, -1) → (2, 1) → pixel (1, 0.5), which is row 0
    # city (1, -1) → (1, 1) → (2, 3) → pixel (1, 1.5), which is row 2, outside
    np.testing.assert_array_equal(raster.height_at(np.array([[0.0, 2.0], [-1.0, -1.0]])), [20, 11])
    assert np.isnan(raster.height_at(np.array([[1.0, -1.0]]))).all()


def test_ground_is_within_the_threshold_or_below():
    z = np.array([10.0, 10.375, 10.5, 9.5, -20.0, 10.45])
    points = np.column_stack([np.zeros((len(z), 2)), z])
    mask = make_raster()(as_sweep(points, SE3.identity()))
    assert mask.tolist() == [True, True, False, True, True, False]
    unknown = np.array([[2.0, 1.0, 0.0], [50.0, 50.0, -9.0]])
    assert make_raster()(as_sweep(unknown, SE3.identity())).tolist() == [False, False]


def test_raster_is_read_at_the_place_in_the_city():
    # The ego is at city (2, 0, 5), turned to y: one metre to its right is city (3, 0); 2 m ahead is (2, 2).
    pose = SE3.from_yaw(np.pi / 2, np.array([2.0, 0.0, 5.0]))
    on_pixel_2_0 = [0.0, 0.0, 7.1]  # height 12.1 in the city, ground there is 12
    left_of_it = [0.0, 1.0, 7.1]  # city (1, 0): ground is 11, so 1.1 m above it
    assert make_raster()(as_sweep([on_pixel_2_0, left_of_it], pose)).tolist() == [True, False]


def test_raster_needs_a_pose():
    with pytest.raises(ValueError, match="world_SE3_ego"):
        make_raster()(as_sweep([[0, 0, 0]]))


# --- none, and by name -------------------------------------------------------------------------------------


def test_no_ground():
    assert no_ground(as_sweep(np.zeros((4, 3)))).tolist() == [False] * 4
    assert ground_rule("none") is no_ground


def test_unknown_rule_is_refused():
    with pytest.raises(ValueError, match="patchwork, none"):
        ground_rule("ransac")


def test_points_that_are_not_finite_are_never_ground():
    sweep = as_sweep([[0, 0, 0], [np.nan, 0, 0], [0, -np.inf, 0]])
    marked = mark_ground(sweep, lambda s: np.ones(len(s), dtype=bool))
    assert marked.is_ground.tolist() == [True, False, False]


# --- height of the ground, Patchwork++ ---------------------------------------------------------------------


@pytest.mark.parametrize("sensor_height", [0.5, 1.73, 3.0])
def test_ground_height_is_found_at_any_mounting(sensor_height):
    points, _ = road_with_boxes(sensor_height)
    assert estimate_ground_z(points) == pytest.approx(-sensor_height, abs=0.05)


def test_ground_height_is_one_number_by_hand():
    # 25 cells of 1 m at x 5…9, y 0…4: lowest point at -2 in 13 of them and at 0 in the rest; others above.
    x, y = (c.ravel() + 0.5 for c in np.meshgrid(np.arange(5, 10), np.arange(5)))
    lowest = np.where(np.arange(25) < 13, -2.0, 0.0)
    points = np.concatenate([np.column_stack([x, y, lowest]), np.column_stack([x, y, lowest + 3])])
    assert estimate_ground_z(points) == -2.0
    assert estimate_ground_z(points[:19]) is None  # 19 cells are too few to tell
    assert estimate_ground_z(points * [1, 1, np.nan]) is None
    assert estimate_ground_z(points * [5, 5, 1]) is None  # nothing nearer than 20 m


@pytest.mark.filterwarnings("error")
def test_ground_height_is_not_moved_by_rows_that_are_no_points():
    points, _ = road_with_boxes(1.73)
    rows = [np.nan, 5, -9], [5, np.inf, -9], [5, 5, -np.inf], [5, 5, np.nan], [3e38, -3e38, -9], [0, 0, -9]
    strange = np.float32(rows)
    assert estimate_ground_z(np.concatenate([strange, points])) == estimate_ground_z(points)
    assert estimate_ground_z(points.astype(np.float64)) == estimate_ground_z(points)


@pytest.mark.parametrize(
    ("ground_z", "offset"), [(-1.73, 1.4), (-0.33, 0.0), (-0.29, 0.0), (-0.37, 0.0), (0.0, -0.33), (-0.4321, 0.102)]
)
def test_clouds_are_raised_to_where_the_ground_is_expected_unless_it_nearly_is_there(ground_z: float, offset: float):
    assert offset_to(-0.33, ground_z, tolerance=0.05) == offset


def test_no_ground_height_from_nothing():
    assert estimate_ground_z(np.empty((0, 3))) is None
    assert ground_z_of([as_sweep([]), as_sweep(np.full((500, 3), np.nan))]) is None


@pytest.mark.parametrize("installed", [True, False])
def test_ground_height_of_a_recording_is_that_of_most_sweeps(monkeypatch, installed: bool):
    if installed:
        pytest.importorskip("pypatchworkpp", reason="Patchwork++ is not installed")
    else:
        monkeypatch.setitem(sys.modules, "pypatchworkpp", None)
    heights = [1.73, 1.73, 2.2, 0.5, 1.73]
    sweeps = [as_sweep(road_with_boxes(height, seed=k)[0]) for k, height in enumerate(heights)]
    assert ground_z_of([*sweeps, as_sweep([])]) == pytest.approx(-1.73, abs=0.05)


def test_kerbs_and_hedges_dont_raise_the_ground_height_of_a_recording():
    pytest.importorskip("pypatchworkpp", reason="Patchwork++ is not installed")
    points, _ = road_with_boxes(1.73)
    beside = np.abs(points[:, 1]) > 6  # with something 0.6 m high on all of it, beyond what the road shows
    points[beside, 2] += np.random.default_rng(0).uniform(0.2, 0.6, beside.sum()).astype(np.float32)
    assert estimate_ground_z(points) > -1.6
    assert ground_z_of([as_sweep(points)]) == pytest.approx(-1.73, abs=0.05)


@pytest.mark.parametrize("sensor_height", [1.0, 1.73, 2.5])
@pytest.mark.parametrize("frame", ["scanner", "ground"])
def test_patchwork_finds_the_road_and_leaves_the_boxes(sensor_height, frame):
    points, is_road = road_with_boxes(sensor_height)
    if frame == "ground":  # clouds in base_link, whose z is counted from the road
        points = points + np.float32([0, 0, sensor_height])
    mask = ground_rule("patchwork")(as_sweep(points))
    in_reach = np.hypot(points[:, 0], points[:, 1]) > 2.7  # Patchwork++ does not look closer
    assert mask[is_road & in_reach].mean() > 0.95
    assert mask[~is_road].mean() < 0.1


def test_patchwork_forgets_what_it_saw():
    rule = ground_rule("patchwork")
    first, _ = road_with_boxes(1.73)
    other, _ = road_with_boxes(1.2, seed=9)
    before = rule(as_sweep(first))
    rule(as_sweep(other))
    np.testing.assert_array_equal(rule(as_sweep(first)), before)


def test_patchwork_on_what_has_no_ground(capfd):
    rule = ground_rule("patchwork")
    assert rule(as_sweep([])).shape == (0,)
    assert not rule(as_sweep(np.full((5, 3), np.nan))).any()
    assert not rule(as_sweep(np.random.default_rng(0).normal(size=(30, 3)))).any()
    points, _ = road_with_boxes(1.73)
    rule(as_sweep(points))
    assert capfd.readouterr().out == ""  # the library greets; nobody wants that at 10 Hz


def test_patchwork_skips_rows_that_are_not_finite():
    points, _ = road_with_boxes(1.73)
    clean = ground_rule("patchwork")(as_sweep(points))
    holed = np.insert(points, [5, 500], np.nan, axis=0)
    mask = ground_rule("patchwork")(as_sweep(holed))
    finite = np.isfinite(holed).all(axis=1)
    np.testing.assert_array_equal(mask[finite], clean)
    assert not mask[~finite].any()
