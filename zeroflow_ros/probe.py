"""Load for a flow node that runs, and an account of what became of every cloud.

    python -m zeroflow_ros.probe --rate 10 --points 100000 --seconds 60 --json probe.json

Publishes clouds and odometry as a driver and an odometry would, hears the answers as any subscriber would, and
compares both with what the node says about itself on /diagnostics.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from array import array
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

from diagnostic_msgs.msg import DiagnosticArray
from nav_msgs.msg import Odometry
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from rclpy.serialization import serialize_message
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header
from visualization_msgs.msg import MarkerArray

from zeroflow_core.bench.process_watch import ProcessWatch, sum_up
from zeroflow_core.datasets.av2 import Log, find_logs
from zeroflow_core.datasets.bags import is_bag, read_sweeps
from zeroflow_core.datasets.point_cloud2 import fields_of, rows_of
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.files import new_file
from zeroflow_core.geometry import SE3
from zeroflow_core.pairs import Sweep
from zeroflow_ros.account import Account, around_stamp, header_stamp_ns, with_stamp
from zeroflow_ros.live.health import ENDS
from zeroflow_ros.processes.child import child
from zeroflow_ros.processes.running import StopSignal, destroyed_at_end, run

_MOST_SWEEPS = 60  # of what is recorded; they are kept in memory, 2 MB each
_SETTLE_S = 0.5  # a publisher may know of a subscriber before that one knows of it, and takes what it publishes
_QUIET_S = 3.0  # without an answer, after the last cloud: nothing more will come
_DIAGNOSIS_S = 10.0


class Probe(Node):
    """Publishes `points` and `odom`, hears `flow`, `processed` and /diagnostics, and, when asked to, `markers`.

    check:   raises when waiting has no sense any more
    account: what was sent and heard
    """

    def __init__(
        self, sweeps: list[Sweep], options: argparse.Namespace, stop: StopSignal, check: Callable[[], None]
    ) -> None:
        super().__init__("probe")
        self.account = account = Account(ENDS)
        self._options, self._stop, self._check = options, stop, check
        self._clouds = [around_stamp(serialize_message(_message(sweep, options.frame))) for sweep in sweeps]
        self._poses = [sweep.world_SE3_ego for sweep in sweeps]
        self._points = self.create_publisher(PointCloud2, "points", qos_profile_sensor_data)
        self._odom = self.create_publisher(Odometry, "odom", 100) if options.odometry else None
        self._hear(PointCloud2, "flow", lambda cdr: account.flow(header_stamp_ns(cdr)))
        self._hear(Header, "processed", lambda cdr: account.processed(header_stamp_ns(cdr)))
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 100)
        if options.markers:
            self._hear(MarkerArray, "markers", lambda cdr: account.markers())

    def connect(self) -> None:
        """Until the node takes clouds and says how it is.

        Raises:
            ZeroFlowError: it does not in --wait seconds.
        """
        topics = [outlet for outlet in (self._points, self._odom) if outlet is not None]
        if not self._wait(lambda: self._points.get_subscription_count() > 0, self._options.wait):
            raise ZeroFlowError(
                f"nobody subscribed to {self._points.topic_name} within {self._options.wait:.0f} s; start the flow "
                "node first, or remap the topic"
            )
        # Odometry may be left alone on purpose (ego_motion kiss_icp), so it is waited for only a while.
        self._wait(lambda: all(topic.get_subscription_count() > 0 for topic in topics), 2.0)
        self._wait(lambda: False, _SETTLE_S)
        self._hear_diagnosis()
        self.account.begin()

    def send(self) -> None:
        """Clouds at their pace, until the time is up or a signal asks to stop."""
        interval = 1 / self._options.rate
        began, began_ns = time.monotonic(), time.time_ns()
        for k in range(round(self._options.seconds * self._options.rate)):
            due = began + k * interval
            while (left := due - time.monotonic()) > 0 and not self._stop.requested:
                time.sleep(min(left, 0.1))
            if self._stop.requested:
                return
            self._check()
            self._send_one(k % len(self._clouds), began_ns + round(k * interval * 1e9), time.monotonic() - due)

    def finish(self) -> None:
        """Hear what is still to come: answers to the last clouds, and the node's own account of them."""
        began = time.monotonic()
        while time.monotonic() - max(self.account.last_answer, began) < _QUIET_S:
            if self._wait(lambda: not self.account.unanswered, 0.1) or self._stop.requested:
                break
        self._hear_diagnosis()

    def _hear(self, kind: type, topic: str, callback: Callable[[bytes], None]) -> None:
        """As bytes, of which the stamp is all that counts, so that the processor is left to the node."""
        self.create_subscription(kind, topic, callback, QoSProfile(depth=100), raw=True)

    def _send_one(self, which: int, stamp_ns: int, late: float) -> None:
        if self._odom is not None:
            self._odom.publish(_odometry(self._poses[which], stamp_ns))
        cdr = with_stamp(self._clouds[which], stamp_ns)
        self.account.sent(stamp_ns, late)
        self._points.publish(cdr)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == f"{self._options.node.lstrip('/')}: flow":
                level = status.level[0] if isinstance(status.level, bytes) else status.level
                self.account.diagnosis(level, status.message, {entry.key: entry.value for entry in status.values})

    def _hear_diagnosis(self) -> None:
        """Two more messages: the first may have been on its way already."""
        heard = self.account.num_diagnoses
        if not self._wait(lambda: self.account.num_diagnoses >= heard + 2, _DIAGNOSIS_S) and not self._stop.requested:
            raise ZeroFlowError(
                f"no diagnostics of {self._options.node} came within {_DIAGNOSIS_S:.0f} s; name the node with --node, "
                "as `ros2 node list` does"
            )

    def _wait(self, done: Callable[[], object], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not done():
            if time.monotonic() > deadline or self._stop.requested:
                return False
            self._check()
            time.sleep(0.01)
        return True


def _message(sweep: Sweep, frame: str) -> PointCloud2:
    """The fields that a Velodyne's driver sends, as densely as it does: 22 bytes a point."""
    rows = rows_of(sweep)
    message = PointCloud2(height=1, width=len(rows), point_step=rows.itemsize, row_step=rows.nbytes, is_dense=True)
    message.header.frame_id = frame
    message.fields = [PointField(name=n, offset=o, datatype=d, count=c) for n, o, d, c in fields_of(rows.dtype)]
    message.data = array("B", rows.tobytes())
    return message


def _odometry(pose: SE3, stamp_ns: int) -> Odometry:
    message = Odometry(child_frame_id="base_link")
    message.header.frame_id = "odom"
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 1_000_000_000)
    place, turn = message.pose.pose.position, message.pose.pose.orientation
    place.x, place.y, place.z = map(float, pose.translation)
    turn.w, turn.x, turn.y, turn.z = map(float, pose.quaternion)
    return message


