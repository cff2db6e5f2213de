"""Play a rosbag2 without `ros2 bag`: recorded bytes as they are, at their pace or at the flow node's.

    replay drive/ --rate 0.5 --ros-args -r /lidar/points:=/points
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.utilities import remove_ros_args
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Header

from zeroflow_core.datasets.bags import Bag
from zeroflow_core.errors import ZeroFlowError
from zeroflow_ros.account import header_stamp_ns
from zeroflow_ros.messages.clouds import nanoseconds
from zeroflow_ros.processes.running import StopSignal, destroyed_at_end, run

_CLOUD, _CLOCK = "sensor_msgs/msg/PointCloud2", "/clock"
_NO_NAME = "_NODE_NAME_UNKNOWN_"  # rmw's, of a node that has not introduced itself yet
_CLOCK_STEP_NS = 20_000_000
_LAST_ANSWER_S = 5.0
# A publisher may know of a subscriber before that one knows of it, and takes what it publishes.
_SETTLE_S = 0.5
_FIRST_ANSWER_S = 5.0  # a node on a busy machine is still importing what it needs for objects
_FIRST_TRIES = 3


class ReplayNode(Node):
    """Publishes the topics of a bag and /clock; hears on `processed` which clouds the flow node is done with.

    Raises:
        ZeroFlowError: the bag cannot be read, or holds no cloud.
    """

    def __init__(self, bag: Bag, options: argparse.Namespace, stop: StopSignal) -> None:
        super().__init__("replay")
        self._bag, self._options, self._stop = bag, options, stop
        self._spinner = SingleThreadedExecutor()
        self._spinner.add_node(self)
        self.unanswered = 0
        self._answered: set[int] = set()
        self._tries = _FIRST_TRIES
        self._last_stamp_ns: int | None = None
        self._awaited_ns: int | None = None  # the cloud whose answer the next one waits for
        latched = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.create_subscription(Header, "processed", self._on_processed, latched)
        self._outlets = self._advertise()
        # A clock that was recorded is the one that stamps go by; two would contradict each other.
        is_own = options.clock and _CLOCK not in self._outlets
        self._clock_topic = self.create_publisher(Clock, _CLOCK, 10) if is_own else None
        self._clouds = [topic for topic in self._outlets if bag.topics[topic] == _CLOUD]
        if not self._clouds:
            found = ", ".join(f"{topic} ({kind})" for topic, kind in bag.topics.items()) or "none"
            raise ZeroFlowError(f"the bag {bag.path} has no {_CLOUD} topic to play; its topics: {found}")

    def play(self) -> None:
        """The whole bag, once, or again and again with --loop, until asked to stop."""
        self._wait_for_subscribers()
        number_of_clouds = sum(self._bag.count(topic) for topic in self._clouds)
        self.get_logger().info(
            f"playing {number_of_clouds} clouds of {self._bag.duration_ns * 1e-9:.1f} s from {self._bag.path}"
        )
        with _progress(number_of_clouds, self._options.loop) as advance:
            while not self._stop.requested:
                complete = self._play_once(advance)
                if complete and not self._options.loop:
                    break
        if not self._stop.requested:
            self._finish()
            self.get_logger().info("done")

    def _advertise(self) -> dict:
        outlets = {}
        for topic in self._options.topics or self._bag.topics:
            if topic not in self._bag.topics:
                raise ZeroFlowError(
                    f"the bag {self._bag.path} has no topic {topic}; its topics: {', '.join(self._bag.topics)}"
                )
            if topic == _CLOCK and not self._options.clock and not self._options.topics:
                continue
            kind = self._bag.topics[topic]
            try:
                message_type = _message_type(kind)
            except (ImportError, AttributeError, ValueError):
                self.get_logger().warning(f"not playing {topic}: its type {kind} is not installed here")
                continue
            outlets[topic] = self.create_publisher(message_type, topic, self._qos(topic))
        return outlets

    def _qos(self, topic: str) -> QoSProfile:
        """As recorded where others depend on it (latched topics), else reliable, so that nothing gets lost."""
        recorded = self._bag.qos(topic)
        lossy = self._options.best_effort and self._bag.topics[topic] == _CLOUD
        return QoSProfile(
            depth=max(recorded.depth, 10),
            reliability=ReliabilityPolicy.BEST_EFFORT if lossy else ReliabilityPolicy.RELIABLE,
            durability=DurabilityPolicy.TRANSIENT_LOCAL if recorded.transient_local else DurabilityPolicy.VOLATILE,
        )

    def _wait_for_subscribers(self) -> None:
        """Until somebody takes a cloud topic, and whoever subscribes to any other topic is connected as well."""
        names = ", ".join(self._outlets[topic].topic_name for topic in self._clouds)
        self.get_logger().info(f"waiting for a subscriber of {names}")
        deadline = time.monotonic() + self._options.wait
        self._spin_until(lambda: any(self._outlets[t].get_subscription_count() for t in self._clouds), deadline)
        if self._stop.requested:
            return
        if not any(self._outlets[topic].get_subscription_count() for topic in self._clouds):
            raise ZeroFlowError(
                f"nobody subscribed to {names} within {self._options.wait:.0f} s; start the flow node first, or "
                "remap the topic (--ros-args -r /lidar/points:=/points), or wait longer (--wait)"
            )
        self._spin_until(self._everybody_connected, time.monotonic() + 2.0)
        self._spin_until(lambda: False, time.monotonic() + _SETTLE_S)

    def _everybody_connected(self) -> bool:
        return all(o.get_subscription_count() >= self.count_subscribers(o.topic_name) for o in self._outlets.values())

    def _play_once(self, advance: Callable[[], None]) -> bool:
        """From the beginning to the end; False when it has to begin again, as nobody took the first cloud."""
        start, first_ns = time.monotonic(), None
        for time_ns, topic, cdr in self._bag.messages(list(self._outlets)):
            first_ns = time_ns if first_ns is None else first_ns
            start += self._keep_pace(time_ns, first_ns, start)
            if topic in self._clouds:  # poses go on meanwhile: the answer may wait for one behind its cloud
                self._wait_for_answer()
                self._answered.clear()
            if self._stop.requested:
                return True
            self._outlets[topic].publish(cdr)
            if topic not in self._clouds:
                continue
            self._last_stamp_ns = header_stamp_ns(cdr)
            if self._options.lockstep and self._is_answered_for(topic):
                if self._tries > 0 and not self._is_taken():
                    return False
                self._awaited_ns = self._last_stamp_ns
            advance()
        self._wait_for_answer()
        return True

    def _is_answered_for(self, topic: str) -> bool:
        """Whether a node that answers takes clouds of that topic: RViz takes them, too, but answers nothing."""
        if self._outlets[topic].get_subscription_count() == 0:
            return False
        answering = _nodes_of(self.get_publishers_info_by_topic(self.resolve_topic_name("processed")))
        taking = _nodes_of(self.get_subscriptions_info_by_topic(self._outlets[topic].topic_name))
        if not answering or _NO_NAME in {name for _, name in answering | taking}:
            return True  # somebody may
        return bool(answering & taking)

    def _keep_pace(self, time_ns: int, first_ns: int, start: float) -> float:
        """Wait until it is this message's turn, /clock running on meanwhile; returns by how many seconds it is late."""
        if self._options.rate == 0:
            self._publish_clock(time_ns)
            self._spinner.spin_once(timeout_sec=0.0)
            return 0.0
        rate = self._options.rate
        due = start + (time_ns - first_ns) * 1e-9 / rate
        while not self._stop.requested and (left := due - time.monotonic()) > 0:
            step = min(left, _CLOCK_STEP_NS * 1e-9)
            self._spin_until(lambda: False, time.monotonic() + step)
            self._publish_clock(time_ns - int(max(due - time.monotonic(), 0.0) * rate * 1e9))
        self._publish_clock(time_ns)
        # In lockstep the clock waits for the node; otherwise what is late is made up for.
        return max(time.monotonic() - due, 0.0) if self._options.lockstep else 0.0

    def _publish_clock(self, time_ns: int) -> None:
        if self._clock_topic is not None:
            message = Clock()
            message.clock.sec, message.clock.nanosec = divmod(time_ns, 1_000_000_000)
            self._clock_topic.publish(message)

    def _is_taken(self) -> bool:
        """Whether the first cloud of all is answered soon, or has been tried often enough."""
        self._spin_until(lambda: self._answered, time.monotonic() + _FIRST_ANSWER_S)
        self._tries = 0 if self._answered else self._tries - 1
        return self._tries == 0

    def _wait_for_answer(self) -> None:
        """To the cloud before, if there is one to be waited for."""
        stamp_ns, self._awaited_ns = self._awaited_ns, None
        if stamp_ns is None:
            return
        self._spin_until(lambda: stamp_ns in self._answered, time.monotonic() + self._options.answer_timeout)
        if stamp_ns not in self._answered and not self._stop.requested:
            self.unanswered += 1
            self.get_logger().error(
                f"no answer to the cloud at {stamp_ns * 1e-9:.3f} s on '{self.resolve_topic_name('processed')}' within "
                f"{self._options.answer_timeout:.0f} s; going on with the next"
            )

    def _finish(self) -> None:
        """Let what is under way arrive: the last cloud at its subscribers, and the node's answer to it."""
        last = self._last_stamp_ns
        if self.count_publishers(self.resolve_topic_name("processed")) > 0:
            self._spin_until(lambda: last in self._answered, time.monotonic() + _LAST_ANSWER_S)
        if last is None or last in self._answered or self._stop.requested:
            return
        for outlet in self._outlets.values():
            outlet.wait_for_all_acked(Duration(seconds=2))
        # Best-effort subscribers acknowledge nothing; what is under way to them takes milliseconds.
        self._spin_until(lambda: False, time.monotonic() + 0.2)

    def _on_processed(self, header: Header) -> None:
        self._answered.add(nanoseconds(header.stamp))

    def _spin_until(self, done: Callable[[], bool], deadline: float) -> None:
        while not done() and not self._stop.requested:
            left = deadline - time.monotonic()
            if left <= 0:
                return
            self._spinner.spin_once(timeout_sec=min(left, 0.05))


