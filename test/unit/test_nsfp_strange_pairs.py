"""Strange pairs: each has a defined label, which may be stored, and none stops a run."""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from nsfp_cases import every_kind, make_pair, one_thread, same, teacher, two_boxes  # noqa: F401
from pyarrow import feather

from zeroflow_core.datasets.stored_flow import read_stored_flow, write_stored_flow
from zeroflow_core.nsfp.plain import Optimised
from zeroflow_core.nsfp.teacher import Label, Teacher
from zeroflow_core.pairs import Flow, Status, estimate_flow

NAN, INF = float("nan"), float("inf")


def blob(n: int = 40, at: tuple[float, float, float] = (0, 0, 0), seed: int = 0) -> np.ndarray:
    """(n,3) float32, points within a cubic metre."""
    return (np.random.default_rng(seed).uniform(-0.5, 0.5, (n, 3)) + at).astype(np.float32)


def spoilt(cloud: np.ndarray, rows: slice | list[int], columns: slice | int, value: float) -> np.ndarray:
    cloud = cloud.copy()
    cloud[rows, columns] = value
    return cloud


HERE, THERE = blob(40), blob(50, (0.2, 0, 0), 1)
NONE = np.zeros((0, 3), dtype=np.float32)
HALF = np.arange(40) % 2 == 0
WHOLE = slice(None)

# What the problem names, None where there is an estimate; and the pair.
STRANGE = {
    "both well": (None, make_pair(HERE, THERE)),
    "pc0 empty": ("pc0", make_pair(NONE, THERE)),
    "pc1 empty": ("pc1", make_pair(HERE, NONE)),
    "both empty": ("pc0", make_pair(NONE, NONE)),
    "pc0 all NaN": ("pc0", make_pair(spoilt(HERE, WHOLE, WHOLE, NAN), THERE)),
    "pc1 all NaN": ("pc1", make_pair(HERE, spoilt(THERE, WHOLE, WHOLE, NAN))),
    "both all NaN": ("pc0", make_pair(spoilt(HERE, WHOLE, WHOLE, NAN), spoilt(THERE, WHOLE, WHOLE, NAN))),
    "some NaN": (None, make_pair(spoilt(HERE, [0, 7, 39], WHOLE, NAN), spoilt(THERE, [0, 3], WHOLE, NAN))),
    "NaN in one column": (None, make_pair(spoilt(HERE, [1, 8], 2, NAN), spoilt(THERE, [4, 9], 1, NAN))),
    "some infinite": (None, make_pair(spoilt(HERE, [1, 8], 0, INF), spoilt(THERE, [4, 9], WHOLE, -INF))),
    "NaN that is ground": (None, make_pair(spoilt(HERE, [0, 1], WHOLE, NAN), THERE, HALF)),
    "pc0 all ground": ("pc0", make_pair(HERE, THERE, np.ones(40))),
    "pc1 all ground": ("pc1", make_pair(HERE, THERE, None, np.ones(50))),
    "all ground": ("pc0", make_pair(HERE, THERE, np.ones(40), np.ones(50))),
    "some ground": (None, make_pair(HERE, THERE, HALF, np.arange(50) % 3 == 0)),
    "pc0 out of range": ("pc0", make_pair(HERE + (60, 0, 0), THERE)),
    "pc1 out of range": ("pc1", make_pair(HERE, THERE + (0, 0, 9))),
    "all out of range": ("pc0", make_pair(HERE + (0, -70, 0), THERE + (0, -70, 0))),
    "some out of range": (None, make_pair(spoilt(HERE, [0, 5], 0, 51.2), spoilt(THERE, [1, 6], 1, -60))),
    "ground out of range": (None, make_pair(spoilt(HERE, [0, 1], 2, -3.5), THERE, HALF)),
    "beyond all measure": (None, make_pair(spoilt(HERE, [0, 5], 0, 1e30), spoilt(THERE, [1, 6], 1, -1e30))),
    "one point each": (None, make_pair(HERE[:1], THERE[:1])),
    "one point and many": (None, make_pair(HERE[:1], THERE)),
    "many and one point": (None, make_pair(HERE, THERE[:1])),
    "one point many times": (None, make_pair(np.repeat(HERE[:1], 20, 0), np.repeat(THERE[:1], 30, 0))),
    "in line": (None, make_pair(HERE * (1, 0, 0), THERE * (1, 0, 0))),
    "identical": (None, make_pair(HERE, HERE.copy())),
    "far from each other": ("common", make_pair(HERE, THERE + (9, 0, 0))),
    "one point, far": ("common", make_pair([[0, 0, 0]], [[1.5, 0, 0]])),
    "one point at the reach": ("common", make_pair([[0, 0, 0]], [[1, 1, 0]])),
    "one point within reach": (None, make_pair([[0, 0, 0]], [[1, 0.99, 0]])),
    "few in reach": (None, make_pair(np.concatenate([HERE, THERE + (4, 0, 0)]), THERE + (5, 0, 0))),
    "few seen": ("pc1", make_pair(HERE, [[NAN, 0, 0], [0, 0, -8], [0, 0, 0]], None, [False, False, True])),
}


