"""Everything a sensor stack may throw at the flow node, over real DDS: each fault is answered or counted, told in one
line, and the clouds after it are served."""

from __future__ import annotations

import itertools
import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")

from processes import SECOND, STEP, Peer, Process, cloud, nanoseconds, odometry, street
from sensor_msgs.msg import PointField

from zeroflow_ros.live.health import Health, Problem

FLOW, ALONE = "flows_published", "no_partner"
EVERYTHING = Health(None).outcomes().keys() | {problem.value for problem in Problem}
QUIET_S = 5.0  # between two lines about the same thing
AT = 3 * STEP  # of a fault, after the first cloud of its series: beyond what odometry is extrapolated
AFTERWARDS = 6  # good clouds, STEP apart
HOURS = itertools.count(1)


@dataclass(frozen=True)
class Fault:
    """What is done to a good cloud, or to its odometry, and what is to be counted.

    counts:   what the faulty cloud is counted as, and its outcome where that is another thing
    later:    what the good clouds after it are counted as, in so far as they are not answered
    odometry: its stamp shall have any
    """

    edit: Callable
    counts: tuple[str, ...]
    later: tuple[str, ...] = ()
    odometry: bool = True


def _set(**attributes) -> Callable:
    """Change these attributes of a message; values that are callable are given the old one."""

    def edit(message):
        for path, value in attributes.items():
            *way, last = path.split("__")
            target = message
            for name in way:
                target = target[int(name)] if name.isdecimal() else getattr(target, name)
            setattr(target, last, value(getattr(target, last)) if callable(value) else value)
        return message

    return edit


def _points(points: np.ndarray) -> Callable:
    """Other points, in as many rows as there are."""
    return lambda message: _restamped(cloud(points.astype(np.float32), 0), message)


def _restamped(message, other):
    message.header = other.header
    return message


def _shifted(seconds: float) -> Callable:
    def edit(message):
        stamp = message.header.stamp
        stamp.sec, stamp.nanosec = divmod(nanoseconds(stamp) + round(seconds * SECOND), SECOND)
        return message

    return edit


def _stamped(sec: int, nanosec: int = 0) -> Callable:
    return _set(header__stamp__sec=sec, header__stamp__nanosec=nanosec)


