"""Which pairs of sweeps are learned from, and those pairs from disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zeroflow_core.datasets.av2 import Log
from zeroflow_core.datasets.ground_choice import ground_of
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.ground import mark_ground
from zeroflow_core.pairs import FramePair, Sweep, make_pair

_LONGEST = 1.5  # times the usual interval of a log


@dataclass(frozen=True, order=True)
class PairRef:
    """The sweeps `index` and `index` + 1 of a log.

    log: the log's folder
    """

    log: Path
    index: int


def choose_pairs(logs: Sequence[Path], per_log: int | None = None) -> list[PairRef]:
    """Pairs of consecutive sweeps, log by log and in the order of time. Logs of one sweep give none. Two sweeps that
    are further apart than is usual in their log, as one between them is missing, are no pair.

    per_log: at most so many of each log, spread evenly over it

    Raises:
        ZeroFlowError: no pair at all, an unusable number, or something that is no log.
    """
    if per_log is not None and per_log < 1:
        raise ZeroFlowError(f"the pairs per log can't be {per_log}; give 1 or more")
    chosen = []
    for path in logs:
        indices = _close_together(Log(path).stamps_ns)
        if per_log is not None:
            indices = evenly(indices, per_log)
        chosen += [PairRef(path, i) for i in indices]
    if not logs:
        raise ZeroFlowError("no log was given to take pairs of sweeps from")
    if not chosen:
        what = f"{logs[0]} has one sweep" if len(logs) == 1 else f"the {len(logs)} logs have one sweep each"
        raise ZeroFlowError(f"there is no pair of sweeps: {what}, and flow needs two")
    return chosen


def _close_together(stamps_ns: np.ndarray) -> list[int]:
    """Indices of the sweeps that the next one follows at about the usual interval."""
    intervals = np.diff(stamps_ns)
    return np.flatnonzero(intervals <= _LONGEST * np.median(intervals)).tolist() if len(intervals) else []


def evenly(items: Sequence, count: int) -> list:
    """At most `count` of the items, spread evenly over all of them."""
    if len(items) <= count:
        return list(items)
    return [items[k * len(items) // count] for k in range(count)]


class LogPairs:
    """Pairs of one log from disk, ground marked. What neighbouring pairs share is read and marked once.

    Raises:
        ZeroFlowError: here and from `pair`: no log, a damaged one, or one without the map that `ground` asks for.
    """

    def __init__(self, path: Path, ground: str = "auto") -> None:
        """ground: as of datasets.ground_choice.ground_of"""
        self.log = Log(path)
        self._rule = ground_of(self.log, ground)
        self._marked: dict[int, Sweep] = {}

    def pair(self, i: int) -> FramePair:
        """The pair of sweeps `i` and `i` + 1."""
        self._marked = {k: self._sweep(k) for k in (i, i + 1)}
        return make_pair(self._marked[i], self._marked[i + 1])

    def _sweep(self, k: int) -> Sweep:
        return self._marked[k] if k in self._marked else mark_ground(self.log.sweep(k), self._rule)
