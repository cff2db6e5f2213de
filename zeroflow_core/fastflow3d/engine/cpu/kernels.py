"""The CPU engine's inner loops, compiled by numba: what lies around the matrix products, from points to maps and back.

Maps, and what goes into a product and comes out of it, are float32, or bfloat16 as a float32's upper 16 bits in uint16;
`_pack` and `_unpack` are for both. Maps are (slots, rows, columns, channels), with `pad` rows and columns before and
after the grid: one, of zeros, where nothing is said.

All of it is in one file, with the constants: numba keeps machine code from one start to the next, until the file
changes in which a function stands.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload, register_jitable

# Winograd's convolution interpolates at 0, ±A, ±B and infinity (see `winograd`). These points lose the least of
# bfloat16 products: half the error of the usual 0, ±1, ±2.
A, B = 0.7, 1.5

SCRATCH = 2 * 36 * 32  # floats
# Unsigned, for numba tests signed indices for being negative, which no loop becomes vector instructions with.
_0, _1, _2, _3, _4, _5, _6, _36 = (np.uintp(k) for k in (0, 1, 2, 3, 4, 5, 6, 36))
_BLOCK = np.uintp(32)  # channels
_a, _b = np.float32(A), np.float32(B)
_a2, _b2, _ab, _sum = (np.float32(v) for v in (A**2, B**2, (A * B) ** 2, A**2 + B**2))
_a3, _b3 = np.float32(A**3), np.float32(B**3)


def _compiled(**options: Any) -> Callable[[Callable], Callable]:
    """By numba, without holding Python's lock; the machine code is kept for the next start where there is a place."""

    def decorate(function: Callable) -> Callable:
        try:
            return njit(nogil=True, cache=True, error_model="numpy", **options)(function)
        except RuntimeError:  # neither the package nor the user's cache folder can be written to
            return njit(nogil=True, error_model="numpy", **options)(function)

    return decorate


_loose = _compiled(fastmath={"contract", "nsz"})
_strict = _compiled()  # cells are found by IEEE division and comparisons with NaN


def _erf_over_z() -> np.ndarray:
    """Coefficients of erf(z)/z in s = z²/8 − 1 for |z| ≤ 4, to 1e-8; at 4 erf is 1 within float32."""
    s = np.cos(np.linspace(0, np.pi, 400))
    z = np.sqrt(8 * (s + 1))
    values = [math.erf(v) / v if v > 1e-9 else 2 / math.sqrt(math.pi) for v in z]
    chebyshev = np.polynomial.chebyshev.Chebyshev.fit(s, values, 14, domain=[-1, 1])
    return np.polynomial.chebyshev.cheb2poly(chebyshev.coef)


_E = tuple(np.float32(c) for c in _erf_over_z())
_E0, _E1, _E2, _E3, _E4, _E5, _E6, _E7, _E8, _E9, _E10, _E11, _E12, _E13, _E14 = _E
_HALF, _ONE, _ROOT_HALF, _EIGHTH, _LIMIT = (np.float32(v) for v in (0.5, 1.0, 0.5**0.5, 0.125, 16.0))


@register_jitable
def _gelu(x):
    z = x * _ROOT_HALF
    s = min(z * z, _LIMIT) * _EIGHTH - _ONE
    p = _E14
    p = p * s + _E13
    p = p * s + _E12
    p = p * s + _E11
    p = p * s + _E10
    p = p * s + _E9
    p = p * s + _E8
    p = p * s + _E7
    p = p * s + _E6
    p = p * s + _E5
    p = p * s + _E4
    p = p * s + _E3
    p = p * s + _E2
    p = p * s + _E1
    p = p * s + _E0
    erf = min(max(z * p, -_ONE), _ONE)
    return _HALF * x * (_ONE + erf)


def _pack(value, array):
    """A float32 as the elements of `array` are kept."""
    return value if array.dtype == np.float32 else np.uint16(_rounded(value))


@overload(_pack, inline="always")
def _pack_for(value, array):
    if array.dtype is types.uint16:
        return lambda value, array: np.uint16(_rounded(value))
    return lambda value, array: value


@register_jitable(inline="always")
def _rounded(value):
    bits = np.float32(value).view(np.uint32)
    return (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)


def _unpack(value):
    """An element of a map or product as float32."""
    return value if isinstance(value, np.float32) else np.uint32(np.uint32(value) << np.uint32(16)).view(np.float32)


@overload(_unpack, inline="always")
def _unpack_for(value):
    if value is types.uint16:
        return lambda value: np.uint32(np.uint32(value) << np.uint32(16)).view(np.float32)
    return lambda value: value


