"""Real processes over real DDS on this machine: how tests start, feed, hear and stop them."""

from __future__ import annotations

import array
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

# One domain per run of the tests, so that two runs on one machine don't hear each other. Above 101, Linux hands
# the ports out to others.


def _own_domain() -> tuple[int, socket.socket]:
    """A ROS_DOMAIN_ID that no other run of these tests on this machine has: a bound port stands for each."""
    first = random.randrange(101)  # a run that was killed may have left nodes in the one that it had
    for domain in (1 + (first + k) % 101 for k in range(101)):
        claim = socket.socket()
        try:
            claim.bind(("127.0.0.1", 21900 + domain))
        except OSError:
            claim.close()
        else:
            return domain, claim
    raise RuntimeError("all ROS domains are taken by other runs of these tests")


DOMAIN, _claim = _own_domain()
SECOND = 1_000_000_000
STEP = SECOND // 10
PATIENCE = 60.0  # seconds for anything at all to happen; reached only by tests that fail
_WHOLE_RUN = 240.0  # seconds for a command to end by itself


def environment() -> dict[str, str]:
    """For processes that talk in the domain of these tests only, with the Fast DDS profile."""
    from zeroflow_core.workers.parent import ending_with_me
    from zeroflow_ros.processes import dds

    repository = Path(__file__).resolve().parents[2]
    paths = [str(repository), *filter(None, [os.environ.get("PYTHONPATH")])]
    own = {
        "ROS_DOMAIN_ID": str(DOMAIN),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "ROS_LOCALHOST_ONLY": "1",  # Humble knows only this one
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUNBUFFERED": "1",
    }
    return os.environ | dds.environment() | own | ending_with_me()


class Process:
    """A module of ours in a process of its own; what it says goes to a file. As a context it is killed at the end."""

    def __init__(self, folder: Path, module: str, *arguments: object, **variables: str) -> None:
        self._log = folder / f"{module.rpartition('.')[2]}_{time.monotonic_ns()}.log"
        with self._log.open("w") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *map(str, arguments)],
                env=environment() | variables,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def log(self) -> str:
        return self._log.read_text()

    def wait_for(self, text: str) -> None:
        """Until it says so."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.log:
            assert self._process.poll() is None, f"ended with {self._process.returncode}:\n{self.log}"
            assert time.monotonic() < deadline, f"never said '{text}':\n{self.log}"
            time.sleep(0.02)

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self, patience: float = _WHOLE_RUN) -> int:
        """The exit code, when it ends by itself."""
        try:
            return self._process.wait(patience)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it runs on after {patience:.0f} s:\n{self.log}") from None

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


class Peer:
    """The other side of a node under test: publishes clouds and odometry, hears the answers. As a context it is closed
    at the end."""

    def __init__(
        self,
        namespace: str = "",
        clouds_reliable: bool = True,
        cloud_topic: str = "points",
        odom_topic: str = "odom",
    ) -> None:
        from diagnostic_msgs.msg import DiagnosticArray
        from nav_msgs.msg import Odometry
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.qos import QoSProfile, ReliabilityPolicy
        from sensor_msgs.msg import PointCloud2
        from std_msgs.msg import Header
        from visualization_msgs.msg import MarkerArray

        self.flows: list = []
        self.processed: list[int] = []
        self.markers: list = []
        self.diagnostics: list = []
        self.context, self.node = _own_node("peer", namespace)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        reliability = ReliabilityPolicy.RELIABLE if clouds_reliable else ReliabilityPolicy.BEST_EFFORT
        cloud_qos = QoSProfile(depth=10, reliability=reliability)
        self.cloud_out = self.node.create_publisher(PointCloud2, cloud_topic, cloud_qos)
        self.odom_out = self.node.create_publisher(Odometry, odom_topic, 100)
        hear = self.node.create_subscription
        hear(PointCloud2, "flow", self.flows.append, 100)
        hear(Header, "processed", lambda header: self.processed.append(nanoseconds(header.stamp)), 100)
        hear(MarkerArray, "markers", self.markers.append, 100)
        # /diagnostics is one topic for all nodes.
        name = f"{namespace}/flow_node: flow".lstrip("/")
        hear(DiagnosticArray, "/diagnostics", lambda m: m.status[0].name == name and self.diagnostics.append(m), 100)

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def connect(self, clouds_only: bool = False) -> None:
        """Until the node hears this side, and this side the node, on every topic that matters."""
        outlets = [self.cloud_out] if clouds_only else [self.cloud_out, self.odom_out]
        self.wait(
            lambda: all(outlet.get_subscription_count() == 1 for outlet in outlets)
            and all(self.node.count_publishers(topic) == 1 for topic in ("flow", "processed", "markers")),
            "the node to be discovered",
        )
        # A diagnostic message proves that the way back is open; the others open with it. It is also time enough
        # for the node to know of the publishers here, of which its best-effort subscriptions are not told.
        self.counts()

    def send(self, cloud, odometry=None) -> None:
        """A cloud, after the odometry of its moment, and the node's answer to it."""
        if odometry is not None:
            self.odom_out.publish(odometry)
        self.processed.clear()
        self.cloud_out.publish(cloud)
        stamp_ns = nanoseconds(cloud.header.stamp)
        self.wait(lambda: stamp_ns in self.processed, f"the answer to the cloud at {stamp_ns} ns")

    def counts(self) -> dict[str, str]:
        """What the node says about its health from now on; older reports may still be on their way."""
        asked = time.time_ns()
        self.wait(
            lambda: self.diagnostics and nanoseconds(self.diagnostics[-1].header.stamp) > asked,
            "a diagnostic message",
        )
        (status,) = self.diagnostics[-1].status
        return {entry.key: entry.value for entry in status.values}

    def wait(self, done: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not done():
            assert time.monotonic() < deadline, f"waited in vain for {what}"
            self._executor.spin_once(timeout_sec=0.05)

    def close(self) -> None:
        self.node.destroy_node()
        self.context.try_shutdown()


class Caller:
    """Calls nodes' services, and nothing else: it takes no part in the traffic of clouds."""

    def __init__(self) -> None:
        from rclpy.executors import SingleThreadedExecutor

        self.context, self.node = _own_node("caller")
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._clients: dict[str, object] = {}

    def call(self, kind: type, service: str, request):
        """The answer to a request to a service such as /flow_node/get_parameters."""
        if service not in self._clients:
            client = self.node.create_client(kind, service)
            assert client.wait_for_service(PATIENCE), f"there is no service {service}"
            self._clients[service] = client
        answer = self._clients[service].call_async(request)
        self._executor.spin_until_future_complete(answer, PATIENCE)
        assert answer.done(), f"no answer to {request}"
        return answer.result()

    def parameter(self, name: str, node: str = "/flow_node"):
        """Its value, as a rcl_interfaces/ParameterValue."""
        from rcl_interfaces.srv import GetParameters

        return self.call(GetParameters, f"{node}/get_parameters", GetParameters.Request(names=[name])).values[0]

    def set_number(self, name: str, value: float, node: str = "/flow_node") -> None:
        """Set a parameter that is a number, which the node must not refuse."""
        from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
        from rcl_interfaces.srv import SetParameters

        number = ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=value)
        request = SetParameters.Request(parameters=[Parameter(name=name, value=number)])
        (result,) = self.call(SetParameters, f"{node}/set_parameters", request).results
        assert result.successful, result.reason

    def close(self) -> None:
        self.node.destroy_node()
        self.context.try_shutdown()