def _sweeps(options: argparse.Namespace) -> list[Sweep]:
    """What is played, again and again, so that the last sweep leads to the first."""
    if options.play is None:
        from zeroflow_core.simulation.to_and_fro import to_and_fro

        return to_and_fro(options.points, options.rate, options.seed)
    recorded = read_sweeps(options.play) if is_bag(options.play) else Log(find_logs(options.play)[0]).sweeps()
    there = list(islice(recorded, _MOST_SWEEPS))
    if len(there) < 2:
        raise ZeroFlowError(f"{options.play} has {len(there)} clouds; the probe needs two to drive there and back")
    if options.odometry and any(sweep.world_SE3_ego is None for sweep in there):
        raise ZeroFlowError(f"{options.play} has clouds without a pose; play it with --no-odometry")
    return there + there[-2:0:-1]


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="probe",
        description="Send clouds to a flow node at a steady rate and account for every one of them.",
        epilog="Topics are remapped as everywhere in ROS 2: probe --ros-args -r points:=/lidar/points",
    )
    add = parser.add_argument
    add("--rate", type=_positive, default=10.0, help="clouds per second (default 10)")
    add("--points", type=int, default=100_000, help="of each simulated cloud (default 100000)")
    add("--seconds", type=_positive, default=20.0, help="how long (default 20)")
    add("--seed", type=int, default=1, help="of the simulated drive (default 1)")
    add("--play", type=Path, metavar="LOG", help="an AV2 log or a bag, to and fro, in place of a simulated drive")
    add("--odometry", action=argparse.BooleanOptionalAction, default=True, help="publish odom (default yes)")
    add("--markers", action="store_true", help="subscribe to the markers as well, for which the node clusters")
    add("--frame", default="base_link", help="frame_id of the clouds (default base_link)")
    add("--node", default="/flow_node", help="whose diagnostics to hear (default /flow_node)")
    add("--wait", type=_positive, default=120.0, metavar="S", help="seconds to wait for the node (default 120)")
    add(
        "--start",
        nargs="*",
        metavar="NAME:=VALUE",
        help="start a flow node with these parameters, and measure its processor and memory too",
    )
    add("--json", type=Path, metavar="FILE", help="where the account goes, complete")
    return parser.parse_args(arguments)


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def _spin(executor: SingleThreadedExecutor) -> None:
    try:
        executor.spin()
    except ExternalShutdownException:
        pass


def _probe(options: argparse.Namespace, stop: StopSignal) -> dict[str, Any]:
    """Everything, with a node that runs already."""
    return _account(options, stop, check=lambda: None)


def _start_and_probe(options: argparse.Namespace, stop: StopSignal) -> dict[str, Any]:
    """Everything, with a node of its own, and what that one takes of the machine."""
    words = [word for setting in options.start for word in ("-p", setting)]
    with TemporaryDirectory() as folder, child("flow_node", Path(folder) / "node.log", ["--ros-args", *words]) as node:
        watch = ProcessWatch(node.pid)
        summary = _account(options, stop, node.check)
        watch.stop()
    began, ended = summary["span"]
    return summary | {"node": sum_up([sample for sample in watch.samples if began <= sample.at <= ended])}


def _account(options: argparse.Namespace, stop: StopSignal, check: Callable[[], None]) -> dict[str, Any]:
    probe = destroyed_at_end(Probe(_sweeps(options), options, stop, check))
    executor = SingleThreadedExecutor()
    executor.add_node(probe)
    # Answers are heard in a thread of their own: their time is what is measured, and so is that of the clouds.
    threading.Thread(target=_spin, args=(executor,), name="answers", daemon=True).start()
    stop.wait_for_it()
    try:
        probe.connect()
        processor, began = time.process_time(), time.monotonic()
        probe.send()
        share = (time.process_time() - processor) / (time.monotonic() - began)
        probe.finish()
    finally:
        executor.shutdown(timeout_sec=1.0)
    return {"rate": options.rate, "own_processors": share, "span": probe.account.span, **probe.account.summary()}


def main(args: list[str] | None = None) -> NoReturn:
    command_line = sys.argv if args is None else ["probe", *args]
    options = _parse(remove_ros_args(command_line)[1:])

    def body(stop: StopSignal) -> int:
        summary = _probe(options, stop) if options.start is None else _start_and_probe(options, stop)
        text = json.dumps(summary, indent=1, allow_nan=False)
        if options.json is None:
            print(text)
        else:
            with new_file(options.json, "w") as file:
                file.write(text + "\n")
        return 0

    run("probe", body, command_line)


if __name__ == "__main__":
    main()
