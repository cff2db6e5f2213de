"""Fast NSF: its grid against distances counted out, its lookup against grid_sample, its loop against another one."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.nsfp.config import TeacherConfig
from zeroflow_core.nsfp.distance_transform import DistanceTransform
from zeroflow_core.nsfp.network import make_field
from zeroflow_core.nsfp.plain_fast_nsf import optimise_fast_nsf

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def cloud(count: int, seed: int = 0, extent: tuple[float, float, float] = (3.0, 2.0, 1.2)) -> Tensor:
    points = torch.rand((count, 3), generator=torch.Generator().manual_seed(seed)) - 0.5
    return points * torch.tensor(extent)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- the grid ----------------------------------------------------------------------------------------------


def cells_of(transform: DistanceTransform) -> Tensor:
    """Every cell's number (cells,3), x y z, in the order of its distance in `grid`."""
    axes = torch.meshgrid(*map(torch.arange, transform.grid.shape), indexing="ij")
    return torch.stack(axes[::-1], dim=-1).view(-1, 3)


@pytest.mark.parametrize("targets", [1, 2, 50])
def test_every_cell_holds_the_shortest_way_in_steps_to_its_neighbours(targets: int):
    target, other = cloud(targets), cloud(30, seed=1)
    transform = DistanceTransform(target, other)
    lower = torch.floor(torch.cat([target, other]).amin(dim=0).double() * 10 - 1)
    occupied = (target.double() * 10 - lower).round()
    shortest = torch.full((transform.grid.numel(),), math.inf, dtype=torch.float64)
    for cell in occupied:
        least, middle, most = (cells_of(transform) - cell).abs().sort(dim=1).values.T
        steps = least * 3**0.5 + (middle - least) * 2**0.5 + (most - middle)
        shortest = torch.minimum(shortest, steps / 10)
    torch.testing.assert_close(transform.grid.view(-1).double(), shortest, atol=1e-5, rtol=0)


def test_the_grid_is_never_nearer_than_the_crow_flies_and_at_most_an_eighth_farther():
    from scipy.ndimage import distance_transform_edt

    transform = DistanceTransform(cloud(20), cloud(5, seed=1))
    straight = torch.from_numpy(distance_transform_edt((transform.grid > 0).numpy(), sampling=0.1)).float()
    ratio = (transform.grid / straight)[straight > 0]
    assert 1 - 1e-6 < ratio.min() and 1.1 < ratio.max() < 1.1284


def test_distances_worked_out_by_hand():
    transform = DistanceTransform(torch.tensor([[0.04, -0.04, 0.03]]), torch.tensor([[2.0, 1.0, 1.0]]))
    expected = {
        (0.0, 0.0, 0.0): 0.0,  # the target rounds to this cell
        (0.04, 0.0, 0.0): 0.04,  # and is itself not quite at it
        (0.3, 0.0, 0.0): 0.3,
        (0.3, 0.3, 0.0): 0.3 * 2**0.5,
        (0.3, 0.3, 0.3): 0.3 * 3**0.5,
        (0.2, 0.1, 0.0): 0.1 + 0.1 * 2**0.5,
        (0.25, 0.0, 0.0): 0.25,
        (0.05, 0.05, 0.0): (0 + 0.1 + 0.1 + 0.1 * 2**0.5) / 4,
    }
    torch.testing.assert_close(transform(torch.tensor(list(expected))), torch.tensor(list(expected.values())))


def test_the_grid_leaves_room_around_both_clouds():
    target, other = cloud(10), cloud(10, seed=1, extent=(5.0, 0.5, 0.5)) + 1
    transform = DistanceTransform(target, other)
    around = torch.cat([target, other])
    metres = torch.tensor(transform.grid.shape).flip(0) / 10
    room = metres - (around.amax(dim=0) - around.amin(dim=0))
    assert ((room > 0.3) & (room < 0.8)).all()
    at_border = torch.cat([around.amin(dim=0, keepdim=True), around.amax(dim=0, keepdim=True)])
    beyond = torch.tensor([[-0.09], [0.09]])
    assert (transform.with_gradient(at_border + beyond)[1] != 0).all()


def test_cells_may_have_another_size():
    transform = DistanceTransform(torch.tensor([[0.0, 0.0, 0.0]]), torch.tensor([[3.0, 3.0, 3.0]]), cells_per_metre=2)
    torch.testing.assert_close(transform(torch.tensor([[0.5, 1.0, 0.0]])), torch.tensor([0.5 + 0.5 * 2**0.5]))


def test_a_space_too_large_is_refused_with_its_size():
    with pytest.raises(ZeroFlowError, match=r"1000 × 1000 × 1000 m.*lower the range"):
        DistanceTransform(torch.zeros(1, 3), torch.full((1, 3), 1000.0))


# --- lookups -----------------------------------------------------------------------------------------------


