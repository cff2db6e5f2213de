"""Pseudo-labels cleared of motion that the sweeps do not bear out. No label but the teacher's is asked.

A teacher that fits one sweep to the next also bends what stands: along walls and hedges, where a surface that slides
within itself fits as well, and at the edges of shadows. Mostly that motion is small, but more points have it than
really move.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from zeroflow_core.distillation.training.samples import Sample
from zeroflow_core.verification.verdicts import SLOWEST, STANDS, UNKNOWN, Rules, judge

_RULES = Rules(alike=0.15, fewest=10, lowest=0.2, explained=0.7, refuted=0.9)


def refine(sample: Sample) -> Sample:
    """The sample with labels that say motion only where moving things explain the next sweep.

    A thing whose labels move keeps them where `judge` says that it moves; it gets zero flow where it stands, and none
    (NaN) where nobody can tell. Slower labels than SLOWEST become zero.
    """
    label = sample.label.copy()
    known = np.isfinite(label).all(axis=1)
    speed = np.zeros(len(label), dtype=np.float32)
    speed[known] = np.linalg.norm(label[known], axis=1) / abs(sample.dt)
    label[known & (speed < SLOWEST)] = 0
    moving = np.flatnonzero(speed >= SLOWEST)
    if len(moving) == 0 or len(sample.pc1) == 0:
        return replace(sample, label=label)
    verdict = judge(sample.pc0[moving], sample.label[moving], sample.pc1, sample.dt, _RULES)
    label[moving[verdict == STANDS]] = 0
    label[moving[verdict == UNKNOWN]] = np.nan
    return replace(sample, label=label)
