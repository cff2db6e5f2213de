"""The clouds of a bag as Sweeps."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from zeroflow_core.datasets.bags.bag import Bag
from zeroflow_core.datasets.bags.messages import ODOMETRY, plain, stamp_ns
from zeroflow_core.datasets.bags.poses import BagPoses, odometry_poses, tf_poses
from zeroflow_core.datasets.bags.transforms import TransformTree, read_transforms
from zeroflow_core.datasets.point_cloud2 import Cloud, CloudError, decode
from zeroflow_core.geometry import SE3
from zeroflow_core.pairs import Sweep

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RecordedCloud:
    """A cloud as a bag has it.

    stamp_ns: the header's, or the record time where a driver left it 0
    frame:    of the points, without a leading slash
    """

    stamp_ns: int
    frame: str
    cloud: Cloud

    def sweep(self, world_SE3_cloud: SE3 | None) -> Sweep:
        """In its own frame."""
        cloud = self.cloud
        return Sweep(cloud.points, self.stamp_ns, world_SE3_cloud, cloud.intensity, cloud.ring, cloud.time_offset_ns)


def read_cloud(bag: Bag, topic: str, time_ns: int, cdr: bytes) -> RecordedCloud:
    """The cloud that the bytes of a PointCloud2 topic are.

    time_ns: when they were recorded

    Raises:
        CloudError: it cannot be decoded.
        DamagedBag: it is no PointCloud2.
    """
    message = bag.deserialize(topic, cdr)
    stamp = stamp_ns(message.header) or time_ns
    try:
        return RecordedCloud(stamp, plain(message.header.frame_id), decode(message))
    except CloudError as error:
        raise CloudError(f"{topic} at {stamp} ns in the bag {bag.path}: {error}") from error


def read_sweeps(path: Path | str, topic: str | None = None, odometry: str | None = None) -> Iterator[Sweep]:
    """The clouds of one PointCloud2 topic of a bag, in the order of recording.

    The points stay in the frame of the cloud, and `world_SE3_ego` is the pose of that frame: Odometry
    interpolated at the cloud's stamp, joined with the bag's transforms where Odometry moves another frame. Where
    the bag has no Odometry, or nothing joins it with the clouds, it is the pose in the bag's transforms (odom, map
    or what else the vehicle moves in). It is None where the bag has neither around the stamp, or none for longer
    than a second. The stamp is the header's, or the record time where a driver left it 0.

    topic:    needed where the bag has several PointCloud2 topics
    odometry: needed where the bag has several nav_msgs/Odometry topics

    Raises:
        ZeroFlowError: no such bag or topic, several to choose from, or damage; while iterating: a cloud that
            cannot be decoded.
    """
    with Bag(path) as bag:
        topic = bag.cloud_topic(topic)
        odometry = bag.only_topic(ODOMETRY, odometry, "odometry")
        tree = read_transforms(bag)
        moved = None if odometry is None else odometry_poses(bag, odometry, tree)
    return _read_sweeps(Path(path), topic, moved, tree)


def _read_sweeps(path: Path, topic: str, odometry: BagPoses | None, tree: TransformTree) -> Iterator[Sweep]:
    poses: dict[str, BagPoses | None] = {}
    with Bag(path) as bag:
        for time_ns, _, cdr in bag.messages([topic]):
            recorded = read_cloud(bag, topic, time_ns, cdr)
            if recorded.frame not in poses:
                poses[recorded.frame] = _poses_of(recorded.frame, odometry, tree, path)
            yield recorded.sweep(_world_SE3_cloud(poses[recorded.frame], recorded))


def _poses_of(frame: str, odometry: BagPoses | None, tree: TransformTree, path: Path) -> BagPoses | None:
    """What tells the poses of clouds in that frame."""
    if odometry is not None and odometry.joins(frame):
        return odometry
    transforms = tf_poses(tree, frame)
    if transforms is None and odometry is not None and odometry.base:
        _log.warning(
            "%s: Odometry moves '%s', clouds are in '%s', and no /tf_static joins the two: the clouds have no pose",
            path,
            odometry.base,
            frame,
        )
    return transforms


def _world_SE3_cloud(poses: BagPoses | None, recorded: RecordedCloud) -> SE3 | None:
    if poses is None:
        return None
    pose, mount = poses.pose(recorded.stamp_ns), poses.mount(recorded.frame, recorded.stamp_ns)
    return None if pose is None or mount is None else pose @ mount
