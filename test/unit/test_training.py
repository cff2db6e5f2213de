"""Training from labels to a student: what comes out, what is learned, resuming, and what goes wrong."""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from training_cases import STEP, TINY, make_source, quick, tiny_student

from zeroflow_core import load_student
from zeroflow_core.datasets.pseudo_labels import label_folders
from zeroflow_core.distillation.pairs import PairRef
from zeroflow_core.distillation.training import fitting
from zeroflow_core.distillation.training.augment import NO_AUGMENTATION
from zeroflow_core.distillation.training.fitting import Average
from zeroflow_core.distillation.training.prepared import PreparedPairs
from zeroflow_core.distillation.training.scene_flow import SceneFlow
from zeroflow_core.distillation.training.state import Progress, load_state, save_state
from zeroflow_core.distillation.training.train import TrainSettings, labelled_pairs, split_pairs, train
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.evaluation.methods import Settings
from zeroflow_core.evaluation.run import evaluate
from zeroflow_core.fastflow3d.config import ONE_X
from zeroflow_core.fastflow3d.model import FastFlow3D
from zeroflow_core.files import locked
from zeroflow_core.simulation.log import simulate_log


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return make_source(tmp_path_factory.mktemp("source"), (4, 4))


@pytest.fixture
def settings(source, tmp_path, monkeypatch) -> TrainSettings:
    """Six pairs, one of them held back; 10 samples in both directions make 3 steps an epoch."""
    student = tiny_student(monkeypatch)
    monkeypatch.setattr(fitting, "open_board", lambda folder, step: None)
    return TrainSettings((source,), tmp_path / "out", student, quick(), "cpu", workers=0, prepared=tmp_path / "kept")


def _table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def _losses(out: Path) -> list[tuple[str, ...]]:
    return [(row["step"], row["epoch"], row["loss"], row["learning_rate"]) for row in _table(out / "curves.csv")]


def _weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


