"""The teacher as everybody calls it: frame pairs in, labels out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from zeroflow_core.devices import choose_device
from zeroflow_core.geometry import SE3
from zeroflow_core.nsfp.config import TeacherConfig, teacher_config
from zeroflow_core.nsfp.neighbours import NearestNeighbours
from zeroflow_core.nsfp.plain import OnIteration, Optimised, optimise_nsfp
from zeroflow_core.pairs import Flow, FramePair, Status, as_flow

_TITLES = {"nsfp": "NSFP", "fastnsf": "Fast NSF"}


@dataclass(frozen=True)
class Label:
    """What the teacher says of one pair.

    flow:       of pc0's points towards pc1
    backward:   of pc1's points towards pc0, in pc0's vehicle frame and over the negative interval; None from Fast NSF,
                which has no network for it
    iterations: made
    loss:       at the flow that was kept, in the method's own unit; NaN without one
    problem:    why no point has an estimate, in a sentence; None when all went well
    """

    flow: Flow
    backward: Flow | None
    iterations: int
    loss: float
    problem: str | None = None


@dataclass(frozen=True)
class _Seen:
    """The part of a pair that the teacher sees: points that are finite, not ground and in range.

    rows0, rows1: where in pc0 and pc1 they are
    problem:      why there is nothing to optimise, or None
    """

    pair: FramePair
    rows0: np.ndarray
    rows1: np.ndarray
    problem: str | None

    @property
    def clouds(self) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.from_numpy(self.pair.pc0[self.rows0]), torch.from_numpy(self.pair.pc1[self.rows1])


class Teacher:
    """NSFP or Fast NSF, ready to label pairs.

    name:     one line that says which
    identity: plain data that tells labels of this teacher from any other's
    """

    def __init__(
        self, method: str = "nsfp", config: str | TeacherConfig = "fast", *, device: str = "auto", seed: int = 0
    ) -> None:
        """
        method: ``nsfp`` or ``fastnsf``
        config: ``fast``, ``published`` or a configuration of one's own
        device: ``auto`` (CUDA where there is a GPU), ``cpu``, ``cuda`` or ``cuda:n``
        seed:   of the initial weights, the same for each pair: a label depends on its pair and on nothing before it

        Raises:
            ZeroFlowError: an unknown method, configuration or device.
        """
        self.config = config if isinstance(config, TeacherConfig) else teacher_config(method, config)
        self.device = choose_device(device)
        self.seed = seed
        self.name = f"{_TITLES[self.config.method]}, {self.config.engine} engine ({self.device})"
        self.identity: dict[str, Any] = {
            **self.config.to_dict(), "seed": seed, "device": torch.device(self.device).type
        }

    def label(self, pairs: Iterable[FramePair]) -> Iterator[Label]:
        """A label for each pair, in their order. A pair that nothing can be said of gets one with a `problem`."""
        for pair in pairs:
            yield self.label_one(pair)

    def label_one(self, pair: FramePair, on_iteration: OnIteration | None = None) -> Label:
        """The label of one pair."""
        seen = _look_at(pair, self.config)
        if seen.problem:
            return _as_label(seen, self.config.method, None)
        generator = torch.Generator().manual_seed(self.seed)
        clouds = [cloud.to(self.device) for cloud in seen.clouds]
        with torch.enable_grad():
            optimised = self._optimise()(*clouds, self.config, generator, on_iteration)
        return _as_label(seen, self.config.method, optimised)

    def _optimise(self):
        if self.config.method == "nsfp":
            return optimise_nsfp
        from zeroflow_core.nsfp.plain_fast_nsf import optimise_fast_nsf

        return optimise_fast_nsf

    def flow(self, pc0: np.ndarray, pc1: np.ndarray) -> np.ndarray:
        """Flow (N0,3) float32 of pc0's points towards pc1, metres, NaN where there is none.

        pc0, pc1: (N0,3), (N1,3), metres, in one frame and without ground.
        """
        pc0, pc1 = (np.ascontiguousarray(cloud, dtype=np.float32) for cloud in (pc0, pc1))
        no_ground = [np.zeros(len(cloud), dtype=bool) for cloud in (pc0, pc1)]
        return self.label_one(FramePair(pc0, pc1, *no_ground, 0, 1, SE3.identity())).flow.vectors


def _look_at(pair: FramePair, config: TeacherConfig) -> _Seen:
    rows = []
    for points, is_ground in ((pair.pc0, pair.is_ground0), (pair.pc1, pair.is_ground1)):
        with np.errstate(invalid="ignore"):
            inside = (points >= np.float32(config.minimum)).all(axis=1)
            inside &= (points < np.float32(config.maximum)).all(axis=1)
        rows.append(np.flatnonzero(inside & ~is_ground))
    seen = _Seen(pair, *rows, problem=None)
    return _Seen(pair, *rows, problem=_problem_of(seen, config))


def _problem_of(seen: _Seen, config: TeacherConfig) -> str | None:
    for name, rows in (("pc0", seen.rows0), ("pc1", seen.rows1)):
        if len(rows) == 0:
            return f"{name} has no point in range that is finite and not ground"
    pc0, pc1 = seen.clouds
    apart = (pc0 - pc1[NearestNeighbours(pc1)(pc0)]).square().sum(dim=1)
    reach = config.truncation**0.5
    if not (apart < config.truncation).any():
        return f"the sweeps have nothing in common: no point of pc0 is within {reach:.2f} m of one of pc1"
    return None


def _as_label(seen: _Seen, method: str, optimised: Optimised | None) -> Label:
    pair, problem, iterations, loss = seen.pair, seen.problem, 0, float("nan")
    forward = backward = None
    if optimised is not None:
        iterations, loss, forward, backward = optimised.iterations, optimised.loss, optimised.forward, optimised.backward
        if not all(torch.isfinite(answer).all() for answer in (forward, backward) if answer is not None):
            problem, loss, forward, backward = "the optimisation diverged", float("nan"), None, None
    flow = _whole(forward, pair.pc0, pair.is_ground0, seen.rows0, pair.dt)
    back = None if method == "fastnsf" else _whole(backward, pair.pc1, pair.is_ground1, seen.rows1, -pair.dt)
    return Label(flow, back, iterations, loss, problem)


def _whole(answer: torch.Tensor | None, points: np.ndarray, is_ground: np.ndarray, rows: np.ndarray, dt: float) -> Flow:
    """The flow of a whole cloud from the `answer` for its `rows`; None is no answer."""
    estimate = np.full(points.shape, np.nan, dtype=np.float32)
    if answer is not None:
        estimate[rows] = answer.cpu().numpy()
    flow = as_flow(estimate, points, is_ground, dt)
    if answer is None:
        flow.status[rows] = Status.NO_ESTIMATE
    return flow
