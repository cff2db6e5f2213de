"""The vehicle's motion during each sweep taken out, by the poses of its neighbours."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

import numpy as np

from zeroflow_core.ego_motion import LONGEST_GAP_NS, deskew
from zeroflow_core.pairs import Sweep

Cloud = TypeVar("Cloud")


def deskewed(located: Iterable[tuple[Cloud, Sweep]]) -> Iterator[tuple[Cloud, Sweep]]:
    """Sweeps with poses, in the order of their stamps, each with what it was made of; read one ahead.

    The motion is that from or to the neighbour on whose side of the stamp most of the points were measured, or else the
    other one. A sweep with no neighbour within a second stays as it is.
    """
    before: Sweep | None = None
    held: tuple[Cloud, Sweep] | None = None  # until the motion after it is known
    for following in located:
        if held is not None:
            yield held[0], _deskewed(before, held[1], following[1])
            before = held[1]
        held = following
    if held is not None:
        yield held[0], _deskewed(before, held[1], None)


def _deskewed(before: Sweep | None, sweep: Sweep, after: Sweep | None) -> Sweep:
    if sweep.time_offset_ns is None:
        return sweep
    sides = (after, before) if np.median(sweep.time_offset_ns) >= 0 else (before, after)
    near = [other for other in sides if other is not None and 0 < _apart(sweep, other) <= LONGEST_GAP_NS]
    if not near:
        return sweep
    motion = sweep.world_SE3_ego.inverse() @ near[0].world_SE3_ego
    return deskew(sweep, motion, near[0].stamp_ns - sweep.stamp_ns)


def _apart(one: Sweep, other: Sweep) -> int:
    return abs(other.stamp_ns - one.stamp_ns)
