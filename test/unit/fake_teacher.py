"""A teacher that answers at once, for the tests of what asks it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from zeroflow_core.nsfp.plain import OnIteration
from zeroflow_core.pairs import Flow, FramePair, Status, as_flow

FLOW = (0.6, 0.0, 0.1)  # metres: what it says of every point within REACH that is not ground
REACH = 30.0  # metres, to all sides


class FakeTeacher:
    """Stands in for zeroflow_core.nsfp.teacher.Teacher.

    asked:   of the class: the arguments of each one made
    seen:    of the class: the pairs labelled
    problem: of the class: what labels say instead of giving an estimate
    failed:  of the class: the problem is none of the pair's
    """

    asked: list[tuple] = []
    seen: list[FramePair] = []
    problem: str | None = None
    failed: bool = False

    def __init__(self, method: str, config: str, *, device: str, seed: int) -> None:
        self.asked.append((method, config, device, seed))
        self.name = f"fake {method}, {config}"
        self.identity = {"method": method, "config": config, "corner": (1.0, 2.0), "seed": seed}

    def label_one(self, pair: FramePair, on_iteration: OnIteration | None = None) -> SimpleNamespace:
        self.seen.append(pair)
        if on_iteration is not None:
            on_iteration(384, 0.01234567)
        with np.errstate(invalid="ignore"):
            near = (np.abs(pair.pc0) <= REACH).all(axis=1)
        estimate = np.where(near[:, None], np.float32(FLOW), np.float32(np.nan))
        if self.problem is None:
            flow = self._flow(estimate, pair)
            return SimpleNamespace(flow=flow, iterations=384, loss=0.01234567, problem=None, failed=False)
        flow = self._flow(np.full_like(estimate, np.nan), pair)
        flow.status[near & ~pair.is_ground0] = Status.NO_ESTIMATE
        return SimpleNamespace(
            flow=flow, iterations=0, loss=float("nan"), problem=self.problem, failed=self.failed
        )

    def _flow(self, estimate: np.ndarray, pair: FramePair) -> Flow:
        return as_flow(estimate, pair.pc0, pair.is_ground0, pair.dt)


def stand_in(monkeypatch, problem: str | None = None, *, failed: bool = False) -> type[FakeTeacher]:
    """Let a new fake take the teacher's place until the test ends."""
    fake = type("Fake", (FakeTeacher,), {"asked": [], "seen": [], "problem": problem, "failed": failed})
    monkeypatch.setattr("zeroflow_core.nsfp.teacher.Teacher", fake)
    return fake
