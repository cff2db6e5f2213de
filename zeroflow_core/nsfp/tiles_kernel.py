"""The search of `tiles` as Triton kernels. Importing this loads Triton; `tiles` does so where it works.

Every 32 successive targets are a tile, every 128 tiles a group, each with its box. One program serves a few
successive queries. In the groups within reach of their box it goes through the tiles, from the nearest box on, until
none is near enough to hold a better neighbour of any query.

Squared distances are compared by their bits: fp32 numbers that are not negative order as those do. With an index below
them, the least number of all is the nearest target, and of targets equally near the one with the lowest index.
"""

# Without postponed annotations: Triton looks at them.
import struct

import torch
import triton
import triton.language as tl
from torch import Tensor

from zeroflow_core.nsfp.tiles import FARTHEST, TILE

GROUP = 128  # tiles
# Queries of a program, which is one warp. One a lane, and the minimum over a tile stays within the lane; but where they
# are much sparser than the targets, 32 lie so far apart that each tile is near one of them only.
_QUERIES, _SPARSE_QUERIES = 32, 8
# No fused multiply-adds: distances are those of plain PyTorch to the last bit, and a box, rounded as its points are, is
# never farther than they.
_OPTIONS = {"num_stages": 1, "enable_fp_fusion": False}

_NEVER = tl.constexpr(0x7FFFFFFF)
# Where rows are put that are no points; queries and targets apart. Squared distances to them are finite in fp32, and
# beyond any limit.
_NOWHERE = tl.constexpr(4e18)
_FARTHEST = tl.constexpr(FARTHEST)
_LARGEST_LIMIT = 1e36  # m²


def nearest(
    queries: Tensor, query_count: Tensor, targets: Tensor, target_count: Tensor, limit: float, index: Tensor
) -> Tensor:
    """Squared distance (B,N) to the nearest target below `limit` (m²), and its index into `index`.

    index: (B,N) int64, contiguous; in: where the neighbours may be, any values; out: where they are, -1 for none
    """
    squared = torch.empty(queries.shape[:2], dtype=torch.float32, device=queries.device)
    if squared.numel():
        arguments = queries, query_count, targets, target_count, limit, index
        _launch(_nearest_kernel, arguments, squared)
    return squared


