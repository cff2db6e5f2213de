"""The map of a simulated log, as AV2 keeps it: heights of the ground on a raster, and roads as vectors."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from zeroflow_core.simulation.scene import Lane, Scene
from zeroflow_core.simulation.terrain import Terrain

CITY = "SIM"
CELL_M = 0.3
REACH_M = 120.0  # from the ego's path to the edge of the map

# Where in its cell a height is taken: av2 looks up cell i from i to i + 1, ground.MapRaster from i - 1/2 to i + 1/2.
_SAMPLE = 0.25
_ROWS = 256  # of the raster at a time, which bounds the memory
_JOINED_M = 0.1  # lane boundaries this close are one


def write_map(folder: Path, log_id: str, scene: Scene, path_xy: np.ndarray) -> None:
    """Write the three files of ``<log>/map/`` for the surroundings of the ego's path.

    folder:  ``<log>/map``, made here
    path_xy: (M,2) places of the ego in the city frame, metres
    """
    low = np.floor(path_xy.min(axis=0) - REACH_M)
    high = np.ceil(path_xy.max(axis=0) + REACH_M)
    folder.mkdir(parents=True)
    raster = io.BytesIO()
    np.save(raster, _heights(scene.terrain, low, high))
    (folder / f"{log_id}_ground_height_surface____{CITY}.npy").write_bytes(raster.getbuffer())
    placement = {"R": [1.0, 0.0, 0.0, 1.0], "t": [-float(low[0]), -float(low[1])], "s": 1 / CELL_M}
    (folder / f"{log_id}___img_Sim2_city.json").write_text(json.dumps(placement))
    vectors = json.dumps(_vectors(scene, low, high))
    (folder / f"log_map_archive_{log_id}____{CITY}_city_0.json").write_text(vectors)


def _heights(terrain: Terrain, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """(H,W) float16, metres: row for y, column for x."""
    columns, rows = np.ceil((high - low) / CELL_M).astype(int)
    x, y = (start + (np.arange(n) + _SAMPLE) * CELL_M for start, n in zip(low, (columns, rows), strict=True))
    heights = np.empty((rows, columns), dtype=np.float16)
    for first in range(0, rows, _ROWS):
        block = slice(first, first + _ROWS)
        heights[block] = terrain.at(np.stack(np.meshgrid(x, y[block]), axis=-1))
    return heights


def _vectors(scene: Scene, low: np.ndarray, high: np.ndarray) -> dict[str, dict[str, Any]]:
    """AV2's vector map of what lies between the corners `low` and `high` (2,)."""
    roads = scene.roads
    drivable = [clipped for polygon in roads.drivable if len(clipped := clip(polygon, low, high))]
    if not drivable:  # av2 reads no map without any
        drivable = [np.array([low, [high[0], low[1]], high, [low[0], high[1]]])]
    lanes = [lane for lane in roads.lanes if _reaches(np.concatenate([lane.left, lane.right]), low, high)]
    crossings = [pair for pair in roads.crossings if _reaches(np.concatenate(pair), low, high)]

    def waypoints(xy: np.ndarray) -> list[dict[str, float]]:
        heights = scene.terrain.at(xy)
        return [{"x": round(float(x), 2), "y": round(float(y), 2), "z": round(float(z), 2)}
                for (x, y), z in zip(xy, heights, strict=True)]  # fmt: skip

    return {
        "pedestrian_crossings": {
            str(k): {"edge1": waypoints(first), "edge2": waypoints(second), "id": k}
            for k, (first, second) in enumerate(crossings, start=1)
        },
        "lane_segments": {
            str(k): {
                "id": k,
                "is_intersection": lane.is_intersection,
                "lane_type": "VEHICLE",
                "left_lane_boundary": waypoints(lane.left),
                "left_lane_mark_type": "NONE",
                "right_lane_boundary": waypoints(lane.right),
                "right_lane_mark_type": "NONE",
                "successors": [j for j, other in enumerate(lanes, start=1) if _follows(other, lane)],
                "predecessors": [j for j, other in enumerate(lanes, start=1) if _follows(lane, other)],
                "right_neighbor_id": _lane_with("left", lane.right, lanes),
                "left_neighbor_id": _lane_with("right", lane.left, lanes),
            }
            for k, lane in enumerate(lanes, start=1)
        },
        "drivable_areas": {
            str(k): {"area_boundary": waypoints(polygon), "id": k} for k, polygon in enumerate(drivable, start=1)
        },
    }


def _reaches(xy: np.ndarray, low: np.ndarray, high: np.ndarray) -> bool:
    """Whether the bounding boxes overlap."""
    return bool(np.all(xy.max(axis=0) >= low) and np.all(xy.min(axis=0) <= high))


def _follows(later: Lane, earlier: Lane) -> bool:
    return all(
        np.hypot(*(start[0] - end[-1])) < _JOINED_M
        for start, end in ((later.left, earlier.left), (later.right, earlier.right))
    )


def _lane_with(side: str, boundary: np.ndarray, lanes: list[Lane]) -> int | None:
    """The number of the lane whose `side` is `boundary`, in the same direction."""
    for k, lane in enumerate(lanes, start=1):
        other = getattr(lane, side)
        if all(np.hypot(*(other[end] - boundary[end])) < _JOINED_M for end in (0, -1)):
            return k
    return None


def clip(polygon: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The part of a polygon (N,2) in the rectangle from `low` to `high` (2,); (0,2) where there is none."""
    for axis in (0, 1):
        for limit, sign in ((low[axis], 1.0), (high[axis], -1.0)):
            if len(polygon) == 0:
                return polygon
            inside = sign * (polygon[:, axis] - limit) >= 0
            kept = []
            for here, following, here_in, following_in in zip(
                polygon, np.roll(polygon, -1, axis=0), inside, np.roll(inside, -1), strict=True
            ):
                if here_in:
                    kept.append(here)
                if here_in != following_in:
                    part = (limit - here[axis]) / (following[axis] - here[axis])
                    kept.append(here + part * (following - here))
            polygon = np.array(kept).reshape(-1, 2)
    return polygon
