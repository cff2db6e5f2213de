"""Pseudo-labels are cleared of motion that the second sweep does not bear out, and of nothing else."""

import numpy as np
import pytest
from motion_cases import CAR, STILL, WALL, jittered, shell

from zeroflow_core.distillation.training.refinement import refine
from zeroflow_core.distillation.training.samples import Sample

DT = 0.1
SLOWEST = 0.3


def sample_of(parts, dt=DT):
    """A Sample of (points, true motion, labelled motion), metres; and the number of each point's part."""
    rng = np.random.default_rng(5)
    pc0 = np.concatenate([jittered(points, rng) for points, _, _ in parts])
    pc1 = np.concatenate([jittered(points + motion, rng) for points, motion, _ in parts])
    label = np.concatenate([np.broadcast_to(told, points.shape) for points, _, told in parts])
    part = np.repeat(np.arange(len(parts)), [len(points) for points, _, _ in parts])
    return Sample(*(values.astype(np.float32) for values in (pc0, pc1, label)), dt), part


def test_a_car_keeps_its_motion_and_a_wall_that_slides_within_itself_stands():
    motion, slide = np.array([0.9, 0.1, 0]), np.array([0.25, 0, 0])
    sample, part = sample_of([(CAR, motion, motion), (WALL, STILL, slide)])
    label = refine(sample).label
    np.testing.assert_array_equal(label[part == 0], sample.label[part == 0])
    assert not label[part == 1].any()


def test_motion_backwards_in_time_is_judged_the_same():
    motion = np.array([0.9, 0.1, 0])
    sample, part = sample_of([(CAR, -motion, -motion), (WALL, STILL, np.array([-0.25, 0, 0]))], dt=-DT)
    label = refine(sample).label
    np.testing.assert_array_equal(label[part == 0], sample.label[part == 0])
    assert not label[part == 1].any()


def test_a_wrong_motion_of_something_that_stands_becomes_zero():
    sample, _ = sample_of([(CAR, STILL, np.array([0.6, 0, 0]))])
    assert not refine(sample).label.any()


def test_motion_that_explains_a_part_only_is_unknown():
    """A car that moved is said to have moved some of the way: neither standing nor the label can be right."""
    sample, _ = sample_of([(CAR, np.array([1.2, 0, 0]), np.array([0.3, 0.0, 0]))])
    assert np.isnan(refine(sample).label).all()


def test_groups_too_small_to_tell_are_unknown():
    few = np.array([[30.0, 0, 0], [30.1, 0, 0], [30.0, 0.1, 0]])
    sample, part = sample_of([(few, STILL, np.array([0.4, 0, 0])), (WALL, STILL, STILL)])
    label = refine(sample).label
    assert np.isnan(label[part == 0]).all() and not label[part == 1].any()


def test_a_car_beside_a_wall_that_slides_the_same_way_is_told_from_it_by_its_speed():
    beside = shell(4.2, 1.8, 1.5, at=(8, -7.7, 0))
    sample, part = sample_of([(beside, np.array([0.9, 0, 0]), np.array([0.9, 0, 0])), (WALL, STILL, [0.2, 0, 0])])
    label = refine(sample).label
    kept = np.linalg.norm(label[part == 0], axis=1) > 0.5
    assert kept.mean() > 0.95
    # the wall has no points of the car's cells but where both are in one
    assert (np.nan_to_num(label[part == 1], nan=9.0) == 0).all(axis=1).mean() > 0.85


def test_slow_labels_become_zero_and_missing_ones_stay_missing():
    slow = np.array([SLOWEST * DT * 0.9, 0, 0])
    sample, part = sample_of([(CAR, STILL, slow), (WALL, STILL, np.full(3, np.nan))])
    label = refine(sample).label
    assert not label[part == 0].any() and np.isnan(label[part == 1]).all()


@pytest.mark.parametrize("points", [0, 1, 30])
def test_without_a_second_sweep_motion_is_left_as_it_is_labelled(points):
    label = np.full((points, 3), 0.5, np.float32)
    sample = Sample(np.zeros((points, 3), np.float32), np.zeros((0, 3), np.float32), label, DT)
    np.testing.assert_array_equal(refine(sample).label, label)


@pytest.mark.parametrize("length, stands", [(40, True), (12, False)])
def test_what_is_thin_and_longer_than_any_vehicle_stands(length, stands):
    """Even if all of it is where it is said to be: at 30° to the axes, so that only its own axes tell its shape."""
    fence = np.stack(np.meshgrid(np.arange(0, length, 0.2), [0.0, 0.1], np.arange(0, 0.7, 0.1)), -1).reshape(-1, 3)
    turn = np.array([[3**0.5 / 2, -0.5, 0], [0.5, 3**0.5 / 2, 0], [0, 0, 1]])
    motion = turn @ [0, 0.8, 0]
    sample, _ = sample_of([(fence @ turn.T, motion, motion)])
    label = refine(sample).label
    assert not label.any() if stands else np.array_equal(label, sample.label)


def test_a_single_scan_line_cannot_tell():
    line = np.stack(np.meshgrid(np.arange(0, 4, 0.05), [3.0], [1.0]), -1).reshape(-1, 3)
    sample, _ = sample_of([(line, np.array([0, 0.8, 0]), np.array([0, 0.8, 0]))])
    assert np.isnan(refine(sample).label).all()


def test_what_is_faster_than_any_vehicle_stands():
    sample, _ = sample_of([(CAR, np.array([7.0, 0, 0]), np.array([7.0, 0, 0]))])
    assert not refine(sample).label.any()


def test_the_sample_itself_is_not_changed():
    sample, _ = sample_of([(WALL, STILL, np.array([0.25, 0, 0]))])
    before = sample.label.copy()
    refine(sample)
    np.testing.assert_array_equal(sample.label, before)


def test_dense_clouds_take_no_more_memory_than_their_points():
    """Every point within reach of every other: pairs of neighbours would be billions."""
    rng = np.random.default_rng(0)
    pc0 = rng.uniform(-1, 1, (60_000, 3)).astype(np.float32)
    label = np.full_like(pc0, 0.1)
    assert refine(Sample(pc0, pc0 + label, label, DT)).label.shape == label.shape
