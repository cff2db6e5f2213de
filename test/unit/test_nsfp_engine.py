"""The fast engine: each of its parts against a slow one, and the whole against an optimisation by autograd."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from nsfp_cases import brute_chamfer, one_thread, one_way, two_boxes  # noqa: F401
from torch import Tensor, nn

from zeroflow_core.nsfp import engine
from zeroflow_core.nsfp.config import METHODS, TeacherConfig, teacher_config
from zeroflow_core.nsfp.distance_transform import DistanceTransform
from zeroflow_core.nsfp.fields import Fields, initial_parameters
from zeroflow_core.nsfp.matching import GridDistance, TreeChamfer
from zeroflow_core.nsfp.network import make_field
from zeroflow_core.nsfp.plain import Optimised
from zeroflow_core.nsfp.sampling import differing, draw
from zeroflow_core.nsfp.teacher import Teacher
from zeroflow_core.pairs import Status

PARAMETERS = 116_483


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def cloud(n: int, seed: int, spread: float = 4.0) -> Tensor:
    return (torch.rand(n, 3, generator=seeded(seed)) - 0.5) * spread


# --- networks, written out ---------------------------------------------------------------------------------


def several_fields(precision: torch.dtype) -> tuple[list[nn.Module], Fields, Tensor]:
    """Three networks, the same as one batch, and that batch's gradients."""
    fields = [make_field(seeded(seed), "torch") for seed in range(3)]
    parameters = torch.stack([initial_parameters(seed, "torch") for seed in range(3)])
    gradients = torch.zeros_like(parameters)
    return fields, Fields(parameters, gradients, 50, precision), gradients


@pytest.mark.parametrize("initialisation", ["torch", "xavier"])
def test_parameters_begin_as_those_of_the_network(initialisation):
    flat = initial_parameters(6, initialisation)
    assert flat.shape == (PARAMETERS,) and flat.dtype == torch.float32 and not flat.requires_grad
    expected = torch.nn.utils.parameters_to_vector(make_field(seeded(6), initialisation).parameters())
    assert torch.equal(flat, expected.detach())


@pytest.mark.parametrize("precision, within", [(torch.float32, 1e-5), (torch.bfloat16, 0.2)])
def test_networks_together_are_the_networks(precision, within):
    fields, together, gradients = several_fields(precision)
    points = torch.stack([cloud(50, 10 + i, 20.0) for i in range(3)])
    pull = torch.stack([cloud(50, 20 + i, 1.0) for i in range(3)])
    flow = together.forward(points).clone()
    back = together.backward(pull).clone()
    for i, field in enumerate(fields):
        at = points[i].clone().requires_grad_()
        expected = field(at)
        expected.backward(pull[i])
        slopes = torch.nn.utils.parameters_to_vector(weights.grad for weights in field.parameters())
        for found, truth in ((flow[i], expected), (back[i], at.grad), (gradients[i], slopes)):
            assert (found - truth).norm() <= within * truth.norm()


def test_networks_follow_their_parameters():
    # Both precisions, as one of them works on a copy; and no second pass remembers the first.
    for precision in (torch.float32, torch.bfloat16):
        _, together, gradients = several_fields(precision)
        points = torch.stack([cloud(50, i) for i in range(3)])
        first, _ = together.forward(points).clone(), together.backward(points)
        slopes = gradients.clone()
        together.forward(points)
        together.backward(points)
        assert torch.equal(gradients, slopes)
        together.parameters[1] *= 1.5
        second = together.forward(points)
        assert torch.equal(second[0], first[0]) and torch.equal(second[2], first[2])
        assert not torch.allclose(second[1], first[1], rtol=0.1)


def test_large_coordinates_cost_no_precision_in_bf16():
    # At 50 m bf16 steps by 0.25 m: were coordinates rounded so, neighbours a decimetre apart would have one flow.
    _, together, _ = several_fields(torch.bfloat16)
    line = torch.tensor([[50.0, 0, 0]]) + torch.linspace(0, 0.2, 50)[:, None] * torch.tensor([[1.0, 0, 0]])
    flow = together.forward(line.expand(3, 50, 3).contiguous())
    assert all(len(torch.unique(flow[i, :, 0])) > 10 for i in range(3))


# --- losses, written out -----------------------------------------------------------------------------------


