"""Tiles of maps to Winograd's frequencies and back, compiled: what lies around the products of 3×3 convolutions.

Maps are (slots, rows, columns, channels) with one row and column of zeros on every side of the grid. Loops run
over blocks of channels in a scratch array small enough for the first cache; its constant offsets let them become vector
instructions.
"""

from __future__ import annotations

import numpy as np
from numba.extending import register_jitable

from zeroflow_core.fastflow3d.engine.cpu.inline import gelu, loose, pack, unpack
from zeroflow_core.fastflow3d.engine.cpu.winograd import A as _A
from zeroflow_core.fastflow3d.engine.cpu.winograd import B as _B

SCRATCH = 2 * 36 * 32  # floats
# Unsigned, for numba tests signed indices for being negative, which no loop becomes vector instructions with.
_0, _1, _2, _3, _4, _5, _6, _36 = (np.uintp(k) for k in (0, 1, 2, 3, 4, 5, 6, 36))
_BLOCK = np.uintp(32)  # channels
_a, _b = np.float32(_A), np.float32(_B)
_a2, _b2, _ab, _sum = (np.float32(v) for v in (_A**2, _B**2, (_A * _B) ** 2, _A**2 + _B**2))
_a3, _b3 = np.float32(_A**3), np.float32(_B**3)


@register_jitable(inline="always")
def _to_frequencies(scratch, source, step, target, stride):
    """Bᵀ of six blocks of scratch, `step` apart → six, `stride` apart."""
    for c in range(_BLOCK):
        d0, d1 = scratch[source + c], scratch[source + step + c]
        d2, d3 = scratch[source + _2 * step + c], scratch[source + _3 * step + c]
        d4, d5 = scratch[source + _4 * step + c], scratch[source + _5 * step + c]
        e1, o1 = d4 - _b2 * d2, _a * (d3 - _b2 * d1)
        e2, o2 = d4 - _a2 * d2, _b * (d3 - _a2 * d1)
        scratch[target + c] = _ab * d0 - _sum * d2 + d4
        scratch[target + stride + c] = e1 + o1
        scratch[target + _2 * stride + c] = e1 - o1
        scratch[target + _3 * stride + c] = e2 + o2
        scratch[target + _4 * stride + c] = e2 - o2
        scratch[target + _5 * stride + c] = _ab * d1 - _sum * d3 + d5


@register_jitable(inline="always")
def _from_frequencies(scratch, source, step, target, stride):
    """Aᵀ of six blocks of scratch, `step` apart → four, `stride` apart."""
    for c in range(_BLOCK):
        m0, m1 = scratch[source + c], scratch[source + step + c]
        m2, m3 = scratch[source + _2 * step + c], scratch[source + _3 * step + c]
        m4, m5 = scratch[source + _4 * step + c], scratch[source + _5 * step + c]
        s1, d1, s2, d2 = m1 + m2, m1 - m2, m3 + m4, m3 - m4
        scratch[target + c] = m0 + s1 + s2
        scratch[target + stride + c] = _a * d1 + _b * d2
        scratch[target + _2 * stride + c] = _a2 * s1 + _b2 * s2
        scratch[target + _3 * stride + c] = _a3 * d1 + _b3 * d2 + m5


@register_jitable(inline="always")
def _mix(scratch, shares, source, step, target):
    """Four blocks of scratch, `step` apart, in these shares → one."""
    f0, f1, f2, f3 = shares[_0], shares[_1], shares[_2], shares[_3]
    for c in range(_BLOCK):
        near = f0 * scratch[source + c] + f1 * scratch[source + step + c]
        far = f2 * scratch[source + _2 * step + c] + f3 * scratch[source + _3 * step + c]
        scratch[target + c] = near + far


@register_jitable
def _side(at, size):
    if at == _0:
        return _0
    return _2 if at == size - _1 else _1


@loose
def patches_to_frequencies(maps, slot, tiles, first, count, out, channel, scratch):
    """Bᵀ d B of the 6×6 patches around tiles[first:first+count], all channels of the map.

    slot:  of the maps, or -1: the tile's own;  tiles: (n,3) int32: slot, row, column
    out:   (36,T,·) receives them at rows 0… and channels `channel`…
    """
    channels, channel = np.uintp(maps.shape[3]), np.uintp(channel)
    for t in range(np.uintp(count)):
        tile = tiles[np.uintp(first) + t]
        s = np.uintp(tile[0] if slot < 0 else slot)
        y, x = _4 * np.uintp(tile[1]), _4 * np.uintp(tile[2])
        for low in range(_0, channels, _BLOCK):
            n = min(_BLOCK, channels - low)
            for r in range(_6):
                for k in range(_6):
                    for c in range(n):
                        scratch[k * _BLOCK + c] = unpack(maps[s, y + r, x + k, low + c])
                _to_frequencies(scratch, _0, _BLOCK, (_36 + _6 * r) * _BLOCK, _BLOCK)
            for k in range(_6):
                _to_frequencies(scratch, (_36 + k) * _BLOCK, _6 * _BLOCK, _0, _BLOCK)
                for i in range(_6):
                    for c in range(n):
                        out[_6 * i + k, t, channel + low + c] = pack(scratch[i * _BLOCK + c], out)


