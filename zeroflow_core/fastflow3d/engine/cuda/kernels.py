"""The functions of `plain` as Triton kernels. Importing this loads Triton; `network` does so where it works.

Points are added to their pillars by atomics, in any order: two runs on the same clouds may differ in the last digits of
a pillar's sums. Those are fp32 sums of offsets and of features of a few points, so that flows differ by micrometres.
"""

# Without postponed annotations: Triton looks at them.
import torch
import triton
import triton.language as tl
from torch import Tensor

from zeroflow_core.fastflow3d.engine.cuda.plain import Grid, PointLayers

_POINTS = 128  # of a program, where it has no channels
_WITH_CHANNELS = 64
_ELEMENTS = 1024
_PIXELS, _CHANNELS = 32, 64
# No fused multiply-adds: points are in the very pillars that plain PyTorch puts them into.
_OPTIONS = {"num_stages": 1, "enable_fp_fusion": False}


def locate(points: Tensor, grid: Grid, sums: Tensor) -> tuple[Tensor, Tensor]:
    clouds, capacity, _ = points.shape
    pillars = torch.empty(clouds, capacity, dtype=torch.int32, device=points.device)
    offsets = torch.empty_like(points)
    _locate_kernel[triton.cdiv(capacity, _POINTS), clouds](
        points, capacity, *grid, pillars, offsets, sums, POINTS=_POINTS, **_OPTIONS
    )
    return pillars, offsets


def embed(
    points: Tensor, pillars: Tensor, offsets: Tensor, sums: Tensor, layers: PointLayers, embedded: Tensor
) -> None:
    rows, channels = pillars.numel(), embedded.shape[1]
    _embed_kernel[(triton.cdiv(rows, _WITH_CHANNELS),)](
        points,
        pillars,
        offsets,
        rows,
        sums,
        layers.embed,
        layers.embed_bias,
        embedded,
        channels,
        POINTS=_WITH_CHANNELS,
        CHANNELS=triton.next_power_of_2(channels),
        **_OPTIONS,
    )


