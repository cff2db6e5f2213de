"""What a student of scene flow learns from: two clouds in one frame, and the flow of the first one's points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from zeroflow_core.fastflow3d.config import FastFlow3DConfig
from zeroflow_core.geometry import SE3


@dataclass(frozen=True)
class Sample:
    """
    pc0, pc1: (N0,3), (N1,3) float32, metres, both in the vehicle frame of pc0, finite, without ground
    label:    (N0,3) float32, metres over `dt`, residual flow of pc0's points towards pc1; NaN where there is no label
    dt:       seconds from pc0 to pc1; negative where pc1 is the earlier sweep
    ring0, ring1: (N0,), (N1,) uint16, which beam a point is of, or None
    low:      (2,) float32, metres: lower corner, in x and y, of the window of the grid that the sample shows; None
              for the whole grid
    """

    pc0: np.ndarray
    pc1: np.ndarray
    label: np.ndarray
    dt: float
    ring0: np.ndarray | None = None
    ring1: np.ndarray | None = None
    low: np.ndarray | None = None

    def take(self, kept0: np.ndarray, kept1: np.ndarray) -> Sample:
        """The sample with these points alone: (N0,) and (N1,) bool."""
        rows0, rows1 = np.flatnonzero(kept0), np.flatnonzero(kept1)  # taking rows by mask is slow
        return replace(
            self,
            pc0=self.pc0.take(rows0, axis=0),
            pc1=self.pc1.take(rows1, axis=0),
            label=self.label.take(rows0, axis=0),
            ring0=None if self.ring0 is None else self.ring0.take(rows0),
            ring1=None if self.ring1 is None else self.ring1.take(rows1),
        )


@dataclass(frozen=True)
class TwoWaySample:
    """A pair as it is kept for training: each cloud in its own vehicle frame, with its own label.

    pc0, pc1:       (N0,3), (N1,3) float32, metres
    label0, label1: (N0,3), (N1,3) float, metres: of pc0's points towards pc1 in the first vehicle frame, of pc1's
                    towards pc0 in the second; NaN where there is none. label1 is None without reverse labels
    ego0_SE3_ego1:  maps the second vehicle frame into the first
    dt:             seconds from pc0 to pc1
    ring0, ring1:   as in Sample
    """

    pc0: np.ndarray
    pc1: np.ndarray
    label0: np.ndarray
    label1: np.ndarray | None
    ego0_SE3_ego1: SE3
    dt: float
    ring0: np.ndarray | None = None
    ring1: np.ndarray | None = None

    def forward(self) -> Sample:
        """From the earlier sweep to the later one."""
        pc1 = self.ego0_SE3_ego1.transform(self.pc1)
        return Sample(self.pc0, pc1, self.label0.astype(np.float32), self.dt, self.ring0, self.ring1)

    def reverse(self) -> Sample:
        """From the later sweep back to the earlier one: time the other way round.

        Raises:
            ValueError: there are no reverse labels.
        """
        if self.label1 is None:
            raise ValueError("this pair has no reverse labels")
        pc0 = self.ego0_SE3_ego1.inverse().transform(self.pc0)
        return Sample(self.pc1, pc0, self.label1.astype(np.float32), -self.dt, self.ring1, self.ring0)


def inside(points: np.ndarray, low: Sequence[float], high: Sequence[float]) -> np.ndarray:
    """(N,) bool: which points lie from `low` to before `high`, along as many axes as these have."""
    within = np.ones(len(points), dtype=bool)
    for axis, (least, bound) in enumerate(zip(low, high, strict=True)):  # all() over rows is slow
        within &= (points[:, axis] >= least) & (points[:, axis] < bound)
    return within


def window_config(config: FastFlow3DConfig, share: float) -> FastFlow3DConfig:
    """The grid of a window whose side is about `share` of that of `config`'s grid: a whole number of the coarsest
    map's cells, around the same centre."""
    step = 2 ** len(config.blocks)
    cells = max(round(config.cells * share / step), 1) * step
    if cells >= config.cells:
        return config
    centre = (np.array(config.minimum[:2]) + config.maximum[:2]) / 2
    half = cells * config.pillar_size / 2
    low, high = (tuple(map(float, centre + side)) for side in (-half, half))
    return replace(config, minimum=(*low, config.minimum[2]), maximum=(*high, config.maximum[2]))


def cut_window(
    sample: Sample, config: FastFlow3DConfig, window: FastFlow3DConfig, around_motion: bool, rng: np.random.Generator
) -> Sample:
    """The part of the sample in a window of the grid, placed so that the window's maps are cut-outs of the grid's.

    config, window: the whole grid and a window's, as of window_config
    around_motion:  around a point whose label moves (0.5 m/s), where there is one, else around any point
    """
    if window.cells >= config.cells:
        return sample
    step = 2 ** len(config.blocks)
    low = np.asarray(config.minimum[:2])
    in_grid = inside(sample.pc0, low, config.maximum[:2])
    with np.errstate(invalid="ignore"):
        moving = in_grid & (np.linalg.norm(sample.label, axis=1) >= 0.5 * abs(sample.dt))
    spots = np.flatnonzero(moving if around_motion and moving.any() else in_grid)
    centre = sample.pc0[rng.choice(spots), :2].astype(np.float64) if len(spots) else (low + config.maximum[:2]) / 2
    corner = (centre - low) / config.pillar_size + (rng.uniform(-0.3, 0.3, 2) - 0.5) * window.cells
    corner = np.clip(corner, 0, config.cells - window.cells) // step * step
    start = (corner * config.pillar_size + low).astype(np.float32)
    end = start + np.float32(window.cells * config.pillar_size)
    in0, in1 = (inside(pc, start, end) for pc in (sample.pc0, sample.pc1))
    return replace(sample.take(in0, in1), low=start)
