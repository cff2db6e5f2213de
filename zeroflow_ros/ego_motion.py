"""Where the vehicle was when a cloud was taken: from odometry, from TF, or standing still. (What the clouds themselves
tell of it is the pipeline's.)

Poses arrive in the executor's thread, clouds ask for theirs in the worker's. DDS keeps no order across topics,
so a cloud may be there before the odometry of its moment: `EgoMotion.locate` waits for it, a short while, and
the executor goes on meanwhile.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from geometry_msgs.msg import TransformStamped
from nav_msgs.msg import Odometry
from rclpy.time import Time

from zeroflow_core.geometry import SE3, interpolate
from zeroflow_ros.clouds import nanoseconds
from zeroflow_ros.fallback import Buffer, TransformException

_HISTORY_NS = 10_000_000_000
_JUMP_NS = 500_000_000  # further back than this is a clock that jumped; less is a message that overtook another
_LONGEST_GAP_NS = 1_000_000_000  # between two poses; a vehicle's motion is not a straight line for longer
_LONGEST_EXTRAPOLATION_NS = 100_000_000


class NoPose(Exception):
    """The pose at a stamp is not known; the text says why."""


class PoseTooNew(NoPose):
    """It is not known yet: the newest pose is older than the stamp."""


@dataclass(frozen=True)
class Place:
    """Where a cloud was taken.

    world_SE3_vehicle: pose of the vehicle in a fixed frame
    vehicle_SE3_cloud: how the cloud's frame is mounted on the vehicle
    """

    world_SE3_vehicle: SE3
    vehicle_SE3_cloud: SE3


class PoseHistory:
    """Poses by stamp, the last ten seconds of them; a stamp that jumps back starts anew."""

    def __init__(self) -> None:
        self._stamps: list[int] = []
        self._poses: list[SE3] = []

    def __len__(self) -> int:
        return len(self._stamps)

    def add(self, stamp_ns: int, pose: SE3) -> None:
        if self._stamps and stamp_ns < self._stamps[-1] - _JUMP_NS:
            self._stamps.clear()
            self._poses.clear()
        k = bisect_left(self._stamps, stamp_ns)
        if k < len(self._stamps) and self._stamps[k] == stamp_ns:
            self._poses[k] = pose
        else:
            self._stamps.insert(k, stamp_ns)
            self._poses.insert(k, pose)
        forget = bisect_left(self._stamps, self._stamps[-1] - _HISTORY_NS)
        del self._stamps[:forget], self._poses[:forget]

    def at(self, stamp_ns: int, extrapolate: bool = False) -> SE3:
        """The pose at `stamp_ns`, interpolated; with `extrapolate` also up to 0.1 s after the newest.

        Raises:
            PoseTooNew: the newest pose is older than that.
            NoPose: no poses, older than the oldest, or a gap of more than a second around it.
        """
        if not self._stamps:
            raise PoseTooNew("no odometry has arrived")
        k = bisect_left(self._stamps, stamp_ns)
        if k == len(self._stamps):
            if extrapolate and stamp_ns - self._stamps[-1] <= _LONGEST_EXTRAPOLATION_NS:
                return self._extrapolated(stamp_ns)
            raise PoseTooNew(f"the newest odometry is {(stamp_ns - self._stamps[-1]) * 1e-9:.3f} s older")
        if self._stamps[k] == stamp_ns:
            return self._poses[k]
        if k == 0:
            raise NoPose(f"the oldest odometry is {(self._stamps[0] - stamp_ns) * 1e-9:.3f} s newer")
        before, after = self._stamps[k - 1], self._stamps[k]
        if after - before > _LONGEST_GAP_NS:
            raise NoPose(f"the odometry has a gap of {(after - before) * 1e-9:.3f} s there")
        return interpolate(self._poses[k - 1], self._poses[k], (stamp_ns - before) / (after - before))

    def _extrapolated(self, stamp_ns: int) -> SE3:
        """On from the newest pose with the velocity of the last 20 ms or more, as one step may be very short."""
        newest = self._stamps[-1]
        k = bisect_right(self._stamps, newest - 20_000_000) - 1
        if k < 0 or newest - self._stamps[k] > _LONGEST_GAP_NS:
            raise PoseTooNew("one odometry message is too few to extrapolate from")
        return interpolate(self._poses[k], self._poses[-1], (stamp_ns - self._stamps[k]) / (newest - self._stamps[k]))


class EgoMotion:
    """The one who knows where the vehicle is.

    mode:           ``odom``, ``tf``, ``none`` (the vehicle stands still), ``kiss_icp`` (clouds will tell, here it
                    stands still as well), or ``auto``: odometry as soon as somebody publishes it, else TF
    timeout:        seconds to wait for a pose that has not arrived yet
    odom_frame, base_frame: the fixed and the vehicle frame, when poses come from TF
    odom_published: whether anybody publishes odometry
    on_bad:         called with a sentence for each odometry message that is no pose
    warn_once:      called with a sentence that concerns the set-up
    tf_possible:    whether transforms can arrive at all
    """

    def __init__(
        self,
        mode: str,
        *,
        timeout: float,
        odom_frame: str,
        base_frame: str,
        odom_published: Callable[[], bool],
        on_bad: Callable[[str], None],
        warn_once: Callable[[str], None],
        tf_possible: bool,
    ) -> None:
        self._mode = mode
        self._timeout = timeout
        self._odom_frame, self._base_frame = odom_frame, base_frame
        self._odom_published = odom_published
        self._on_bad, self._warn_once = on_bad, warn_once
        self._tf_possible = tf_possible
        self._history = PoseHistory()
        self._vehicle_frame = ""  # the odometry's child frame
        self._tree = Buffer()
        self._tree_stamps: dict[str, int] = {}
        self._assumed_mounts: set[tuple[str, str]] = set()
        self._news = threading.Condition()
        self._stopped = False

    def add_odometry(self, message: Odometry) -> None:
        """A pose from the odometry topic; one that is not finite, or no rotation, is reported and ignored."""
        q, t = message.pose.pose.orientation, message.pose.pose.position
        try:
            pose = SE3.from_quaternion(np.array([q.w, q.x, q.y, q.z]), np.array([t.x, t.y, t.z]))
        except ValueError as error:
            self._on_bad(f"odometry at {nanoseconds(message.header.stamp) * 1e-9:.3f} s is no pose: {error}")
            return
        with self._news:
            self._vehicle_frame = message.child_frame_id.lstrip("/")
            self._history.add(nanoseconds(message.header.stamp), pose)
            self._news.notify_all()

    def add_transforms(self, transforms: list[TransformStamped], static: bool) -> None:
        """What arrived on /tf or /tf_static."""
        with self._news:
            for transform in transforms:
                if static:
                    self._tree.set_transform_static(transform, "zeroflow")
                    continue
                child, stamp_ns = transform.child_frame_id, nanoseconds(transform.header.stamp)
                if stamp_ns < self._tree_stamps.get(child, stamp_ns) - _JUMP_NS:
                    # tf2's own buffer would keep the future and refuse the past.
                    self._tree.clear()
                    self._tree_stamps.clear()
                self._tree_stamps[child] = stamp_ns
                self._tree.set_transform(transform, "zeroflow")
            self._news.notify_all()

    def stop(self) -> None:
        """Let nobody wait any longer."""
        with self._news:
            self._stopped = True
            self._news.notify_all()

    def locate(self, stamp_ns: int, cloud_frame: str) -> Place:
        """Where a cloud of that stamp and frame was taken; waits up to the timeout for poses under way.

        Raises:
            NoPose: nobody knows, and why.
        """
        cloud_frame = cloud_frame.lstrip("/")
        source = self._source()
        deadline = time.monotonic() + self._timeout
        with self._news:
            if source in ("none", "kiss_icp"):
                return Place(SE3.identity(), self._mount(self._base_frame, cloud_frame, deadline))
            pose = self._wait_for(lambda: self._pose(source, stamp_ns), deadline)
            if pose is None:
                pose = self._pose(source, stamp_ns, last_chance=True)
            vehicle_frame = self._vehicle_frame if source == "odom" else self._base_frame
            return Place(pose, self._mount(vehicle_frame, cloud_frame, deadline))

    def _source(self) -> str:
        if self._mode != "auto":
            return self._mode
        if len(self._history) > 0 or self._odom_published():
            return "odom"
        if self._tree_stamps:
            return "tf"
        raise NoPose(
            "nobody publishes odometry or transforms; publish nav_msgs/Odometry (remap 'odom' to its topic), "
            "or set ego_motion to kiss_icp (estimated from the clouds), or to none if the vehicle never moves"
        )

    def _pose(self, source: str, stamp_ns: int, last_chance: bool = False) -> SE3:
        if source == "odom":
            return self._history.at(stamp_ns, extrapolate=last_chance)
        try:
            return self._lookup(self._odom_frame, self._base_frame, stamp_ns)
        except TransformException as error:
            raise PoseTooNew(f"no transform {self._odom_frame} to {self._base_frame}: {error}") from error

    def _mount(self, vehicle_frame: str, cloud_frame: str, deadline: float) -> SE3:
        """``vehicle_SE3_cloud``, from TF; the identity where frames are equal, unnamed or not connected."""
        if not vehicle_frame or not cloud_frame or vehicle_frame == cloud_frame:
            return SE3.identity()

        def lookup() -> SE3:
            try:
                return self._lookup(vehicle_frame, cloud_frame, 0)
            except TransformException as error:
                raise PoseTooNew(str(error)) from error

        frames = (vehicle_frame, cloud_frame)
        if not self._tf_possible or frames in self._assumed_mounts:
            deadline = 0.0  # it has been waited for before; no cloud should be late for it again
        mount = self._wait_for(lookup, deadline)
        if mount is not None:
            self._assumed_mounts.discard(frames)
            return mount
        if frames not in self._assumed_mounts:
            self._assumed_mounts.add(frames)
            self._warn_once(
                f"no transform from '{cloud_frame}' (clouds) to '{vehicle_frame}' (vehicle): taking them for the same "
                "frame, which is wrong by the sensor's mounting; publish it on /tf_static"
                + ("" if self._tf_possible else " and install tf2_msgs, which is missing here")
            )
        return SE3.identity()

    def _lookup(self, target: str, source: str, stamp_ns: int) -> SE3:
        transform = self._tree.lookup_transform(target, source, Time(nanoseconds=stamp_ns)).transform
        q, t = transform.rotation, transform.translation
        return SE3.from_quaternion(np.array([q.w, q.x, q.y, q.z]), np.array([t.x, t.y, t.z]))

    def _wait_for(self, get: Callable[[], SE3], deadline: float) -> SE3 | None:
        """What `get` gives as soon as it raises PoseTooNew no more; None when the deadline passes before."""
        while True:
            try:
                return get()
            except PoseTooNew:
                left = deadline - time.monotonic()
                if left <= 0 or self._stopped:
                    return None
            self._news.wait(left)