def careful(kind: tuple[str, str], iterations: int = 3) -> Teacher:
    """One whose steps are small: Fast NSF's first are else of many metres, before it has found its way."""
    return teacher(kind, iterations, learning_rate=1e-3)


@cache
def label_of(kind: tuple[str, str], case: str) -> Label:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (label,) = careful(kind).label([STRANGE[case][1]])
    return label


def expected_status(points: np.ndarray, is_ground: np.ndarray, estimated: bool) -> list[Status]:
    status = []
    for point, ground in zip(points, is_ground, strict=True):
        if not all(np.isfinite(point)):
            status.append(Status.NOT_FINITE)
        elif ground:
            status.append(Status.GROUND)
        elif not all(low <= x < -low for x, low in zip(point, (np.float32(-51.2), np.float32(-51.2), -3), strict=True)):
            status.append(Status.OUT_OF_RANGE)
        else:
            status.append(Status.OK if estimated else Status.NO_ESTIMATE)
    return status


def assert_defined(flow: Flow, points: np.ndarray, is_ground: np.ndarray, estimated: bool, dt: float) -> None:
    assert flow.vectors.shape == (len(points), 3) and flow.vectors.dtype == np.float32
    assert flow.status.shape == (len(points),) and flow.status.dtype == np.uint8
    assert flow.status.tolist() == expected_status(points, is_ground, estimated)
    known = np.isin(flow.status, [Status.OK, Status.GROUND])
    assert np.isfinite(flow.vectors[known]).all()
    assert np.isnan(flow.vectors[~known]).all()
    assert not flow.vectors[flow.status == Status.GROUND].any()
    assert flow.dt == dt


@every_kind
@pytest.mark.parametrize("case", STRANGE)
def test_every_pair_has_a_defined_label(kind, case, tmp_path: Path):
    (says, pair), label = STRANGE[case], label_of(kind, case)
    assert_defined(label.flow, pair.pc0, pair.is_ground0, says is None, pair.dt)
    if kind[0] == "nsfp":
        assert_defined(label.backward, pair.pc1, pair.is_ground1, says is None, -pair.dt)
    else:
        assert label.backward is None
    if says is None:
        assert label.problem is None
        assert np.isfinite(label.loss) and label.iterations >= 1
    else:
        assert says in label.problem and " " in label.problem and "\n" not in label.problem
        assert np.isnan(label.loss)
    assert not label.failed
    assert_stored(label.flow, tmp_path / "1.feather")


def assert_stored(flow: Flow, path: Path) -> None:
    write_stored_flow(path, flow.vectors, np.isfinite(flow.vectors).all(axis=1))
    table = feather.read_table(path)
    columns = [table[name].to_numpy() for name in ("flow_tx_m", "flow_ty_m", "flow_tz_m")]
    assert np.isfinite(columns).all()
    known = np.isin(flow.status, [Status.OK, Status.GROUND])
    np.testing.assert_array_equal(table["is_valid"].to_numpy(zero_copy_only=False), known)
    again, is_valid = read_stored_flow(path, len(flow.vectors))
    np.testing.assert_array_equal(again, flow.vectors)
    np.testing.assert_array_equal(is_valid, known)


@every_kind
def test_all_strange_pairs_in_one_run(kind):
    labels = list(careful(kind).label(pair for _, pair in STRANGE.values()))
    assert len(labels) == len(STRANGE)
    for case, label in zip(STRANGE, labels, strict=True):
        assert same(label, label_of(kind, case)), case


@every_kind
@pytest.mark.parametrize("learning_rate", [1.0, 1e6])
def test_an_optimisation_that_diverges_ends_in_a_defined_label(kind, learning_rate):
    pair = two_boxes(share=0.4).pair
    label = teacher(kind, 20, learning_rate=learning_rate).label_one(pair)
    estimated = label.flow.status == Status.OK
    assert set(label.flow.status[~estimated]) <= {Status.NO_ESTIMATE}
    assert np.isfinite(label.flow.vectors[estimated]).all() and np.isnan(label.flow.vectors[~estimated]).all()
    assert (label.problem is None) == estimated.any()
    assert np.isnan(label.loss) == label.failed == (not estimated.any())


