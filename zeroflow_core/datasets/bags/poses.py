"""Where the vehicle was by what a bag says: an Odometry topic, or transforms."""

from __future__ import annotations

from dataclasses import dataclass

from zeroflow_core.datasets.bags.bag import Bag
from zeroflow_core.datasets.bags.messages import plain, stamp_ns
from zeroflow_core.datasets.bags.trajectory import LONGEST_POSE_GAP_NS, Trajectory
from zeroflow_core.datasets.bags.transforms import TransformTree
from zeroflow_core.geometry import SE3


@dataclass(frozen=True)
class BagPoses:
    """The motion of a vehicle's frame.

    source: "odometry" or "tf"
    world:  the fixed frame; base: the vehicle's
    tree:   how the vehicle's frame and those of clouds lie to each other
    """

    source: str
    world: str
    base: str
    tree: TransformTree
    odometry: Trajectory | None = None

    def pose(self, stamp_ns: int) -> SE3 | None:
        """world_SE3_base; None where it is not known, or poses are too far apart to tell."""
        if self.odometry is not None:
            return self.odometry.at(stamp_ns, LONGEST_POSE_GAP_NS)
        return self.tree.lookup(self.world, self.base, stamp_ns)

    def joins(self, cloud_frame: str) -> bool:
        """Whether there are poses, and how a cloud's frame is mounted is known; unnamed frames are taken for one."""
        if self.odometry is not None and not len(self.odometry):
            return False
        return not self.base or not cloud_frame or self.tree.joins(self.base, cloud_frame)

    def mount(self, cloud_frame: str, stamp_ns: int) -> SE3 | None:
        """base_SE3_cloud; None where it is not known at that stamp."""
        if not self.base or not cloud_frame:
            return SE3.identity()
        return self.tree.lookup(self.base, cloud_frame, stamp_ns)


def odometry_poses(bag: Bag, topic: str, tree: TransformTree) -> BagPoses:
    """The poses of an Odometry topic, which may be none; what is no pose is stepped over."""
    trajectory, world, base = Trajectory(), "", ""
    for _, _, cdr in bag.messages([topic]):
        message = bag.deserialize(topic, cdr)
        position, q = message.pose.pose.position, message.pose.pose.orientation
        try:
            pose = SE3.from_quaternion([q.w, q.x, q.y, q.z], [position.x, position.y, position.z])
        except ValueError:  # estimators publish zeros or NaN until they have converged
            continue
        trajectory.add(stamp_ns(message.header), pose)
        world, base = plain(message.header.frame_id), plain(message.child_frame_id)
    trajectory.sort()
    return BagPoses("odometry", world, base, tree, trajectory)


def tf_poses(tree: TransformTree, cloud_frame: str) -> BagPoses | None:
    """The poses that transforms give to a cloud's vehicle, or None where they give none."""
    found = tree.world_and_base(cloud_frame)
    return None if found is None else BagPoses("tf", *found, tree)