@pytest.mark.parametrize("truncation", [2.0, 0.3])
def test_chamfer_of_a_draw(truncation):
    # The moving points look among the whole cloud, the drawn ones among the moving.
    clouds = [cloud(120, 1, 9.0), cloud(70, 2, 9.0)]
    moving, drawn = (torch.stack([cloud(40, seed + i, 9.0) for i in range(2)]) for seed in (3, 5))
    loss, gradient = TreeChamfer(clouds, truncation)(moving, drawn)
    assert loss.shape == (2,) and gradient.shape == (2, 40, 3) and gradient.dtype == torch.float32
    for i in range(2):
        at = moving[i].clone().requires_grad_()
        expected = one_way(at, clouds[i], truncation) + one_way(drawn[i], at, truncation)
        expected.backward()
        assert loss[i].item() == pytest.approx(expected.item(), rel=1e-5)
        torch.testing.assert_close(gradient[i], at.grad, rtol=1e-4, atol=1e-7)
    assert not torch.allclose(gradient[0], TreeChamfer(clouds, 1e9)(moving, drawn)[1][0])


def test_chamfer_at_the_truncation():
    standing = torch.zeros(1, 1, 3)
    for x, there in ((1.0, 0.0), (float(np.nextafter(np.float32(1), np.float32(0))), 2.0)):
        loss, gradient = TreeChamfer([standing[0]], 2.0)(torch.tensor([[[1.0, x, 0]]]), standing)
        assert loss.item() == pytest.approx(2 * there)
        assert gradient.any() == (there > 0)


def test_chamfer_of_a_pair_that_diverged_spoils_no_other():
    clouds, moving = [cloud(30, 1)] * 2, torch.stack([cloud(20, 2)] * 2)
    expected = TreeChamfer(clouds, 2.0)(moving, moving)
    spoilt = moving.clone()
    spoilt[0, 3, 1] = torch.nan
    loss, gradient = TreeChamfer(clouds, 2.0)(spoilt, moving)
    assert loss[0].isnan() and loss[1] == expected[0][1] and torch.equal(gradient[1], expected[1][1])


def test_grid_distance_and_its_gradient():
    clouds, others = [cloud(60, 1), cloud(30, 2)], [cloud(50, 3), cloud(90, 4)]
    moving = torch.stack([cloud(40, 5), cloud(40, 6)])
    loss, gradient = GridDistance(clouds, others)(moving, moving)
    for i in range(2):
        at = moving[i].clone().requires_grad_()
        expected = DistanceTransform(clouds[i], others[i])(at).mean()
        expected.backward()
        assert loss[i].item() == pytest.approx(expected.item(), rel=1e-5)
        torch.testing.assert_close(gradient[i], at.grad, rtol=1e-4, atol=1e-7)


# --- draws -------------------------------------------------------------------------------------------------


def test_draws_are_of_all_points_alike():
    rows = draw(50, np.empty(0, dtype=np.int64), 400, np.full(30, 0.5), np.random.default_rng(0))
    assert rows.shape == (30, 400) and rows.dtype == np.int32
    counts = np.bincount(rows.ravel(), minlength=50)
    assert len(counts) == 50 and counts.min() > 150 and counts.max() < 340
    assert len({row.tobytes() for row in rows}) == 30


@pytest.mark.parametrize("share, expected", [(0.0, 0), (0.25, 100), (0.5, 200), (1.0, 400)])
def test_the_share_from_where_sweeps_differ(share, expected):
    # 1000 rows differ, of which an even draw hits ten in ten thousand.
    special = np.arange(7000, 8000)
    rows = draw(1_000_000, special, 400, np.full(5, share), np.random.default_rng(1))
    assert all(abs(np.isin(row, special).sum() - expected) <= 3 for row in rows)
    if share:
        assert len(np.unique(rows[np.isin(rows, special)])) > 100


def test_draws_come_from_their_generator_alone():
    state = str(np.random.get_state()[1].tolist())
    one, same, other = (draw(99, np.arange(9), 50, np.full(4, 0.5), np.random.default_rng(s)) for s in (0, 0, 1))
    assert np.array_equal(one, same) and not np.array_equal(one, other)
    assert str(np.random.get_state()[1].tolist()) == state


def test_where_two_sweeps_differ():
    wall = np.stack([np.arange(0, 10, 0.1), np.zeros(100), np.zeros(100)], axis=1).astype(np.float32)
    box = (np.random.default_rng(0).uniform(0, 0.9, (60, 3)) + [3, 5, 0]).astype(np.float32)
    scene, later = np.concatenate([wall, box]), np.concatenate([wall, box + np.float32([2, 0, 0])])
    rows = differing(scene, later)
    assert len(rows) > 20 and (rows >= 100).all()
    # All of it belongs: what isn't there is a cell of 0.2 m with another point that is.
    assert np.linalg.norm(scene[100:, None] - scene[rows][None], axis=2).min(axis=1).max() < 0.2 * np.sqrt(3)
    cells = np.floor(scene[rows] / 0.2).astype(int)
    assert len(np.unique(cells, axis=0)) == len(rows) == len(np.unique(rows))