def label_that_says(forward: list[list[float]], monkeypatch, loss: float = 0.25) -> Label:
    """Of five points and three, the way back from which is the flow of the first three, reversed."""
    answer = Optimised(torch.tensor(forward), -torch.tensor(forward[:3]), 7, loss, 5)
    monkeypatch.setattr(Teacher, "_optimise_at_once", lambda *_: [answer])
    return Teacher("nsfp", "published", device="cpu").label_one(make_pair(HERE[:5], THERE[:3]))


def test_a_flow_of_more_than_thirty_metres_is_none(monkeypatch):
    label = label_that_says([[29.9, 0, 0], [0, 30.1, 0], [18, 18, 18], [0, 0, -29.9], [1, 2, 3]], monkeypatch)
    assert label.flow.status.tolist() == [Status.OK, Status.NO_ESTIMATE, Status.NO_ESTIMATE, Status.OK, Status.OK]
    assert label.backward.status.tolist() == [Status.OK, Status.NO_ESTIMATE, Status.NO_ESTIMATE]
    assert np.isnan(label.flow.vectors).all(axis=1).tolist() == [False, True, True, False, False]
    assert (label.problem, label.failed, label.loss, label.iterations) == (None, False, 0.25, 7)


NO_FLOWS = {
    "not a number": [[1, 2, 3], [0, NAN, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]],
    "infinite": [[1, 2, 3], [0, 0, 0], [0, 0, 0], [0, 0, 0], [INF, 0, 0]],
    "all too far": [[31, 0, 0], [0, 40, 0], [0, 1e9, 0], [0, -1e30, 0], [20, 20, 20]],
}


@pytest.mark.parametrize("forward", NO_FLOWS.values(), ids=NO_FLOWS)
def test_an_answer_that_is_none_is_a_problem(forward, monkeypatch):
    label = label_that_says(forward, monkeypatch)
    assert label.flow.status.tolist() == [Status.NO_ESTIMATE] * 5
    assert label.backward.status.tolist() == [Status.NO_ESTIMATE] * 3
    assert np.isnan(label.flow.vectors).all() and np.isnan(label.backward.vectors).all()
    assert label.problem is not None and label.failed and np.isnan(label.loss)


def test_a_loss_that_is_no_number_is_a_problem(monkeypatch):
    label = label_that_says([[0, 0, 0]] * 5, monkeypatch, loss=NAN)
    assert label.flow.status.tolist() == [Status.NO_ESTIMATE] * 5
    assert label.problem is not None and label.failed


@every_kind
def test_the_edge_of_the_range(kind):
    # The lower bound is inside, the upper outside, on each axis.
    low, high = np.float32([-51.2, -51.2, -3.0]), np.float32([51.2, 51.2, 3.0])
    below, inside = np.nextafter(low, np.float32(-99)), np.nextafter(high, np.float32(0))
    small = teacher(kind, 1, minimum=(-1.0, -1.0, -1.0), maximum=(1.0, 2.0, 3.0))
    edges = [[-1, 0, 0], [0, -1, 0], [0, 0, -1], [1, 0, 0], [0, 2, 0], [0, 0, 3], [0, 1.99, 0], [0, 0, 2.99]]
    status = small.label_one(make_pair([*edges, [0, 0, 0]], [[0, 0, 0]])).flow.status
    assert status.tolist() == [Status.OK] * 3 + [Status.OUT_OF_RANGE] * 3 + [Status.OK] * 3
    corner = make_pair([low, below, inside, high], [low, below, inside, high])
    if kind[0] == "nsfp":  # a distance transform from corner to corner is not for a test
        status = teacher(kind, iterations=1).label_one(corner).flow.status
        assert status.tolist() == [Status.OK, Status.OUT_OF_RANGE, Status.OK, Status.OUT_OF_RANGE]


@every_kind
@pytest.mark.parametrize("case", STRANGE)
def test_estimate_flow_says_the_same(kind, case):
    flow = estimate_flow(careful(kind), STRANGE[case][1])
    np.testing.assert_array_equal(flow.vectors, label_of(kind, case).flow.vectors)
    assert flow.vectors.dtype == np.float32