def _same_weights(one: Path, other: Path) -> None:
    first, second = _weights(one), _weights(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def _stop_after(monkeypatch, steps: int) -> None:
    """A training that ends at once behind step number `steps`, as if it were killed."""
    step = fitting.Fit._step

    def stopping(self, batch):
        if self.progress.step == steps:
            raise KeyboardInterrupt
        return step(self, batch)

    monkeypatch.setattr(fitting.Fit, "_step", stopping)


# What comes out -----------------------------------------------------------------------------------------------------


def test_everything_comes_out(settings):
    told = []
    done = train(replace(settings, about={"teacher": "exact"}), told.append)
    out = settings.out
    assert sorted(path.name for path in out.iterdir()) == [
        "best.ckpt", "curves.csv", "last.ckpt", "student.safetensors", "validation.csv",
    ]  # fmt: skip
    assert done.student == out / "student.safetensors" and done.steps == 6
    rows = _table(out / "curves.csv")
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [int(row["epoch"]) for row in rows] == [0, 0, 0, 1, 1, 1]
    assert all(0 <= float(row["wait_share"]) <= 1 and float(row["seconds"]) > 0 for row in rows)
    assert [(int(row["epoch"]), int(row["step"])) for row in _table(out / "validation.csv")] == [(1, 3), (2, 6)]
    assert done.held_back == [PairRef(settings.sources[0].logs[1], 2)]
    assert done.metadata["ground"] == "none" and done.metadata["interval_s"] == 0.1
    assert done.metadata["ground_z"] == -0.33 and done.metadata["teacher"] == "exact"
    assert {one.step for one in told} == set(range(1, 7)) and {one.steps for one in told} == {6}
    assert "validating" in {one.note for one in told}


def test_checkpoints_are_in_the_published_layout(settings):
    train(settings)
    for name in ("last.ckpt", "best.ckpt"):
        content = torch.load(settings.out / name, weights_only=True)
        published = {"epoch", "global_step", "pytorch-lightning_version", "state_dict", "loops", "callbacks"}
        assert published | {"optimizer_states", "lr_schedulers", "zeroflow"} <= content.keys()
        assert all(key.startswith("model.") for key in content["state_dict"])
        assert {key.removeprefix("model.") for key in content["state_dict"]} == FastFlow3D(TINY).state_dict().keys()
    content = torch.load(settings.out / "last.ckpt", weights_only=True)
    assert (content["epoch"], content["global_step"]) == (2, 6)
    moments = content["optimizer_states"][0]["state"]
    assert len(moments) == len(list(FastFlow3D(TINY).parameters())) and moments[0]["step"] == 6


def test_the_student_loads_and_is_the_best_checkpoint(settings):
    train(settings)
    students = [load_student(settings.out / name, "cpu", "reference") for name in ("student.safetensors", "best.ckpt")]
    last = load_student(settings.out / "last.ckpt", "cpu", "reference")
    pc = np.random.default_rng(0).uniform(-6, 6, (50, 3)).astype(np.float32) * [1, 1, 0.3]
    flows = [one.flow(pc, pc + np.float32(0.2)) for one in (*students, last)]
    np.testing.assert_array_equal(flows[0], flows[1])
    assert flows[0].shape == (50, 3) and np.isfinite(flows[2]).all()
    for one in students:
        assert one.metadata["ground"] == "none" and one.metadata["recipe"]["name"] == "fast"
        assert one.model.config == TINY


def test_published_keys_at_the_published_size(tmp_path):
    """Annex: 148 entries for 1x."""
    weights = {f"model.{key}": value for key, value in FastFlow3D(ONE_X).state_dict().items()}
    save_state(tmp_path / "one.ckpt", weights, {"name": "one"}, Progress())
    loaded = torch.load(tmp_path / "one.ckpt", weights_only=True)["state_dict"]
    assert len(loaded) == 148 and loaded["model.backbone.encoder_step_1.0.conv.weight"].shape == (64, 32, 3, 3)
    assert load_student(tmp_path / "one.ckpt", "cpu", "reference").model.config == ONE_X


def test_it_learns_what_the_labels_say(settings):
    """Sixty steps over five pairs as they are: the loss falls."""
    plain = {"augmentation": NO_AUGMENTATION, "window": 1.0, "still_weight": (0.1, 0.1), "patience": None}
    train(replace(settings, recipe=quick(epochs=20, learning_rate=1e-2, decoder_rate=1.0, ema=0.8, **plain)))
    losses = [float(row["loss"]) for row in _table(settings.out / "curves.csv")]
    assert len(losses) == 60 and np.mean(losses[-6:]) < 0.6 * np.mean(losses[:6])


def test_two_sources_by_their_weights(settings, tmp_path, monkeypatch):
    second = make_source(tmp_path / "second", (3,), weight=3.0)
    seen = []
    prepare = PreparedPairs.__getitem__
    monkeypatch.setattr(PreparedPairs, "__getitem__", lambda self, k: seen.append(self) or prepare(self, k))
    monkeypatch.setattr(SceneFlow, "validate", lambda self, weights: {})
    recipe = quick(epochs=1, batch=1, patience=None)
    before = train(replace(settings, sources=(*settings.sources, second), recipe=recipe, held_back=0.0))
    assert before.steps == 12 + round(4 * 3.0)
    counts = [sum(one.source is source for one in seen) for source in (*settings.sources, second)]
    assert counts[0] - counts[1] == 6 - 2  # the metadata looks at each pair once

    mixed = replace(second, ground="patchwork")
    with pytest.raises(ZeroFlowError, match="different ground rules .none, patchwork"):
        train(replace(settings, sources=(*settings.sources, mixed), out=tmp_path / "mixed"))


def test_it_starts_from_a_checkpoint(settings, tmp_path):
    train(settings)
    start = settings.out / "best.ckpt"
    slow = replace(settings, student=str(start), out=tmp_path / "more", recipe=quick(learning_rate=1e-12, epochs=1))
    train(slow)
    first, second = _weights(start), _weights(slow.out / "last.ckpt")
    for key, value in first.items():
        if key.endswith(("weight", "bias")):
            torch.testing.assert_close(second[key], value, atol=1e-5, rtol=1e-4)


# Resuming -----------------------------------------------------------------------------------------------------------


def test_the_same_seed_is_the_same_training(settings, tmp_path):
    again, other = replace(settings, out=tmp_path / "again"), replace(settings, out=tmp_path / "other", seed=1)
    for one in (settings, again, other):
        train(one)
    assert _losses(settings.out) == _losses(again.out) != _losses(other.out)
    _same_weights(settings.out / "last.ckpt", again.out / "last.ckpt")


def test_loading_processes_change_nothing(settings, tmp_path):
    with_workers = replace(settings, out=tmp_path / "workers", workers=2)
    train(settings)
    train(with_workers)
    assert _losses(settings.out) == _losses(with_workers.out)
    _same_weights(settings.out / "last.ckpt", with_workers.out / "last.ckpt")


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5])
def test_interrupted_behind_any_step_it_goes_on_exactly(settings, tmp_path, monkeypatch, steps):
    whole = replace(settings, out=tmp_path / "whole")
    monkeypatch.setattr(fitting, "_ROWS", 2)  # a row every third step: what it holds is remembered, too
    train(whole)
    monkeypatch.setattr(fitting, "_SAVED_EVERY_S", -1.0)
    with monkeypatch.context() as patch:
        _stop_after(patch, steps)
        with pytest.raises(KeyboardInterrupt):
            train(settings)
    train(settings)
    assert _losses(settings.out) == _losses(whole.out)
    for name in ("last.ckpt", "best.ckpt"):
        _same_weights(settings.out / name, whole.out / name)
    figures = [[(row["step"], row["heldback/moving_epe"]) for row in _table(out / "validation.csv")]
               for out in (settings.out, whole.out)]  # fmt: skip
    assert figures[0] == figures[1]