@_strict
def find_pillars(points, minimum, size, cells, ids, pillar_of, offsets, cell_of, sums, counts):
    """Assign points to pillars, numbered as they are met. Returns how many pillars there are.

    points: (N,3);  minimum, size: (3,) float32;  ids: (cells + 6, cells + 6) int32, -1 everywhere; receives numbers
    pillar_of: (N,) int32, receives -1 for points outside;  offsets: (N,3), from the pillar's centre
    cell_of:   (P,) int32, y · cells + x;  sums: (P,3) float64 of the points' coordinates, counts: (P,)
    """
    found = 0
    for i in range(len(points)):
        x = np.floor((points[i, 0] - minimum[0]) / size[0])
        y = np.floor((points[i, 1] - minimum[1]) / size[1])
        z = np.floor((points[i, 2] - minimum[2]) / size[2])
        if not (x >= 0 and x < cells and y >= 0 and y < cells and z == 0):
            pillar_of[i] = -1
            continue
        column, row = int(x), int(y)
        pillar = ids[row + 3, column + 3]
        if pillar < 0:
            pillar = found
            found += 1
            ids[row + 3, column + 3] = pillar
            cell_of[pillar] = row * cells + column
            sums[pillar] = 0
            counts[pillar] = 0
        pillar_of[i] = pillar
        counts[pillar] += 1
        for k in range(3):
            position = x if k == 0 else (y if k == 1 else z)
            sums[pillar, k] += points[i, k]
            offsets[i, k] = points[i, k] - (position * size[k] + minimum[k] + size[k] / np.float32(2))
    return found


@_loose
def pillar_features(points, minimum, size, cells, pillar_of, cell_of, sums, counts, weight, bias, features):
    """Nine features of each point → Linear (with its batch norm) → ReLU → mean over the pillar, (P,C).

    weight: (9,C);  the rest as in find_pillars
    """
    channels = features.shape[1]
    pillars = len(features)
    for p in range(pillars):
        for c in range(channels):
            features[p, c] = 0
    hidden = np.empty(channels, np.float32)
    nine = np.empty(9, np.float32)
    for i in range(len(points)):
        p = pillar_of[i]
        if p < 0:
            continue
        for k in range(3):
            cell = 0
            if k == 0:
                cell = cell_of[p] % cells
            elif k == 1:
                cell = cell_of[p] // cells
            centre = np.float32(cell) * size[k] + (size[k] / np.float32(2) + minimum[k])
            nine[k] = points[i, k]
            nine[3 + k] = points[i, k] - np.float32(sums[p, k] / counts[p])
            nine[6 + k] = points[i, k] - centre
        for c in range(channels):
            hidden[c] = bias[c]
        for k in range(9):
            feature = nine[k]
            of_feature = weight[k]
            for c in range(channels):
                hidden[c] += feature * of_feature[c]
        row = features[p]
        for c in range(channels):
            row[c] += max(hidden[c], np.float32(0))
    for p in range(pillars):
        share = np.float32(1) / np.float32(counts[p])
        row = features[p]
        for c in range(channels):
            row[c] *= share


@_loose
def head(pillar_of, offsets, hidden, by_offset, weight, bias, first, last, flow):
    """GELU(hidden of the point's pillar + by_offsetᵀ · offset) · weight + bias → flow; NaN outside.

    hidden: (P,K), the first layer's bias in it;  by_offset: (3,K);  weight: (K,3);  flow: (N,3)
    """
    width = hidden.shape[1]
    active = np.empty(width, np.float32)
    for i in range(first, last):
        pillar = pillar_of[i]
        if pillar < 0:
            flow[i] = np.nan
            continue
        of_pillar = hidden[pillar]
        x, y, z = offsets[i, 0], offsets[i, 1], offsets[i, 2]
        for c in range(width):
            active[c] = _gelu(of_pillar[c] + x * by_offset[0, c] + y * by_offset[1, c] + z * by_offset[2, c])
        for k in range(3):
            total = bias[k]
            for c in range(width):
                total += active[c] * weight[c, k]
            flow[i, k] = total


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


@_loose
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
                        scratch[k * _BLOCK + c] = _unpack(maps[s, y + r, x + k, low + c])
                _to_frequencies(scratch, _0, _BLOCK, (_36 + _6 * r) * _BLOCK, _BLOCK)
            for k in range(_6):
                _to_frequencies(scratch, (_36 + k) * _BLOCK, _6 * _BLOCK, _0, _BLOCK)
                for i in range(_6):
                    for c in range(n):
                        out[_6 * i + k, t, channel + low + c] = _pack(scratch[i * _BLOCK + c], out)


@_loose
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
                        scratch[at + c] = _unpack(coarse[y, x, low + c])
                for k in range(_6):
                    _mix(scratch, across[k], _0, _BLOCK, (_36 + _6 * np.uintp(r) + k) * _BLOCK)
            for i in range(_6):
                for k in range(_6):
                    _mix(scratch, down[i], (_36 + k) * _BLOCK, _6 * _BLOCK, _0)
                    for c in range(n):
                        out[_6 * i + k, t, channel + low + c] = _pack(scratch[c], out)


