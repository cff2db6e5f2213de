"""Variations of a pair that could have been recorded as they are: points and labels change together.

What is taken away is taken away from both clouds; what is turned, mirrored or scaled is so in both, and so are the
labels, so that pc0 + label still lies where pc1 has the surface.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from zeroflow_core.distillation.training.samples import Sample
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.geometry import SE3

_MOST = {"turn": 180.0, "scale": 0.9, "height": 10.0, "odometry_m": 10.0, "odometry_deg": 90.0}


def check_number(name: str, value: Any, low: float, high: float, whole: bool = False) -> None:
    """
    Raises:
        ZeroFlowError: `value` is no number from `low` to `high`, or, with `whole`, no whole one.
    """
    kinds = (int,) if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
        what = "a whole number" if whole else "a number"
        raise ZeroFlowError(f"{name} must be {what} from {low:g} to {high:g}, not {value!r}")


@dataclass(frozen=True)
class Augmentation:
    """
    turn:        about z, by any angle up to this many degrees to either side
    mirror:      share of the samples in which left and right are exchanged
    scale:       by 1 ± this, evenly drawn
    height:      metres, standard deviation of a shift along z: sensors are not all mounted alike
    drop_beams:  share of the samples that lose beams, where the sweeps say which beam a point is of
    beams_kept:  the least share of its beams that such a sample keeps
    odometry_m, odometry_deg: standard deviations of an error in the ego motion between the sweeps, along each axis
                 and about z. The labels stay: what stands is to get zero flow in spite of it
    """

    turn: float = 180.0
    mirror: float = 0.5
    scale: float = 0.05
    height: float = 0.05
    drop_beams: float = 0.2
    beams_kept: float = 0.5
    odometry_m: float = 0.005
    odometry_deg: float = 0.02

    def __post_init__(self) -> None:
        for field in fields(self):
            value, share = getattr(self, field.name), field.name in ("mirror", "drop_beams", "beams_kept")
            check_number(f"augmentation.{field.name}", value, 0, 1 if share else _MOST[field.name])


NO_AUGMENTATION = Augmentation(0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0)


def augment(sample: Sample, how: Augmentation, rng: np.random.Generator) -> Sample:
    """A variation of the sample, drawn from `rng`: the same state gives the same one."""
    if how == NO_AUGMENTATION:
        return sample
    if rng.random() < how.drop_beams:
        sample = drop_beams(sample, rng.uniform(how.beams_kept, 1.0), rng)
    error = SE3.from_yaw(np.deg2rad(rng.normal(0, how.odometry_deg)), rng.normal(0, how.odometry_m, 3))
    sample = replace(sample, pc1=error.transform(sample.pc1))
    if rng.random() < how.mirror:
        sample = mirror(sample)
    sample = scale(sample, rng.uniform(1 - how.scale, 1 + how.scale))
    angle = np.deg2rad(rng.uniform(-how.turn, how.turn))
    return move(sample, SE3.from_yaw(angle, np.array([0.0, 0.0, rng.normal(0, how.height)])))


def move(sample: Sample, motion: SE3) -> Sample:
    """Both clouds moved rigidly; labels turn along."""
    pc0, pc1 = motion.transform(sample.pc0), motion.transform(sample.pc1)
    return replace(sample, pc0=pc0, pc1=pc1, label=motion.rotate(sample.label))


def mirror(sample: Sample) -> Sample:
    """Left and right exchanged: y changes its sign, as does the labels' y."""
    flip = np.float32([1, -1, 1])
    return replace(sample, pc0=sample.pc0 * flip, pc1=sample.pc1 * flip, label=sample.label * flip)


def scale(sample: Sample, factor: float) -> Sample:
    """A larger or smaller world, in which things also move further."""
    factor = np.float32(factor)
    return replace(sample, pc0=sample.pc0 * factor, pc1=sample.pc1 * factor, label=sample.label * factor)


def drop_beams(sample: Sample, kept: float, rng: np.random.Generator) -> Sample:
    """The sample as a scanner with fewer beams would see it: the share `kept` of the beams, the same in both clouds.

    A sample that does not say which beam its points are of stays as it is.
    """
    if sample.ring0 is None or sample.ring1 is None:
        return sample
    beams = np.union1d(sample.ring0, sample.ring1)
    if len(beams) < 2:
        return sample
    stays = rng.permutation(beams)[: max(round(kept * len(beams)), 1)]
    in0, in1 = np.isin(sample.ring0, stays), np.isin(sample.ring1, stays)
    return sample.take(in0, in1)