def test_what_was_done_behind_the_checkpoint_is_done_again(settings, tmp_path, monkeypatch):
    """Interrupted in the second epoch, with nothing saved since the first one's end."""
    whole = replace(settings, out=tmp_path / "whole")
    train(whole)
    with monkeypatch.context() as patch:
        _stop_after(patch, 5)
        with pytest.raises(KeyboardInterrupt):
            train(settings)
    assert len(_losses(settings.out)) == 5
    with open(settings.out / "curves.csv", "a") as file:
        file.write("6,1,0.1")  # cut short by a kill
    train(settings)
    assert _losses(settings.out) == _losses(whole.out)
    _same_weights(settings.out / "last.ckpt", whole.out / "last.ckpt")


@pytest.mark.parametrize("note", ["", "validating"])
def test_whoever_watches_may_end_it_and_no_step_is_lost(settings, tmp_path, note):
    class Enough(Exception):
        pass

    def watch(now):
        if (now.step, now.note) == (5 if not note else 3, note):
            raise Enough

    whole, told = replace(settings, out=tmp_path / "whole"), []
    train(whole)
    with pytest.raises(Enough):
        train(settings, watch)
    train(settings, lambda now: told.append((now.step, now.note)))
    assert told[0] == ((6, "") if not note else (3, note))
    assert _losses(settings.out) == _losses(whole.out)
    for name in ("last.ckpt", "best.ckpt"):
        _same_weights(settings.out / name, whole.out / name)


def test_ctrl_c_waits_for_the_end_of_the_step(settings, tmp_path, monkeypatch):
    whole, loss, told = replace(settings, out=tmp_path / "whole"), SceneFlow.loss, []
    train(whole)

    def interrupted(self, answers, part, done):
        if done == 4 / 6:
            signal.raise_signal(signal.SIGINT)
        return loss(self, answers, part, done)

    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(SceneFlow, "loss", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(settings)
    assert signal.getsignal(signal.SIGINT) is handler
    train(settings, lambda now: told.append(now.step))
    assert told[0] == 6 and _losses(settings.out) == _losses(whole.out)
    _same_weights(settings.out / "last.ckpt", whole.out / "last.ckpt")


def test_a_training_that_is_ended_before_its_first_step_leaves_its_folder_to_others(settings, monkeypatch):
    def interrupted(self, samples):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(SceneFlow, "collate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(settings)
    assert train(replace(settings, seed=3)).steps == 6


def test_a_second_ctrl_c_waits_for_nothing_and_half_a_step_is_not_kept(settings, monkeypatch):
    after_step, steps = SceneFlow.after_step, []

    def insisting(self):
        steps.append(1)
        after_step(self)
        if len(steps) == 2:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            pytest.fail("it went on")

    monkeypatch.setattr(SceneFlow, "after_step", insisting)
    with pytest.raises(KeyboardInterrupt):
        train(settings)
    assert not (settings.out / "last.ckpt").exists()


def test_a_finished_training_is_left_as_it_is(settings, monkeypatch):
    done = train(settings)
    before = (settings.out / "last.ckpt").read_bytes(), (settings.out / "curves.csv").read_bytes()
    monkeypatch.setattr(fitting.Fit, "_step", lambda self, batch: pytest.fail("nothing is left to learn"))
    again = train(settings)
    assert before == ((settings.out / "last.ckpt").read_bytes(), (settings.out / "curves.csv").read_bytes())
    assert (again.figures, again.steps, again.metadata) == (done.figures, done.steps, done.metadata)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"recipe": quick(epochs=3)}, "its recipe.epochs is 2, not 3"),
        ({"recipe": quick(learning_rate=5e-4)}, "its recipe.learning_rate is 0.001, not 0.0005"),
        ({"seed": 3}, "its seed is 0, not 3"),
        ({"held_back": 0.4}, r"its pairs is \['5 \(\w+\)'\], not \['4 \(\w+\)'\]"),
        ({"sources": "other ground"}, "its ground is none, not patchwork"),
        ({"student": "a checkpoint"}, r"its start is drawn, not \w+"),
        ({"validation": "a log"}, r"its validation is 0 labelled pairs .*, not 1 labelled"),
    ],
)
def test_another_training_is_refused(settings, tmp_path, change, words):
    train(settings)
    before = (settings.out / "last.ckpt").read_bytes()
    if "sources" in change:
        change = {"sources": (replace(settings.sources[0], ground="patchwork"),)}
    elif "student" in change:
        change = {"student": str(settings.out / "best.ckpt")}
    elif "validation" in change:
        simulate_log(tmp_path / "val" / "one", seed=3, sweeps=2, scanner="small", scene="junction")
        change = {"validation": (tmp_path / "val" / "one",)}
    with pytest.raises(ZeroFlowError, match=f"belongs to another training .*{words}.*choose another --out") as caught:
        train(replace(settings, **change))
    assert "\n" not in str(caught.value) and (settings.out / "last.ckpt").read_bytes() == before


