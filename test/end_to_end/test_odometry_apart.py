"""The node's KISS-ICP, a process of its own: never left behind, and not missed for long when it dies."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")
pytest.importorskip("kiss_icp", reason="kiss-icp is not installed")

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from processes import PATIENCE, SECOND, STEP, Process, cloud, odometry, street

from zeroflow_ros.live.health import Problem

NODE = "zeroflow_ros.flow_node"


@pytest.fixture
def start(start_node):
    """Starts a flow node with the given parameters."""
    return partial(start_node, ground="none")


def _state(pid: int) -> list[str]:
    """What /proc/…/stat says from the third field on: state, parent, …; nothing when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _children(node: Process) -> list[int]:
    """The node's processes for KISS-ICP."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and _state(int(folder.name))[1:2] == [str(node.pid)]:
            try:
                words = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if b"ego_motion.apart" in words:
                found.append(int(folder.name))
    return found


def _wait_for_end(pids: list[int]) -> None:
    deadline = time.monotonic() + PATIENCE
    while any(_state(pid)[:1] not in ([], ["Z"]) for pid in pids):
        assert time.monotonic() < deadline, f"still there: {pids}"
        time.sleep(0.02)


def _cpu_seconds(pid: int) -> float:
    state = _state(pid)
    return (int(state[11]) + int(state[12])) / os.sysconf("SC_CLK_TCK")


def _when_idle(pid: int) -> float:
    """The processor time it has taken when it takes no more."""
    deadline, taken = time.monotonic() + PATIENCE, -1.0
    while (now := _cpu_seconds(pid)) != taken:
        assert time.monotonic() < deadline, "it is never idle"
        taken = now
        time.sleep(1.0)
    return taken


def _cloud(k: int):
    return cloud(street(), 100 * SECOND + k * STEP)


def test_one_that_is_killed_costs_a_few_clouds(start, peer):
    node = start(ego_motion="kiss_icp")
    peer.connect(clouds_only=True)
    for k in range(4):
        peer.send(_cloud(k))
    peer.wait(lambda: len(peer.flows) == 3, "flows")
    (victim,) = _children(node)
    os.kill(victim, signal.SIGKILL)
    for k in range(4, 10):
        peer.send(_cloud(k))
    peer.wait(lambda: len(peer.flows) == 7, "flows again, after a cloud without ego motion and the first of a series")
    counts = peer.counts()
    assert counts["no_partner"] == "2"
    assert {name.value: counts[name.value] for name in Problem if counts[name.value] != "0"} == {"no_ego_motion": "1"}
    told = [line for line in node.log.splitlines() if "KISS-ICP" in line]
    assert len(told) == 1 and "KISS-ICP's process was ended by signal 9 (Killed) and is replaced" in told[0], node.log
    (heir,) = _children(node)
    assert heir != victim and "Traceback" not in node.log


def test_configured_anew_it_has_one_at_a_time(start, caller):
    def change(what: int) -> None:
        request = ChangeState.Request(transition=Transition(id=what))
        assert caller.call(ChangeState, "/flow_node/change_state", request).success, node.log

    node = start(ego_motion="auto")
    before = _children(node)
    for _ in range(2):
        assert len(before) == 1
        change(Transition.TRANSITION_DEACTIVATE)
        assert _children(node) == before
        change(Transition.TRANSITION_CLEANUP)
        assert _children(node) == []
        change(Transition.TRANSITION_CONFIGURE)
        after = _children(node)
        assert after != before
        change(Transition.TRANSITION_ACTIVATE)
        assert _children(node) == after
        before = after
    change(Transition.TRANSITION_ACTIVE_SHUTDOWN)
    assert _children(node) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_it_ends_with_the_node(start, peer, number: signal.Signals):
    node = start(ego_motion="kiss_icp")
    peer.connect(clouds_only=True)
    peer.send(_cloud(0))
    children = _children(node)
    assert len(children) == 1
    peer.cloud_out.publish(_cloud(1))  # under way
    node.signal(number)
    assert node.wait() == (-signal.SIGKILL if number == signal.SIGKILL else 0), node.log
    _wait_for_end(children)
    assert "Traceback" not in node.log


def test_it_has_nothing_to_do_where_odometry_tells(start, peer):
    node = start(ego_motion="auto")
    peer.connect()
    (child,) = _children(node)
    peer.send(_cloud(0), odometry(100 * SECOND))
    before = _when_idle(child)  # until it has started, which is work
    for k in range(1, 12):
        peer.send(_cloud(k), odometry(100 * SECOND + k * STEP))
    assert peer.counts()["ego_motion"] == "odom"
    assert _cpu_seconds(child) - before < 0.02


@pytest.mark.parametrize("mode", ["odom", "none"])
def test_there_is_none_where_it_is_not_asked_for(start, mode: str):
    assert _children(start(ego_motion=mode)) == []
