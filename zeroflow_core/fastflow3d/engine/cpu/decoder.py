"""Both clouds' maps → what the head adds up at each pillar of pc0, and nothing that no such pillar reads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from zeroflow_core.fastflow3d.engine.cpu import kernels
from zeroflow_core.fastflow3d.engine.cpu.compose import compose
from zeroflow_core.fastflow3d.engine.cpu.encoder import Encoder, padded_shape
from zeroflow_core.fastflow3d.engine.cpu.pillars import Pillars
from zeroflow_core.fastflow3d.engine.cpu.products import Products
from zeroflow_core.fastflow3d.engine.cpu.tiles import grown, halved, places, tiles_of
from zeroflow_core.fastflow3d.engine.cpu.winograd import transformed_weights, upsampled_input_matrices
from zeroflow_core.fastflow3d.engine.fold import Conv, Folded, Level

WINDOW_ROWS = 128  # of a piece: a window is long


@dataclass(frozen=True)
class _Step:
    """One level but the finest, with what is linear around it folded in.

    join:   (36, upsampled + lateral channels, O); the lateral 1×1 is in it, its bias by row and column (3,3,O)
    out:    (36, O, …); the next level's coarse 1×1 is in it
    up:     see upsampled_input_matrices
    joined, result: maps it writes;  the result is padded by `pad`
    """

    size: int
    join: Tensor
    join_bias: np.ndarray
    out: Tensor
    out_bias: np.ndarray
    up: np.ndarray
    joined: np.ndarray
    result: np.ndarray
    pad: int


class Decoder:
    def __init__(self, folded: Folded, products: Products) -> None:
        self._products = products
        self._cells = folded.config.cells
        self._stages = len(folded.levels)
        coarse = folded.levels[0].coarse
        self._coarse = products.weights(coarse.weight[:, :, 0, 0].T)
        self._coarse_bias = coarse.bias.numpy()
        self._start_pad = 2 if self._stages == 1 else 0
        start = padded_shape(self._cells >> self._stages, len(self._coarse_bias), 1, self._start_pad)
        self._start = np.zeros(start, products.kept_as)
        self._steps = [
            _step(level, following, self._cells >> (self._stages - 1 - n), 2 if n == self._stages - 2 else 0, products)
            for n, (level, following) in enumerate(zip(folded.levels[:-1], folded.levels[1:], strict=True))
        ]
        windows = compose(folded)
        self._kind, self._kinds = windows.kind, int(windows.kind.max()) + 1
        self._window = products.weights(windows.weight)
        self._window_bias = windows.bias.numpy()

    def decode(self, pillars: Pillars, encoder: Encoder, slot0: int, slot1: int) -> np.ndarray:
        """(P,K) float32 for the pillars of the cloud in slot0: everything in the head's first sum but the offsets."""
        needed = self._needed(pillars, slot0)
        maps, pad = self._start, self._start_pad
        if self._steps:
            # Zero what is read beside what is computed: an old value of any size would enter Winograd's sums.
            self._clear(maps, tiles_of(grown(grown(needed[0]))), needed[0].shape[-1], pad)
        self._first(encoder.maps[-1], slot0, slot1, needed[0])
        for n, step in enumerate(self._steps):
            tiles = tiles_of(needed[n + 1])
            joined = tiles_of(grown(needed[n + 1]))
            self._clear(step.joined, grown(tiles) & ~joined, step.size, 1)
            self._join(step, maps, pad, encoder.maps[-2 - n], slot0, slot1, places(joined))
            self._clear(step.result, grown(grown(tiles)) & ~tiles, step.size, step.pad)
            self._out(step, places(tiles))
            maps, pad = step.result, step.pad
        _repeat_border(maps, self._cells // 2)
        return self._windows(maps[0], pillars, slot0, slot1)

    def _needed(self, pillars: Pillars, slot0: int) -> list[np.ndarray]:
        """Cells (1,H,W) of the map that each level upsamples, the coarsest first."""
        masks = [grown(grown(halved(pillars.occupied([slot0]))))]  # a window is 5×5
        for _ in self._steps:
            # out reads its neighbours, join theirs, upsampling again theirs.
            masks.append(grown(halved(grown(grown(masks[-1])))))
        return masks[::-1]

    def _clear(self, maps: np.ndarray, tiles: np.ndarray, size: int, pad: int) -> None:
        zeros, where = np.zeros((1, 1, maps.shape[3]), np.float32), np.zeros(size, np.int32)
        at = places(tiles)
        kernels.fill_tiles(maps, at, 0, len(at), size, pad, zeros, where)

    def _first(self, coarsest: np.ndarray, slot0: int, slot1: int, needed: np.ndarray) -> None:
        at = places(needed)

        def gather(first: int, n: int, factor: np.ndarray, scratch: np.ndarray) -> None:
            kernels.both_at(coarsest, slot0, slot1, at, first, n, factor)

        def scatter(first: int, n: int, product: np.ndarray, scratch: np.ndarray) -> None:
            kernels.rows_to_sites(product, at, first, n, self._coarse_bias, False, self._start, self._start_pad)

        self._products.run(len(at), self._coarse, gather, scatter)

    def _join(
        self, step: _Step, coarse: np.ndarray, pad: int, lateral: np.ndarray, slot0: int, slot1: int, at: np.ndarray
    ) -> None:
        wide, narrow = coarse.shape[3], lateral.shape[3]

        def gather(first: int, n: int, factor: np.ndarray, scratch: np.ndarray) -> None:
            kernels.upsampled_to_frequencies(coarse[0], pad, step.size // 2, step.up, at, first, n, factor, 0, scratch)
            kernels.patches_to_frequencies(lateral, slot0, at, first, n, factor, wide, scratch)
            kernels.patches_to_frequencies(lateral, slot1, at, first, n, factor, wide + narrow, scratch)

        def scatter(first: int, n: int, product: np.ndarray, scratch: np.ndarray) -> None:
            kernels.frequencies_to_tiles(
                product, at, first, n, step.join_bias, False, step.size, step.joined, 1, scratch
            )

        self._products.run(len(at), step.join, gather, scatter)

    def _out(self, step: _Step, at: np.ndarray) -> None:
        def gather(first: int, n: int, factor: np.ndarray, scratch: np.ndarray) -> None:
            kernels.patches_to_frequencies(step.joined, -1, at, first, n, factor, 0, scratch)

        def scatter(first: int, n: int, product: np.ndarray, scratch: np.ndarray) -> None:
            kernels.frequencies_to_tiles(
                product, at, first, n, step.out_bias, False, step.size, step.result, step.pad, scratch
            )

        self._products.run(len(at), step.out, gather, scatter)

    def _windows(self, coarse: np.ndarray, pillars: Pillars, slot0: int, slot1: int) -> np.ndarray:
        cell_of = pillars.slots[slot0].cell_of
        sums = np.empty((len(cell_of), self._window.shape[2]), np.float32)
        kind = self._kind[cell_of // self._cells] * self._kinds + self._kind[cell_of % self._cells]
        order = np.argsort(kind, kind="stable").astype(np.int32)
        ends = np.cumsum(np.bincount(kind, minlength=self._kinds**2))
        for k in np.flatnonzero(np.diff(ends, prepend=0)):
            of_kind = order[ends[k - 1] if k else 0 : ends[k]]
            bias = self._window_bias[k]

            def gather(first: int, n: int, factor: np.ndarray, scratch: np.ndarray, of_kind=of_kind) -> None:
                kernels.windows(
                    coarse, pillars.ids, pillars.features, slot0, slot1, self._cells, cell_of, of_kind, first, n, factor
                )

            def scatter(
                first: int, n: int, product: np.ndarray, scratch: np.ndarray, of_kind=of_kind, bias=bias
            ) -> None:
                kernels.rows_to_pillars(product, of_kind, first, n, bias, sums)

            self._products.run(len(of_kind), self._window[k], gather, scatter, rows=WINDOW_ROWS)
        return sums


def _repeat_border(maps: np.ndarray, size: int) -> None:
    """Into the padding of a map (1, size + 4, …) next to the grid, as bilinear upsampling repeats it."""
    last = size + 1
    maps[0, 1, 2 : size + 2] = maps[0, 2, 2 : size + 2]
    maps[0, last + 1, 2 : size + 2] = maps[0, last, 2 : size + 2]
    maps[0, 1 : size + 3, 1] = maps[0, 1 : size + 3, 2]
    maps[0, 1 : size + 3, last + 1] = maps[0, 1 : size + 3, last]


def _step(level: Level, following: Level, size: int, pad: int, products: Products) -> _Step:
    wide = level.coarse.weight.shape[0]
    upsampled, lateral = level.join.weight.double().split([wide, level.join.weight.shape[1] - wide], dim=1)
    by_lateral = torch.einsum("olyx,ld->odyx", lateral, level.lateral.weight[:, :, 0, 0].double())
    join = torch.cat([upsampled, by_lateral], dim=1)
    out, out_bias = _after(following.coarse, level.out)
    return _Step(
        size=size,
        join=products.weights(transformed_weights(join)),
        join_bias=_border_bias(level.join.bias, torch.einsum("olyx,l->oyx", lateral, level.lateral.bias.double())),
        out=products.weights(transformed_weights(out)),
        out_bias=np.ascontiguousarray(np.broadcast_to(out_bias.numpy(), (3, 3, len(out_bias)))),
        up=upsampled_input_matrices(size),
        joined=np.zeros(padded_shape(size, join.shape[0], 1), products.kept_as),
        result=np.zeros(padded_shape(size, len(out_bias), 1, pad), products.kept_as),
        pad=pad,
    )


def _after(pointwise: Conv, conv: Conv) -> tuple[Tensor, Tensor]:
    """A 1×1 convolution of what a 3×3 one gives, as one 3×3: weight (O,I,3,3) float64 and bias (O,) float32."""
    matrix = pointwise.weight[:, :, 0, 0].double()
    weight = torch.einsum("pm,mi...->pi...", matrix, conv.weight.double())
    return weight, (matrix @ conv.bias.double() + pointwise.bias.double()).float()


def _border_bias(bias: Tensor, by_tap: Tensor) -> np.ndarray:
    """(3,3,O) by first, inner, last row and column: the sum of a bias (O,3,3) that only cells inside the grid have."""
    inside = {0: slice(1, 3), 1: slice(0, 3), 2: slice(0, 2)}
    rows = [[bias.double() + by_tap[:, inside[y], inside[x]].sum((1, 2)) for x in range(3)] for y in range(3)]
    return torch.stack([torch.stack(row) for row in rows]).float().numpy()
