"""What `bench training` times, and what it says."""

import json
import time

import pytest
import torch
from typer.testing import CliRunner

from zeroflow_core.bench import training as module
from zeroflow_core.bench.__main__ import app
from zeroflow_core.bench.training import WAYS, Work, time_steps
from zeroflow_core.distillation.training import train
from zeroflow_core.distillation.training.scene_flow import FlowLearner

WORK = Work("small", 0.2, 2, 2, torch.get_num_threads())


@pytest.fixture
def told(monkeypatch) -> list[int]:
    """What glibc was told to keep; nothing is told to it here."""
    told = []
    monkeypatch.setattr(train, "keep_memory", told.append)
    return told


def _layouts(monkeypatch) -> set[torch.memory_format]:
    """Those that learners are given from now on."""
    seen, forward = set(), FlowLearner.forward

    def look(self, items):
        weight = self.model.backbone.encoder_step_1[1].conv.weight
        formats = torch.contiguous_format, torch.channels_last
        seen.update(one for one in formats if weight.is_contiguous(memory_format=one))
        return forward(self, items)

    monkeypatch.setattr(FlowLearner, "forward", look)
    return seen


@pytest.mark.parametrize("way", WAYS, ids=[way.name for way in WAYS])
def test_a_turn_is_of_its_way(way, told, monkeypatch):
    layouts, start = _layouts(monkeypatch), time.perf_counter()
    seconds = time_steps(WORK, way)
    assert len(seconds) == WORK.steps and 0 < sum(seconds) < time.perf_counter() - start
    assert layouts == {torch.contiguous_format if way.usual_layout else torch.channels_last}
    assert bool(told) == way.keeps


def test_on_a_gpu_nothing_is_kept(told):
    train.keep_memory_of_steps("cuda:0")
    assert not told


def test_all_ways_have_their_turns(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "WAYS", WAYS[:2])
    options = "--student small --window 0.1 --batch 1 --steps 1 --turns 2 --threads 1".split()
    result = CliRunner().invoke(app, ["training", *options, "--json", str(tmp_path / "a.json")])
    assert result.exit_code == 0, result.output
    assert "as trained" in result.output and "1 sample, small, window 0.1, 1 thread" in result.output
    written = json.loads((tmp_path / "a.json").read_text())
    assert {name: len(values) for name, values in written["seconds"].items()} == {WAYS[0].name: 2, WAYS[1].name: 2}
    assert written["size"] == "small" and written["threads"] == 1 and written["machine"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("--student huge", "choose one of: small"),
        ("--window 0", "above 0"),
        ("--json /dev/null/a.json", "cannot write /dev/null/a.json"),
    ],
)
def test_what_can_not_be_is_refused(options, told):
    result = CliRunner().invoke(app, ["training", *options.split()])
    assert result.exit_code != 0 and told in str(result.exception)