@pytest.mark.parametrize("damage", ["cut short", "weights alone", "a list"])
def test_a_checkpoint_that_can_t_be_gone_on_with_is_told(settings, damage):
    train(settings)
    path = settings.out / "last.ckpt"
    content = path.read_bytes()
    if damage == "weights alone":
        path.write_bytes((settings.out / "best.ckpt").read_bytes())
    elif damage == "a list":
        torch.save([1, 2], path)
    else:
        path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ZeroFlowError, match="last.ckpt can't be read, or holds no training") as caught:
        train(settings)
    assert "\n" not in str(caught.value)


def test_hidden_leftovers_of_a_kill_go(settings):
    settings.out.mkdir()
    leftover = settings.out / ".0123456789abcdef.last.ckpt"
    leftover.write_bytes(b"half")
    train(settings)
    assert not leftover.exists()


# The loop ------------------------------------------------------------------------------------------------------------


def test_the_moving_average_by_hand():
    student = torch.nn.BatchNorm1d(2)
    with torch.no_grad():
        student.weight.copy_(torch.tensor([1.0, 2.0]))
    average = Average(student, 0.5)
    with torch.no_grad():
        student.weight.copy_(torch.tensor([3.0, 2.0]))
        student.running_mean.copy_(torch.tensor([1.0, 0.0]))
        student.num_batches_tracked.fill_(7)
    average.update(1)  # decay 2/11: early on it looks back less far
    expected = torch.tensor([1 * 2 / 11 + 3 * 9 / 11, 2.0])
    torch.testing.assert_close(average.weights["weight"], expected)
    torch.testing.assert_close(average.weights["running_mean"], torch.tensor([9 / 11, 0.0]))
    assert average.weights["num_batches_tracked"] == 7
    average.update(1000)
    torch.testing.assert_close(average.weights["weight"], 0.5 * expected + 0.5 * torch.tensor([3.0, 2.0]))


def test_without_an_average_it_is_the_student():
    student = torch.nn.Linear(2, 2)
    average = Average(student, None)
    with torch.no_grad():
        student.weight.add_(1)
    assert not torch.equal(average.weights["weight"], student.weight)
    average.update(1)
    torch.testing.assert_close(average.weights["weight"], student.weight.detach())


def test_the_checkpoint_holds_the_average_and_the_student(settings):
    train(replace(settings, recipe=quick(ema=0.9)))
    content = torch.load(settings.out / "last.ckpt", weights_only=True)["zeroflow_training"]
    states, _ = load_state(settings.out / "last.ckpt", json.loads(content["identity"]))
    weights = _weights(settings.out / "last.ckpt")
    key = "model.head.decoder.0.weight"
    assert torch.equal(states["average"][key], weights[key]) and not torch.equal(states["student"][key], weights[key])


