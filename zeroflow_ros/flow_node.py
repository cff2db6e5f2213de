"""The flow node: clouds in, the velocity of every point and the objects that move out.

A managed node. *configure* reads the parameters and loads the student; *activate* subscribes and begins to publish.
With ``autostart`` (the default) it does both by itself. What happens to a cloud is in live/; the executor's thread,
which is this file's, only receives, and is never kept waiting.
"""

from __future__ import annotations

import gc
import os
import threading
import time
from typing import NoReturn

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from nav_msgs.msg import Odometry
from rclpy.clock import Clock, ClockType, JumpThreshold
from rclpy.duration import Duration
from rclpy.exceptions import ParameterException
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import PointCloud2

from zeroflow_core.ego_motion import OdometryApart
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.ground import GroundRule, ground_rule, mark_ground
from zeroflow_core.pairs import Sweep
from zeroflow_core.verification.flows import is_verified, prepare
from zeroflow_ros.live.ego_motion import EgoMotion
from zeroflow_ros.live.health import Health, Problem, told
from zeroflow_ros.live.outlets import Outlets
from zeroflow_ros.live.pipeline import Pipeline, new_odometry
from zeroflow_ros.live.road import Road
from zeroflow_ros.live.sources import described_input
from zeroflow_ros.live.students import NodeStudent, StudentFailed
from zeroflow_ros.live.wire import WireCounter
from zeroflow_ros.messages.clouds import nanoseconds
from zeroflow_ros.messages.fallback import TFMessage
from zeroflow_ros.parameters.declared import Parameters
from zeroflow_ros.parameters.settings import Settings, mounting_pose
from zeroflow_ros.processes import dds
from zeroflow_ros.processes.running import StopSignal, destroyed_at_end, run

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

_PATIENCE_S = 5.0  # for clouds under way when the node is deactivated
_LONGEST_END_S = 0.9  # after a signal
_TELLS_SEQUENCE = hasattr(Subscription, "CallbackType")  # callbacks may ask for the message's info: Jazzy and later


