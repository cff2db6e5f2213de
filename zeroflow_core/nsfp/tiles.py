"""Exact nearest neighbours and NSFP's loss on a GPU, for the inside of an optimisation.

Batched, of fixed shapes, without a matrix of all distances and without synchronisation: all here may be captured in a
CUDA graph, once it has been called on the device before. Put the clouds into `tile_order` first: a search leaves out
every tile of 32 successive points that is farther away than what its queries have found already. They may move from
search to search; order and guesses only make it fast. A pair's result depends on nothing else in its batch, nor on
the padding.

Batches: points (B,N,3) float32, metres, and counts (B,) int32. Rows from a pair's count on are padding and may hold
anything; rows that are not finite neither find a neighbour nor are one.
"""

from __future__ import annotations

import math
import warnings
from functools import cache

import torch
from torch import Tensor

TILE = 32  # points
FARTHEST = 1e17  # metres; what lies beyond counts as not finite, so that squares are
_DISTANCES_AT_ONCE = 1 << 24  # in plain PyTorch; a few fields of 64 MB


def tile_order(points: Tensor, count: Tensor) -> Tensor:
    """A permutation (B,N) int64 of each cloud's rows: 32 successive points lie close together, padding comes last.

    Halves the cloud across its longest side, then the halves, down to 32 points. On real sweeps a search then computes
    260 distances for a query among 61,000 targets, half as many as with points along a Morton curve.
    """
    pairs, rows = points.shape[:2]
    is_point = _is_point(points, count)
    # At least one halving: then more padding changes nothing, and a cloud's order depends on no other in the batch.
    size = TILE << max(1, math.ceil(rows / TILE) - 1).bit_length()
    spare = points.new_full((pairs, size - rows, 3), math.inf)
    points = torch.cat([torch.where(is_point[..., None], points, math.inf), spare], dim=1)
    order = torch.arange(size, device=points.device).expand(pairs, size)
    while size > TILE:
        blocks, order = points.view(-1, size, 3), order.reshape(-1, size)
        highest = torch.where(blocks == math.inf, -math.inf, blocks).amax(dim=1)
        longest = (highest - blocks.amin(dim=1)).argmax(dim=1)
        side = blocks.gather(2, longest[:, None, None].expand(-1, size, 1))[..., 0]
        ranks = side.sort(dim=1, stable=True).indices  # stable: what isn't a point stays before padding
        points, order = blocks.gather(1, ranks[..., None].expand(-1, -1, 3)), order.gather(1, ranks)
        size //= 2
    return order.reshape(pairs, -1)[:, :rows].contiguous()


