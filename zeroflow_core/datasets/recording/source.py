"""How the clouds of a bag become sweeps in a vehicle frame: whose poses, which frame, how high."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np

from zeroflow_core.datasets.bags.bag import Bag, DamagedBag
from zeroflow_core.datasets.bags.clouds import RecordedCloud, read_cloud
from zeroflow_core.datasets.bags.messages import ODOMETRY
from zeroflow_core.datasets.bags.poses import BagPoses, odometry_poses, tf_poses
from zeroflow_core.datasets.bags.transforms import TransformTree, read_transforms
from zeroflow_core.datasets.point_cloud2 import CloudError, is_return
from zeroflow_core.datasets.recording.settings import Recording
from zeroflow_core.ego_motion import deskews
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.geometry import SE3
from zeroflow_core.ground import GROUND_Z, ground_z_of, offset_to
from zeroflow_core.pairs import Sweep

_SAMPLES = 20  # clouds, spread over a bag, that tell how high its scanner is and which poses it has
_Z_TOLERANCE = 0.05  # metres; the ground is not known any better

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """
    recording: what is true of all logs of the bag
    tree:      its transforms
    poses:     what the bag says, or None: KISS-ICP is to say
    """

    recording: Recording
    tree: TransformTree
    poses: BagPoses | None

    def mount(self, recorded: RecordedCloud) -> SE3 | None:
        """vehicle_SE3_cloud, z_offset included; None where it is not known at that stamp."""
        if self.poses is not None:
            mount = self.poses.mount(recorded.frame, recorded.stamp_ns)
        else:
            mount = self.tree.lookup(self.recording.vehicle_frame, recorded.frame, recorded.stamp_ns)
        return None if mount is None else self._raised @ mount

    def sweep(self, recorded: RecordedCloud) -> Sweep | None:
        """Its points in the vehicle frame, with the vehicle's pose if the bag is to say it; None where it does not.

        Points that are no returns are left out.
        """
        mount = self.mount(recorded)
        pose = None if self.poses is None else self.poses.pose(recorded.stamp_ns)
        if mount is None or (pose is None and self.poses is not None):
            return None
        cloud = recorded.cloud
        seen = is_return(cloud.points)
        columns = (None if c is None else c[seen] for c in (cloud.intensity, cloud.ring, cloud.time_offset_ns))
        world_SE3_vehicle = None if pose is None else pose @ self._raised.inverse()
        return Sweep(mount.transform(cloud.points[seen]), recorded.stamp_ns, world_SE3_vehicle, *columns)

    @property
    def _raised(self) -> SE3:
        return SE3(np.eye(3), np.array([0.0, 0.0, self.recording.z_offset]))


def find_source(
    bag: Bag, topic: str | None, odometry: str | None, ego_motion: str, deskew: str, height: float | None
) -> Source:
    """By clouds here and there in the bag; arguments and errors as of import_bag."""
    topic = bag.cloud_topic(topic)
    if odometry is not None and ego_motion == "auto":
        ego_motion = "odometry"
    if ego_motion in ("auto", "odometry"):
        odometry = bag.only_topic(ODOMETRY, odometry, "odometry")
    samples, tree = _samples(bag, topic), read_transforms(bag)
    poses = None if ego_motion == "kiss_icp" else _choose_poses(bag, samples, tree, odometry, ego_motion)
    frame, source = samples[0].frame, "kiss_icp" if poses is None else poses.source
    recording = Recording(
        bag=str(bag.path.resolve()),
        topic=topic,
        frame_id=frame,
        vehicle_frame=tree.rigid_base(frame) if poses is None else poses.base or frame,
        world_frame="" if poses is None else poses.world,
        ego_motion=source,
        odometry=odometry if source == "odometry" else None,
        deskewed=_deskewed(bag, samples, deskew, source),
        height=height,
        ground_z=0.0,
        z_offset=0.0,
        bag_start_ns=bag.start_ns,
        bag_clouds=bag.count(topic),
    )
    ground_z = _ground_z(Source(recording, tree, poses), samples, bag)
    z_offset = offset_to(GROUND_Z, ground_z, _Z_TOLERANCE)
    return Source(replace(recording, ground_z=ground_z, z_offset=z_offset), tree, poses)


def _samples(bag: Bag, topic: str) -> list[RecordedCloud]:
    """Some clouds, from the beginning to the end; at least one."""
    if bag.count(topic) == 0:
        raise ZeroFlowError(f"the bag {bag.path} has no messages in {topic}; give a recording with clouds in it")
    found: dict[int, RecordedCloud] = {}  # by when it was recorded
    for k in range(_SAMPLES):
        message = next(bag.messages([topic], bag.start_ns + bag.duration_ns * k // _SAMPLES), None)
        if message is not None and message[0] not in found:
            try:
                found[message[0]] = read_cloud(bag, topic, message[0], message[2])
            except (CloudError, DamagedBag):
                continue
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
        f"the metadata of the bag {bag.path} counts {bag.count(topic)} messages in {topic}, but its files have none; "
        "run `ros2 bag reindex` on it"
    )


def _choose_poses(
    bag: Bag, samples: list[RecordedCloud], tree: TransformTree, odometry: str | None, ego_motion: str
) -> BagPoses | None:
    """Those asked for; with `auto` the first that know most of the samples, or None."""
    frame, reason = samples[0].frame, "it has none for these clouds"
    candidates = []
    if ego_motion != "tf" and odometry is not None:
        candidates.append(odometry_poses(bag, odometry, tree))
    if ego_motion != "odometry":
        candidates.append(tf_poses(tree, frame))
    for poses in filter(None, candidates):
        known = sum(
            poses.pose(sample.stamp_ns) is not None and poses.mount(sample.frame, sample.stamp_ns) is not None
            for sample in samples
        )
        if 2 * known >= len(samples) or (known and ego_motion != "auto"):
            return poses
        reason = (
            f"its stamps do not match those of the clouds, or no transform joins '{poses.base}' and '{frame}'"
            if poses.joins(frame)
            else f"no transform joins '{poses.base}', which it moves, and '{frame}', the frame of the clouds"
        )
        if ego_motion == "auto":
            _log.warning("%s: the ego motion from %s is not used: %s", bag.path, poses.source, reason)
    if ego_motion == "auto":
        return None
    raise ZeroFlowError(
        f"the bag {bag.path} does not give the ego motion by {ego_motion}: {reason}; take it from elsewhere, such as "
        "kiss_icp"
    )


def _deskewed(bag: Bag, samples: list[RecordedCloud], deskew: str, source: str) -> bool:
    """Whether the vehicle's motion is to be taken out of the clouds, and can be."""
    if not deskews(deskew, source):
        return False
    has_times = any(sample.cloud.time_offset_ns is not None for sample in samples)
    if not has_times and deskew == "always":
        _log.warning("%s: deskew is set, but clouds have no times of points (t, time or timestamp)", bag.path)
    return has_times


def _ground_z(source: Source, samples: list[RecordedCloud], bag: Bag) -> float:
    """Height of the ground in the vehicle's frame, metres."""
    height = source.recording.height
    if height is not None:
        mounts = (source.mount(sample) for sample in samples)
        foot = np.array([[0.0, 0.0, -height]])
        return round(float(np.median([mount.transform(foot)[0, 2] for mount in mounts if mount is not None])), 3)
    sweeps = (source.sweep(sample) for sample in samples)
    ground_z = ground_z_of(sweep for sweep in sweeps if sweep is not None)
    if ground_z is None:
        raise ZeroFlowError(
            f"the ground cannot be found in the clouds of {source.recording.topic} in the bag {bag.path}; give the "
            "scanner's height above it in metres (--height)"
        )
    return round(ground_z, 3)
