"""NSFP's loss and the exact neighbours under it: by hand, and against all distances and autograd."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from nsfp_cases import brute_chamfer, one_way
from torch import Tensor

from zeroflow_core.nsfp.chamfer import Chamfer
from zeroflow_core.nsfp.neighbours import NearestNeighbours

ROOT_2 = np.sqrt(2.0)


def chamfer(cloud, target, truncation: float = 2.0) -> float:
    return Chamfer(points(target), truncation)(points(cloud)).item()


def points(rows) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 3)


def cloud(n: int, seed: int, spread: float = 4.0) -> Tensor:
    """Spread so that some points have a neighbour within the truncation and some have not."""
    return (torch.rand(n, 3, generator=torch.Generator().manual_seed(seed)) - 0.5) * spread


# --- by hand -----------------------------------------------------------------------------------------------


def test_squared_distances_both_ways():
    # 0.25 there; back 0.25 and 1.0, over two.
    assert chamfer([[0, 0, 0]], [[0.5, 0, 0], [0, 1, 0]]) == pytest.approx(0.25 + (0.25 + 1.0) / 2)


def test_the_sides_are_not_alike_but_the_distance_is():
    a, b = [[0, 0, 0], [0.1, 0, 0], [0, 0.2, 0]], [[0.5, 0, 0]]
    there, back = (0.25 + 0.16 + 0.25 + 0.04) / 3, 0.16
    assert chamfer(a, b) == pytest.approx(there + back)
    assert chamfer(b, a) == pytest.approx(there + back)


def test_what_is_far_counts_nothing_and_is_still_counted():
    # One point of four lies beyond √2 m: a quarter of the sum of the rest over three quarters of the points.
    a = [[0, 0, 0], [1, 0, 0], [0, 1, 0], [30, 0, 0]]
    assert chamfer(a, [[0, 0, 0]]) == pytest.approx((0 + 1 + 1 + 0) / 4 + 0)


@pytest.mark.parametrize(
    "at, counts",
    [
        ((1, 1, 0), False),  # 2 m² exactly
        ((1, float(np.nextafter(np.float32(1), np.float32(0))), 0), True),
        ((1, 1, 0.01), False),
        ((1.4, 0, 0), True),
        ((ROOT_2 + 1e-4, 0, 0), False),
    ],
)
def test_two_square_metres_count_nothing(at, counts):
    expected = 2 * float(np.sum(np.float32(at).astype(float) ** 2)) if counts else 0.0
    assert chamfer([at], [[0, 0, 0]]) == pytest.approx(expected, rel=1e-6)


def test_truncation_is_one_of_its_options():
    assert chamfer([[1, 0, 0]], [[0, 0, 0]], truncation=1.0) == 0.0
    assert chamfer([[1, 0, 0]], [[0, 0, 0]], truncation=1.01) == pytest.approx(2.0)
    assert chamfer([[3, 0, 0]], [[0, 0, 0]], truncation=10.0) == pytest.approx(18.0)


def test_no_overlap_is_zero_and_pulls_nowhere():
    moving = points([[0, 0, 0], [1, 0, 0]]).requires_grad_()
    loss = Chamfer(points([[40, 0, 0]]), 2.0)(moving)
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(moving.grad, torch.zeros(2, 3))


def test_a_cloud_on_itself_is_zero_and_pulls_nowhere():
    moving = cloud(50, 0).requires_grad_()
    loss = Chamfer(moving.detach().clone(), 2.0)(moving)
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(moving.grad, torch.zeros(50, 3))


def test_a_cloud_that_has_diverged_is_no_match():
    nan = float("nan")
    for diverged in ([[nan, 0, 0], [0, 0, 0]], [[nan, nan, nan]] * 2):
        assert np.isnan(chamfer(diverged, [[0, 0, 0], [0.1, 0, 0]]))


def test_both_directions_pull():
    # The target's second point is nearest to the cloud's only one, and pulls with the share of its own cloud.
    moving = points([[0, 0, 0]]).requires_grad_()
    Chamfer(points([[0.5, 0, 0], [0, 1, 0]]), 2.0)(moving).backward()
    np.testing.assert_allclose(moving.grad, [[2 * -0.5 + 2 * -0.5 / 2, 2 * -1 / 2, 0]], rtol=1e-6)


# --- against all distances ---------------------------------------------------------------------------------


@pytest.mark.parametrize("n, m", [(1, 1), (1, 40), (40, 1), (150, 90), (90, 150)])
@pytest.mark.parametrize("truncation", [2.0, 0.3])
def test_value_and_gradient_are_those_of_all_distances(n, m, truncation):
    target = cloud(m, 1)
    moving, again = cloud(n, 2).requires_grad_(), cloud(n, 2).requires_grad_()
    loss, expected = Chamfer(target, truncation)(moving), brute_chamfer(again, target, truncation)
    loss.backward()
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6, abs=1e-9)
    torch.testing.assert_close(moving.grad, again.grad, rtol=1e-5, atol=1e-8)


def test_the_cases_above_have_points_on_either_side_of_the_truncation():
    far = (torch.cdist(cloud(150, 2), cloud(90, 1)).min(dim=1).values ** 2 >= 0.3).double().mean().item()
    assert 0.2 < far < 0.8
    assert one_way(cloud(40, 2), cloud(1, 1), 2.0).item() < one_way(cloud(40, 2), cloud(1, 1), 1e9).item()


def test_one_chamfer_serves_a_cloud_that_moves():
    # As in an optimisation: the target stays, the neighbours are looked for anew.
    target = cloud(60, 5)
    distance = Chamfer(target, 2.0)
    for shift in (0.0, 0.7, -0.9, 3.0):
        moved = cloud(80, 6) + shift
        assert distance(moved).item() == pytest.approx(brute_chamfer(moved, target).item(), rel=1e-6, abs=1e-9)


# --- neighbours --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [0.0, 50.0])
@pytest.mark.parametrize("n, m", [(1, 1), (300, 1), (1, 300), (400, 300)])
def test_neighbours_are_the_nearest_of_all(n, m, offset):
    targets, queries = cloud(m, 3, 20.0) + offset, cloud(n, 4, 24.0) + offset
    found = NearestNeighbours(targets)(queries)
    assert found.dtype == torch.int64 and found.shape == (n,)
    distances = torch.cdist(queries.double(), targets.double(), compute_mode="donot_use_mm_for_euclid_dist")
    np.testing.assert_array_equal(
        distances.gather(1, found[:, None])[:, 0].numpy(), distances.min(dim=1).values.numpy()
    )


def test_neighbours_of_points_that_stand_together():
    # Copies of one point: any of them is nearest.
    targets = points([[1, 2, 3]] * 70 + [[1, 2, 4]])
    found = NearestNeighbours(targets)(points([[1, 2, 3.1], [1, 2, 3.9], [1, 2, 3]]))
    assert found[0] < 70 and found[1] == 70 and found[2] < 70


def test_neighbours_of_what_carries_gradients():
    targets, queries = cloud(30, 7).requires_grad_(), cloud(20, 8).requires_grad_()
    found = NearestNeighbours(targets)(queries)
    assert torch.equal(found, torch.cdist(queries.double(), targets.double()).argmin(dim=1))
    assert not found.requires_grad
