"""The teacher: motion on small scenes, and nothing but the pair and the seed in a label."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from itertools import islice

import numpy as np
import pytest
import torch
from nsfp_cases import every_kind, make_pair, mean_error, one_thread, same, teacher, two_boxes, with_points  # noqa: F401

from zeroflow_core.nsfp.config import CONFIGS, METHODS
from zeroflow_core.nsfp.teacher import Label
from zeroflow_core.pairs import FramePair, Status, estimate_flow

NAN, INF = float("nan"), float("inf")


# --- motion ------------------------------------------------------------------------------------------------


@cache
def label_of_boxes(kind: tuple[str, str]) -> Label:
    return teacher(kind, iterations=100).label_one(two_boxes().pair)


@every_kind
def test_moving_boxes_are_found(kind):
    scene, label = two_boxes(), label_of_boxes(kind)
    zero = np.zeros_like(scene.flow0)
    assert label.problem is None
    assert (label.flow.status == Status.OK).all()
    assert mean_error(zero, scene.flow0, scene.moving0) > 0.7
    assert mean_error(label.flow.vectors, scene.flow0, scene.moving0) < 0.15
    assert mean_error(label.flow.vectors, scene.flow0, ~scene.moving0) < 0.15
    assert 50 <= label.iterations <= 100
    assert 0 < label.loss < 0.2


@pytest.mark.parametrize("name", CONFIGS)
def test_the_way_back_is_the_way_there_reversed(name):
    scene, label = two_boxes(), label_of_boxes(("nsfp", name))
    assert label.backward.dt == -label.flow.dt == -0.1
    assert (label.backward.status == Status.OK).all()
    assert mean_error(label.backward.vectors, scene.flow1, scene.moving1) < 0.15
    assert mean_error(label.backward.vectors, scene.flow1, ~scene.moving1) < 0.15
    velocity = label.backward.velocity[scene.moving1 & (scene.flow1[:, 0] == -0.8)]
    np.testing.assert_allclose(velocity.mean(axis=0), [8, 0, 0], atol=1.0)


@pytest.mark.parametrize("name", CONFIGS)
def test_fast_nsf_has_no_way_back(name):
    assert label_of_boxes(("fastnsf", name)).backward is None


@every_kind
def test_identical_clouds_stand_still(kind):
    pc0 = two_boxes(share=0.5).pair.pc0
    label = teacher(kind, iterations=50).label_one(make_pair(pc0, pc0.copy()))
    assert np.linalg.norm(label.flow.vectors, axis=1).mean() < 0.1


# --- a label is a function of the pair and the seed ----------------------------------------------------------


def differs(a: Label, b: Label) -> bool:
    return np.abs(a.flow.vectors - b.flow.vectors).max() > 1e-4


def several() -> list[FramePair]:
    """Of different sizes, one of which nothing can be said of."""
    scenes = [two_boxes(seed, share).pair for seed, share in ((0, 0.4), (1, 0.7), (2, 0.4), (3, 0.5))]
    far = make_pair(scenes[2].pc0, scenes[2].pc1 + np.float32(30))
    return [scenes[0], scenes[1], far, scenes[2], scenes[3]]


@every_kind
def test_same_seed_same_label(kind):
    pair = several()[0]
    labels = [teacher(kind, iterations=12, seed=seed).label_one(pair) for seed in (4, 4, 5)]
    assert same(labels[0], labels[1])
    assert differs(labels[0], labels[2])


@cache
def alone(kind: tuple[str, str], which: int) -> Label:
    return teacher(kind).label_one(several()[which])


@every_kind
def test_a_label_does_not_depend_on_what_was_labelled_before(kind):
    one = teacher(kind)
    one.label_one(several()[1])
    assert same(one.label_one(several()[0]), alone(kind, 0))


@every_kind
@pytest.mark.parametrize(
    "some, in_flight", [([0, 1, 3], None), ([4, 3, 2, 1, 0], 2), ([1, 0, 2, 1], 64), ([2, 2], 64), ([2], 1)]
)
def test_pairs_together_have_the_labels_of_each_alone_in_their_order(kind, some, in_flight):
    pairs = several()
    together = list(teacher(kind, in_flight=in_flight).label(pairs[i] for i in some))
    assert len(together) == len(some)
    assert all(same(label, alone(kind, i)) for label, i in zip(together, some, strict=True))
    assert [label.problem is None for label in together] == [i != 2 for i in some]


@pytest.mark.parametrize("method", METHODS)
def test_pairs_that_stop_at_different_times_keep_their_labels(method):
    # Each stops when its own loss does.
    one = teacher((method, "published"), iterations=25, patience=2, min_delta=2e-3)
    pairs = [several()[i] for i in (0, 3, 4)]
    labels = [one.label_one(pair) for pair in pairs]
    assert len({label.iterations for label in labels}) > 1
    assert all(same(a, b) for a, b in zip(one.label(pairs), labels, strict=True))


@every_kind
def test_labels_come_before_all_pairs_are_read(kind):
    read = []

    def many() -> Iterator[FramePair]:
        pair = several()[0]
        for i in range(100):
            read.append(i)
            yield pair

    one = teacher(kind, iterations=2)
    assert len(list(islice(one.label(many()), 3))) == 3
    assert len(read) <= 64
    assert list(one.label(iter(()))) == []


@every_kind
def test_nothing_is_read_before_it_is_asked_for(kind):
    def never() -> Iterator[FramePair]:
        raise AssertionError("read too early")
        yield

    teacher(kind).label(never())


def surroundings() -> tuple:
    return (
        torch.random.get_rng_state().numpy().tobytes(),
        str(np.random.get_state()[1].tolist()),
        random.getstate(),
        torch.get_num_threads(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.get_default_dtype(),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_float32_matmul_precision(),
    )


@every_kind
@pytest.mark.parametrize("threads", [1, 2])
def test_the_surroundings_stay_as_they_are_even_between_labels(kind, threads):
    torch.set_num_threads(threads)
    before = surroundings()
    labels = teacher(kind, iterations=2).label(several()[:4])
    for _ in range(2):
        next(labels)
        assert surroundings() == before
    labels.close()
    assert surroundings() == before


@contextmanager
def default_float64() -> Iterator[None]:
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(default)


@every_kind
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, default_float64])
def test_the_surroundings_leave_no_mark(kind, mode):
    pair, one = several()[0], teacher(kind)
    expected = one.label_one(pair)
    torch.manual_seed(99)
    np.random.seed(99)
    with mode():
        before = surroundings()
        labels = [one.label_one(pair), next(iter(one.label([pair])))]
        assert surroundings() == before
    assert all(same(label, expected) for label in labels)


@every_kind
def test_pairs_are_only_looked_at(kind):
    pair = several()[0]
    arrays = [pair.pc0, pair.pc1, pair.is_ground0, pair.is_ground1]
    before = [array.copy() for array in arrays]
    for array in arrays:
        array.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        label = teacher(kind).label_one(pair)
    assert label.problem is None
    assert all(np.array_equal(array, was) for array, was in zip(arrays, before, strict=True))


@every_kind
def test_points_that_take_no_part_change_no_flow(kind):
    pair, one = several()[0], teacher(kind)
    plain = one.label_one(pair)
    more = with_points(pair, [[NAN] * 3, [80, 0, 0], [0, 0, -1], [INF, 0, 0]], [False, False, True, True])
    label = one.label_one(replace(more, pc1=np.concatenate([pair.pc1, np.float32([[NAN] * 3, [1, 2, -1]])]),
                                  is_ground1=np.append(pair.is_ground1, [False, True])))  # fmt: skip
    assert label.flow.vectors[: len(pair.pc0)].tobytes() == plain.flow.vectors.tobytes()
    assert label.flow.status[len(pair.pc0) :].tolist() == [3, 2, 1, 3]
    assert label.loss == plain.loss


MEMORY = {
    "by columns": np.asfortranarray,
    "every other row": lambda cloud: np.repeat(cloud, 2, axis=0)[::2],
    "float64": lambda cloud: cloud.astype(np.float64),
}


@every_kind
@pytest.mark.parametrize("change", MEMORY.values(), ids=MEMORY)
def test_how_an_array_lies_in_memory_is_all_one(kind, change):
    pair, one = several()[0], teacher(kind)
    label = one.label_one(replace(pair, pc0=change(pair.pc0), pc1=change(pair.pc1)))
    assert same(label, one.label_one(pair))
    assert label.flow.vectors.dtype == np.float32


# --- as a student ------------------------------------------------------------------------------------------


@every_kind
def test_estimate_flow_takes_a_teacher(kind):
    pair = with_points(several()[0], [[NAN] * 3, [80, 0, 0], [0, 0, -1], [70, 0, -1]], [False, False, True, True])
    pc1 = pair.pc1.copy()
    pc1[[3, 8]] = NAN
    pair = replace(pair, pc1=pc1, is_ground1=np.arange(len(pair.pc1)) % 5 == 0)
    one = teacher(kind)
    flow, label = estimate_flow(one, pair), one.label_one(pair)
    np.testing.assert_array_equal(flow.status, label.flow.status)
    np.testing.assert_array_equal(flow.vectors, label.flow.vectors)
    assert flow.status[-4:].tolist() == [3, 2, 1, 1]
    assert flow.dt == label.flow.dt


@every_kind
def test_flow_of_two_clouds(kind):
    pair, one = several()[0], teacher(kind)
    flow = one.flow(pair.pc0, pair.pc1)
    assert flow.dtype == np.float32
    np.testing.assert_array_equal(flow, one.label_one(pair).flow.vectors)
    assert one.flow(pair.pc0[:0], pair.pc1).shape == (0, 3)
    assert np.isnan(one.flow(pair.pc0, pair.pc1[:0])).all()