def test_learning_rates_are_the_schedule_s(settings):
    recipe = quick(warm_up=0.5, learning_rate=1e-3, decoder_rate=0.3)
    train(replace(settings, recipe=recipe))
    rates = [float(row["learning_rate"]) for row in _table(settings.out / "curves.csv")]
    assert rates == pytest.approx([1e-3 * recipe.rate((k - 0.5) / 6) for k in range(1, 7)])
    assert rates[0] == pytest.approx(1e-3 / 6) and rates[-1] > 0
    content = torch.load(settings.out / "last.ckpt", weights_only=True)["optimizer_states"][0]["param_groups"]
    assert [group["rate"] for group in content] == [1.0, 0.3]


def test_the_decoder_keeps_the_norms_it_was_drawn_with(settings, tmp_path):
    norms = []
    for rate in (1e-12, 1e-2):
        out = tmp_path / str(rate)
        train(replace(settings, out=out, recipe=quick(epochs=1, learning_rate=rate, decoder_norms=True, ema=None)))
        weights = _weights(out / "last.ckpt")
        decoder = [value for key, value in weights.items() if ".decoder_step" in key and value.ndim == 4]
        norms.append([float(value.norm()) for value in decoder])
    assert len(norms[0]) == 9 and norms[1] == pytest.approx(norms[0], rel=1e-5)


def _gradients(settings, monkeypatch, micro_batch: int | None, **changes) -> tuple[dict[str, torch.Tensor], float]:
    """Of the first step, with norms that do not look at the batch."""
    found = {}

    class Stop(Exception):
        pass

    def look(self, closure=None):
        found.update({f"{k}.{n}": p.grad.clone() for k, group in enumerate(self.param_groups)
                      for n, p in enumerate(group["params"])})  # fmt: skip
        raise Stop

    def still(self, batches):
        for module in self._module.modules():
            if isinstance(module, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
                module.eval()
        for batch in batches:
            self._step(batch)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.Adam, "step", look)
        patch.setattr(fitting.Fit, "_epoch", still)
        with pytest.raises(Stop):
            train(replace(settings, micro_batch=micro_batch, recipe=quick(batch=5, clip=None, **changes)))
    return found, sum(float(value.square().sum()) for value in found.values()) ** 0.5


@pytest.mark.parametrize("micro_batch", [1, 2, 4])
def test_parts_of_a_batch_add_up_to_the_batch(settings, monkeypatch, micro_batch):
    whole, norm = _gradients(settings, monkeypatch, None)
    parts, _ = _gradients(settings, monkeypatch, micro_batch)
    assert norm > 1e-3
    for key in whole:
        torch.testing.assert_close(parts[key], whole[key], atol=1e-5 * max(norm, 1), rtol=1e-3)


def test_a_batch_s_loss_is_the_mean_of_its_samples_or_their_sum(settings, monkeypatch):
    mean, norm = _gradients(settings, monkeypatch, None)
    total, norm_of_sum = _gradients(settings, monkeypatch, None, batch_sum=True)
    assert norm_of_sum == pytest.approx(5 * norm, rel=1e-4)
    for key in mean:
        torch.testing.assert_close(total[key], 5 * mean[key], atol=1e-5 * norm_of_sum, rtol=1e-3)


def test_gradients_are_clipped_together(settings, monkeypatch):
    norms = []
    step = torch.optim.Adam.step

    def look(self, closure=None):
        gradients = [p.grad.square().sum() for group in self.param_groups for p in group["params"]]
        norms.append(float(sum(gradients)) ** 0.5)
        return step(self, closure)

    monkeypatch.setattr(torch.optim.Adam, "step", look)
    train(replace(settings, recipe=quick(clip=1e-3)))
    assert len(norms) == 6 and norms == pytest.approx([1e-3] * 6, rel=1e-2)


def test_a_training_that_gets_no_better_ends(settings, monkeypatch):
    scores = iter([3.0, 2.0, 2.5, 2.0, 4.0, 1.0, 0.5])
    monkeypatch.setattr(SceneFlow, "validate", lambda self, weights: {"heldback/moving_epe": next(scores)})
    done = train(replace(settings, recipe=quick(epochs=7, patience=3)))
    assert len(_table(settings.out / "validation.csv")) == 5 and done.steps == 15
    assert done.figures == {"heldback/moving_epe": 2.0}
    assert torch.load(settings.out / "best.ckpt", weights_only=True)["epoch"] == 2
    assert train(replace(settings, recipe=quick(epochs=7, patience=3))).steps == 15, "and stays at its end"


