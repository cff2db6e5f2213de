"""Moving objects over time: the same object keeps its number, and what only flickers gets none.

An object's own velocity says where it was a moment ago, so association needs no guess about its motion: objects and
tracks are moved towards each other by the mean of both velocities and must then lie in each other's box, or near it.
Everything is kept in the world frame, where a vehicle that turns changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from zeroflow_core.geometry import SE3
from zeroflow_core.objects import CAR_LENGTH, SLOW, VEHICLE_WIDTH, MovingObject

KEPT_SPEED = 0.5  # share of `min_speed` down to which an object that is followed still counts as moving

_MAX_GAP_S = 2.0  # between two updates; nothing is known of what happened meanwhile
_MOST_OBJECTS = 1000  # in one update, those with most points: noise must not take time without bound
_MEMORY_S = 30.0  # for how long the place of what came to a stop is remembered
_WELL_KNOWN = 10  # updates it must have been seen in for that
_MOST_MISSES = 1  # in a row, before an object is confirmed

_MARGIN = 0.5  # metres around a box in which the other's centre may lie
_DRIFT = 1.0  # m/s by which that grows while it is not seen
_LONGEST_S = 1.0  # until which it grows
_HEIGHT_MARGIN = 1.0  # metres
_SPEED_MARGIN, _SPEED_SHARE, _ACCELERATION = 1.5, 0.3, 5.0  # m/s, of the speed, m/s²: how velocities may differ
_NEWCOMER = 0.5  # metres; of two tracks that would both do, the confirmed one has that much of a lead

_CENTRE_S, _VELOCITY_S, _YAW_S = 0.05, 0.15, 0.15  # seconds over which each is smoothed
_GROWTH_S, _SHRINKAGE_S = 0.3, 1.0  # a part that is hidden for a moment is still there
_TURN = np.deg2rad(60.0)  # more at once is no turn, but the other way round


@dataclass(frozen=True)
class Track:
    """An object that is followed.

    id:           from 1 up, never given twice by one tracker
    object:       smoothed, in the frame of the update; `num_points` is 0 where it is predicted
    age_s:        seconds since it was seen first
    hits:         updates it was seen in
    is_predicted: it was not seen this time; this is where it would be
    """

    id: int
    object: MovingObject
    age_s: float
    hits: int
    is_predicted: bool


class Tracker:
    """Follows moving objects from one sweep to the next. Not for two threads at once."""

    def __init__(self) -> None:
        self._next_id = 1
        self.reset()

    def reset(self) -> None:
        """Forget every object; its number is not given again. For when the world frame has jumped."""
        self._stamp_ns: int | None = None
        self._states = _States.of([], 0, SE3.identity())

    def update(
        self,
        objects: Sequence[MovingObject],
        stamp_ns: int,
        world_SE3_frame: SE3,
        *,
        min_speed: float = 0.5,
        confirmations: int = 3,
        timeout: float = 0.5,
    ) -> list[Track]:
        """The confirmed objects at `stamp_ns`, by id, in the frame that `objects` are in.

        objects:         of one sweep, most points first, those down to ``KEPT_SPEED * min_speed`` included
        world_SE3_frame: pose of that frame (z up, origin near the scanner) in one that is fixed
        min_speed:       m/s at which an object is taken up; it is kept down to KEPT_SPEED of it
        confirmations:   sweeps that must have shown an object before it is reported
        timeout:         seconds for which an object that is not seen is predicted. One that was about to stop is
            remembered for longer, without being reported, and has its number again when it goes on.

        A stamp that goes back, or that leaves more than two seconds between, starts anew.
        """
        if self._stamp_ns is not None and not 0 <= stamp_ns - self._stamp_ns <= _MAX_GAP_S * 1e9:
            self.reset()
        seconds = 0.0 if self._stamp_ns is None else (stamp_ns - self._stamp_ns) * 1e-9
        self._stamp_ns = stamp_ns
        kept = [found for found in objects if found.speed >= KEPT_SPEED * min_speed][:_MOST_OBJECTS]
        seen, known = _States.of(kept, stamp_ns, world_SE3_frame), self._states

        rows, columns = _assignment(known, seen, seconds)
        missed = np.setdiff1d(np.arange(len(known)), rows)
        known.predict(seconds)
        known.correct(rows, seen.take(columns), world_SE3_frame.translation)
        known.misses[missed] += 1
        known.num_points[missed] = 0
        twins = _give_up_twins(known, missed)
        known = known.take(_alive(known, stamp_ns, timeout) & ~twins)

        unknown = np.setdiff1d(np.arange(len(seen)), columns)
        born = seen.take(unknown[seen.speed[unknown] >= min_speed])
        known = known.join(born.take(~_is_part(born, known)))
        self._number(known, confirmations)
        self._states = known
        return _report(known, stamp_ns, min_speed, timeout, world_SE3_frame.inverse())

    def _number(self, states: _States, confirmations: int) -> None:
        """Ids for those that are confirmed by now, the best seen first."""
        new = np.flatnonzero((states.id == 0) & (states.hits >= confirmations))
        states.id[new] = self._next_id + np.arange(len(new))
        self._next_id += len(new)


@dataclass
class _States:
    """K objects in the world frame, a row of each array for one.

    centre, velocity, size: (K,3) float64, as of MovingObject
    yaw:                    (K,) float64, radians
    num_points:             (K,) of the last update, 0 when it was not seen in it
    first_ns, last_ns:      (K,) stamps between which it was seen
    hits, misses:           (K,) updates in all that it was seen in; updates in a row that it was not
    id:                     (K,) 0 until it is confirmed
    """

    centre: np.ndarray
    velocity: np.ndarray
    size: np.ndarray
    yaw: np.ndarray
    num_points: np.ndarray
    first_ns: np.ndarray
    last_ns: np.ndarray
    hits: np.ndarray
    misses: np.ndarray
    id: np.ndarray

    @staticmethod
    def of(objects: Sequence[MovingObject], stamp_ns: int, world_SE3_frame: SE3) -> _States:
        """Seen for the first time now."""
        count = len(objects)
        yaw = np.array([found.yaw for found in objects], dtype=np.float64)
        ahead = world_SE3_frame.rotate(np.column_stack([np.cos(yaw), np.sin(yaw), np.zeros(count)]))
        return _States(
            centre=world_SE3_frame.transform(_rows(found.centre for found in objects)),
            velocity=world_SE3_frame.rotate(_rows(found.velocity for found in objects)),
            size=_rows(found.size for found in objects),
            yaw=np.arctan2(ahead[:, 1], ahead[:, 0]),
            num_points=np.array([found.num_points for found in objects], dtype=np.int64),
            first_ns=np.full(count, stamp_ns, dtype=np.int64),
            last_ns=np.full(count, stamp_ns, dtype=np.int64),
            hits=np.ones(count, dtype=np.int64),
            misses=np.zeros(count, dtype=np.int64),
            id=np.zeros(count, dtype=np.int64),
        )

    def __len__(self) -> int:
        return len(self.yaw)

    @property
    def speed(self) -> np.ndarray:
        return np.linalg.norm(self.velocity, axis=1)

    @property
    def rests(self) -> np.ndarray:
        """(K,) bool: not seen any more, and it was hardly moving when it was: it has come to a stop."""
        return (self.misses > 0) & (self.speed < SLOW)

    def take(self, rows: np.ndarray) -> _States:
        return _States(*(getattr(self, field.name)[rows] for field in fields(self)))

    def join(self, others: _States) -> _States:
        both = ((getattr(self, field.name), getattr(others, field.name)) for field in fields(self))
        return _States(*(np.concatenate(pair) for pair in both))

    def predict(self, seconds: float) -> None:
        """Each goes on as it did."""
        self.centre += np.where(self.rests, 0.0, seconds)[:, None] * self.velocity

    def correct(self, rows: np.ndarray, seen: _States, viewer: np.ndarray) -> None:
        """Bring `rows`, which are predicted, towards what was seen of them. viewer: (3,) where it was seen from"""
        seconds = (seen.last_ns - self.last_ns[rows]) * 1e-9
        velocity = _blend(self.velocity[rows], seen.velocity, seconds, _VELOCITY_S)
        yaw, size = self._turned_alike(rows, seen, velocity)
        turn = _wrapped(yaw - self.yaw[rows])
        share = np.where(np.abs(turn) > _TURN, 1.0, _share(seconds, _YAW_S))
        smooth_yaw = _wrapped(self.yaw[rows] + share * turn)
        over = np.where(size > self.size[rows], _GROWTH_S, _SHRINKAGE_S)
        smooth_size = _blend(self.size[rows], size, seconds, over)
        # The sides that the scanner sees stay where they are; what is added or taken away is behind them.
        centre = seen.centre + _hidden_half(seen.centre - viewer, smooth_yaw, size, smooth_size)

        self.centre[rows] = _blend(self.centre[rows], centre, seconds, _CENTRE_S)
        self.velocity[rows], self.yaw[rows], self.size[rows] = velocity, smooth_yaw, smooth_size
        self.num_points[rows], self.last_ns[rows] = seen.num_points, seen.last_ns
        self.hits[rows] += 1
        self.misses[rows] = 0

    def _turned_alike(self, rows: np.ndarray, seen: _States, velocity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Yaw and size of the boxes seen, by that side of each which is ahead: a slow box may be told by any of the
        four. Ahead is where it moves, or, when it is too slow to tell, where it was ahead before."""
        fast = np.hypot(velocity[:, 0], velocity[:, 1]) >= SLOW
        ahead = np.where(fast, np.arctan2(velocity[:, 1], velocity[:, 0]), self.yaw[rows])
        quarters = np.round(_wrapped(ahead - seen.yaw) / (np.pi / 2))
        across = (quarters % 2 == 1)[:, None]
        return _wrapped(seen.yaw + quarters * (np.pi / 2)), np.where(across, seen.size[:, [1, 0, 2]], seen.size)


