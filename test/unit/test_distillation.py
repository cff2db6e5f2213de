"""Losses, errors and the interim recipe, by hand and on tiny runs."""

import numpy as np
import pytest
import torch
from rich.console import Console

from zeroflow_core.datasets.av2 import Log
from zeroflow_core.distillation import interim
from zeroflow_core.distillation.training.losses import speed_weight, weighted_epe
from zeroflow_core.distillation.training.scene_flow import FlowLearner
from zeroflow_core.evaluation.errors import FlowErrors
from zeroflow_core.fastflow3d.config import SMALL
from zeroflow_core.ground import Patchwork


def test_speed_weight_is_the_paper_s_ramp_clamped():
    speeds = torch.tensor([0.0, 0.3, 0.45, 0.5, 0.75, 1.0, 30.0])
    label = torch.stack([0.1 * speeds, torch.zeros(7), torch.zeros(7)], dim=1)
    expected = torch.tensor([0.1, 0.1, 0.1, 0.1, 0.55, 1.0, 1.0])
    torch.testing.assert_close(speed_weight(label, 0.1), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(speed_weight(label, -0.1), expected, atol=1e-5, rtol=0)
    emphatic = torch.tensor([3.0, 3.0, 2.98, 2.8, 1.9, 1.0, 1.0])
    torch.testing.assert_close(speed_weight(label, 0.1, still=3.0), emphatic, atol=1e-5, rtol=0)


def test_weighted_epe_by_hand():
    flow, label = torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.0, 1.0]]), torch.zeros(2, 3)
    assert weighted_epe(flow, label, torch.tensor([1.0, 0.1])).item() == pytest.approx((5.0 + 0.1) / 2)


def test_errors_by_hand():
    truth = np.array([[1.0, 0, 0], [0, 0.2, 0], [0, 0, 0], [0, 0, 0], [0.01, 0, 0], [1.0, 0, 0]])
    estimate = np.array([[0.5, 0, 0], [0, 0.2, 0], [0.06, 0, 0], [0, 0, 0], [0.01, 0, 0], [np.nan] * 3])
    errors = FlowErrors()
    errors.add(estimate, truth, dt=0.1)
    errors.add(np.zeros((2, 3)), np.zeros((2, 3)), dt=-0.1)
    assert (errors.dynamic_points, errors.static_points) == (2, 5)
    assert errors.dynamic_epe == pytest.approx(0.25)
    assert errors.dynamic_epe_of_zero == pytest.approx(0.6)
    assert errors.static_epe == pytest.approx(0.06 / 5)
    assert errors.static_epe_of_zero == pytest.approx(0.01 / 5)
    assert errors.static_too_fast == pytest.approx(1 / 5)
    assert errors.coverage == pytest.approx(7 / 8)
    assert np.isnan(FlowErrors().dynamic_epe)


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """Three small drives to learn from."""
    recipe = interim.Recipe(logs=(("small", 2), ("vlp32", 1)), sweeps=2)
    return interim.make_logs(recipe, tmp_path_factory.mktemp("logs"), Console(quiet=True))


def test_logs_are_of_every_scanner_and_made_once(logs):
    assert len({log.name for log in logs}) == 3
    stamps = [path.stat().st_mtime_ns for log in logs for path in log.rglob("*.feather")]
    recipe = interim.Recipe(logs=(("small", 2), ("vlp32", 1)), sweeps=2)
    assert interim.make_logs(recipe, logs[0].parents[3], Console(quiet=True)) == logs
    assert stamps == [path.stat().st_mtime_ns for log in logs for path in log.rglob("*.feather")]


def test_labels_carry_every_point_to_the_other_moment(logs):
    (first, forward), (second, backward) = interim.labelled_pair(Log(logs[2]), 0, Patchwork())
    assert forward.shape == first.points.shape and backward.shape == second.points.shape
    assert forward.dtype == backward.dtype == np.float32 and first.is_ground.any()
    moving = np.linalg.norm(forward, axis=1) > 0.05
    assert 0 < moving.mean() < 0.6
    there = np.linalg.norm(backward, axis=1) > 0.05
    assert forward[moving].mean(axis=0) == pytest.approx(-backward[there].mean(axis=0), abs=0.4)


def test_samples_come_in_both_directions_of_time(logs):
    samples = iter(interim.Samples(logs[2:], seed=3, window=interim.WINDOW, start=0))
    forward, _, backward, _ = (next(samples) for _ in range(4))
    for sample in (forward, backward):
        assert len(sample.pc0) == len(sample.label) > 0
        moving = sample.label.norm(dim=1) > 0.3
        assert 0 < moving.sum() < len(moving)
        carried = sample.pc0 + sample.label
        moved, stayed = (_distance(points[moving], sample.pc1) for points in (carried, sample.pc0))
        assert moved.quantile(0.8) < 0.6 * stayed.quantile(0.8), "the label must carry the points onto the other cloud"


def test_a_window_of_the_whole_grid_is_the_model_itself(logs):
    torch.manual_seed(0)
    learner = FlowLearner(SMALL, bf16=True).eval()
    sample = next(iter(interim.Samples(logs, seed=3, window=SMALL, start=0)))
    assert sample.low.tolist() == pytest.approx([-51.2, -51.2])
    with torch.no_grad():
        ((flow, index),) = learner([sample])
        ((expected, rows),) = learner.model([sample.pc0], [sample.pc1], bf16=True)
    assert torch.equal(index, rows)
    torch.testing.assert_close(flow, expected)


def _distance(points, cloud):
    points = points[torch.linspace(0, len(points) - 1, min(len(points), 300)).long()]
    return torch.cdist(points, cloud).min(dim=1).values


def test_training_runs_and_a_finished_run_is_not_repeated(tmp_path, monkeypatch, logs):
    phases = (interim.Phase(3, 1e-3, 3e-4, (0.1, 0.5)), interim.Phase(2, 1e-4, 1e-4, (0.5, 1.0)))
    recipe = interim.Recipe(seed=1, batch=2, phases=phases)
    torch.manual_seed(recipe.seed)
    start = interim.FastFlow3D(interim.WINDOW).state_dict()["head.decoder.2.weight"]
    trained = interim.train(recipe, logs, tmp_path, Console(quiet=True)).state_dict()["head.decoder.2.weight"]
    assert torch.isfinite(trained).all() and not torch.equal(trained, start)
    before = (tmp_path / "phase2.pt").stat().st_mtime_ns
    monkeypatch.setattr(interim, "labelled_pair", lambda *pair: pytest.fail("nothing is left to learn"))
    model = interim.train(recipe, logs, tmp_path, Console(quiet=True))
    assert (tmp_path / "phase2.pt").stat().st_mtime_ns == before
    assert sum(p.numel() for p in model.parameters()) < 1_250_000
    with pytest.raises(SystemExit, match="another recipe"):
        interim.train(interim.Recipe(seed=2, batch=2, phases=phases), logs, tmp_path, Console(quiet=True))
