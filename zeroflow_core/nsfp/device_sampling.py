"""The draws of `sampling` for many pairs on a GPU: from the host they would take many times as long as all the rest.

They are as those of `sampling`, of other random numbers.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from zeroflow_core.nsfp.sampling import AROUND, CELL, DIFFERS
from zeroflow_core.nsfp.tiles import nearest

_BITS = 21  # of a cell's number along each axis: 200 km on either side


def differing(clouds: Tensor, counts: Tensor, others: Tensor, other_counts: Tensor) -> Tensor:
    """(B,N) bool: the rows that `sampling.differing` finds in each of `clouds` (B,N,3); batches as in `tiles`."""
    alone = nearest(clouds, counts, others, other_counts, DIFFERS)[1] < 0
    seeds = torch.where(alone[..., None], clouds, math.nan)  # what isn't finite is nobody's neighbour
    near = nearest(clouds, counts, seeds, counts, AROUND)[1] >= 0
    x, y, z = ((clouds / CELL).floor().long() + (1 << _BITS - 1)).unbind(dim=2)
    cells = torch.where(near, (x << 2 * _BITS) | (y << _BITS) | z, -1)
    cells, order = cells.sort(dim=1, stable=True)
    is_first = cells >= 0
    is_first[:, 1:] &= cells[:, 1:] != cells[:, :-1]
    return torch.zeros_like(near).scatter_(1, order, is_first)


def draw(
    clouds: tuple[Tensor, Tensor], counts: tuple[Tensor, Tensor], samples: int, shares: np.ndarray, seed: int
) -> tuple[Tensor, Tensor]:
    """Rows (T,B,samples) int32 of pc0 and of pc1 for each of T iterations, with replacement, in the clouds' order.

    clouds: pc0 (B,N,3) and pc1 (B,M,3) in tile order; counts: (B,) int32 of each
    shares: (T,) how many of an iteration's samples come from where the sweeps differ, 0 to 1
    seed:   of every pair, so that its draws depend on nothing else in the batch
    """
    (pc0, pc1), (count0, count1), device = clouds, counts, clouds[0].device
    differs = differing(pc0, count0, pc1, count1), differing(pc1, count1, pc0, count0)
    from_differing = torch.from_numpy(np.round(shares * samples)[:, None]).to(device)
    is_from_differing = torch.arange(samples, device=device) < from_differing
    rows = tuple(torch.empty(len(shares), len(pc0), samples, dtype=torch.int32, device=device) for _ in clouds)
    for pair, points in enumerate(zip(count0.tolist(), count1.tolist(), strict=True)):
        random = torch.Generator(device).manual_seed(seed)
        for side in range(2):
            differing_rows = differs[side][pair].nonzero()[:, 0]
            drawn = _drawn(points[side], differing_rows, is_from_differing, random)
            rows[side][:, pair] = drawn.sort(dim=1).values
    return rows


def _drawn(points: int, differing_rows: Tensor, is_from_differing: Tensor, random: torch.Generator) -> Tensor:
    shape, device = is_from_differing.shape, is_from_differing.device
    rows = torch.randint(points, shape, generator=random, device=device)
    if not len(differing_rows):
        return rows
    special = differing_rows[torch.randint(len(differing_rows), shape, generator=random, device=device)]
    return torch.where(is_from_differing, special, rows)