def add_side(
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
    """One direction of the truncated Chamfer distance, added in fixed point; arguments as in `tiles`."""
    if queries.numel():
        arguments = queries, query_count, targets, target_count, limit, index
        _launch(_side_kernel, arguments, scale, loss, gradient, QUERIES_MOVE=queries_move)


def _launch(kernel, search: tuple, *arguments, **constants) -> None:
    """Lay the boxes of the targets, then run a kernel for every tile of queries of every pair."""
    queries, query_count, targets, target_count, limit, index = search
    queries, targets = queries.contiguous(), targets.contiguous()
    pairs, capacity = targets.shape[:2]
    groups = triton.cdiv(capacity, TILE * GROUP)
    boxes = targets.new_empty((pairs, 6, groups * GROUP))
    group_boxes = targets.new_empty((pairs, 6, groups))
    (limit_bits,) = struct.unpack("i", struct.pack("f", min(limit, _LARGEST_LIMIT)))
    with torch.cuda.device_of(queries):
        if groups:
            _boxes_kernel[groups, pairs](
                targets, target_count, capacity, boxes, group_boxes, TILE=TILE, GROUP=GROUP, num_warps=4, **_OPTIONS
            )
        together = _SPARSE_QUERIES if 2 * queries.shape[1] < capacity else _QUERIES
        kernel[triton.cdiv(queries.shape[1], together), pairs](
            queries,
            query_count,
            queries.shape[1],
            index,
            targets,
            target_count,
            capacity,
            boxes,
            group_boxes,
            groups,
            limit_bits,
            *arguments,
            **constants,
            QUERIES=together,
            TILE=TILE,
            GROUP=GROUP,
            num_warps=1,
            **_OPTIONS,
        )


@triton.jit
def _boxes_kernel(points, count, capacity, boxes, group_boxes, TILE: tl.constexpr, GROUP: tl.constexpr):
    """The boxes of one group's tiles, and its own: lowest x, y, z, highest x, y, z."""
    group, pair = tl.program_id(0), tl.program_id(1).to(tl.int64)
    groups = tl.num_programs(0)
    points += pair * capacity * 3
    count = tl.load(count + pair)
    boxes += (pair * 6 * groups + group) * GROUP
    group_box = group_boxes + pair * 6 * groups + group

    low_x = tl.full((TILE,), _NOWHERE, tl.float32)
    high_x = -low_x
    low_y, high_y, low_z, high_z = low_x, high_x, low_x, high_x
    for first in range(0, GROUP, TILE):  # as many tiles at a time as a tile has points
        tiles = first + tl.arange(0, TILE)
        rows = (group * GROUP + tiles)[:, None] * TILE + tl.arange(0, TILE)[None, :]
        x, y, z, is_point = _load_points(points, rows, count, _NOWHERE)
        box = boxes + tiles
        low_x, high_x = _store_box(x, is_point, box, groups * GROUP, low_x, high_x)
        low_y, high_y = _store_box(y, is_point, box + groups * GROUP, groups * GROUP, low_y, high_y)
        low_z, high_z = _store_box(z, is_point, box + 2 * groups * GROUP, groups * GROUP, low_z, high_z)
    tl.store(group_box, tl.min(low_x, axis=0))
    tl.store(group_box + groups, tl.min(low_y, axis=0))
    tl.store(group_box + 2 * groups, tl.min(low_z, axis=0))
    tl.store(group_box + 3 * groups, tl.max(high_x, axis=0))
    tl.store(group_box + 4 * groups, tl.max(high_y, axis=0))
    tl.store(group_box + 5 * groups, tl.max(high_z, axis=0))


@triton.jit
def _store_box(values, is_point, box, stride, lowest, highest):
    """Store the extent of tiles (tiles, points) along one axis; the extent of these and all before, tile by tile."""
    low = tl.min(values, axis=1)
    high = tl.max(tl.where(is_point, values, -_NOWHERE), axis=1)
    tl.store(box, low)
    tl.store(box + 3 * stride, high)
    return tl.minimum(lowest, low), tl.maximum(highest, high)


@triton.jit
def _nearest_kernel(
    queries,
    query_count,
    query_capacity,
    index,
    targets,
    target_count,
    target_capacity,
    boxes,
    group_boxes,
    groups,
    limit_bits,
    squared,
    QUERIES: tl.constexpr,
    TILE: tl.constexpr,
    GROUP: tl.constexpr,
):
    pair = tl.program_id(1).to(tl.int64)
    rows = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    within = rows < query_capacity
    queries += pair * query_capacity * 3
    index += pair * query_capacity
    targets += pair * target_capacity * 3
    boxes += pair * 6 * groups * GROUP
    group_boxes += pair * 6 * groups

    x, y, z, is_point = _load_points(queries, rows, tl.load(query_count + pair), -_NOWHERE)
    guess = tl.load(index + rows, mask=within, other=0)
    targets_of_pair = tl.load(target_count + pair)
    distance, found = _search(
        x, y, z, is_point, guess, targets, targets_of_pair, boxes, group_boxes, groups, limit_bits, TILE, GROUP
    )
    tl.store(index + rows, found.to(tl.int64), mask=within)
    tl.store(squared + pair * query_capacity + rows, tl.where(found >= 0, distance, float("inf")), mask=within)


@triton.jit
def _side_kernel(
    queries,
    query_count,
    query_capacity,
    index,
    targets,
    target_count,
    target_capacity,
    boxes,
    group_boxes,
    groups,
    limit_bits,
    scale,
    loss,
    gradient,
    QUERIES_MOVE: tl.constexpr,
    QUERIES: tl.constexpr,
    TILE: tl.constexpr,
    GROUP: tl.constexpr,
):
    pair = tl.program_id(1).to(tl.int64)
    rows = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    within = rows < query_capacity
    queries += pair * query_capacity * 3
    index += pair * query_capacity
    targets += pair * target_capacity * 3
    boxes += pair * 6 * groups * GROUP
    group_boxes += pair * 6 * groups

    count = tl.load(query_count + pair)
    x, y, z, is_point = _load_points(queries, rows, count, -_NOWHERE)
    guess = tl.load(index + rows, mask=within, other=0)
    targets_of_pair = tl.load(target_count + pair)
    distance, found = _search(
        x, y, z, is_point, guess, targets, targets_of_pair, boxes, group_boxes, groups, limit_bits, TILE, GROUP
    )
    tl.store(index + rows, found.to(tl.int64), mask=within)

    near = found >= 0
    share = tl.div_rn(1.0, tl.maximum(count, 1).to(tl.float32))
    mean = tl.where(near, distance, 0.0) * share
    tl.atomic_add(loss + pair * 2, tl.sum((mean * scale).to(tl.int64), axis=0), sem="relaxed")
    strays = tl.sum((rows < count).to(tl.int64) - is_point.to(tl.int64), axis=0)
    tl.atomic_add(loss + pair * 2 + 1, strays, mask=strays > 0, sem="relaxed")
    if QUERIES_MOVE:
        pull = 2.0 * share
        moving = gradient + (pair * query_capacity + rows) * 3
    else:
        pull = -2.0 * share
        moving = gradient + (pair * target_capacity + found) * 3
    neighbour = targets + found * 3
    pull_x = pull * (x - tl.load(neighbour, mask=near, other=x)) * scale
    pull_y = pull * (y - tl.load(neighbour + 1, mask=near, other=y)) * scale
    pull_z = pull * (z - tl.load(neighbour + 2, mask=near, other=z)) * scale
    tl.atomic_add(moving, pull_x.to(tl.int64), mask=near, sem="relaxed")
    tl.atomic_add(moving + 1, pull_y.to(tl.int64), mask=near, sem="relaxed")
    tl.atomic_add(moving + 2, pull_z.to(tl.int64), mask=near, sem="relaxed")


@triton.jit
def _search(
    x,
    y,
    z,
    is_point,
    guess,
    targets,
    count,
    boxes,
    group_boxes,
    groups,
    limit_bits,
    TILE: tl.constexpr,
    GROUP: tl.constexpr,
):
    """Squared distances (Q,) of queries that lie together to their nearest targets, and index of these, -1 for none."""
    low_x, high_x = tl.min(tl.where(is_point, x, _NOWHERE), axis=0), tl.max(x, axis=0)
    low_y, high_y = tl.min(tl.where(is_point, y, _NOWHERE), axis=0), tl.max(y, axis=0)
    low_z, high_z = tl.min(tl.where(is_point, z, _NOWHERE), axis=0), tl.max(z, axis=0)

    # A guess costs one distance, and puts most tiles out of reach from the start.
    guess = tl.maximum(tl.minimum(guess, count - 1), 0)
    guess_x, guess_y, guess_z, _guess_is_point = _load_points(targets, guess, count, _NOWHERE)
    none = tl.zeros_like(guess) + (limit_bits.to(tl.int64) << 32)
    best = tl.minimum(none, (_squared_bits(x - guess_x, y - guess_y, z - guess_z).to(tl.int64) << 32) | guess)
    reach = tl.max(tl.where(is_point, (best >> 32).to(tl.int32), -1), axis=0)

    in_group = tl.arange(0, GROUP)
    for group in range(0, tl.cdiv(count, TILE * GROUP)):
        if _gap_bits(low_x, high_x, low_y, high_y, low_z, high_z, group_boxes + group, groups) <= reach:
            box = boxes + group * GROUP
            gaps = _gap_bits(low_x, high_x, low_y, high_y, low_z, high_z, box + in_group, groups * GROUP)
            # The tile's number takes the place of the gap's last bits, which makes gaps a little smaller.
            waiting = (gaps & -GROUP) | in_group
            following = tl.min(waiting, axis=0)
            while (following & -GROUP) <= reach:
                tile = following & (GROUP - 1)
                wants = _gap_bits(x, x, y, y, z, z, box + tile, groups * GROUP) <= (best >> 32).to(tl.int32)
                if tl.max((wants & is_point).to(tl.int32), axis=0) > 0:
                    rows = (group * GROUP + tile) * TILE + tl.arange(0, TILE)
                    target_x, target_y, target_z, _target_is_point = _load_points(targets, rows, count, _NOWHERE)
                    # Targets down, queries across: a lane has one query.
                    away_x = x[None, :] - target_x[:, None]
                    away_y = y[None, :] - target_y[:, None]
                    away_z = z[None, :] - target_z[:, None]
                    found = (_squared_bits(away_x, away_y, away_z).to(tl.int64) << 32) | rows[:, None]
                    best = tl.minimum(best, tl.min(found, axis=0))
                    reach = tl.max(tl.where(is_point, (best >> 32).to(tl.int32), -1), axis=0)
                waiting = tl.where(waiting == following, _NEVER, waiting)
                following = tl.min(waiting, axis=0)

    distance = (best >> 32).to(tl.int32).to(tl.float32, bitcast=True)
    return distance, tl.where(best < none, (best & 0xFFFFFFFF).to(tl.int32), -1)


@triton.jit
def _gap_bits(low_x, high_x, low_y, high_y, low_z, high_z, box, stride):
    """How far boxes, from `low` to `high`, are from those at `box`: bits of the squared distance."""
    x = _gap(low_x, high_x, tl.load(box), tl.load(box + 3 * stride))
    y = _gap(low_y, high_y, tl.load(box + stride), tl.load(box + 4 * stride))
    z = _gap(low_z, high_z, tl.load(box + 2 * stride), tl.load(box + 5 * stride))
    return _squared_bits(x, y, z)


@triton.jit
def _gap(low, high, other_low, other_high):
    return tl.maximum(tl.maximum(other_low - high, low - other_high), 0.0)


@triton.jit
def _squared_bits(x, y, z):
    return (x * x + y * y + z * z).to(tl.int32, bitcast=True)


@triton.jit
def _load_points(points, rows, count, nowhere):
    """x, y, z of a cloud's rows, at `nowhere` for those that are no points; and which ones are."""
    row = points + rows * 3
    within = rows < count
    x = tl.load(row, mask=within, other=nowhere)
    y = tl.load(row + 1, mask=within, other=nowhere)
    z = tl.load(row + 2, mask=within, other=nowhere)
    is_point = (tl.abs(x) < _FARTHEST) & (tl.abs(y) < _FARTHEST) & (tl.abs(z) < _FARTHEST)
    return tl.where(is_point, x, nowhere), tl.where(is_point, y, nowhere), tl.where(is_point, z, nowhere), is_point
