"""The flow node as a managed node, over real DDS: its states, parameters that change, and how it ends."""

from __future__ import annotations

import signal
import time
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from processes import SECOND, STEP, Peer, Process, cloud, nanoseconds, street, tiny_checkpoint
from rcl_interfaces.srv import DescribeParameters, GetParameters, SetParametersAtomically
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock

NODE = "zeroflow_ros.flow_node"
CONFIGURE, CLEANUP = Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_CLEANUP
ACTIVATE, DEACTIVATE = Transition.TRANSITION_ACTIVATE, Transition.TRANSITION_DEACTIVATE


@pytest.fixture
def start(start_node):
    """Starts flow nodes that need nothing but clouds."""
    return partial(start_node, ground="none", ego_motion="none")


class Operator(Peer):
    """A peer that also calls the node's services."""

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        self._clients: dict[str, object] = {}

    def call(self, kind: type, name: str, **request: object):
        if name not in self._clients:
            client = self._clients[name] = self.node.create_client(kind, f"flow_node/{name}")
            self.wait(lambda: client.wait_for_service(0.0), f"the service {name}")
            known_s = time.monotonic()  # to this side; the service drops an answer to whom it does not know yet
            self.wait(lambda: time.monotonic() - known_s > 0.5, "the service to know this side")
        future = self._clients[name].call_async(kind.Request(**request))
        self.wait(future.done, f"an answer from {name}")
        return future.result()

    def change(self, transition: int) -> bool:
        return self.call(ChangeState, "change_state", transition=Transition(id=transition)).success

    def state(self) -> str:
        return self.call(GetState, "get_state").current_state.label

    def set(self, **values: object) -> str:
        """Nothing, or why it was refused."""
        parameters = [Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]
        result = self.call(SetParametersAtomically, "set_parameters_atomically", parameters=parameters).result
        return "" if result.successful else result.reason

    def flows_of(self, first_ns: int, count: int = 3) -> int:
        """How many flows come of so many clouds."""
        before = len(self.flows)
        for k in range(count):
            self.send(cloud(street(seed=k), first_ns + k * STEP))
        self.wait(lambda: len(self.flows) >= before + count - 1, "flows")
        return len(self.flows) - before


@pytest.fixture
def operator():
    operator = Operator()
    yield operator
    operator.close()


def test_a_node_that_does_not_start_itself_goes_through_its_states(start, operator, checkpoint):
    node = start("--log-level", "info", ready="", autostart="false")
    assert operator.state() == "unconfigured"
    operator.wait(lambda: operator.diagnostics, "diagnostics of a node that is not configured")
    assert operator.node.count_publishers("flow") == 0
    assert not operator.change(ACTIVATE)

    assert operator.set(checkpoint="/nowhere/weights.ckpt") == ""
    assert not operator.change(CONFIGURE)
    assert operator.state() == "unconfigured"
    assert "cannot be configured: checkpoint /nowhere/weights.ckpt: no such file" in node.log
    assert operator.set(checkpoint=str(checkpoint)) == ""
    assert operator.change(CONFIGURE)
    assert operator.state() == "inactive" and operator.counts()["state"] == "inactive"
    assert operator.node.count_subscribers("points") == 0

    for round_ in (1, 2):
        assert operator.change(ACTIVATE)
        operator.connect(clouds_only=True)
        assert operator.counts()["state"] == "active"
        assert operator.flows_of(round_ * 100 * SECOND) == 2
        assert operator.change(DEACTIVATE)
        operator.wait(lambda: operator.cloud_out.get_subscription_count() == 0, "the node to listen no more")
    assert operator.change(CLEANUP)
    assert operator.state() == "unconfigured"
    operator.wait(lambda: operator.node.count_publishers("flow") == 0, "the publishers to vanish")
    assert operator.change(CONFIGURE) and operator.change(ACTIVATE)
    operator.connect(clouds_only=True)
    assert operator.flows_of(500 * SECOND) == 2
    node.signal(signal.SIGINT)
    assert node.wait() == 0 and "Traceback" not in node.log


