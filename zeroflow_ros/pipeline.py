"""From one cloud message after another to velocities: the stages of the flow node, without any topic.

``PointCloud2 → decode → where was the vehicle → ground → pair with the cloud before → student → velocities``
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from sensor_msgs.msg import PointCloud2

from zeroflow_core.datasets.point_cloud2 import Cloud, CloudError, decode, is_return
from zeroflow_core.ego_motion import KissOdometry, deskew
from zeroflow_core.fastflow3d.anchored import flow_estimator
from zeroflow_core.geometry import SE3
from zeroflow_core.ground import GROUND_Z, GroundRule, estimate_ground_z, mark_ground
from zeroflow_core.pairs import Status, Sweep, make_pair
from zeroflow_ros.clouds import nanoseconds, to_sweep
from zeroflow_ros.diagnostics import Health, Problem
from zeroflow_ros.ego_motion import EgoMotion, NoPose
from zeroflow_ros.parameters import Settings

_FASTEST = 100.0  # m/s; a vehicle that is faster has an odometry that jumped
_GROUND_TOLERANCE = 0.7  # metres
_GROUND_TRIALS = 20  # clouds; without ground in them there is nothing to check


class Dropped(Exception):
    """No flow for this cloud, and why."""

    def __init__(self, problem: Problem, text: str) -> None:
        super().__init__(text)
        self.problem = problem


@dataclass(frozen=True)
class Frame:
    """A cloud that is ready to be paired.

    message, cloud:    as it came, and decoded
    sweep:             its points in the vehicle frame, ground marked
    vehicle_SE3_cloud: from the message's frame into the sweep's
    skewed:            the motion that is to be taken out of its points is not known before the next cloud
    """

    message: PointCloud2
    cloud: Cloud
    sweep: Sweep
    vehicle_SE3_cloud: SE3
    skewed: bool = False


@dataclass(frozen=True)
class Velocities:
    """What the node publishes about one cloud.

    message, cloud: the cloud it is about, N points
    velocity:       (N,3) float32, m/s over ground, in the message's frame; 0 on ground, NaN without estimate
    status:         (N,) uint8, a zeroflow_core.pairs.Status for each point
    """

    message: PointCloud2
    cloud: Cloud
    velocity: np.ndarray
    status: np.ndarray


class Pipeline:
    """Keeps the cloud before between two clouds, and KISS-ICP's map where clouds tell the vehicle's motion.

    student: anything with ``flow(pc0, pc1)`` and ``metadata``
    rule:    marks ground

    Raises:
        ZeroFlowError: KISS-ICP is asked for and not installed.
    """

    def __init__(
        self, student, rule: GroundRule, settings: Settings, ego_motion: EgoMotion, health: Health
    ) -> None:
        self._student = student
        self._estimate_flow = flow_estimator(student, settings.streaming)
        self._rule = rule
        self._settings = settings
        self._ego_motion = ego_motion
        self._health = health
        self._odometry = KissOdometry(deskew=settings.deskew) if settings.ego_motion == "kiss_icp" else None
        self._previous: Frame | None = None
        self._ground_trials = _GROUND_TRIALS

    def reset(self) -> None:
        """Forget the clouds before."""
        self._previous = None
        if self._odometry is not None:
            self._odometry.reset()

    def feed(self, message: PointCloud2, estimate: bool = True) -> Velocities | None:
        """The velocities that follow from this cloud and the one before; None for the first of a series.

        Without `estimate` the cloud only becomes the one before, which spares the network.

        Raises:
            Dropped: there can be none, and why. The next good cloud is served again.
        """
        cloud = self._decode(message)
        self._check_stamp(message)
        if not is_return(cloud.points).any():
            return self._nothing_seen(message, cloud)
        previous, frame, fault = self._place(message, cloud)
        self._check_ground_height(frame.sweep)
        self._previous = frame
        if previous is None or not estimate:
            return None
        if fault is not None:
            raise fault
        with self._health.stage("inference"):
            current = self._settings.flow_target == "current"
            return self._estimate(frame, previous) if current else self._estimate(previous, frame)

    def _decode(self, message: PointCloud2) -> Cloud:
        try:
            with self._health.stage("decode"):
                return decode(message)
        except CloudError as error:
            raise Dropped(Problem.MALFORMED, f"{_named(message)}: {error}") from error

    def _check_stamp(self, message: PointCloud2) -> None:
        if self._previous is None:
            return
        passed_ns = nanoseconds(message.header.stamp) - self._previous.sweep.stamp_ns
        if passed_ns == 0:
            raise Dropped(Problem.DUPLICATE_STAMP, f"{_named(message)} has the stamp of the one before")
        if passed_ns < 0:
            text = f"{_named(message)} is {-passed_ns * 1e-9:.3f} s older than the one before: starting anew"
            self._health.problem(Problem.TIME_JUMP, text)
            self.reset()

    def _nothing_seen(self, message: PointCloud2, cloud: Cloud) -> Velocities | None:
        """A cloud without a single return still gets its answer, but is no partner for the next."""
        text = f"{_named(message)} has {len(cloud)} points, all of them zero or not finite"
        self._health.problem(Problem.NO_POINTS, text)
        if self._settings.flow_target == "previous":
            return None
        velocity = np.full((len(cloud), 3), np.nan, dtype=np.float32)
        return Velocities(message, cloud, velocity, np.full(len(cloud), Status.NOT_FINITE, dtype=np.uint8))

    def _place(self, message: PointCloud2, cloud: Cloud) -> tuple[Frame | None, Frame, Dropped | None]:
        """The cloud before and this one, ready to be paired, and why they can't be, if so."""
        stamp_ns = nanoseconds(message.header.stamp)
        # The offset makes a vehicle frame of its own, so that ego motion stays exact on slopes as well.
        raised = SE3(np.eye(3), np.array([0.0, 0.0, self._settings.z_offset]))
        with self._health.stage("ego_motion"):
            try:
                place = self._ego_motion.locate(stamp_ns, message.header.frame_id)
            except NoPose as error:
                raise Dropped(Problem.NO_EGO_MOTION, f"{_named(message)} has no ego motion: {error}") from error
            vehicle_SE3_cloud = raised @ place.vehicle_SE3_cloud
            sweep = to_sweep(cloud, stamp_ns, place.world_SE3_vehicle @ raised.inverse(), vehicle_SE3_cloud)
            previous, frame = self._previous, Frame(message, cloud, sweep, vehicle_SE3_cloud)
            if self._odometry is not None:
                frame = self._registered(previous, frame)
            fault = None if previous is None else self._fault(previous, frame)
            if self._settings.deskew:
                previous, frame = self._compensated(previous, frame, fault is None)
        with self._health.stage("ground"):
            if previous is not None:
                previous = self._marked(previous)
            return previous, self._marked(frame), fault

    def _registered(self, previous: Frame | None, frame: Frame) -> Frame:
        """The frame with the pose that the clouds tell."""
        if previous is None or not _same_frame(previous, frame):
            self._odometry.reset()
        return replace(frame, sweep=replace(frame.sweep, world_SE3_ego=self._odometry.register(frame.sweep)))

    def _compensated(self, previous: Frame | None, frame: Frame, known: bool) -> tuple[Frame | None, Frame]:
        """Both with the vehicle's motion during the sweep taken out; of a first cloud, the second one tells it."""
        if frame.sweep.time_offset_ns is None:
            self._health.warn_once("deskew is set, but clouds have no times of points (t, time or timestamp)")
        if previous is None or not known:
            return previous, replace(frame, skewed=True)
        interval_ns = previous.sweep.stamp_ns - frame.sweep.stamp_ns
        motion = frame.sweep.world_SE3_ego.inverse() @ previous.sweep.world_SE3_ego
        if previous.skewed:
            sweep = replace(deskew(previous.sweep, motion.inverse(), -interval_ns), is_ground=None)
            previous = replace(previous, sweep=sweep, skewed=False)
        return previous, replace(frame, sweep=deskew(frame.sweep, motion, interval_ns))

    def _marked(self, frame: Frame) -> Frame:
        """The frame with ground marked, unless it is already."""
        if frame.sweep.is_ground is not None:
            return frame
        return replace(frame, sweep=mark_ground(frame.sweep, self._rule))

    def _check_ground_height(self, sweep: Sweep) -> None:
        """Once: is the ground where the student saw it in training?"""
        if self._ground_trials == 0:
            return
        ground_z = estimate_ground_z(sweep.points)
        self._ground_trials = 0 if ground_z is not None else self._ground_trials - 1
        expected = getattr(self._student, "metadata", {}).get("ground_z", GROUND_Z)
        if ground_z is not None and abs(ground_z - expected) > _GROUND_TOLERANCE:
            self._health.warn_once(
                f"the ground lies at z = {ground_z:.2f} m, the student knows it at {expected:.2f} m and will see "
                "little: clouds must be in the vehicle frame; publish the sensor's mounting on /tf_static, or set the "
                f"parameter z_offset to {self._settings.z_offset + expected - ground_z:.2f}"
            )

    def _fault(self, previous: Frame, frame: Frame) -> Dropped | None:
        """Why nothing can be said of the motion between the two, if so."""
        seconds = (frame.sweep.stamp_ns - previous.sweep.stamp_ns) * 1e-9
        name = _named(frame.message)
        if seconds > self._settings.max_gap:
            return Dropped(
                Problem.GAP,
                f"{name} comes {seconds:.3f} s after the one before, more than max_gap ({self._settings.max_gap} s): "
                "starting anew",
            )
        if not _same_frame(previous, frame):
            return Dropped(Problem.FRAME_CHANGED, f"{name} has another frame or mounting than the one before")
        if self._odometry is not None and self._odometry.num_sweeps <= 1:
            return Dropped(Problem.NO_EGO_MOTION, f"{name}: KISS-ICP knows no motion up to here and starts anew")
        step = frame.sweep.world_SE3_ego.translation - previous.sweep.world_SE3_ego.translation
        if np.linalg.norm(step) > _FASTEST * seconds:
            return Dropped(
                Problem.EGO_MOTION_JUMP, f"{name}: the vehicle moved {np.linalg.norm(step):.1f} m in {seconds:.3f} s"
            )
        return None

    def _estimate(self, target: Frame, partner: Frame) -> Velocities:
        flow = self._estimate_flow(make_pair(target.sweep, partner.sweep))
        velocity = target.vehicle_SE3_cloud.inverse().rotate(flow.velocity)
        return Velocities(target.message, target.cloud, velocity, flow.status)


def _same_frame(previous: Frame, frame: Frame) -> bool:
    """Whether both clouds came in one frame, mounted alike."""
    same_mount = np.allclose(previous.vehicle_SE3_cloud.matrix, frame.vehicle_SE3_cloud.matrix, atol=1e-3)
    return same_mount and previous.message.header.frame_id == frame.message.header.frame_id


def _named(message: PointCloud2) -> str:
    return f"cloud at {nanoseconds(message.header.stamp) * 1e-9:.3f} s in '{message.header.frame_id}'"
