"""Clouds → pillars and their features, in two slots: one for each cloud of a pair, kept for the next pair."""

from __future__ import annotations

import numpy as np

from zeroflow_core.fastflow3d.engine.cpu import kernels
from zeroflow_core.fastflow3d.engine.fold import Folded

SLOTS = 2


class CloudPillars:
    """One cloud, assigned to pillars.

    cloud:     (N,3) float32, a copy: a slot is recognised by it
    pillar_of: (N,) int32, -1 for points outside the grid or not finite
    offsets:   (N,3) float32 from the pillar's centre
    cell_of:   (P,) int32, y · cells + x
    """

    def __init__(self, cloud: np.ndarray) -> None:
        self.cloud = cloud
        self.pillar_of = np.empty(len(cloud), np.int32)
        self.offsets = np.empty((len(cloud), 3), np.float32)
        self.cell_of = np.empty(0, np.int32)


class Pillars:
    """
    slots:    what each slot holds, or None
    ids:      (2, cells + 6, cells + 6) int32: the pillar of each cell, -1 where there is none; three cells of border
    features: (2,·,C) float32 of each pillar
    """

    def __init__(self, folded: Folded) -> None:
        config = folded.config
        self.cells = config.cells
        self.slots: list[CloudPillars | None] = [None] * SLOTS
        self.ids = np.full((SLOTS, self.cells + 6, self.cells + 6), -1, np.int32)
        self.features = np.zeros((SLOTS, 0, config.channels), np.float32)
        height = config.maximum[2] - config.minimum[2]
        self._minimum = np.array(config.minimum, np.float32)
        self._size = np.array([config.pillar_size, config.pillar_size, height], np.float32)
        self._weight = np.ascontiguousarray(folded.embed_weight.T.numpy())
        self._bias = folded.embed_bias.numpy()

    def slot_of(self, cloud: np.ndarray) -> int | None:
        """The slot that holds this very cloud, bit for bit."""
        for slot, kept in enumerate(self.slots):
            if kept is not None and kept.cloud.shape == cloud.shape:
                # As integers: NaN is not equal to itself.
                if np.array_equal(kept.cloud.view(np.uint32), cloud.view(np.uint32)):
                    return slot
        return None

    def make_room(self, points: int) -> None:
        """For clouds of so many points. What the slots hold stays."""
        pillars = min(points, self.cells**2)
        if pillars > self.features.shape[1]:
            room = min(pillars + pillars // 2, self.cells**2)
            larger = np.zeros((SLOTS, room, self.features.shape[2]), np.float32)
            larger[:, : self.features.shape[1]] = self.features
            self.features = larger

    def forget_all(self) -> None:
        """Empty the slots, whatever state they are in."""
        self.slots = [None] * SLOTS
        self.ids.fill(-1)

    def forget(self, slot: int) -> None:
        """Empty a slot."""
        kept = self.slots[slot]
        if kept is not None:
            row, column = np.divmod(kept.cell_of, self.cells)
            self.ids[slot, row + 3, column + 3] = -1
        self.slots[slot] = None

    def put(self, slot: int, cloud: np.ndarray) -> None:
        """A cloud (N,3) float32 into an emptied slot, for which there is room."""
        kept = CloudPillars(cloud.copy())
        most = min(len(cloud), self.cells**2)
        cell_of, counts = np.empty(most, np.int32), np.empty(most, np.int32)
        sums = np.empty((most, 3), np.float64)
        grid = (self._minimum, self._size, self.cells)
        found = kernels.find_pillars(
            kept.cloud, *grid, self.ids[slot], kept.pillar_of, kept.offsets, cell_of, sums, counts
        )
        kept.cell_of = cell_of[:found].copy()
        kernels.pillar_features(
            kept.cloud, *grid, kept.pillar_of, cell_of, sums, counts, self._weight, self._bias,
            self.features[slot, :found],
        )  # fmt: skip
        self.slots[slot] = kept

    def occupied(self, slots: list[int]) -> np.ndarray:
        """(len(slots), cells, cells) bool"""
        return self.ids[slots, 3:-3, 3:-3] >= 0