def _resources(node: Process) -> tuple[int, int, float]:
    """Open files, threads, and resident memory in MiB."""
    status = Path(f"/proc/{node.pid}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    files = len(list(Path(f"/proc/{node.pid}/fd").iterdir()))
    return files, int(fields["Threads"]), int(fields["VmRSS"].split()[0]) / 1024


def test_configuring_again_and_again_leaves_nothing_behind(start, operator, tmp_path):
    """Of a student with the weights of 1x on a coarse grid: one that stayed would show, whatever malloc keeps."""
    heavy = tiny_checkpoint(tmp_path / "heavy.safetensors", pillar_size=1.6, channels=32, blocks=(4, 6, 6))
    student = heavy.stat().st_size / 2**20
    node = start(checkpoint=heavy)
    operator.connect(clouds_only=True)
    measured = []
    for round_ in range(12):
        assert operator.flows_of((round_ + 1) * 100 * SECOND) == 2
        for transition in (DEACTIVATE, CLEANUP, CONFIGURE, ACTIVATE):
            assert operator.change(transition), node.log
        operator.connect(clouds_only=True)
        measured.append(_resources(node))
    files, threads, memory = zip(*measured[3:], strict=True)
    assert max(files) - min(files) <= 2 and max(threads) - min(threads) <= 2, measured
    assert memory[-1] - memory[0] < (len(memory) - 1) * student, measured  # what leaks leaks in every round


def test_parameters_change_while_clouds_flow_or_say_why_not(start, operator):
    start()
    operator.connect(clouds_only=True)
    assert operator.flows_of(100 * SECOND) == 2
    assert operator.set(output_fields=["vx", "status"], min_speed=1.5) == ""
    assert operator.flows_of(200 * SECOND) == 2
    assert [field.name for field in operator.flows[-1].fields] == ["x", "y", "z", "vx", "status"]
    assert "clean it up first" in operator.set(device="cuda")
    assert "pair_interval" in operator.set(pair_interval=0.4, max_gap=0.3)
    assert "read-only" in operator.set(autostart=False)
    assert operator.set(min_speed=1000.0) != "" and operator.set(ground="lava") != ""
    names = ["min_speed", "pair_interval", "device"]
    values = operator.call(GetParameters, "get_parameters", names=names).values
    assert (values[0].double_value, values[1].double_value, values[2].string_value) == (1.5, 0.1, "cpu")
    described = operator.call(DescribeParameters, "describe_parameters", names=["min_speed", "autostart"]).descriptors
    assert described[0].description and described[0].floating_point_range and not described[0].read_only
    assert described[1].read_only


def test_qos_is_overridden_by_parameters_and_topics_are_remapped(start, tmp_path):
    overrides = {
        "qos_overrides./lidar.subscription.reliability": "reliable",
        "qos_overrides./lidar.subscription.depth": 7,
        "qos_overrides./flow.publisher.reliability": "best_effort",
    }
    start("-r", "points:=/lidar", **overrides)
    operator = Operator(cloud_topic="lidar")
    try:
        operator.wait(lambda: operator.cloud_out.get_subscription_count() == 1, "the node")
        (heard,) = operator.node.get_subscriptions_info_by_topic("/lidar")
        (said,) = operator.node.get_publishers_info_by_topic("/flow")
        assert heard.qos_profile.reliability.name == "RELIABLE" and said.qos_profile.reliability.name == "BEST_EFFORT"
        assert operator.call(GetParameters, "get_parameters", names=list(overrides)).values[1].integer_value == 7
        for topic in ("markers", "processed", "flow_node/objects", "flow_node/debug/processing_time_ms"):
            assert operator.node.count_publishers(topic) == 1, topic
    finally:
        operator.close()


@pytest.mark.parametrize("name", ["qos_overrides./diagnostics.publisher.reliability", "use_sim_time"])
def test_a_value_that_rclpy_refuses_ends_the_node_with_a_sentence(start, name: str):
    node = start(ready="", **{name: 3})
    assert node.wait() == 1
    assert "the node cannot be made with these parameters: " in node.log and "Traceback" not in node.log


def test_a_clock_that_is_set_back_begins_a_new_series(start, operator):
    start(use_sim_time="true")
    clock = operator.node.create_publisher(Clock, "/clock", 10)
    operator.wait(lambda: clock.get_subscription_count() > 0, "the node to follow the clock")
    operator.wait(lambda: operator.cloud_out.get_subscription_count() == 1, "the node")
    operator.wait(lambda: len(operator.diagnostics) > 3, "diagnostics")

    def tick(stamp_ns: int) -> None:
        message = Clock()
        message.clock.sec, message.clock.nanosec = divmod(stamp_ns, SECOND)
        clock.publish(message)
        seen = len(operator.diagnostics)
        operator.wait(
            lambda: any(m.header.stamp == message.clock for m in operator.diagnostics[seen:]), "the new time"
        )

    tick(1000 * SECOND)
    for k in range(3):
        operator.send(cloud(street(seed=k), 1000 * SECOND + k * STEP))
    tick(999 * SECOND)  # a second back, while stamps go on: nobody knows what they mean now
    operator.send(cloud(street(seed=3), 1000 * SECOND + 3 * STEP))
    operator.send(cloud(street(seed=4), 1000 * SECOND + 4 * STEP))
    operator.wait(lambda: len(operator.flows) == 3, "three flows")
    facts = {entry.key: entry.value for entry in operator.diagnostics[-1].status[0].values}
    stamps = [nanoseconds(flow.header.stamp) for flow in operator.flows]
    assert [(stamp_ns - 1000 * SECOND) // STEP for stamp_ns in stamps] == [1, 2, 4]
    assert facts["internal_error"] == "0"


def test_without_a_listener_nothing_is_computed_but_diagnostics_go_on(start, operator):
    start()
    operator.connect(clouds_only=True)
    assert operator.flows_of(100 * SECOND) == 2
    for subscription in list(operator.node.subscriptions):
        if subscription.topic_name in ("/flow", "/markers"):
            operator.node.destroy_subscription(subscription)
    time.sleep(0.5)
    for k in range(20):  # the node learns of it in its own time
        operator.send(cloud(street(seed=k), 200 * SECOND + k * STEP))
        if k > 2 and int(operator.counts()["unwatched"]) > 0:
            break
    before = operator.counts()
    for k in range(3):
        operator.send(cloud(street(seed=k), 300 * SECOND + k * STEP))
    after = operator.counts()
    assert int(after["unwatched"]) - int(before["unwatched"]) == 3
    assert after["flows_published"] == before["flows_published"]


@pytest.mark.parametrize("state", ["unconfigured", "inactive", "working"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_node_within_a_second_in_every_state(start, operator, state: str, number: signal.Signals):
    node = start(ready="", autostart="true" if state == "working" else "false")
    if state == "inactive":
        assert operator.change(CONFIGURE)
    if state == "working":
        node.wait_for("ready: ")
        operator.connect(clouds_only=True)
        for k in range(4):
            operator.cloud_out.publish(cloud(street(300_000, seed=k), SECOND + k * STEP))
    else:
        assert operator.state() == state
    start_s = time.monotonic()
    node.signal(number)
    assert node.wait() == 0
    took = time.monotonic() - start_s
    assert "Traceback" not in node.log and "rror" not in node.log
    assert took < 10.0, took  # one second, and what a busy machine adds


def test_a_signal_while_a_service_loads_the_student_ends_the_node_too(start, operator):
    node = start(ready="", autostart="false")
    assert operator.state() == "unconfigured"
    client = operator.node.create_client(ChangeState, "flow_node/change_state")
    operator.wait(lambda: client.wait_for_service(0.0), "the service")
    client.call_async(ChangeState.Request(transition=Transition(id=CONFIGURE)))
    operator.wait(lambda: "preparing the student" in node.log, "the load to begin")
    node.signal(signal.SIGTERM)
    assert node.wait() == 0
    assert "Traceback" not in node.log