def published_lookup(transform: DistanceTransform, lower: Tensor, points: Tensor) -> Tensor:
    """grid_sample with aligned corners, places clipped to the grid."""
    last = torch.tensor(transform.grid.shape).flip(0) - 1
    places = torch.minimum(((points - lower) * 10).clamp(min=0), last)
    grid = transform.grid[None, None]
    sampled = torch.nn.functional.grid_sample(grid, (2 * places / last - 1).view(1, -1, 1, 1, 3), align_corners=True)
    return sampled.view(-1)


def queries() -> Tensor:
    """In the grid, on borders between its cells, and outside by a little and by far."""
    on_cells = torch.tensor([[0.1, 0.25, 0.1], [0.0, 0.0, 0.0], [-0.3, 0.55, 0.2]])
    far = torch.tensor([[1e6, 0.05, 0.05], [0.05, -1e6, 0.05], [-1e4, 1e4, 1e4]])
    return torch.cat([cloud(200, seed=2), cloud(200, seed=3, extent=(6.0, 4.0, 3.0)), on_cells, far])


def test_lookups_are_those_of_the_published_code():
    target, other = cloud(40), cloud(40, seed=1)
    transform = DistanceTransform(target, other)
    lower = torch.floor(torch.cat([target, other]).amin(dim=0) * 10 - 1) / 10
    expected = published_lookup(transform, lower, queries())
    torch.testing.assert_close(transform(queries()), expected, atol=2e-6, rtol=1e-5)


def test_closed_form_and_autograd_agree():
    transform = DistanceTransform(cloud(40), cloud(40, seed=1))
    points = queries().requires_grad_()
    distances = transform(points)
    (by_autograd,) = torch.autograd.grad(distances.sum(), points)
    values, gradient = transform.with_gradient(points)
    torch.testing.assert_close(values, distances.detach(), atol=1e-5, rtol=0)
    torch.testing.assert_close(gradient, by_autograd, atol=1e-5, rtol=0)
    assert not values.requires_grad and not gradient.requires_grad
    assert 0.5 < gradient[:200].norm(dim=1).median() < 1.2  # metres for metres


def test_the_gradient_is_the_slope():
    transform = DistanceTransform(torch.tensor([[0.0, 0.0, 0.0]]), torch.tensor([[2.0, 2.0, 2.0]]))
    _, gradient = transform.with_gradient(torch.tensor([[1.05, 0.0, 0.0], [1.02, 0.43, 0.31]]))
    # Beside the axes: straight steps along the longest, the others by what a slanted step costs more.
    expected = torch.tensor([[1.0, 0.0, 0.0], [1.0, 2**0.5 - 1, 3**0.5 - 2**0.5]])
    torch.testing.assert_close(gradient[1], expected[1], atol=1e-4, rtol=0)
    torch.testing.assert_close(gradient[0, 0], expected[0, 0], atol=1e-4, rtol=0)


def test_outside_it_is_the_distance_at_the_border():
    transform = DistanceTransform(cloud(40), cloud(40, seed=1))
    outside, farther = torch.tensor([[9.0, 0.05, 0.02]]), torch.tensor([[5e5, 0.05, 0.02]])
    distance, gradient = transform.with_gradient(outside)
    torch.testing.assert_close(transform(farther), distance)
    assert distance > 0 and gradient[0, 0] == 0 and gradient[0, 1:].abs().sum() > 0


def test_a_point_that_is_not_a_number_spoils_its_own_distance_only():
    transform = DistanceTransform(cloud(40), cloud(40, seed=1))
    points = cloud(3, seed=2)
    clean = transform(points)
    points[1] = math.nan
    distances, _ = transform.with_gradient(points)
    assert torch.isnan(transform(points)).tolist() == [False, True, False]
    torch.testing.assert_close(distances[[0, 2]], clean[[0, 2]])