def canvas(sums: Tensor, embedded: Tensor, cells: int, dtype: torch.dtype) -> Tensor:
    pillars, channels = embedded.shape
    means = torch.empty(2, cells, cells, channels, dtype=dtype, device=sums.device)
    padded = triton.next_power_of_2(channels)
    together = max(1, 4 * _ELEMENTS // padded)
    _canvas_kernel[(triton.cdiv(pillars, together),)](
        sums, embedded, means, pillars, channels, PILLARS=together, CHANNELS=padded
    )
    return means.permute(0, 3, 1, 2)


def bias_gelu(x: Tensor, bias: Tensor) -> Tensor:
    rows = _channels_last(x)
    _bias_gelu_kernel[(triton.cdiv(rows.numel(), _ELEMENTS),)](
        rows, bias, rows.numel(), CHANNELS=rows.shape[3], ELEMENTS=_ELEMENTS
    )
    return rows.permute(0, 3, 1, 2)


def decoder_input(coarse: Tensor, maps: Tensor) -> Tensor:
    coarse, maps = _channels_last(coarse), _channels_last(maps)
    height, width, lateral = *maps.shape[1:3], coarse.shape[3]
    joined = torch.empty(1, height, width, 2 * lateral, dtype=coarse.dtype, device=coarse.device)
    together = min(_CHANNELS, triton.next_power_of_2(2 * lateral))
    _decoder_input_kernel[triton.cdiv(height * width, _PIXELS), triton.cdiv(2 * lateral, together)](
        coarse, maps, joined, height, width, LATERAL=lateral, PIXELS=_PIXELS, CHANNELS=together
    )
    return joined.permute(0, 3, 1, 2)


def head(pillars: Tensor, offsets: Tensor, motion: Tensor, canvases: Tensor, layers: PointLayers, flow: Tensor) -> None:
    motion, canvases = _channels_last(motion), _channels_last(canvases)
    channels = canvases.shape[3]
    _head_kernel[(triton.cdiv(len(flow), _WITH_CHANNELS),)](
        pillars,
        offsets,
        len(flow),
        motion,
        canvases,
        motion.shape[1],
        channels,
        layers.canvas,
        layers.offsets,
        layers.rest,
        len(layers.rest),
        layers.out,
        layers.out_bias,
        flow,
        POINTS=_WITH_CHANNELS,
        CHANNELS=min(32, max(16, triton.next_power_of_2(channels))),
        HIDDEN=motion.shape[3],
        **_OPTIONS,
    )


def _channels_last(x: Tensor) -> Tensor:
    """x (B,C,h,w) as (B,h,w,C), contiguous: the same memory, as cuDNN keeps the layout it is given."""
    return x.permute(0, 2, 3, 1).contiguous()


@triton.jit
def _locate_kernel(points, capacity, low, size, cells, pillars, offsets, sums, POINTS: tl.constexpr):
    rows, cloud = tl.program_id(0) * POINTS + tl.arange(0, POINTS), tl.program_id(1)
    within = rows < capacity
    rows += cloud * capacity
    x = tl.load(points + rows * 3, mask=within, other=float("nan"))
    y = tl.load(points + rows * 3 + 1, mask=within, other=float("nan"))
    z = tl.load(points + rows * 3 + 2, mask=within, other=float("nan"))
    low_x, low_y, low_z = tl.load(low), tl.load(low + 1), tl.load(low + 2)
    size_x, size_y, size_z = tl.load(size), tl.load(size + 1), tl.load(size + 2)
    column = tl.floor(tl.div_rn(x - low_x, size_x))
    row = tl.floor(tl.div_rn(y - low_y, size_y))
    up = tl.floor(tl.div_rn(z - low_z, size_z))
    inside = (column >= 0) & (column < cells) & (row >= 0) & (row < cells) & (up >= 0) & (up < 1)
    column, row = tl.where(inside, column, 0.0), tl.where(inside, row, 0.0)
    x -= column * size_x + (size_x * 0.5 + low_x)
    y -= row * size_y + (size_y * 0.5 + low_y)
    z -= size_z * 0.5 + low_z
    pillar = (cloud * cells + row.to(tl.int32)) * cells + column.to(tl.int32)
    tl.store(pillars + rows, tl.where(inside, pillar, -1), mask=within)
    tl.store(offsets + rows * 3, x, mask=within)
    tl.store(offsets + rows * 3 + 1, y, mask=within)
    tl.store(offsets + rows * 3 + 2, z, mask=within)
    tl.atomic_add(sums + pillar * 4, x, mask=inside, sem="relaxed")
    tl.atomic_add(sums + pillar * 4 + 1, y, mask=inside, sem="relaxed")
    tl.atomic_add(sums + pillar * 4 + 2, z, mask=inside, sem="relaxed")
    tl.atomic_add(sums + pillar * 4 + 3, tl.full((POINTS,), 1.0, tl.float32), mask=inside, sem="relaxed")


@triton.jit
def _embed_kernel(
    points,
    pillars,
    offsets,
    row_count,
    sums,
    weight,
    bias,
    embedded,
    channel_count,
    POINTS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    rows = tl.program_id(0) * POINTS + tl.arange(0, POINTS)
    channels = tl.arange(0, CHANNELS)
    used = channels < channel_count
    pillar = tl.load(pillars + rows, mask=rows < row_count, other=-1)
    inside = pillar >= 0
    total = sums + pillar * 4
    count = tl.load(total + 3, mask=inside, other=1.0)
    feature = tl.zeros((POINTS, CHANNELS), tl.float32) + tl.load(bias + channels, mask=used, other=0.0)[None, :]
    for axis in tl.static_range(3):
        point = tl.load(points + rows * 3 + axis, mask=inside, other=0.0)
        offset = tl.load(offsets + rows * 3 + axis, mask=inside, other=0.0)
        from_mean = offset - tl.div_rn(tl.load(total + axis, mask=inside, other=0.0), count)
        of_axis = weight + axis * channel_count + channels
        feature += point[:, None] * tl.load(of_axis, mask=used, other=0.0)[None, :]
        feature += from_mean[:, None] * tl.load(of_axis + 3 * channel_count, mask=used, other=0.0)[None, :]
        feature += offset[:, None] * tl.load(of_axis + 6 * channel_count, mask=used, other=0.0)[None, :]
    # Half of the features are below zero, for which ReLU adds nothing.
    adds = inside[:, None] & used[None, :] & (feature > 0)
    at = pillar.to(tl.int64)[:, None] * channel_count + channels[None, :]
    tl.atomic_add(embedded + at, feature, mask=adds, sem="relaxed")


@triton.jit
def _canvas_kernel(sums, embedded, means, pillar_count, channel_count, PILLARS: tl.constexpr, CHANNELS: tl.constexpr):
    pillars = tl.program_id(0) * PILLARS + tl.arange(0, PILLARS)
    channels = tl.arange(0, CHANNELS)
    within, used = pillars < pillar_count, channels < channel_count
    count = tl.load(sums + pillars * 4 + 3, mask=within, other=0.0)
    occupied = count > 0
    at = pillars.to(tl.int64)[:, None] * channel_count + channels[None, :]
    total = tl.load(embedded + at, mask=occupied[:, None] & used[None, :], other=0.0)
    mean = tl.div_rn(total, tl.maximum(count, 1.0)[:, None])
    tl.store(means + at, mean.to(means.dtype.element_ty), mask=within[:, None] & used[None, :])
    # Several threads may load the same number, and all must have it before one of them clears it.
    tl.debug_barrier()
    tl.store(embedded + at, tl.zeros_like(total), mask=occupied[:, None] & used[None, :])
    for k in tl.static_range(4):
        tl.store(sums + pillars * 4 + k, tl.zeros_like(count), mask=occupied)


@triton.jit
def _bias_gelu_kernel(x, bias, numel, CHANNELS: tl.constexpr, ELEMENTS: tl.constexpr):
    first = tl.program_id(0).to(tl.int64) * ELEMENTS
    at = tl.arange(0, ELEMENTS)
    x += first + at
    within = first + at < numel
    if ELEMENTS % CHANNELS == 0:
        channel = at % CHANNELS
    else:
        channel = ((first % CHANNELS).to(tl.int32) + at) % CHANNELS
    value = tl.load(x, mask=within, other=0.0).to(tl.float32) + tl.load(bias + channel)
    tl.store(x, _gelu(value).to(x.dtype.element_ty), mask=within)


@triton.jit
def _gelu(x):
    return 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))


