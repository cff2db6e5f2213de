"""End-point errors of an estimate beside those of zero flow, moving and standing points apart."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

DYNAMIC_SPEED = 0.5  # m/s; ZeroFlow's border between moving and standing


@dataclass
class FlowErrors:
    """Sums over any number of pairs. All figures are in metres per interval unless a name says otherwise.

    Points without an estimate (NaN) are not scored; `coverage` says how many had one.
    """

    _sums: dict[str, float] = field(default_factory=lambda: dict.fromkeys(_SUMS, 0.0))

    def add(self, estimate: np.ndarray, truth: np.ndarray, dt: float) -> None:
        """estimate, truth: (N,3) residual flow in metres over `dt` seconds."""
        scored = np.isfinite(estimate).all(axis=1) & np.isfinite(truth).all(axis=1)
        self._sums["points"] += len(estimate)
        estimate, truth = estimate[scored].astype(np.float64), truth[scored].astype(np.float64)
        error, motion = np.linalg.norm(estimate - truth, axis=1), np.linalg.norm(truth, axis=1)
        dynamic = motion >= DYNAMIC_SPEED * abs(dt)
        too_fast = np.linalg.norm(estimate, axis=1) > DYNAMIC_SPEED * abs(dt)
        for name, value in {
            "scored": len(error),
            "dynamic": dynamic.sum(),
            "dynamic_error": error[dynamic].sum(),
            "dynamic_motion": motion[dynamic].sum(),
            "static_error": error[~dynamic].sum(),
            "static_motion": motion[~dynamic].sum(),
            "static_too_fast": (too_fast & ~dynamic).sum(),
        }.items():
            self._sums[name] += float(value)

    @property
    def dynamic_points(self) -> int:
        return int(self._sums["dynamic"])

    @property
    def static_points(self) -> int:
        return int(self._sums["scored"] - self._sums["dynamic"])

    @property
    def dynamic_epe(self) -> float:
        return self._mean("dynamic_error", self.dynamic_points)

    @property
    def dynamic_epe_of_zero(self) -> float:
        """What answering zero everywhere would score on the moving points: their mean motion."""
        return self._mean("dynamic_motion", self.dynamic_points)

    @property
    def static_epe(self) -> float:
        return self._mean("static_error", self.static_points)

    @property
    def static_epe_of_zero(self) -> float:
        return self._mean("static_motion", self.static_points)

    @property
    def static_too_fast(self) -> float:
        """Share of standing points whose estimate exceeds 0.5 m/s."""
        return self._mean("static_too_fast", self.static_points)

    @property
    def coverage(self) -> float:
        """Share of points with an estimate."""
        return self._mean("scored", int(self._sums["points"]))

    def to_dict(self) -> dict[str, float]:
        names = ("dynamic_points", "static_points", "dynamic_epe", "dynamic_epe_of_zero", "static_epe")
        names += ("static_epe_of_zero", "static_too_fast", "coverage")
        return {name: getattr(self, name) for name in names}

    def _mean(self, name: str, count: int) -> float:
        return self._sums[name] / count if count else float("nan")


_SUMS = (
    "points",
    "scored",
    "dynamic",
    "dynamic_error",
    "dynamic_motion",
    "static_error",
    "static_motion",
    "static_too_fast",
)
