"""The fast engine: NSFP or Fast NSF of many pairs at once, each iteration on a fresh draw of their points.

What differs from the published optimisation, with the same answer: points are drawn anew in every iteration (see
`sampling`); the learning rate falls to nothing over a fixed number of iterations, so that the last flow is the one to
keep, and no pair has to be asked whether it is done; hidden layers may compute in bf16.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache

import numpy as np
import torch
from torch import Tensor

from zeroflow_core.nsfp import device_sampling
from zeroflow_core.nsfp.config import TeacherConfig
from zeroflow_core.nsfp.fields import Fields, initial_parameters
from zeroflow_core.nsfp.matching import GridDistance, TileChamfer, TreeChamfer
from zeroflow_core.nsfp.network import HIDDEN_LAYERS, WIDTH
from zeroflow_core.nsfp.plain import OnIteration, Optimised
from zeroflow_core.nsfp.sampling import differing, draw
from zeroflow_core.nsfp.tiles import tile_order

_BETAS, _EPSILON = (0.9, 0.999), 1e-8  # Adam's
_PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
_MOST_PAIRS = 64  # more fill a GPU no better
_WARM_UP = 3  # iterations before a CUDA graph is captured, in which libraries and kernels are loaded


Clouds = tuple[Tensor, Tensor]  # pc0 (N0,3) and pc1 (N1,3) of a pair, float32 on the CPU, metres, neither empty


def optimise_together(
    clouds: Sequence[Clouds],
    config: TeacherConfig,
    precision: str,
    device: str,
    seed: int,
    on_iteration: OnIteration | None = None,
) -> list[Optimised]:
    """What each pair comes to. A pair's result depends on nothing else among `clouds`.

    clouds:       of each pair
    precision:    of the hidden layers: ``fp32`` or ``bf16``
    seed:         of the initial weights and the draws, the same for each pair
    on_iteration: called with the number of each iteration, from 1, and the first pair's loss; on a CPU only, as asking
                  would make a GPU wait
    """
    with torch.no_grad(), _on_own_stream(torch.device(device)):
        run = _Run(clouds, config, _PRECISIONS[precision], torch.device(device), seed)
        run.iterate(on_iteration)
        forward, backward, losses = run.flow(), run.backward_flow(), run.final_loss()
    return [
        Optimised(forward[pair], backward and backward[pair], config.iterations, losses[pair], config.samples)
        for pair in range(len(clouds))
    ]


def pairs_that_fit(config: TeacherConfig, device: str) -> int:
    """How many pairs to take at a time: on a CPU one, on a GPU what half of its free memory holds, and at most 64."""
    if device == "cpu" or config.engine != "fast":
        return 1
    free, _ = torch.cuda.mem_get_info(device)
    return max(1, min(_MOST_PAIRS, free // 2 // bytes_of_pair(config)))


def bytes_of_pair(config: TeacherConfig, points: int = 100_000) -> int:
    """About the memory that a pair of `points` in each cloud takes in the fast engine, in fp32; less in bf16."""
    networks = 2 if config.method == "nsfp" else 1
    activations = networks * config.samples * WIDTH * (HIDDEN_LAYERS + 4) * 4
    parameters = networks * 116_483 * 5 * 4
    draws = 2 * config.iterations * config.samples * 4
    clouds = 2 * points * 3 * 4 * 4
    extent = [high - low + 0.5 for low, high in zip(config.minimum, config.maximum, strict=True)]
    grid = 0 if config.method == "nsfp" else math.prod(extent) * 1000 * 4 * 2  # twice while it is filled
    return int(activations + parameters + draws + clouds + grid)


class _Run:
    """A batch of B pairs on one device, and everything an iteration writes to."""

    def __init__(
        self,
        clouds: Sequence[Clouds],
        config: TeacherConfig,
        precision: torch.dtype,
        device: torch.device,
        seed: int,
    ) -> None:
        """clouds: pc0 and pc1 of each pair, on the CPU"""
        self._config, self._device, pairs = config, device, len(clouds)
        sides = [[pair[side] for pair in clouds] for side in (0, 1)]
        self._counts = [[len(cloud) for cloud in side] for side in sides]
        counts = [torch.tensor(of_side, dtype=torch.int32, device=device) for of_side in self._counts]
        padded = [torch.nn.utils.rnn.pad_sequence(side, batch_first=True).to(device) for side in sides]
        # A batch is searched quickly in this order.
        self._orders = [tile_order(side, count) for side, count in zip(padded, counts, strict=True)]
        self._pc0, self._pc1 = (_taken(side, order) for side, order in zip(padded, self._orders, strict=True))
        on_device = [
            (self._pc0[pair, :count0], self._pc1[pair, :count1])
            for pair, (count0, count1) in enumerate(zip(*self._counts, strict=True))
        ]
        shares = config.differing * settling(config.iterations)
        if device.type == "cuda":
            drawn = device_sampling.draw((self._pc0, self._pc1), counts, config.samples, shares, seed)
        else:
            drawn = _drawn_rows(on_device, config.samples, shares, seed)
        self._rows0, self._rows1 = drawn

        with_cycle = config.method == "nsfp"
        first = initial_parameters(seed, "torch" if with_cycle else "xavier").to(device)
        if device.type == "cuda":  # its tensor cores want rows of a multiple of 16 bytes
            first = torch.nn.functional.pad(first, (0, -len(first) % 8))
        networks = 2 if with_cycle else 1
        self._parameters = first.expand(networks, pairs, -1).clone()
        self._adam = _Adam(self._parameters, config)
        self._fields = [
            Fields(parameters, gradients, config.samples, precision)
            for parameters, gradients in zip(self._parameters, self._adam.gradients, strict=True)
        ]
        if not with_cycle:
            self._to_pc1 = GridDistance([pc1 for _, pc1 in on_device], [pc0 for pc0, _ in on_device])
        elif device.type == "cuda":
            self._to_pc0 = TileChamfer(self._pc0, counts[0], config.truncation, config.samples)
            self._to_pc1 = TileChamfer(self._pc1, counts[1], config.truncation, config.samples)
        else:
            self._to_pc0 = TreeChamfer([pc0 for pc0, _ in on_device], config.truncation)
            self._to_pc1 = TreeChamfer([pc1 for _, pc1 in on_device], config.truncation)
        self._iteration = torch.zeros(1, dtype=torch.int64, device=device)
        self._losses = torch.zeros(config.iterations, pairs, device=device)

    def iterate(self, on_iteration: OnIteration | None) -> None:
        """All iterations."""
        if self._device.type == "cuda":
            return self._replay()
        for iteration in range(self._config.iterations):
            self._step()
            if on_iteration is not None:
                on_iteration(iteration + 1, float(self._losses[iteration, 0]))
        return None

    def _replay(self) -> None:
        """All iterations on a GPU: the first as they come, the others as one CUDA graph; the host only says when."""
        first = min(_WARM_UP, self._config.iterations)
        for _ in range(first):
            self._step()
        stream, graph, step = torch.cuda.current_stream(), torch.cuda.CUDAGraph(), self._step
        try:
            # Other threads may use the GPU meanwhile.
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                self._step()
            step = graph.replay
        except RuntimeError as problem:
            problem = problem.__context__ or problem  # the end of a capture that failed has its own, which hides why
            if isinstance(problem, torch.OutOfMemoryError):
                raise problem from None
            warnings.warn(f"no CUDA graph could be captured, and the teacher is slower for it: {problem}", stacklevel=2)
        for _ in range(self._config.iterations - first):
            step()
        stream.synchronize()  # before the graph goes

    def _step(self) -> None:
        drawn0 = _taken(self._pc0, self._rows0.index_select(0, self._iteration)[0].long())
        drawn1 = _taken(self._pc1, self._rows1.index_select(0, self._iteration)[0].long())
        field = self._fields[0]
        moved = drawn0 + field.forward(drawn0)
        loss, pull = self._to_pc1(moved, drawn1)
        if len(self._fields) == 2:
            back_field = self._fields[1]
            returned = moved - back_field.forward(moved)
            cycle_loss, cycle_pull = self._to_pc0(returned, drawn0)
            loss += cycle_loss
            pull += cycle_pull + back_field.backward(-cycle_pull)
        field.backward(pull)
        self._adam.step(self._iteration)
        self._losses.index_copy_(0, self._iteration, loss[None])
        self._iteration += 1

    def flow(self) -> list[Tensor]:
        """Flow (N0,3) of each pair's pc0."""
        return self._everywhere(self._fields[0], self._pc0, self._orders[0], self._counts[0])

    def backward_flow(self) -> list[Tensor] | None:
        """Flow (N1,3) of each pair's pc1 towards pc0."""
        if len(self._fields) == 1:
            return None
        flows = self._everywhere(self._fields[1], self._pc1, self._orders[1], self._counts[1])
        return [-flow for flow in flows]

    def _everywhere(self, field: Fields, clouds: Tensor, order: Tensor, counts: Sequence[int]) -> list[Tensor]:
        """`field` at all points of each cloud, in the order in which they came, on the CPU."""
        samples, points = self._config.samples, clouds.shape[1]
        whole = clouds.new_zeros(len(clouds), math.ceil(points / samples) * samples, 3)
        whole[:, :points] = clouds
        flow = torch.cat([field.forward(part).clone() for part in whole.split(samples, dim=1)], dim=1)[:, :points]
        flow = torch.empty_like(flow).scatter_(1, order[..., None].expand_as(flow), flow).cpu()
        return [flow[pair, :count] for pair, count in enumerate(counts)]

    def final_loss(self) -> list[float]:
        """Mean loss of each pair over the last tenth of the iterations; a single draw's says little."""
        return self._losses[-max(1, self._config.iterations // 10) :].mean(dim=0).tolist()


class _Adam:
    """Adam as in torch.optim, all that depends on the iteration read from tables, so that a CUDA graph can hold it.

    gradients: as the parameters, to be filled before each step
    """

    def __init__(self, parameters: Tensor, config: TeacherConfig) -> None:
        self._parameters, self.gradients = parameters, torch.zeros_like(parameters)
        self._mean, self._square, self._change = (torch.zeros_like(parameters) for _ in range(3))
        times = np.arange(1, config.iterations + 1)
        rates = config.learning_rate * settling(config.iterations) / (1 - _BETAS[0] ** times)
        roots = np.sqrt(1 - _BETAS[1] ** times)
        self._rates, self._roots = (torch.from_numpy(table).float().to(parameters.device) for table in (rates, roots))

    def step(self, iteration: Tensor) -> None:
        """iteration: (1,) int64, from 0"""
        self._mean.lerp_(self.gradients, 1 - _BETAS[0])
        self._square.mul_(_BETAS[1]).addcmul_(self.gradients, self.gradients, value=1 - _BETAS[1])
        torch.sqrt(self._square, out=self._change).div_(self._roots[iteration]).add_(_EPSILON)
        torch.div(self._mean, self._change, out=self._change).mul_(self._rates[iteration])
        self._parameters.sub_(self._change)


def settling(iterations: int) -> np.ndarray:
    """(T,) float64 from 1 to 0: 1 for the first half of the iterations, then half a cosine.

    First the flow is looked for, then it settles: with it falls the learning rate, and the share of points that are
    drawn from where the sweeps differ, so that at the end every point counts the same, as published.
    """
    through = np.arange(iterations) / iterations
    return 0.5 * (1 + np.cos(np.pi * np.clip(2 * through - 1, 0, None)))


def _drawn_rows(clouds: Sequence[Clouds], samples: int, shares: np.ndarray, seed: int) -> tuple[Tensor, Tensor]:
    """Rows (T,B,samples) int32 of each pc0 and pc1, in the clouds' own order, which is quick to search."""
    drawn = []
    for pc0, pc1 in ((pc0.numpy(), pc1.numpy()) for pc0, pc1 in clouds):
        random = np.random.default_rng(seed)
        rows0 = draw(len(pc0), differing(pc0, pc1), samples, shares, random)
        rows1 = draw(len(pc1), differing(pc1, pc0), samples, shares, random)
        drawn.append((np.sort(rows0, axis=1), np.sort(rows1, axis=1)))
    # Iterations first: an iteration's draw lies together.
    return tuple(torch.from_numpy(np.stack(side, axis=1)) for side in zip(*drawn, strict=True))


def _taken(clouds: Tensor, rows: Tensor) -> Tensor:
    """Points (B,N,3) of clouds (B,M,3); rows (B,N)."""
    return clouds.gather(1, rows[..., None].expand(-1, -1, 3))


def _on_own_stream(device: torch.device) -> AbstractContextManager:
    """On a GPU, all of it on a stream of ours: the default one can't be captured. Nothing on a CPU."""
    return torch.cuda.stream(_own_stream(device)) if device.type == "cuda" else nullcontext()


@cache  # each stream gets its own memory from PyTorch, and does not give it back
def _own_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)
