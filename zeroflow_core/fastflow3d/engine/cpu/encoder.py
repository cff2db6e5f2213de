"""Pillars → one map per stage, for the clouds that are new: only what their points can have changed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from zeroflow_core.fastflow3d.engine.cpu import kernels
from zeroflow_core.fastflow3d.engine.cpu.empty import empty_responses
from zeroflow_core.fastflow3d.engine.cpu.pillars import SLOTS, Pillars
from zeroflow_core.fastflow3d.engine.cpu.products import Products
from zeroflow_core.fastflow3d.engine.cpu.tiles import grown, places, strided, tiles_of
from zeroflow_core.fastflow3d.engine.cpu.winograd import TILE, transformed_weights
from zeroflow_core.fastflow3d.engine.fold import Conv, Folded


@dataclass(frozen=True)
class _Layer:
    """One convolution with its GELU.

    weights: (9 C,O) where the stride is 2, else (36,C,O);  bias: (O,), else (3,3,O)
    empty, where: see empty_responses
    """

    stride: int
    weights: Tensor
    bias: np.ndarray
    empty: np.ndarray
    where: np.ndarray


class Encoder:
    """
    maps: of each stage (2, H + 2, W + 2, C), complete for what the slots hold. Tiles that no point has
          touched keep the empty grid's values from one cloud to the next.
    """

    def __init__(self, folded: Folded, products: Products) -> None:
        self._products = products
        self._cells = folded.config.cells
        self._layers = [
            # The first stage in float32 takes a quarter off bfloat16's error, for a few hundredths of the time.
            [_layer(conv, *empty, products, precise=k == 0) for conv, empty in zip(stage, of_stage, strict=True)]
            for k, (stage, of_stage) in enumerate(zip(folded.encoder, empty_responses(folded), strict=True))
        ]
        self.maps: list[np.ndarray] = []
        self._between: list[list[np.ndarray]] = []  # maps inside a stage, in turn
        self._touched: list[np.ndarray] = []  # tiles of self.maps that are not as an empty grid's
        for k, stage in enumerate(self._layers, start=1):
            size = self._cells >> k
            shape = padded_shape(size, stage[0].weights.shape[-1])
            self.maps.append(np.zeros(shape, products.kept_as))
            self._between.append([np.zeros(shape, products.kept_as) for _ in range(min(2, len(stage) - 1))])
            tiles = -(-size // TILE)
            self._touched.append(np.ones((SLOTS, tiles, tiles), dtype=bool))

    def forget_all(self) -> None:
        """After work was broken off: who knows what it has touched."""
        for touched in self._touched:
            touched[:] = True

    def encode(self, pillars: Pillars, slots: list[int]) -> None:
        """The clouds in these slots, into `maps`."""
        sites = np.zeros((SLOTS, self._cells, self._cells), dtype=bool)
        sites[slots] = pillars.occupied(slots)
        others = [s for s in range(SLOTS) if s not in slots]
        source: np.ndarray | None = None
        for k, stage in enumerate(self._layers):
            masks = [strided(sites)]
            for _ in stage[1:]:
                masks.append(grown(masks[-1]))
            sites = masks[-1]
            tiles = [tiles_of(mask) for mask in masks]
            for n, layer in enumerate(stage):
                final = n == len(stage) - 1
                target = self.maps[k] if final else self._between[k][n % 2]
                # What the next layer reads beside what is computed here is as in an empty grid.
                if final:
                    rest = self._touched[k].copy()
                    rest[others] = False
                    self._touched[k][slots] = tiles[n][slots]
                else:
                    rest = grown(tiles[n + 1])
                if layer.stride == 1:
                    rest &= ~tiles[n]
                self._fill(rest, layer, target)
                if layer.stride == 2:
                    self._reduce(pillars if source is None else source, places(masks[n]), layer, target)
                else:
                    self._convolve(source, places(tiles[n]), layer, target)
                source = target

    def _fill(self, tiles: np.ndarray, layer: _Layer, target: np.ndarray) -> None:
        at = places(tiles)
        size = len(layer.where)
        share = -(-len(at) // self._products.threads.count)

        def piece(i: int, thread: int) -> None:
            n = min(share, len(at) - i * share)
            kernels.fill_tiles(target, at, i * share, n, size, 1, layer.empty, layer.where)

        self._products.threads.run(piece, -(-len(at) // share) if share else 0)

    def _reduce(self, source: Pillars | np.ndarray, at: np.ndarray, layer: _Layer, target: np.ndarray) -> None:
        def gather(first: int, n: int, factor: np.ndarray, scratch: np.ndarray) -> None:
            if isinstance(source, Pillars):
                kernels.pillars_around(source.ids, source.features, at, first, n, factor)
            else:
                kernels.map_around(source, at, first, n, factor)

        def scatter(first: int, n: int, product: np.ndarray, scratch: np.ndarray) -> None:
            kernels.rows_to_sites(product, at, first, n, layer.bias, True, target, 1)

        self._products.run(len(at), layer.weights, gather, scatter)

    def _convolve(self, source: np.ndarray, at: np.ndarray, layer: _Layer, target: np.ndarray) -> None:
        size = len(layer.where)

        def gather(first: int, n: int, factor: np.ndarray, scratch: np.ndarray) -> None:
            kernels.patches_to_frequencies(source, -1, at, first, n, factor, 0, scratch)

        def scatter(first: int, n: int, product: np.ndarray, scratch: np.ndarray) -> None:
            kernels.frequencies_to_tiles(product, at, first, n, layer.bias, True, size, target, 1, scratch)

        self._products.run(len(at), layer.weights, gather, scatter)


def padded_shape(size: int, channels: int, slots: int = SLOTS, pad: int = 1) -> tuple[int, int, int, int]:
    """Of maps whose whole tiles and patches lie inside the array."""
    whole = -(-size // TILE) * TILE + 2 * pad
    return slots, whole, whole, channels


def _layer(conv: Conv, empty: np.ndarray, where: np.ndarray, products: Products, precise: bool) -> _Layer:
    bias = conv.bias.numpy()
    if conv.stride == 2:
        outputs, inputs = conv.weight.shape[:2]
        weights = conv.weight.permute(2, 3, 1, 0).reshape(9 * inputs, outputs)
    else:
        weights, bias = transformed_weights(conv.weight), np.ascontiguousarray(np.broadcast_to(bias, (3, 3, len(bias))))
    return _Layer(conv.stride, products.weights(weights, precise), bias, empty, where)