class _Operations(TorchDispatchMode):
    """Notes the name of every operation."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.names.add(operation.name())
        return operation(*args, **(kwargs or {}))


def test_closed_form_never_waits_for_a_value():
    transform, points = DistanceTransform(cloud(40), cloud(40, seed=1)), queries()
    with _Operations() as operations:
        transform.with_gradient(points)
    assert operations.names
    waiting = {"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::unique_dim"}
    assert not operations.names & waiting


@needs_gpu
def test_a_gpu_gives_the_same():
    target, other, points = cloud(40), cloud(40, seed=1), queries()
    here = DistanceTransform(target, other)
    there = DistanceTransform(target.cuda(), other.cuda())
    torch.testing.assert_close(there.grid.cpu(), here.grid, atol=1e-6, rtol=0)
    points_there = points.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        answers = there.with_gradient(points_there)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for answer, expected in zip(answers, here.with_gradient(points), strict=True):
        torch.testing.assert_close(answer.cpu(), expected, atol=1e-5, rtol=0)


# --- the optimisation --------------------------------------------------------------------------------------


def config(**changes) -> TeacherConfig:
    return TeacherConfig("fastnsf", "plain", **{"patience": 10, "min_delta": 1e-3, "iterations": 100, **changes})


def test_the_loop_is_the_published_one():
    pc0, pc1 = cloud(60), cloud(60, seed=1) + torch.tensor([0.4, 0.1, 0.0])
    seen: list[tuple[int, float]] = []
    optimised = optimise_fast_nsf(pc0, pc1, config(iterations=6), seeded(), lambda *args: seen.append(args))

    field = make_field(seeded(), "xavier")
    adam = torch.optim.Adam(field.parameters(), lr=0.008, weight_decay=0)
    transform = DistanceTransform(pc1, pc0)
    lower = torch.floor(torch.cat([pc0, pc1]).amin(dim=0) * 10 - 1) / 10
    flows, losses = [], []
    for _ in range(6):
        flows.append(field(pc0))
        loss = published_lookup(transform, lower, pc0 + flows[-1]).mean()
        losses.append(loss.item())
        adam.zero_grad()
        loss.backward()
        adam.step()

    assert [number for number, _ in seen] == [1, 2, 3, 4, 5, 6] and optimised.iterations == 6
    torch.testing.assert_close(torch.tensor([loss for _, loss in seen]), torch.tensor(losses), atol=1e-4, rtol=0)
    best = min(range(6), key=losses.__getitem__)
    torch.testing.assert_close(optimised.forward, flows[best].detach(), atol=1e-3, rtol=0)
    assert losses[-1] < losses[0] and optimised.backward is None


def test_the_flow_kept_is_that_of_the_lowest_loss():
    pc0, pc1 = cloud(60), cloud(60, seed=1)
    losses: list[float] = []
    optimised = optimise_fast_nsf(pc0, pc1, config(iterations=2), seeded(), lambda _, v: losses.append(v))
    assert optimised.loss == losses[0] < losses[1]  # the first step of Adam is too long
    assert DistanceTransform(pc1, pc0)(pc0 + optimised.forward).mean().item() == pytest.approx(optimised.loss)


def test_it_stops_when_the_loss_stays_and_leaves_the_last_flow_out():
    pc0, pc1 = cloud(60), cloud(60, seed=1) + torch.tensor([0.4, 0.1, 0.0])
    losses: list[float] = []
    optimised = optimise_fast_nsf(pc0, pc1, config(patience=1, min_delta=9.0), seeded(), lambda _, v: losses.append(v))
    assert optimised.iterations == len(losses) == 2 and losses[1] < losses[0] == optimised.loss
    torch.testing.assert_close(optimised.forward, make_field(seeded(), "xavier")(pc0).detach())


def test_a_shifted_cloud_is_brought_back():
    pc0 = cloud(400, extent=(12.0, 8.0, 2.0))
    flow = torch.tensor([0.5, -0.3, 0.0])
    optimised = optimise_fast_nsf(pc0, pc0 + flow, config(patience=99, min_delta=5e-5, iterations=150), seeded())
    error = (optimised.forward - flow).norm(dim=1).mean()
    assert error < 0.15  # of 0.58


def test_the_seed_decides():
    pc0, pc1 = cloud(60), cloud(60, seed=1)
    first, again, other = (
        optimise_fast_nsf(pc0, pc1, config(iterations=5), seeded(seed)).forward for seed in (0, 0, 1)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize(
    ("pc0", "pc1"),
    [
        (cloud(50), torch.tensor([[0.2, 0.1, 0.0]])),
        (torch.tensor([[0.2, 0.1, 0.0]]), cloud(50)),
        (torch.full((50, 3), 0.02) + cloud(50) * 1e-3, torch.full((50, 3), 0.02)),
        (torch.zeros(1, 3), torch.full((1, 3), 30.0)),
    ],
    ids=["one target", "one point", "all in a cell", "far apart"],
)
def test_odd_clouds_have_a_flow_too(pc0: Tensor, pc1: Tensor):
    optimised = optimise_fast_nsf(pc0, pc1, config(iterations=5), seeded())
    assert optimised.forward.shape == pc0.shape and torch.isfinite(optimised.forward).all()
    assert math.isfinite(optimised.loss)


def test_a_loss_that_is_no_number_ends_it_and_what_was_best_remains():
    pc0, pc1 = cloud(60), cloud(60, seed=1)
    losses: list[float] = []
    wild = config(learning_rate=1e30)
    optimised = optimise_fast_nsf(pc0, pc1, wild, seeded(), lambda _, loss: losses.append(loss))
    assert len(losses) == 2 and math.isnan(losses[1]) and optimised.loss == losses[0]
    torch.testing.assert_close(optimised.forward, make_field(seeded(), "xavier")(pc0).detach())
