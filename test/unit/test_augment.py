"""Variations of a pair: the labels must still carry every point onto the other cloud."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from training_cases import BEAMS, STEP, make_world, off_surface, pose

from zeroflow_core.distillation.training.augment import (
    NO_AUGMENTATION,
    Augmentation,
    augment,
    drop_beams,
    mirror,
    move,
    scale,
)
from zeroflow_core.distillation.training.samples import Sample, TwoWaySample
from zeroflow_core.geometry import SE3

EXACT = 5e-5  # metres, what float32 leaves over
SURE = Augmentation(drop_beams=1.0, beams_kept=0.4, mirror=1.0, odometry_m=0.0, odometry_deg=0.0)


@pytest.fixture
def pair() -> TwoWaySample:
    """Every point is in both clouds, in another row."""
    world = make_world(3)
    rows0, rows1 = (world.order.permutation(len(world.points)) for _ in range(2))
    clouds = [pose(k).inverse().transform(world.at(k)).astype(np.float32)[r] for k, r in ((0, rows0), (1, rows1))]
    label0 = pose(0).inverse().rotate(STEP * world.moving[:, None])[rows0]
    label1 = pose(1).inverse().rotate(-STEP * world.moving[:, None])[rows1]
    rings = [(rows % BEAMS).astype(np.uint16) for rows in (rows0, rows1)]
    return TwoWaySample(*clouds, label0, label1, pose(0).inverse() @ pose(1), 0.1, *rings)


@pytest.fixture(params=["forward", "reverse"])
def sample(request, pair) -> Sample:
    return getattr(pair, request.param)()


def test_both_directions_lie_on_the_other_cloud_in_the_first_one_s_frame(pair):
    forward, reverse = pair.forward(), pair.reverse()
    for one in (forward, reverse):
        assert off_surface(one).max() < EXACT
        assert one.pc0.dtype == one.pc1.dtype == one.label.dtype == np.float32
        bare = replace(one, label=np.zeros_like(one.label))
        assert np.quantile(off_surface(bare), 0.9) > 0.2, "the test is void: without labels the points are there, too"
    assert (forward.dt, reverse.dt) == (0.1, -0.1)
    np.testing.assert_array_equal(forward.pc0, pair.pc0)
    np.testing.assert_array_equal(reverse.pc0, pair.pc1)
    np.testing.assert_array_equal(reverse.ring0, pair.ring1)
    np.testing.assert_array_equal(reverse.ring1, pair.ring0)


def test_the_reverse_of_the_reverse_is_the_pair(pair):
    back = TwoWaySample(
        pair.pc1, pair.pc0, pair.label1, pair.label0, pair.ego0_SE3_ego1.inverse(), -pair.dt, pair.ring1, pair.ring0
    )
    for one, other in ((back.reverse(), pair.forward()), (back.forward(), pair.reverse())):
        for name in ("pc0", "pc1", "label", "ring0", "ring1"):
            np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=1e-5)
        assert one.dt == other.dt


def test_without_reverse_labels_there_is_no_reverse(pair):
    with pytest.raises(ValueError, match="no reverse"):
        replace(pair, label1=None).reverse()


def test_a_turn_turns_labels_and_does_not_shift_them(sample):
    moved = move(sample, SE3.from_yaw(np.pi / 2, np.array([3.0, -2.0, 0.7])))
    x, y, z = sample.label.T
    np.testing.assert_allclose(moved.label, np.stack([-y, x, z], axis=1), atol=1e-6)
    x, y, z = sample.pc0.T
    np.testing.assert_allclose(moved.pc0, np.stack([3 - y, x - 2, z + 0.7], axis=1), atol=1e-5)
    assert off_surface(moved).max() < EXACT


def test_a_mirror_exchanges_left_and_right_everywhere(sample):
    mirrored = mirror(sample)
    for name in ("pc0", "pc1", "label"):
        np.testing.assert_array_equal(getattr(mirrored, name), getattr(sample, name) * np.float32([1, -1, 1]))
        np.testing.assert_array_equal(getattr(mirror(mirrored), name), getattr(sample, name))
    assert off_surface(mirrored).max() < EXACT


def test_in_a_larger_world_things_move_further(sample):
    larger = scale(sample, 1.25)
    for name in ("pc0", "pc1", "label"):
        np.testing.assert_array_equal(getattr(larger, name), getattr(sample, name) * np.float32(1.25))
        assert getattr(larger, name).dtype == np.float32
    assert off_surface(larger).max() < EXACT


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.5, 1.0])
def test_the_same_beams_go_from_both_clouds(sample, kept):
    fewer = drop_beams(sample, kept, np.random.default_rng(1))
    left = max(round(kept * BEAMS), 1)
    assert len(np.unique(fewer.ring0)) == left
    np.testing.assert_array_equal(np.unique(fewer.ring0), np.unique(fewer.ring1))
    assert len(fewer.pc0) == len(fewer.label) == len(fewer.ring0) == np.isin(sample.ring0, fewer.ring0).sum()
    assert len(fewer.pc1) == len(fewer.ring1) == np.isin(sample.ring1, fewer.ring1).sum()
    assert off_surface(fewer).max() < EXACT, "each label must still be of its point"


def test_other_beams_go_the_next_time(sample):
    rng = np.random.default_rng(0)
    gone = {tuple(np.unique(drop_beams(sample, 0.5, rng).ring0)) for _ in range(10)}
    assert len(gone) > 3


@pytest.mark.parametrize("unknown", [("ring0",), ("ring1",), ("ring0", "ring1")])
def test_where_beams_are_unknown_none_goes(sample, unknown):
    sample = replace(sample, **dict.fromkeys(unknown))
    assert drop_beams(sample, 0.2, np.random.default_rng(1)) is sample


def test_one_beam_stays(sample):
    sample = replace(sample, ring0=np.zeros_like(sample.ring0), ring1=np.zeros_like(sample.ring1))
    assert len(drop_beams(sample, 0.1, np.random.default_rng(1)).pc0) == len(sample.pc0)


@pytest.mark.parametrize("seed", range(8))
def test_whatever_is_drawn_the_labels_stay_true(sample, seed):
    varied = augment(sample, SURE, np.random.default_rng(seed))
    assert 0 < len(varied.pc0) <= len(sample.pc0)
    assert off_surface(varied).max() < EXACT
    assert varied.dt == sample.dt
    assert varied.pc0.dtype == varied.pc1.dtype == varied.label.dtype == np.float32


def test_the_same_state_gives_the_same_variation(sample):
    one, same, other = (augment(sample, Augmentation(), np.random.default_rng(seed)) for seed in (7, 7, 8))
    np.testing.assert_array_equal(one.pc0, same.pc0)
    np.testing.assert_array_equal(one.pc1, same.pc1)
    np.testing.assert_array_equal(one.label, same.label)
    assert not np.array_equal(one.pc0, other.pc0)


def test_the_sample_itself_is_left_alone(sample):
    before = {name: getattr(sample, name).copy() for name in ("pc0", "pc1", "label", "ring0", "ring1")}
    augment(sample, replace(SURE, odometry_m=0.1, odometry_deg=1.0), np.random.default_rng(0))
    for name, values in before.items():
        np.testing.assert_array_equal(getattr(sample, name), values)


def test_no_augmentation_is_none(sample):
    rng = np.random.default_rng(5)
    assert augment(sample, NO_AUGMENTATION, rng) is sample
    assert rng.random() == np.random.default_rng(5).random(), "and it draws nothing"


def test_labels_that_are_not_known_stay_unknown(sample):
    label = sample.label.copy()
    label[10:20] = np.nan
    varied = augment(replace(sample, label=label), replace(SURE, drop_beams=0.0), np.random.default_rng(0))
    assert np.isnan(varied.label[10:20]).all() and np.isfinite(np.delete(varied.label, slice(10, 20), axis=0)).all()


def test_an_error_of_the_odometry_moves_the_other_cloud_alone(sample):
    only = replace(NO_AUGMENTATION, odometry_m=0.05, odometry_deg=0.5)
    varied = augment(sample, only, np.random.default_rng(2))
    np.testing.assert_array_equal(varied.pc0, sample.pc0)
    np.testing.assert_array_equal(varied.label, sample.label)
    shift = varied.pc1 - sample.pc1
    assert 0.01 < np.linalg.norm(shift.mean(axis=0)) < 0.3
    distances = [np.linalg.norm(cloud[:-1] - cloud[1:], axis=1) for cloud in (varied.pc1, sample.pc1)]
    np.testing.assert_allclose(*distances, atol=1e-4)


def test_each_variation_is_as_large_as_it_says(sample):
    """Angles, scales, heights and shares, told from where points come to lie."""
    how = Augmentation(turn=30.0, mirror=0.5, scale=0.1, height=0.2, drop_beams=0.0, odometry_m=0.0, odometry_deg=0.0)
    corners = np.float32([[1, 0, 0], [0, 1, 0], [0, 0, 0]])
    three = replace(sample, pc0=corners, label=np.zeros_like(corners), ring0=None)
    drawn = [augment(three, how, np.random.default_rng(seed)).pc0 for seed in range(300)]
    x_axis, y_axis = (np.array([one[k] - one[2] for one in drawn]) for k in (0, 1))
    factor = np.linalg.norm(x_axis, axis=1)
    angle = np.degrees(np.arctan2(x_axis[:, 1], x_axis[:, 0]))
    height = np.array([one[2, 2] for one in drawn])
    flipped = np.cross(x_axis, y_axis)[:, 2] < 0
    assert 0.9 <= factor.min() < 0.91 and 1.09 < factor.max() <= 1.1001
    assert -30 <= angle.min() < -28 and 28 < angle.max() <= 30
    assert height.std() == pytest.approx(0.2, rel=0.15) and abs(height.mean()) < 0.04
    assert 0.4 < flipped.mean() < 0.6
