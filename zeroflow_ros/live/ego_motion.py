"""Where the vehicle was when a cloud was taken: from odometry, from TF, or standing still, or that the clouds
themselves have to tell it.

Poses arrive in the executor's thread, clouds ask for theirs in another one. DDS keeps no order across topics,
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

from zeroflow_core.ego_motion import kiss_icp_missing
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.geometry import SE3, interpolate
from zeroflow_ros.messages.clouds import nanoseconds
from zeroflow_ros.messages.fallback import Buffer, TransformException

_MOST_MOUNTS = 100  # that are remembered as unknown
_HISTORY_NS = 10_000_000_000
_JUMP_NS = 500_000_000  # further back than this is a clock that jumped; less is a message that overtook another
_LONGEST_GAP_NS = 1_000_000_000  # between two poses; a vehicle's motion is not a straight line for longer
_LONGEST_EXTRAPOLATION_NS = 100_000_000
_PATIENCE_NS = 1_000_000_000  # of the clouds' time, after which a source without poses for them is given up

_NAMES = {"odom": "odometry", "tf": "transforms", "kiss_icp": "the clouds themselves (KISS-ICP)"}


class NoPose(Exception):
    """The pose at a stamp is not known; the text says why."""


class NoPoseYet(NoPose):
    """It may still arrive."""


@dataclass(frozen=True)
class Place:
    """Where a cloud was taken.

    world_SE3_vehicle: pose of the vehicle in a fixed frame, another one for each source; None: the clouds have to tell
    vehicle_SE3_cloud: how the cloud's frame is mounted on the vehicle
    source:            who told: odom, tf, kiss_icp (the clouds) or none (nobody, the vehicle stands still)
    """

    world_SE3_vehicle: SE3 | None
    vehicle_SE3_cloud: SE3
    source: str


class PoseHistory:
    """Poses by stamp, the last ten seconds of them; a stamp that jumps back starts anew."""

    def __init__(self) -> None:
        self._stamps: list[int] = []
        self._poses: list[SE3] = []

    def __len__(self) -> int:
        return len(self._stamps)

    @property
    def newest_ns(self) -> int | None:
        return self._stamps[-1] if self._stamps else None

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
            NoPoseYet: no poses, the newest one is older than that, or all are so much newer that the clock has jumped.
            NoPose: a little older than the oldest, or a gap of more than a second around it.
        """
        if not self._stamps:
            raise NoPoseYet("no odometry has arrived")
        k = bisect_left(self._stamps, stamp_ns)
        if k == len(self._stamps):
            if extrapolate and stamp_ns - self._stamps[-1] <= _LONGEST_EXTRAPOLATION_NS:
                return self._extrapolated(stamp_ns)
            raise NoPoseYet(f"the newest odometry is {(stamp_ns - self._stamps[-1]) * 1e-9:.3f} s older")
        if self._stamps[k] == stamp_ns:
            return self._poses[k]
        if k == 0:
            ahead = self._stamps[0] - stamp_ns
            raise (NoPoseYet if ahead > _JUMP_NS else NoPose)(f"the oldest odometry is {ahead * 1e-9:.3f} s newer")
        before, after = self._stamps[k - 1], self._stamps[k]
        if after - before > _LONGEST_GAP_NS:
            raise NoPose(f"the odometry has a gap of {(after - before) * 1e-9:.3f} s there")
        return interpolate(self._poses[k - 1], self._poses[k], (stamp_ns - before) / (after - before))

    def _extrapolated(self, stamp_ns: int) -> SE3:
        """On from the newest pose with the velocity of the last 20 ms or more, as one step may be very short."""
        newest = self._stamps[-1]
        k = bisect_right(self._stamps, newest - 20_000_000) - 1
        if k < 0 or newest - self._stamps[k] > _LONGEST_GAP_NS:
            raise NoPoseYet("one odometry message is too few to extrapolate from")
        return interpolate(self._poses[k], self._poses[-1], (stamp_ns - self._stamps[k]) / (newest - self._stamps[k]))


