"""What every kind of source gives: sweeps with the velocities of their points."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from zeroflow_core.pairs import Sweep


@dataclass(frozen=True)
class Frame:
    """
    index:    its number in the source
    sweep:    in the vehicle frame
    velocity: (N,3) float32, m/s over ground in the vehicle frame; NaN where there is no estimate
    truth:    (N,3) float32, likewise by labels, NaN where they say nothing; None where there are none
    """

    index: int
    sweep: Sweep
    velocity: np.ndarray
    truth: np.ndarray | None = None


class Frames(Protocol):
    """name: what is played; method: where its velocities are from; one line each."""

    name: str
    method: str

    def __len__(self) -> int:
        """How many frames there are, at most: clouds of a bag that cannot be used are known when they are reached."""
        ...

    def read(self, indices: Sequence[int]) -> Iterator[Frame]:
        """Those frames, in the order of `indices`, which ascend."""
        ...
