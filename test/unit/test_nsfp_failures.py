"""The teacher when an optimisation comes to nothing: it diverges, memory runs out, or it was asked for nonsense."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from nsfp_cases import two_boxes

from zeroflow_core.devices import choose_device
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.evaluation import methods
from zeroflow_core.nsfp import teacher as teacher_module
from zeroflow_core.nsfp.chamfer import Chamfer
from zeroflow_core.nsfp.config import TeacherConfig, teacher_config
from zeroflow_core.nsfp.plain import optimise_nsfp
from zeroflow_core.nsfp.teacher import Teacher
from zeroflow_core.pairs import Status

CPU_MEMORY = "[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"
TINY = replace(teacher_config("nsfp"), iterations=3, samples=64)


def test_a_cloud_that_has_diverged_is_no_perfect_match():
    assert torch.isnan(Chamfer(torch.rand(20, 3), 2.0)(torch.full((20, 3), float("nan"))))


def test_nsfp_stops_where_it_diverges_with_the_best_flow_until_then():
    pair = two_boxes(share=0.3).pair
    clouds = torch.from_numpy(pair.pc0), torch.from_numpy(pair.pc1)
    losses: list[float] = []
    config = replace(teacher_config("nsfp", "published"), learning_rate=1e30)
    came_to = optimise_nsfp(*clouds, config, torch.Generator().manual_seed(0), lambda _, loss: losses.append(loss))
    assert np.isnan(losses[-1]) and np.isfinite(losses[0]) and came_to.iterations == len(losses) < 5
    assert torch.isfinite(came_to.forward).all() and came_to.loss in losses


@pytest.mark.parametrize("error", [RuntimeError(CPU_MEMORY), MemoryError(), torch.OutOfMemoryError("CUDA")])
def test_memory_that_runs_out_is_a_failure_and_told(error, monkeypatch):
    def optimise(*_):
        raise error

    monkeypatch.setattr(teacher_module, "optimise_together", optimise)
    label = Teacher(config=TINY).label_one(two_boxes(share=0.2).pair)
    assert label.failed and "memory" in label.problem
    assert (label.flow.status == Status.NO_ESTIMATE).all() and np.isnan(label.loss)


def test_any_other_error_is_a_bug_and_stays_one(monkeypatch):
    def optimise(*_):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(teacher_module, "optimise_together", optimise)
    with pytest.raises(RuntimeError, match="shapes"):
        Teacher(config=TINY).label_one(two_boxes(share=0.2).pair)


def test_a_fast_optimisation_that_diverges_has_failed():
    label = Teacher(config=replace(TINY, learning_rate=1e30, iterations=20)).label_one(two_boxes(share=0.2).pair)
    assert label.failed and "diverged" in label.problem and (label.flow.status == Status.NO_ESTIMATE).all()


def test_nothing_to_go_by_is_no_failure():
    pair = two_boxes(share=0.2).pair
    label = Teacher(config=TINY).label_one(replace(pair, is_ground1=np.ones(len(pair.pc1), dtype=bool)))
    assert label.problem and not label.failed


def test_in_an_evaluation_a_failure_is_a_failed_pair(monkeypatch, tmp_path):
    def optimise(*_):
        raise MemoryError

    monkeypatch.setattr(teacher_module, "optimise_together", optimise)
    method = methods.make_method(methods.Settings(data=tmp_path, method="nsfp", device="cpu"))
    with pytest.raises(ZeroFlowError, match="NSFP.*memory"):
        method.flow(None, 0, two_boxes(share=0.2).pair)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Teacher(seed=-1), "seed -1"),
        (lambda: Teacher(seed=1 << 63), "seed 9223372036854775808"),
        (lambda: Teacher(pairs_in_flight=0), "0 pairs"),
        (lambda: TeacherConfig("nsfp", "slow"), "engine 'slow'.*plain, fast"),
        (lambda: TeacherConfig("icp", "fast"), "method 'icp'.*nsfp, fastnsf"),
        (lambda: replace(TINY, iterations=0), "iterations must be above 0"),
        (lambda: replace(TINY, samples=-1), "samples must be above 0"),
        (lambda: replace(TINY, learning_rate=float("nan")), "learning_rate must be above 0"),
        (lambda: replace(TINY, differing=1.5), "share from 0 to 1"),
    ],
)
def test_nonsense_is_refused_in_a_sentence(make, said):
    with pytest.raises(ZeroFlowError, match=said):
        make()


def test_the_cpu_has_one_name():
    assert choose_device("cpu:0") == "cpu"