class FlowNode(LifecycleNode):
    """Subscribes `points` and `odom` (and /tf, /tf_static); publishes what live/outlets.py says, and /diagnostics.

    Raises:
        ZeroFlowError: a parameter cannot be used.
    """

    def __init__(self) -> None:
        super().__init__("flow_node")
        self._health = Health(self.get_logger(), self.get_fully_qualified_name().lstrip("/"))
        self._our_parameters = Parameters(self, on_change=self._on_change)
        self._clusters = _ClusteringLoader(self._health)
        self._student: NodeStudent | None = None
        self._rule: GroundRule | None = None
        self._outlets: Outlets | None = None
        self._ego_motion: EgoMotion | None = None
        self._odometry: OdometryApart | None = None
        self._pipeline: Pipeline | None = None
        self._road: Road | None = None
        self._listening: list[Subscription] = []
        self._wire = WireCounter(self._health.warn_once)
        # Not managed: whoever watches the node wants to know just when it does not run.
        self._diagnostics = self.create_publisher(
            DiagnosticArray, "/diagnostics", 10, qos_overriding_options=_overridable()
        )
        # Wall time, as a simulated clock may stand still just when one wants to know.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1.0, self._diagnose, clock=steady)
        backward = JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1_000_000), on_clock_change=False)
        self._clock_jumps = self.get_clock().create_jump_callback(backward, post_callback=self._on_clock_jump)

    @property
    def settings(self) -> Settings:
        return self._our_parameters.settings

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load and warm up the student, make the publishers; on failure the log says why."""
        try:
            self._configure()
        except (ZeroFlowError, StudentFailed) as error:
            return self._failed(str(error))
        except Exception as error:  # rclpy would swallow it
            return self._failed(told(error))
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Begin to publish, and to listen."""
        try:
            self._activate()
        except Exception as error:  # rclpy would swallow it
            self.get_logger().error(f"cannot be activated: {told(error)}")
            return TransitionCallbackReturn.ERROR
        self.get_logger().info("ready: " + ", ".join(f"{k} {v}" for k, v in self._health.facts.items()))
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop listening, let what is under way end, stop publishing."""
        self.stop(_PATIENCE_S)
        self._health.state = "inactive"
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let go of the student and the publishers."""
        self._release()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """As deactivate and cleanup, in a hurry."""
        self.stop(patience=0.5)
        self._release()
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Back to where it can be configured again."""
        self.stop(patience=0.5)
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def _configure(self) -> None:
        settings = self.settings
        self._health.facts.clear()
        self._health.standing.clear()
        if settings.engine == "fast":
            self.get_logger().info("preparing the student; the first time on a machine this takes some ten seconds")
        self._odometry = new_odometry(settings, OdometryApart)  # which starts while the student is loaded
        self._student = NodeStudent(lambda: self.settings, self._health)
        self._rule = self._choose_ground()
        self._health.facts["verified"] = "yes" if self._is_verified else "no"
        for name in ("streaming", "flow_target", "ego_motion"):
            self._health.facts[name] = getattr(settings, name)
        self._warm_up()
        self._ego_motion = self._new_ego_motion()
        self._outlets = Outlets(self, self._health)
        self._our_parameters.configured = True
        self._health.state = "inactive"

    def _activate(self) -> None:
        self._pipeline = Pipeline(
            self._student, self._rule, lambda: self.settings, self._ego_motion, self._health, self._odometry
        )
        self._road = Road(
            self._pipeline, self._outlets, lambda: self.settings, self._health, lambda: self._clusters.ready
        )
        _spare_the_collector()
        self._health.state = "active"
        self._subscribe()

    def _failed(self, text: str) -> TransitionCallbackReturn:
        self.get_logger().error(f"cannot be configured: {text}")
        self._release()
        return TransitionCallbackReturn.FAILURE

    def _release(self) -> None:
        if self._outlets is not None:
            self._outlets.destroy()
        if self._odometry is not None:
            self._odometry.close()
        self._outlets = self._student = self._rule = self._ego_motion = self._odometry = self._pipeline = None
        self._our_parameters.configured = False
        self._health.state = "unconfigured"
        _give_back_memory()

    def _new_ego_motion(self) -> EgoMotion:
        settings, health = self.settings, self._health
        return EgoMotion(
            settings.ego_motion,
            timeout=settings.ego_motion_timeout,
            odom_frame=settings.odom_frame,
            base_frame=settings.base_frame,
            mounting=mounting_pose(settings),
            odom_published=lambda: self._is_published("odom"),
            tf_published=lambda: self._is_published("/tf"),
            tf_possible=TFMessage is not None,
            on_bad_odometry=lambda text: health.problem(Problem.BAD_ODOMETRY, text),
            on_bad_transform=lambda text: health.problem(Problem.BAD_TRANSFORM, text),
            on_switch=lambda text: health.problem(Problem.EGO_MOTION_SWITCHED, text),
            warn_once=health.warn_once,
        )

    def _is_published(self, topic: str) -> bool:
        return self.count_publishers(self.resolve_topic_name(topic)) > 0  # which does not remap by itself

    def _choose_ground(self) -> GroundRule:
        trained = self._student.metadata.get("ground", "patchwork")
        # A map raster is for logs only; live, Patchwork++ comes closest to it.
        name = {"none": "none"}.get(trained, "patchwork") if self.settings.ground == "auto" else self.settings.ground
        self._health.facts["ground"] = name if name == trained else f"{name} (trained with {trained})"
        return ground_rule(name)

    def _warm_up(self) -> None:
        """The first call of everything is slow, or fails: better now than with the first cloud."""
        points = np.random.default_rng(0).uniform([-20, -20, -1], [20, 20, 1], (2000, 3)).astype(np.float32)
        mark_ground(Sweep(points, 0), self._rule)
        self._student.warm_up()
        if self._is_verified:
            prepare()

    @property
    def _is_verified(self) -> bool:
        return is_verified(self.settings.verify, self._student.metadata)

    def _subscribe(self) -> None:
        """Clouds last: whoever sees that subscription may rely on the others."""
        mode = self.settings.ego_motion
        if mode in ("auto", "odom"):
            many = QoSProfile(depth=200, reliability=ReliabilityPolicy.BEST_EFFORT)
            self._listen(Odometry, "odom", self._ego_motion.add_odometry, many)
        if TFMessage is not None:
            latched = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
            self._listen(TFMessage, "/tf_static", self._on_tf_static, latched)
            if mode in ("auto", "tf"):
                self._listen(TFMessage, "/tf", self._on_tf, QoSProfile(depth=100))
        self._wire = WireCounter(self._health.warn_once)
        self._listen(
            PointCloud2,
            "points",
            self._on_cloud_with_info if _TELLS_SEQUENCE else self._on_cloud,
            QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT),
            event_callbacks=SubscriptionEventCallbacks(message_lost=self._on_lost),
        )

    def _listen(self, kind: type, topic: str, callback, qos: QoSProfile, **more) -> None:
        subscription = self.create_subscription(
            kind, topic, callback, qos, qos_overriding_options=_overridable(), **more
        )
        self._listening.append(subscription)

    def stop(self, patience: float) -> None:
        """Listen no more, and end the threads, waiting `patience` seconds for what is under way."""
        while self._listening:
            self.destroy_subscription(self._listening.pop())
        if self._ego_motion is not None:
            self._ego_motion.stop()
        if self._road is not None and not self._road.stop(patience):
            self.get_logger().warning(f"a cloud under way takes longer than {patience} s: not waiting for it")
        self._road = self._pipeline = None
        if self._ego_motion is not None:
            self._ego_motion = self._new_ego_motion()

    def survive(self, error: Exception) -> None:
        """What a callback raised must not end the node: rclpy's own services raise when they are asked for nonsense."""
        self._health.count("callback_failed")
        text = f"a callback failed: {told(error):.200}"
        self.get_logger().error(text, throttle_duration_sec=5.0)
        time.sleep(0.01)  # should it be the waiting that fails

    def _on_tf(self, message) -> None:
        self._ego_motion.add_transforms(message.transforms, static=False)

    def _on_tf_static(self, message) -> None:
        self._ego_motion.add_transforms(message.transforms, static=True)

    def _on_cloud_with_info(self, message: PointCloud2, info) -> None:
        waited_ns = time.time_ns() - info["received_timestamp"]
        if 0 <= waited_ns < 10**10:  # no middleware that leaves it out, no clock that was set meanwhile
            self._health.took("receive", waited_ns * 1e-9)
        self._take(message, info.get("publication_sequence_number"))

    def _on_cloud(self, message: PointCloud2) -> None:
        self._take(message, None)

    def _take(self, message: PointCloud2, sequence: int | None) -> None:
        self._health.cloud_received()
        lost = self._wire.received(sequence, nanoseconds(message.header.stamp))
        if lost:
            self._health.problem(Problem.LOST_IN_TRANSPORT, self._lost_text(), lost)
        self._road.put(message)

    def _on_lost(self, event) -> None:
        """The middleware's own count. Gaps tell the same where clouds arrive; this is for when none does."""
        self._health.warn_once(self._lost_text())

    def _lost_text(self) -> str:
        text = "clouds got lost on their way here"
        if os.environ.get("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp").startswith("rmw_fastrtps"):
            text += f": {dds.advice()}"
        return text

    def _on_clock_jump(self, jump) -> None:
        if self._pipeline is not None:
            self._pipeline.reset()

    def _on_change(self, settings: Settings) -> None:
        """Most are read where they are used."""
        if self._ego_motion is not None:
            self._ego_motion.timeout = settings.ego_motion_timeout

    def _diagnose(self) -> None:
        qos = self._listening[-1].qos_profile if self._listening else None  # clouds are the last
        gauges = {"input": described_input(self, "points", "sensor_msgs/msg/PointCloud2", qos)}
        if self._student is not None:
            gauges |= self._student.gpu_memory()
        stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(self._health.report(stamp, self.settings, gauges))


