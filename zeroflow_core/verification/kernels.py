"""Inner loops of the verdicts, compiled by numba: things from cells that touch, and how near the other sweep comes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import njit


def _compiled(function: Callable) -> Callable:
    """Without holding Python's lock; the machine code is kept for the next start where there is a place."""
    try:
        return njit(nogil=True, cache=True)(function)
    except RuntimeError:  # neither the package nor the user's cache folder can be written to
        return njit(nogil=True)(function)


@_compiled
def linked(occupied, mean, speed, around, alike, least):
    """Number (C,) of the thing that each cell is of, from 0 on: cells that touch and move alike are of one.

    occupied: (C,) int64, numbers of the cells, rising
    mean:     (C,3), their motion; speed: (C,), its length
    around:   (K,) int64, steps from a cell's number to those of its neighbours, of one half of them
    alike, least: motions may differ by the share `alike` of the faster one's length, and by `least` at any rate
    """
    parent = np.arange(len(occupied))
    for cell in range(len(occupied)):
        for step in around:
            wanted = occupied[cell] + step
            other = np.searchsorted(occupied, wanted)
            if other == len(occupied) or occupied[other] != wanted:
                continue
            apart = 0.0
            for k in range(3):
                apart += (mean[cell, k] - mean[other, k]) ** 2
            if apart**0.5 > max(alike * max(speed[cell], speed[other]), least):
                continue
            first, second = cell, other
            while parent[first] != first:
                parent[first] = parent[parent[first]]
                first = parent[first]
            while parent[second] != second:
                parent[second] = parent[parent[second]]
                second = parent[second]
            if first < second:
                parent[second] = first
            else:
                parent[first] = second
    number = np.empty(len(occupied), np.int64)
    count = 0
    for cell in range(len(occupied)):  # a thing's first cell is its root, so its number is known by then
        root = cell
        while parent[root] != root:
            root = parent[root]
        if root == cell:
            number[cell] = count
            count += 1
        else:
            number[cell] = number[root]
    return number


@_compiled
def gaps(queries, others, low, size, shape, farthest):
    """Distance (Q,) from each of `queries` (Q,3) to the nearest of `others` (M,3), `farthest` where none is nearer.

    low, size, shape: of a grid in x and y that holds all queries: its corner, its cells' side and how many there are
    """
    reach = int(np.ceil(farthest / size))
    columns, rows = shape[0] + 2 * reach, shape[1] + 2 * reach
    x0, y0 = low[0] - reach * size, low[1] - reach * size
    asked = np.zeros(columns * rows, np.bool_)
    column, row = np.empty(len(queries), np.int64), np.empty(len(queries), np.int64)
    for i in range(len(queries)):  # by rounding, one at the grid's rim may seem to lie beyond
        column[i] = min(max(int((queries[i, 0] - x0) / size), reach), columns - reach - 1)
        row[i] = min(max(int((queries[i, 1] - y0) / size), reach), rows - reach - 1)
        asked[column[i] * rows + row[i]] = True
    near = asked.copy()  # cells that an answer may be in
    for x in range(reach, columns - reach):
        for y in range(reach, rows - reach):
            if asked[x * rows + y]:
                for u in range(x - reach, x + reach + 1):
                    near[u * rows + y - reach : u * rows + y + reach + 1] = True
    count = np.zeros(columns * rows + 1, np.int64)
    cell = np.full(len(others), -1, np.int64)
    for i in range(len(others)):
        x, y = np.floor((others[i, 0] - x0) / size), np.floor((others[i, 1] - y0) / size)
        if 0 <= x < columns and 0 <= y < rows and near[int(x) * rows + int(y)]:
            cell[i] = int(x) * rows + int(y)
            count[cell[i] + 1] += 1
    start = np.cumsum(count)
    sorted_ = np.empty((start[-1], 3))
    place = start.copy()
    for i in range(len(others)):
        if cell[i] >= 0:
            for k in range(3):
                sorted_[place[cell[i]], k] = others[i, k]
            place[cell[i]] += 1
    nearest = np.empty(len(queries))
    for i in range(len(queries)):
        px, py, pz = queries[i]
        x, y = column[i], row[i]
        dx, dy = px - x0 - x * size, py - y0 - y * size
        edge = min(min(dx, size - dx), min(dy, size - dy))
        best = farthest * farthest
        for ring in range(reach + 1):
            for u in range(max(x - ring, 0), min(x + ring, columns - 1) + 1):
                inner = abs(u - x) < ring
                for v in range(max(y - ring, 0), min(y + ring, rows - 1) + 1):
                    if inner and abs(v - y) < ring:
                        continue  # was in a smaller ring
                    for j in range(start[u * rows + v], start[u * rows + v + 1]):
                        square = (
                            (sorted_[j, 0] - px) ** 2 + (sorted_[j, 1] - py) ** 2 + (sorted_[j, 2] - pz) ** 2
                        )
                        best = min(best, square)
            if best <= (ring * size + edge) ** 2:
                break
        nearest[i] = best**0.5
    return nearest
