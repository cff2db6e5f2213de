"""Pairs in portions: what one process takes at a time, and what becomes of a portion whose process died."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from zeroflow_core.distillation.pairs import PairRef
from zeroflow_core.errors import ZeroFlowError

Chunk = tuple[PairRef, ...]

_MOST_DEATHS = 3  # of processes that had one pair alone, before that pair has failed
_DEATHS_IN_A_ROW = 24  # more than it takes to find one fatal pair in the largest chunk


def shard_of(refs: Sequence[PairRef], shard: tuple[int, int]) -> list[PairRef]:
    """The part of the pairs that is shard `shard[0]` of `shard[1]`, counted from 0. Together the shards have all.

    Raises:
        ZeroFlowError: there is no such shard.
    """
    i, n = shard
    if not 0 <= i < n:
        raise ZeroFlowError(f"there is no shard {i}/{n}; with {n} shards they are 0/{n} to {n - 1}/{n}")
    return list(refs[len(refs) * i // n : len(refs) * (i + 1) // n])


def chunks_of(refs: Sequence[PairRef], processes: int, most: int) -> list[Chunk]:
    """The pairs in chunks of at most `most`, so small that no process is left with nothing to do for long."""
    size = max(1, min(most, len(refs) // (4 * processes)))
    return [tuple(refs[start : start + size]) for start in range(0, len(refs), size)]


class Deaths:
    """Finds the pairs that their process does not survive, among those that were only there when it died."""

    def __init__(self) -> None:
        self._of_pair: Counter[PairRef] = Counter()
        self._in_a_row = 0

    def pair_is_done(self) -> None:
        self._in_a_row = 0

    def chunks_after(self, left: Chunk, cause: str) -> list[Chunk]:
        """The chunks to do in place of one whose process died; none when its only pair is to blame.

        left: its pairs that were not done

        Raises:
            ZeroFlowError: processes die one after the other, whatever they do.
        """
        self._in_a_row += 1
        if self._in_a_row > _DEATHS_IN_A_ROW:
            raise ZeroFlowError(f"{self._in_a_row} processes ended one after the other before a pair was done: {cause}")
        if len(left) > 1:
            half = len(left) // 2
            return [left[:half], left[half:]]
        if not left:
            return []
        self._of_pair[left[0]] += 1
        return [] if self._of_pair[left[0]] >= _MOST_DEATHS else [left]