class EgoMotion:
    """The one who knows where the vehicle is, or who does.

    With ``auto`` that is odometry where it comes, else transforms, else the clouds. What appears later is taken from
    then on. What has had no pose for the clouds of a second is given up until it has poses again, and clouds don't
    wait for it meanwhile.

    mode:               ``odom``, ``tf``, ``kiss_icp`` (the clouds will tell), ``none`` (the vehicle stands still), or
                        ``auto``
    timeout:            seconds to wait for a pose that has not arrived yet; may be set at any time
    odom_frame, base_frame: the fixed and the vehicle frame, when poses come from TF; odometry may name another vehicle
                        frame
    mounting:           vehicle_SE3_cloud; None: transforms tell
    odom_published, tf_published: whether anybody publishes odometry, or transforms that are not static
    tf_possible:        whether transforms can arrive at all
    on_bad_odometry, on_bad_transform: called with a sentence for each message that is no pose
    on_switch:          called with a sentence when ``auto`` goes over from one source to another
    warn_once:          called with a sentence that concerns the set-up

    Raises:
        ZeroFlowError: the mode is ``kiss_icp``, which is not installed.
    """

    def __init__(
        self,
        mode: str,
        *,
        timeout: float,
        odom_frame: str,
        base_frame: str,
        mounting: SE3 | None = None,
        odom_published: Callable[[], bool],
        tf_published: Callable[[], bool],
        tf_possible: bool,
        on_bad_odometry: Callable[[str], None],
        on_bad_transform: Callable[[str], None],
        on_switch: Callable[[str], None],
        warn_once: Callable[[str], None],
    ) -> None:
        self.timeout = timeout
        self._mode = mode
        self._odom_frame, self._base_frame = odom_frame.lstrip("/"), base_frame.lstrip("/")
        self._mounting = mounting
        self._published = {"odom": odom_published, "tf": lambda: tf_possible and tf_published()}
        self._tf_possible = tf_possible
        self._on_bad_odometry, self._on_bad_transform = on_bad_odometry, on_bad_transform
        self._on_switch, self._warn_once = on_switch, warn_once
        self._clouds_cannot_tell = kiss_icp_missing() if mode in ("auto", "kiss_icp") else None
        if mode == "kiss_icp" and self._clouds_cannot_tell is not None:
            raise ZeroFlowError(self._clouds_cannot_tell)
        self._history = PoseHistory()
        self._odometry_frame = ""  # the odometry's child frame
        self._tree = Buffer()
        self._tree_stamps: dict[str, int] = {}
        self._assumed_mounts: set[tuple[str, str]] = set()
        self._in_use = ""  # with auto: the source, once there was one
        self._served_ns: int | None = None  # the newest cloud that had its pose from it, or was the first to have none
        self._news = threading.Condition()
        self._stopped = False

    def add_odometry(self, message: Odometry) -> None:
        """A pose from the odometry topic; one that is not finite, or no rotation, is reported and ignored."""
        q, t = message.pose.pose.orientation, message.pose.pose.position
        stamp_ns = nanoseconds(message.header.stamp)
        try:
            pose = SE3.from_quaternion(np.array([q.w, q.x, q.y, q.z]), np.array([t.x, t.y, t.z]))
        except ValueError as error:
            self._on_bad_odometry(f"odometry at {stamp_ns * 1e-9:.3f} s is no pose: {error}")
            return
        with self._news:
            self._odometry_frame = message.child_frame_id.lstrip("/")
            self._history.add(stamp_ns, pose)
            self._news.notify_all()

    def add_transforms(self, transforms: list[TransformStamped], static: bool) -> None:
        """What arrived on /tf or /tf_static; transforms that are no poses are reported and ignored."""
        with self._news:
            for transform in transforms:
                try:
                    _pose_of(transform)
                    self._add_transform(transform, static)
                except (ValueError, TransformException) as error:
                    names = f"'{transform.header.frame_id}' to '{transform.child_frame_id}'"
                    self._on_bad_transform(f"the transform from {names} is no pose: {error}")
            self._news.notify_all()

    def _add_transform(self, transform: TransformStamped, static: bool) -> None:
        child, stamp_ns = transform.child_frame_id.lstrip("/"), nanoseconds(transform.header.stamp)
        if child == transform.header.frame_id.lstrip("/"):
            raise ValueError("it joins a frame to itself")
        if static:
            self._tree.set_transform_static(transform, "zeroflow")
            return
        if stamp_ns < self._tree_stamps.get(child, stamp_ns) - _JUMP_NS:
            # tf2's own buffer would keep the future and refuse the past.
            self._tree.clear()
            self._tree_stamps.clear()
        self._tree_stamps[child] = stamp_ns
        self._tree.set_transform(transform, "zeroflow")

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
        deadline = time.monotonic() + self.timeout
        with self._news:
            if self._mode == "auto":
                source, pose = self._first_that_knows(stamp_ns, deadline)
            else:
                source, pose = self._mode, self._pose(self._mode, stamp_ns, deadline)
            return Place(pose, self._mount(source, cloud_frame.lstrip("/"), deadline), source)

    def _first_that_knows(self, stamp_ns: int, deadline: float) -> tuple[str, SE3 | None]:
        """A source, and the pose by it."""
        why = "nobody publishes odometry or transforms"
        for source in ("odom", "tf"):
            if not self._promising(source, stamp_ns):
                continue
            try:
                pose = self._pose(source, stamp_ns, deadline)
            except NoPose as error:
                why = str(error)
                if self._in_use in ("", source) and self._newest_ns(source) is not None:
                    self._in_use = source
                    if not self._has_failed(stamp_ns):
                        raise
                continue
            if self._newest_ns(source) is None:
                continue  # nothing but static transforms: they know all times, and no motion
            self._use(source, "it is there now")
            self._served_ns = stamp_ns
            return source, pose
        if self._clouds_cannot_tell is not None:
            raise NoPose(
                f"{why}; publish nav_msgs/Odometry (remap 'odom' to its topic), pip install kiss-icp, so that the "
                "clouds tell, or set ego_motion to none if the vehicle never moves"
            )
        self._use("kiss_icp", why)
        return "kiss_icp", None

    def _promising(self, source: str, stamp_ns: int) -> bool:
        """Whether a pose by that source is worth waiting for."""
        newest_ns = self._newest_ns(source)
        if source == self._in_use:
            return True
        if newest_ns is None:
            return self._in_use == "" and self._published[source]()
        return self._in_use == "" or -self.timeout * 1e9 <= newest_ns - stamp_ns <= _HISTORY_NS

    def _has_failed(self, stamp_ns: int) -> bool:
        """Whether the source in use, which does not know this cloud's pose, has not known any for a while."""
        if self._served_ns is None:
            self._served_ns = stamp_ns
        return abs(stamp_ns - self._served_ns) > _PATIENCE_NS

    def _use(self, source: str, why: str) -> None:
        if self._in_use not in ("", source):
            self._on_switch(f"the ego motion comes from {_NAMES[source]} now, not from {_NAMES[self._in_use]}: {why}")
        self._in_use = source

    def _newest_ns(self, source: str) -> int | None:
        """The stamp of the newest pose."""
        if source == "odom":
            return self._history.newest_ns
        try:
            stamp = self._tree.lookup_transform(self._odom_frame, self._base_frame, Time()).header.stamp
        except TransformException:
            return None
        return nanoseconds(stamp) or None  # 0: all of them are static

    def _pose(self, source: str, stamp_ns: int, deadline: float) -> SE3 | None:
        if source in ("none", "kiss_icp"):
            return SE3.identity() if source == "none" else None
        if source == "tf":
            return self._wait_for(lambda: self._lookup(self._odom_frame, self._base_frame, stamp_ns), deadline)
        try:
            return self._wait_for(lambda: self._history.at(stamp_ns), deadline)
        except NoPoseYet:
            return self._history.at(stamp_ns, extrapolate=True)

    def _mount(self, source: str, cloud_frame: str, deadline: float) -> SE3:
        """``vehicle_SE3_cloud``; the identity where frames are equal, unnamed or not connected."""
        if self._mounting is not None:
            return self._mounting
        # Clouds that take over from odometry go on in its vehicle frame.
        named = self._odometry_frame if source in ("odom", "kiss_icp") else ""
        vehicle_frame = named or self._base_frame
        if not cloud_frame or vehicle_frame == cloud_frame:
            return SE3.identity()
        frames = (vehicle_frame, cloud_frame)
        if not self._tf_possible or frames in self._assumed_mounts:
            deadline = 0.0  # it has been waited for before; no cloud should be late for it again
        try:
            mount = self._wait_for(lambda: self._lookup(vehicle_frame, cloud_frame, 0), deadline)
        except NoPose:
            if frames not in self._assumed_mounts:
                if len(self._assumed_mounts) == _MOST_MOUNTS:  # frames that change their names without end
                    self._assumed_mounts.clear()
                self._assumed_mounts.add(frames)
                self._warn_once(
                    f"no transform from '{cloud_frame}' (clouds) to '{vehicle_frame}' (vehicle): taking them for the "
                    "same frame, which is wrong by the sensor's mounting; publish it on /tf_static, or set the "
                    "parameter mounting" + ("" if self._tf_possible else " (for the former, install tf2_msgs)")
                )
            return SE3.identity()
        self._assumed_mounts.discard(frames)
        return mount

    def _lookup(self, target: str, source: str, stamp_ns: int) -> SE3:
        """``target_SE3_source``; the newest with a stamp of 0."""
        try:
            return _pose_of(self._tree.lookup_transform(target, source, Time(nanoseconds=stamp_ns)))
        except (TransformException, ValueError) as error:
            raise NoPoseYet(f"no transform {target} to {source}: {error}") from error

    def _wait_for(self, get: Callable[[], SE3], deadline: float) -> SE3:
        """What `get` gives as soon as it raises NoPoseYet no more.

        Raises:
            NoPoseYet: the deadline has passed before.
        """
        while True:
            try:
                return get()
            except NoPoseYet:
                left = deadline - time.monotonic()
                if left <= 0 or self._stopped:
                    raise
            self._news.wait(left)


def _pose_of(transform: TransformStamped) -> SE3:
    """
    Raises:
        ValueError: it is none.
    """
    q, t = transform.transform.rotation, transform.transform.translation
    return SE3.from_quaternion(np.array([q.w, q.x, q.y, q.z]), np.array([t.x, t.y, t.z]))