def nearest(
    queries: Tensor,
    query_count: Tensor,
    targets: Tensor,
    target_count: Tensor,
    radius: float,
    guess: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """For each query (B,N,3) the nearest target (B,M,3) within `radius` metres (less than; may be infinite).

    guess: (B,N) int64, where the neighbours may be, such as those of the last iteration; any values

    Returns squared distance (B,N) float32, the sum of the squared differences in fp32, and index (B,N) int64, the
    lowest of targets equally near; inf and -1 where there is none.
    """
    index = torch.full(queries.shape[:2], -1, device=queries.device) if guess is None else guess.clone()
    search = _kernels().nearest if _runs_triton(queries.device) else _nearest
    return search(queries, query_count, targets, target_count, radius * radius, index), index


def truncated_chamfer(
    moving: Tensor,
    moving_count: Tensor,
    still: Tensor,
    still_count: Tensor,
    truncation: float,
    guess: tuple[Tensor, Tensor] | None = None,
    sample: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """NSFP's loss between two clouds, and its gradient with respect to the moving one, without autograd.

    For each direction the squared distances to the nearest neighbours, those from `truncation` (m², finite) on set to
    0, and their mean over all points of that direction's cloud (0 for a cloud of none); the sum of both.

    sample: points (B,K,3) of `still` and counts (B,), which stand for all of them where they look for their neighbours
            in `moving`
    guess:  (B,N) for the points of `moving` (B,N,3) and (B,M) for those of `still` (B,M,3), or (B,K) for the sample,
            int64, contiguous: where their neighbours may be, any values; overwritten with where they are, for the next
            iteration

    Returns loss (B,) float32, m², NaN where a point is not finite, and gradient (B,N,3) float32, m, 0 for padding.
    """
    pairs, device = len(moving), moving.device
    looking = sample or (still, still_count)
    if guess is None:
        guess = tuple(torch.full(cloud.shape[:2], -1, device=device) for cloud in (moving, looking[0]))
    # On a GPU points pull at a point in any order, and fp32 sums depend on it: sum integers. No sum of gradients grows
    # beyond 4 · √truncation and no loss beyond 2 · truncation, so that 61 of the 63 bits hold them.
    scale = 2.0 ** (61 - math.ceil(math.log2(max(4 * math.sqrt(truncation), 2 * truncation))))
    loss = torch.zeros(pairs, 2, dtype=torch.int64, device=device)  # sum, points that are not finite
    gradient = torch.zeros(moving.shape, dtype=torch.int64, device=device)
    add_side = _kernels().add_side if _runs_triton(device) else _add_side
    forth, back = (moving, moving_count, still, still_count), (*looking, moving, moving_count)
    add_side(*forth, truncation, guess[0], scale, loss, gradient, queries_move=True)
    add_side(*back, truncation, guess[1], scale, loss, gradient, queries_move=False)
    return torch.where(loss[:, 1] > 0, math.nan, loss[:, 0] * (1 / scale)), gradient * (1 / scale)


def _kernels():
    from zeroflow_core.nsfp import tiles_kernel

    return tiles_kernel


@cache
def _runs_triton(device: torch.device) -> bool:
    """Whether Triton works on a device: it must be installed, know the GPU, and find a C compiler."""
    if device.type != "cuda":
        return False
    try:
        search = _kernels().nearest
        point, one = torch.zeros(1, 1, 3, device=device), torch.ones(1, dtype=torch.int32, device=device)
        search(point, one, point, one, 1.0, torch.zeros(1, 1, dtype=torch.int64, device=device))
    except Exception as problem:  # Triton, the driver and the compiler each have their own
        warnings.warn(f"Triton does not work on {device}; plain PyTorch is many times slower: {problem}", stacklevel=4)
        return False
    return True


def _nearest(
    queries: Tensor, query_count: Tensor, targets: Tensor, target_count: Tensor, limit: float, index: Tensor
) -> Tensor:
    """`tiles_kernel.nearest` in plain PyTorch: all distances, a few queries at a time."""
    pairs, rows, capacity = *queries.shape[:2], targets.shape[1]
    squared = torch.full((pairs, rows), math.inf, device=queries.device)
    index.fill_(-1)
    if not pairs * rows * capacity:
        return squared
    is_query = _is_point(queries, query_count)
    queries = torch.where(is_query[..., None], queries, 0.0)
    targets = torch.where(_is_point(targets, target_count)[..., None], targets, math.inf)
    numbers = torch.arange(capacity, dtype=torch.int32, device=queries.device)
    step = max(1, _DISTANCES_AT_ONCE // (pairs * capacity))
    for first in range(0, rows, step):
        some = slice(first, first + step)
        distances = torch.zeros((), device=queries.device)
        for axis in range(3):
            away = queries[:, some, None, axis] - targets[:, None, :, axis]
            distances = away.square_().add_(distances)
        least = distances.amin(dim=2)
        lowest = torch.where(distances == least[..., None], numbers, capacity).amin(dim=2)
        near = is_query[:, some] & (least < limit)
        squared[:, some] = torch.where(near, least, math.inf)
        index[:, some] = torch.where(near, lowest, -1)
    return squared


def _add_side(
    queries: Tensor,
    query_count: Tensor,
    targets: Tensor,
    target_count: Tensor,
    limit: float,
    index: Tensor,
    scale: float,
    loss: Tensor,
    gradient: Tensor,
    queries_move: bool,
) -> None:
    """One direction of the truncated Chamfer distance, added in fixed point (times `scale`, int64).

    index:    (B,N) int64, contiguous; in: where the neighbours may be, any values; out: where they are, -1 for none
    loss:     (B,2), to which are added the mean of the squared distances below `limit`, and the number (itself) of
              queries that are not finite
    gradient: (B,N,3), or (B,M,3) where the targets move, to which that of the mean is added
    """
    squared = _nearest(queries, query_count, targets, target_count, limit, index)
    near = index >= 0
    share = 1 / query_count.clamp(min=1).float()[:, None]
    loss[:, 0] += (torch.where(near, squared, 0.0) * share * scale).long().sum(dim=1)
    loss[:, 1] += query_count - _is_point(queries, query_count).sum(dim=1)
    if not targets.shape[1]:
        return
    neighbour = index.clamp(min=0)[..., None].expand(-1, -1, 3)
    away = torch.where(near[..., None], queries - targets.gather(1, neighbour), 0.0)
    pull = ((2 * share if queries_move else -2 * share)[..., None] * away * scale).long()
    if queries_move:
        gradient += pull
    else:
        gradient.scatter_add_(1, neighbour, pull)


def _is_point(points: Tensor, count: Tensor) -> Tensor:
    """(B,N) bool: rows within the count, and finite."""
    within = torch.arange(points.shape[1], device=points.device) < count[:, None]
    return within & (points.abs() < FARTHEST).all(dim=2)
