"""What a flow node sees, in the Rerun viewer as it comes: on a screen, in browsers, or recorded to a file.

    python -m zeroflow_ros.live_view /flow --save drive.rrd

`zeroflow view /flow` is the same. Beside the flow it hears the node's ``~/objects`` and ``~/path``.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path as File
from typing import NoReturn

from nav_msgs.msg import Path
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import PointCloud2

from zeroflow_core.drawing.moving import check_min_speed
from zeroflow_core.errors import ZeroFlowError, some
from zeroflow_core.moments import Moment
from zeroflow_core.viewing import require_viewer
from zeroflow_ros.messages.clouds import nanoseconds
from zeroflow_ros.messages.moments import MomentReader
from zeroflow_ros.processes.running import StopSignal, destroyed_at_end, run

_CLOUD, _PATH = "sensor_msgs/msg/PointCloud2", "nav_msgs/msg/Path"
_FIELDS = ("x", "y", "z", "vx", "vy", "vz")
_COMPANIONS_S = 3.0  # for a node's other topics to be discovered
_PATIENCE_S = 5.0  # for a publisher, before something is said
_WAITING = 10  # flows, when they are recorded: who looks on wants the newest, and who records wants all
_LONGEST_LATENCY_S = 60.0  # beyond that the stamps are of another clock
_MOST_LATENCIES = 100


class LiveView(Node):
    """Hears a flow topic, and what its publisher says besides.

    topic: of clouds of flow
    depth: how many of them may wait; of more the newest are shown
    shown: what has been seen and not been shown yet: a moment, and in ms the time from its stamp to its flow's arrival,
           None where the stamps are of another clock
    """

    def __init__(self, topic: str, depth: int) -> None:
        super().__init__("live_view")
        self._depth = depth
        try:
            self.topic = self.resolve_topic_name(topic)
        except Exception as error:  # RCLError, which is not in one place in all releases
            raise ZeroFlowError(f"'{topic}' is no name of a topic ({str(error).partition(', at /')[0]})") from error
        self.shown: deque[tuple[Moment, float | None]] = deque()
        self._reader = MomentReader()
        self._latency_ms: dict[int, float | None] = {}
        self._problem: ZeroFlowError | None = None
        self._is_flow = False
        self._told_of_damage = False

    def connect(self, wait: Callable[[Callable[[], object], float], bool]) -> None:
        """Subscribe as soon as somebody publishes.

        wait: until something is the case, so many seconds at most; whether it is
        """
        if not wait(self._publisher, _PATIENCE_S):
            others = [name for name, kinds in self.get_topic_names_and_types() if _CLOUD in kinds]
            others = [name for name in others if self.count_publishers(name) > 0]
            there = f"there are {some(sorted(others))}" if others else "there is no other cloud either"
            self.get_logger().warning(f"nobody publishes {self.topic} so far; {there}. Waiting")
            if not wait(self._publisher, float("inf")):
                return
        kinds = {one.topic_type for one in self.get_publishers_info_by_topic(self.topic)}
        if kinds and _CLOUD not in kinds:
            raise ZeroFlowError(
                f"{self.topic} is no flow but {some(sorted(kinds))}; give the topic that a flow node publishes"
            )
        wait(lambda: all(self._companions()), _COMPANIONS_S)
        objects, path = self._companions()
        self._reader = MomentReader(objects=bool(objects), path=bool(path))
        publisher = self._publisher()  # None where it has just gone, to come again
        reliable = publisher is not None and publisher.qos_profile.reliability == ReliabilityPolicy.RELIABLE
        reliability = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        if objects:
            self.create_subscription(PointCloud2, objects, self._on_objects, 10)
        if path:
            self.create_subscription(Path, path, self._on_path, 10)
        quality = QoSProfile(depth=self._depth, reliability=reliability)
        self.create_subscription(PointCloud2, self.topic, self._on_flow, quality)
        heard = ", ".join(filter(None, (self.topic, objects, path)))
        self.get_logger().info(f"hearing {heard}")
        if not path:
            self.get_logger().warning(f"{self.topic} comes without ~/path: everything is shown in the cloud's frame")

    def check(self) -> None:
        """Raise what went wrong in a callback."""
        if self._problem is not None:
            raise self._problem

    def finish(self) -> None:
        """Nothing more will come."""
        self._show(self._reader.rest())

    def _publisher(self):
        known = [one for one in self.get_publishers_info_by_topic(self.topic) if "UNKNOWN" not in one.node_name]
        return known[0] if known else None

    def _companions(self) -> tuple[str, str]:
        """``~/objects`` and ``~/path`` of the publisher, wherever they are remapped to; empty where it has none."""
        publisher = self._publisher()
        try:
            topics = self.get_publisher_names_and_types_by_node(publisher.node_name, publisher.node_namespace)
        except Exception:  # NodeNameNonExistentError, which is not in one place in all releases; or it has just gone
            return "", ""
        objects = [name for name, kinds in topics if _CLOUD in kinds and name.endswith("objects")]
        paths = [name for name, kinds in topics if _PATH in kinds]
        return next(iter(objects), ""), next(iter(paths), "")

    def _on_flow(self, message: PointCloud2) -> None:
        missing = [name for name in _FIELDS if name not in {field.name for field in message.fields}]
        if missing and not self._is_flow:
            self._problem = ZeroFlowError(
                f"{self.topic} is no flow: it has no field {missing[0]}; give the topic that a flow node publishes"
            )
            return
        self._is_flow = True
        stamp_ns = nanoseconds(message.header.stamp)
        latency_s = (self.get_clock().now().nanoseconds - stamp_ns) * 1e-9
        while len(self._latency_ms) > _MOST_LATENCIES:  # of flows that are left out
            del self._latency_ms[next(iter(self._latency_ms))]
        self._latency_ms[stamp_ns] = latency_s * 1e3 if 0 <= latency_s < _LONGEST_LATENCY_S else None
        self._show(self._reader.add_flow(message))

    def _on_objects(self, message: PointCloud2) -> None:
        self._show(self._reader.add_objects(message))

    def _on_path(self, message: Path) -> None:
        self._show(self._reader.add_path(message))

    def _show(self, moments: list[Moment]) -> None:
        if self._reader.damaged and not self._told_of_damage:
            self.get_logger().warning(f"messages of {self.topic} or what belongs to it are damaged; they are left out")
            self._told_of_damage = True
        self.shown += [(moment, self._latency_ms.pop(moment.stamp_ns, None)) for moment in moments]


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="live_view",
        description="Show what a flow node sees in the Rerun viewer, as it comes, until Ctrl-C.",
        epilog="Stamps of a simulation or a bag: live_view /flow --ros-args -p use_sim_time:=true",
    )
    add = parser.add_argument
    add("topic", nargs="?", default="flow", help="of the clouds of flow (default flow)")
    add("--save", type=File, metavar="FILE", help="write it to this .rrd file instead; `rerun FILE` opens it")
    add("--serve", action="store_true", help="show it to browsers instead")
    add("--port", type=int, default=9090, help="for --serve: of the page; its data takes the next one (default 9090)")
    add("--min-speed", type=float, default=0.5, help="m/s from which points are shown as moving (default 0.5)")
    return parser.parse_args(arguments)


def _view(options: argparse.Namespace, stop: StopSignal) -> int:
    require_viewer()
    import rerun as rr

    from zeroflow_core.viewing.outlets import SERVED, NoRoom, address, check_wishes, outlet
    from zeroflow_core.viewing.recording import SceneRecording

    check_wishes(options.save, options.serve, options.port)
    check_min_speed(options.min_speed)
    stream = rr.RecordingStream("zeroflow")
    node = destroyed_at_end(LiveView(options.topic, depth=1 if options.save is None else _WAITING))
    stream.send_recording_name(node.topic)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    stop.wait_for_it()

    def wait(done: Callable[[], object], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not done():
            if time.monotonic() > deadline or stop.requested:
                return False
            executor.spin_once(timeout_sec=0.05)
        return True

    with outlet(stream, options.save, options.port if options.serve else None, live=True) as check:
        if options.serve:
            print(f"{address(options.port)}\n{SERVED}", flush=True)
        recording = SceneRecording(stream, min_speed=options.min_speed, live=True)

        def show() -> None:
            node.check()
            while node.shown:
                check()
                recording.log(*node.shown.popleft())

        full: NoRoom | None = None
        try:
            node.connect(wait)
            while not stop.requested:
                executor.spin_once(timeout_sec=0.05)
                show()
            node.finish()
            show()
        except NoRoom as why:
            if recording.count == 0:
                raise
            full = why  # what there is, is kept
    if options.save is not None:
        print(f"{options.save}: {recording.count} sweeps of {node.topic}")
    if full is not None:
        print(f"Stopped: {full}", file=sys.stderr)
    return 0 if full is None else 1


def main(args: list[str] | None = None) -> NoReturn:
    command_line = sys.argv if args is None else ["live_view", *args]
    options = _parse(remove_ros_args(command_line)[1:])
    run("live_view", lambda stop: _view(options, stop), command_line)


if __name__ == "__main__":
    main()
