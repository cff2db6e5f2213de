"""A node under full load, over real DDS: no cloud unaccounted for, and a node that stays responsive meanwhile.

Some seconds with a small student in the usual run; a minute with the one that comes along in `make soak`.
"""

from __future__ import annotations

import json
import statistics
import time

import pytest

pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")

from processes import Caller, Process, soak_minutes, tiny_checkpoint

NODE, PROBE = "zeroflow_ros.flow_node", "zeroflow_ros.probe"
SOAK = soak_minutes() is not None
POINTS, RATE, SECONDS = 100_000, 10.0, 60 if SOAK else 12
# Each of the node's threads, and the stages it does one after the other.
THREADS = (
    ("decode", "ego_motion", "odometry", "deskew", "ground"),
    ("pair", "inference", "verify"),
    ("encode", "publish"),
)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("ego_motion", ["odom", "kiss_icp"] if SOAK else ["odom"])
def test_under_load_every_cloud_is_accounted_for_and_the_node_stays_responsive(start, caller, tmp_path, ego_motion):
    checkpoint = "default" if SOAK else tiny_checkpoint(tmp_path / "tiny.safetensors")
    node = start(
        *(NODE, "--ros-args", "-p", f"checkpoint:={checkpoint}", "-p", "device:=cpu"),
        *("-p", f"ego_motion:={ego_motion}"),
    )
    account = tmp_path / "account.json"
    odometry = "--odometry" if ego_motion == "odom" else "--no-odometry"
    load = ("--points", POINTS, "--rate", RATE, "--seconds", SECONDS, odometry, "--markers")
    probe = start(PROBE, *load, "--json", account)
    node.wait_for("ready: ")
    waits = _ask_until_it_ends(caller, probe)
    assert probe.wait() == 0, probe.log
    summary = json.loads(account.read_text())
    print(json.dumps({"parameter_services_s": [statistics.median(waits), max(waits)], **summary}))

    # Sent = received + lost; received = the sum of what became of them; and each got its word on `processed`.
    assert summary["sent"] == SECONDS * RATE
    books = ("unaccounted", "unanswered", "lost_to_probe", "repeated", "strange")
    assert {name: summary[name] for name in books} == dict.fromkeys(books, 0), (summary, node.log)
    # What is lost behind the last cloud received shows in no gap.
    lost = summary["counts"].get("lost_in_transport", 0)
    assert 0 <= summary["lost_to_node"] - lost <= 1, summary

    # As many flows as the slowest of its threads can make; the rest is counted as left out.
    counts = summary["counts"]
    allowed = min(summary["received"] - 1, 1e3 * SECONDS / _slowest_thread_ms(summary["values"]))
    assert summary["flows"] >= 0.6 * allowed, summary
    others = set(counts) - {"clouds_received", "flows_published", "skipped_busy", "objects_skipped", "no_partner"}
    assert others <= {"lost_in_transport", "gap"}, (counts, node.log)

    # Diagnostics every second, all the time; and parameters when asked for.
    assert summary["diagnostics"]["messages"] >= 0.5 * SECONDS, summary["diagnostics"]
    assert len(waits) >= SECONDS / 6 and statistics.median(waits) < 3.0, waits
    assert caller.parameter("min_speed").double_value == pytest.approx(_min_speed(len(waits) - 1))
    assert "Traceback" not in node.log


def _ask_until_it_ends(caller: Caller, probe: Process) -> list[float]:
    """Seconds that each change of a parameter took, with a look at the result."""
    waits = []
    while probe.running:
        value = _min_speed(len(waits))
        began = time.monotonic()
        caller.set_number("min_speed", value)
        assert caller.parameter("min_speed").double_value == value
        waits.append(time.monotonic() - began)
        time.sleep(0.5)
    return waits


def _min_speed(number: int) -> float:
    return 0.5 + 0.01 * (number % 10)


def _slowest_thread_ms(values: dict[str, str]) -> float:
    return max(sum(float(values.get(f"{stage}_p50_ms", 0)) for stage in stages) for stages in THREADS)
