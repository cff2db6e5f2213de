"""Trainings in processes of their own: killed at random moments, and several that train together."""

from __future__ import annotations

import csv
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from training_cases import make_source

DRIVER = Path(__file__).with_name("train_driver.py")


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Eight pairs in both directions: six are learned from, in 6 steps an epoch."""
    root = tmp_path_factory.mktemp("root")
    make_source(root, (5, 5))
    return root


def _environment(repository: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"}


def _start(repository: Path, *arguments: object, under: tuple[str, ...] = ()) -> subprocess.Popen:
    command = [sys.executable, *under, str(DRIVER), *map(str, arguments)]
    return subprocess.Popen(
        command, env=_environment(repository), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def _finish(process: subprocess.Popen) -> str:
    text, _ = process.communicate(timeout=240)
    assert process.returncode == 0, text[-3000:]
    return text


def _rows(out: Path) -> list[tuple[str, ...]]:
    with open(out / "curves.csv", newline="") as file:
        return [(row["step"], row["epoch"], row["loss"], row["learning_rate"]) for row in csv.DictReader(file)]


def _is_step(line: str) -> bool:
    return line.split()[:1] != [] and line.split()[0].isdigit()


def _content(path: Path) -> dict:
    return torch.load(path, weights_only=True)


def _same(one: Path, other: Path) -> None:
    first, second = _content(one), _content(other)
    parts = [(first["state_dict"], second["state_dict"])]
    for one_state, other_state in zip(first["optimizer_states"], second["optimizer_states"], strict=True):
        parts += [(one_state["state"][key], other_state["state"][key]) for key in one_state["state"]]
    for mine, theirs in parts:
        assert mine.keys() == theirs.keys() and all(torch.equal(mine[key], theirs[key]) for key in mine)


def test_killed_at_random_moments_it_ends_as_if_it_had_not_been(root, tmp_path, repository):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    _finish(_start(repository, root, whole, 60, 0))
    steps = len(_rows(whole))
    assert steps == 48
    rng, last = random.Random(7), 0
    for _ in range(5):
        process = _start(repository, root, killed, 0.05, 1)
        more = rng.randint(1, 9)
        seen = 0
        for line in filter(_is_step, process.stdout):
            seen += 1
            if seen > more:
                break
            last = max(last, int(line.split()[0]))
        assert process.poll() is None, "it ended before it was killed"
        time.sleep(rng.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert 0 < last < steps, "the kills were not in the middle"
    _finish(_start(repository, root, killed, 60, 0))
    assert _rows(killed) == _rows(whole)
    for name in ("last.ckpt", "best.ckpt"):
        _same(killed / name, whole / name)
    assert (killed / "student.safetensors").read_bytes() == (whole / "student.safetensors").read_bytes()
    assert not [path.name for path in killed.iterdir() if path.name.startswith(".")]


def test_two_processes_train_together(root, tmp_path, repository):
    """Ranks agree, only the first one writes, and an interrupted training goes on as it would have."""
    whole, halved = tmp_path / "whole", tmp_path / "halved"
    under = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    text = _finish(_start(repository, root, whole, 60, 0, under=under))
    assert len(_rows(whole)) == 48 and [int(row[0]) for row in _rows(whole)] == list(range(1, 49))
    lines = text.splitlines()
    assert sum(line.startswith("48 validating") for line in lines) == 1, "only the first one tells"
    digests = {line.split()[1]: line.split()[2] for line in lines if line.startswith("digest ")}
    assert digests.keys() == {"0", "1"} and digests["0"] == digests["1"], "both have the same student"
    process = _start(repository, root, halved, 0, 0, under=under)
    for line in process.stdout:
        if line.startswith("20 "):
            break
    process.send_signal(signal.SIGTERM)  # torchrun ends its processes
    process.communicate(timeout=60)
    assert process.returncode != 0 and 20 <= len(_rows(halved)) < 48
    _finish(_start(repository, root, halved, 60, 0, under=under))
    assert _rows(halved) == _rows(whole)
    _same(halved / "last.ckpt", whole / "last.ckpt")
    alone = _start(repository, root, whole, 60, 0)
    text, _ = alone.communicate(timeout=60)
    assert alone.returncode != 0 and "its processes is 2, not 1" in text
