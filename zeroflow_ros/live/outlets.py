"""What the node publishes about clouds, and who wants it."""

from __future__ import annotations

import time

from nav_msgs.msg import Path
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Float64, Header
from visualization_msgs.msg import MarkerArray

from zeroflow_core.tracking import Track
from zeroflow_ros.live.health import Health
from zeroflow_ros.live.pipeline import Velocities
from zeroflow_ros.live.surroundings import Surroundings
from zeroflow_ros.messages.clouds import flow_message, nanoseconds
from zeroflow_ros.messages.markers import MarkerWriter, flow_lines
from zeroflow_ros.messages.objects_cloud import objects_cloud
from zeroflow_ros.parameters.settings import Settings


class Outlets:
    """The managed publishers of a configured node: silent until it is active.

    Topics: ``flow``, ``markers``, ``processed``, ``~/objects``, ``~/map``, ``~/path``, ``~/debug/processing_time_ms``
    and ``~/debug/pipeline_latency_ms``. Parameters can override the QoS of each (qos_overrides.<topic>.publisher.…).
    """

    def __init__(self, node: LifecycleNode, health: Health) -> None:
        self._node, self._health = node, health
        self._writer = MarkerWriter()
        # Latched, so that a replay that has only just been discovered misses no answer.
        latched = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._publishers = []
        try:
            self._make_publishers(latched)
        except Exception:  # of QoS that the middleware refuses, for one
            self.destroy()
            raise

    def _make_publishers(self, latched: QoSProfile) -> None:
        self._flow = self._publisher(PointCloud2, "flow", QoSProfile(depth=5))
        self._markers = self._publisher(MarkerArray, "markers", QoSProfile(depth=5))
        self._processed = self._publisher(Header, "processed", latched)
        self._objects = self._publisher(PointCloud2, "~/objects", QoSProfile(depth=5))
        self._map = self._publisher(PointCloud2, "~/map", QoSProfile(depth=1))
        self._path = self._publisher(Path, "~/path", QoSProfile(depth=5))
        self._time = self._publisher(Float64, "~/debug/processing_time_ms", QoSProfile(depth=5))
        self._latency = self._publisher(Float64, "~/debug/pipeline_latency_ms", QoSProfile(depth=5))

    def destroy(self) -> None:
        for publisher in self._publishers:
            self._node.destroy_lifecycle_publisher(publisher)

    def wants_flow(self) -> bool:
        return self._flow.get_subscription_count() > 0

    def wants_objects(self) -> bool:
        return self._markers.get_subscription_count() + self._objects.get_subscription_count() > 0

    def wants_surroundings(self) -> bool:
        return self._map.get_subscription_count() + self._path.get_subscription_count() > 0

    def publish_flow(self, result: Velocities, settings: Settings) -> None:
        """The velocity of every point, if anybody listens."""
        if not self.wants_flow():
            return
        with self._health.stage("encode"):
            message = flow_message(
                result.message,
                result.cloud,
                result.velocity,
                result.status,
                settings.output_fields,
                velocity_in_vehicle=result.velocity_in_vehicle,
                min_speed=settings.min_speed,
            )
        with self._health.stage("publish"):
            self._flow.publish(message)

    def publish_times(self, result: Velocities, arrived: float) -> None:
        """How long it took since the cloud arrived (at `arrived`, of time.perf_counter), and since its stamp."""
        seconds = time.perf_counter() - arrived
        self._health.took("total", seconds)
        self._time.publish(Float64(data=seconds * 1e3))
        since_ns = self._node.get_clock().now().nanoseconds - nanoseconds(result.message.header.stamp)
        self._latency.publish(Float64(data=since_ns * 1e-6))

    def publish_objects(self, result: Velocities, tracks: list[Track], min_speed: float) -> None:
        """What moves, as markers and as a cloud of objects, to whoever listens; `tracks` are in the vehicle frame."""
        header, cloud_SE3_vehicle = result.message.header, result.frame.vehicle_SE3_cloud.inverse()
        if self._markers.get_subscription_count() > 0:
            lines = flow_lines(
                header, result.cloud.points, result.velocity, min_speed, velocity_in_vehicle=result.velocity_in_vehicle
            )
            self._markers.publish(self._writer.message(header, tracks, lines, cloud_SE3_vehicle))
        if self._objects.get_subscription_count() > 0:
            self._objects.publish(objects_cloud(header, tracks, cloud_SE3_vehicle))

    def publish_surroundings(self, result: Velocities, settings: Settings, surroundings: Surroundings) -> None:
        """Where the vehicle has been, and what stands still there, to whoever listens."""
        if not surroundings.take(result):
            return
        if self._path.get_subscription_count() > 0:
            self._path.publish(surroundings.path(result))
        if self._map.get_subscription_count() > 0:
            self._map.publish(surroundings.map(result, settings))

    def publish_processed(self, header: Header) -> None:
        """Nothing more will come of the cloud with this header."""
        self._processed.publish(header)

    def _publisher(self, kind: type, topic: str, qos: QoSProfile):
        overridable = QoSOverridingOptions.with_default_policies()
        publisher = self._node.create_lifecycle_publisher(kind, topic, qos, qos_overriding_options=overridable)
        self._publishers.append(publisher)
        return publisher
