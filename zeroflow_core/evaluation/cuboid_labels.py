"""Flow of points by the motion of the cuboids they lie in, as AV2's labels are made."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from zeroflow_core.datasets.av2 import Cuboid
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.evaluation.categories import NONE, category_index
from zeroflow_core.geometry import SE3

_GROWN_M = 0.2  # added to length and width, because the boxes are a little tight


def flow_of_cuboids(
    points0: np.ndarray, cuboids0: Iterable[Cuboid], cuboids1: Iterable[Cuboid], ego0_SE3_ego1: SE3
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Residual flow of every point: that of its cuboid's track, zero outside of all. Where cuboids overlap, the
    last one counts.

    points0:            (N,3) metres, vehicle frame of the first sweep
    cuboids0, cuboids1: those of the first and of the second sweep, each in its own vehicle frame

    Returns residual (N,3) float64 in metres in the first vehicle frame, AV2's category index (N,) uint8, and
    is_valid (N,) bool, False in a cuboid whose track has ended.

    Raises:
        ZeroFlowError: a category that AV2 does not have.
    """
    points0 = np.asarray(points0, dtype=np.float64)
    residual = np.zeros(points0.shape)
    classes = np.zeros(len(points0), dtype=np.uint8)
    is_valid = np.ones(len(points0), dtype=bool)
    later = {cuboid.track_id: cuboid for cuboid in cuboids1}
    index = category_index()
    by_x = np.argsort(points0[:, 0])  # so that each cuboid looks at a slice, not at all points
    x = points0[by_x, 0]
    for cuboid in cuboids0:
        half = (cuboid.size + [_GROWN_M, _GROWN_M, 0.0]) / 2
        centre, radius = cuboid.ego_SE3_object.translation, np.linalg.norm(half)
        near = by_x[np.searchsorted(x, centre[0] - radius) : np.searchsorted(x, centre[0] + radius, side="right")]
        near = near[np.abs(points0[near, 1] - centre[1]) <= radius]
        own = cuboid.ego_SE3_object.inverse().transform(points0[near])
        inside = (np.abs(own) <= half).all(axis=1)
        rows, own = near[inside], own[inside]
        if cuboid.category not in index:
            raise ZeroFlowError(
                f"the category {cuboid.category} of track {cuboid.track_id} is none of AV2's; they are: "
                f"{', '.join(name for name in index if name != NONE)}"
            )
        classes[rows] = index[cuboid.category]
        successor = later.get(cuboid.track_id)
        if successor is None:
            is_valid[rows] = False
        else:
            residual[rows] = (ego0_SE3_ego1 @ successor.ego_SE3_object).transform(own) - points0[rows]
    return residual, classes, is_valid
