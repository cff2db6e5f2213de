"""AV2's categories of objects by their index, and how each definition groups them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

NONE = "NONE"  # index 0: a point in no cuboid


@lru_cache(maxsize=1)
def category_names() -> tuple[str, ...]:
    """Names by index: NONE, then AV2's 30 categories in alphabetical order."""
    from av2.evaluation.scene_flow.constants import CATEGORY_TO_INDEX

    return tuple(sorted(CATEGORY_TO_INDEX, key=CATEGORY_TO_INDEX.__getitem__))


@lru_cache(maxsize=1)
def category_index() -> Mapping[str, int]:
    """Index by name."""
    return {name: index for index, name in enumerate(category_names())}


def grouping(groups: Mapping[str, Sequence[str]]) -> np.ndarray:
    """(31,) int64: for each category the position of the group that holds it, −1 where none does."""
    index = category_index()
    group_of = np.full(len(index), -1, dtype=np.int64)
    for position, members in enumerate(groups.values()):
        group_of[[index[name] for name in members]] = position
    return group_of
