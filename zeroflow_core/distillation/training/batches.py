"""Which samples a student sees, and when: an order that depends on the seed alone, so that a run can be resumed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch.utils.data import Dataset, Sampler

from zeroflow_core.distillation.training.augment import augment
from zeroflow_core.distillation.training.prepared import PreparedPairs
from zeroflow_core.distillation.training.recipes import Recipe
from zeroflow_core.distillation.training.samples import Sample, cut_window, inside, window_config
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.fastflow3d.config import FastFlow3DConfig

_FEWEST = 32  # points of a cloud in the grid; with fewer there is nothing to learn, with one batch norms fail
_TRIALS = 50


class Visit(NamedTuple):
    """One look at a pair: number `pair` of source number `source`, `place` in the order of an `epoch`."""

    source: int
    pair: int
    reverse: bool
    epoch: int
    place: int


@dataclass(frozen=True)
class Order:
    """The visits of every epoch: of each source its pairs in each direction, `visits` times its weight.

    pairs:     how many each source has
    weights:   of each source
    two_way:   whether each source has reverse labels to learn from
    """

    pairs: tuple[int, ...]
    weights: tuple[float, ...]
    two_way: tuple[bool, ...]
    visits: int
    seed: int

    def __len__(self) -> int:
        """Visits in an epoch."""
        return sum(map(self._visits_of, range(len(self.pairs))))

    def _visits_of(self, source: int) -> int:
        items = self.pairs[source] * (2 if self.two_way[source] else 1)
        return max(round(items * self.visits * self.weights[source]), 1)

    def epoch(self, number: int) -> list[Visit]:
        """The visits of an epoch in their order."""
        drawn: list[tuple[int, int, bool]] = []
        for source, pairs in enumerate(self.pairs):
            rng = np.random.default_rng([self.seed, number, 1, source])
            directions = 2 if self.two_way[source] else 1
            wanted, items = self._visits_of(source), pairs * directions
            rounds = [rng.permutation(items) for _ in range(-(-wanted // items))]
            drawn += [(source, int(k) // directions, bool(k % directions)) for k in np.concatenate(rounds)[:wanted]]
        shuffled = np.random.default_rng([self.seed, number, 2]).permutation(len(drawn))
        return [Visit(*drawn[k], number, place) for place, k in enumerate(shuffled)]


class Batches(Sampler):
    """The batches of one epoch for one of `world` processes, from batch number `start` on. What is left over at the
    end of an epoch that does not fill a batch is left out."""

    def __init__(self, order: Order, batch: int, rank: int = 0, world: int = 1) -> None:
        self.order, self.rank, self.world = order, rank, world
        self.batch = max(min(batch, len(order)) // world, 1) * world
        self.epoch, self.start = 0, 0

    def __len__(self) -> int:
        """Batches in a whole epoch."""
        return len(self.order) // self.batch

    def __iter__(self) -> Iterator[list[Visit]]:
        visits = self.order.epoch(self.epoch)
        for number in range(self.start, len(self)):
            yield visits[number * self.batch : (number + 1) * self.batch][self.rank :: self.world]


class Samples(Dataset):
    """A sample for each visit: the pair in its direction, augmented, and the part of it in the window."""

    def __init__(self, sources: Sequence[PreparedPairs], recipe: Recipe, config: FastFlow3DConfig, seed: int) -> None:
        self.sources, self.recipe, self.config, self.seed = sources, recipe, config, seed
        self.window = window_config(config, recipe.window)

    def __getitem__(self, visit: Visit) -> Sample | ZeroFlowError:
        """The visit's sample, or the mistake that leaves it without one: raised in a process that loads, it would be
        told as a traceback."""
        try:
            return self._sample(visit)
        except ZeroFlowError as mistake:
            return mistake

    def _sample(self, visit: Visit) -> Sample:
        rng = np.random.default_rng([self.seed, visit.epoch, visit.place, 1])
        source, pair = self.sources[visit.source], visit.pair
        for _ in range(_TRIALS):
            two_way = source[pair]
            sample = two_way.reverse() if visit.reverse else two_way.forward()
            sample = augment(sample, self.recipe.augmentation, rng)
            around_motion = rng.random() < self.recipe.around_motion
            sample = cut_window(sample, self.config, self.window, around_motion, rng)
            if self._is_of_use(sample):
                return sample
            pair = int(rng.integers(len(source)))  # another one in its place: every process has its share
        raise ZeroFlowError(
            f"{_TRIALS} pairs in a row have fewer than {_FEWEST} points or no label within {self._extent()}; do "
            "the labels belong to these logs, and does the ground lie near z = -0.33 m?"
        )

    def _is_of_use(self, sample: Sample) -> bool:
        in0, in1 = (inside(pc, self.config.minimum, self.config.maximum) for pc in (sample.pc0, sample.pc1))
        if min(np.count_nonzero(in0), np.count_nonzero(in1)) < _FEWEST:
            return False
        x, y, z = np.isfinite(sample.label[in0]).T
        return bool((x & y & z).any())

    def _extent(self) -> str:
        x, _, z = self.config.maximum
        return f"{x:.0f} m of the vehicle and {z:.0f} m of its height"
