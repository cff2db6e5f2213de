"""From a bag to logs on disk."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain, count
from pathlib import Path

import numpy as np

from zeroflow_core.datasets.av2_writer import new_log
from zeroflow_core.datasets.bags.bag import Bag, DamagedBag
from zeroflow_core.datasets.recording.deskewing import deskewed
from zeroflow_core.datasets.recording.settings import EGO_MOTIONS, read_recording, write_recording
from zeroflow_core.datasets.recording.source import Source, find_source
from zeroflow_core.datasets.recording.stream import Stream, Usable
from zeroflow_core.ego_motion import DESKEWS, LONGEST_GAP_NS, KissOdometry
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.files import remove_leftovers
from zeroflow_core.pairs import Sweep

_SENSORS = ("up_lidar", "down_lidar")  # the one there is under both names that AV2's tools ask for
_MOST_SWEEPS = 600  # of a log: what an interruption may cost

_log = logging.getLogger(__name__)


def import_bag(
    bag: Path,
    folder: Path,
    *,
    topic: str | None = None,
    odometry: str | None = None,
    ego_motion: str = "auto",
    deskew: str = "auto",
    height: float | None = None,
    on_sweep: Callable[[int, int], None] = lambda done, total: None,
) -> list[Path]:
    """Write the clouds of a bag as logs ``folder/<bag's name>_<first stamp>/``, and return them in that order.

    Points are in the vehicle frame in float32, without those that a driver gives where the scanner saw nothing (not
    finite, or all zeros); poses are the vehicle's. A log ends where stamps are more than a second apart or go back,
    and after 600 sweeps. Clouds that cannot be decoded, hold no point, have no pose or the stamp of the one before
    are left out, and a warning counts them. Logs that are there already are kept, so that an import that was
    interrupted goes on. No more than a few clouds are in memory at a time.

    topic:      needed where the bag has several PointCloud2 topics
    odometry:   needed where it has several nav_msgs/Odometry topics
    ego_motion: odometry, tf, kiss_icp (estimated from the clouds, anew for each log), or auto: the first of these
                that is there for most of the bag
    deskew:     whether the vehicle's motion during each sweep is taken out of it, by its points' times: always, never
                (the driver has done it), or auto: where the ego motion is KISS-ICP's, as the node does
    height:     metres of the clouds' frame above the ground; None: estimated
    on_sweep:   called with the number of clouds that are read, and of all

    Raises:
        ZeroFlowError: no bag, no such topic, no usable clouds, no ego motion of the kind asked for, no ground to be
            found, other settings than those of logs that are there, or a folder that cannot be written. Logs that
            are complete by then stay, but for those of a damaged bag.
    """
    check_asked_for(ego_motion, height, deskew)
    with Bag(bag) as opened:
        source = find_source(opened, topic, odometry, ego_motion, deskew, height)
        return _Import(opened, Path(folder), source, on_sweep).run()


def check_asked_for(ego_motion: str, height: float | None, deskew: str) -> None:
    """
    Raises:
        ZeroFlowError: import_bag knows no such ego motion or deskewing, or a height that can't be.
    """
    for name, value, choices in (("ego motion", ego_motion, EGO_MOTIONS), ("deskew", deskew, DESKEWS)):
        if value not in choices:
            raise ZeroFlowError(f"{name} '{value}' is unknown; choose one of: {', '.join(choices)}")
    if height is not None and not 0 < height < 100:
        raise ZeroFlowError(f"a height of {height} m above the ground cannot be; give metres, such as 1.8")


class _Import:
    """Log after log of one bag."""

    def __init__(self, bag: Bag, folder: Path, source: Source, on_sweep: Callable[[int, int], None]) -> None:
        self._folder, self._source = folder, source
        self._bag = bag.path
        self._name = bag.path.resolve().name if bag.path.is_dir() else bag.path.stem
        self._stream = Stream(bag, source, on_sweep)
        self._logs: list[Path] = []
        self._written: list[Path] = []

    def run(self) -> list[Path]:
        try:
            while self._stream.next is not None:
                self._one_log()
        except DamagedBag:
            for path in self._written:
                shutil.rmtree(path, ignore_errors=True)
            raise
        self._tell()
        return self._logs

    def _one_log(self) -> None:
        path = self._path(self._stream.next.sweep.stamp_ns)
        kept = read_recording(path)
        if kept is not None:
            differences = kept.differences(self._source.recording)
            if differences:
                raise ZeroFlowError(
                    f"{path} was imported otherwise ({'; '.join(differences)}); remove it, or choose another folder"
                )
            self._stream.skip(kept)
            self._logs.append(path)
            return
        first = self._stream.take()
        if not self._goes_on(first, sweeps=1):
            self._stream.left_out["had no other within a second"] += 1
            return
        remove_leftovers(path)
        self._write(path, first)
        self._logs.append(path)
        self._written.append(path)

    def _path(self, stamp_ns: int) -> Path:
        """Of a log with that first stamp; clocks that are set back may come to the same stamp again."""
        first = self._folder / f"{self._name}_{stamp_ns}"
        further = (first.with_name(f"{first.name}_{k}") for k in count(2))
        return next(path for path in chain([first], further) if path not in self._logs)

    def _goes_on(self, last: Usable, sweeps: int) -> bool:
        following = self._stream.next
        if following is None or sweeps == _MOST_SWEEPS:
            return False
        return 0 < following.sweep.stamp_ns - last.sweep.stamp_ns <= LONGEST_GAP_NS

    def _write(self, path: Path, first: Usable) -> None:
        recording, stamps, end = self._source.recording, [], 0
        with new_log(path, np.float32) as log:
            log.add_calibration({name: first.vehicle_SE3_cloud for name in _SENSORS})
            located = self._located(first)
            for usable, sweep in deskewed(located) if recording.deskewed else located:
                log.add_sweep(sweep)
                stamps.append(sweep.stamp_ns)
                end = usable.message + 1
            of_this = {"sweeps": len(stamps), "messages": (first.message, end), "last_stamp_ns": stamps[-1]}
            interval_s = round(float(np.median(np.diff(stamps))) * 1e-9, 6)
            write_recording(log.folder, replace(recording, interval_s=interval_s, **of_this))

    def _located(self, first: Usable) -> Iterator[tuple[Usable, Sweep]]:
        """The sweeps of one log, with poses."""
        recording = self._source.recording
        kiss = KissOdometry(deskew=recording.deskewed) if recording.ego_motion == "kiss_icp" else None
        current, sweeps = first, 1
        while True:
            sweep = current.sweep
            yield current, sweep if kiss is None else replace(sweep, world_SE3_ego=kiss.register(sweep))
            if not self._goes_on(current, sweeps):
                return
            current, sweeps = self._stream.take(), sweeps + 1

    def _tell(self) -> None:
        left_out, error = self._stream.left_out, self._stream.first_error
        where = f"{self._source.recording.topic} in the bag {self._bag}"
        reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        reasons += f" (the first: {error})" if error else ""
        total = self._source.recording.bag_clouds
        if not self._logs:
            raise ZeroFlowError(
                f"{where} has no two usable clouds within a second, and flow needs two; of {total}: {reasons}"
            )
        if left_out:
            _log.warning("%s: left out %d of %d clouds: %s", where, left_out.total(), total, reasons)