class _ClusteringLoader:
    """Imports what objects are found with beside the node's start: open3d takes seconds, and may be missing."""

    def __init__(self, health: Health) -> None:
        self.ready = False
        self._health = health
        threading.Thread(target=self._load, name="open3d", daemon=True).start()

    def _load(self) -> None:
        name, advice = "scipy", "install one that fits this numpy"
        try:
            import scipy.optimize
            import scipy.sparse.csgraph
            import scipy.spatial  # noqa: F401

            name, advice = "open3d", "pip install 'open3d==0.19.0'"
            import open3d  # noqa: F401
        except Exception as error:  # of packages that do not fit each other there are all kinds
            self._health.warn_once(f"no markers, as {name} cannot be imported ({error}): {advice}")
        else:
            _spare_the_collector()
            self.ready = True


def _overridable() -> QoSOverridingOptions:
    return QoSOverridingOptions.with_default_policies()


def _spare_the_collector() -> None:
    """What is there by now stays: torch, open3d and scipy are so many objects that going through them takes a quarter
    of a second, in which nothing else runs, and thousands of new messages a second make that happen often. What stayed
    before and is of no use any more, such as the clouds of an earlier activation, goes."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def _give_back_memory() -> None:
    """What a student leaves behind in torch's GPU cache, and in cycles."""
    gc.unfreeze()
    gc.collect()
    import torch

    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def main(args: list[str] | None = None) -> NoReturn:
    # The environment of this shell is most likely that of the LiDAR driver too.
    warning = dds.missing_profile()

    def body(stop: StopSignal) -> int:
        try:
            node = destroyed_at_end(FlowNode())
        except (ParameterException, RuntimeError) as error:  # values that rclpy itself refuses
            raise ZeroFlowError(f"the node cannot be made with these parameters: {error}") from error
        if warning is not None:
            node.get_logger().warning(warning)
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        if node.settings.autostart:
            if node.trigger_configure() != TransitionCallbackReturn.SUCCESS:
                return 1
            if node.trigger_activate() != TransitionCallbackReturn.SUCCESS:
                return 1
        stop.wait_for_it(_LONGEST_END_S)
        while not stop.requested and rclpy.ok():
            try:
                executor.spin_once(timeout_sec=0.1)
            except Exception as error:
                node.survive(error)
        node.stop(patience=_LONGEST_END_S / 2)
        return 0

    run("flow_node", body, args)


if __name__ == "__main__":
    main()
