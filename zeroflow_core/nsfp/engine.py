"""The fast engine: NSFP or Fast NSF of many pairs at once, each iteration on a fresh draw of their points.

What differs from the published optimisation, with the same answer: points are drawn anew in every iteration (see
`sampling`); the learning rate falls to nothing over a fixed number of iterations, so that the last flow is the one to
keep, and no pair has to be asked whether it is done; hidden layers may compute in bf16.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

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
    orders = [[_tile_order(cloud) for cloud in pair] for pair in clouds]
    ordered = [(pc0[order0], pc1[order1]) for (pc0, pc1), (order0, order1) in zip(clouds, orders, strict=True)]
    with torch.no_grad():
        run = _Run(ordered, config, _PRECISIONS[precision], torch.device(device), seed)
        run.iterate(on_iteration)
        forward, backward, losses = run.flow(), run.backward_flow(), run.final_loss()
    return [
        Optimised(
            _in_order(forward[pair], order0),
            None if backward is None else _in_order(backward[pair], order1),
            config.iterations,
            losses[pair],
            config.samples,
        )
        for pair, (order0, order1) in enumerate(orders)
    ]


def pairs_that_fit(config: TeacherConfig, device: str) -> int:
    """How many pairs to take at a time: on a CPU one, on a GPU what half of its free memory holds, and at most 64."""
    if device == "cpu" or config.engine != "fast":
        return 1
    free, _ = torch.cuda.mem_get_info(device)
    return max(1, min(_MOST_PAIRS, free // 2 // bytes_of_pair(config)))


def bytes_of_pair(config: TeacherConfig, points: int = 100_000) -> int:
    """About the memory that a pair of `points` in each cloud takes in the fast engine."""
    networks = 2 if config.method == "nsfp" else 1
    activations = networks * config.samples * WIDTH * (2 * (HIDDEN_LAYERS + 2) + 4 * 2)
    parameters = networks * 116_483 * (5 * 4 + 2)
    draws = 2 * config.iterations * config.samples * 4
    clouds = 2 * points * 3 * 4 * 4
    extent = [high - low + 0.5 for low, high in zip(config.minimum, config.maximum, strict=True)]
    grid = 0 if config.method == "nsfp" else 2 * 4 * math.prod(extent) * 1000
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
        """clouds: pc0 and pc1 of each pair, in tile order, on the CPU"""
        self._config, self._device, pairs = config, device, len(clouds)
        rows = [_drawn_rows(pair, config, seed) for pair in clouds]
        # Iterations first: an iteration's draw lies together.
        self._rows0, self._rows1 = (
            torch.from_numpy(np.stack(side, axis=1)).to(device) for side in zip(*rows, strict=True)
        )
        self._counts = [[len(pair[side]) for pair in clouds] for side in (0, 1)]
        self._pc0, self._pc1 = (_padded([pair[side] for pair in clouds]).to(device) for side in (0, 1))

        with_cycle = config.method == "nsfp"
        first = initial_parameters(seed, "torch" if with_cycle else "xavier").to(device)
        networks = 2 if with_cycle else 1
        self._parameters = first.expand(networks, pairs, -1).clone()
        self._adam = _Adam(self._parameters, config)
        self._fields = [
            Fields(parameters, gradients, config.samples, precision)
            for parameters, gradients in zip(self._parameters, self._adam.gradients, strict=True)
        ]
        on_device = [
            (self._pc0[pair, :count0], self._pc1[pair, :count1])
            for pair, (count0, count1) in enumerate(zip(*self._counts, strict=True))
        ]
        if not with_cycle:
            self._to_pc1 = GridDistance([pc1 for _, pc1 in on_device], [pc0 for pc0, _ in on_device])
        elif device.type == "cuda":
            counts0, counts1 = (torch.tensor(counts, dtype=torch.int32, device=device) for counts in self._counts)
            self._to_pc0 = TileChamfer(self._pc0, counts0, config.truncation, config.samples)
            self._to_pc1 = TileChamfer(self._pc1, counts1, config.truncation, config.samples)
        else:
            self._to_pc0 = TreeChamfer([pc0 for pc0, _ in on_device], config.truncation)
            self._to_pc1 = TreeChamfer([pc1 for _, pc1 in on_device], config.truncation)
        self._iteration = torch.zeros(1, dtype=torch.int64, device=device)
        self._losses = torch.zeros(config.iterations, pairs, device=device)

    def iterate(self, on_iteration: OnIteration | None) -> None:
        """All iterations. On a GPU they are one CUDA graph, replayed: the host only says when."""
        if self._device.type == "cuda":
            with torch.cuda.device(self._device):
                return self._replay()
        for iteration in range(self._config.iterations):
            self._step()
            if on_iteration is not None:
                on_iteration(iteration + 1, float(self._losses[iteration, 0]))
        return None

    def _replay(self) -> None:
        done = min(_WARM_UP, self._config.iterations)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(done):
                self._step()
        torch.cuda.current_stream().wait_stream(stream)
        step = self._step
        try:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self._step()
            step = graph.replay
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as problem:
            warnings.warn(f"no CUDA graph could be captured, and the teacher is slower for it: {problem}", stacklevel=2)
        for _ in range(self._config.iterations - done):
            step()

    def _step(self) -> None:
        drawn0 = _drawn(self._pc0, self._rows0, self._iteration)
        drawn1 = _drawn(self._pc1, self._rows1, self._iteration)
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
        return self._everywhere(self._fields[0], self._pc0, self._counts[0])

    def backward_flow(self) -> list[Tensor] | None:
        """Flow (N1,3) of each pair's pc1 towards pc0."""
        if len(self._fields) == 1:
            return None
        return [-flow for flow in self._everywhere(self._fields[1], self._pc1, self._counts[1])]

    def _everywhere(self, field: Fields, clouds: Tensor, counts: Sequence[int]) -> list[Tensor]:
        samples, points = self._config.samples, clouds.shape[1]
        whole = clouds.new_zeros(len(clouds), math.ceil(points / samples) * samples, 3)
        whole[:, :points] = clouds
        flow = torch.cat([field.forward(part).clone() for part in whole.split(samples, dim=1)], dim=1).cpu()
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
    drawn from where the sweeps differ, so that the loss ends as that of all points, as published.
    """
    through = np.arange(iterations) / iterations
    return 0.5 * (1 + np.cos(np.pi * np.clip(2 * through - 1, 0, None)))


def _drawn_rows(pair: Clouds, config: TeacherConfig, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows (T, samples) of pc0 and of pc1 for each iteration, in the clouds' own order, which is quick to search."""
    pc0, pc1 = (cloud.numpy() for cloud in pair)
    random, shares = np.random.default_rng(seed), config.differing * settling(config.iterations)
    rows0 = draw(len(pc0), differing(pc0, pc1), config.samples, shares, random)
    rows1 = draw(len(pc1), differing(pc1, pc0), config.samples, shares, random)
    return np.sort(rows0, axis=1), np.sort(rows1, axis=1)


def _drawn(clouds: Tensor, rows: Tensor, iteration: Tensor) -> Tensor:
    """The points (B,N,3) of clouds (B,M,3) that take part; rows (T,B,N)."""
    chosen = rows.index_select(0, iteration)[0].long()
    return clouds.gather(1, chosen[..., None].expand(-1, -1, 3))


def _padded(clouds: Sequence[Tensor]) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(clouds), batch_first=True)


def _tile_order(cloud: Tensor) -> Tensor:
    return tile_order(cloud[None], torch.tensor([len(cloud)], dtype=torch.int32))[0]


def _in_order(flow: Tensor, order: Tensor) -> Tensor:
    """`flow` (N,3) of points that were put into `order`, for the points as they came."""
    back = torch.empty_like(flow)
    back[order] = flow
    return back
