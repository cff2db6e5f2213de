"""Which cells and which 4×4 tiles of a map have to be computed: masks (…,H,W) of bool, and lists of their places."""

from __future__ import annotations

import numpy as np

from zeroflow_core.fastflow3d.engine.cpu.winograd import TILE


def grown(mask: np.ndarray) -> np.ndarray:
    """Also what is next to it, diagonally too: where a 3×3 convolution of it may differ."""
    rows = mask.copy()
    rows[..., 1:, :] |= mask[..., :-1, :]
    rows[..., :-1, :] |= mask[..., 1:, :]
    out = rows.copy()
    out[..., 1:] |= rows[..., :-1]
    out[..., :-1] |= rows[..., 1:]
    return out


def halved(mask: np.ndarray) -> np.ndarray:
    """Cells twice as large in which any is set."""
    rows = mask[..., ::2, :] | mask[..., 1::2, :]
    return rows[..., ::2] | rows[..., 1::2]


def strided(mask: np.ndarray) -> np.ndarray:
    """Where a 3×3 convolution of stride 2 reads a set cell: 2y − 1 … 2y + 1."""
    rows = mask[..., ::2, :] | mask[..., 1::2, :]
    rows[..., 1:, :] |= mask[..., 1:-1:2, :]
    out = rows[..., ::2] | rows[..., 1::2]
    out[..., 1:] |= rows[..., 1:-1:2]
    return out


def tiles_of(mask: np.ndarray) -> np.ndarray:
    """Tiles in which any cell is set, (…,⌈H/4⌉,⌈W/4⌉)."""
    height, width = (-(-n // TILE) * TILE for n in mask.shape[-2:])
    if (height, width) != mask.shape[-2:]:
        whole = np.zeros((*mask.shape[:-2], height, width), dtype=bool)
        whole[..., : mask.shape[-2], : mask.shape[-1]] = mask
        mask = whole
    return halved(halved(mask))


def places(mask: np.ndarray) -> np.ndarray:
    """(n,3) int32: slot, row, column of what is set in (slots,H,W)."""
    at = np.flatnonzero(mask)
    _, height, width = mask.shape
    out = np.empty((len(at), 3), dtype=np.int32)
    out[:, 2] = at % width
    at //= width
    out[:, 1] = at % height
    out[:, 0] = at // height
    return out
