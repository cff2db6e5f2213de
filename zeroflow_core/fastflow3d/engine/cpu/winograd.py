"""Winograd's minimal filtering F(4×4, 3×3): a 3×3 convolution of a 4×4 tile by 36 products instead of 144.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (arXiv 1509.09308); the matrices come from
interpolation at 0, ±A, ±B and infinity:  tile = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from zeroflow_core.fastflow3d.engine.cpu.kernels import A, B

TILE = 4  # outputs of a tile along an axis
PATCH = 6  # inputs


def input_matrix() -> np.ndarray:
    """Bᵀ (6,6): a row of a patch → six frequencies."""
    a2, b2 = A * A, B * B
    return np.array(
        [
            [a2 * b2, 0, -(a2 + b2), 0, 1, 0],
            [0, -A * b2, -b2, A, 1, 0],
            [0, A * b2, -b2, -A, 1, 0],
            [0, -B * a2, -a2, B, 1, 0],
            [0, B * a2, -a2, -B, 1, 0],
            [0, a2 * b2, 0, -(a2 + b2), 0, 1],
        ]
    )


def transformed_weights(weight: Tensor) -> Tensor:
    """(O,I,3,3) → (36,I,O) float64, ready to be multiplied from the right."""
    a2, b2 = A * A, B * B
    at_a, at_b = 1 / (2 * a2 * (a2 - b2)), 1 / (2 * b2 * (b2 - a2))
    g = torch.tensor(
        [
            [1 / (a2 * b2), 0, 0],
            [at_a, at_a * A, at_a * a2],
            [at_a, -at_a * A, at_a * a2],
            [at_b, at_b * B, at_b * b2],
            [at_b, -at_b * B, at_b * b2],
            [0, 0, 1],
        ],
        dtype=torch.float64,
    )
    # One axis after the other: all at once needs 36 × 9 products for every weight.
    half = torch.einsum("iy,oqyx->ioqx", g, weight.double())
    return torch.einsum("jx,ioqx->ijqo", g, half).reshape(36, weight.shape[1], weight.shape[0]).contiguous()


def upsampled_input_matrices(fine: int) -> np.ndarray:
    """For each row of tiles of a `fine` wide map that is bilinearly upsampled from one half as wide (align_corners
    False): (tiles,6,4) float32, from the four coarse values 2t−1 … 2t+2 (those outside repeat the border) straight to
    frequencies. Zero padding of the fine map is in it.
    """
    tiles = -(-fine // TILE)
    up = np.zeros((tiles, PATCH, 4))
    for t in range(tiles):
        for r in range(PATCH):
            y = TILE * t - 1 + r
            if not 0 <= y < fine:
                continue
            near = y // 2
            other = near + (1 if y % 2 else -1)
            up[t, r, near - (2 * t - 1)] += 0.75
            up[t, r, other - (2 * t - 1)] += 0.25
    return np.ascontiguousarray((input_matrix() @ up).astype(np.float32))
