"""Points to pillars, and pillars to points, compiled: the first step and the last."""

from __future__ import annotations

import numpy as np

from zeroflow_core.fastflow3d.engine.cpu.inline import gelu, loose, strict


@strict
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


@loose
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


@loose
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
            active[c] = gelu(of_pillar[c] + x * by_offset[0, c] + y * by_offset[1, c] + z * by_offset[2, c])
        for k in range(3):
            total = bias[k]
            for c in range(width):
                total += active[c] * weight[c, k]
            flow[i, k] = total