def _own_node(name: str, namespace: str = ""):
    """A node of this process in the domain of these tests, and the context it lives in."""
    import rclpy

    before = dict(os.environ)
    os.environ.update(environment())  # read once, when the participant is made
    try:
        context = rclpy.Context()
        rclpy.init(args=[], context=context, domain_id=DOMAIN)
        return context, rclpy.create_node(name, context=context, namespace=namespace)
    finally:
        os.environ.clear()
        os.environ.update(before)


def soak_minutes() -> float | None:
    """How long tests of endurance run; None in the usual run of the tests, where they are short."""
    minutes = os.environ.get("ZEROFLOW_SOAK_MINUTES")
    return float(minutes) if minutes else None


def nanoseconds(stamp) -> int:
    return stamp.sec * SECOND + stamp.nanosec


def cloud(points: np.ndarray, stamp_ns: int, frame: str = "base_link"):
    """A PointCloud2 of x y z float32."""
    from sensor_msgs.msg import PointCloud2, PointField

    message = PointCloud2(height=1, width=len(points), point_step=12, row_step=12 * len(points), is_dense=True)
    message.fields = [PointField(name=n, offset=4 * k, datatype=7, count=1) for k, n in enumerate("xyz")]
    message.data = array.array("B", points.astype("<f4").tobytes())
    message.header.frame_id = frame
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, SECOND)
    return message


def odometry(stamp_ns: int, x: float = 0.0):
    """The vehicle at (x, 0, 0), not turned."""
    from nav_msgs.msg import Odometry

    message = Odometry(child_frame_id="base_link")
    message.header.frame_id = "odom"
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, SECOND)
    message.pose.pose.position.x = x
    message.pose.pose.orientation.w = 1.0
    return message


def street(count: int = 4000, seed: int = 0) -> np.ndarray:
    """Ground, and things on it: (count,3) float32, metres."""
    random = np.random.default_rng(seed)
    points = random.uniform([-30, -30, -0.35], [30, 30, -0.31], (count, 3))
    points[: count // 4, 2] += random.uniform(0.3, 2.5, count // 4)
    return points.astype(np.float32)


def tiny_checkpoint(path: Path, **config: object) -> Path:
    """A student of random weights, small enough for milliseconds; config: what is to be different."""
    import torch

    from zeroflow_core.fastflow3d.checkpoint import save_model
    from zeroflow_core.fastflow3d.config import FastFlow3DConfig
    from zeroflow_core.fastflow3d.model import FastFlow3D

    torch.manual_seed(0)
    small = {"pillar_size": 0.8, "channels": 8, "blocks": (1, 1, 1)}
    model = FastFlow3D(FastFlow3DConfig(**(small | config)))
    save_model(path, model, {"name": "random", "ground": "patchwork", "interval_s": 0.1})
    return path