@loose
def upsampled_to_frequencies(coarse, pad, size, rows, tiles, first, count, out, channel, scratch):
    """As patches_to_frequencies, of the coarse map bilinearly upsampled to twice its size.

    coarse: (·,·,C), its grid of size × size cells begins at (pad, pad)
    rows:   (tiles of a column,6,4), see upsampled_input_matrices
    """
    channels, channel = np.uintp(coarse.shape[2]), np.uintp(channel)
    for t in range(np.uintp(count)):
        ty, tx = tiles[np.uintp(first) + t, _1], tiles[np.uintp(first) + t, _2]
        down, across = rows[ty], rows[tx]
        for low in range(_0, channels, _BLOCK):
            n = min(_BLOCK, channels - low)
            for r in range(4):
                y = np.uintp(min(max(2 * ty - 1 + r, 0), size - 1) + pad)
                for k in range(4):
                    x = np.uintp(min(max(2 * tx - 1 + k, 0), size - 1) + pad)
                    at = np.uintp(k) * _BLOCK
                    for c in range(n):
                        scratch[at + c] = unpack(coarse[y, x, low + c])
                for k in range(_6):
                    _mix(scratch, across[k], _0, _BLOCK, (_36 + _6 * np.uintp(r) + k) * _BLOCK)
            for i in range(_6):
                for k in range(_6):
                    _mix(scratch, down[i], (_36 + k) * _BLOCK, _6 * _BLOCK, _0)
                    for c in range(n):
                        out[_6 * i + k, t, channel + low + c] = pack(scratch[c], out)


@loose
def frequencies_to_tiles(products, tiles, first, count, bias, with_gelu, size, maps, pad, scratch):
    """Aᵀ M A + bias (and GELU) into tiles[first:first+count] of the maps.

    products: (36,T,O);  bias: (3,3,O), by first, inner, last row and column of the grid
    size:     of the grid: what a tile has beyond is not written;  pad: rows and columns before the grid
    """
    channels, pad, size = np.uintp(products.shape[2]), np.uintp(pad), np.uintp(size)
    for t in range(np.uintp(count)):
        tile = tiles[np.uintp(first) + t]
        s, y, x = np.uintp(tile[0]), _4 * np.uintp(tile[1]), _4 * np.uintp(tile[2])
        for low in range(_0, channels, _BLOCK):
            n = min(_BLOCK, channels - low)
            for k in range(_6):
                for i in range(_6):
                    for c in range(n):
                        scratch[i * _BLOCK + c] = unpack(products[_6 * i + k, t, low + c])
                _from_frequencies(scratch, _0, _BLOCK, (_36 + k) * _BLOCK, _6 * _BLOCK)
            for i in range(min(_4, size - y)):
                _from_frequencies(scratch, (_36 + _6 * i) * _BLOCK, _BLOCK, _0, _BLOCK)
                of_row = _side(y + i, size)
                for k in range(min(_4, size - x)):
                    of_column = _side(x + k, size)
                    if with_gelu:
                        for c in range(n):
                            value = scratch[k * _BLOCK + c] + bias[of_row, of_column, low + c]
                            maps[s, y + i + pad, x + k + pad, low + c] = pack(gelu(value), maps)
                    else:
                        for c in range(n):
                            value = scratch[k * _BLOCK + c] + bias[of_row, of_column, low + c]
                            maps[s, y + i + pad, x + k + pad, low + c] = pack(value, maps)


@loose
def fill_tiles(maps, tiles, first, count, size, pad, values, where):
    """Values of an empty grid to whole tiles of the maps: values[where[y], where[x]]."""
    channels, pad, size = np.uintp(maps.shape[3]), np.uintp(pad), np.uintp(size)
    for t in range(np.uintp(count)):
        tile = tiles[np.uintp(first) + t]
        s, top, left = np.uintp(tile[0]), _4 * np.uintp(tile[1]), _4 * np.uintp(tile[2])
        for y in range(top, min(top + _4, size)):
            for x in range(left, min(left + _4, size)):
                row, column = np.uintp(where[y]), np.uintp(where[x])
                for c in range(channels):
                    maps[s, y + pad, x + pad, c] = pack(values[row, column, c], maps)
