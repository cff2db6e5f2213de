"""The figures of one pair by every definition, where no run pools many pairs."""

from __future__ import annotations

import numpy as np

from zeroflow_core.evaluation.results import DEFINITIONS
from zeroflow_core.evaluation.truth import Estimate, PairTruth


def figures_of(truth: PairTruth, estimate: Estimate) -> dict[str, dict]:
    """What each definition, by its name, says of the estimate."""
    return {module.NAME: module.figures(module.tally(truth, estimate)) for module in DEFINITIONS}


def figures_of_zero_flow(truth: PairTruth) -> dict[str, dict]:
    """The same of saying that nothing moves: what every method has to stay below."""
    residual = np.zeros(truth.points0.shape, dtype=np.float32)
    return figures_of(truth, Estimate(residual, np.ones(len(residual), dtype=bool)))
