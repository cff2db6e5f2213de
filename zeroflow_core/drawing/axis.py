"""Numbers to positions along an axis, with round numbers to write beside it."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor, log10


@dataclass(frozen=True)
class Axis:
    """Numbers to pixels. What lies beyond an end is put on that end."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def at(self, value: float) -> float:
        low, high, value = (log10(v) if self.logarithmic else v for v in (self.low, self.high, max(value, self.low)))
        return self.start + min((value - low) / (high - low), 1.0) * (self.end - self.start)

    @property
    def ticks(self) -> list[float]:
        if not self.logarithmic:
            step = round_up((self.high - self.low) / 6)
            return [k * step for k in range(ceil(self.low / step - 1e-6), floor(self.high / step + 1e-6) + 1)]
        decades = range(round(floor(log10(self.low))), round(ceil(log10(self.high))) + 1)
        mantissas = (1, 2, 5) if self.high / self.low <= 120 else (1,)
        ticks = [m * 10.0**k for k in decades for m in mantissas]
        return [tick for tick in ticks if self.low * 0.999 <= tick <= self.high * 1.001]


def round_up(value: float) -> float:
    """The next 1, 2 or 5 times a power of ten, for a value above 0."""
    decade = 10.0 ** floor(log10(value))
    return next(m * decade for m in (1, 2, 5, 10) if m * decade >= 0.999 * value)


def round_down(value: float) -> float:
    """The 1, 2 or 5 times a power of ten before a value above 0."""
    decade = 10.0 ** floor(log10(value))
    return next(m * decade for m in (5, 2, 1) if m * decade <= 1.001 * value)