def test_a_score_is_of_labelled_logs_or_else_of_held_back_pairs():
    held_back = {"heldback/moving_epe": 0.3, "heldback/still_epe": 0.1}
    assert SceneFlow.score(None, held_back) == pytest.approx(0.2)
    assert SceneFlow.score(None, {**held_back, "val/three_way_epe": 0.05}) == 0.05
    assert SceneFlow.score(None, {**held_back, "val/three_way_epe": None}) == pytest.approx(0.2)
    assert SceneFlow.score(None, {"heldback/moving_epe": 0.3, "heldback/still_epe": None}) == pytest.approx(0.3)
    assert SceneFlow.score(None, {"heldback/moving_epe": None, "heldback/still_epe": 0.1}) == math.inf, (
        "by what stands alone a student that sees nothing would be the best"
    )
    assert SceneFlow.score(None, {}) == math.inf


def test_without_a_score_it_trains_to_the_end(settings):
    trained = train(replace(settings, recipe=quick(epochs=6, patience=1), held_back=0.0))
    assert _table(settings.out / "curves.csv")[-1]["epoch"] == "5" and trained.figures == {}
    epochs = torch.load(settings.out / "best.ckpt", weights_only=True)["epoch"]
    assert epochs == 6, "where nothing tells a good student, the last one is exported"


# What goes wrong ----------------------------------------------------------------------------------------------------


def test_a_mistake_in_a_process_that_loads_is_one_sentence(settings):
    (source,) = settings.sources
    damaged = sorted(source.labels.forward.rglob("*.feather"))[0]
    content = damaged.read_bytes()
    damaged.write_bytes(content[:100])
    try:
        with pytest.raises(ZeroFlowError) as caught:
            train(replace(settings, workers=1, prepared=settings.out / "fresh", held_back=0.0))
    finally:
        damaged.write_bytes(content)
    assert str(damaged) in str(caught.value) and "Traceback" not in str(caught.value)


def test_one_training_in_a_folder_at_a_time(settings, monkeypatch):
    monkeypatch.setattr("zeroflow_core.distillation.training.train._PATIENCE_S", 0.3)
    settings.out.mkdir(parents=True)
    with locked(settings.out), pytest.raises(ZeroFlowError, match="another process is training into .*out; wait"):
        train(settings)
    assert list(settings.out.iterdir()) == []


def test_a_loss_that_is_no_number_is_told(settings, monkeypatch):
    loss, calls = SceneFlow.loss, []

    def broken(self, *arguments):
        calls.append(1)
        return loss(self, *arguments) * (float("nan") if len(calls) > 4 else 1)

    monkeypatch.setattr(SceneFlow, "loss", broken)
    with pytest.raises(ZeroFlowError, match="the loss is nan at step 5; take a smaller learning rate than 0.001"):
        train(settings)
    assert all(torch.isfinite(value).all() for value in _weights(settings.out / "last.ckpt").values())


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError(),
    ],
)
@pytest.mark.parametrize(("micro_batch", "advice"), [(None, "with 3 .*--micro-batch 1"), (1, "a smaller student")])
def test_when_memory_runs_out_it_says_what_to_do(settings, monkeypatch, error, micro_batch, advice):
    def no_memory(self, *arguments):
        raise error

    monkeypatch.setattr(SceneFlow, "loss", no_memory)
    with pytest.raises(ZeroFlowError, match=f"memory ran out on cpu .*{advice}") as caught:
        train(replace(settings, micro_batch=micro_batch))
    assert "\n" not in str(caught.value)


def test_a_checkpoint_is_read_where_there_is_memory_for_it(settings, monkeypatch):
    """A GPU that others fill would be told of as a damaged file, and the advice is to remove it."""
    with monkeypatch.context() as patch:
        _stop_after(patch, 4)
        with pytest.raises(KeyboardInterrupt):
            train(settings)
    places, load = [], torch.load

    def look(path, *, map_location, **how):
        places.append(map_location)
        return load(path, map_location=map_location, **how)

    monkeypatch.setattr("zeroflow_core.distillation.training.state.torch.load", look)
    assert train(settings).steps == 6 and set(places) == {"cpu"}


def test_other_errors_are_not_taken_for_it(settings, monkeypatch):
    def wrong(self, *arguments):
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(SceneFlow, "loss", wrong)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        train(settings)


