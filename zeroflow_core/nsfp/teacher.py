"""The teacher as everybody calls it: frame pairs in, labels out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch

from zeroflow_core.devices import choose_device, choose_precision, is_out_of_memory
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.geometry import SE3
from zeroflow_core.nsfp.config import TeacherConfig, teacher_config
from zeroflow_core.nsfp.engine import Clouds, optimise_together, pairs_that_fit
from zeroflow_core.nsfp.neighbours import NearestNeighbours
from zeroflow_core.nsfp.plain import OnIteration, Optimised, optimise_nsfp
from zeroflow_core.nsfp.plain_fast_nsf import optimise_fast_nsf
from zeroflow_core.pairs import Flow, FramePair, Status, as_flow

_LONGEST = 30.0  # metres; a longer flow is no estimate: 300 m/s from one sweep to the next at 10 Hz
_SEEDS = 1 << 63
_TITLES = {"nsfp": "NSFP", "fastnsf": "Fast NSF"}


@dataclass(frozen=True)
class Label:
    """What the teacher says of one pair. Where a flow is NaN its status says why; files store 0 there, not valid.

    flow:       of pc0's points towards pc1; a flow longer than 30 m is nonsense and no estimate
    backward:   of pc1's points towards pc0, in pc0's vehicle frame and over the negative interval; None from Fast NSF,
                which has no network for it
    iterations: made
    loss:       of NSFP in m², of Fast NSF in m; as published that of the flow that was kept, from the fast engine the
                mean over its last iterations, of the points drawn, which is higher; NaN without a flow
    points:     that went through a network in each iteration
    problem:    why no point has an estimate, in a sentence; None when all went well
    failed:     the problem is none of the pair's, which may well have a flow: memory ran out, or the optimisation
                diverged
    """

    flow: Flow
    backward: Flow | None
    iterations: int
    loss: float
    points: int
    problem: str | None = None
    failed: bool = False


@dataclass(frozen=True)
class _Seen:
    """The part of a pair that the teacher sees: points that are finite, not ground and in range.

    rows0, rows1: where in pc0 and pc1 they are
    clouds:       the points there
    problem:      why there is nothing to optimise, or None
    """

    pair: FramePair
    rows0: np.ndarray
    rows1: np.ndarray
    clouds: Clouds
    problem: str | None


class Teacher:
    """NSFP or Fast NSF, ready to label pairs.

    name:      one line that says which
    identity:  plain data that tells labels of this teacher from any other's
    precision: ``fp32`` or ``bf16``
    """

    def __init__(
        self,
        method: str = "nsfp",
        config: str | TeacherConfig = "fast",
        *,
        device: str = "auto",
        seed: int = 0,
        pairs_in_flight: int | None = None,
    ) -> None:
        """
        method:          ``nsfp`` or ``fastnsf``; a configuration of one's own says it itself
        config:          ``fast``, ``published`` or a configuration of one's own
        device:          ``auto`` (CUDA where there is a GPU), ``cpu``, ``cuda`` or ``cuda:n``
        seed:            of the initial weights and of what the fast engine draws, the same for each pair: a label
                         depends on its pair, and on nothing that was labelled before or beside it
        pairs_in_flight: how many the fast engine takes at a time, at most; without it one on a CPU, where more gain
                         nothing, and on a GPU what `pairs_that_fit` says

        Raises:
            ZeroFlowError: an unknown method, configuration, precision or device, or a number that can't be.
        """
        if not 0 <= seed < _SEEDS:
            raise ZeroFlowError(f"the seed {seed} can't be used; give one from 0 to {_SEEDS - 1}")
        if pairs_in_flight is not None and pairs_in_flight < 1:
            raise ZeroFlowError(f"{pairs_in_flight} pairs can't be in flight; give 1 or more, or nothing")
        self.config = config if isinstance(config, TeacherConfig) else teacher_config(method, config)
        self.device = choose_device(device)
        self.seed = seed
        fast = self.config.engine == "fast"
        self.precision = choose_precision(self.config.precision, self.device) if fast else "fp32"
        self.name = f"{_TITLES[self.config.method]}, {self.config.engine} engine ({self.precision}, {self.device})"
        self.identity: dict[str, Any] = self.config.to_dict() | {
            "precision": self.precision, "seed": seed, "device": torch.device(self.device).type
        }
        self._in_flight = pairs_in_flight or pairs_that_fit(self.config, self.device)

    def label(self, pairs: Iterable[FramePair]) -> Iterator[Label]:
        """A label for each pair, in their order. A pair that nothing can be said of gets one with a `problem`.

        Pairs are taken from `pairs` a batch at a time.
        """
        pairs = iter(pairs)
        while batch := list(islice(pairs, self._in_flight)):
            yield from self._label_batch([_look_at(pair, self.config) for pair in batch])

    def label_one(self, pair: FramePair, on_iteration: OnIteration | None = None) -> Label:
        """The label of one pair.

        on_iteration: called with the number of each iteration, from 1, and its loss; not by the fast engine on a GPU
        """
        (label,) = self._label_batch([_look_at(pair, self.config)], on_iteration)
        return label

    def flow(self, pc0: np.ndarray, pc1: np.ndarray) -> np.ndarray:
        """Flow (N0,3) float32 of pc0's points towards pc1, metres, NaN where there is none.

        pc0, pc1: (N0,3), (N1,3), metres, in one frame and without ground.
        """
        pc0, pc1 = (np.ascontiguousarray(cloud, dtype=np.float32) for cloud in (pc0, pc1))
        no_ground = [np.zeros(len(cloud), dtype=bool) for cloud in (pc0, pc1)]
        return self.label_one(FramePair(pc0, pc1, *no_ground, 0, 1, SE3.identity())).flow.vectors

    def _label_batch(self, batch: list[_Seen], on_iteration: OnIteration | None = None) -> list[Label]:
        optimised = iter(self._optimise([seen.clouds for seen in batch if not seen.problem], on_iteration))
        return [_as_label(seen, self.config, None if seen.problem else next(optimised)) for seen in batch]

    def _optimise(self, clouds: list[Clouds], on_iteration: OnIteration | None) -> list[Optimised | str]:
        """What each pair comes to, or why it came to nothing. Out of memory, half as many pairs are tried at a time."""
        if not clouds:
            return []
        try:
            with _single_precision():
                return self._optimise_at_once(clouds, on_iteration)
        except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
            if not is_out_of_memory(error):
                raise
            if len(clouds) == 1:
                return ["memory ran out with this pair alone"]
        if self.device != "cpu":
            torch.cuda.empty_cache()
        half = (len(clouds) + 1) // 2
        self._in_flight = min(self._in_flight, half)
        return self._optimise(clouds[:half], on_iteration) + self._optimise(clouds[half:], on_iteration)

    def _optimise_at_once(self, clouds: list[Clouds], on_iteration: OnIteration | None) -> list[Optimised]:
        if self.config.engine == "fast":
            # On a CPU a batch gains nothing, and matrix products round differently in one.
            batches = [[pair] for pair in clouds] if self.device == "cpu" else [clouds]
            fixed = self.config, self.precision, self.device, self.seed, on_iteration
            return [one for batch in batches for one in optimise_together(batch, *fixed)]
        optimise = {"nsfp": optimise_nsfp, "fastnsf": optimise_fast_nsf}[self.config.method]
        with torch.inference_mode(False), torch.enable_grad():
            return [
                # Cloned, as what was made under inference mode has no gradient.
                optimise(pc0.clone().to(self.device), pc1.clone().to(self.device), self.config, generator, on_iteration)
                for (pc0, pc1), generator in zip(clouds, self._generators(), strict=False)
            ]

    def _generators(self) -> Iterator[torch.Generator]:
        """The same for each pair."""
        while True:
            yield torch.Generator().manual_seed(self.seed)


@contextmanager
def _single_precision() -> Iterator[None]:
    """New tensors are float32, whatever the program around has chosen."""
    chosen = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(chosen)


def _look_at(pair: FramePair, config: TeacherConfig) -> _Seen:
    rows, clouds = [], []
    for points, is_ground in ((pair.pc0, pair.is_ground0), (pair.pc1, pair.is_ground1)):
        with np.errstate(over="ignore"):
            points = np.asarray(points, dtype=np.float32)
        inside = (points >= np.float32(config.minimum)).all(axis=1)
        inside &= (points < np.float32(config.maximum)).all(axis=1)  # both False for NaN
        rows.append(np.flatnonzero(inside & ~is_ground))
        clouds.append(torch.from_numpy(points[rows[-1]]))
    return _Seen(pair, *rows, tuple(clouds), _problem_of(*clouds, config))


def _problem_of(pc0: torch.Tensor, pc1: torch.Tensor, config: TeacherConfig) -> str | None:
    for name, cloud in (("pc0", pc0), ("pc1", pc1)):
        if len(cloud) == 0:
            return f"{name} has no point in range that is finite and not ground"
    # A few points of each say as much of most pairs, in a twentieth of the time.
    if not any(_meet(pc0[::step], pc1[::step], config.truncation) for step in (32, 1)):
        reach = config.truncation**0.5
        return f"the sweeps have nothing in common: no point of pc0 is within {reach:.2f} m of one of pc1"
    return None


def _meet(pc0: torch.Tensor, pc1: torch.Tensor, truncation: float) -> bool:
    """Whether any point of pc0 has one of pc1 within the truncation (m²)."""
    return bool(((pc0 - pc1[NearestNeighbours(pc1)(pc0)]).square().sum(dim=1) < truncation).any())


def _as_label(seen: _Seen, config: TeacherConfig, outcome: Optimised | str | None) -> Label:
    """outcome: what the optimisation came to, why it came to nothing, or None where there was none"""
    pair, failed = seen.pair, isinstance(outcome, str)
    problem = outcome if failed else seen.problem
    iterations, points, loss, forward, backward = 0, 0, float("nan"), None, None
    if isinstance(outcome, Optimised):
        iterations, points = outcome.iterations, outcome.points
        answers = [answer for answer in (outcome.forward, outcome.backward) if answer is not None]
        finite = math.isfinite(outcome.loss) and all(torch.isfinite(answer).all() for answer in answers)
        if finite and (outcome.forward.norm(dim=1) <= _LONGEST).any():
            loss, forward, backward = outcome.loss, outcome.forward, outcome.backward
        else:
            problem, failed = "the optimisation diverged", True
    flow = _whole(forward, pair.pc0, pair.is_ground0, seen.rows0, pair.dt)
    back = None if config.method == "fastnsf" else _whole(backward, pair.pc1, pair.is_ground1, seen.rows1, -pair.dt)
    return Label(flow, back, iterations, loss, points, problem, failed)


def _whole(answer: torch.Tensor | None, points: np.ndarray, is_ground: np.ndarray, rows: np.ndarray, dt: float) -> Flow:
    """The flow of a whole cloud from the `answer` for its `rows`; None is no answer."""
    estimate = np.full(points.shape, np.nan, dtype=np.float32)
    if answer is not None:
        estimate[rows] = answer.cpu().numpy()
    estimate[np.linalg.norm(estimate, axis=1) > _LONGEST] = np.nan
    flow = as_flow(estimate, points, is_ground, dt)
    flow.status[rows[np.isnan(estimate[rows, 0])]] = Status.NO_ESTIMATE
    return flow
