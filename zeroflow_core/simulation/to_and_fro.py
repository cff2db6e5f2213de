"""A drive that begins again where it ends, for as many clouds as somebody wants."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.pairs import Sweep
from zeroflow_core.simulation.scan import Simulator
from zeroflow_core.simulation.scanners import SCANNERS, Scanner
from zeroflow_core.simulation.scenes import make_scene

PERIOD_S = 4.0  # there and back
_STRETCH_S = 1.2  # of the scene's time between the two ends: in the middle of the way it then runs about as usual
_FLASH_S = 0.001  # a sweep's duration: nothing in it is skewed, whichever way time runs
_SPARE = 1.06  # share of points with which a scanner is made, as returns differ from sweep to sweep
_USUAL_RETURNS = 111_000  # of an HDL-64E's sweep in a junction


def to_and_fro(points: int, rate: float, seed: int = 1) -> list[Sweep]:
    """Sweeps of a vehicle among others at a junction, all of which move there and back again, gently at both ends.

    Played at `rate` one after the other, from the last one back to the first, they make one smooth drive.

    points: of each sweep
    rate:   sweeps per second

    The sweeps have exact poses, intensity, ring and times of points. Their own stamps count from 0.

    Raises:
        ZeroFlowError: fewer than one point, or fewer than two sweeps in the four seconds there and back.
    """
    half = round(rate * PERIOD_S / 2)
    if points < 1 or half < 1:
        raise ZeroFlowError(f"clouds of {points} points at {rate:g} Hz cannot be made; give at least 1 and 0.5 Hz")
    scene = make_scene("junction", seed=seed, seconds=_STRETCH_S + 1.0)
    simulator = Simulator(scene, _flash_scanner(points), seed)
    there = []
    for k in range(half + 1):
        at = _STRETCH_S / 2 * (1 - math.cos(math.pi * k / half))
        there.append(_of_size(simulator.sweep(round(at / _FLASH_S)).sweep, points, seed))
    round_trip = there + there[-2:0:-1]
    return [replace(sweep, stamp_ns=round(k * 1e9 / rate)) for k, sweep in enumerate(round_trip)]


def _flash_scanner(points: int) -> Scanner:
    """An HDL-64E with as many columns as give a little more than `points`, and no time between them."""
    scanner = SCANNERS["hdl64"]
    share = _SPARE * points / _USUAL_RETURNS
    heads = tuple(replace(head, columns=max(8, round(head.columns * share))) for head in scanner.heads)
    return replace(scanner, heads=heads, sweep_s=_FLASH_S)


def _of_size(sweep: Sweep, points: int, seed: int) -> Sweep:
    """The sweep with `points` of its points, in their order; where it has too few, some come twice."""
    rows = np.arange(len(sweep))
    random = np.random.default_rng(seed)
    if len(rows) < points:
        rows = np.sort(np.append(rows, random.choice(rows, points - len(rows))))
    else:
        rows = np.sort(random.choice(rows, points, replace=False))
    columns = {
        name: column[rows]
        for name in ("points", "intensity", "ring", "time_offset_ns")
        if (column := getattr(sweep, name)) is not None
    }
    return replace(sweep, **columns)
