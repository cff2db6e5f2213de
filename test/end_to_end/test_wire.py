"""What real publishers and subscriptions tell of clouds that got lost in between."""

from __future__ import annotations

import time

import pytest

pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")

from processes import PATIENCE, STEP, _own_node, cloud, nanoseconds, street
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from sensor_msgs.msg import PointCloud2

from zeroflow_ros.live.wire import WireCounter

NUMBERED = pytest.param(True, marks=pytest.mark.skipif(not hasattr(Subscription, "CallbackType"), reason="Humble"))
POINTS = street(100)


class Wire:
    """A subscription that keeps `depth` clouds, and publishers to it, each in a DDS participant of its own."""

    def __init__(self, numbered: bool, depth: int) -> None:
        self.said: list[str] = []
        self.lost = self.num_received = 0
        self._newest_ns = self._stamp_ns = 0
        self._counter = WireCounter(self.said.append)
        here, there = _own_node("hears"), _own_node("speaks")
        self._contexts, (self._hears, self._speaks) = zip(here, there, strict=True)
        self._executor = SingleThreadedExecutor(context=self._contexts[0])
        self._executor.add_node(self._hears)
        qos = QoSProfile(depth=depth, reliability=ReliabilityPolicy.BEST_EFFORT)
        callback = self._on_cloud if numbered else lambda message: self._on_cloud(message, {})
        self._subscription = self._hears.create_subscription(PointCloud2, "wire", callback, qos)

    def publisher(self):
        """A new one, once it is connected."""
        known = self._hears.count_publishers("wire")
        publisher = self._speaks.create_publisher(PointCloud2, "wire", QoSProfile(depth=100))
        self._until(lambda: publisher.get_subscription_count() == 1)
        self._until(lambda: self._hears.count_publishers("wire") == known + 1)
        return publisher

    def end(self, publisher) -> None:
        known = self._hears.count_publishers("wire")
        self._speaks.destroy_publisher(publisher)
        self._until(lambda: self._hears.count_publishers("wire") == known - 1)

    def send(self, *publishers) -> None:
        """A cloud from each, a tenth of a second after the one before by its stamp; nobody listens meanwhile."""
        for publisher in publishers:
            self._stamp_ns += STEP // len(set(publishers)) if len(set(publishers)) > 1 else STEP
            publisher.publish(cloud(POINTS, self._stamp_ns))

    def listen(self) -> None:
        """Until the newest cloud has come."""
        self._until(lambda: self._newest_ns == self._stamp_ns)

    def close(self) -> None:
        for node, context in zip((self._hears, self._speaks), self._contexts, strict=True):
            node.destroy_node()
            context.try_shutdown()

    def _on_cloud(self, message: PointCloud2, info) -> None:
        self._newest_ns = nanoseconds(message.header.stamp)
        self.num_received += 1
        self.lost += self._counter.received(info.get("publication_sequence_number"), self._newest_ns)

    def _until(self, done) -> None:
        deadline = time.monotonic() + PATIENCE
        while not done():
            assert time.monotonic() < deadline, "waited in vain"
            self._executor.spin_once(timeout_sec=0.05)


@pytest.fixture
def wire():
    made = []

    def make(numbered: bool, depth: int) -> Wire:
        made.append(Wire(numbered, depth))
        return made[-1]

    yield make
    for one in made:
        one.close()


def _one_by_one(wire: Wire, publisher, count: int) -> None:
    for _ in range(count):
        wire.send(publisher)
        wire.listen()


@pytest.mark.parametrize("numbered", [NUMBERED, False])
@pytest.mark.parametrize("depth", [1, 3])
def test_clouds_pushed_out_of_the_queue_are_counted_exactly(wire, numbered: bool, depth: int):
    wire = wire(numbered, depth)
    publisher = wire.publisher()
    _one_by_one(wire, publisher, 6)
    for burst in (10, 1, 4, 7):
        wire.send(*[publisher] * burst)
        wire.listen()
    assert wire.num_received + wire.lost == 6 + 22
    assert wire.lost >= 22 - 4 * depth


@pytest.mark.parametrize("numbered", [NUMBERED, False])
def test_a_publisher_that_comes_back_is_no_loss(wire, numbered: bool):
    wire = wire(numbered, 5)
    for _ in range(3):
        publisher = wire.publisher()
        _one_by_one(wire, publisher, 8)
        wire.end(publisher)
    assert (wire.num_received, wire.lost, wire.said) == (24, 0, [])


@pytest.mark.parametrize("numbered", [NUMBERED])
def test_two_publishers_are_noticed(wire, numbered: bool):
    wire = wire(numbered, 5)
    first = wire.publisher()
    _one_by_one(wire, first, 30)
    second = wire.publisher()
    for _ in range(10):
        wire.send(first, second)
        wire.listen()
    assert wire.num_received == 50
    assert wire.lost == 0
    assert len(wire.said) == 1
