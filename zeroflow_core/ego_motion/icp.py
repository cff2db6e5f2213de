"""KISS-ICP as it is used here: in one thread, and hardly looking at the ground.

Vizzo et al., "KISS-ICP: In Defense of Point-to-Point ICP", RA-L 2023; package kiss-icp.
"""

from __future__ import annotations

import math

import numpy as np

from zeroflow_core.errors import ZeroFlowError

_VOXELS_IN_RANGE = 100  # KISS-ICP's own choice: voxels of 1 m for 100 m
_GROUND_CELL = 4.0  # metres: the width of the columns whose lowest point tells where the ground is
_LOW = 0.3  # metres above that which still count as ground
_MOST_POINTS = 40_000  # twice what real sweeps leave; noise all around must not take minutes
_MOST_ITERATIONS = 100  # what belongs together takes some twenty
_SPARSE = 6  # voxels between points of the ground that are matched


def new_icp(max_range: float):
    """KISS-ICP with an empty map.

    Spinning scanners draw rings on the ground that travel along with the vehicle, and matching those says that it
    stands still. So only few of the points near the ground are matched, enough to hold height, roll and pitch.
    """
    try:
        from kiss_icp.config.config import AdaptiveThresholdConfig, DataConfig, MappingConfig, RegistrationConfig
        from kiss_icp.config.parser import KISSConfig
        from kiss_icp.kiss_icp import KissICP
        from kiss_icp.voxelization import voxel_down_sample
    except ImportError as error:
        raise ZeroFlowError(
            f"ego motion from the clouds alone needs the package kiss-icp ({error}): pip install kiss-icp"
        ) from error

    class KissIcp(KissICP):
        def voxelize(self, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            voxel = self.config.mapping.voxel_size
            for_map = voxel_down_sample(frame, 0.5 * voxel)
            for_map = for_map[:: max(1, math.ceil(len(for_map) / _MOST_POINTS))]
            low = near_ground(for_map)
            matched = (voxel_down_sample(for_map[~low], 1.5 * voxel), voxel_down_sample(for_map[low], _SPARSE * voxel))
            return np.concatenate(matched), for_map

    # model_construct, as the usual constructor obeys environment variables that nobody expects here.
    config = KISSConfig.model_construct(
        data=DataConfig(max_range=max_range, min_range=0.0, deskew=False),
        registration=RegistrationConfig(max_num_threads=1, max_num_iterations=_MOST_ITERATIONS),
        mapping=MappingConfig(voxel_size=max_range / _VOXELS_IN_RANGE),
        adaptive_threshold=AdaptiveThresholdConfig(),
    )
    return KissIcp(config)


def near_ground(points: np.ndarray) -> np.ndarray:
    """(N,) bool: hardly higher than the lowest of the points (N,3, metres, z up) in the same column, 4 m wide."""
    across, along = np.floor(points[:, :2] / _GROUND_CELL).astype(np.int64).T
    columns, column = np.unique(across * 2**32 + along, return_inverse=True)
    lowest = np.full(len(columns), np.inf)
    np.minimum.at(lowest, column, points[:, 2])
    return points[:, 2] < lowest[column] + _LOW
