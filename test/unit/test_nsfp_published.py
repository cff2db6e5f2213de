"""NSFP as published: network, stopping and course of an optimisation, against a plain one of our own."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from nsfp_cases import Course, one_thread, published_nsfp, two_boxes  # noqa: F401
from torch import Tensor, nn

from zeroflow_core.nsfp.config import TeacherConfig, teacher_config
from zeroflow_core.nsfp.network import make_field
from zeroflow_core.nsfp.plain import EarlyStopping, Optimised, optimise_nsfp

PUBLISHED = teacher_config("nsfp", "published")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- network -----------------------------------------------------------------------------------------------


def linear_layers(seed: int, initialisation: str) -> list[nn.Linear]:
    return [layer for layer in make_field(seeded(seed), initialisation) if isinstance(layer, nn.Linear)]


@pytest.mark.parametrize("initialisation", ["torch", "xavier"])
def test_eight_hidden_layers_of_128_with_relu(initialisation):
    field = make_field(seeded(), initialisation)
    assert [type(layer) for layer in field] == [nn.Linear, nn.ReLU] * 8 + [nn.Linear]
    shapes = [tuple(layer.weight.shape) for layer in field if isinstance(layer, nn.Linear)]
    assert shapes == [(128, 3)] + [(128, 128)] * 7 + [(3, 128)]
    assert sum(weights.numel() for weights in field.parameters()) == 116_483
    assert all(weights.requires_grad and weights.dtype == torch.float32 for weights in field.parameters())
    assert field(torch.zeros(5, 3)).shape == (5, 3)


def is_uniform(values: Tensor, limit: float) -> bool:
    """Whether many values fill −limit … limit evenly, and none lies beyond."""
    sample = np.sort(values.detach().double().numpy().ravel()) / limit
    if np.abs(sample).max() > 1 + 1e-6:
        return False
    ranks = (np.arange(len(sample)) + 0.5) / len(sample)
    return bool(np.abs((sample + 1) / 2 - ranks).max() < 2.0 / np.sqrt(len(sample)))


def test_torch_initialisation_is_that_of_linear_layers():
    for seed in range(3):
        for layer in linear_layers(seed, "torch"):
            limit = 1 / math.sqrt(layer.in_features)
            assert is_uniform(layer.weight, limit)
            assert layer.bias.detach().abs().max() <= limit
        biases = torch.cat([layer.bias * math.sqrt(layer.in_features) for layer in linear_layers(seed, "torch")])
        assert is_uniform(biases, 1.0)


def test_xavier_initialisation_is_uniform_with_zero_biases():
    for seed in range(3):
        for layer in linear_layers(seed, "xavier"):
            assert is_uniform(layer.weight, math.sqrt(6 / (layer.in_features + layer.out_features)))
            assert not layer.bias.any()


@pytest.mark.parametrize("initialisation", ["torch", "xavier"])
def test_a_network_comes_from_its_generator_alone(initialisation):
    state = torch.random.get_rng_state()
    one, same = (list(make_field(seeded(7), initialisation).parameters()) for _ in range(2))
    other = list(make_field(seeded(8), initialisation).parameters())
    generator = seeded(7)
    make_field(generator, initialisation)
    second = list(make_field(generator, initialisation).parameters())
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(one[::2], other[::2], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(one[::2], second[::2], strict=True))
    assert torch.equal(torch.random.get_rng_state(), state)


# --- early stopping ----------------------------------------------------------------------------------------

NAN, INF = math.nan, math.inf

# patience, min_delta, losses, the iteration (from 1) after which it stops, or None
STOPS = {
    "a standing loss, after patience more": (3, 0.0, [5, 5, 5, 5, 5, 5], 4),
    "the first loss is no wait": (1, 0.0, [5, 5], 2),
    "a falling loss, never": (2, 0.0, [9, 8, 7, 6, 5, 4, 3], None),
    "exactly min_delta is not enough": (2, 0.25, [1, 0.75, 0.75], 3),
    "more than min_delta is": (2, 0.25, [1, 0.7421875, 0.7421875, 0.7421875], 4),
    "small steps add up": (3, 0.25, [1, 0.875, 0.75, 0.625, 0.625, 0.625, 0.625], 7),
    "small steps too small to add up": (3, 0.5, [1, 0.875, 0.75, 0.625, 0.5], 4),
    "the best is what it was when it reset": (2, 0.25, [1, 0.875, 0.7, 0.6, 0.5], 5),
    "a worse loss waits": (2, 0.0, [1, 2, 3], 3),
    "a worse loss is not what the next is held against": (3, 0.0, [1, 9, 8, 7], 4),
    "a better one starts the wait again": (3, 0.0, [5, 6, 6, 4, 6, 6, 6], 7),
    "the wait starts at nought, not where it was": (2, 0.0, [5, 6, 4, 6, 3, 6, 2], None),
    "not a number, at once": (100, 0.0, [5, 4, NAN], 3),
    "not a number, from the start": (100, 0.0, [NAN], 1),
    "infinity waits": (2, 0.0, [5, INF, INF], 3),
    "published steps": (2, 5e-5, [0.5, 0.49996, 0.49994, 0.4999, 0.4999], 5),
}


@pytest.mark.parametrize("patience, min_delta, losses, at", STOPS.values(), ids=STOPS)
def test_when_to_stop(patience, min_delta, losses, at):
    stopping = EarlyStopping(patience, min_delta)
    stops = [stopping.stop(loss) for loss in losses]
    assert all(type(stop) is bool for stop in stops)
    first = stops.index(True) + 1 if True in stops else None
    assert first == at


def test_two_optimisations_wait_each_on_its_own():
    one, other = EarlyStopping(2, 0.0), EarlyStopping(2, 0.0)
    assert not one.stop(1.0) and not one.stop(1.0) and one.stop(1.0)
    assert not other.stop(1.0)


# --- course of an optimisation -----------------------------------------------------------------------------
#
# In double precision: Adam makes a whole step of a gradient that is nothing but rounding, and in single precision two
# correct optimisations part within ten iterations.


def clouds(seed: int = 3, share: float = 0.4) -> tuple[Tensor, Tensor]:
    pair = two_boxes(seed, share).pair
    return torch.from_numpy(pair.pc0).double(), torch.from_numpy(pair.pc1).double()


def precise_field(generator: torch.Generator, initialisation: str) -> nn.Module:
    return make_field(generator, initialisation).double()


@pytest.fixture
def both(monkeypatch):
    """Of two clouds: the optimisation, its losses, and our own from the same weights."""
    monkeypatch.setattr("zeroflow_core.nsfp.plain.make_field", precise_field)

    def run(pc0: Tensor, pc1: Tensor, config: TeacherConfig, seed: int = 0) -> tuple[Optimised, list[float], Course]:
        seen: list[tuple[int, float]] = []
        done = optimise_nsfp(pc0, pc1, config, seeded(seed), lambda i, loss: seen.append((i, loss)))
        names = ("iterations", "patience", "min_delta", "learning_rate", "truncation")
        options = {name: getattr(config, name) for name in names}
        expected = published_nsfp(pc0, pc1, precise_field(seeded(seed), "torch"), **options)
        assert [i for i, _ in seen] == list(range(1, len(seen) + 1))
        return done, [loss for _, loss in seen], expected

    return run


def assert_same(done: Optimised, losses: list[float], expected: Course) -> None:
    assert done.iterations == len(losses) == len(expected.losses)
    np.testing.assert_allclose(losses, expected.losses, rtol=1e-6)
    np.testing.assert_allclose(done.forward, expected.forward, atol=1e-6)
    np.testing.assert_allclose(done.backward, expected.backward, atol=1e-6)
    assert done.loss == pytest.approx(expected.losses[expected.best], rel=1e-6)


def test_same_losses_and_flow_as_a_plain_optimisation(both):
    done, losses, expected = both(*clouds(share=0.6), replace(PUBLISHED, iterations=40))
    assert_same(done, losses, expected)
    assert losses[-1] < 0.7 * losses[0]


def test_same_in_single_precision_as_long_as_rounding_matters_little():
    pc0, pc1 = (cloud.float() for cloud in clouds(share=0.6))
    losses: list[float] = []
    done = optimise_nsfp(pc0, pc1, replace(PUBLISHED, iterations=5), seeded(), lambda _, loss: losses.append(loss))
    expected = published_nsfp(pc0, pc1, make_field(seeded(), "torch"), 5)
    np.testing.assert_allclose(losses, expected.losses, rtol=0.01)
    np.testing.assert_allclose(done.forward, expected.forward, atol=0.01)
    assert done.forward.shape == pc0.shape and done.backward.shape == pc1.shape
    assert done.forward.dtype == done.backward.dtype == torch.float32
    assert not done.forward.requires_grad and not done.backward.requires_grad


@pytest.mark.parametrize("truncation, learning_rate", [(0.4, 0.008), (0.003, 0.008), (2.0, 0.002)])
def test_truncation_and_learning_rate_are_those_of_the_configuration(both, truncation, learning_rate):
    config = replace(PUBLISHED, iterations=12, truncation=truncation, learning_rate=learning_rate)
    assert_same(*both(*clouds(), config, seed=1))


def test_clouds_of_very_different_sizes(both):
    pc0, pc1 = clouds()
    assert_same(*both(pc0[:40], pc1, replace(PUBLISHED, iterations=12)))
    assert_same(*both(pc0, pc1[:3], replace(PUBLISHED, iterations=12)))


def test_the_first_iteration_shows_the_initial_weights_in_both_networks():
    pc0, pc1 = (cloud.float() for cloud in clouds())
    done = optimise_nsfp(pc0, pc1, replace(PUBLISHED, iterations=1), seeded(5))
    field = make_field(seeded(5), "torch")
    assert done.iterations == 1
    torch.testing.assert_close(done.forward, field(pc0).detach(), rtol=0, atol=1e-6)
    torch.testing.assert_close(done.backward, -field(pc1).detach(), rtol=0, atol=1e-6)


def test_the_best_flow_is_that_of_the_lowest_forward_loss(both):
    done, losses, expected = both(*clouds(), replace(PUBLISHED, iterations=40), seed=4)
    others = int(np.argmin(expected.losses)), len(losses) - 1
    assert expected.best not in others, "these iterations tell nothing"
    for other in others:
        assert (expected.forward - expected.forward_flows[other]).abs().max() > 0.01
        assert (expected.backward - expected.backward_flows[other]).abs().max() > 0.01
    assert_same(done, losses, expected)


def test_of_equal_forward_losses_the_last_is_best(both):
    # Out of each other's reach, every forward loss is 0, while the cycle still moves both networks.
    pc0, pc1 = clouds()
    done, losses, expected = both(pc0, pc1 + 30, replace(PUBLISHED, iterations=6))
    assert expected.forward_losses == [0.0] * 6 and expected.best == 5
    assert (expected.forward - expected.forward_flows[4]).abs().max() > 0.01
    assert_same(done, losses, expected)


def test_the_iteration_that_stops_counts_too(both):
    # No loss is ever better by a million: it stops after patience + 1, and the last flow is the best so far.
    done, losses, expected = both(*clouds(share=0.6), replace(PUBLISHED, patience=9, min_delta=1e6))
    assert done.iterations == 10
    assert expected.best == 9
    assert_same(done, losses, expected)


@pytest.mark.parametrize("patience, min_delta", [(5, 0.01), (12, 0.04), (4, 0.0)])
def test_stops_when_our_own_does(both, patience, min_delta):
    config = replace(PUBLISHED, iterations=60, patience=patience, min_delta=min_delta)
    done, losses, expected = both(*clouds(), config, seed=1)
    assert patience + 1 < done.iterations < 60
    assert_same(done, losses, expected)


def test_no_more_iterations_than_allowed():
    pc0, pc1 = (cloud.float() for cloud in clouds())
    seen: list[int] = []
    done = optimise_nsfp(pc0, pc1, replace(PUBLISHED, iterations=4), seeded(), lambda i, _: seen.append(i))
    assert done.iterations == 4 and seen == [1, 2, 3, 4]


def test_an_optimisation_that_diverges_stops():
    pc0, pc1 = (cloud.float() for cloud in clouds())
    losses: list[float] = []
    config = replace(PUBLISHED, iterations=30, learning_rate=1e6)
    done = optimise_nsfp(pc0, pc1, config, seeded(), lambda _, loss: losses.append(loss))
    assert done.iterations == len(losses) < 30
    assert math.isnan(losses[-1]) and not any(math.isnan(loss) for loss in losses[:-1])


def test_an_optimisation_is_a_function_of_its_generator():
    pc0, pc1 = (cloud.float() for cloud in clouds())
    config = replace(PUBLISHED, iterations=5)
    state = torch.random.get_rng_state()
    before = pc0.clone(), pc1.clone()
    one, same, other = (optimise_nsfp(pc0, pc1, config, seeded(seed)) for seed in (0, 0, 1))
    assert torch.equal(one.forward, same.forward) and torch.equal(one.backward, same.backward)
    assert not torch.equal(one.forward, other.forward)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(pc0, before[0]) and torch.equal(pc1, before[1])
