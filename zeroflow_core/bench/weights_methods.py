"""What is scored beside each other: zero flow, students, and a teacher whose answers are kept on disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from zeroflow_core.bench.weights_sets import WeightSet
from zeroflow_core.datasets.av2 import Log
from zeroflow_core.datasets.pseudo_labels import PseudoLabels
from zeroflow_core.distillation.labelling.label import LabelSettings, label
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.evaluation.methods import Method, Settings, make_method
from zeroflow_core.ground import mark_ground, no_ground
from zeroflow_core.pairs import Flow, FramePair, as_flow, make_pair

ZERO, TEACHER = "zero", "teacher"
FORWARD, REVERSE = "forward", "reverse"


@dataclass(frozen=True)
class Live:
    """A method that answers when it is asked: a student, or zero flow."""

    method: Method

    def flows(self, log: Log, i: int) -> tuple[dict[str, Flow], float]:
        """Flow of the pair of sweeps `i` and `i` + 1, and the seconds that the forward one took.

        Of the first sweep's points in FORWARD, of the second's towards the first in REVERSE.
        """
        rule = self.method.ground_rule(log)
        first, second = (mark_ground(log.sweep(k), rule) for k in (i, i + 1))
        pair = make_pair(first, second)
        start = time.perf_counter()
        forward = self.method.flow(log, i, pair)
        seconds = time.perf_counter() - start
        return {FORWARD: forward, REVERSE: self.method.flow(log, i, make_pair(second, first))}, seconds


@dataclass(frozen=True)
class Stored:
    """A method whose answers are on disk."""

    labels: PseudoLabels

    def flows(self, log: Log, i: int) -> tuple[dict[str, Flow], None]:
        """As Live.flows, in the directions that are there; how long they took is not known."""
        first, second = (mark_ground(log.sweep(k), no_ground) for k in (i, i + 1))
        if self.labels.has(log, i):
            forward, reverse = self.labels.read(log, i)
        else:  # the teacher had nothing to go by
            forward = np.full((len(first.points), 3), np.nan, dtype=np.float32)
            reverse = None if self.labels.reverse is None else np.full((len(second.points), 3), np.nan, np.float32)
        flows = {FORWARD: _as_flow(forward, make_pair(first, second))}
        if reverse is not None:
            flows[REVERSE] = _as_flow(reverse, make_pair(second, first))
        return flows, None


@dataclass(frozen=True)
class Contender:
    """
    said:    what it is, in a line
    answers: by the set's name
    """

    said: str
    answers: dict[str, Live | Stored]


def contenders(
    checkpoints: Sequence[str], sets: Sequence[WeightSet], device: str, unverified: bool = False
) -> dict[str, Contender]:
    """Zero flow, then students by name.

    checkpoints: NAME=FILE each, or what stands for weights elsewhere, which is then called after its file
    unverified:  students that are verified also without that, as ``NAME unverified``

    Raises:
        ZeroFlowError: weights that can't be used, or two of one name.
    """
    methods = {ZERO: make_method(Settings(Path(), method="zero"))}
    for words in checkpoints:
        name, equals, path = words.partition("=")
        if not equals or Path(words).is_file():
            name, path = Path(words).stem, words
        if not name or name in (*methods, TEACHER):
            raise ZeroFlowError(
                f"--checkpoint {words}: the name '{name}' is taken or empty; give it another, as NAME={path}"
            )
        settings = Settings(Path(), checkpoint=path, device=device)
        methods[name] = make_method(settings)
        if unverified and methods[name].identity["verify"] == "always":
            if f"{name} unverified" in methods:
                raise ZeroFlowError(f"--unverified: the name '{name} unverified' is taken; give that one another")
            methods[f"{name} unverified"] = make_method(replace(settings, verify="never"))
    return {name: Contender(one.name, {of.name: Live(one) for of in sets}) for name, one in methods.items()}


def teacher(
    sets: Sequence[WeightSet],
    config: str,
    folder: Path,
    jobs: int | None,
    device: str,
    on_pairs: Callable[[int], None] = lambda done: None,
) -> Contender:
    """NSFP in the configuration called `config`, whose labels go to `folder`; those that are there are kept.

    on_pairs: called with the number of pairs that are labelled

    Raises:
        ZeroFlowError: it failed on a pair, or the folder can't be used.
    """
    said, before = "", 0
    answers: dict[str, Live | Stored] = {}
    for one in sets:
        settings = LabelSettings(
            one.logs, "test", folder / config / one.name, teacher_config=config, jobs=jobs, device=device
        )
        done = label(settings, lambda progress, before=before: on_pairs(before + progress.done))
        if done.failed:
            raise ZeroFlowError(
                f"the teacher failed on pair {done.failed[0]['index']} of {one.name}: {done.failed[0]['error']}; the "
                "same command tries again"
            )
        before += len(one.pairs)
        said, answers[one.name] = done.manifest["teacher"], Stored(done.labels)
    return Contender(said, answers)


def _as_flow(vectors: np.ndarray, pair: FramePair) -> Flow:
    return as_flow(vectors, pair.pc0, pair.is_ground0, pair.dt)
