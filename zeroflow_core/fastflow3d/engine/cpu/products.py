"""Matrix products of one step after another in pieces: gather a piece, multiply, put the result where it belongs."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from zeroflow_core.devices import choose_precision
from zeroflow_core.fastflow3d.engine.cpu.kernels import SCRATCH
from zeroflow_core.fastflow3d.engine.cpu.threads import Threads

ROWS = 256  # of a piece, where it is not said otherwise
_GRAIN = 32  # rows; pieces are multiples of it, so that few kinds of products are ever compiled

_TYPES = {"fp32": (torch.float32, np.float32), "bf16": (torch.bfloat16, np.uint16)}

Gather = Callable[[int, int, np.ndarray, np.ndarray], None]
Scatter = Callable[[int, int, np.ndarray, np.ndarray], None]


class Products:
    """Runs gather → multiply → scatter on all threads, each in buffers of its own.

    precision: 'fp32', or 'bf16': factors, products and the maps between them in bfloat16, sums in float32; where it
               matters most, weights can be kept in float32, and their factors and products are, too
    kept_as:   the type of numpy arrays for such maps: float32, or uint16 for bfloat16's bits
    room:      numbers of the largest factor or product of a piece, over all steps
    flops:     of all products since it was last set to 0, those of filled-up rows included
    """

    def __init__(self, threads: Threads, precision: str, room: int) -> None:
        self.threads = threads
        self.dtype, self.kept_as = _TYPES[precision]
        # Without instructions for them torch multiplies numbers in bfloat16 one by one, a hundred times slower.
        self._by_rounding = choose_precision("auto", "cpu") != "bf16"
        self.flops = 0
        self._buffers = [
            (torch.zeros(room, dtype=torch.float32), torch.zeros(room, dtype=torch.float32))
            for _ in range(threads.count)
        ]
        self._scratch = [np.zeros(SCRATCH, np.float32) for _ in range(threads.count)]
        self._views: dict[tuple, tuple[Tensor, np.ndarray, Tensor, np.ndarray]] = {}

    def weights(self, matrix: Tensor, precise: bool = False) -> Tensor:
        """As `run` takes them; `precise`: in float32 whatever the precision."""
        return matrix.to(torch.float32 if precise else self.dtype).contiguous()

    def run(self, count: int, weights: Tensor, gather: Gather, scatter: Scatter, rows: int = ROWS) -> None:
        """`count` rows times `weights`, (I,O), or (F,I,O): F products, of F values of each row. `rows` at most at once.

        gather(first, n, factor, scratch) writes rows first … first + n − 1 into factor (T,I) or (F,T,I);
        scatter(first, n, product, scratch) takes theirs from product (T,O) or (F,T,O).
        """
        if not count:
            return
        pieces = -(-count // rows)
        if pieces > 1:  # as many for each thread
            pieces = -(-pieces // self.threads.count) * self.threads.count
        elif count > 4 * _GRAIN:
            pieces = self.threads.count
        size = min(rows, math.ceil(count / pieces / _GRAIN) * _GRAIN)
        pieces = -(-count // size)
        self.flops += 2 * pieces * size * weights.numel()

        def piece(i: int, thread: int) -> None:
            first = i * size
            n = min(size, count - first)
            a, a_array, b, b_array = self._view(thread, size, weights)
            gather(first, n, a_array, self._scratch[thread])
            if self._by_rounding and weights.dtype is torch.bfloat16:
                b.copy_(torch.matmul(a.float(), weights.float()))
            elif weights.ndim == 3:
                torch.bmm(a, weights, out=b)
            else:
                torch.mm(a, weights, out=b)
            scatter(first, n, b_array, self._scratch[thread])

        self.threads.run(piece, pieces)

    def _view(self, thread: int, rows: int, weights: Tensor) -> tuple[Tensor, np.ndarray, Tensor, np.ndarray]:
        *batch, inputs, outputs = weights.shape
        key = (thread, rows, weights.dtype, *weights.shape)
        if key not in self._views:
            views = []
            for flat, width in zip(self._buffers[thread], (inputs, outputs), strict=True):
                shape = (*batch, rows, width)
                tensor = flat.view(weights.dtype)[: math.prod(shape)].view(shape)
                array = tensor.view(torch.uint16) if weights.dtype is torch.bfloat16 else tensor
                views += [tensor, array.numpy()]
            self._views[key] = tuple(views)
        return self._views[key]
