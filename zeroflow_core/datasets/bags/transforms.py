"""The tree of frames that a bag's /tf and /tf_static describe, at any stamp."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from zeroflow_core.datasets.bags.bag import Bag
from zeroflow_core.datasets.bags.messages import TF, plain, stamp_ns
from zeroflow_core.datasets.bags.trajectory import LONGEST_POSE_GAP_NS, Trajectory
from zeroflow_core.geometry import SE3

_FIXED_FRAMES = ("odom", "map")  # by REP-105; odom first, for it never jumps
_BASE_FRAME = "base_link"


@dataclass(frozen=True)
class _Link:
    """From a frame to its parent: parent_SE3_child, always the same, or by stamp.

    is_moving: published on /tf, as what may move is, even where it stood still throughout
    """

    parent: str
    always: SE3 | None
    by_stamp: Trajectory | None
    is_moving: bool

    def at(self, stamp_ns: int) -> SE3 | None:
        return self.always if self.always is not None else self.by_stamp.at(stamp_ns, LONGEST_POSE_GAP_NS)


class TransformTree:
    """Frames and how they lie to each other. Frames are named without a leading slash."""

    def __init__(self, links: dict[str, _Link]) -> None:
        self._links = links

    def lookup(self, target: str, source: str, stamp_ns: int) -> SE3 | None:
        """target_SE3_source at `stamp_ns`; None where nothing joins the two, or not at that stamp."""
        path = self._path(target, source)
        if path is None:
            return None
        down, up = path  # target ← common ancestor ← source
        target_SE3_source = SE3.identity()
        for frame in down:
            parent_SE3_frame = self._links[frame].at(stamp_ns)
            if parent_SE3_frame is None:
                return None
            target_SE3_source = target_SE3_source @ parent_SE3_frame.inverse()
        for frame in reversed(up):
            parent_SE3_frame = self._links[frame].at(stamp_ns)
            if parent_SE3_frame is None:
                return None
            target_SE3_source = target_SE3_source @ parent_SE3_frame
        return target_SE3_source

    def joins(self, target: str, source: str) -> bool:
        """Whether there is a way from one frame to the other, at whatever stamp."""
        return self._path(target, source) is not None

    def world_and_base(self, cloud_frame: str) -> tuple[str, str] | None:
        """The fixed frame and the vehicle's, above or beside a cloud's; None where nothing moves between them.

        Fixed is odom, else map, else the frame above the topmost that moves. The vehicle's is base_link, where it
        lies on the way, else the first frame on the way that moves.
        """
        names = [frame for frame in self._frames() if frame.rpartition("/")[2] in _FIXED_FRAMES]
        names.sort(key=lambda frame: _FIXED_FRAMES.index(frame.rpartition("/")[2]))
        chain = self._climb(cloud_frame)
        moving = [frame for frame in chain if frame in self._links and self._links[frame].is_moving]
        for world in names + [self._links[frame].parent for frame in moving[-1:]]:
            way = self._way_down(world, cloud_frame)
            if way:
                return world, next((frame for frame in way if frame.rpartition("/")[2] == _BASE_FRAME), way[0])
        return None

    def rigid_base(self, cloud_frame: str) -> str:
        """The frame of the vehicle that a cloud's frame is fixed to: base_link, or the topmost above it."""
        chain = [cloud_frame]
        while chain[-1] in self._links and not self._links[chain[-1]].is_moving:
            parent = self._links[chain[-1]].parent
            if parent in chain or parent.rpartition("/")[2] in _FIXED_FRAMES:
                break
            chain.append(parent)
        return next((frame for frame in chain if frame.rpartition("/")[2] == _BASE_FRAME), chain[-1])

    def _frames(self) -> list[str]:
        return sorted({*self._links, *(link.parent for link in self._links.values())})

    def _climb(self, frame: str) -> list[str]:
        """The frame and all above it, the root last; it ends where recorded frames form a ring."""
        chain = [frame]
        while chain[-1] in self._links and self._links[chain[-1]].parent not in chain:
            chain.append(self._links[chain[-1]].parent)
        return chain

    def _path(self, target: str, source: str) -> tuple[list[str], list[str]] | None:
        """The frames to climb from `target`, and from `source`, up to where they meet."""
        down, up = self._climb(target), self._climb(source)
        meeting = next((frame for frame in down if frame in up), None)
        if meeting is None:
            return None
        return down[: down.index(meeting)], up[: up.index(meeting)]

    def _way_down(self, world: str, cloud_frame: str) -> list[str]:
        """The frames from the first one that moves against `world` to the cloud's; empty where none does."""
        path = self._path(world, cloud_frame)
        if path is None:
            return []
        down, up = path
        # Each step is known by the frame whose link it goes along, and leads to another one.
        steps = [(frame, self._links[frame].parent) for frame in down] + [(frame, frame) for frame in reversed(up)]
        first = next((k for k, (frame, _) in enumerate(steps) if self._links[frame].is_moving), None)
        return [] if first is None else [reached for _, reached in steps[first:]]


def read_transforms(bag: Bag) -> TransformTree:
    """The tree of all transforms in a bag; those that are no transforms are stepped over."""
    links: dict[str, _Link] = {}
    poses: dict[tuple[str, str], Trajectory] = {}
    for static, parent, child, stamp, transform in _transforms(bag):
        if static:
            links[child] = _Link(parent, transform, None, is_moving=False)
        else:
            poses.setdefault((parent, child), Trajectory()).add(stamp, transform)
    for (parent, child), trajectory in poses.items():
        trajectory.sort()
        if child in links and not links[child].is_moving:
            continue  # on /tf_static as well
        always = trajectory[0] if trajectory.is_constant else None
        if child not in links or len(trajectory) > len(links[child].by_stamp):
            links[child] = _Link(parent, always, trajectory, is_moving=True)
    return TransformTree(links)


def _transforms(bag: Bag) -> Iterator[tuple[bool, str, str, int, SE3]]:
    """(whether it is static, parent, child, stamp in ns, parent_SE3_child)"""
    topics = [name for name, msgtype in bag.topics.items() if msgtype == TF]
    for _, topic, cdr in bag.messages(topics):
        for stamped in bag.deserialize(topic, cdr).transforms:
            t, q = stamped.transform.translation, stamped.transform.rotation
            try:
                transform = SE3.from_quaternion([q.w, q.x, q.y, q.z], [t.x, t.y, t.z])
            except ValueError:
                continue
            parent, child = plain(stamped.header.frame_id), plain(stamped.child_frame_id)
            if parent != child:
                yield topic.endswith("tf_static"), parent, child, stamp_ns(stamped.header), transform
