"""From one cloud message after another to velocities: the steps of the flow node, without any topic or thread.

``prepare``:  PointCloud2 → decode → where was the vehicle → compensate → ground → Frame
``estimate``: Frame → the frame before that it is paired with → student → Velocities

One thread may prepare clouds while another one estimates.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from sensor_msgs.msg import PointCloud2

from zeroflow_core.datasets.point_cloud2 import Cloud, CloudError, decode, is_return
from zeroflow_core.ego_motion import (
    KissOdometry,
    OdometryApart,
    OdometryFailed,
    deskew,
    deskews,
    kiss_icp_missing,
)
from zeroflow_core.fastflow3d.anchored import flow_estimator
from zeroflow_core.geometry import SE3
from zeroflow_core.ground import GROUND_Z, GroundRule, ground_z_of, mark_ground, offset_to
from zeroflow_core.pairs import Status, Sweep, make_pair
from zeroflow_core.verification.flows import is_verified, verify_flow
from zeroflow_ros.live.ego_motion import EgoMotion, NoPose
from zeroflow_ros.live.frames import Frame, History, named
from zeroflow_ros.live.health import Health, Problem
from zeroflow_ros.live.students import StudentFailed
from zeroflow_ros.messages.clouds import nanoseconds, to_sweep
from zeroflow_ros.parameters.settings import Settings

_FASTEST = 100.0  # m/s; a vehicle that is faster has an odometry that jumped
_GROUND_TOLERANCE = 0.2  # metres; one cloud tells the ground to some centimetres
_MOUNT_TOLERANCE = 0.1  # metres, and of a rotation matrix, 6 degrees
_GROUND_TRIALS = 20  # clouds; without ground in them there is nothing to check
_LATE_NS = 200_000_000  # further back than this is a clock that jumped; less is a cloud that another one overtook
_MOST_LATE = 3  # clouds in a row that may come late, before the clock is taken to have jumped

_Kind = TypeVar("_Kind", KissOdometry, OdometryApart)


class Dropped(Exception):
    """No flow for this cloud, and why."""

    def __init__(self, problem: Problem, text: str) -> None:
        super().__init__(text)
        self.problem = problem


@dataclass(frozen=True)
class Velocities:
    """What the node publishes about one cloud.

    frame:               the cloud it is about, N points
    velocity:            (N,3) float32, m/s over ground, in the message's frame; 0 on ground, NaN without estimate
    velocity_in_vehicle: (N,3) float32, the same in the vehicle frame, which the frame's sweep is in
    status:              (N,) uint8, a zeroflow_core.pairs.Status for each point
    series:              number of the series that the cloud belongs to; poses are in one world only within a series
    """

    frame: Frame
    velocity: np.ndarray
    velocity_in_vehicle: np.ndarray
    status: np.ndarray
    series: int

    @property
    def message(self) -> PointCloud2:
        return self.frame.message

    @property
    def cloud(self) -> Cloud:
        return self.frame.cloud


class Pipeline:
    """Keeps the last clouds.

    student:  anything with ``flow(pc0, pc1)`` and ``metadata``
    rule:     marks ground
    settings: the node's settings at the moment, which may change between two clouds
    odometry: of the clouds, where they tell the vehicle's motion; one in this process where None
    """

    def __init__(
        self,
        student,
        rule: GroundRule,
        settings: Callable[[], Settings],
        ego_motion: EgoMotion,
        health: Health,
        odometry: KissOdometry | OdometryApart | None = None,
    ) -> None:
        self._student = _Timed(student)
        self._estimate_flow = flow_estimator(self._student, settings().streaming, "never")  # verified apart, and timed
        self._verifies = is_verified(settings().verify, self._student.metadata)
        self._rule = rule
        self._settings = settings
        self._ego_motion = ego_motion
        self._health = health
        self._odometry = odometry or new_odometry(settings(), KissOdometry)
        self._history = History()
        self._newest_ns: int | None = None
        self._num_late = 0
        self._reset = threading.Event()
        self._asked: tuple[float, bool] | None = None  # of the ground's height, when it was looked at
        self._looked_from: SE3 | None = None  # the mounting then
        self._estimated_z_offset = 0.0
        self._ground_trials = _GROUND_TRIALS

    def reset(self) -> None:
        """Forget the clouds before, when the next one comes; any thread may ask for it."""
        self._reset.set()

    def feed(self, message: PointCloud2) -> Velocities | None:
        """Both steps, one after the other: the velocities that follow from this cloud and those before, None for the
        first of a series.

        Raises:
            Dropped: there can be none, and why. The next good cloud is served again.
        """
        return self.estimate(self.prepare(message))

    def prepare(self, message: PointCloud2) -> Frame:
        """This cloud, ready to be paired; the next ones may be paired with it.

        Raises:
            Dropped: it can't be, and why.
        """
        if self._reset.is_set():
            self._reset.clear()
            self._begin_anew()
        start = time.perf_counter()
        cloud = _decoded(message)
        self._check_stamp(message)
        if not is_return(cloud.points).any():
            return self._nothing_seen(message, cloud)
        frame = self._place(message, cloud, decoding=time.perf_counter() - start)
        previous = self._history.newest
        fault = None if previous is None else self._fault(previous, frame)
        if fault is not None or (previous is not None and previous.source != frame.source):
            self._history.clear()
            previous = None
        previous, frame = self._compensated(previous, frame)
        with self._health.stage("ground"):
            if previous is not None and previous.sweep.is_ground is None:
                self._history.replace_newest(self._marked(previous))
            frame = self._marked(frame)
        self._history.add(frame, reach_ns=2 * self._interval_ns)
        if fault is not None:
            raise fault
        return frame

    def estimate(self, frame: Frame) -> Velocities | None:
        """The velocities that follow from this cloud and the one about `pair_interval` before; None when there is none.

        Raises:
            Dropped: the student failed.
        """
        current = self._settings().flow_target == "current"
        if frame.sweep.world_SE3_ego is None:  # nothing seen
            return self._without_estimate(frame) if current else None
        series = self._history.series  # now, as it may end while the student works
        partner = self._history.partner_of(frame, self._interval_ns)
        if partner is None:
            return None
        target, other = (frame, partner) if current else (partner, frame)
        start = time.perf_counter()
        try:
            pair = make_pair(target.sweep, other.sweep)
            flow = self._estimate_flow(pair)
        except StudentFailed as error:
            raise Dropped(Problem.STUDENT_FAILED, f"{frame.name}: {error}") from error
        around = time.perf_counter() - start - self._student.seconds
        if self._verifies:
            with self._health.stage("verify"):
                flow = verify_flow(flow, pair)
        start = time.perf_counter()
        in_vehicle = flow.velocity
        velocity = target.vehicle_SE3_cloud.inverse().rotate(in_vehicle)
        self._health.took("inference", self._student.seconds)
        self._health.took("pair", around + time.perf_counter() - start)
        return Velocities(target, velocity, in_vehicle, flow.status, series)

    @property
    def _interval_ns(self) -> int:
        return round(self._settings().pair_interval * 1e9)

    def _begin_anew(self) -> None:
        self._history.clear()
        self._newest_ns, self._num_late = None, 0
        if self._odometry is not None:
            self._odometry.reset()

    def _check_stamp(self, message: PointCloud2) -> None:
        stamp_ns = nanoseconds(message.header.stamp)
        if self._newest_ns is not None:
            passed_ns = stamp_ns - self._newest_ns
            if passed_ns == 0:
                raise Dropped(Problem.DUPLICATE_STAMP, f"{named(message)} has the stamp of the one before")
            if -_LATE_NS < passed_ns < 0 and self._num_late < _MOST_LATE:
                self._num_late += 1
                text = f"{named(message)} is {-passed_ns * 1e-9:.3f} s older than one that came before it"
                raise Dropped(Problem.OUT_OF_ORDER, text)
            if passed_ns < 0:
                text = f"{named(message)} is {-passed_ns * 1e-9:.3f} s older than the one before: starting anew"
                self._health.problem(Problem.TIME_JUMP, text)
                self._begin_anew()
        self._newest_ns, self._num_late = stamp_ns, 0

    def _nothing_seen(self, message: PointCloud2, cloud: Cloud) -> Frame:
        """A cloud without a single return still gets its answer, but is no partner for the next."""
        text = f"{named(message)} has {len(cloud)} points, all of them zero or not finite"
        self._health.problem(Problem.NO_POINTS, text)
        nowhere = np.full((len(cloud), 3), np.nan, dtype=np.float32)
        return Frame(message, cloud, Sweep(nowhere, nanoseconds(message.header.stamp)), SE3.identity(), "none")

    def _without_estimate(self, frame: Frame) -> Velocities:
        status = np.full(len(frame.cloud), Status.NOT_FINITE, dtype=np.uint8)
        nowhere = frame.sweep.points
        return Velocities(frame, nowhere, nowhere, status, self._history.series)

    def _place(self, message: PointCloud2, cloud: Cloud, decoding: float) -> Frame:
        """The cloud in the vehicle frame, with the vehicle's pose; it took `decoding` seconds up to here."""
        stamp_ns = nanoseconds(message.header.stamp)
        with self._health.stage("ego_motion"):
            try:
                place = self._ego_motion.locate(stamp_ns, message.header.frame_id)
            except NoPose as error:
                raise Dropped(Problem.NO_EGO_MOTION, f"{named(message)} has no ego motion: {error}") from error
        if place.source != "kiss_icp":
            self._health.ego_motion_known()
        self._health.facts["ego_motion"] = place.source
        # The offset makes a vehicle frame of its own, so that ego motion stays exact on slopes as well.
        raised_m = self._offset(cloud, place.vehicle_SE3_cloud)
        raised = SE3(np.eye(3), np.array([0.0, 0.0, raised_m]))
        vehicle_SE3_cloud = raised @ place.vehicle_SE3_cloud
        start = time.perf_counter()
        sweep = to_sweep(cloud, stamp_ns, None, vehicle_SE3_cloud)
        self._health.took("decode", decoding + time.perf_counter() - start)
        frame = Frame(message, cloud, sweep, vehicle_SE3_cloud, place.source, raised_m=raised_m)
        if place.world_SE3_vehicle is None:
            world_SE3_ego = self._registered(frame)
        else:
            world_SE3_ego = place.world_SE3_vehicle @ raised.inverse()
        return replace(frame, sweep=replace(sweep, world_SE3_ego=world_SE3_ego))

    def _registered(self, frame: Frame) -> SE3:
        """The pose that the clouds tell."""
        previous = self._history.newest
        if previous is None or previous.source != frame.source or not previous.same_mount(frame):
            self._odometry.reset()
        with self._health.stage("odometry"):
            try:
                pose = self._odometry.register(frame.sweep)
            except OdometryFailed as error:
                self._history.clear()
                raise Dropped(Problem.NO_EGO_MOTION, f"{frame.name} has no ego motion: {error}") from error
        self._health.ego_motion_known()
        return pose

    def _offset(self, cloud: Cloud, vehicle_SE3_cloud: SE3) -> float:
        """Metres that clouds are raised by, so that the ground lies where the student knows it."""
        settings = self._settings()
        asked = settings.z_offset, settings.estimate_z_offset
        if asked != self._asked or not _alike(vehicle_SE3_cloud, self._looked_from):  # what was estimated is void
            if self._estimated_z_offset != 0 or (self._asked is not None and asked != self._asked):
                self._history.clear()
            self._asked, self._looked_from = asked, vehicle_SE3_cloud
            self._estimated_z_offset, self._ground_trials = 0.0, _GROUND_TRIALS
            self._health.facts.pop("z_offset", None)
        if self._ground_trials > 0:
            self._look_at_ground(vehicle_SE3_cloud.transform(cloud.points)[is_return(cloud.points)], settings)
        return settings.z_offset or self._estimated_z_offset

    def _look_at_ground(self, points: np.ndarray, settings: Settings) -> None:
        """Once for a mounting, as soon as there is ground to be seen: is it where the student saw it in training?"""
        ground_z = ground_z_of([Sweep(points, 0)])
        self._ground_trials = 0 if ground_z is not None else self._ground_trials - 1
        if ground_z is None:
            return
        expected = self._student.metadata.get("ground_z", GROUND_Z)
        wanted = offset_to(expected, ground_z, _GROUND_TOLERANCE)
        if abs(expected - ground_z - settings.z_offset) <= _GROUND_TOLERANCE:
            return
        where = f"the ground lies at z = {ground_z + settings.z_offset:.2f} m, the student knows it at {expected:.2f} m"
        if settings.z_offset == 0 and settings.estimate_z_offset:
            self._estimated_z_offset = wanted
            self._history.clear()
            self._health.facts["z_offset"] = f"{wanted:.2f} (estimated)"
            self._health.warn_once(
                f"{where}: clouds are raised by {wanted:.2f} m from here on (say it yourself with the parameter "
                "z_offset, or publish the sensor's mounting on /tf_static)"
            )
        else:
            self._health.warn_once(
                f"{where} and will see little: clouds must be in the vehicle frame; publish the sensor's mounting on "
                f"/tf_static, or set the parameter z_offset to {wanted:.2f}"
            )

    def _compensated(self, previous: Frame | None, frame: Frame) -> tuple[Frame | None, Frame]:
        """Both with the vehicle's motion during the sweep taken out; of a first cloud, the second one tells it."""
        choice = self._settings().deskew
        if not deskews(choice, frame.source):
            return previous, frame
        if frame.sweep.time_offset_ns is None:
            if choice == "always":
                self._health.warn_once("deskew is set, but clouds have no times of points (t, time or timestamp)")
            return previous, frame
        if previous is None:
            return None, replace(frame, skewed=True)
        with self._health.stage("deskew"):
            interval_ns = previous.sweep.stamp_ns - frame.sweep.stamp_ns
            motion = frame.sweep.world_SE3_ego.inverse() @ previous.sweep.world_SE3_ego
            if previous.skewed:
                sweep = replace(deskew(previous.sweep, motion.inverse(), -interval_ns), is_ground=None)
                previous = replace(previous, sweep=sweep, skewed=False)
            return previous, replace(frame, sweep=deskew(frame.sweep, motion, interval_ns))

    def _marked(self, frame: Frame) -> Frame:
        """The frame with ground marked."""
        return replace(frame, sweep=mark_ground(frame.sweep, self._rule))

    def _fault(self, previous: Frame, frame: Frame) -> Dropped | None:
        """Why nothing can be said of the motion between the two, if so."""
        seconds = (frame.sweep.stamp_ns - previous.sweep.stamp_ns) * 1e-9
        max_gap = self._settings().max_gap
        if seconds > max_gap:
            text = f"{frame.name} comes {seconds:.3f} s after the one before, more than max_gap ({max_gap} s)"
            return Dropped(Problem.GAP, f"{text}: starting anew")
        if not previous.same_mount(frame):
            return Dropped(Problem.FRAME_CHANGED, f"{frame.name} has another frame or mounting than the one before")
        if previous.source != frame.source:
            return None  # two worlds; the one who switched has told
        if frame.source == "kiss_icp" and self._odometry.num_sweeps <= 1:
            text = f"{frame.name}: KISS-ICP knows no motion up to here and starts anew"
            return Dropped(Problem.NO_EGO_MOTION, text)
        step = math.dist(frame.sweep.world_SE3_ego.translation, previous.sweep.world_SE3_ego.translation)
        if step > _FASTEST * seconds:
            return Dropped(Problem.EGO_MOTION_JUMP, f"{frame.name}: the vehicle moved {step:.1f} m in {seconds:.3f} s")
        return None


