"""How good a student is while it learns: on held-back pairs by their pseudo-labels, on labelled logs by the field's
definitions."""

from __future__ import annotations

import math
from collections.abc import Sequence

from zeroflow_core.datasets.av2 import Log
from zeroflow_core.distillation.pairs import PairRef
from zeroflow_core.distillation.training.prepared import PreparedPairs, students_ground
from zeroflow_core.evaluation import av2_2023, av2_2024
from zeroflow_core.evaluation.errors import FlowErrors
from zeroflow_core.evaluation.tally import Tally, add
from zeroflow_core.evaluation.truth import as_estimate, read_truth
from zeroflow_core.fastflow3d.anchored import flow_estimator
from zeroflow_core.fastflow3d.student import Student
from zeroflow_core.ground import mark_ground
from zeroflow_core.pairs import make_pair


def errors_on_prepared(student: Student, sources: Sequence[PreparedPairs]) -> dict[str, float | None]:
    """By the pseudo-labels of pairs the student does not learn from, in every direction that has labels.

    ``heldback/moving_epe`` and ``still_epe`` in metres, apart by the labels' speed (0.5 m/s), and ``zero_…`` of them
    what answering zero would score.
    """
    errors = FlowErrors()
    for source in sources:
        for k in range(len(source)):
            two_way = source[k]
            samples = [two_way.forward()] + ([two_way.reverse()] if two_way.label1 is not None else [])
            for sample in samples:
                errors.add(student.flow(sample.pc0, sample.pc1), sample.label, sample.dt)
    if not sources:
        return {}
    figures = {
        "moving_epe": errors.dynamic_epe,
        "still_epe": errors.static_epe,
        "zero_moving_epe": errors.dynamic_epe_of_zero,
        "zero_still_epe": errors.static_epe_of_zero,
    }
    return {f"heldback/{name}": value if math.isfinite(value) else None for name, value in figures.items()}


def errors_on_labelled(student: Student, pairs: Sequence[PairRef]) -> dict[str, float | None]:
    """By the labels of logs that have their own: three-way EPE and its parts (av2-2023, metres) and the mean dynamic
    score of the 2024 challenge, as ``val/three_way_epe``, ``val/fd``, ``val/fs``, ``val/bs``, ``val/mean_dynamic``."""
    if not pairs:
        return {}
    pools: dict[str, Tally] = {av2_2023.NAME: {}, av2_2024.NAME: {}}
    flow_of, log = flow_estimator(student), None
    for pair in pairs:
        if log is None or log.path != pair.log:
            log = Log(pair.log)
        rule = students_ground(pair.log, student.metadata["ground"])
        truth = read_truth(log, pair.index)
        frames = make_pair(*(mark_ground(log.sweep(k), rule) for k in (pair.index, pair.index + 1)))
        estimate = as_estimate(flow_of(frames))
        for module in (av2_2023, av2_2024):
            add(pools[module.NAME], module.tally(truth, estimate))
    first, second = av2_2023.figures(pools[av2_2023.NAME]), av2_2024.figures(pools[av2_2024.NAME])
    figures = {part: first[part] for part in ("three_way_epe", "fd", "fs", "bs")}
    figures["mean_dynamic"] = second["mean_dynamic"]
    return {f"val/{part}": None if value is None else float(value) for part, value in figures.items()}
