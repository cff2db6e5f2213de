"""Recordings as logs: a rosbag2 in, folders in AV2's layout out, which every other command then reads.

``clouds of a topic → where the vehicle was → its vehicle frame → logs of at most a minute or so``

The vehicle frame is the one that odometry or transforms move, where the bag says how it and the clouds' frame lie to
each other, else the clouds' own; raised or lowered so that the ground lies where Argoverse 2's does.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np

from zeroflow_core.datasets.av2_writer import new_log
from zeroflow_core.datasets.bags.bag import Bag, DamagedBag
from zeroflow_core.datasets.bags.bag import find_bags as find_bags
from zeroflow_core.datasets.bags.clouds import RecordedCloud, read_cloud
from zeroflow_core.datasets.bags.messages import ODOMETRY
from zeroflow_core.datasets.bags.poses import BagPoses, odometry_poses, tf_poses
from zeroflow_core.datasets.bags.transforms import TransformTree, read_transforms
from zeroflow_core.datasets.point_cloud2 import CloudError
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.files import remove_leftovers
from zeroflow_core.geometry import SE3
from zeroflow_core.ground import estimate_ground_z
from zeroflow_core.pairs import Sweep

EGO_MOTIONS = ("auto", "odometry", "tf", "kiss_icp")

_RECORDING = "recording.json"
_LONGEST_GAP_NS = 10**9  # between two sweeps of one log
_MOST_SWEEPS = 600  # of a log: what an interruption may cost
_SAMPLES = 20  # clouds, spread over a bag, that tell how high its scanner is and which poses it has
_Z_TOLERANCE = 0.05  # metres; the ground is not known any better

GROUND_Z = -0.33


def ground_z_of(sweeps):
    found = [z for z in (estimate_ground_z(sweep.points) for sweep in sweeps) if z is not None]
    return float(np.median(found)) if found else None


_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recording:
    """What a log was imported from and how; in its recording.json.

    bag, topic, frame_id: where the clouds were, and the frame that they were in
    vehicle_frame: the frame of the log's points, but for z_offset
    world_frame:   the fixed frame of its poses, "" where they are KISS-ICP's
    ego_motion:    odometry, tf or kiss_icp; odometry: the topic of the first, else None
    deskewed:      the vehicle's motion during a sweep was taken out of it here
    height:        as it was given: metres from frame_id down to the ground; None: it was estimated
    ground_z:      metres, of the ground in vehicle_frame
    z_offset:      metres that were added to z; what the node's parameter of this name must be
    sweeps:        of this log; interval_s: the usual time between two
    messages:      first message of the topic that this log was made of, and the one behind its last
    last_stamp_ns: of its last sweep
    bag_start_ns, bag_clouds: tell the bag from another one of the same name
    """

    bag: str
    topic: str
    frame_id: str
    vehicle_frame: str
    world_frame: str
    ego_motion: str
    odometry: str | None
    deskewed: bool
    height: float | None
    ground_z: float
    z_offset: float
    bag_start_ns: int
    bag_clouds: int
    sweeps: int = 0
    interval_s: float = 0.0
    messages: tuple[int, int] = (0, 0)
    last_stamp_ns: int = 0


_OF_ONE_LOG = ("bag", "sweeps", "interval_s", "messages", "last_stamp_ns")


def read_recording(log: Path) -> Recording | None:
    """What the log at `log` was imported from; None where it is of another kind.

    Raises:
        ZeroFlowError: its recording.json cannot be understood.
    """
    path = Path(log) / _RECORDING
    try:
        stored = json.loads(path.read_text())
        return Recording(**{**stored, "messages": tuple(stored["messages"])})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ZeroFlowError(f"{path} is damaged ({error}); remove {log} and import the bag again") from error


def import_bag(
    bag: Path,
    folder: Path,
    *,
    topic: str | None = None,
    odometry: str | None = None,
    ego_motion: str = "auto",
    deskew: bool = False,
    height: float | None = None,
    on_sweep: Callable[[int, int], None] = lambda done, total: None,
) -> list[Path]:
    """Write the clouds of a bag as logs ``folder/<bag's name>_<first stamp>/``, and return them in that order.

    Points are in the vehicle frame (see above) in float32, without those that a scanner gives where it saw nothing
    (not finite, or all zeros); poses are those of the vehicle. A log ends where stamps are more than a second apart
    or go back, and after 600 sweeps. Clouds that cannot be decoded, hold no point, have no pose or the stamp of the
    one before are left out, and a warning counts them. Logs that are complete are kept, so that an import that was
    interrupted goes on; one at a time is in memory of the bag's clouds, and two where they are deskewed.

    topic:      needed where the bag has several PointCloud2 topics
    odometry:   needed where it has several nav_msgs/Odometry topics
    ego_motion: odometry, tf, kiss_icp (estimated from the clouds, anew for each log), or auto: the first of these
                that is there for most of the bag
    deskew:     take out the vehicle's motion during each sweep, by the points' times; for clouds of drivers that
                did not do so already
    height:     metres of the clouds' frame above the ground; None: estimated
    on_sweep:   called with the number of clouds that are done, and of all

    Raises:
        ZeroFlowError: no bag, no such topic, no usable clouds, no ego motion of the kind asked for, no ground to
            be found, other settings than those of logs that are there, or a folder that cannot be written. Logs
            that were complete before a disk was full stay; of a damaged bag nothing stays.
    """
    if ego_motion not in EGO_MOTIONS:
        raise ZeroFlowError(f"ego motion '{ego_motion}' is unknown; choose one of: {', '.join(EGO_MOTIONS)}")
    if height is not None and not 0 < height < 100:
        raise ZeroFlowError(f"a height of {height} m above the ground cannot be; give metres, such as 1.8")
    with Bag(bag) as opened:
        topic = opened.cloud_topic(topic)
        if odometry is not None and ego_motion == "auto":
            ego_motion = "odometry"
        odometry = opened.only_topic(ODOMETRY, odometry, "odometry") if ego_motion in ("auto", "odometry") else None
        source = _Source.of(opened, topic, odometry, ego_motion, deskew, height)
        return _Import(opened, folder, source, on_sweep).run()


@dataclass(frozen=True)
class _Source:
    """How the clouds of a bag become sweeps with poses.

    poses: what the bag says, or None: KISS-ICP says
    """

    recording: Recording
    tree: TransformTree
    poses: BagPoses | None

    @staticmethod
    def of(
        bag: Bag, topic: str, odometry: str | None, ego_motion: str, deskew: bool, height: float | None
    ) -> _Source:
        """What is true of the whole bag, from clouds here and there in it."""
        samples = _samples(bag, topic)
        tree = read_transforms(bag)
        poses = _choose_poses(bag, samples, tree, odometry, ego_motion)
        frame = samples[0].frame
        recording = Recording(
            bag=str(bag.path.resolve()),
            topic=topic,
            frame_id=frame,
            vehicle_frame=(poses.base or frame) if poses else tree.rigid_base(frame),
            world_frame=poses.world if poses else "",
            ego_motion=poses.source if poses else "kiss_icp",
            odometry=odometry if poses and poses.source == "odometry" else None,
            deskewed=deskew,
            height=height,
            ground_z=0.0,
            z_offset=0.0,
            bag_start_ns=bag.start_ns,
            bag_clouds=bag.count(topic),
        )
        source = _Source(recording, tree, poses)
        ground_z = source._ground_z(samples, bag.path)
        z_offset = GROUND_Z - ground_z if abs(GROUND_Z - ground_z) > _Z_TOLERANCE else 0.0
        return replace(source, recording=replace(recording, ground_z=ground_z, z_offset=z_offset))

    def _ground_z(self, samples: list[RecordedCloud], bag: Path) -> float:
        height = self.recording.height
        if height is not None:
            mounts = (self.mount(sample) for sample in samples)
            below = [mount.transform(np.array([[0.0, 0.0, -height]]))[0, 2] for mount in mounts if mount is not None]
            return round(float(np.median(below)), 3)
        sweeps = (self.sweep(sample) for sample in samples)
        ground_z = ground_z_of(sweep for sweep in sweeps if sweep is not None)
        if ground_z is None:
            raise ZeroFlowError(
                f"the ground cannot be found in the clouds of {self.recording.topic} in the bag {bag}; give the "
                "scanner's height above it in metres (--height)"
            )
        return round(ground_z, 3)

    def mount(self, recorded: RecordedCloud) -> SE3 | None:
        """vehicle_SE3_cloud without z_offset; None where it is not known at that stamp."""
        if self.poses is not None:
            return self.poses.mount(recorded.frame, recorded.stamp_ns)
        return self.tree.lookup(self.recording.vehicle_frame, recorded.frame, recorded.stamp_ns)

    def vehicle_SE3_cloud(self, recorded: RecordedCloud) -> SE3 | None:
        mount = self.mount(recorded)
        return None if mount is None else self._raised @ mount

    @property
    def _raised(self) -> SE3:
        return SE3(np.eye(3), np.array([0.0, 0.0, self.recording.z_offset]))

    def sweep(self, recorded: RecordedCloud) -> Sweep | None:
        """The points that were seen, in the vehicle frame, with the vehicle's pose where the bag says it.

        None where it should and does not.
        """
        vehicle_SE3_cloud = self.vehicle_SE3_cloud(recorded)
        pose = None
        if self.poses is not None:
            pose = self.poses.pose(recorded.stamp_ns)
        if vehicle_SE3_cloud is None or (pose is None and self.poses is not None):
            return None
        points = recorded.cloud.points
        # Drivers mark directions without a return by NaN or by zeros.
        seen = np.isfinite(points).all(axis=1) & points.any(axis=1)

        def of_seen(values: np.ndarray | None) -> np.ndarray | None:
            return None if values is None else values[seen]

        return Sweep(
            vehicle_SE3_cloud.transform(points[seen]),
            recorded.stamp_ns,
            None if pose is None else pose @ self._raised.inverse(),
            of_seen(recorded.cloud.intensity),
            of_seen(recorded.cloud.ring),
            of_seen(recorded.cloud.time_offset_ns),
        )


def _samples(bag: Bag, topic: str) -> list[RecordedCloud]:
    """Some clouds, from the beginning to the end; at least one."""
    if bag.count(topic) == 0:
        raise ZeroFlowError(f"the bag {bag.path} has no message in {topic}; record it again, with clouds in it")
    starts = [bag.start_ns + bag.duration_ns * k // _SAMPLES for k in range(_SAMPLES)]
    found: dict[int, RecordedCloud] = {}
    for start_ns in starts:
        for time_ns, _, cdr in bag.messages([topic], start_ns):
            if time_ns not in found:
                try:
                    found[time_ns] = read_cloud(bag, topic, time_ns, cdr)
                except (CloudError, DamagedBag):
                    pass
            break
    return list(found.values()) or [_first_usable(bag, topic)]


def _first_usable(bag: Bag, topic: str) -> RecordedCloud:
    first: ZeroFlowError | None = None
    for time_ns, _, cdr in bag.messages([topic]):
        try:
            return read_cloud(bag, topic, time_ns, cdr)
        except (CloudError, DamagedBag) as error:
            first = first or error
    if first is not None:
        raise ZeroFlowError(f"none of the clouds in {topic} of the bag {bag.path} can be used; the first: {first}")
    raise DamagedBag(
        f"the bag {bag.path} says that it has {bag.count(topic)} messages in {topic}, but its files have none; run "
        "`ros2 bag reindex` on it"
    )


def _choose_poses(
    bag: Bag, samples: list[RecordedCloud], tree: TransformTree, odometry: str | None, ego_motion: str
) -> BagPoses | None:
    """Of the kind asked for; with `auto` the first that knows most of the samples, None (KISS-ICP) if none does."""
    if ego_motion == "kiss_icp":
        return None
    frame = samples[0].frame
    known = {}
    for kind in ("odometry", "tf"):
        if ego_motion not in ("auto", kind):
            continue
        if kind == "tf":
            poses = tf_poses(tree, frame)
        else:
            poses = None if odometry is None else odometry_poses(bag, odometry, tree)
        if poses is None:
            continue
        located = [s for s in samples if poses.pose(s.stamp_ns) and poses.mount(s.frame, s.stamp_ns)]
        known[kind] = f"{len(located)} of {len(samples)}"
        if 2 * len(located) >= len(samples) or (located and ego_motion == kind):
            return poses
        if ego_motion == "auto":
            _log.warning(
                "%s: %s tells where the clouds were taken in %s samples: it is not used", bag.path, kind, known[kind]
            )
    if ego_motion == "auto":
        return None
    what = "nav_msgs/Odometry topic" if ego_motion == "odometry" else f"/tf that moves '{frame}' in a fixed frame"
    if ego_motion in known:
        raise ZeroFlowError(
            f"the bag {bag.path} does not tell by {ego_motion} where its clouds in '{frame}' were taken: the stamps do "
            "not match, or no transform joins the frames; take the ego motion from elsewhere, such as kiss_icp"
        )
    raise ZeroFlowError(f"the bag {bag.path} has no {what}; take the ego motion from elsewhere, such as kiss_icp")


@dataclass(frozen=True)
class _Usable:
    """A sweep with the number of its message in the topic, and how its scanner is mounted."""

    message: int
    sweep: Sweep
    recorded: RecordedCloud


class _Stream:
    """The usable clouds of a bag, one after the other, with the next one in sight."""

    def __init__(self, bag: Bag, source: _Source, on_sweep: Callable[[int, int], None]) -> None:
        self._bag, self._source, self._on_sweep = bag, source, on_sweep
        self._messages = enumerate(bag.messages([source.recording.topic]))
        self._last_stamp_ns: int | None = None
        self.left_out: Counter[str] = Counter()
        self.first_error: ZeroFlowError | None = None
        self.next = self._read(0)

    def take(self) -> _Usable:
        taken = self.next
        self._last_stamp_ns = taken.sweep.stamp_ns
        self.next = self._read(0)
        return taken

    def skip(self, recording: Recording) -> None:
        """Step over what a log was made of."""
        self._last_stamp_ns = recording.last_stamp_ns
        self.next = self._read(recording.messages[1])

    def _read(self, first: int) -> _Usable | None:
        """The next one from message number `first` on."""
        for number, (time_ns, topic, cdr) in self._messages:
            self._on_sweep(number + 1, self._source.recording.bag_clouds)
            if number < first:
                continue
            usable = self._usable(number, time_ns, topic, cdr)
            if usable is not None:
                return usable
        return None

    def _usable(self, number: int, time_ns: int, topic: str, cdr: bytes) -> _Usable | None:
        try:
            recorded = read_cloud(self._bag, topic, time_ns, cdr)
        except (CloudError, DamagedBag) as error:
            self.first_error = self.first_error or error
            self.left_out["could not be decoded"] += 1
            return None
        if recorded.stamp_ns == self._last_stamp_ns:
            self.left_out["had the stamp of the one before"] += 1
            return None
        sweep = self._source.sweep(recorded)
        if sweep is None:
            self.left_out["had no pose"] += 1
            return None
        if len(sweep) == 0:
            self.left_out["held no point"] += 1
            return None
        return _Usable(number, sweep, recorded)


class _Import:
    """One run of import_bag: log after log."""

    def __init__(self, bag: Bag, folder: Path, source: _Source, on_sweep: Callable[[int, int], None]) -> None:
        self._bag, self._folder, self._source = bag, Path(folder), source
        self._stream = _Stream(bag, source, on_sweep)
        self._name = bag.path.resolve().name if bag.path.is_dir() else bag.path.stem
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
        path = self._new_path(self._stream.next.sweep.stamp_ns)
        kept = read_recording(path)
        if kept is not None:
            self._check_same(path, kept)
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

    def _new_path(self, stamp_ns: int) -> Path:
        """Where a log of that first stamp goes; clocks that were set back may lead to the same stamp again."""
        name = f"{self._name}_{stamp_ns}"
        again = sum(log.name.startswith(name) for log in self._logs)
        return self._folder / (f"{name}_{again + 1}" if again else name)

    def _check_same(self, path: Path, kept: Recording) -> None:
        wanted = self._source.recording
        for name in (field.name for field in fields(Recording) if field.name not in _OF_ONE_LOG):
            was, now = getattr(kept, name), getattr(wanted, name)
            if was != now:
                raise ZeroFlowError(
                    f"{path} was imported with {name}: {json.dumps(was)}, where it would be {json.dumps(now)} now; "
                    "remove it, or choose another folder"
                )

    def _goes_on(self, last: _Usable, sweeps: int) -> bool:
        following = self._stream.next
        if following is None or sweeps == _MOST_SWEEPS:
            return False
        return 0 < following.sweep.stamp_ns - last.sweep.stamp_ns <= _LONGEST_GAP_NS

    def _write(self, path: Path, first: _Usable) -> None:
        recording = self._source.recording
        with new_log(path, np.float32) as log:
            mount = self._source.vehicle_SE3_cloud(first.recorded)
            log.add_calibration({first.recorded.frame or "lidar": mount})
            stamps, last = [], first
            for last, sweep in self._located(first):
                log.add_sweep(sweep)
                stamps.append(sweep.stamp_ns)
            recording = replace(
                recording,
                sweeps=len(stamps),
                interval_s=round(float(np.median(np.diff(stamps))) * 1e-9, 6),
                messages=(first.message, last.message + 1),
                last_stamp_ns=stamps[-1],
            )
            (log.folder / _RECORDING).write_text(json.dumps(asdict(recording), indent=2) + "\n")

    def _located(self, first: _Usable) -> Iterator[tuple[_Usable, Sweep]]:
        """The clouds of one log, and as they are stored: with poses, deskewed where that is asked for."""
        if not self._source.recording.deskewed:
            yield from self._with_poses(first)
            return
        before: Sweep | None = None
        current: tuple[_Usable, Sweep] | None = None
        for following in self._with_poses(first):
            if current is not None:
                yield current[0], _deskewed(before, current[1], following[1])
                before = current[1]
            current = following
        yield current[0], _deskewed(before, current[1], None)

    def _with_poses(self, first: _Usable) -> Iterator[tuple[_Usable, Sweep]]:
        from zeroflow_core.ego_motion import KissOdometry

        recording = self._source.recording
        kiss = KissOdometry(deskew=recording.deskewed) if recording.ego_motion == "kiss_icp" else None
        current, count = first, 1
        while True:
            sweep = current.sweep
            yield current, sweep if kiss is None else replace(sweep, world_SE3_ego=kiss.register(sweep))
            if not self._goes_on(current, count):
                return
            current, count = self._stream.take(), count + 1

    def _tell(self) -> None:
        left_out, error = self._stream.left_out, self._stream.first_error
        where = f"{self._source.recording.topic} in the bag {self._bag.path}"
        reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        if not self._logs:
            raise ZeroFlowError(
                f"{where} has no two usable clouds within a second, and flow needs two; of "
                f"{self._source.recording.bag_clouds} {reasons}" + (f" (the first: {error})" if error else "")
            )
        if left_out:
            _log.warning(
                "%s: left out %d of %d clouds: %s%s",
                where,
                left_out.total(),
                self._source.recording.bag_clouds,
                reasons,
                f" (the first: {error})" if error else "",
            )


def _deskewed(before: Sweep | None, sweep: Sweep, after: Sweep | None) -> Sweep:
    """By the motion in the direction of time in which most points were measured, where it is known."""
    from zeroflow_core.ego_motion import deskew as deskewed

    if sweep.time_offset_ns is None:
        return sweep
    other = after if np.median(sweep.time_offset_ns) >= 0 else before
    other = other or after or before
    motion = sweep.world_SE3_ego.inverse() @ other.world_SE3_ego
    return deskewed(sweep, motion, other.stamp_ns - sweep.stamp_ns)
