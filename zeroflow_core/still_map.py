"""What stands still around the vehicle, gathered from sweep to sweep: the backdrop before which things move."""

from __future__ import annotations

import numpy as np

from zeroflow_core.geometry import SE3, finite_rows

_AXIS_BITS = 21  # of a cell's number along each axis, so that one number of 63 bits names the cell
_AXIS_MASK = (1 << _AXIS_BITS) - 1


class StillMap:
    """One point for each cell of a grid in the world, from the first sweep that showed something there.

    seconds:     for how long a cell is kept after it was seen last; may be changed at any time
    cell:        metres along each side
    reach:       metres around the vehicle; what lies farther away is left out
    most_points: beyond that many, those that were seen last stay

    Not for two threads at once.
    """

    def __init__(
        self, seconds: float = 20.0, *, cell: float = 0.2, reach: float = 80.0, most_points: int = 100_000
    ) -> None:
        self.seconds = seconds
        self._cell, self._reach, self._most_points = cell, reach, most_points
        self.clear()

    def clear(self) -> None:
        """Forget everything, as when the world is another one."""
        self._cells = np.empty(0, dtype=np.int64)  # ascending
        self._points = np.empty((0, 3))  # in the world
        self._seen_ns = np.empty(0, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._cells)

    def update(
        self, points: np.ndarray, is_still: np.ndarray, is_moving: np.ndarray, stamp_ns: int, world_SE3_vehicle: SE3
    ) -> np.ndarray:
        """Take in a sweep.

        points:    (N,3), metres, in the vehicle frame; rows may be NaN
        is_still:  (N,) bool: those that belong into the map
        is_moving: (N,) bool: where one of those is, nothing stands still; what is neither says nothing

        Returns the map: (M,3) float32, metres, in the vehicle frame, in no order. A stamp that goes back starts over.
        """
        if len(self) > 0 and stamp_ns < self._seen_ns.max():
            self.clear()
        near = finite_rows(points)
        near[near] = np.einsum("ij,ij->i", points[near], points[near]) < self._reach**2
        still = world_SE3_vehicle.transform(points[near & is_still].astype(np.float64))
        moving = world_SE3_vehicle.transform(points[near & is_moving].astype(np.float64))
        self._add(still, stamp_ns)
        self._forget(self._numbered(moving), stamp_ns, world_SE3_vehicle.translation)
        return world_SE3_vehicle.inverse().transform(self._points).astype(np.float32)

    def _add(self, points: np.ndarray, stamp_ns: int) -> None:
        cells, rows = np.unique(self._numbered(points), return_index=True)
        place, known = self._find(cells)
        self._seen_ns[place[known]] = stamp_ns
        place, cells, rows = place[~known], cells[~known], rows[~known]
        self._cells = np.insert(self._cells, place, cells)
        self._points = np.insert(self._points, place, points[rows], axis=0)
        self._seen_ns = np.insert(self._seen_ns, place, stamp_ns)

    def _forget(self, moving_cells: np.ndarray, stamp_ns: int, vehicle: np.ndarray) -> None:
        kept = self._seen_ns >= stamp_ns - round(self.seconds * 1e9)
        offset = self._points - vehicle
        kept &= np.einsum("ij,ij->i", offset, offset) < self._reach**2
        place, known = self._find(moving_cells)
        kept[place[known]] = False
        rows = np.flatnonzero(kept)
        if (surplus := len(rows) - self._most_points) > 0:
            kept[rows[np.argpartition(self._seen_ns[rows], surplus)[:surplus]]] = False
        if not kept.all():
            self._cells, self._points, self._seen_ns = self._cells[kept], self._points[kept], self._seen_ns[kept]

    def _find(self, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where cells belong among those that there are, and (bool) whether they are there."""
        place = np.searchsorted(self._cells, cells)
        known = place < len(self)
        known[known] = self._cells[place[known]] == cells[known]
        return place, known

    def _numbered(self, points: np.ndarray) -> np.ndarray:
        """(N,) int64: the number of the cell each point lies in. Cells 400 km apart share one, and never meet."""
        x, y, z = (np.floor(column * (1.0 / self._cell)).astype(np.int64) & _AXIS_MASK for column in points.T)
        return (x << 2 * _AXIS_BITS) | (y << _AXIS_BITS) | z
