"""A third participant that sees what goes into the flow node and what comes out, as any subscriber would."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from nav_msgs.msg import Path
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header

from zeroflow_core.evaluation.errors import DYNAMIC_SPEED, FlowErrors
from zeroflow_core.moments import Moment
from zeroflow_core.pairs import Status
from zeroflow_ros.album import Album
from zeroflow_ros.messages.clouds import nanoseconds
from zeroflow_ros.messages.fallback import read_points
from zeroflow_ros.messages.moments import MomentReader

Truth = Callable[[int], "np.ndarray | None"]  # stamp in ns → velocity over ground (N,3) in m/s, if known


class Witness(Node):
    """Subscribes to the node's `points` and to all that it says of them, and keeps figures, and clouds only on disk.

    num_processed: clouds the node is done with
    rows:          rows of each flow message, by stamp in ns
    latencies:     seconds from the cloud to its flow, both as they arrived here
    num_objects:   moving objects in each message of objects
    facts:         the node's newest diagnostics, by key
    errors:        of what was published, in metres per interval, points that the node calls ground left out
    best:          the moment with most moving objects; None before the first flow

    truth:    see Truth
    interval: seconds between a sweep and the one before, by stamp in ns; for `errors`
    album:    gets the moments
    """

    def __init__(self, truth: Truth, interval: dict[int, float], album: Album) -> None:
        super().__init__("demo")
        self.num_processed = 0
        self.rows: dict[int, int] = {}
        self.latencies: list[float] = []
        self.num_objects: list[int] = []
        self.facts: dict[str, str] = {}
        self.errors = FlowErrors()
        self.best: Moment | None = None
        self.last_flow = self.last_diagnosis = 0.0
        self._truth, self._interval, self._album = truth, interval, album
        self._reader = MomentReader()
        self._arrived: dict[int, float] = {}
        # Looking into messages takes longer than receiving them and must not delay the next one's time.
        self._analyst = ThreadPoolExecutor(max_workers=1)
        self._analyses: list[Future] = []

        latched = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.create_subscription(Header, "processed", self._on_processed, latched)
        self.create_subscription(PointCloud2, "flow", self._on_flow, 10)
        self.create_subscription(PointCloud2, "flow_node/objects", self._on_objects, 10)
        self.create_subscription(Path, "flow_node/path", self._on_path, 10)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    def stop(self) -> None:
        """Look into nothing more."""
        self._analyst.shutdown(cancel_futures=True)

    def finish(self) -> None:
        """Wait for what is still being looked into; raises what went wrong in it."""
        for analysis in self._analyses:
            analysis.result()
        self._analyst.shutdown()
        self._remember(self._reader.rest())

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

    def _on_objects(self, message: PointCloud2) -> None:
        self.num_objects.append(message.width)
        self._analyses.append(self._analyst.submit(lambda: self._remember(self._reader.add_objects(message))))

    def _on_path(self, message: Path) -> None:
        self._analyses.append(self._analyst.submit(lambda: self._remember(self._reader.add_path(message))))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name.endswith("flow_node: flow"):
                self.last_diagnosis = time.monotonic()
                self.facts = {entry.key: entry.value for entry in status.values}

    def _look_at_flow(self, message: PointCloud2) -> None:
        self._remember(self._reader.add_flow(message))
        stamp_ns = nanoseconds(message.header.stamp)
        truth, interval = self._truth(stamp_ns), self._interval.get(stamp_ns)
        if truth is not None and interval is not None:
            columns = read_points(message)
            velocity = np.stack([columns[name] for name in ("vx", "vy", "vz")], axis=1)
            scored = columns["status"] != Status.GROUND
            self.errors.add(velocity[scored] * interval, truth[scored] * interval, interval)

    def _remember(self, moments: list[Moment]) -> None:
        for moment in moments:
            self._album.add(moment)
            if self.best is None or _worth(moment) > _worth(self.best):
                self.best = moment


def _worth(moment: Moment) -> tuple[int, int]:
    """Of a picture of it: how many objects are seen, and how many points move."""
    with np.errstate(invalid="ignore"):
        moving = np.einsum("ij,ij->i", moment.velocity, moment.velocity) >= DYNAMIC_SPEED**2
    return sum(not track.is_predicted for track in moment.tracks), int(moving.sum())
