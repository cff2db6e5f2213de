"""Faults that come from around the flow node: its model's file, its settings, those who listen, and those who send what
cannot be heard. Over real DDS."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from processes import (
    SECOND,
    STEP,
    Peer,
    Process,
    cloud,
    nanoseconds,
    odometry,
    soak_minutes,
    street,
)
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import String

from zeroflow_ros.live.health import Health
from zeroflow_ros.messages.fallback import TFMessage

NODE = "zeroflow_ros.flow_node"
HOUR = 3600 * SECOND
# Hears every flow, and thinks about it for longer than all of a test takes.
SLOW = """
import rclpy, time
from rclpy.qos import QoSProfile
from sensor_msgs.msg import PointCloud2
rclpy.init()
node = rclpy.create_node("slow")
node.create_subscription(PointCloud2, "/around/flow", lambda flow: time.sleep(60), QoSProfile(depth=1))
rclpy.spin(node)
"""


def _start(folder: Path, name: str, **parameters: object) -> Process:
    words = [word for key, value in parameters.items() for word in ("-p", f"{key}:={value}")]
    return Process(folder, NODE, "--ros-args", "-r", f"__ns:=/{name}", "-p", "device:=cpu", *words)


@pytest.fixture(scope="module")
def node(tmp_path_factory, checkpoint):
    wants_reliable = {"qos_overrides./around/points.subscription.reliability": "reliable"}
    with _start(tmp_path_factory.mktemp("around"), "around", checkpoint=checkpoint, **wants_reliable) as node:
        node.wait_for("ready: ")
        yield node


@pytest.fixture
def peer(node):
    """After each test every cloud has had its one end, and the node still answers."""
    with Peer(namespace="around") as peer:
        peer.connect()
        yield peer
        _series(peer, 900 * HOUR + time.monotonic_ns())
        counts = peer.counts()
        assert int(counts["clouds_received"]) == sum(int(counts[name]) for name in Health(None).outcomes())
        assert counts["internal_error"] == "0" and "Traceback" not in node.log, node.log


def _series(peer: Peer, now: int, count: int = 5, points: int = 4000, with_odometry: bool = True) -> int:
    """How many flows come of so many clouds."""
    before = len(peer.flows)
    for k in range(count):
        stamp_ns = now + k * STEP
        peer.send(cloud(street(points), stamp_ns), odometry(stamp_ns) if with_odometry else None)
    counted = int(peer.counts()["flows_published"])
    peer.wait(lambda: len(peer.flows) > before, f"one of the {counted} flows published")
    return len(peer.flows) - before


def _since(before: dict[str, str], after: dict[str, str], *names: str) -> list[int]:
    return [int(after.get(name, 0)) - int(before.get(name, 0)) for name in names]


def test_odometry_that_ends_is_replaced_by_the_clouds_and_taken_back(node, peer):
    pytest.importorskip("kiss_icp", reason="kiss-icp is not installed")
    before = peer.counts()
    assert _series(peer, HOUR) == 4
    assert peer.counts()["ego_motion"] == "odom"
    flows = _series(peer, HOUR + 5 * STEP, 20, with_odometry=False)
    told = peer.counts()
    assert told["ego_motion"] == "kiss_icp"
    # One second of clouds wait in vain; one is extrapolated, and KISS-ICP's first has no partner.
    waited, switched = _since(before, told, "no_ego_motion", "ego_motion_switched")
    assert 8 <= waited <= 11 and switched == 1 and flows >= 8
    assert node.log.count("the ego motion comes from the clouds themselves (KISS-ICP) now, not from odometry") == 1
    assert _series(peer, HOUR + 25 * STEP) == 4
    after = peer.counts()
    assert (after["ego_motion"], _since(before, after, "ego_motion_switched")) == ("odom", [2])


def test_a_subscriber_that_sleeps_holds_nobody_up(peer, tmp_path):
    slow = tmp_path / "slow.py"
    slow.write_text(SLOW)
    process = Process(tmp_path, "slow", PYTHONPATH=str(tmp_path))
    try:
        peer.wait(lambda: peer.node.count_subscribers("flow") == 2, "the slow subscriber")
        start = time.monotonic()
        assert _series(peer, 2 * HOUR, 30, points=20_000) == 29
        assert time.monotonic() - start < 50 and process.running  # it sleeps for 60 s
    finally:
        process.kill()


def test_of_a_burst_the_newest_are_served_and_all_others_are_counted(peer):
    assert _series(peer, 3 * HOUR) == 4
    before, flows = peer.counts(), len(peer.flows)
    burst = [cloud(street(20_000), 3 * HOUR + k * STEP) for k in range(5, 55)]
    for message in burst:
        peer.odom_out.publish(odometry(nanoseconds(message.header.stamp)))
    for message in burst:
        peer.cloud_out.publish(message)
    peer.wait(lambda: 3 * HOUR + 54 * STEP in peer.processed, "the last one's end")
    _series(peer, 3 * HOUR + 55 * STEP)
    after = peer.counts()
    received, lost = _since(before, after, "clouds_received", "lost_in_transport")
    assert received + lost == 55 and len(peer.flows) > flows


def _resident_mib(node: Process) -> float:
    (line,) = [line for line in Path(f"/proc/{node.pid}/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


def test_two_million_points_are_answered_and_their_memory_is_used_again(node, peer):
    """glibc and Fast DDS keep what one such cloud takes for the next, the latter for each flow in its history."""
    _series(peer, 4 * HOUR)
    resident, points = [_resident_mib(node)], street(2_000_000)
    for k in range(1 if soak_minutes() is None else 14):
        now = 4 * HOUR + (k + 1) * 100 * STEP
        _series(peer, now)
        peer.send(cloud(points, now + 5 * STEP), odometry(now + 5 * STEP))
        peer.wait(lambda: peer.flows[-1].width == 2_000_000, "its flow")
        assert _series(peer, now + 6 * STEP, 10) == 10
        peer.flows.clear()
        resident.append(_resident_mib(node))
    assert resident[1] - resident[0] < 600, resident
    assert resident[-1] - resident[len(resident) // 2] < 96 or len(resident) == 2, resident  # a cloud and its flow


def test_publishers_that_cannot_be_heard_are_named(node, peer, caller):
    other = caller.node.create_publisher(String, "/around/points", 10)
    quality = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    unheard = peer.node.create_publisher(PointCloud2, "points", quality)
    peer.wait(lambda: "offering incompatible QoS" in node.log, "a line in the log")
    other.publish(String(data="a cloud"))
    unheard.publish(cloud(street(), 5 * HOUR))
    assert _series(peer, 5 * HOUR) == 4
    # That the node has heard of the publisher of another type is in no log, and on a busy machine it takes a while.
    peer.wait(lambda: "(3 publishers" in peer.counts()["input"], "the node to know of all three")
    assert peer.counts()["input"] == (
        "/around/points (3 publishers, of another QoS: Best effort publisher and reliable subscription, "
        "of another type: std_msgs/msg/String)"
    )
    caller.node.destroy_publisher(other)
    peer.node.destroy_publisher(unheard)
    peer.wait(lambda: peer.counts()["input"] == "/around/points (1 publisher)", "them to be gone")


def test_what_is_no_message_at_all_does_no_harm(peer):
    before = peer.counts()
    for data in (b"\0\1\0\0", b"\0\1\0\0" + bytes(range(256)) * 9, b"\xff" * 500):
        peer.cloud_out.publish(data)
        peer.odom_out.publish(data)
    assert _series(peer, 6 * HOUR) == 4
    assert _since(before, peer.counts(), "clouds_received") == [5]


def test_a_request_that_breaks_rclpy_itself_does_not_end_the_node(node, peer, caller):
    nonsense = ParameterValue(type=99)
    client = caller.node.create_client(SetParameters, "/around/flow_node/set_parameters")
    assert client.wait_for_service(60.0)
    before = peer.counts()
    client.call_async(SetParameters.Request(parameters=[Parameter(name="min_speed", value=nonsense)]))
    peer.wait(lambda: "a callback failed: ValueError: 99 is not a valid" in node.log, "a line in the log")
    assert _since(before, peer.counts(), "callback_failed") == [1]
    caller.set_number("min_speed", 0.75, "/around/flow_node")


@pytest.mark.skipif(TFMessage is None, reason="tf2_msgs is not installed")
def test_transforms_without_sense_do_no_harm(node, peer):
    from geometry_msgs.msg import TransformStamped

    def transform(parent: str, child: str, x: float = 0.0) -> TransformStamped:
        message = TransformStamped(child_frame_id=child)
        message.header.frame_id = parent
        message.transform.translation.x = x
        return message

    before = peer.counts()
    out = peer.node.create_publisher(TFMessage, "/tf", 10)
    peer.wait(lambda: out.get_subscription_count() == 1, "the node to hear transforms")
    circle = [transform("base_link", "a"), transform("a", "b"), transform("b", "base_link")]
    out.publish(TFMessage(transforms=[*circle, transform("a", "a"), transform("odom", "base_link", float("nan"))]))
    out.publish(b"\0\1\0\0\xff\xff\xff\xff")
    peer.wait(lambda: "is no pose" in node.log, "a line in the log")
    assert _series(peer, 7 * HOUR) == 4
    assert _since(before, peer.counts(), "bad_transform") == [2]
    peer.node.destroy_publisher(out)


BROKEN = {
    "missing": lambda path, good: None,
    "empty": lambda path, good: path.write_bytes(b""),
    "a folder": lambda path, good: path.mkdir(),
    "cut short": lambda path, good: path.write_bytes(good[: len(good) // 2]),
    "an archive": lambda path, good: path.write_bytes(b"PK\3\4" + bytes(200)),
    "a text": lambda path, good: path.write_text("weights: none\n" * 99),
}


def test_a_model_that_cannot_be_read_is_told_and_one_that_is_swapped_is_not_noticed(tmp_path, checkpoint, caller):
    good, peer = checkpoint.read_bytes(), Peer(namespace="model")
    node = _start(tmp_path, "model", autostart="false", ego_motion="none", ground="none")

    def change(transition: int) -> bool:
        request = ChangeState.Request(transition=Transition(id=transition))
        return caller.call(ChangeState, "/model/flow_node/change_state", request).success

    def choose(path: Path) -> None:
        text = ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=str(path))
        request = SetParameters.Request(parameters=[Parameter(name="checkpoint", value=text)])
        assert caller.call(SetParameters, "/model/flow_node/set_parameters", request).results[0].successful

    try:
        for number, make in enumerate(BROKEN.values()):
            for suffix in ("safetensors", "ckpt"):
                path = tmp_path / f"broken{number}.{suffix}"
                make(path, good)
                choose(path)
                assert not change(Transition.TRANSITION_CONFIGURE)
                assert f"cannot be configured: checkpoint {path}: " in node.log
        path = tmp_path / "good.safetensors"
        shutil.copy(checkpoint, path)
        choose(path)
        assert change(Transition.TRANSITION_CONFIGURE) and change(Transition.TRANSITION_ACTIVATE), node.log
        peer.connect(clouds_only=True)
        for k, spoil in enumerate((lambda: path.write_bytes(good[:100]), path.unlink, path.mkdir)):
            spoil()
            assert _series(peer, (k + 1) * HOUR, with_odometry=False) == 4
        path.rmdir()
        assert change(Transition.TRANSITION_DEACTIVATE) and change(Transition.TRANSITION_CLEANUP)
        assert not change(Transition.TRANSITION_CONFIGURE)
        assert f"cannot be configured: checkpoint {path}: no such file" in node.log
        path.write_bytes(good)
        assert change(Transition.TRANSITION_CONFIGURE) and change(Transition.TRANSITION_ACTIVATE), node.log
        assert _series(peer, 9 * HOUR, with_odometry=False) == 4
        assert "Traceback" not in node.log
    finally:
        node.kill()
        peer.close()


def test_a_node_that_cannot_listen_says_why_and_ends(tmp_path, checkpoint):
    wrong = {"qos_overrides./deaf/points.subscription.reliability": "nonsense"}
    node = _start(tmp_path, "deaf", checkpoint=checkpoint, **wrong)
    try:
        assert node.wait() == 1
        assert "cannot be activated: " in node.log and "Traceback" not in node.log
    finally:
        node.kill()
