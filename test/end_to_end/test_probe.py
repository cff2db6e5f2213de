"""The probe and the node's bench as commands: what they write, and what they say when there is nothing to measure."""

from __future__ import annotations

import json
import signal

import pytest

pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")

from processes import Peer

from zeroflow_core.datasets.bags import write_bag
from zeroflow_core.simulation.to_and_fro import to_and_fro

NODE, PROBE, BENCH = "zeroflow_ros.flow_node", "zeroflow_ros.probe", "zeroflow_core.bench"


@pytest.fixture(scope="module")
def drive(tmp_path_factory):
    """A second of small clouds, as a bag without poses."""
    path = tmp_path_factory.mktemp("bags") / "drive"
    write_bag(path, to_and_fro(2000, 10.0)[:10], {}, odom=False, tf=False)
    return path


def test_the_bench_measures_a_node_that_it_starts(start, checkpoint, tmp_path):
    file = tmp_path / "node.json"
    load = ("--points", 3000, "--seconds", 3, "--checkpoint", checkpoint, "--device", "cpu")
    bench = start(BENCH, "node", *load, "--ego-motion", "odom", "--no-markers", "--json", file)
    assert bench.wait() == 0, bench.log
    (row,) = json.loads(file.read_text())
    assert (row["sent"], row["unaccounted"], row["unanswered"]) == (30, 0, 0)
    assert row["latency_ms"]["clouds"] == row["flows"] > 0
    assert row["node"]["memory_mb"] > 50 and row["node"]["processors"] > 0
    assert float(row["values"]["inference_p50_ms"]) > 0
    assert row["values"]["ego_motion"] == "odom"
    assert "node overhead p50" in bench.log


def test_a_node_that_cannot_start_is_told(start):
    bench = start(BENCH, "node", "--checkpoint", "/nowhere.ckpt", "--device", "cpu", "--seconds", 2, "--points", 2000)
    assert bench.wait() == 1
    assert "/nowhere.ckpt" in bench.log and "flow_node failed" in bench.log


def test_a_signal_ends_the_probe_with_an_account_of_what_was(start, checkpoint, drive, tmp_path):
    parameters = ("-p", f"checkpoint:={checkpoint}", "-p", "device:=cpu", "-p", "ego_motion:=none")
    start(NODE, "--ros-args", "-r", "__ns:=/front", *parameters)
    account = tmp_path / "account.json"
    names = ("--node", "/front/flow_node", "--ros-args", "-r", "__ns:=/front")
    probe = start(PROBE, "--play", drive, "--no-odometry", "--seconds", 600, "--json", account, *names)
    peer = Peer(namespace="front", cloud_topic="unused", odom_topic="unused_odom")
    try:
        peer.wait(lambda: peer.flows, "a flow")
    finally:
        peer.close()
    probe.signal(signal.SIGINT)
    assert probe.wait() == 0, probe.log
    assert json.loads(account.read_text())["sent"] > 0


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        (["--wait", 1], "nobody subscribed to /points within 1 s"),
        (["--play", "/nowhere"], "there is no folder /nowhere"),
        (["--odometry"], "has clouds without a pose; play it with --no-odometry"),
    ],
)
def test_what_cannot_be_measured_is_told_in_one_sentence(start, drive, arguments, complaint):
    probe = start(PROBE, "--play", drive, "--no-odometry", *arguments)
    assert probe.wait() == 1
    assert complaint in probe.log and "Traceback" not in probe.log