def _organised(message):
    """Four rows, each with 40 bytes behind it."""
    rows = np.frombuffer(message.data, np.uint8).reshape(4, -1)
    message.data = np.pad(rows, ((0, 0), (0, 40))).tobytes()
    return _set(height=4, width=message.width // 4, row_step=rows.shape[1] + 40)(message)


def _big_endian(message):
    return _set(is_bigendian=True, data=lambda data: np.frombuffer(data, "<u4").byteswap().tobytes())(message)


def _typed(datatype: int, name: str = "intensity", count: int = 1, big: int = 8) -> Callable:
    """A fourth field, of which every byte is 255 (floats are NaN then)."""

    def edit(message):
        rows = np.frombuffer(message.data, np.uint8).reshape(-1, 12)
        message.data = np.pad(rows, ((0, 0), (0, big)), constant_values=255).tobytes()
        message.fields.append(PointField(name=name, offset=12, datatype=datatype, count=count))
        return _set(point_step=12 + big, row_step=len(rows) * (12 + big))(message)

    return edit


def _some(value: float, every: int = 7) -> np.ndarray:
    points = street()
    points[::every] = value
    return points


MALFORMED, NO_POINTS, CHANGED = ("malformed",), ("no_points", FLOW), ("frame_changed",)
NOWHERE, JUMP = ("no_ego_motion",), ("time_jump", "no_ego_motion")
CLOUDS = {
    # What a message says of its size is not true.
    "a byte is missing": Fault(_set(data=lambda data: data[:-1]), MALFORMED),
    "no data": Fault(_set(data=b""), MALFORMED),
    "point step 0": Fault(_set(point_step=0), MALFORMED),
    "huge point step": Fault(_set(point_step=2**32 - 1), MALFORMED),
    "huge width": Fault(_set(width=2**32 - 1), MALFORMED),
    "huge height": Fault(_set(height=2**32 - 1), MALFORMED),
    "row step too small": Fault(_set(height=2, width=2000, row_step=23_999), MALFORMED),
    "row step too big": Fault(_set(height=2, width=2000, row_step=24_001), MALFORMED),
    "row step that does not matter": Fault(_set(row_step=1), (FLOW,)),
    # Fields.
    "no z": Fault(_set(fields=lambda fields: fields[:2]), MALFORMED),
    "no fields": Fault(_set(fields=[]), MALFORMED),
    "x is INT16": Fault(_set(fields__0__datatype=3), MALFORMED),
    "x of datatype 0": Fault(_set(fields__0__datatype=0), MALFORMED),
    "x of datatype 255": Fault(_set(fields__0__datatype=255), MALFORMED),
    "z beyond the point": Fault(_set(fields__2__offset=9), MALFORMED),
    "z a thousand times": Fault(_set(fields__2__count=1000), MALFORMED),
    "count 0": Fault(_set(fields__2__count=0), (FLOW,)),
    "x twice": Fault(_set(fields=lambda fields: [*fields, fields[0]]), (FLOW,)),
    "intensity of datatype 9": Fault(_typed(9), MALFORMED),
    "intensity is NaN of 64 bits": Fault(_typed(8), (FLOW,)),
    "ring is NaN": Fault(_typed(7, "ring"), (FLOW,)),
    "times are NaN": Fault(_typed(8, "timestamp"), (FLOW,)),
    "times are huge": Fault(_typed(6, "t"), (FLOW,)),
    "an unknown field of an unknown kind": Fault(_typed(77, "label", count=1000), (FLOW,)),
    # Layouts that are no faults, and one that is, but cannot be told from nonsense measured.
    "organised, with padding": Fault(_organised, (FLOW,)),
    "big-endian": Fault(_big_endian, (FLOW,)),
    "little-endian, called big": Fault(_set(is_bigendian=True), (FLOW,)),
    # Points.
    "zero points": Fault(_points(street(0)), NO_POINTS),
    "all NaN": Fault(_points(np.full((500, 3), np.nan)), NO_POINTS),
    "all at the sensor": Fault(_points(np.zeros((500, 3))), NO_POINTS),
    "one point": Fault(_points(street(1)), (FLOW,)),
    "all alike": Fault(_points(np.ones((4000, 3))), (FLOW,)),
    "infinite ones": Fault(_points(_some(-math.inf)), (FLOW,)),
    "1e30 m away": Fault(_points(_some(1e30)), (FLOW,)),
    "all -1e30 m away": Fault(_points(np.full((500, 3), -1e30)), (FLOW,)),
    "denormal numbers": Fault(_points(_some(1e-42)), (FLOW,)),
    # Stamps.
    "stamp twice": Fault(_shifted(-0.2), ("duplicate_stamp",), odometry=False),
    "a little back": Fault(_shifted(-0.25), ("out_of_order",), odometry=False),
    "far back": Fault(_shifted(-100), JUMP, (ALONE,), odometry=False),
    "a second ahead": Fault(_shifted(1), ("gap",), ("time_jump", ALONE)),
    "a little ahead": Fault(_shifted(0.27), (FLOW,), ("out_of_order", "out_of_order", ALONE)),
    "hours ahead": Fault(_shifted(9999), NOWHERE, ("time_jump", ALONE), odometry=False),
    "stamp 0": Fault(_stamped(0), JUMP, (ALONE,), odometry=False),
    "a negative stamp": Fault(_stamped(-(2**31)), JUMP, (ALONE,), odometry=False),
    "the last second of all": Fault(_stamped(2**31 - 1), NOWHERE, ("time_jump", ALONE), odometry=False),
    "too many nanoseconds": Fault(_stamped(0, 2**32 - 1), JUMP, (ALONE,), odometry=False),
    # Frames: the clouds that come back have another one than the one before, too.
    "no frame": Fault(_set(header__frame_id=""), CHANGED, CHANGED),
    "an unknown frame": Fault(_set(header__frame_id="elsewhere"), CHANGED, CHANGED),
    "a frame in another script": Fault(_set(header__frame_id="激光雷达 🚗\n[ERROR] no"), CHANGED, CHANGED),
    "a frame as long as a book": Fault(_set(header__frame_id="lidar" * 20_000), CHANGED, CHANGED),
}


def _odometry(value: float, axis: str = "x") -> Callable:
    return _set(**{f"pose__pose__position__{axis}": value})


BAD, MOVED = ("bad_odometry", "no_ego_motion"), ("ego_motion_jump",)
ODOMETRY = {
    "none": Fault(lambda message: None, NOWHERE),
    "NaN": Fault(_odometry(math.nan), BAD),
    "infinite": Fault(_odometry(math.inf, "z"), BAD),
    "a quaternion of zeros": Fault(_set(pose__pose__orientation__w=0.0), BAD),
    "a quaternion of NaN": Fault(_set(pose__pose__orientation__x=math.nan), BAD),
    "500 m away": Fault(_odometry(500.0), MOVED, MOVED),
    "1e300 m away": Fault(_odometry(1e300), MOVED, MOVED),
    "a little back": Fault(_shifted(-0.25), NOWHERE),
    "far back": Fault(_shifted(-100), NOWHERE),
    "hours ahead": Fault(_shifted(9999), NOWHERE),
    "stamp 0": Fault(_stamped(0), NOWHERE),
    "a negative stamp": Fault(_stamped(-1), NOWHERE),
    "of another vehicle frame": Fault(_set(child_frame_id="imu"), (FLOW,)),
    "of no vehicle frame": Fault(_set(child_frame_id=""), (FLOW,)),
}


@pytest.fixture(scope="module")
def node(tmp_path_factory, checkpoint):
    """One for all: whatever one fault leaves behind, the next has to do with."""
    words = ["-r", "__ns:=/faults", "-p", f"checkpoint:={checkpoint}", "-p", "device:=cpu", "-p", "ego_motion:=odom"]
    with Process(tmp_path_factory.mktemp("faults"), "zeroflow_ros.flow_node", "--ros-args", *words) as node:
        node.wait_for("ready: ")
        yield node


@pytest.fixture(scope="module")
def peer(node):
    with Peer(namespace="faults") as peer:
        peer.connect()
        peer.first_s = time.monotonic()
        peer.counts()
        _series(peer)  # which is the one before the first
        yield peer


def _counted(peer: Peer, anew: bool = True) -> Counter:
    """The counters; those that were heard last, unless they are asked for anew."""
    last = {} if anew else {entry.key: entry.value for entry in peer.diagnostics[-1].status[0].values}
    counts = last or peer.counts()
    assert int(counts["clouds_received"]) == sum(int(counts[name]) for name in Health(None).outcomes())
    return Counter({name: int(counts[name]) for name in EVERYTHING})


def _series(peer: Peer, fault: Fault | None = None, of_odometry: bool = False) -> Counter:
    """Two good clouds, the faulty one, and good ones again; what is counted meanwhile."""
    before = _counted(peer, anew=False)  # each test ends with a look at them
    now = next(HOURS) * 3600 * SECOND

    def send(message, poses) -> None:
        for pose in filter(None, poses):
            peer.odom_out.publish(pose)
        peer.send(message)

    for k in range(2):
        send(cloud(street(seed=k), now + k * STEP), [odometry(now + k * STEP)])
    if fault is not None:
        message, pose = cloud(street(seed=2), now + AT), odometry(now + AT)
        if of_odometry:
            pose = fault.edit(pose)
        else:
            message = fault.edit(message)
            if fault.odometry:
                pose.header.stamp = message.header.stamp
        send(message, [pose])
    for k in range(1, AFTERWARDS + 1):
        send(cloud(street(seed=k), now + AT + k * STEP), [odometry(now + AT + k * STEP)])
    return _counted(peer) - before


def _expected(fault: Fault) -> Counter:
    """The first cloud comes hours after the one before, the second is answered."""
    later = Counter(fault.later)
    unanswered = sum(number for name, number in later.items() if name in Health(None).outcomes())
    return Counter(["gap", FLOW, *fault.counts]) + later + Counter({FLOW: AFTERWARDS - unanswered})


def _survives(node: Process, peer: Peer, counted: Counter, expected: Counter) -> None:
    assert node.running and "Traceback" not in node.log, node.log
    assert counted == expected, f"{counted - expected} too many, {expected - counted} missing\n{node.log[-2000:]}"


def test_the_series_alone_is_served(node, peer):
    _survives(node, peer, _series(peer), Counter({"gap": 1, FLOW: 1 + AFTERWARDS}))


@pytest.mark.parametrize("name", CLOUDS)
def test_faulty_cloud(node, peer, name: str):
    _survives(node, peer, _series(peer, CLOUDS[name]), _expected(CLOUDS[name]))


@pytest.mark.parametrize("name", ODOMETRY)
def test_faulty_odometry(node, peer, name: str):
    _survives(node, peer, _series(peer, ODOMETRY[name], of_odometry=True), _expected(ODOMETRY[name]))


def test_each_kind_of_fault_was_told_in_few_short_lines(node, peer):
    counts, lines = _counted(peer), node.log.splitlines()
    seconds = time.monotonic() - peer.first_s
    for name in (problem.value for problem in Problem):
        told = [line for line in lines if f"[{name}, " in line]
        assert bool(told) == bool(counts[name]) and len(told) <= 1 + seconds / QUIET_S, (name, told)
        assert all(" at " in line and len(line) < 400 for line in told), told  # what it is about