def _nodes_of(endpoints: list) -> set[tuple[str, str]]:
    return {(endpoint.node_namespace, endpoint.node_name) for endpoint in endpoints}


def _message_type(name: str):
    """The Python class of an interface such as ``sensor_msgs/msg/PointCloud2``."""
    package, kind, name = name.split("/")
    return getattr(import_module(f"{package}.{kind}"), name)


@contextmanager
def _progress(total: int, loop: bool) -> Iterator[Callable[[], None]]:
    """A bar on a terminal, nothing elsewhere; gives what to call after each cloud."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = TextColumn("clouds"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=None if loop else total)
        yield lambda: progress.advance(task)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="replay",
        description="Play a rosbag2 with PointCloud2 topics; clouds are reliable unless --best-effort.",
        epilog="Topics are remapped as everywhere in ROS 2: replay BAG --ros-args -r /lidar/points:=/points",
    )
    parser.add_argument("bag", type=Path, help="folder of the bag, or its .db3 or .mcap file")
    parser.add_argument(
        "--rate", type=_rate, default=1.0, help="times as fast as recorded; 0 is as fast as possible (default 1)"
    )
    parser.add_argument("--loop", action="store_true", help="start again at the end, until interrupted")
    parser.add_argument(
        "--clock",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="publish /clock, as recorded where the bag has it (default yes)",
    )
    parser.add_argument(
        "--lockstep", action="store_true", help="wait for the flow node's answer on 'processed' before the next cloud"
    )
    parser.add_argument("--topics", nargs="+", metavar="TOPIC", help="play only these (default all)")
    parser.add_argument("--best-effort", action="store_true", help="publish clouds as drivers do; they may get lost")
    parser.add_argument(
        "--wait", type=float, default=60.0, metavar="S", help="seconds to wait for a subscriber (default 60)"
    )
    parser.add_argument(
        "--answer-timeout", type=float, default=60.0, metavar="S", help="seconds to wait in lockstep (default 60)"
    )
    return parser.parse_args(arguments)


def _rate(text: str) -> float:
    rate = float(text)
    if not 0 <= rate <= 1000:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1000")
    return rate


def main(args: list[str] | None = None) -> NoReturn:
    command_line = sys.argv if args is None else ["replay", *args]
    options = _parse(remove_ros_args(command_line)[1:])

    def body(stop: StopSignal) -> int:
        with Bag(options.bag) as bag:
            node = destroyed_at_end(ReplayNode(bag, options, stop))
            stop.wait_for_it()
            node.play()
        return 1 if node.unanswered else 0

    run("replay", body, command_line)


if __name__ == "__main__":
    main()
