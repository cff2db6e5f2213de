"""Moments from frames: with the moving objects followed, as the live node follows them, and where all have been."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from zeroflow_core.ego_motion import LONGEST_GAP_NS
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.moments import Moment, Trails
from zeroflow_core.objects import MovingObject, moving_objects
from zeroflow_core.playback.frames import Frame, Frames
from zeroflow_core.tracking import KEPT_SPEED, Tracker

_PAST = 10  # sweeps that lead up to a picture
_CONFIRMATIONS = 3  # sweeps that show an object before it is one, as the node's parameter has it


class Playback:
    """What a source has to show.

    name:      the source, in a few words; method: where its velocities are from, in a line
    min_speed: m/s over ground from which points count as moving
    """

    def __init__(self, frames: Frames, *, min_speed: float = 0.5) -> None:
        self.name, self.method, self.min_speed = frames.name, frames.method, min_speed
        self._frames = frames

    def __len__(self) -> int:
        """How many moments there are; of a bag at most: clouds that cannot be used give none."""
        return len(self._frames)

    def moments(self, indices: Sequence[int] | None = None, *, lead_in: int = _CONFIRMATIONS - 1) -> Iterator[Moment]:
        """The moments of these sweeps, as they are read and estimated.

        indices: ascending, from 0 to len − 1; None: all
        lead_in: sweeps before the first one that are looked at as well, so that what moves is known by then and has a
                 trail

        Raises:
            ZeroFlowError: what is read turns out damaged, or cannot be estimated.
            ValueError: indices that are out of range or do not ascend.
        """
        wanted = list(range(len(self)) if indices is None else indices)
        if any(b <= a for a, b in zip([-1, *wanted], [*wanted, len(self)], strict=True)):
            raise ValueError(f"indices must ascend from 0 to below {len(self)}, got {wanted}")
        if not wanted:
            return
        before = range(max(wanted[0] - lead_in, 0), wanted[0])
        eye = _Eye(self.min_speed)
        for frame in self._frames.read([*before, *wanted]):
            moment = eye.see(frame)
            if frame.index >= wanted[0]:
                yield moment

    def liveliest(self, sample: int = 8) -> int:
        """The index, of that many spread over the source, at which most of the points move. The first ones, at which
        nothing has come from anywhere yet, are left out where there are others.

        Raises:
            ZeroFlowError: none of those can be used.
        """
        first = min(_PAST, (len(self) - 1) // 2)
        spread = np.unique(np.linspace(first, len(self) - 1, min(sample, len(self) - first)).round().astype(int))
        best = max(self._frames.read([int(i) for i in spread]), key=self._moving, default=None)
        if best is None:
            raise ZeroFlowError(f"none of the {len(spread)} sweeps of {self.name} that were looked at can be used")
        return best.index

    def _moving(self, frame: Frame) -> int:
        with np.errstate(invalid="ignore"):
            return int((np.einsum("ij,ij->i", frame.velocity, frame.velocity) >= self.min_speed**2).sum())


class _Eye:
    """Follows what moves from frame to frame."""

    def __init__(self, min_speed: float) -> None:
        self._min_speed = min_speed
        self._tracker, self._trails, self._seen = Tracker(), Trails(), 0
        self._last_ns: int | None = None

    def see(self, frame: Frame) -> Moment:
        sweep = frame.sweep
        if self._last_ns is not None and not 0 < sweep.stamp_ns - self._last_ns <= LONGEST_GAP_NS:
            self._tracker, self._trails, self._seen = Tracker(), Trails(), 0  # poses may be in another world now
        self._last_ns, self._seen = sweep.stamp_ns, self._seen + 1
        tracks = self._tracker.update(
            moving_objects(sweep.points, frame.velocity, min_speed=KEPT_SPEED * self._min_speed),
            sweep.stamp_ns,
            sweep.world_SE3_ego,
            min_speed=self._min_speed,
            confirmations=min(self._seen, _CONFIRMATIONS),  # the first ones have their objects at once
        )
        ego_path, paths = self._trails.update(sweep.stamp_ns, sweep.world_SE3_ego, tracks)
        return Moment(
            stamp_ns=sweep.stamp_ns,
            points=sweep.points,
            velocity=frame.velocity,
            tracks=tracks,
            truth=frame.truth,
            true_objects=self._true_objects(frame),
            world_SE3_vehicle=sweep.world_SE3_ego,
            ego_path=ego_path,
            paths=paths,
        )

    def _true_objects(self, frame: Frame) -> list[MovingObject]:
        if frame.truth is None:
            return []
        return moving_objects(frame.sweep.points, frame.truth, min_speed=self._min_speed)