@_loose
def frequencies_to_tiles(products, tiles, first, count, bias, gelu, size, maps, pad, scratch):
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
                        scratch[i * _BLOCK + c] = _unpack(products[_6 * i + k, t, low + c])
                _from_frequencies(scratch, _0, _BLOCK, (_36 + k) * _BLOCK, _6 * _BLOCK)
            for i in range(min(_4, size - y)):
                _from_frequencies(scratch, (_36 + _6 * i) * _BLOCK, _BLOCK, _0, _BLOCK)
                of_row = _side(y + i, size)
                for k in range(min(_4, size - x)):
                    of_column = _side(x + k, size)
                    if gelu:
                        for c in range(n):
                            value = scratch[k * _BLOCK + c] + bias[of_row, of_column, low + c]
                            maps[s, y + i + pad, x + k + pad, low + c] = _pack(_gelu(value), maps)
                    else:
                        for c in range(n):
                            value = scratch[k * _BLOCK + c] + bias[of_row, of_column, low + c]
                            maps[s, y + i + pad, x + k + pad, low + c] = _pack(value, maps)


@_loose
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
                    maps[s, y + pad, x + pad, c] = _pack(values[row, column, c], maps)


@register_jitable
def _copy_or_zero(features, slot, pillar, target, out):
    """A pillar's features to `target`, a part of `out`; zeros where there is none (-1)."""
    if pillar < 0:
        zero = np.float32(0)
        for c in range(len(target)):
            target[c] = _pack(zero, out)
    else:
        source = features[slot, pillar]
        for c in range(len(target)):
            target[c] = _pack(source[c], out)


@register_jitable
def _copy(source, target, out):
    """A cell of a map to `target`, a part of `out`."""
    for c in range(len(target)):
        target[c] = _pack(_unpack(source[c]), out)


@_loose
def pillars_around(ids, features, sites, first, count, out):
    """The 3×3 cells around (2y, 2x) of each site → rows (9 C), zero where there is no pillar.

    ids: (slots, cells + 6, cells + 6);  features: (slots,P,C);  sites: (n,3) int32: slot, y, x
    """
    channels = features.shape[2]
    for t in range(count):
        s, y, x = sites[first + t, 0], 2 * sites[first + t, 1] + 2, 2 * sites[first + t, 2] + 2
        for k in range(9):
            pillar = ids[s, y + k // 3, x + k % 3]
            target = out[t, k * channels : (k + 1) * channels]
            _copy_or_zero(features, s, pillar, target, out)


@_loose
def map_around(maps, sites, first, count, out):
    """The 3×3 cells around (2y, 2x) of each site → rows (9 C)."""
    channels = maps.shape[3]
    for t in range(count):
        s, y, x = sites[first + t, 0], 2 * sites[first + t, 1], 2 * sites[first + t, 2]
        for r in range(3):
            for k in range(3):
                source = maps[s, y + r, x + k]
                target = out[t, (3 * r + k) * channels : (3 * r + k + 1) * channels]
                _copy(source, target, out)


@_loose
def both_at(maps, slot0, slot1, sites, first, count, out):
    """Both clouds' values at each site → rows (2 C), pc0's first."""
    channels = maps.shape[3]
    for t in range(count):
        y, x = sites[first + t, 1] + 1, sites[first + t, 2] + 1
        for which in range(2):
            source = maps[slot1 if which else slot0, y, x]
            target = out[t, which * channels : (which + 1) * channels]
            _copy(source, target, out)


@_loose
def rows_to_sites(rows, sites, first, count, bias, gelu, maps, pad):
    """Rows (n,O) + bias (and GELU) to the maps at their sites."""
    channels = rows.shape[1]
    for t in range(count):
        source = rows[t]
        target = maps[sites[first + t, 0], sites[first + t, 1] + pad, sites[first + t, 2] + pad]
        if gelu:
            for c in range(channels):
                target[c] = _pack(_gelu(_unpack(source[c]) + bias[c]), maps)
        else:
            for c in range(channels):
                target[c] = _pack(_unpack(source[c]) + bias[c], maps)


@_loose
def windows(coarse, ids, features, slot0, slot1, cells, cell_of, order, first, count, out):
    """What the finest level reads for each pillar → rows: 5×5 of the coarse map, 7×7 of both canvases.

    coarse: padded by 2;  order: (P,) which pillars, in rows first…
    """
    wide, channels = coarse.shape[2], features.shape[2]
    for t in range(count):
        cell = cell_of[order[first + t]]
        y, x = cell // cells, cell % cells
        row = out[t]
        for r in range(5):
            for k in range(5):
                source = coarse[y // 2 + r, x // 2 + k]
                target = row[(5 * r + k) * wide : (5 * r + k + 1) * wide]
                _copy(source, target, out)
        for r in range(7):
            for k in range(7):
                for which in range(2):
                    s = slot1 if which else slot0
                    pillar = ids[s, y + r, x + k]
                    at = 25 * wide + ((7 * r + k) * 2 + which) * channels
                    target = row[at : at + channels]
                    _copy_or_zero(features, s, pillar, target, out)


@_loose
def rows_to_pillars(rows, order, first, count, bias, out):
    """Rows (n,K) + bias to their pillars in out (P,K)."""
    for t in range(count):
        source, target = rows[t], out[order[first + t]]
        for c in range(len(target)):
            target[c] = _unpack(source[c]) + bias[c]
