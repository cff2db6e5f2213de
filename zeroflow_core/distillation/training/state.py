"""Where a training is, in a file: a checkpoint in the published layout, with what it takes to go on."""

from __future__ import annotations

import io
import json
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from zeroflow_core.distillation.training.task import Weights
from zeroflow_core.errors import ZeroFlowError, differences
from zeroflow_core.fastflow3d.checkpoint import FORMAT_VERSION
from zeroflow_core.files import new_file

_LIGHTNING = "1.9.4"  # whose layout the published checkpoints have


@dataclass
class Progress:
    """How far a training is; plain data.

    step:    of the optimiser, made so far
    epoch:   it is in, and `batch`, how many of its batches are done
    best:    score of the best epoch so far; unimproved: epochs since
    figures: of the best epoch's validation
    recent:  losses since the last row of the curves
    seconds: of training, and waited: of them for data
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    best: float = float("inf")
    unimproved: int = 0
    figures: dict[str, float | None] = field(default_factory=dict)
    recent: list[float] = field(default_factory=list)
    seconds: float = 0.0
    waited: float = 0.0


def save_state(
    path: Path,
    weights: Weights,
    metadata: dict[str, Any],
    progress: Progress,
    training: dict[str, Any] | None = None,
) -> None:
    """Write a checkpoint that load_student reads, complete or not at all.

    weights:  of the student as it would be used, keys with the published prefix ``model.``
    metadata: for its ``zeroflow`` entry, ``grid`` among it
    training: with which `load_state` goes on: ``student``, ``optimiser`` and ``average`` state dicts and the task's
              ``identity``; None for weights alone

    Raises:
        ZeroFlowError: the file system refuses.
    """
    content = {
        "epoch": progress.epoch,
        "global_step": progress.step,
        "pytorch-lightning_version": _LIGHTNING,
        "state_dict": weights,
        "loops": {},
        "callbacks": {},
        "optimizer_states": [] if training is None else [training["optimiser"]],
        "lr_schedulers": [],
        "zeroflow": {"format": FORMAT_VERSION, **metadata},
    }
    if training is not None:
        content["zeroflow_training"] = {
            "student": training["student"],
            "average": training["average"],
            "identity": json.dumps(training["identity"]),
            "progress": dict(vars(progress)),
        }
    written = io.BytesIO()  # not straight into a file: torch's own sentence about a full disk is a riddle
    torch.save(content, written)
    with new_file(path, "wb") as file:
        file.write(written.getbuffer())


def load_state(path: Path, identity: dict[str, Any]) -> tuple[dict[str, Any], Progress]:
    """What save_state wrote for going on: state dicts ``student``, ``average`` and ``optimiser``, on the CPU, and the
    progress.

    Raises:
        ZeroFlowError: damaged, no such checkpoint, or of another task: it says in what they differ.
    """
    content, there, progress = _read(path)
    training, here = content["zeroflow_training"], json.loads(json.dumps(identity))
    if there != here:
        raise ZeroFlowError(
            f"{path} belongs to another training ({differences(there, here)}); choose another --out, or "
            "remove it to start afresh"
        )
    states = {"student": training["student"], "average": training["average"]}
    return states | {"optimiser": content["optimizer_states"][0]}, progress


def step_of(path: Path) -> int:
    """How many steps the training there has made.

    Raises:
        ZeroFlowError: damaged, or no such checkpoint.
    """
    return _read(path)[2].step


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Any], Progress]:
    """The content of a checkpoint to go on from, and of it the task's identity and the progress."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        training = content["zeroflow_training"]
        return content, json.loads(training["identity"]), Progress(**training["progress"])
    except (OSError, RuntimeError, KeyError, TypeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        why = (str(error) or type(error).__name__).splitlines()[0][:100]
        raise ZeroFlowError(
            f"{path} can't be read, or holds no training to go on with ({why}); remove it to start afresh, or choose "
            "another --out"
        ) from error
