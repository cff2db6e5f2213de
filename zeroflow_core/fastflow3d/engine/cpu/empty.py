"""What the encoder gives where there are no points: away from the border a constant, near it what its padding makes."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from zeroflow_core.fastflow3d.engine.fold import Folded


@torch.no_grad()
def empty_responses(folded: Folded) -> list[list[tuple[np.ndarray, np.ndarray]]]:
    """For each convolution of each stage (values, where): an empty grid has values[where[y], where[x]], (C,) float32.

    Computed on a grid just large enough to have an inside that no border reaches.
    """
    stages = len(folded.encoder)
    depth, half = 0, 1
    for k, stage in enumerate(folded.encoder, start=1):
        depth = depth // 2 + 1 + len(stage)  # cells from the border that its padding reaches
        half = max(half, -(-(depth + 1) // 2 ** (stages - k)))
    cells = min(folded.config.cells, 2 * half * 2**stages)
    x = torch.zeros(1, folded.config.channels, cells, cells, dtype=torch.float32)
    responses = []
    for k, stage in enumerate(folded.encoder, start=1):
        where = _where(folded.config.cells >> k, cells >> k)
        of_stage = []
        for conv in stage:
            x = F.gelu(F.conv2d(x, conv.weight, conv.bias, stride=conv.stride, padding=1))
            of_stage.append((np.ascontiguousarray(x[0].permute(1, 2, 0).numpy()), where))
        responses.append(of_stage)
    return responses


def _where(cells: int, small: int) -> np.ndarray:
    """(cells,) int32: the row of a grid of `small` cells that is like each row of one of `cells`."""
    at = np.arange(cells)
    from_end = small - (cells - at)
    where = np.where(at < small // 2, at, np.where(from_end >= small // 2, from_end, small // 2))
    return (at if cells == small else where).astype(np.int32)
