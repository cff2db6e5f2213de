"""Cells of maps to rows of a matrix and back, compiled: what lies around every other product.

Maps are (slots, rows, columns, channels) with one row and column of zeros on every side of the grid.
"""

from __future__ import annotations

import numpy as np

from zeroflow_core.fastflow3d.engine.cpu.inline import gelu, loose, pack, unpack


@loose
def pillars_around(ids, features, sites, first, count, out):
    """The 3×3 cells around (2y, 2x) of each site → rows (9 C), zero where there is no pillar.

    ids: (slots, cells + 6, cells + 6);  features: (slots,P,C);  sites: (n,3) int32: slot, y, x
    """
    channels = features.shape[2]
    zero = np.float32(0)
    for t in range(count):
        s, y, x = sites[first + t, 0], 2 * sites[first + t, 1] + 2, 2 * sites[first + t, 2] + 2
        for k in range(9):
            pillar = ids[s, y + k // 3, x + k % 3]
            target = out[t, k * channels : (k + 1) * channels]
            if pillar < 0:
                for c in range(channels):
                    target[c] = pack(zero, out)
            else:
                source = features[s, pillar]
                for c in range(channels):
                    target[c] = pack(source[c], out)


@loose
def map_around(maps, sites, first, count, out):
    """The 3×3 cells around (2y, 2x) of each site → rows (9 C)."""
    channels = maps.shape[3]
    for t in range(count):
        s, y, x = sites[first + t, 0], 2 * sites[first + t, 1], 2 * sites[first + t, 2]
        for r in range(3):
            for k in range(3):
                source = maps[s, y + r, x + k]
                target = out[t, (3 * r + k) * channels : (3 * r + k + 1) * channels]
                for c in range(channels):
                    target[c] = pack(unpack(source[c]), out)


@loose
def both_at(maps, slot0, slot1, sites, first, count, out):
    """Both clouds' values at each site → rows (2 C), pc0's first."""
    channels = maps.shape[3]
    for t in range(count):
        y, x = sites[first + t, 1] + 1, sites[first + t, 2] + 1
        for which in range(2):
            source = maps[slot1 if which else slot0, y, x]
            target = out[t, which * channels : (which + 1) * channels]
            for c in range(channels):
                target[c] = pack(unpack(source[c]), out)


@loose
def rows_to_sites(rows, sites, first, count, bias, with_gelu, maps, pad):
    """Rows (n,O) + bias (and GELU) to the maps at their sites."""
    channels = rows.shape[1]
    for t in range(count):
        source = rows[t]
        target = maps[sites[first + t, 0], sites[first + t, 1] + pad, sites[first + t, 2] + pad]
        if with_gelu:
            for c in range(channels):
                target[c] = pack(gelu(unpack(source[c]) + bias[c]), maps)
        else:
            for c in range(channels):
                target[c] = pack(unpack(source[c]) + bias[c], maps)


@loose
def windows(coarse, ids, features, slot0, slot1, cells, cell_of, order, first, count, out):
    """What the finest level reads for each pillar → rows: 5×5 of the coarse map, 7×7 of both canvases.

    coarse: padded by 2;  order: (P,) which pillars, in rows first…
    """
    wide, channels = coarse.shape[2], features.shape[2]
    zero = np.float32(0)
    for t in range(count):
        cell = cell_of[order[first + t]]
        y, x = cell // cells, cell % cells
        row = out[t]
        for r in range(5):
            for k in range(5):
                source = coarse[y // 2 + r, x // 2 + k]
                target = row[(5 * r + k) * wide : (5 * r + k + 1) * wide]
                for c in range(wide):
                    target[c] = pack(unpack(source[c]), out)
        for r in range(7):
            for k in range(7):
                for which in range(2):
                    s = slot1 if which else slot0
                    pillar = ids[s, y + r, x + k]
                    at = 25 * wide + ((7 * r + k) * 2 + which) * channels
                    target = row[at : at + channels]
                    if pillar < 0:
                        for c in range(channels):
                            target[c] = pack(zero, out)
                    else:
                        source = features[s, pillar]
                        for c in range(channels):
                            target[c] = pack(source[c], out)


@loose
def rows_to_pillars(rows, order, first, count, bias, out):
    """Rows (n,K) + bias to their pillars in out (P,K)."""
    for t in range(count):
        source, target = rows[t], out[order[first + t]]
        for c in range(len(target)):
            target[c] = unpack(source[c]) + bias[c]
