"""Matrix products of one step after another in pieces: gather a piece, multiply, put the result where it belongs."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from zeroflow_core.fastflow3d.engine.cpu.threads import Threads
from zeroflow_core.fastflow3d.engine.cpu.tile_kernels import SCRATCH

_GRAIN = 32  # rows; pieces are multiples of it, so that few kinds of products are ever compiled

Gather = Callable[[int, int, np.ndarray, np.ndarray], None]
Scatter = Callable[[int, int, np.ndarray, np.ndarray], None]


class Products:
    """Runs gather → multiply → scatter on all threads, each in buffers of its own.

    precision: 'fp32', or 'bf16': factors, products and the maps between them in bfloat16, sums in float32
    kept_as:   the type of numpy arrays for such maps: float32, or uint16 for bfloat16's bits
    largest:   elements of the largest factor or product per row (36 C, say), over all steps
    rows:      of a piece at most
    flops:     of all products since it was last set to 0, those of filled-up rows included
    """

    def __init__(self, threads: Threads, precision: str, largest: int, rows: int) -> None:
        self.threads = threads
        self.dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self.kept_as = np.uint16 if precision == "bf16" else np.float32
        self.rows = rows
        self.flops = 0
        self._buffers = [
            (torch.zeros(rows * largest, dtype=self.dtype), torch.zeros(rows * largest, dtype=self.dtype))
            for _ in range(threads.count)
        ]
        self._scratch = [np.zeros(SCRATCH, np.float32) for _ in range(threads.count)]
        self._views: dict[tuple[int, ...], tuple[Tensor, np.ndarray, Tensor, np.ndarray]] = {}

    def weights(self, matrix: Tensor) -> Tensor:
        """As `run` takes them."""
        return matrix.to(self.dtype).contiguous()

    def run(self, count: int, weights: Tensor, gather: Gather, scatter: Scatter, rows: int | None = None) -> None:
        """`count` rows times `weights`, (I,O), or (F,I,O): F products, of F values of each row.

        gather(first, n, factor, scratch) writes rows first … first + n − 1 into factor (T,I) or (F,T,I);
        scatter(first, n, product, scratch) takes theirs from product (T,O) or (F,T,O).
        """
        if not count:
            return
        most = min(rows or self.rows, self.rows)
        pieces = -(-count // most)
        if pieces > 1:  # as many for each thread
            pieces = -(-pieces // self.threads.count) * self.threads.count
        elif count > 4 * _GRAIN:
            pieces = self.threads.count
        size = min(most, math.ceil(count / pieces / _GRAIN) * _GRAIN)
        pieces = -(-count // size)
        self.flops += 2 * pieces * size * weights.numel()

        def piece(i: int, worker: int) -> None:
            first = i * size
            n = min(size, count - first)
            a, a_array, b, b_array = self._view(worker, size, weights)
            gather(first, n, a_array, self._scratch[worker])
            if weights.ndim == 3:
                torch.bmm(a, weights, out=b)
            else:
                torch.mm(a, weights, out=b)
            scatter(first, n, b_array, self._scratch[worker])

        self.threads.run(piece, pieces)

    def _view(self, worker: int, rows: int, weights: Tensor) -> tuple[Tensor, np.ndarray, Tensor, np.ndarray]:
        *batch, inputs, outputs = weights.shape
        key = (worker, rows, inputs, outputs, *batch)
        if key not in self._views:
            views = []
            for flat, width in zip(self._buffers[worker], (inputs, outputs), strict=True):
                shape = (*batch, rows, width)
                tensor = flat[: int(np.prod(shape))].view(shape)
                array = tensor.view(torch.uint16) if self.dtype is torch.bfloat16 else tensor
                views += [tensor, array.numpy()]
            self._views[key] = tuple(views)
        return self._views[key]