def test_where_sweeps_differ_has_a_margin():
    # The last point is 0.4 m from any of the other sweep; those within half a metre of it take part.
    line = np.stack([np.arange(0, 4, 0.25), np.zeros(16), np.zeros(16)], axis=1).astype(np.float32)
    beyond = np.concatenate([line, [[3.75, 0.4, 0]]]).astype(np.float32)
    found = {tuple(point) for point in beyond[differing(beyond, line)]}
    assert found == {(3.5, 0, 0), (3.75, 0, 0), (3.75, np.float32(0.4), 0)}
    assert len(differing(line, beyond)) == len(differing(line, line.copy())) == 0
    nearer = np.concatenate([line, [[3.75, 0.29, 0]]]).astype(np.float32)
    assert len(differing(nearer, line)) == 0


# --- the whole, against autograd ---------------------------------------------------------------------------


def small(method: str, **changes) -> TeacherConfig:
    return replace(teacher_config(method), **{"iterations": 6, "samples": 120, "learning_rate": 1e-3} | changes)


def boxes(n0: int = 120, n1: int = 120, seed: int = 3) -> tuple[Tensor, Tensor]:
    pair = two_boxes(seed, 0.4).pair
    return torch.from_numpy(pair.pc0[:n0]), torch.from_numpy(pair.pc1[:n1])


def optimise(clouds: list, config: TeacherConfig, seed: int = 0, on_iteration=None) -> list[Optimised]:
    return engine.optimise_together(clouds, config, "fp32", "cpu", seed, on_iteration)


def settling(iterations: int) -> list[float]:
    """What is left of the learning rate in each iteration: all of it, then, from half-way on, half a cosine."""
    through = [i / iterations for i in range(iterations)]
    return [1.0 if x <= 0.5 else 0.5 + 0.5 * math.cos(2 * math.pi * (x - 0.5)) for x in through]


def by_autograd(
    pc0: Tensor, pc1: Tensor, config: TeacherConfig, seed: int, initialisation: str
) -> tuple[list[float], Tensor, Tensor | None]:
    """Losses and final flows where each iteration sees all points, by autograd and torch's own Adam."""
    with_cycle = config.method == "nsfp"
    field = make_field(seeded(seed), initialisation)
    back_field, distance = deepcopy(field), DistanceTransform(pc1, pc0)
    adam, losses = torch.optim.Adam([*field.parameters(), *back_field.parameters()]), []
    for part in settling(config.iterations):
        moved = pc0 + field(pc0)
        if with_cycle:
            loss = brute_chamfer(moved, pc1, config.truncation)
            loss = loss + brute_chamfer(moved - back_field(moved), pc0, config.truncation)
        else:
            loss = distance(moved).mean()
        losses.append(loss.item())
        for group in adam.param_groups:
            group["lr"] = config.learning_rate * part
        adam.zero_grad()
        loss.backward()
        adam.step()
    with torch.no_grad():
        return losses, field(pc0), -back_field(pc1) if with_cycle else None


@pytest.fixture
def all_points_drawn(monkeypatch):
    def draw_all(points, rows, samples, shares, random):
        assert points == samples
        return np.tile(np.arange(points, dtype=np.int32), (len(shares), 1))

    monkeypatch.setattr(engine, "draw", draw_all)


@pytest.mark.parametrize("method", METHODS)
def test_with_all_points_drawn_it_is_the_plain_optimisation(method, all_points_drawn):
    pc0, pc1 = boxes()
    config, seen = small(method), []
    (done,) = optimise([(pc0, pc1)], config, 2, lambda i, loss: seen.append((i, loss)))
    losses, forward, backward = by_autograd(pc0, pc1, config, 2, "torch" if method == "nsfp" else "xavier")
    assert [i for i, _ in seen] == [1, 2, 3, 4, 5, 6]
    np.testing.assert_allclose([loss for _, loss in seen], losses, rtol=1e-4)
    np.testing.assert_allclose(done.forward, forward, atol=2e-4)
    if method == "nsfp":
        np.testing.assert_allclose(done.backward, backward, atol=2e-4)
    else:
        assert done.backward is None
    assert (done.iterations, done.points) == (6, 120)
    assert done.loss == pytest.approx(losses[-1], rel=1e-4)


