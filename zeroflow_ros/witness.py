"""A third participant that sees what goes into the flow node and what comes out, as any subscriber would."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header
from visualization_msgs.msg import Marker, MarkerArray

from zeroflow_core.evaluation.errors import DYNAMIC_SPEED, FlowErrors
from zeroflow_core.objects import MovingObject
from zeroflow_core.pairs import Status
from zeroflow_ros.messages.clouds import nanoseconds
from zeroflow_ros.messages.fallback import read_points

Truth = Callable[[int], "np.ndarray | None"]  # stamp in ns → velocity over ground (N,3) in m/s, if known


@dataclass(frozen=True)
class Shot:
    """One sweep as the node published it.

    points, velocity: (N,3) float32, metres and m/s over ground, in the cloud's frame
    objects:          from its markers
    num_moving:       points of at least 0.5 m/s
    """

    stamp_ns: int
    points: np.ndarray
    velocity: np.ndarray
    objects: list[MovingObject]
    num_moving: int


class Witness(Node):
    """Subscribes `points`, `flow`, `markers`, `processed` and /diagnostics, and keeps figures, not clouds.

    num_processed: clouds the node is done with
    rows:          rows of each flow message, by stamp in ns
    latencies:     seconds from the cloud to its flow, both as they arrived here
    num_objects:   moving objects in each marker message
    facts:         the node's newest diagnostics, by key
    errors:        of what was published, in metres per interval, points that the node calls ground left out
    best:          the sweep with most motion, one with objects if there is any; None before the first flow

    truth:    see Truth
    interval: seconds between a sweep and the one before, by stamp in ns; for `errors`
    """

    def __init__(self, truth: Truth, interval: dict[int, float]) -> None:
        super().__init__("demo")
        self.num_processed = 0
        self.rows: dict[int, int] = {}
        self.latencies: list[float] = []
        self.num_objects: list[int] = []
        self.facts: dict[str, str] = {}
        self.errors = FlowErrors()
        self.best: Shot | None = None
        self.last_flow = self.last_diagnosis = 0.0
        self._truth, self._interval = truth, interval
        self._latest: Shot | None = None
        self._arrived: dict[int, float] = {}
        # Looking into messages takes longer than receiving them and must not delay the next one's time.
        self._analyst = ThreadPoolExecutor(max_workers=1)
        self._analyses: list[Future] = []

        latched = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.create_subscription(Header, "processed", self._on_processed, latched)
        self.create_subscription(PointCloud2, "flow", self._on_flow, 10)
        self.create_subscription(MarkerArray, "markers", self._on_markers, 10)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    def finish(self) -> None:
        """Wait for what is still being looked into; raises what went wrong in it."""
        for analysis in self._analyses:
            analysis.result()
        self._analyst.shutdown()

    def _on_points(self, message: PointCloud2) -> None:
        self._arrived[nanoseconds(message.header.stamp)] = time.monotonic()

    def _on_processed(self, header: Header) -> None:
        # Only now: a replay starts with its first subscriber, which has to be the flow node.
        if self.num_processed == 0:
            self.create_subscription(PointCloud2, "points", self._on_points, qos_profile_sensor_data)
        self.num_processed += 1

    def _on_flow(self, message: PointCloud2) -> None:
        self.last_flow = time.monotonic()
        stamp_ns = nanoseconds(message.header.stamp)
        if stamp_ns in self._arrived:
            self.latencies.append(self.last_flow - self._arrived.pop(stamp_ns))
        self.rows[stamp_ns] = message.width * message.height
        self._analyses.append(self._analyst.submit(self._look_at_flow, message))

    def _on_markers(self, message: MarkerArray) -> None:
        self._analyses.append(self._analyst.submit(self._look_at_markers, message))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name.endswith("flow_node: flow"):
                self.last_diagnosis = time.monotonic()
                self.facts = {entry.key: entry.value for entry in status.values}

    def _look_at_flow(self, message: PointCloud2) -> None:
        columns = read_points(message)
        points = np.stack([columns[name] for name in ("x", "y", "z")], axis=1)
        velocity = np.stack([columns[name] for name in ("vx", "vy", "vz")], axis=1)
        stamp_ns = nanoseconds(message.header.stamp)
        with np.errstate(invalid="ignore"):
            num_moving = int((columns["speed"] >= DYNAMIC_SPEED).sum())
        self._latest = Shot(stamp_ns, points, velocity, [], num_moving)
        self._propose(self._latest)

        truth, interval = self._truth(stamp_ns), self._interval.get(stamp_ns)
        if truth is not None and interval is not None:
            scored = columns["status"] != Status.GROUND
            self.errors.add(velocity[scored] * interval, truth[scored] * interval, interval)

    def _look_at_markers(self, message: MarkerArray) -> None:
        objects = objects_of(message)
        self.num_objects.append(len(objects))
        shot = self._latest
        if objects and shot is not None and nanoseconds(message.markers[0].header.stamp) == shot.stamp_ns:
            self._propose(Shot(shot.stamp_ns, shot.points, shot.velocity, objects, shot.num_moving))

    def _propose(self, shot: Shot) -> None:
        def worth(one: Shot) -> tuple[bool, int]:
            return bool(one.objects), one.num_moving

        if self.best is None or worth(shot) > worth(self.best):
            self.best = shot


def objects_of(message: MarkerArray) -> list[MovingObject]:
    """The objects that boxes and arrows with the same id stand for; how many points they had is not told."""
    added = [marker for marker in message.markers if marker.action == Marker.ADD]
    boxes = {marker.id: marker for marker in added if marker.type == Marker.CUBE}
    arrows = {marker.id: marker for marker in added if marker.type == Marker.ARROW}
    objects = []
    for number in sorted(boxes.keys() & arrows.keys()):
        box, (tail, tip) = boxes[number], arrows[number].points
        place, turn = box.pose.position, box.pose.orientation
        objects.append(
            MovingObject(
                centre=np.array([place.x, place.y, place.z]),
                size=np.array([box.scale.x, box.scale.y, box.scale.z]),
                yaw=float(2 * np.arctan2(turn.z, turn.w)),
                velocity=np.array([tip.x - tail.x, tip.y - tail.y, tip.z - tail.z]),
                num_points=0,
            )
        )
    return objects
