"""What weights are worth on a set of pairs: errors by each definition, and how much of what stands seems to move."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from zeroflow_core.bench.weights_methods import FORWARD, REVERSE, Contender
from zeroflow_core.bench.weights_sets import WeightSet
from zeroflow_core.datasets.av2 import Log
from zeroflow_core.distillation.labelling.errors import reverse_truth
from zeroflow_core.evaluation import av2_2023, av2_2024
from zeroflow_core.evaluation.errors import FlowErrors
from zeroflow_core.evaluation.results import PARTS
from zeroflow_core.evaluation.tally import Tally, add
from zeroflow_core.evaluation.truth import Estimate, PairTruth, as_estimate, read_truth

DIRECTIONS = (FORWARD, REVERSE)
_DEFINITIONS = (av2_2023, av2_2024)


@dataclass
class Score:
    """Sums over the pairs of a set in one direction of time.

    scored: of the points that av2-2023 scores, which are not ground
    every:  of all points with a known motion, ground and far ones included
    """

    tallies: dict[str, Tally] = field(default_factory=lambda: {one.NAME: {} for one in _DEFINITIONS})
    scored: FlowErrors = field(default_factory=FlowErrors)
    every: FlowErrors = field(default_factory=FlowErrors)

    def add(self, truth: PairTruth, estimate: Estimate) -> None:
        for one in _DEFINITIONS:
            add(self.tallies[one.NAME], one.tally(truth, estimate))
        known = truth.scene_flow.is_valid & np.isfinite(truth.points0).all(axis=1)
        for errors, rows in ((self.scored, av2_2023.scored_points(truth)), (self.every, known)):
            errors.add(estimate.residual[rows], truth.scene_flow.residual[rows], truth.dt)

    def figures(self) -> dict[str, Any]:
        """Plain data; errors in metres over the pair, shares in 0…1, None where there is no point.

        three_way_epe, fd, fs, bs, num_fd, num_fs, num_bs, coverage: of av2-2023
        mean_dynamic, mean_static:   of av2-2024; the first is error ÷ speed
        moving_epe, moving_epe_zero: of the scored points from 0.5 m/s on, and what zero flow has there
        too_fast, too_fast_of_all:   share of the points that stand whose flow exceeds 0.5 m/s: of the scored ones, and
                                     of all, ground included
        standing, standing_of_all:   how many they are
        """
        by_2023, by_2024 = (one.figures(self.tallies[one.NAME]) for one in _DEFINITIONS)
        return {
            **{part: by_2023[part] for part in (*PARTS, "num_fd", "num_fs", "num_bs", "coverage")},
            **{name: by_2024[name] for name in ("mean_dynamic", "mean_static")},
            "moving_epe": _known(self.scored.dynamic_epe),
            "moving_epe_zero": _known(self.scored.dynamic_epe_of_zero),
            "too_fast": _known(self.scored.static_too_fast),
            "too_fast_of_all": _known(self.every.static_too_fast),
            "standing": self.scored.static_points,
            "standing_of_all": self.every.static_points,
        }


def score_set(
    one: WeightSet, methods: dict[str, Contender], on_pair: Callable[[], None] = lambda: None
) -> dict[str, dict[str, Any]]:
    """By the method's name: `forward` and `reverse`, the figures of Score, None without an answer or cuboids; and
    `seconds`, the median of a pair's flow once its ground is marked, None where it is not known.

    Forward is the flow of a pair's first sweep. Reverse, of the second towards the first, is what the live node asks
    for. All methods are scored on the same points; where one has no answer, it says that nothing moves.

    on_pair: called after every pair

    Raises:
        ZeroFlowError: a file that is missing or damaged.
    """
    scores = {name: {direction: Score() for direction in DIRECTIONS} for name in methods}
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    answered: dict[str, set[str]] = {name: set() for name in methods}
    for pair in one.pairs:
        log = Log(pair.log)
        truths = {FORWARD: read_truth(log, pair.index), REVERSE: reverse_truth(log, pair.index)}
        for name, method in methods.items():
            flows, took = method.answers[one.name].flows(log, pair.index)
            for direction, flow in flows.items():
                truth = truths[direction]
                if truth is not None:
                    answered[name].add(direction)
                    scores[name][direction].add(truth, as_estimate(flow))
            if took is not None:
                seconds[name].append(took)
        on_pair()
    return {
        name: {
            **{d: scores[name][d].figures() if d in answered[name] else None for d in DIRECTIONS},
            "seconds": statistics.median(seconds[name]) if seconds[name] else None,
        }
        for name in methods
    }


def ego_metres(one: WeightSet) -> float:
    """How far the ego goes in a pair of the set, in metres, on average."""
    steps = []
    for pair in one.pairs:
        log = Log(pair.log)
        before, after = (log.pose(int(log.stamps_ns[k])).translation for k in (pair.index, pair.index + 1))
        steps.append(math.dist(before, after))
    return statistics.fmean(steps)


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
