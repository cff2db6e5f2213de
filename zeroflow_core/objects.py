"""Moving objects: points that move and stay together, each group with a box and a velocity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zeroflow_core.errors import ZeroFlowError

_NEIGHBOUR_DISTANCE = 1.0  # metres: bridges gaps on a car 50 m away, not those between lanes
_HORIZON = 0.5  # seconds: neighbours must still be neighbours after it, which parts oncoming cars
_FAR_HORIZON = 2.0  # seconds: likewise for groups that do not hold together, such as a car that passes a bus
_HEIGHT_WEIGHT = 0.4  # far scan lines lie further apart than the points along them
_EXPLAINED = 0.8  # of such a group's points, that must then be in groups that do
_CELL = 0.3  # metres: thinning makes the cost independent of how close an object is
_CORE_CELLS = 3  # occupied cells, its own included, within that distance of a core point
_MOST_POINTS = 50_000  # where more than that move, most likely everything does, and it must not take seconds
_FARTHEST, _FASTEST = 10_000.0, 200.0  # metres, m/s: nothing beyond is real, and cells are numbered by integers
_FRAGMENT_MARGIN = 0.3  # metres around a box in which a fragment still belongs to it
CAR_LENGTH, VEHICLE_WIDTH = 5.0, 1.2  # metres: what has that width may be that long, however little is seen of it
SLOW = 1.0  # m/s: below it the direction of motion is too noisy to turn a box by


@dataclass(frozen=True)
class MovingObject:
    """One group of points that move together, in the frame of the points it was made from.

    centre:     (3,) float64, metres, centre of the box
    size:       (3,) float64, metres: length along `yaw`, width across it, height along z
    yaw:        radians, counter-clockwise about z from x; the way the object moves
    velocity:   (3,) float64, m/s, median over the points
    num_points: how many points support it
    """

    centre: np.ndarray
    size: np.ndarray
    yaw: float
    velocity: np.ndarray
    num_points: int

    @property
    def speed(self) -> float:
        """Metres per second over ground."""
        return float(np.linalg.norm(self.velocity))


def moving_objects(
    points: np.ndarray,
    velocity: np.ndarray,
    *,
    min_speed: float = 0.5,
    min_points: int = 10,
    min_extent: float = 0.3,
    min_coherence: float = 0.7,
) -> list[MovingObject]:
    """Group the points that move into objects, most points first.

    points, velocity: (N,3), metres and m/s over ground, in one frame with z up. Rows that are not finite,
        beyond reason (10 km, 200 m/s) or slower than `min_speed` (m/s) take no part, so ground with velocity 0 needs no
        mask. Of more than 50,000 that move, every second, third, … takes part.
    min_points:    smaller groups are noise
    min_extent:    metres; groups whose box is smaller along every side are noise
    min_coherence: |mean velocity| / mean speed; groups whose points move apart are noise

    Raises:
        ZeroFlowError: open3d cannot be imported.
        ValueError: `points` and `velocity` do not have the same shape (N,3).
    """
    points, velocity = np.asarray(points), np.asarray(velocity)
    if points.ndim != 2 or points.shape[1] != 3 or velocity.shape != points.shape:
        raise ValueError(f"points and velocity must both be (N, 3), got {points.shape} and {velocity.shape}")
    with np.errstate(invalid="ignore", over="ignore"):
        squares = np.einsum("ij,ij->i", velocity, velocity)
        moving = np.flatnonzero((squares >= min_speed**2) & (squares <= _FASTEST**2))
        moving = moving[(np.abs(points[moving]) <= _FARTHEST).all(axis=1)]
    moving = moving[:: max(1, -(-len(moving) // _MOST_POINTS))]
    if len(moving) < min_points:
        return []
    points, velocity = points[moving].astype(np.float64), velocity[moving].astype(np.float64)

    speed = np.sqrt(np.einsum("ij,ij->i", velocity, velocity))

    def is_coherent(members: np.ndarray) -> bool:
        return bool(np.linalg.norm(velocity[members].mean(axis=0)) >= min_coherence * speed[members].mean())

    groups = []
    for members in _members(_group(points, velocity)):
        if len(members) < min_points:
            continue
        if is_coherent(members):
            groups.append(members)
            continue
        apart = [members[part] for part in _members(_group(points[members], velocity[members], _FAR_HORIZON))]
        apart = [part for part in apart if len(part) >= min_points and is_coherent(part)]
        if sum(map(len, apart)) >= _EXPLAINED * len(members):  # otherwise it is noise
            groups += apart
    found = _join_fragments(groups, points, velocity)
    found = [one for one in found if one.size.max() >= min_extent and one.speed >= min_speed]
    return sorted(found, key=lambda one: -one.num_points)


def _group(points: np.ndarray, velocity: np.ndarray, horizon: float = _HORIZON) -> np.ndarray:
    """Group number (N,) of each point, −1 for none: DBSCAN of where the points are and of where they will be.

    Two cars that pass each other touch now but not half a second later; a car that drives towards another
    touches it later but not now.
    """
    cell_of_point, count = _cells(points)
    weights = np.bincount(cell_of_point, minlength=count)
    now = np.column_stack([np.bincount(cell_of_point, column, count) / weights for column in points.T])
    drift = np.column_stack([np.bincount(cell_of_point, column, count) / weights for column in velocity.T])
    now[:, 2] *= _HEIGHT_WEIGHT
    later = now + drift * [horizon, horizon, 0.0]

    label = _dbscan(now)
    grouped = np.flatnonzero(label >= 0)  # what is noise now is none of it later
    label_later = _dbscan(later[grouped])
    pair = label[grouped] * (len(now) + 1) + label_later
    _, both = np.unique(pair, return_inverse=True)
    label[grouped] = np.where(label_later < 0, -1, both)
    return label[cell_of_point]


def _cells(points: np.ndarray) -> tuple[np.ndarray, int]:
    """Number of the occupied cell (N,) in which each point lies, and how many cells are occupied."""
    index = np.floor(points / _CELL).astype(np.int64)
    index -= index.min(axis=0)
    _, span_y, span_z = index.max(axis=0) + 1
    key = (index[:, 0] * span_y + index[:, 1]) * span_z + index[:, 2]
    occupied, cell_of_point = np.unique(key, return_inverse=True)
    return cell_of_point, len(occupied)


def _dbscan(positions: np.ndarray) -> np.ndarray:
    """Cluster number (N,) of each position (N,3), −1 for noise."""
    if len(positions) == 0:  # open3d would complain
        return np.empty(0, dtype=np.int64)
    try:
        import open3d
    except (ImportError, OSError) as error:
        raise ZeroFlowError(
            f"open3d, which groups moving points into objects, cannot be imported ({error}): "
            "pip install 'open3d==0.19.0'"
        ) from error
    cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(positions))
    return np.asarray(cloud.cluster_dbscan(_NEIGHBOUR_DISTANCE, _CORE_CELLS))


def _members(label: np.ndarray) -> list[np.ndarray]:
    """Row numbers of each group; rows labelled −1 belong to none."""
    order = np.argsort(label, kind="stable")
    order = order[label[order] >= 0]
    if len(order) == 0:
        return []
    return np.split(order, np.flatnonzero(np.diff(label[order])) + 1)


def _join_fragments(groups: list[np.ndarray], points: np.ndarray, velocity: np.ndarray) -> list[MovingObject]:
    """The object that each group is; a group inside the box of a larger one that moves like it, such as a wheel seen
    apart from the body, is part of that one, and so are the two ends of a car behind a pole."""
    boxes = [_fit_box(points[members], velocity[members]) for members in groups]
    if len(groups) < 2:
        return boxes
    order = np.argsort([-box.size[0] * box.size[1] for box in boxes], kind="stable")
    groups, boxes = [groups[k] for k in order], [boxes[k] for k in order]
    motion = np.stack([box.velocity for box in boxes])
    middle = np.stack([points[members, :2].mean(axis=0) for members in groups])
    centre = np.stack([box.centre[:2] for box in boxes])
    along = np.stack([[np.cos(box.yaw), np.sin(box.yaw)] for box in boxes])
    across = along[:, ::-1] * [-1, 1]
    size = np.stack([box.size[:2] for box in boxes])
    speed = np.linalg.norm(motion, axis=1)

    parts: dict[int, list[np.ndarray]] = {}  # by the number of the largest
    home = np.arange(len(groups))
    for k, members in enumerate(groups):
        ahead = np.abs(np.einsum("ij,ij->i", middle[k] - centre[:k], along[:k]))
        aside = np.abs(np.einsum("ij,ij->i", middle[k] - centre[:k], across[:k])) - size[:k, 1] / 2
        apart = np.linalg.norm(motion[k] - motion[:k], axis=1)
        inside = (ahead <= size[:k, 0] / 2 + _FRAGMENT_MARGIN) & (aside <= _FRAGMENT_MARGIN)
        part = inside & (apart <= np.maximum(SLOW, 0.25 * speed[:k]))
        as_one = ahead + (size[:k, 0] + size[k, 0]) / 2
        in_line = (np.maximum(size[:k, 1], size[k, 1]) >= VEHICLE_WIDTH) & (as_one <= CAR_LENGTH) & (aside <= 0)
        part |= in_line & (apart <= np.maximum(SLOW / 2, 0.1 * speed[:k]))
        hosts = np.flatnonzero(part)
        if len(hosts):
            home[k] = home[hosts[0]]
        parts.setdefault(int(home[k]), []).append(members)
    return [boxes[k] if len(own) == 1 else _fit_joined(own, points, velocity) for k, own in parts.items()]


def _fit_joined(parts: list[np.ndarray], points: np.ndarray, velocity: np.ndarray) -> MovingObject:
    members = np.concatenate(parts)
    return _fit_box(points[members], velocity[members])


def _fit_box(points: np.ndarray, velocities: np.ndarray) -> MovingObject:
    """Box around `points` (N,3) along the median of their velocities (N,3), or of least area when that is slow."""
    velocity = np.median(velocities, axis=0)
    yaw = float(np.arctan2(velocity[1], velocity[0]))
    if np.hypot(velocity[0], velocity[1]) < SLOW:
        yaw = _least_area_yaw(points[:, :2], near=yaw)
    along = np.array([np.cos(yaw), np.sin(yaw)])
    across = np.array([-along[1], along[0]])
    inside = np.column_stack([points[:, :2] @ along, points[:, :2] @ across, points[:, 2]])
    low, high = inside.min(axis=0), inside.max(axis=0)
    middle = (low + high) / 2
    centre = np.array([*(middle[0] * along + middle[1] * across), middle[2]])
    return MovingObject(centre, high - low, yaw, velocity, len(points))


def _least_area_yaw(xy: np.ndarray, near: float) -> float:
    """Direction of a side of the least rectangle around `xy` (N,2); of the four, the nearest to `near`."""
    angles = np.deg2rad(np.arange(0.0, 90.0, 1.0))
    along = np.stack([np.cos(angles), np.sin(angles)])
    across = np.stack([-along[1], along[0]])
    area = np.ptp(xy @ along, axis=0) * np.ptp(xy @ across, axis=0)
    side = angles[int(np.argmin(area))]
    yaw = side + np.round((near - side) / (np.pi / 2)) * (np.pi / 2)
    return float(np.arctan2(np.sin(yaw), np.cos(yaw)))
