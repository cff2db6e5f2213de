"""The frames of a bag's clouds: placed as the import of recordings places them, each with its flow towards a later one.

Nothing is written, and no more than a few clouds are in memory at a time.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from zeroflow_core.datasets.bags.bag import Bag
from zeroflow_core.datasets.recording.deskewing import deskewed
from zeroflow_core.datasets.recording.source import Source, find_source
from zeroflow_core.datasets.recording.stream import Stream, Usable
from zeroflow_core.ego_motion import LONGEST_GAP_NS, KissOdometry
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.evaluation.methods import Method
from zeroflow_core.geometry import SE3
from zeroflow_core.ground import mark_ground
from zeroflow_core.pairs import Sweep, make_pair
from zeroflow_core.playback.frames import Frame

_INTERVAL_NS = 100_000_000  # between the clouds of a pair, as students know it
_ENOUGH_NS = 75_000_000  # that long is near enough: the next cloud would be farther from it
_FAR = 30  # clouds: at any usual rate more than a second, after which nothing is followed any more
_RUN_UP = 5  # clouds before the first one wanted, for KISS-ICP to find out how fast the vehicle is

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Located:
    """
    index: of the cloud among those of its topic
    sweep: in the vehicle frame, with a pose
    vehicle_SE3_cloud: from the frame that the cloud came in
    """

    index: int
    sweep: Sweep
    vehicle_SE3_cloud: SE3


class BagClouds:
    """The clouds of one topic as sweeps with poses.

    path:   of the bag
    topic, odometry, deskew, height: as import_bag takes them
    source: how its clouds become sweeps
    """

    def __init__(
        self, path: Path, topic: str | None, odometry: str | None, *, deskew: str = "auto", height: float | None = None
    ) -> None:
        self.path = path
        with Bag(path) as bag:
            self.source: Source = find_source(bag, topic, odometry, "auto", deskew, height)
        self.name = f"bag {path.resolve().name}"

    @property
    def count(self) -> int:
        return self.source.recording.bag_clouds

    def runs(self, indices: Sequence[int]) -> Iterator[tuple[list[int], Iterator[Located]]]:
        """The indices, which ascend, where they are far apart in runs; for each run the clouds from its first index on,
        as far as they can be used. What lies between runs is not decoded. KISS-ICP has a world for each run.
        """
        recording = self.source.recording
        with Bag(self.path) as bag:
            stream = Stream(bag, self.source, lambda done, total: None)
            for run in _split(indices):
                kiss = KissOdometry(deskew=recording.deskewed) if recording.ego_motion == "kiss_icp" else None
                begin = max(run[0] - _RUN_UP, 0) if kiss else run[0]
                if stream.next is not None and stream.next.message < begin:
                    stream.skip(replace(recording, messages=(0, begin)))
                placed = _placed(stream, kiss, recording.deskewed)
                yield run, (one for one in placed if one.index >= run[0])
            if stream.left_out:
                reasons = ", ".join(f"{count} {reason}" for reason, count in stream.left_out.items())
                _log.warning("%s in the bag %s: clouds left out: %s", recording.topic, self.path, reasons)


class BagFrames:
    """One frame a cloud that has a later one about a tenth of a second away."""

    def __init__(self, clouds: BagClouds, method: Method) -> None:
        self.name, self.method = clouds.name, method.name
        self._clouds, self._estimator = clouds, method
        self._rule = method.ground_rule(None)
        if clouds.count < 2:
            raise ZeroFlowError(f"the bag {clouds.path} has one cloud; flow needs two")

    def __len__(self) -> int:
        return self._clouds.count - 1

    def read(self, indices: Sequence[int]) -> Iterator[Frame]:
        for run, clouds in self._clouds.runs(indices):
            marked = (replace(one, sweep=mark_ground(one.sweep, self._rule)) for one in clouds)
            for one, partner in _with_partners(marked):
                if one.index in run:
                    flow = self._estimator.flow(None, one.index, make_pair(one.sweep, partner.sweep))
                    yield Frame(one.index, one.sweep, flow.velocity)
                if one.index >= run[-1]:
                    break


def _split(indices: Sequence[int]) -> list[list[int]]:
    runs: list[list[int]] = []
    for index in indices:
        if not runs or index - runs[-1][-1] > _FAR:
            runs.append([])
        runs[-1].append(index)
    return runs


def _placed(stream: Stream, kiss: KissOdometry | None, is_skewed: bool) -> Iterator[Located]:
    located = _located(stream, kiss)
    for usable, sweep in deskewed(located) if is_skewed else located:
        yield Located(usable.message, sweep, usable.vehicle_SE3_cloud)


def _located(stream: Stream, kiss: KissOdometry | None) -> Iterator[tuple[Usable, Sweep]]:
    while stream.next is not None:
        usable = stream.take()
        sweep = usable.sweep
        yield usable, sweep if kiss is None else replace(sweep, world_SE3_ego=kiss.register(sweep))


def _with_partners(clouds: Iterator[Located]) -> Iterator[tuple[Located, Located]]:
    """Each with the later one that is nearest to a tenth of a second away; those with none within a second are left
    out."""
    waiting: deque[Located] = deque()
    for newest in clouds:
        if waiting and not 0 < newest.sweep.stamp_ns - waiting[-1].sweep.stamp_ns <= LONGEST_GAP_NS:
            waiting.clear()
        waiting.append(newest)
        while len(waiting) > 1 and newest.sweep.stamp_ns - waiting[0].sweep.stamp_ns >= _ENOUGH_NS:
            first = waiting.popleft()
            yield first, min(waiting, key=lambda other: abs(_apart(first, other) - _INTERVAL_NS))
    while len(waiting) > 1:
        first = waiting.popleft()
        yield first, waiting[-1]


def _apart(first: Located, other: Located) -> int:
    return other.sweep.stamp_ns - first.sweep.stamp_ns