class _Timed:
    """A student, and how many seconds it took last."""

    def __init__(self, student) -> None:
        self._student = student
        self.seconds = 0.0

    @property
    def metadata(self) -> dict:
        return getattr(self._student, "metadata", {})

    @property
    def network(self):
        return getattr(self._student, "network", None)

    def flow(self, pc0: np.ndarray, pc1: np.ndarray) -> np.ndarray:
        start = time.perf_counter()
        flow = self._student.flow(pc0, pc1)
        self.seconds = time.perf_counter() - start
        return flow


def _alike(mount: SE3, other: SE3 | None) -> bool:
    """Whether the ground is at one height with both, more or less: transforms may arrive after the first clouds."""
    return other is not None and np.allclose(mount.matrix, other.matrix, atol=_MOUNT_TOLERANCE)


def _decoded(message: PointCloud2) -> Cloud:
    try:
        return decode(message)
    except CloudError as error:
        raise Dropped(Problem.MALFORMED, f"{named(message)}: {error}") from error


def new_odometry(settings: Settings, kind: type[_Kind]) -> _Kind | None:
    """KISS-ICP where it may be asked; with auto it may be missing, which is the ego motion's to say."""
    if settings.ego_motion not in ("auto", "kiss_icp") or kiss_icp_missing() is not None:
        return None
    return kind(max_range=settings.kiss_icp_range, deskew=deskews(settings.deskew, "kiss_icp"))
