"""The node's topics in a Rerun recording, over real DDS, as they come."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")
pytest.importorskip("rerun", reason="the extra viz is not installed")

from processes import PATIENCE, SECOND, STEP, cloud, environment, odometry, street

sys.path.append(str(Path(__file__).resolve().parents[1] / "unit"))

from rrd_cases import Recording, verify

VIEW = "zeroflow_ros.live_view"


def _stop(view) -> int:
    view.signal(signal.SIGINT)
    return view.wait()


def test_flow_objects_and_path_become_a_recording(start_node, start, peer, tmp_path):
    path = tmp_path / "drive.rrd"
    start_node()
    peer.connect()
    view = start(VIEW, "flow", "--save", path, "--min-speed", "0.05")
    view.wait_for("hearing /flow, /flow_node/objects, /flow_node/path")
    peer.wait(lambda: peer.node.count_subscribers("/flow_node/path") == 1, "the view to be discovered")
    peer.counts()  # time enough for the node to know it, too

    stamps = [100 * SECOND + k * STEP for k in range(5)]
    for k, stamp_ns in enumerate(stamps):
        peer.send(cloud(street(seed=k), stamp_ns), odometry(stamp_ns, x=0.5 * k))
    peer.wait(lambda: len(peer.flows) == 4, "the flows")
    peer.counts()
    assert _stop(view) == 0, view.log
    assert "4 sweeps of /flow" in view.log and "Traceback" not in view.log

    verify(path)
    there = Recording(path)
    assert sorted(there.sweeps) == stamps[1:]
    for k, stamp_ns in enumerate(stamps[1:], start=1):
        still = there.of("/world/vehicle/estimate/still", "positions", stamp_ns).reshape(-1, 3)
        moving = there.of("/world/vehicle/estimate/moving", "positions", stamp_ns).reshape(-1, 3)
        shown, sent = np.concatenate([still, moving]), street(seed=k)
        np.testing.assert_allclose(np.sort(shown, axis=0), np.sort(sent, axis=0), atol=1e-4)
        assert len(moving) > 0, "the student of random weights sees everything move a little"
        ((x, y, _),) = there.of("/world/vehicle", "translation", stamp_ns)
        assert (x, y) == pytest.approx((0.5 * (k - 1), 0.0), abs=1e-4), "poses are chained along the path"
    assert there.of("/plots/speed/vehicle", "scalars", stamps[2]) == pytest.approx([5.0], abs=0.01)


_SCARCE = """
import itertools, shutil
calls, usage = itertools.count(), shutil.disk_usage
shutil.disk_usage = lambda path: usage(path)._replace(free=1 << 30 if next(calls) < 3 else 1 << 20)
from zeroflow_ros.live_view import main
main()
"""


def test_a_recording_that_fills_the_disk_is_kept(start_node, start, peer, tmp_path, monkeypatch):
    (tmp_path / "scarce.py").write_text(_SCARCE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    path = tmp_path / "drive.rrd"
    start_node()
    peer.connect()
    view = start("scarce", "flow", "--save", path)
    view.wait_for("hearing /flow, /flow_node/objects, /flow_node/path")
    peer.wait(lambda: peer.node.count_subscribers("/flow_node/path") == 1, "the view to be discovered")
    peer.counts()
    for k in range(100):  # the view hears flows with best effort, and may miss some
        if not view.running:
            break
        peer.send(cloud(street(seed=k), 100 * SECOND + k * STEP), odometry(100 * SECOND + k * STEP, x=0.5 * k))
    assert view.wait() == 1, view.log
    assert "2 sweeps of /flow" in view.log and "1 MB are left on that disk; make room" in view.log
    assert "Traceback" not in view.log
    verify(path)
    assert len(Recording(path).sweeps) == 2


def test_a_topic_that_is_no_flow(start, peer, tmp_path):
    view = start(VIEW, "/points", "--save", tmp_path / "a.rrd")
    view.wait_for("hearing /points")
    peer.wait(lambda: peer.cloud_out.get_subscription_count() == 1, "the view to subscribe")
    peer.cloud_out.publish(cloud(street(), SECOND))
    assert view.wait() == 1
    assert "/points is no flow: it has no field vx" in view.log and "Traceback" not in view.log
    assert not (tmp_path / "a.rrd").exists()


@pytest.mark.parametrize(
    ("topic", "sentence"),
    [
        ("no topic", "'no topic' is no name of a topic"),
        ("/points/", "'/points/' is no name of a topic"),
        ("/odom", "/odom is no flow but nav_msgs/msg/Odometry; give the topic that a flow node publishes"),
    ],
)
def test_what_is_no_topic_of_clouds(start, peer, tmp_path, topic, sentence):
    view = start(VIEW, topic, "--save", tmp_path / "a.rrd")
    assert view.wait() == 1
    assert sentence in view.log and "Traceback" not in view.log
    assert list(tmp_path.glob("*a.rrd")) == []


def test_it_waits_for_a_topic_and_says_what_there_is(start, peer, tmp_path):
    view = start(VIEW, "/flwo", "--save", tmp_path / "a.rrd")
    view.wait_for("nobody publishes /flwo so far; there are /points. Waiting")
    assert _stop(view) == 0, view.log


def test_the_command_hands_over(peer, tmp_path):
    log = tmp_path / "view.log"
    program = "from zeroflow_core.cli.main import main; raise SystemExit(main())"
    words = [sys.executable, "-c", program, "view", "/points", "--save", tmp_path / "a.rrd"]
    with log.open("w") as output:
        view = subprocess.Popen(words, env=environment(), stdout=output, stderr=subprocess.STDOUT)
    try:
        peer.wait(lambda: "hearing /points" in log.read_text(), "the view to say so")
        view.send_signal(signal.SIGINT)
        assert view.wait(PATIENCE) == 0, log.read_text()
        assert "0 sweeps of /points" in log.read_text()
    finally:
        view.kill()
        view.wait()
