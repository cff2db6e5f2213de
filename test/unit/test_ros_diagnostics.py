"""What the node counts and says about itself."""

from __future__ import annotations

import time

import pytest

pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus
from ros_messages import Log

from zeroflow_ros import diagnostics
from zeroflow_ros.diagnostics import Health, Problem


def _values(health: Health) -> tuple[DiagnosticStatus, dict[str, str]]:
    (status,) = health.report(Time(sec=7)).status
    return status, {entry.key: entry.value for entry in status.values}


def test_counters_latencies_and_facts_are_reported():
    health = Health(Log(), "front/flow_node", {"device": "cpu"})
    health.cloud_received()
    health.count("flows_published")
    for milliseconds in range(1, 101):
        health.took("total", milliseconds * 1e-3)
    status, values = _values(health)
    assert (status.level, status.name) == (DiagnosticStatus.OK, "front/flow_node: flow")
    assert (values["clouds_received"], values["flows_published"], values["device"]) == ("1", "1", "cpu")
    assert float(values["total_p50_ms"]) == pytest.approx(50.5)
    assert float(values["total_p99_ms"]) == pytest.approx(99, abs=0.1)
    assert all(values[problem.value] == "0" for problem in Problem)


def test_latencies_are_those_of_the_last_clouds():
    health = Health(Log())
    for seconds in [9.0] * 50 + [0.001] * 200:
        health.took("total", seconds)
    assert float(_values(health)[1]["total_p99_ms"]) == pytest.approx(1.0)


def test_a_stage_that_fails_is_not_timed():
    health = Health(Log())
    with pytest.raises(ValueError), health.stage("decode"):
        raise ValueError
    with health.stage("ground"):
        pass
    assert "ground_p50_ms" in _values(health)[1] and "decode_p50_ms" not in _values(health)[1]


def test_a_problem_is_counted_each_time_and_logged_now_and_then(monkeypatch):
    log = Log()
    health = Health(log)
    for _ in range(3):
        health.problem(Problem.GAP, "a gap")
    health.problem(Problem.MALFORMED, "nonsense", amount=4)
    assert health.counts()["gap"] == 3 and health.counts()["malformed"] == 4
    assert len(log.lines) == 2 and "a gap" in log.lines[0] and "nonsense" in log.lines[1]
    later = time.monotonic() + 6
    monkeypatch.setattr(diagnostics.time, "monotonic", lambda: later)
    health.problem(Problem.GAP, "a gap")
    assert "4 so far" in log.lines[2]


def test_the_level_warns_of_new_problems_and_of_silence(monkeypatch):
    health = Health(Log())
    health.problem(Problem.GAP, "a gap")
    assert _values(health)[0].level == DiagnosticStatus.WARN
    assert _values(health)[0].level == DiagnosticStatus.OK
    later = time.monotonic() + 10
    monkeypatch.setattr(diagnostics.time, "monotonic", lambda: later)
    status, _ = _values(health)
    assert status.level == DiagnosticStatus.WARN and "no cloud" in status.message


def test_a_warning_about_the_setup_comes_once():
    log = Log()
    health = Health(log)
    health.warn_once("a")
    health.warn_once("a")
    health.warn_once("b")
    assert log.lines == ["a", "b"]