def _alive(states: _States, stamp_ns: int, timeout: float) -> np.ndarray:
    """(K,) bool: which are to be followed on."""
    patience_ns = np.where(states.rests & (states.hits >= _WELL_KNOWN), _MEMORY_S * 1e9, timeout * 1e9).round()
    return np.where(states.id > 0, stamp_ns - states.last_ns <= patience_ns, states.misses <= _MOST_MISSES)


def _report(
    states: _States, stamp_ns: int, min_speed: float, timeout: float, frame_SE3_world: SE3
) -> list[Track]:
    shown = np.flatnonzero((states.id > 0) & (stamp_ns - states.last_ns <= round(timeout * 1e9)))
    shown = states.take(shown[np.argsort(states.id[shown])])
    shown = shown.take((shown.speed >= KEPT_SPEED * min_speed) & ~_is_ghost(shown))
    centre, velocity = frame_SE3_world.transform(shown.centre), frame_SE3_world.rotate(shown.velocity)
    ahead = frame_SE3_world.rotate(np.column_stack([np.cos(shown.yaw), np.sin(shown.yaw), np.zeros(len(shown))]))
    yaw, age = np.arctan2(ahead[:, 1], ahead[:, 0]), (stamp_ns - shown.first_ns) * 1e-9
    return [
        Track(
            int(shown.id[k]),
            MovingObject(centre[k], shown.size[k], float(yaw[k]), velocity[k], int(shown.num_points[k])),
            float(age[k]),
            int(shown.hits[k]),
            bool(shown.misses[k] > 0),
        )
        for k in range(len(shown))
    ]


