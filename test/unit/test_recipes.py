"""Recipes: ZeroFlow's numbers, ours, schedules by hand, and what can't be."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from zeroflow_core.distillation.training.augment import NO_AUGMENTATION, Augmentation
from zeroflow_core.distillation.training.recipes import RECIPES, recipe
from zeroflow_core.errors import ZeroFlowError


def test_the_published_recipe_is_zeroflow_s():
    """Adam at a constant 2e-6, 50 epochs, 64 pairs a step summed, fp32, nothing varied, clipped or averaged."""
    published = recipe("published")
    assert (published.learning_rate, published.schedule, published.warm_up) == (2e-6, "constant", 0.0)
    assert (published.epochs, published.batch, published.batch_sum) == (50, 64, True)
    assert (published.loss, published.bf16, published.clip, published.ema) == ("released", False, None, None)
    assert published.augmentation == NO_AUGMENTATION
    assert (published.window, published.visits, published.reverse) == (1.0, 1, False)
    assert (published.decoder_rate, published.decoder_norms, published.patience) == (1.0, False, None)
    assert all(published.rate(k / 7) == 1.0 for k in range(8))


def test_78_750_steps_are_its_epochs_over_argoverse():
    pairs = 700 * 144
    assert recipe("published").epochs * (pairs // recipe("published").batch) == 78_750


def test_the_fast_recipe_has_what_the_published_one_lacks():
    fast = recipe("fast")
    assert fast.schedule == "cosine" and 0 < fast.warm_up < 0.5
    assert fast.bf16 and fast.clip and fast.ema and fast.reverse and fast.patience
    assert fast.loss == "speed-scaled" and fast.augmentation == Augmentation()
    assert fast.epochs < recipe("published").epochs
    assert set(RECIPES) == {"published", "fast"}


def test_warm_up_and_cosine_by_hand():
    one = recipe("fast", warm_up=0.2)
    assert one.rate(0.0) == 0.0
    assert one.rate(0.05) == pytest.approx(0.25)
    assert one.rate(0.1) == pytest.approx(0.5)
    assert one.rate(0.2) == pytest.approx(1.0)
    assert one.rate(0.6) == pytest.approx(0.5)
    assert one.rate(0.4) == pytest.approx(0.5 + 0.5 * math.cos(math.pi / 4))
    assert one.rate(1.0) == pytest.approx(0.0, abs=1e-12)
    rates = [one.rate(k / 100) for k in range(101)]
    assert rates[:21] == sorted(rates[:21]) and rates[20:] == sorted(rates[20:], reverse=True)
    assert all(0 <= rate <= 1 for rate in rates)


def test_schedules_at_their_ends():
    assert recipe("published", warm_up=0.5).rate(0.25) == 0.5
    assert recipe("published", warm_up=0.5).rate(0.75) == 1.0
    assert recipe("fast", warm_up=0.0).rate(0.0) == 1.0
    assert recipe("fast", warm_up=1.0).rate(0.5) == 0.5
    assert recipe("fast", warm_up=1.0).rate(1.0) == 1.0


def _file(folder: Path, content: object, name: str = "mine.json") -> str:
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return str(folder / name)


def test_a_recipe_comes_back_from_its_plain_data(tmp_path):
    for name in RECIPES:
        assert recipe(_file(tmp_path, {"from": name, **recipe(name).to_dict()})) == recipe(name)


def test_a_file_says_what_it_changes(tmp_path):
    path = _file(tmp_path, {"from": "published", "batch": 8, "augmentation": {"turn": 10.0}})
    assert recipe(path) == recipe(
        "published", name="mine", batch=8, augmentation=replace(NO_AUGMENTATION, turn=10.0)
    )
    assert recipe(_file(tmp_path, {"augmentation": {"mirror": 0.0}})) == recipe(
        "fast", name="mine", augmentation=Augmentation(mirror=0.0)
    )
    assert recipe(path, batch=4).batch == 4, "what is asked for by the caller wins"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "mine.json is no JSON object"),
        ("[1, 2]", "mine.json is no JSON object"),
        ({"from": "slow"}, "slow"),
        ({"learnrate": 1.0}, "no 'learnrate'"),
        ({"augmentation": {"tilt": 1.0}}, "tilt"),
        ({"epochs": "many"}, "epochs"),
    ],
)
def test_a_file_that_is_no_recipe(tmp_path, content, words):
    with pytest.raises(ZeroFlowError, match=words) as caught:
        recipe(_file(tmp_path, content))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ZeroFlowError, match="cannot read the recipe .*gone.json: No such file"):
        recipe(str(tmp_path / "gone.json"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"loss": "huber"}, "huber.*unscaled, speed-scaled, released"),
        ({"schedule": "step"}, "step.*constant, cosine"),
        ({"epochs": 0}, "epochs must be a whole number from 1"),
        ({"batch": -1}, "batch must be a whole number from 1"),
        ({"visits": 0}, "visits must be a whole number from 1"),
        ({"learning_rate": 0.0}, "learning_rate must be a number from 1e-12"),
        ({"learning_rate": float("nan")}, "learning_rate must be a number from 1e-12"),
        ({"decoder_rate": -0.1}, "decoder_rate"),
        ({"patience": 0}, "patience must be a whole number from 1"),
        ({"clip": 0.0}, "clip must be a number from 1e-09"),
        ({"warm_up": 1.5}, "warm_up must be a number from 0 to 1, not 1.5"),
        ({"around_motion": -0.1}, "around_motion must be a number from 0 to 1"),
        ({"window": 0.0}, "window"),
        ({"window": 1.1}, "window"),
        ({"ema": 1.0}, "ema"),
        ({"ema": 0.0}, "ema"),
        ({"learnrate": 1.0}, "no 'learnrate'; it has: .*learning_rate"),
    ],
)
def test_what_can_t_be_is_told_in_a_sentence(changes, words):
    with pytest.raises(ZeroFlowError, match=words) as caught:
        recipe("fast", **changes)
    assert "\n" not in str(caught.value)


def test_an_unknown_recipe_names_those_there_are():
    with pytest.raises(ZeroFlowError, match="slow.*published, fast"):
        recipe("slow")
