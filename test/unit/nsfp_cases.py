"""Small scenes whose motion is known, and NSFP without a shortcut, for the tests of zeroflow_core.nsfp."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from zeroflow_core.geometry import SE3
from zeroflow_core.nsfp.config import CONFIGS, METHODS, teacher_config
from zeroflow_core.nsfp.teacher import Label, Teacher
from zeroflow_core.pairs import Flow, FramePair

# --- scenes ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scene:
    """A pair whose flow is known.

    flow0, flow1:     (N0,3) from pc0 to pc1, (N1,3) from pc1 to pc0, metres
    moving0, moving1: (N0,), (N1,) bool
    """

    pair: FramePair
    flow0: np.ndarray
    flow1: np.ndarray
    moving0: np.ndarray
    moving1: np.ndarray


def two_boxes(seed: int = 0, share: float = 1.0) -> Scene:
    """A courtyard of walls and poles in which one box drives ahead and one drifts aside, some 500 points a sweep.

    A tenth of the points is seen in one sweep only, and all are off by a centimetre.

    share: of the points; a small one leaves a scene for what needs no sense of motion
    """
    rng = np.random.default_rng(seed)
    parts = [
        (_sheet(rng, int(90 * share), (-12, -8, -1), (24, 0, 2.5)), (0, 0, 0)),
        (_sheet(rng, int(90 * share), (-12, 8, -1), (24, 0, 2.5)), (0, 0, 0)),
        (_sheet(rng, int(60 * share), (-12, -8, -1), (0, 16, 2.5)), (0, 0, 0)),
        (_sheet(rng, int(30 * share), (0, 0, -1), (0.2, 0.2, 3)), (0, 0, 0)),
        (_sheet(rng, int(30 * share), (6, -5, -1), (0.2, 0.2, 3)), (0, 0, 0)),
        (_box(rng, int(120 * share), (-6, -4, -1), (4, 1.8, 1.5)), (0.8, 0, 0)),
        (_box(rng, int(120 * share), (3, 3, -1), (4, 1.8, 1.5)), (-0.4, -0.5, 0)),
    ]
    at = np.concatenate([points for points, _ in parts])
    motion = np.concatenate([np.broadcast_to(np.float64(flow), points.shape) for points, flow in parts])
    seen0, seen1 = (rng.permutation(len(at))[: int(0.9 * len(at)) - less] for less in (0, 7))
    pc0 = at[seen0] + rng.normal(0, 0.01, (len(seen0), 3))
    pc1 = at[seen1] + motion[seen1] + rng.normal(0, 0.01, (len(seen1), 3))
    moves = motion.any(axis=1)
    return Scene(make_pair(pc0, pc1), motion[seen0], -motion[seen1], moves[seen0], moves[seen1])


def make_pair(
    pc0: Sequence | np.ndarray,
    pc1: Sequence | np.ndarray,
    ground0: Sequence[bool] | np.ndarray | None = None,
    ground1: Sequence[bool] | np.ndarray | None = None,
) -> FramePair:
    """A pair a tenth of a second apart; without ground where none is given."""
    clouds = [np.asarray(cloud, dtype=np.float32).reshape(-1, 3) for cloud in (pc0, pc1)]
    grounds = [
        np.zeros(len(cloud), dtype=bool) if ground is None else np.asarray(ground, dtype=bool)
        for cloud, ground in zip(clouds, (ground0, ground1), strict=True)
    ]
    return FramePair(*clouds, *grounds, 0, 100_000_000, SE3.identity())


def with_points(pair: FramePair, points0: Sequence, ground: Sequence[bool] | None = None) -> FramePair:
    """The pair with more points at the end of pc0."""
    more = np.asarray(points0, dtype=np.float32).reshape(-1, 3)
    is_ground = np.zeros(len(more), dtype=bool) if ground is None else np.asarray(ground, dtype=bool)
    return replace(pair, pc0=np.concatenate([pair.pc0, more]), is_ground0=np.concatenate([pair.is_ground0, is_ground]))


def mean_error(flow: np.ndarray, truth: np.ndarray, of: np.ndarray) -> float:
    """Mean end-point error, metres, of the points `of` (N,) bool."""
    return float(np.linalg.norm(flow[of].astype(float) - truth[of], axis=1).mean())


def _sheet(rng: np.random.Generator, n: int, corner: Sequence[float], size: Sequence[float]) -> np.ndarray:
    return np.array(corner) + rng.uniform(0, 1, (n, 3)) * np.array(size)


def _box(rng: np.random.Generator, n: int, corner: Sequence[float], size: Sequence[float]) -> np.ndarray:
    """Points on the four sides and the top."""
    unit = rng.uniform(0, 1, (n, 3))
    side = rng.integers(0, 5, n)
    unit[side < 2, 0] = side[side < 2]
    unit[(side == 2) | (side == 3), 1] = side[(side == 2) | (side == 3)] - 2
    unit[side == 4, 2] = 1
    return np.array(corner) + unit * np.array(size)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """For a test file that imports it: on a few hundred points a second thread only waits for the first."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# --- teachers ----------------------------------------------------------------------------------------------

