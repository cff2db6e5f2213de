"""Trainings in processes of their own: killed at random moments, and several that train together."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from training_cases import make_source

DRIVER = Path(__file__).with_name("train_driver.py")
STEPS = [str(step) for step in range(1, 49)]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Eight pairs in both directions: six are learned from, in 6 steps an epoch."""
    root = tmp_path_factory.mktemp("root")
    make_source(root, (5, 5))
    return root


@pytest.fixture
def drive(root, repository):
    """Runs the driver with a plan and a folder; gives what it says."""

    def run(plan: str, folder: Path, *under: str) -> list[str]:
        environment = {**os.environ, "PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, *under, str(DRIVER), plan, str(root), str(folder)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
        return done.stdout.splitlines()

    return run


def _rows(out: Path) -> list[tuple[str, ...]]:
    with open(out / "curves.csv", newline="") as file:
        return [(row["step"], row["epoch"], row["loss"], row["learning_rate"]) for row in csv.DictReader(file)]


def _same(one: Path, other: Path) -> None:
    first, second = (torch.load(path, weights_only=True) for path in (one, other))
    parts = [(first["state_dict"], second["state_dict"])]
    for mine, theirs in zip(first["optimizer_states"], second["optimizer_states"], strict=True):
        parts += [(mine["state"][key], theirs["state"][key]) for key in mine["state"]]
    for mine, theirs in parts:
        assert mine.keys() == theirs.keys() and all(torch.equal(mine[key], theirs[key]) for key in mine)


def test_killed_at_random_moments_it_ends_as_if_it_had_not_been(drive, tmp_path):
    drive("killed", tmp_path)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert [row[0] for row in _rows(whole)] == STEPS
    assert _rows(killed) == _rows(whole)
    for name in ("last.ckpt", "best.ckpt"):
        _same(killed / name, whole / name)
    assert (killed / "student.safetensors").read_bytes() == (whole / "student.safetensors").read_bytes()
    assert not [path.name for path in killed.iterdir() if path.name.startswith(".")]


def test_two_processes_train_together(drive, tmp_path):
    """Both have the same student, only the first one writes and tells, and killed together they go on exactly."""
    whole, halved = tmp_path / "whole", tmp_path / "halved"
    said = drive("whole", whole, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    assert [row[0] for row in _rows(whole)] == STEPS
    assert said.count("validating 48") == 1
    digests = sorted(line.split()[1:] for line in said if line.startswith("digest "))
    assert [rank for rank, _ in digests] == ["0", "1"] and digests[0][1] == digests[1][1]
    said = drive("halved", halved)
    assert _rows(halved) == _rows(whole)
    _same(halved / "last.ckpt", whole / "last.ckpt")
    (refused,) = [line for line in said if line.startswith("refused: ")]
    assert "its processes is 2, not 1" in refused