@triton.jit
def _decoder_input_kernel(
    coarse,
    maps,
    joined,
    height,
    width,
    LATERAL: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    pixels = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    channels = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    within = pixels < height * width
    row, column = pixels // width, pixels % width

    # Between the centres of coarse pixels, ¼ of the way to the next; beyond the outermost ones, as they are.
    near_row, near_column = row // 2, column // 2
    far_row = tl.minimum(tl.maximum(near_row + (row % 2) * 2 - 1, 0), height // 2 - 1)
    far_column = tl.minimum(tl.maximum(near_column + (column % 2) * 2 - 1, 0), width // 2 - 1)
    is_finer = within[:, None] & (channels < LATERAL)[None, :]
    half = width // 2
    near_near = _load_pixels(coarse, near_row * half + near_column, channels, LATERAL, is_finer)
    near_far = _load_pixels(coarse, near_row * half + far_column, channels, LATERAL, is_finer)
    far_near = _load_pixels(coarse, far_row * half + near_column, channels, LATERAL, is_finer)
    far_far = _load_pixels(coarse, far_row * half + far_column, channels, LATERAL, is_finer)
    finer = 0.75 * (0.75 * near_near + 0.25 * near_far) + 0.25 * (0.75 * far_near + 0.25 * far_far)

    side: tl.constexpr = LATERAL // 2
    of_side = channels - LATERAL
    is_lateral = within[:, None] & ((channels >= LATERAL) & (channels < 2 * LATERAL))[None, :]
    cloud = of_side // side
    pixel = cloud[None, :] * (height * width) + pixels[:, None]
    lateral = tl.load(maps + pixel.to(tl.int64) * side + (of_side % side)[None, :], mask=is_lateral, other=0.0)
    value = tl.where((channels < LATERAL)[None, :], finer, lateral.to(tl.float32))
    at = pixels.to(tl.int64)[:, None] * (2 * LATERAL) + channels[None, :]
    tl.store(joined + at, value.to(joined.dtype.element_ty), mask=is_finer | is_lateral)


@triton.jit
def _load_pixels(image, pixels, channels, CHANNEL_COUNT: tl.constexpr, mask):
    at = pixels.to(tl.int64)[:, None] * CHANNEL_COUNT + channels[None, :]
    return tl.load(image + at, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _head_kernel(
    pillars,
    offsets,
    capacity,
    motion,
    canvases,
    cells,
    channel_count,
    canvas_weight,
    offset_weight,
    rest,
    rest_side,
    out_weight,
    out_bias,
    flow,
    POINTS: tl.constexpr,
    CHANNELS: tl.constexpr,
    HIDDEN: tl.constexpr,
):
    rows, units = tl.program_id(0) * POINTS + tl.arange(0, POINTS), tl.arange(0, HIDDEN)
    within = rows < capacity
    pillar = tl.load(pillars + rows, mask=within, other=-1)
    inside = pillar >= 0
    here = inside[:, None]

    at = pillar.to(tl.int64)[:, None] * HIDDEN + units[None, :]
    hidden = tl.load(motion + at, mask=here, other=0.0).to(tl.float32)
    row, column = pillar // cells, pillar % cells
    row -= tl.minimum(tl.maximum(row - rest_side // 2, 0), cells - rest_side)
    column -= tl.minimum(tl.maximum(column - rest_side // 2, 0), cells - rest_side)
    hidden += tl.load(rest + (row * rest_side + column)[:, None] * HIDDEN + units[None, :], mask=here, other=0.0)
    for axis in tl.static_range(3):
        offset = tl.load(offsets + rows * 3 + axis, mask=inside, other=0.0)
        hidden += offset[:, None] * tl.load(offset_weight + axis * HIDDEN + units)[None, :]
    for cloud in tl.static_range(2):
        canvas = canvases + (pillar.to(tl.int64) + cloud * cells * cells) * channel_count
        weight = canvas_weight + cloud * channel_count * HIDDEN
        for first in range(0, channel_count, CHANNELS):
            channels = first + tl.arange(0, CHANNELS)
            used = channels < channel_count
            mean = tl.load(canvas[:, None] + channels[None, :], mask=here & used[None, :], other=0.0)
            part = tl.load(weight + channels[:, None] * HIDDEN + units[None, :], mask=used[:, None], other=0.0)
            hidden = tl.dot(mean.to(tl.float32), part, hidden, input_precision="ieee")

    hidden = _gelu(hidden)
    for axis in tl.static_range(3):
        of_axis = tl.load(out_weight + units * 3 + axis)
        estimate = tl.sum(hidden * of_axis[None, :], axis=1) + tl.load(out_bias + axis)
        tl.store(flow + rows * 3 + axis, tl.where(inside, estimate, float("nan")), mask=within)