@pytest.mark.parametrize("when", ["while writing", "at the end"])
def test_a_full_disk_leaves_the_last_checkpoint(settings, monkeypatch, when):
    monkeypatch.setattr(fitting, "_SAVED_EVERY_S", -1.0)
    with monkeypatch.context() as patch:
        _stop_after(patch, 4)
        with pytest.raises(KeyboardInterrupt):
            train(settings)
    before = (settings.out / "last.ckpt").read_bytes()

    class FullDisk(io.FileIO):
        def write(self, content):
            super().write(bytes(content)[:9])
            raise OSError(28, "No space left on device")

    def open_file(path, mode, **how):
        return FullDisk(path, mode) if "last.ckpt" in str(path) else open(path, mode, **how)

    def no_room(*paths):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        if when == "while writing":
            patch.setattr("zeroflow_core.files.open", open_file, raising=False)
        else:
            patch.setattr("zeroflow_core.files.os.replace", no_room)
        with pytest.raises(ZeroFlowError, match="cannot write .*: No space left on device"):
            train(settings)
    assert (settings.out / "last.ckpt").read_bytes() == before
    assert not [path.name for path in settings.out.iterdir() if path.name.startswith(".")]
    assert train(settings).steps == 6


@pytest.mark.parametrize("name", ["curves.csv", "validation.csv"])
def test_somebody_s_tables_stay(settings, name):
    settings.out.mkdir()
    (settings.out / name).write_text("time,step\n1.5,3\n")
    with pytest.raises(ZeroFlowError, match=f"{name} is in the way: no training has written it"):
        train(settings)
    assert (settings.out / name).read_text() == "time,step\n1.5,3\n"


def test_a_folder_that_can_t_be_made_is_told(settings, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ZeroFlowError, match="cannot write to .*file/out"):
        train(replace(settings, out=tmp_path / "file" / "out"))


def test_without_tensorboard_it_trains_all_the_same(settings, monkeypatch):
    monkeypatch.undo()
    tiny_student(monkeypatch)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert train(settings).steps == 6
    assert not (settings.out / "tensorboard").exists()


def test_with_tensorboard_its_curves_are_there(settings, monkeypatch):
    monkeypatch.undo()
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tiny_student(monkeypatch)
    with monkeypatch.context() as patch:
        _stop_after(patch, 5)
        with pytest.raises(KeyboardInterrupt):
            train(settings)
    train(settings)
    events = EventAccumulator(str(settings.out / "tensorboard"))
    events.Reload()
    assert {"loss", "learning_rate", "heldback/moving_epe"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3, 4, 5, 6]
    written = [event.value for event in events.Scalars("loss")]
    assert written == pytest.approx([float(row["loss"]) for row in _table(settings.out / "curves.csv")])


def test_tensorboard_s_file_is_closed_however_it_ends(settings, monkeypatch):
    closed = []

    class Board:
        def add_scalar(self, *_):
            pass

        def close(self):
            closed.append(True)

    monkeypatch.setattr(fitting, "open_board", lambda folder, step: Board())
    with monkeypatch.context() as patch:
        _stop_after(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            train(settings)
    assert closed == [True]


def test_what_verifies_is_missed_before_the_work(settings, monkeypatch):
    monkeypatch.setitem(sys.modules, "zeroflow_core.verification.kernels", None)
    with pytest.raises(ZeroFlowError, match="needs numba"):
        train(replace(settings, recipe=quick(refine=True)))
    assert not settings.out.exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sources": ()}, "nothing to learn from"),
        ({"held_back": 1.0}, "held_back is a share"),
        ({"held_back": -0.1}, "held_back is a share"),
        ({"student": "2x"}, "student '2x' is neither a size .*1x.* nor one of: default, .*zeroflow-1x"),
        ({"student": "gone.ckpt"}, "gone.ckpt: no such file"),
        ({"device": "tpu"}, "device 'tpu'"),
    ],
)
def test_settings_that_can_t_be(settings, change, words):
    with pytest.raises(ZeroFlowError, match=words):
        train(replace(settings, **change))


def test_logs_without_labels_are_told(settings, tmp_path):
    labels = label_folders(tmp_path / "none", "train", "nsfp")
    labels.forward.mkdir(parents=True)
    bare = replace(settings.sources[0], labels=replace(labels, reverse=None))
    with pytest.raises(ZeroFlowError, match="no label for any pair of 2 logs"):
        train(replace(settings, sources=(bare,)))