@pytest.mark.parametrize("truncation", [2.0, 0.01])
def test_and_so_it_is_with_steep_networks(truncation, all_points_drawn, monkeypatch):
    # As they begin, NSFP's networks say nearly the same everywhere, and what one pulls at the other's points is small.
    monkeypatch.setattr(engine, "initial_parameters", lambda seed, _: initial_parameters(seed, "xavier"))
    pc0, pc1 = cloud(120, 1, 3.0), cloud(120, 2, 3.0) + 0.3
    config, seen = small("nsfp", truncation=truncation), []
    (done,) = optimise([(pc0, pc1)], config, 0, lambda _, loss: seen.append(loss))
    losses, forward, backward = by_autograd(pc0, pc1, config, 0, "xavier")
    np.testing.assert_allclose(seen, losses, rtol=3e-4)
    np.testing.assert_allclose(done.forward, forward, atol=1e-3)
    np.testing.assert_allclose(done.backward, backward, atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_flow_is_that_of_the_points_as_they_came(method):
    # More points than samples, other numbers of both, and each point's flow a function of where it is.
    pc0, pc1 = boxes(170, 150)
    (done,) = optimise([(pc0, pc1)], small(method))
    assert done.forward.shape == (170, 3) and done.forward.dtype == torch.float32
    turned = torch.randperm(170, generator=seeded(1))
    for part in ([0], range(120), range(50, 170)):
        again = torch.cat([pc0, pc0[list(part)]])
        (more,) = optimise([(again, pc1)], small(method, iterations=1))
        np.testing.assert_allclose(more.forward[170:], more.forward[list(part)], atol=1e-5)
    (one,) = optimise([(pc0[turned], pc1)], small(method, iterations=1, learning_rate=1e-9))
    (other,) = optimise([(pc0, pc1)], small(method, iterations=1, learning_rate=1e-9))
    np.testing.assert_allclose(one.forward, other.forward[turned], atol=1e-5)
    expected = make_field(seeded(0), "torch" if method == "nsfp" else "xavier")
    torch.testing.assert_close(other.forward, expected(pc0).detach(), rtol=1e-4, atol=1e-5)
    if method == "nsfp":
        assert done.backward.shape == (150, 3)
        torch.testing.assert_close(other.backward, -expected(pc1).detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_a_pair_in_a_batch_is_as_alone(method):
    # As on a GPU: clouds of different sizes are padded, and no padding may take part.
    pairs = [boxes(170, 150, 1), boxes(60, 180, 2), boxes(180, 3, 3), boxes(1, 1, 4)]
    together = optimise(pairs, small(method, iterations=4))
    for pair, found in zip(pairs, together, strict=True):
        (alone,) = optimise([pair], small(method, iterations=4))
        assert found.forward.shape == pair[0].shape
        np.testing.assert_allclose(found.forward, alone.forward, atol=2e-3)
        assert found.loss == pytest.approx(alone.loss, rel=0.01)
        if method == "nsfp":
            np.testing.assert_allclose(found.backward, alone.backward, atol=2e-3)


@pytest.mark.parametrize("iterations", [1, 7, 300])
def test_an_optimisation_settles(iterations):
    found = engine.settling(iterations)
    np.testing.assert_allclose(found, settling(iterations), atol=1e-12)
    assert (np.diff(found) <= 0).all() and found[0] == 1
    if iterations == 300:
        assert found[150] == 1 and found[225] == pytest.approx(0.5) and found[-1] < 2e-4


def test_what_is_drawn(monkeypatch):
    """Both clouds' differing points, at first by the share of the configuration and in the end no more than others."""
    calls, real = [], engine.draw

    def spy(points, rows, samples, shares, random):
        calls.append((points, rows, samples, shares, real(points, rows, samples, shares, random)))
        return calls[-1][-1]

    monkeypatch.setattr(engine, "draw", spy)
    wall = cloud(100, 0, 3.0)
    more = torch.cat([wall, cloud(40, 1, 1.0) + torch.tensor([6.0, 0, 0])])
    config = small("nsfp", iterations=10, differing=0.6)
    for pair, expected in (((more, wall), (True, False)), ((wall, more), (False, True))):
        calls.clear()
        optimise([pair], config)
        assert [len(rows) > 5 for _, rows, *_ in calls] == list(expected)
        assert [points for points, *_ in calls] == [len(pc) for pc in pair]
        for _, _, samples, shares, _ in calls:
            assert samples == 120
            np.testing.assert_allclose(shares, 0.6 * np.array(settling(10)), atol=1e-12)
    calls.clear()
    for seed in (0, 0, 1):
        optimise([(more, wall)], config, seed)
    drawn = [call[-1] for call in calls]
    assert all(np.array_equal(drawn[i], drawn[i + 2]) for i in range(2))
    assert not any(np.array_equal(drawn[i], drawn[i + 4]) for i in range(2))


@pytest.mark.parametrize("method", METHODS)
def test_the_last_flow_hardly_depends_on_when_one_stops(method):
    # The rate has gone to nothing: the loss at the end is no worse than the lowest before.
    losses = []
    (done,) = optimise([boxes()], small(method, iterations=40, learning_rate=0.008), 0, lambda _, x: losses.append(x))
    assert len(losses) == done.iterations == 40
    assert done.loss == pytest.approx(np.mean(losses[-4:]), rel=1e-5)
    assert done.loss < 1.2 * min(losses) < losses[0]


def test_the_seed_decides_draws_and_weights():
    config = small("nsfp", iterations=2)
    first = [[], [], []]
    for losses, seed in zip(first, (0, 0, 1), strict=True):
        optimise([boxes()], config, seed, lambda _, loss, losses=losses: losses.append(loss))
    assert first[0] == first[1] and first[0][0] != first[2][0]


# --- memory ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_memory_grows_with_what_takes_it(method):
    config = teacher_config(method)
    usual = engine.bytes_of_pair(config)
    # The least there must be: both networks' parameters, moments and gradients, and the activations.
    networks = 2 if method == "nsfp" else 1
    assert usual > networks * (4 * 4 * PARAMETERS + 2 * 9 * 128 * config.samples)
    assert engine.bytes_of_pair(replace(config, samples=2 * config.samples)) > usual
    assert engine.bytes_of_pair(config, 200_000) > usual
    assert engine.pairs_that_fit(config, "cpu") == 1


NO_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory"),
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"),
]


@pytest.mark.parametrize("error", NO_MEMORY, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("limit", [3, 2, 1])
def test_out_of_memory_halves_the_batch_and_goes_on(error, limit, monkeypatch):
    pairs = [two_boxes(seed, 0.3).pair for seed in range(7)]
    config = small("nsfp", iterations=2)
    expected = [Teacher("nsfp", config, device="cpu").label_one(pair) for pair in pairs]
    real, sizes = Teacher._optimise_at_once, []

    def small_memory(self, clouds, on_iteration):
        sizes.append(len(clouds))
        if len(clouds) > limit:
            raise error
        return real(self, clouds, on_iteration)

    monkeypatch.setattr(Teacher, "_optimise_at_once", small_memory)
    labels = list(Teacher("nsfp", config, device="cpu", pairs_in_flight=7).label(pairs * 2))
    for label, truth in zip(labels, expected * 2, strict=True):
        np.testing.assert_array_equal(label.flow.vectors, truth.flow.vectors)
    # What is too much is not tried again, neither is less tried than need be.
    assert sum(size for size in sizes if size <= limit) == 14
    assert sorted(size for size in sizes if size > limit) == {3: [4, 7], 2: [3, 4, 7], 1: [2, 2, 2, 3, 4, 7]}[limit]


def test_a_pair_too_large_for_memory_gets_a_label_and_the_next_too(monkeypatch):
    pairs = [two_boxes(seed, share).pair for seed, share in ((0, 0.3), (1, 1.0), (2, 0.3))]
    real = Teacher._optimise_at_once

    def small_memory(self, clouds, on_iteration):
        if any(len(pc0) > 300 for pc0, _ in clouds):
            raise torch.OutOfMemoryError("no memory left")
        return real(self, clouds, on_iteration)

    monkeypatch.setattr(Teacher, "_optimise_at_once", small_memory)
    teacher = Teacher("nsfp", small("nsfp", iterations=2), device="cpu", pairs_in_flight=3)
    labels = list(teacher.label(pairs))
    assert [label.problem is None for label in labels] == [True, False, True]
    assert [label.failed for label in labels] == [False, True, False]
    assert "memory" in labels[1].problem and np.isnan(labels[1].loss)
    assert (labels[1].flow.status == Status.NO_ESTIMATE).all() and np.isnan(labels[1].flow.vectors).all()


def test_an_error_that_is_none_of_memory_is_not_hidden(monkeypatch):
    def broken(self, clouds, on_iteration):
        raise RuntimeError("the sizes of tensors must match")

    monkeypatch.setattr(Teacher, "_optimise_at_once", broken)
    with pytest.raises(RuntimeError, match="sizes"):
        Teacher("nsfp", small("nsfp"), device="cpu").label_one(two_boxes(share=0.3).pair)
