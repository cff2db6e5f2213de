"""Who drives how fast: drivers that keep their distance, slow down in bends and stop at lines."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zeroflow_core.simulation.paths import STEP, Path
from zeroflow_core.simulation.tracks import KNOT_S

LATERAL = 2.2  # comfortable acceleration across in bends, m/s²
BRAKING = 1.6  # comfortable, m/s²
HARDEST = 3.0  # either way, m/s²
FASTEST = 34.5  # anybody, m/s
STANDING = 2.0  # gap to whoever stands in front, metres
HEADWAY = 1.1  # gap when driving, seconds
FIRM = 0.4  # seconds within which who is too fast for a bend slows down


@dataclass
class Driver:
    """Someone at the wheel, on a path.

    start:  arc length of the vehicle's middle at the first knot, metres
    speed:  there, m/s
    wish:   (K,) speed it would like at each knot if nobody was in the way, m/s
    front, rear: of the vehicle, before and behind its middle, metres
    leader: who drives in front of it, on a path whose arc lengths are comparable; None for nobody
    stops:  (arc length, from time, until time) of lines that its front must not pass meanwhile
    lively: factor on its acceleration
    """

    path: Path
    start: float
    speed: float
    wish: np.ndarray
    front: float = 2.45
    rear: float = 2.45
    leader: Driver | None = None
    stops: tuple[tuple[float, float, float], ...] = ()
    lively: float = 1.0


def moods(rng: np.random.Generator, times: np.ndarray, speed: float, restless: float) -> np.ndarray:
    """Wished speeds (K,) about `speed` m/s: now and then (`restless`: times a minute) someone brakes or stops."""
    parts, wish = ((0.0, 0.35, 0.6, 1.15), np.full(len(times), speed))
    if speed > 17:  # nobody stops there for nothing
        parts = (0.8, 0.85, 0.9, 1.1)
    begin = times[0] + rng.exponential(60 / restless) * 0.5
    while begin < times[-1]:
        lasts, part = rng.uniform(1.5, 5.0), rng.choice(parts, p=[0.25, 0.25, 0.3, 0.2])
        wish[(times >= begin) & (times < begin + lasts)] *= part
        begin += lasts + rng.exponential(60 / restless)
    return np.minimum(wish, FASTEST)


def drive(drivers: list[Driver], times: np.ndarray) -> np.ndarray:
    """Arc lengths (D,K), metres, of all drivers on their paths at each knot; they never roll back.

    An intelligent-driver model with limited acceleration and a smoothed foot on the pedal.
    """
    if not drivers:
        return np.zeros((0, len(times)))
    index = {id(driver): i for i, driver in enumerate(drivers)}
    leader = np.array([index[id(d.leader)] if d.leader is not None else -1 for d in drivers])
    between = np.array([d.front + (d.leader.rear if d.leader is not None else 0) for d in drivers])
    wish, limit = np.stack([d.wish for d in drivers]), _limits([d.path for d in drivers])
    front = np.array([d.front for d in drivers])
    lively = np.array([d.lively for d in drivers])
    stops = _stops(drivers)
    rows, s, v = np.arange(len(drivers)), np.array([d.start for d in drivers]), np.array([d.speed for d in drivers])
    a, travelled = np.zeros(len(drivers)), np.empty((len(drivers), len(times)))
    v = np.minimum(v, limit[rows, np.clip((s / STEP).astype(int), 0, limit.shape[1] - 1)])
    for k, time in enumerate(times):
        travelled[:, k] = s
        bend = limit[rows, np.clip((s / STEP).astype(int), 0, limit.shape[1] - 1)]
        gap = np.where(leader >= 0, s[leader] - s - between, np.inf)
        closing = np.where(leader >= 0, v - v[leader], 0.0)
        if stops.shape[1]:
            ahead = stops[..., 0] + STANDING - front[:, None] - s[:, None]
            minded = (stops[..., 1] <= time) & (time < stops[..., 2])
            minded &= ahead - STANDING > v[:, None] ** 2 / (2 * HARDEST) - 1  # a line too near to stop at is passed
            line = np.where(minded, ahead, np.inf).min(axis=1)
            closing, gap = np.where(line < gap, v, closing), np.minimum(gap, line)
        target = _pedal(v, np.minimum(wish[:, k], bend), gap, closing, lively)
        target = np.where(v > bend, np.minimum(target, (bend - v) / FIRM), target)
        a += (np.clip(target, -HARDEST, HARDEST) - a) * min(KNOT_S / 0.25, 1)
        faster = np.maximum(v + a * KNOT_S, 0)
        faster[(v < 0.05) & (target < 0.1)] = 0  # nobody creeps
        s, v = s + (v + faster) / 2 * KNOT_S, faster
        a[(v == 0) & ((a < 0) | (target < 0.1))] = 0
    return travelled


def _pedal(v: np.ndarray, free: np.ndarray, gap: np.ndarray, closing: np.ndarray, lively: np.ndarray) -> np.ndarray:
    """Accelerations (D,) of the model at speeds v for a free speed, a gap to what is ahead and the speed towards it."""
    fastest = 1.5 * lively
    ratio = v / np.maximum(free, 0.01)
    alone = np.where(ratio <= 1, fastest * (1 - ratio**4), -BRAKING * (1 - 1 / np.maximum(ratio, 1) ** 4))
    alone = np.where(free > 0, alone, -BRAKING)
    wanted = STANDING + np.maximum(v * HEADWAY + v * closing / (2 * np.sqrt(fastest * BRAKING)), 0)
    return alone - fastest * (wanted / np.maximum(gap, 0.3)) ** 2


def _limits(paths: list[Path]) -> np.ndarray:
    """Speeds (D,N) at every point of every path that bends allow, braking in time included, m/s."""
    limit = np.full((len(paths), max(len(path.points) for path in paths)), np.inf)
    for row, path in zip(limit, paths, strict=True):
        squared = LATERAL / np.maximum(path.curvature(), 1e-4)
        # the speed from which braking still reaches every lower limit ahead
        way = 2 * BRAKING * 0.7 * STEP * np.arange(len(squared))
        row[: len(squared)] = np.sqrt(np.minimum.accumulate((squared + way)[::-1])[::-1] - way)
    return limit


def _stops(drivers: list[Driver]) -> np.ndarray:
    """(D,S,3), filled up with lines that are never minded."""
    stops = np.full((len(drivers), max(len(d.stops) for d in drivers), 3), np.inf)
    for row, driver in zip(stops, drivers, strict=True):
        row[: len(driver.stops)] = np.reshape(driver.stops, (-1, 3))
    return stops