def test_pairs_that_failed_are_left_out(tmp_path):
    source = make_source(tmp_path, (4, 3))
    (source.labels.forward / "log0" / "1100000000.feather").unlink()
    (source.labels.reverse / "log1" / "1200000000.feather").unlink()
    assert [(ref.log.name, ref.index) for ref in labelled_pairs(source)] == [("log0", 0), ("log0", 2), ("log1", 0)]


@pytest.mark.parametrize(
    ("pairs", "share", "back"), [(20, 0.1, 2), (20, 0.0, 0), (3, 0.1, 1), (1, 0.1, 0), (4, 0.9, 3), (2, 0.99, 1)]
)
def test_how_many_are_held_back(pairs, share, back):
    refs = [PairRef(Path("log"), k) for k in range(pairs)]
    learned, held_back = split_pairs(refs, share)
    assert learned + held_back == refs and len(held_back) == back


# Validation ---------------------------------------------------------------------------------------------------------


def test_figures_are_what_they_say(settings, monkeypatch):
    """By an independent computation from the exported student and the world's truth."""
    done = train(replace(settings, held_back=0.5))
    student = load_student(done.student, "cpu", "reference")
    errors: dict[bool, list] = {True: [], False: []}
    for ref in done.held_back:
        pair = PreparedPairs(settings.sources[0], [ref], TINY, None)[0]
        for sample in (pair.forward(), pair.reverse()):
            flow = student.flow(sample.pc0, sample.pc1)
            label = sample.label.astype(np.float64)
            scored, moving = np.isfinite(flow[:, 0]), np.linalg.norm(label, axis=1) > 0.05
            error = np.linalg.norm(flow - label, axis=1)
            for kind in (True, False):
                errors[kind] += error[scored & (moving == kind)].tolist()
    assert len(done.held_back) == 3
    best = torch.load(settings.out / "best.ckpt", weights_only=True)["epoch"]
    row = _table(settings.out / "validation.csv")[best - 1]
    for name, kind in (("moving", True), ("still", False)):
        assert done.figures[f"heldback/{name}_epe"] == pytest.approx(np.mean(errors[kind]), rel=1e-5)
        assert float(row[f"heldback/{name}_epe"]) == done.figures[f"heldback/{name}_epe"]
    assert done.figures["heldback/zero_moving_epe"] == pytest.approx(np.linalg.norm(STEP), rel=1e-2)
    assert done.figures["heldback/zero_still_epe"] == 0.0


def test_labelled_logs_are_scored_as_evaluate_does(settings, tmp_path):
    simulate_log(tmp_path / "sensor" / "val" / "one", seed=3, sweeps=3, scanner="small", scene="junction")
    log = tmp_path / "sensor" / "val" / "one"
    done = train(replace(settings, validation=(log,), recipe=quick(epochs=1)))
    chosen = Settings(tmp_path, checkpoint=str(done.student), engine="reference", precision="fp32", device="cpu")
    metrics = evaluate(chosen, tmp_path / "evaluation", pictures=0).metrics
    first, second = metrics["av2-2023"], metrics["av2-2024"]
    for part in ("three_way_epe", "fd", "fs", "bs"):
        assert done.figures[f"val/{part}"] == pytest.approx(first[part], rel=1e-5), part
    assert done.figures["val/mean_dynamic"] == pytest.approx(second["mean_dynamic"], rel=1e-5)


def test_logs_without_labels_can_t_validate(settings):
    with pytest.raises(ZeroFlowError, match="no pair .* has labels to validate by"):
        train(replace(settings, validation=settings.sources[0].logs))


def test_pairs_whose_labels_don_t_tell_the_truth_are_not_validated_by(settings, tmp_path, caplog):
    good, bad = (tmp_path / "sensor" / "val" / name for name in ("good", "bad"))
    for log in (good, bad):
        simulate_log(log, seed=3, sweeps=3, scanner="small", scene="junction")
    shutil.rmtree(bad / "map")
    shutil.rmtree(bad / "flow_labels")  # annotations.feather stays, but nothing tells the ground
    done = train(replace(settings, validation=(bad, good), recipe=quick(epochs=1)))
    assert done.figures["val/three_way_epe"] is not None
    assert "2 of 4 pairs are not validated by: " in caplog.text and "map" in caplog.text
    with pytest.raises(ZeroFlowError, match="no pair of .*val has labels to validate by .*map.*leave it out"):
        train(replace(settings, out=tmp_path / "other", validation=(bad,)))
