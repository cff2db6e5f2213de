"""What the plans of all scenes share: the lie of the land, and pieces of the map of roads."""

from __future__ import annotations

import numpy as np
import torch

from zeroflow_core.simulation.paths import Course, Path
from zeroflow_core.simulation.scene import Lane

VERTEX = 2.0  # metres between the vertices of the map's lines


def relief(rng: np.random.Generator) -> dict:
    """Slope and waves of a Terrain: up to 4 % in all, usually half of that."""
    direction, steep = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.025)
    waves = []
    for _ in range(rng.integers(1, 4)):
        length, heading = rng.uniform(50, 180), rng.uniform(0, 2 * np.pi)
        number = 2 * np.pi / length
        amplitude = rng.uniform(0.002, 0.010) / number  # by the slope it makes
        waves.append((number * np.cos(heading), number * np.sin(heading), rng.uniform(0, 2 * np.pi), amplitude))
    slope = (float(steep * np.cos(direction)), float(steep * np.sin(direction)))
    return {"slope": slope, "waves": tuple(tuple(map(float, wave)) for wave in waves)}


def strip(course: Course, begin: float, end: float, right: float, left: float) -> np.ndarray:
    """Polygon (N,2) of a road between `right` and `left` metres to the left of its middle."""
    s = np.linspace(begin, end, max(int((end - begin) / VERTEX), 1) + 1)
    return np.concatenate([course.at(s, left), course.at(s[::-1], right)])


def lane(course: Course, begin: float, end: float, d: float, width: float, **kind: bool) -> Lane:
    """A lane whose middle is at `d`, in the direction from begin to end; end < begin runs against the course."""
    s = np.linspace(begin, end, max(int(abs(end - begin) / VERTEX), 1) + 1)
    half = np.sign(end - begin) * width / 2
    return Lane(course.at(s, d + half), course.at(s, d - half), **kind)


def lane_along(path: Path, begin: float, end: float, width: float, **kind: bool) -> Lane:
    """A lane about a path between two of its arc lengths."""
    s = np.linspace(begin, end, max(int((end - begin) / VERTEX), 1) + 1)
    middle, heading = path.at(s), path.heading(s)
    left = np.stack([-np.sin(heading), np.cos(heading)], axis=1) * width / 2
    return Lane(middle + left, middle - left, **kind)


def crossing(course: Course, s: float, half_width: float, width: float = 4.0) -> tuple[np.ndarray, np.ndarray]:
    """Both edges, each (2,2), of a pedestrian crossing over the whole road at s."""
    across = np.array([half_width, -half_width])
    return course.at(s - width / 2, across), course.at(s + width / 2, across)


def corners(main: Course, half_main: float, side: Course, half_side: float, radius: float) -> list[np.ndarray]:
    """Polygons (N,2) of the four rounded corners where a straight road crosses another."""
    angle = np.linspace(0, np.pi / 2, 9)
    beyond = radius * (1 - np.stack([np.cos(angle), np.sin(angle)], axis=1))  # both edges, along the kerb
    beyond = np.concatenate([[[0.0, 0.0]], beyond])
    road, sine, polygons = main.road(0.0), np.sin(side.heading - main.heading), []
    for i in (1, -1):
        for j in (1, -1):
            d, target = j * (half_side + beyond[:, 1]), i * (half_main + beyond[:, 0])
            s = target / sine
            for _ in range(12):  # along the side road to the wanted distance from the main one
                s = s + (target - road.lateral(*map(torch.from_numpy, side.at(s, d).T)).numpy()) / sine
            polygons.append(side.at(s, d))
    return polygons
