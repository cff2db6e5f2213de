"""What a student is told it did wrong: losses by hand, and the points and labels they compare."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from training_cases import TINY, quick

from zeroflow_core.distillation.training.losses import point_weights, weighted_epe
from zeroflow_core.distillation.training.scene_flow import FlowLearner, Item, SceneFlow, decoder_weights, draw_evenly

SPEEDS = [0.0, 0.4, 0.5, 0.7, 1.0, 60.0]  # m/s


def _labels(dt: float) -> torch.Tensor:
    """Points that go at SPEEDS, in different directions."""
    return torch.tensor([[0.6 * s * dt, -0.8 * s * dt, 0.0] for s in SPEEDS])


@pytest.mark.parametrize("dt", [0.1, -0.1, 0.05])
def test_weights_by_hand(dt):
    label = _labels(dt)
    assert point_weights("unscaled", label, dt).tolist() == [1.0] * 6
    assert point_weights("released", label, dt).tolist() == pytest.approx([0.1] * 6)
    scaled = point_weights("speed-scaled", label, dt).tolist()
    assert scaled == pytest.approx([0.1, 0.1, 0.1, 0.46, 1.0, 1.0], abs=1e-5)
    scaled = point_weights("speed-scaled", label, dt, still=0.6).tolist()
    assert scaled == pytest.approx([0.6, 0.6, 0.6, 0.6, 1.0, 1.0], abs=1e-5)
    emphatic = point_weights("speed-scaled", label, dt, still=3.0).tolist()
    assert emphatic == pytest.approx([3.0, 3.0, 2.8, 2.08, 1.0, 1.0], abs=1e-5), "what stands may count more"


def test_released_is_what_the_published_code_comes_to():
    """Its element-wise min(0.1, max(1.8 s − 0.8, 1)), with the bounds the wrong way round."""
    label = _labels(0.1)
    speed = label.norm(dim=1) / 0.1
    published = torch.minimum(torch.tensor(0.1), torch.maximum(1.8 * speed - 0.8, torch.tensor(1.0)))
    torch.testing.assert_close(point_weights("released", label, 0.1), published)


def test_the_mean_is_over_points_and_nothing_is_zero():
    flow, label = torch.tensor([[1.0, 2.0, 2.0], [0.0, 0.0, 0.0]]), torch.tensor([[0.0, 0.0, 0.0], [0.0, 3.0, 4.0]])
    assert weighted_epe(flow, label, torch.ones(2)).item() == pytest.approx((3 + 5) / 2)
    assert weighted_epe(flow, label, torch.tensor([0.5, 2.0])).item() == pytest.approx((1.5 + 10) / 2)
    empty = torch.zeros(0, 3, requires_grad=True)
    nothing = weighted_epe(empty * 2, torch.zeros(0, 3), torch.zeros(0))
    nothing.backward()
    assert nothing.item() == 0.0


def test_a_perfect_answer_has_a_gradient_without_nan():
    flow = torch.zeros(4, 3, requires_grad=True)
    weighted_epe(flow, torch.zeros(4, 3), torch.ones(4)).backward()
    assert torch.isfinite(flow.grad).all()


def _task(**changes) -> SimpleNamespace:
    return SimpleNamespace(recipe=quick(**changes))


def test_the_loss_joins_answers_with_labels_by_index():
    """The network answers for rows 4, 1 and 3 alone; row 3 has no label."""
    label = torch.full((5, 3), 100.0)
    label[4], label[1], label[3] = torch.tensor([0.0, 3.0, 0.0]), torch.tensor([0.0, 0.0, 1.0]), torch.nan
    item = Item(torch.zeros(5, 3), torch.zeros(5, 3), label, 0.1, None)
    flow = torch.tensor([[4.0, 0.0, 0.0], [0.0, 0.0, 0.0], [7.0, 7.0, 7.0]])
    answers = [(flow, torch.tensor([4, 1, 3]))]
    assert SceneFlow.loss(_task(loss="unscaled"), answers, [item], 0.0).item() == pytest.approx((5 + 1) / 2)
    assert SceneFlow.loss(_task(loss="released"), answers, [item], 0.0).item() == pytest.approx(0.1 * (5 + 1) / 2)


def test_the_loss_of_a_part_is_the_sum_of_its_samples():
    def item(value: float) -> Item:
        return Item(torch.zeros(1, 3), torch.zeros(1, 3), torch.tensor([[value, 0.0, 0.0]]), 0.1, None)

    answers = [(torch.zeros(1, 3), torch.tensor([0]))] * 3
    parts = [item(2.0), item(0.5), item(float("nan"))]
    assert SceneFlow.loss(_task(loss="unscaled"), answers, parts, 0.0).item() == pytest.approx(2.5)


@pytest.mark.parametrize(("done", "weight"), [(0.0, 0.2), (0.5, 0.5), (1.0, 0.8)])
def test_the_weight_of_what_stands_goes_along_a_straight_line(done, weight):
    item = Item(torch.zeros(1, 3), torch.zeros(1, 3), torch.zeros(1, 3), 0.1, None)
    answers = [(torch.tensor([[0.0, 1.0, 0.0]]), torch.tensor([0]))]
    task = _task(loss="speed-scaled", still_weight=(0.2, 0.8))
    assert SceneFlow.loss(task, answers, [item], done).item() == pytest.approx(weight)


def test_points_outside_the_grid_do_not_shift_labels():
    """A whole pass: rows of other points before, between and behind change nothing."""
    torch.manual_seed(0)
    learner = FlowLearner(TINY, bf16=False).eval()
    rng = torch.Generator().manual_seed(1)
    pc0, pc1, label = (torch.rand(60, 3, generator=rng) * 10 - 5 for _ in range(3))
    pc0[:, 2], pc1[:, 2] = 0.3, 0.3
    strange = torch.tensor([[9.0, 0, 0], [torch.nan, 0, 0], [0, -30.0, 0], [0, 0, 5.0], [torch.inf, 0, 0]])
    rows = torch.randperm(65, generator=rng)
    more0, more1 = torch.cat([pc0, strange])[rows], torch.cat([strange, pc1])
    more_label = torch.cat([label, torch.full((5, 3), 50.0)])[rows]
    task, losses = _task(loss="unscaled"), []
    for clouds in ((pc0, pc1, label), (more0, more1, more_label)):
        item = Item(*clouds, 0.1, None)
        with torch.no_grad():
            losses.append(SceneFlow.loss(task, learner([item]), [item], 0.0).item())
    assert losses[1] == pytest.approx(losses[0], abs=1e-5) and losses[0] > 1


@pytest.mark.parametrize("bf16", [False, True])
def test_over_the_whole_grid_a_learner_is_the_student(bf16):
    torch.manual_seed(0)
    learner = FlowLearner(TINY, bf16).eval()
    draw_evenly(decoder_weights(learner.model))  # else hardly anything of the second cloud comes through
    rng = torch.Generator().manual_seed(1)
    clouds = [[torch.rand(50, 3, generator=rng) * 6 - 3 for _ in range(3)] for _ in range(2)]
    items = [Item(pc0, pc1, torch.zeros(50, 3), 0.1, None) for pc0, pc1 in zip(*clouds, strict=True)]
    with torch.no_grad():
        answers = learner([*items, items[0]])
        expected = learner.model(*clouds, bf16=bf16)
        swapped = learner.model(*clouds[::-1], bf16=bf16)
    for (flow, index), (there, rows), (other, _) in zip(answers, expected, swapped, strict=False):
        torch.testing.assert_close(flow, there, atol=1e-2 if bf16 else 1e-5, rtol=0)
        assert torch.equal(index, rows) and (flow - other).abs().max() > 0.05
    torch.testing.assert_close(answers[3], answers[0], atol=1e-2 if bf16 else 1e-5, rtol=0)


def test_a_learner_has_the_published_keys():
    keys = FlowLearner(TINY, bf16=False).state_dict().keys()
    assert "model.embedder.feature_net.pfn_layers.0.0.weight" in keys and "model.head.decoder.2.bias" in keys
    assert all(key.startswith("model.") for key in keys)


def test_the_decoder_s_norms_stay():
    learner = FlowLearner(TINY, bf16=False)
    weights = decoder_weights(learner.model)
    assert len(weights) == 4 * len(TINY.blocks) + 1
    torch.manual_seed(0)
    draw_evenly(weights)
    gains = [weight.pow(2).sum(dim=(1, 2, 3)).mean().item() for weight in weights]
    assert gains == pytest.approx([1.0] * len(weights), rel=0.5)
    norms = [weight.norm().item() for weight in weights]
    task = _task(decoder_norms=True)
    task._decoder, task._norms = weights, [torch.tensor(norm) for norm in norms]
    with torch.no_grad():
        for weight in weights:
            weight.mul_(3).add_(0.01)
    SceneFlow.after_step(task)
    assert [weight.norm().item() for weight in weights] == pytest.approx(norms, rel=1e-5)
    task.recipe = quick(decoder_norms=False)
    with torch.no_grad():
        weights[0].mul_(2)
    SceneFlow.after_step(task)
    assert weights[0].norm().item() == pytest.approx(2 * norms[0], rel=1e-5)
