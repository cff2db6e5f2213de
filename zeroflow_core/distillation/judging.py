"""Student, teacher and zero flow on the same pairs, which the student has not learned from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from zeroflow_core.datasets.av2 import Log
from zeroflow_core.datasets.pseudo_labels import PseudoLabels
from zeroflow_core.distillation.pairs import PairRef, evenly
from zeroflow_core.evaluation import av2_2023, av2_2024
from zeroflow_core.evaluation.methods import Method, Settings, make_method
from zeroflow_core.evaluation.tally import Tally, add
from zeroflow_core.evaluation.truth import as_estimate, has_labels, read_truth, truth_problem
from zeroflow_core.ground import mark_ground
from zeroflow_core.pairs import make_pair

FIGURES = ("three_way_epe", "fd", "fs", "bs", "mean_dynamic")
_MOST = 64  # pairs


def judge_held_back(
    held_back: Sequence[PairRef], labels: PseudoLabels, checkpoint: Path, device: str
) -> dict[str, dict[str, float | None]]:
    """Errors of zero flow, student and teacher by the labels of the logs themselves, on the same held-back pairs.

    held_back:  pairs; at most 64 of them, spread evenly, are looked at
    labels:     of the teacher
    checkpoint: of the student

    Returns by method the FIGURES: metres by av2-2023, and the ratio mean_dynamic by av2-2024. Empty where no pair has
    labels of its own that tell the truth.

    Raises:
        ZeroFlowError: a file that is missing or damaged.
    """
    labelled: dict[Path, bool] = {}
    for pair in held_back:
        if pair.log not in labelled:
            labelled[pair.log] = has_labels(Log(pair.log))
    pairs = evenly([pair for pair in held_back if labelled[pair.log]], _MOST)
    pairs = [pair for pair in pairs if truth_problem(Log(pair.log), pair.index) is None]
    if not pairs:
        return {}
    root = pairs[0].log.parent
    how = {
        "zero": Settings(root, method="zero"),
        "student": Settings(root, checkpoint=str(checkpoint), device=device),
        "teacher": Settings(root, method="labels", labels=labels.forward),
    }
    return _scores(pairs, {name: make_method(settings) for name, settings in how.items()})


def _scores(pairs: Sequence[PairRef], methods: dict[str, Method]) -> dict[str, dict[str, float | None]]:
    definitions = av2_2023, av2_2024
    pools: dict[str, dict[str, Tally]] = {name: {one.NAME: {} for one in definitions} for name in methods}
    log: Log | None = None
    for pair in pairs:
        if log is None or log.path != pair.log:
            log = Log(pair.log)
            rules = {name: method.ground_rule(log) for name, method in methods.items()}
        truth = read_truth(log, pair.index)
        for name, method in methods.items():
            sweeps = (mark_ground(log.sweep(k), rules[name]) for k in (pair.index, pair.index + 1))
            estimate = as_estimate(method.flow(log, pair.index, make_pair(*sweeps)))
            for one in definitions:
                add(pools[name][one.NAME], one.tally(truth, estimate))
    return {name: _figures(pool) for name, pool in pools.items()}


def _figures(pool: dict[str, Tally]) -> dict[str, float | None]:
    errors, scores = (one.figures(pool[one.NAME]) for one in (av2_2023, av2_2024))
    return {**{part: errors[part] for part in FIGURES[:4]}, "mean_dynamic": scores["mean_dynamic"]}