def _is_ghost(states: _States) -> np.ndarray:
    """(K,) bool: which are predicted to be where another one is seen."""
    predicted, seen = np.flatnonzero(states.misses > 0), np.flatnonzero(states.misses == 0)
    ghost = np.zeros(len(states), dtype=bool)
    a, b = states.take(predicted), states.take(seen)
    rows, columns = _near(a.centre, a.size, b.centre, b.size, reach=_MARGIN)
    offset = b.centre[columns] - a.centre[rows]
    overlap = np.minimum(_outside(offset, a.take(rows)), _outside(offset, b.take(columns))) <= _MARGIN
    ghost[predicted[rows[overlap]]] = True
    return ghost


def _assignment(known: _States, seen: _States, seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """Rows of `known` (as of `seconds` ago) and of `seen` (now) that are one object; least cost over all of them."""
    from scipy.optimize import linear_sum_assignment
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    rows, columns, cost = _candidates(known, seen, seconds)
    if len(rows) == 0:
        return rows, columns
    # Objects far apart have nothing to do with each other, and small problems are solved much faster than a large one.
    total = len(known) + len(seen)
    graph = coo_matrix((np.ones(len(rows)), (rows, len(known) + columns)), shape=(total, total))
    _, island = connected_components(graph, directed=False)
    order = np.argsort(island[rows], kind="stable")
    pairs = []
    for members in np.split(order, np.flatnonzero(np.diff(island[rows[order]])) + 1):
        own_rows, i = np.unique(rows[members], return_inverse=True)
        own_columns, j = np.unique(columns[members], return_inverse=True)
        table = np.full((len(own_rows), len(own_columns)), 1e6)  # no pair
        table[i, j] = cost[members]
        for a, b in zip(*linear_sum_assignment(table), strict=True):
            if table[a, b] < 1e6:
                pairs.append((own_rows[a], own_columns[b]))
    matched = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return matched[:, 0], matched[:, 1]


def _candidates(known: _States, seen: _States, seconds: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of `known` and `seen` that may be one object, and what is against it, in metres."""
    moved = np.where(known.rests, 0.0, seconds)[:, None]
    now = known.centre + moved * known.velocity
    apart = _SPEED_MARGIN + _SPEED_SHARE * known.speed.max(initial=0.0) + _ACCELERATION * _LONGEST_S
    reach = _MARGIN + _DRIFT * _LONGEST_S + seconds * apart / 2
    rows, columns = _near(now, known.size, seen.centre, seen.size, reach)
    unseen = np.minimum((seen.last_ns[columns] - known.last_ns[rows]) * 1e-9, _LONGEST_S)
    slower = np.minimum(known.speed[rows], seen.speed[columns])
    apart = np.linalg.norm(seen.velocity[columns] - known.velocity[rows], axis=1)
    alike = apart <= _SPEED_MARGIN + _SPEED_SHARE * slower + _ACCELERATION * unseen

    # By the mean of both velocities: exact as long as the object speeds up or brakes evenly.
    motion = moved[rows] * (known.velocity[rows] + seen.velocity[columns]) / 2
    offset = seen.centre[columns] - known.centre[rows] - motion
    outside = np.minimum(_outside(offset, known.take(rows)), _outside(offset, seen.take(columns)))
    is_known = known.id[rows] > 0
    beyond = np.where(is_known, np.minimum(outside, _beyond_car(offset, known.take(rows), seen.take(columns))), outside)
    level = np.abs(offset[:, 2]) <= (known.size[rows, 2] + seen.size[columns, 2]) / 2 + _HEIGHT_MARGIN
    good = alike & level & (beyond <= _MARGIN + _DRIFT * unseen)
    distance = np.linalg.norm(offset[:, :2], axis=1)
    cost = outside + 0.25 * distance + 0.2 * apart + np.where(is_known, 0.0, _NEWCOMER)
    return rows[good], columns[good], cost[good]


def _give_up_twins(known: _States, missed: np.ndarray) -> np.ndarray:
    """(K,) bool: which of those that were missed were the other end of a car that is now seen as one. Of the two
    numbers the car keeps the older one."""
    one_car = known.size[:, 0] <= CAR_LENGTH
    cars = np.flatnonzero((known.misses == 0) & (known.size[:, 1] >= VEHICLE_WIDTH) & one_car)
    rows, columns = _within(known.take(cars), known.take(missed))
    twins = np.zeros(len(known), dtype=bool)
    for car, twin in zip(cars[rows], missed[columns], strict=True):
        if twins[twin]:
            continue
        twins[twin] = True
        if 0 < known.id[twin] and not 0 < known.id[car] < known.id[twin]:
            for name in ("id", "first_ns", "hits"):
                values = getattr(known, name)
                values[car] = values[twin]
    return twins


def _is_part(newcomers: _States, known: _States) -> np.ndarray:
    """(K,) bool: which are a fragment of an object that is followed."""
    _, columns = _within(known.take(known.misses == 0), newcomers)
    part = np.zeros(len(newcomers), dtype=bool)
    part[columns] = True
    return part


def _within(boxes: _States, others: _States) -> tuple[np.ndarray, np.ndarray]:
    """Rows of both where the other's centre is in the box and both move alike."""
    rows, columns = _near(boxes.centre, boxes.size, others.centre, others.size, reach=0.0)
    apart = np.linalg.norm(others.velocity[columns] - boxes.velocity[rows], axis=1)
    alike = apart <= _SPEED_MARGIN + _SPEED_SHARE * boxes.speed[rows]
    rows, columns = rows[alike], columns[alike]
    offset, boxes, others = others.centre[columns] - boxes.centre[rows], boxes.take(rows), others.take(columns)
    inside = np.minimum(_outside(offset, boxes), _beyond_car(offset, boxes, others)) == 0
    return rows[inside], columns[inside]


def _near(
    centre: np.ndarray, size: np.ndarray, other_centre: np.ndarray, other_size: np.ndarray, reach: float
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of both where one's centre may be within `reach` metres of the other's box, however that is turned."""
    from scipy.spatial import cKDTree

    if len(centre) == 0 or len(other_centre) == 0:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    trees = cKDTree(centre[:, :2]), cKDTree(other_centre[:, :2])
    around, other_around = (np.maximum(np.hypot(*each[:, :2].T) / 2, CAR_LENGTH) + reach for each in (size, other_size))
    columns, rows = _pairs(trees[0].query_ball_point(other_centre[:, :2], other_around))
    more_rows, more_columns = _pairs(trees[1].query_ball_point(centre[:, :2], around))
    both = np.column_stack([np.append(rows, more_rows), np.append(columns, more_columns)])
    return tuple(np.unique(both, axis=0).T)


def _pairs(neighbours: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lists of neighbours (K,), as a row and a column for each of them."""
    columns = np.array([column for listed in neighbours for column in listed], dtype=np.int64)
    return np.repeat(np.arange(len(neighbours)), [len(listed) for listed in neighbours]), columns


def _outside(offset: np.ndarray, boxes: _States) -> np.ndarray:
    """Metres (K,) that a point at `offset` (K,3) from a box's centre lies outside of it, seen from above."""
    return _clear_of(offset, boxes, boxes.size[:, 0] / 2)


def _beyond_car(offset: np.ndarray, boxes: _States, others: _States) -> np.ndarray:
    """Metres (K,) by which another box's centre, at `offset` (K,3), is too far away for both to be parts of one car;
    inf where neither is as wide as a vehicle."""
    reach = CAR_LENGTH - (boxes.size[:, 0] + others.size[:, 0]) / 2
    wide = np.maximum(boxes.size[:, 1], others.size[:, 1]) >= VEHICLE_WIDTH
    return np.where(wide & (reach > 0), _clear_of(offset, boxes, reach), np.inf)


def _clear_of(offset: np.ndarray, boxes: _States, reach: np.ndarray) -> np.ndarray:
    """Metres (K,) that `offset` (K,3) leads out of a strip as wide as the box and `reach` (K,) long either way."""
    beyond = np.abs(_in_box(offset, boxes.yaw)) - np.column_stack([reach, boxes.size[:, 1] / 2])
    return np.hypot(*np.maximum(beyond, 0.0).T)


def _in_box(offset: np.ndarray, yaw: np.ndarray) -> np.ndarray:
    """World vectors (K,3) along and across (K,2) directions `yaw` (K,)."""
    cosine, sine = np.cos(yaw), np.sin(yaw)
    return np.column_stack([cosine * offset[:, 0] + sine * offset[:, 1], cosine * offset[:, 1] - sine * offset[:, 0]])


def _hidden_half(seen_from: np.ndarray, yaw: np.ndarray, size: np.ndarray, smooth_size: np.ndarray) -> np.ndarray:
    """How far (K,3) a box's centre moves when it becomes `smooth_size` but its sides towards the viewer stay.

    seen_from: (K,3) from the viewer to the centre
    """
    sight = _in_box(seen_from, yaw)
    away = np.clip(sight / np.maximum(size[:, :2] / 2, 0.1), -1.0, 1.0)
    along, across = (away * (smooth_size - size)[:, :2] / 2).T
    cosine, sine = np.cos(yaw), np.sin(yaw)
    return np.column_stack([cosine * along - sine * across, sine * along + cosine * across, np.zeros(len(yaw))])


def _rows(vectors) -> np.ndarray:
    return np.array(list(vectors), dtype=np.float64).reshape(-1, 3)


def _blend(old: np.ndarray, new: np.ndarray, seconds: np.ndarray, smoothed_over: float | np.ndarray) -> np.ndarray:
    """Vectors (K,3), of which the old ones are `seconds` (K,) old."""
    return old + _share(seconds[:, None], smoothed_over) * (new - old)


def _share(seconds: np.ndarray, smoothed_over: float | np.ndarray) -> np.ndarray:
    """Of the new value in a blend with one that is `seconds` old."""
    return 1.0 - np.exp(-seconds / smoothed_over)


def _wrapped(angle: np.ndarray) -> np.ndarray:
    """The same angle in [−π, π)."""
    return (angle + np.pi) % (2 * np.pi) - np.pi