KINDS = [(method, name) for method in METHODS for name in CONFIGS]

every_kind = pytest.mark.parametrize("kind", KINDS, ids=["-".join(kind) for kind in KINDS])


def teacher(
    kind: tuple[str, str], iterations: int = 3, seed: int = 0, in_flight: int | None = None, **changes
) -> Teacher:
    """One that stops early and looks at few points: most of what is asked shows then, too."""
    config = replace(teacher_config(*kind), iterations=iterations, samples=400, **changes)
    return Teacher(kind[0], config, device="cpu", seed=seed, pairs_in_flight=in_flight)


def same(a: Label, b: Label) -> bool:
    """Bit for bit."""

    def flows(one: Flow | None, other: Flow | None) -> bool:
        if one is None or other is None:
            return one is other
        vectors = one.vectors.tobytes() == other.vectors.tobytes()
        return vectors and np.array_equal(one.status, other.status) and one.dt == other.dt

    numbers = (a.iterations, a.problem) == (b.iterations, b.problem) and np.array_equal(a.loss, b.loss, equal_nan=True)
    return numbers and flows(a.flow, b.flow) and flows(a.backward, b.backward)


# --- the published method, plainly -------------------------------------------------------------------------


def one_way(cloud: Tensor, target: Tensor, truncation: float) -> Tensor:
    """Mean over `cloud` (N,3) of the squared distance to the nearest of `target` (M,3), 0 from `truncation` m² on."""
    index = torch.cdist(cloud.detach().double(), target.detach().double()).argmin(dim=1)
    squared = (cloud - target[index]).pow(2).sum(dim=1)
    return (squared * (squared.detach() < truncation)).sum() / len(cloud)


def brute_chamfer(cloud: Tensor, target: Tensor, truncation: float = 2.0) -> Tensor:
    return one_way(cloud, target, truncation) + one_way(target, cloud, truncation)


@dataclass
class Course:
    """What an optimisation went through, iteration by iteration, and what it gave in the end."""

    losses: list[float]
    forward_losses: list[float]
    forward_flows: list[Tensor]
    backward_flows: list[Tensor]
    best: int = -1

    @property
    def forward(self) -> Tensor:
        return self.forward_flows[self.best]

    @property
    def backward(self) -> Tensor:
        return self.backward_flows[self.best]


def published_nsfp(
    pc0: Tensor,
    pc1: Tensor,
    field: nn.Module,
    iterations: int,
    patience: int = 100,
    min_delta: float = 5e-5,
    learning_rate: float = 0.008,
    truncation: float = 2.0,
) -> Course:
    """NSFP from the initial weights of `field`, for a few hundred points: all distances, autograd, torch's own Adam."""
    forward, backward = deepcopy(field), deepcopy(field)
    adam = torch.optim.Adam([*forward.parameters(), *backward.parameters()], lr=learning_rate, weight_decay=0)
    course, lowest, lowest_forward, bad = Course([], [], [], []), None, float("inf"), 0
    for i in range(iterations):
        flow = forward(pc0)
        moved = pc0 + flow
        forward_loss = brute_chamfer(moved, pc1, truncation)
        loss = forward_loss + brute_chamfer(moved - backward(moved), pc0, truncation)
        course.losses.append(loss.item())
        course.forward_losses.append(forward_loss.item())
        course.forward_flows.append(flow.detach().clone())
        course.backward_flows.append(-backward(pc1).detach().clone())
        if forward_loss.item() <= lowest_forward:
            lowest_forward, course.best = forward_loss.item(), i
        if lowest is None or lowest - loss.item() > min_delta:
            lowest, bad = loss.item(), 0
        else:
            bad += 1
        if bad >= patience:
            break
        adam.zero_grad()
        loss.backward()
        adam.step()
    return course
