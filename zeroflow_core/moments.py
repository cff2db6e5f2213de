"""What there is to see at one time, and what led up to it: the same for a log, a bag and the live node's topics."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from zeroflow_core.geometry import SE3
from zeroflow_core.objects import MovingObject
from zeroflow_core.tracking import Track


@dataclass(frozen=True)
class Moment:
    """The scene at the stamp of one sweep. Everything is in that sweep's vehicle frame (x forward, y left, z up).

    stamp_ns:  integer nanoseconds
    points:    (N,3) float32, metres; rows may be NaN
    velocity:  (N,3) float32, m/s over ground, as estimated; NaN where there is no estimate. None: nothing was estimated
    tracks:    the moving objects, as estimated
    truth:     (N,3) float32, m/s over ground by labels, NaN where they say nothing; None where there are none
    true_objects:      the moving objects by those
    world_SE3_vehicle: the vehicle's pose in any fixed frame, or None when unknown
    ego_path:  (K,3) float64, metres: where the vehicle was, oldest first, itself last
    paths:     for each track's id, (K,3) float64, metres: where its centre was, likewise
    """

    stamp_ns: int
    points: np.ndarray
    velocity: np.ndarray | None = None
    tracks: Sequence[Track] = ()
    truth: np.ndarray | None = None
    true_objects: Sequence[MovingObject] = ()
    world_SE3_vehicle: SE3 | None = None
    ego_path: np.ndarray = field(default_factory=lambda: np.zeros((1, 3)))
    paths: Mapping[int, np.ndarray] = field(default_factory=dict)

    @property
    def objects(self) -> list[MovingObject]:
        """Those of `tracks`."""
        return [track.object for track in self.tracks]


class Trails:
    """Remembers where the vehicle and the objects around it have been.

    seconds: for how long. A stamp that goes back, or a pose that is not known, starts over; what comes again with the
        same stamp takes the place of what was there.
    """

    def __init__(self, seconds: float = 3.0) -> None:
        self._nanoseconds = round(seconds * 1e9)
        self._stamps: deque[int] = deque()
        self._ego: deque[np.ndarray] = deque()
        self._objects: deque[dict[int, np.ndarray]] = deque()

    def update(
        self, stamp_ns: int, world_SE3_vehicle: SE3 | None, tracks: Sequence[Track]
    ) -> tuple[np.ndarray, dict[int, np.ndarray]]:
        """Take in what is known at `stamp_ns`; `tracks` are in the vehicle frame.

        Returns `ego_path` and `paths` as a Moment has them.
        """
        if world_SE3_vehicle is None or (self._stamps and stamp_ns < self._stamps[-1]):
            for remembered in (self._stamps, self._ego, self._objects):
                remembered.clear()
        elif self._stamps and stamp_ns == self._stamps[-1]:
            for remembered in (self._stamps, self._ego, self._objects):
                remembered.pop()
        world = SE3.identity() if world_SE3_vehicle is None else world_SE3_vehicle
        self._stamps.append(stamp_ns)
        self._ego.append(world.translation)
        self._objects.append({track.id: world.transform(track.object.centre[None])[0] for track in tracks})
        while stamp_ns - self._stamps[0] > self._nanoseconds:
            self._stamps.popleft()
            self._ego.popleft()
            self._objects.popleft()
        vehicle_SE3_world = world.inverse()
        paths = {
            track.id: vehicle_SE3_world.transform(np.array([c[track.id] for c in self._objects if track.id in c]))
            for track in tracks
        }
        return vehicle_SE3_world.transform(np.array(self._ego)), paths
