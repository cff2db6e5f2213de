"""The flow node: clouds in, the velocity of every point out. What it computes is in pipeline.py.

Two threads share the work. The executor's receives messages and is never kept waiting; the worker's takes the
newest clouds through the pipeline and publishes. When clouds come faster than the student is, the newest is
paired with the one just before it and those in between are left out.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from typing import NoReturn

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from nav_msgs.msg import Odometry
from rclpy.clock import Clock, ClockType
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header
from visualization_msgs.msg import MarkerArray

from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.ground import GroundRule, ground_rule, mark_ground
from zeroflow_core.pairs import Status, Sweep
from zeroflow_ros import dds, parameters
from zeroflow_ros.clouds import flow_message
from zeroflow_ros.diagnostics import Health, Problem
from zeroflow_ros.ego_motion import EgoMotion
from zeroflow_ros.fallback import TFMessage
from zeroflow_ros.markers import marker_array
from zeroflow_ros.pipeline import Dropped, Pipeline, Velocities
from zeroflow_ros.process import StopSignal, run

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks


class FlowNode(Node):
    """Subscribes `points` and `odom` (and /tf, /tf_static), publishes `flow`, `markers`, `processed`, /diagnostics.

    Raises:
        ZeroFlowError: a parameter or the checkpoint cannot be used.
    """

    def __init__(self) -> None:
        super().__init__("flow_node")
        self._settings = parameters.declare(self)
        self._health = Health(self.get_logger(), self.get_fully_qualified_name().lstrip("/"))
        self._clusters = _ClusteringLoader(self._health)
        student = self._load_student()
        rule = self._choose_ground(student)
        _warm_up(student, rule)
        self._ego_motion = EgoMotion(
            self._settings.ego_motion,
            timeout=self._settings.ego_motion_timeout,
            odom_frame=self._settings.odom_frame,
            base_frame=self._settings.base_frame,
            odom_published=lambda: self.count_publishers("odom") > 0,
            on_bad=lambda text: self._health.problem(Problem.BAD_ODOMETRY, text),
            warn_once=self._health.warn_once,
            tf_possible=TFMessage is not None,
        )
        self._pipeline = Pipeline(student, rule, self._settings, self._ego_motion, self._health)
        self._inbox = _Inbox()
        self._worker = threading.Thread(target=self._work, name="flow", daemon=True)
        self._advertise()
        self._worker.start()
        self._subscribe()
        self.get_logger().info("ready: " + ", ".join(f"{k} {v}" for k, v in self._health.facts.items()))

    def stop(self, patience: float) -> None:
        """End the worker, waiting `patience` seconds for it."""
        self._inbox.close()
        self._ego_motion.stop()
        self._worker.join(patience)

    def _load_student(self):
        from zeroflow_core import load_student

        settings = self._settings
        if settings.engine == "fast":
            self.get_logger().info("preparing the student; the first time on a machine this takes some ten seconds")
        student = load_student(
            settings.checkpoint, device=settings.device, engine=settings.engine, precision=settings.precision
        )
        self._health.facts["checkpoint"] = str(student.metadata.get("name", settings.checkpoint))
        self._health.facts["device"] = str(student.device)
        self._health.facts["engine"] = student.engine
        self._health.facts["precision"] = student.precision
        self._health.facts["streaming"] = settings.streaming
        return student

    def _choose_ground(self, student) -> GroundRule:
        trained = student.metadata.get("ground", "patchwork")
        # A map raster is for logs only; live, Patchwork++ comes closest to it.
        name = {"none": "none"}.get(trained, "patchwork") if self._settings.ground == "auto" else self._settings.ground
        self._health.facts["ground"] = name if name == trained else f"{name} (trained with {trained})"
        return ground_rule(name)

    def _advertise(self) -> None:
        self._flow = self.create_publisher(PointCloud2, "flow", 5)
        self._markers = self.create_publisher(MarkerArray, "markers", 5)
        # Latched, so that a replay that has only just been discovered misses no answer.
        latched = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._processed = self.create_publisher(Header, "processed", latched)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # Wall time, as a simulated clock may stand still just when one wants to know.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1.0, lambda: self._diagnostics.publish(self._health.report(self._now())), clock=steady)

    def _subscribe(self) -> None:
        """Clouds last: whoever sees that subscription may rely on the others."""
        mode = self._settings.ego_motion
        self._health.facts["ego_motion"] = mode
        self._health.facts["flow_target"] = self._settings.flow_target
        overridable = QoSOverridingOptions.with_default_policies()
        if mode in ("auto", "odom"):
            many = QoSProfile(depth=200, reliability=ReliabilityPolicy.BEST_EFFORT)
            self.create_subscription(
                Odometry, "odom", self._ego_motion.add_odometry, many, qos_overriding_options=overridable
            )
        if TFMessage is not None:
            latched = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
            self.create_subscription(TFMessage, "/tf_static", self._on_tf_static, latched)
            if mode in ("auto", "tf"):
                self.create_subscription(TFMessage, "/tf", self._on_tf, QoSProfile(depth=100))
        elif mode == "tf":
            raise ZeroFlowError("ego_motion tf needs tf2_msgs, which is not installed: use odom, or a ROS installation")
        self.create_subscription(
            PointCloud2,
            "points",
            self._on_cloud,
            qos_profile_sensor_data,
            event_callbacks=SubscriptionEventCallbacks(message_lost=self._on_lost),
            qos_overriding_options=overridable,
        )

    def _on_tf(self, message) -> None:
        self._ego_motion.add_transforms(message.transforms, static=False)

    def _on_tf_static(self, message) -> None:
        self._ego_motion.add_transforms(message.transforms, static=True)

    def _on_lost(self, event) -> None:
        text = "clouds got lost on their way here"
        if os.environ.get("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp").startswith("rmw_fastrtps"):
            text += f": {dds.advice()}"
        self._health.problem(Problem.LOST_IN_TRANSPORT, text, event.total_count_change)

    def _on_cloud(self, message: PointCloud2) -> None:
        self._health.cloud_received()
        for pushed_out in self._inbox.put(message):
            self._skip(pushed_out)
            self._processed.publish(pushed_out.header)

    def _skip(self, message: PointCloud2) -> None:
        text = "clouds come faster than they can be processed: the newest are served, others left out"
        self._health.problem(Problem.SKIPPED_BUSY, text)

    def _work(self) -> None:
        while True:
            arrivals = self._inbox.take()
            if not arrivals:
                return
            for received, message in arrivals:
                self._answer(message, received, newest=message is arrivals[-1][1])

    def _answer(self, message: PointCloud2, received: float, newest: bool) -> None:
        """Take one cloud through the pipeline; whatever comes of it, `processed` tells that it is done."""
        try:
            if not newest:
                self._skip(message)
            result = self._pipeline.feed(message, estimate=newest)
            if result is not None:
                self._publish(result)
                self._health.took("total", time.perf_counter() - received)
                self._publish_markers(result)
        except Dropped as why:
            self._health.problem(why.problem, str(why))
        except Exception as error:  # one bad cloud must not end the node; the log and a counter tell
            self._pipeline.reset()
            self._health.problem(Problem.INTERNAL_ERROR, f"a cloud failed: {type(error).__name__}: {error}")
        self._processed.publish(message.header)

    def _publish(self, result: Velocities) -> None:
        with self._health.stage("publish"):
            self._flow.publish(flow_message(result.message, result.cloud, result.velocity, result.status))
        self._health.count("flows_published")

    def _publish_markers(self, result: Velocities) -> None:
        if not self._clusters.ready or self._markers.get_subscription_count() == 0:
            return
        from zeroflow_core.objects import moving_objects

        settings = self._settings
        with self._health.stage("markers"):
            moved = result.status == Status.OK
            objects = moving_objects(
                result.cloud.points[moved],
                result.velocity[moved],
                min_speed=settings.min_speed,
                min_points=settings.min_points,
            )
            self._markers.publish(marker_array(result.message.header, objects))

    def _now(self):
        return self.get_clock().now().to_msg()


class _Inbox:
    """The two newest clouds, each with the time it arrived; older ones are pushed out."""

    def __init__(self) -> None:
        self._arrived: deque[tuple[float, PointCloud2]] = deque()
        self._closed = False
        self._news = threading.Condition()

    def put(self, message: PointCloud2) -> list[PointCloud2]:
        """Returns what had to go for it."""
        with self._news:
            self._arrived.append((time.perf_counter(), message))
            pushed_out = [self._arrived.popleft()[1]] if len(self._arrived) > 2 else []
            self._news.notify()
        return pushed_out

    def take(self) -> list[tuple[float, PointCloud2]]:
        """All that is there, oldest first, as soon as there is something; nothing once the inbox is closed."""
        with self._news:
            self._news.wait_for(lambda: self._arrived or self._closed)
            taken = [] if self._closed else list(self._arrived)
            self._arrived.clear()
        return taken

    def close(self) -> None:
        with self._news:
            self._closed = True
            self._news.notify()


class _ClusteringLoader:
    """Imports open3d, which takes seconds and may be missing, beside the node's start."""

    def __init__(self, health: Health) -> None:
        self.ready = False
        self._health = health
        threading.Thread(target=self._load, name="open3d", daemon=True).start()

    def _load(self) -> None:
        try:
            import open3d  # noqa: F401
        except (ImportError, OSError) as error:
            self._health.warn_once(f"no markers, as open3d cannot be imported ({error}): pip install 'open3d==0.19.0'")
        else:
            self.ready = True


def _warm_up(student, rule: GroundRule) -> None:
    """The first call of everything is slow, or fails: better now than with the first cloud."""
    points = np.random.default_rng(0).uniform([-20, -20, -1], [20, 20, 1], (2000, 3)).astype(np.float32)
    mark_ground(Sweep(points, 0), rule)
    student.flow(points, points)


def main(args: list[str] | None = None) -> NoReturn:
    # The environment of this shell is most likely that of the LiDAR driver too.
    warning = dds.missing_profile()

    def body(stop: StopSignal) -> int:
        node = FlowNode()
        if warning is not None:
            node.get_logger().warning(warning)
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        stop.wait_for_it()
        while not stop.requested:
            executor.spin_once(timeout_sec=0.1)
        node.stop(patience=0.5)
        return 0

    run("flow_node", body, args)


if __name__ == "__main__":
    main()
