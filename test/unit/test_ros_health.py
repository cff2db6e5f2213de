"""What the node counts and says about itself."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest

pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus
from ros_messages import Log

from zeroflow_ros.live import health as health_module
from zeroflow_ros.live.health import Health, Problem
from zeroflow_ros.parameters.settings import Settings

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


def _report(health: Health, settings: Settings | None = None, **gauges: str) -> tuple[DiagnosticStatus, dict[str, str]]:
    (status,) = health.report(Time(sec=7), settings or Settings(), gauges).status
    return status, {entry.key: entry.value for entry in status.values}


class Clock:
    """Time that passes only when told to."""

    def __init__(self) -> None:
        self.now = time.monotonic()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(health_module.time, "monotonic", clock)
    return clock


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def health(clock: Clock, log: Log) -> Health:
    """Of a node that has been active for a minute, at 10 Hz, without complaints."""
    health = Health(log)
    health.state = "active"
    clock.now += 50
    _serve(health, clock, 100)
    return health


def _serve(health: Health, clock: Clock, clouds: int, seconds: float = 0.05) -> None:
    """Clouds at 10 Hz, each with its flow."""
    for _ in range(clouds):
        clock.now += 0.1
        health.cloud_received()
        health.ego_motion_known()
        health.took("total", seconds)
        health.flow_published()


def test_counters_latencies_facts_and_gauges_are_reported():
    health = Health(Log(), "front/flow_node", {"device": "cpu"})
    health.state = "active"
    health.facts["ego_motion"] = "odom"
    health.cloud_received()
    health.flow_published()
    for milliseconds in range(1, 101):
        health.took("total", milliseconds * 1e-3)
    status, values = _report(health, gpu_memory_mb="12")
    assert (status.level, status.name, status.message) == (OK, "front/flow_node: flow", "active")
    assert status.hardware_id == "cpu"
    assert (values["clouds_received"], values["flows_published"], values["device"]) == ("1", "1", "cpu")
    assert (values["ego_motion"], values["gpu_memory_mb"]) == ("odom", "12")
    assert float(values["total_p50_ms"]) == pytest.approx(50.5)
    assert float(values["total_p99_ms"]) == pytest.approx(99, abs=0.1)
    assert all(values[problem.value] == "0" for problem in Problem)
    assert len({entry.key for entry in status.values}) == len(status.values)


def test_latencies_are_those_of_the_last_clouds():
    health = Health(Log())
    for seconds in [9.0] * 50 + [0.001] * 200:
        health.took("total", seconds)
    assert float(_report(health)[1]["total_p99_ms"]) == pytest.approx(1.0)


def test_a_stage_that_fails_is_not_timed():
    health = Health(Log())
    with pytest.raises(ValueError), health.stage("decode"):
        raise ValueError
    with health.stage("ground"):
        pass
    assert "ground_p50_ms" in _report(health)[1] and "decode_p50_ms" not in _report(health)[1]


def test_a_problem_is_counted_each_time_and_logged_now_and_then(clock: Clock, log: Log):
    health = Health(log)
    for _ in range(3):
        health.problem(Problem.GAP, "a gap")
    health.problem(Problem.MALFORMED, "nonsense", amount=4)
    assert health.counts()["gap"] == 3 and health.counts()["malformed"] == 4
    assert len(log.lines) == 2 and "a gap" in log.lines[0] and "nonsense" in log.lines[1]
    clock.now += 4.9
    health.problem(Problem.GAP, "a gap")
    assert len(log.lines) == 2
    clock.now += 0.2
    health.problem(Problem.GAP, "a gap")
    assert "5 so far" in log.lines[2]


def test_a_warning_about_the_setup_comes_once():
    log = Log()
    health = Health(log)
    health.warn_once("a")
    health.warn_once("a")
    health.warn_once("b")
    assert log.lines == ["a", "b"]


def test_every_end_of_a_cloud_is_an_outcome_and_nothing_else_is():
    health = Health(Log())
    for _ in range(15):
        health.cloud_received()
    health.flow_published()
    health.count("no_partner")
    health.count("unwatched", 2)
    for problem in Problem:
        health.problem(problem, "something")
    drops = {problem for problem in Problem if problem.drops}
    assert {"malformed", "skipped_busy", "student_failed"} <= {problem.value for problem in drops}
    assert not {Problem.NO_POINTS, Problem.LOST_IN_TRANSPORT, Problem.OBJECTS_FAILED} & drops
    outcomes = health.outcomes()
    assert set(outcomes) == {"flows_published", "no_partner", "unwatched"} | {problem.value for problem in drops}
    assert sum(outcomes.values()) == health.counts()["clouds_received"] == 4 + len(drops)


def test_counting_from_many_threads_loses_nothing():
    health = Health(Log())

    def work() -> None:
        for _ in range(500):
            health.cloud_received()
            health.problem(Problem.SKIPPED_BUSY, "busy")
            health.took("total", 0.001)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        _report(health)
    assert health.counts()["clouds_received"] == sum(health.outcomes().values()) == 2000


def test_a_node_that_is_not_active_is_not_judged(clock: Clock, log: Log):
    health = Health(log)
    clock.now += 100
    status, values = _report(health)
    assert (status.level, status.message, values["state"]) == (OK, "unconfigured", "unconfigured")
    health.state = "inactive"
    assert _report(health)[0].message == "inactive"
    assert log.lines == []


def test_before_the_first_cloud_it_says_where_it_waits_for_it(clock: Clock, log: Log):
    health = Health(log)
    clock.now += 100
    health.state = "active"
    assert _report(health)[0].level == OK
    clock.now += 1.5
    status, values = _report(health, input="/lidar/points, 0 publishers")
    assert (status.level, status.message) == (WARN, "no cloud yet: waiting for /lidar/points, 0 publishers")
    assert values["cloud_age_s"] == "never" and log.lines == []
    clock.now += 4
    _report(health, input="/lidar/points, 0 publishers")
    _report(health, input="/lidar/points, 0 publishers")
    assert log.lines == ["no cloud yet: waiting for /lidar/points, 0 publishers"]
    health.cloud_received()
    assert _report(health)[0].level == OK


def test_rates_are_those_of_the_last_ten_seconds(health: Health, clock: Clock):
    _, values = _report(health)
    assert float(values["input_rate_hz"]) == pytest.approx(10, abs=0.2)
    assert float(values["output_rate_hz"]) == pytest.approx(10, abs=0.2)
    assert values["dropped_share"] == "0.000"
    clock.now += 5
    _, values = _report(health)
    assert float(values["input_rate_hz"]) == pytest.approx(5, abs=0.2)
    assert float(values["cloud_age_s"]) == float(values["ego_motion_age_s"]) == pytest.approx(5)


def test_rates_just_after_the_start_are_not_those_of_ten_seconds(clock: Clock):
    health = Health(Log())
    health.state = "active"
    _serve(health, clock, 20)
    assert float(_report(health)[1]["input_rate_hz"]) == pytest.approx(10, abs=0.1)


def test_silence_warns_then_is_an_error_then_is_over(health: Health, clock: Clock, log: Log):
    assert _report(health)[0].level == OK
    clock.now += 1.1
    status = _report(health, input="/points, 1 publisher")[0]
    assert (status.level, status.message) == (
        WARN,
        "1.1 s without a cloud, above max_cloud_age (1): waiting for /points, 1 publisher",
    )
    clock.now += 4
    status = _report(health)[0]
    assert status.level == ERROR and "above max_cloud_age_error (5)" in status.message
    assert len(log.lines) == 1
    _serve(health, clock, 1)
    assert _report(health)[0].level == OK


def test_latency_warns_then_is_an_error_then_is_over(health: Health, clock: Clock):
    _serve(health, clock, 5, seconds=0.6)
    status = _report(health)[0]
    assert (status.level, status.message) == (
        WARN,
        "600 ms from a cloud to its flow (p99), above max_latency_ms (500)",
    )
    _serve(health, clock, 5, seconds=2.5)
    status = _report(health)[0]
    assert status.level == ERROR and "max_latency_error_ms (2000)" in status.message
    assert _report(health, replace(Settings(), max_latency_ms=3000.0, max_latency_error_ms=3000.0))[0].level == OK
    _serve(health, clock, 100)
    assert _report(health)[0].level == OK


def test_a_busy_node_is_judged_by_the_share_it_leaves_out(health: Health, clock: Clock):
    def busy(clouds: int) -> None:
        for _ in range(clouds):
            clock.now += 0.1
            health.cloud_received()
            health.problem(Problem.SKIPPED_BUSY, "busy")

    busy(10)
    assert _report(health)[0].level == OK
    busy(20)
    status, values = _report(health)
    assert status.level == WARN and "of the clouds dropped, above max_dropped_share (0.2)" in status.message
    assert float(values["dropped_share"]) == pytest.approx(0.3, abs=0.01)
    busy(65)
    assert _report(health)[0].level == ERROR
    _serve(health, clock, 100)
    assert _report(health)[0].level == OK


def test_one_dropped_cloud_at_the_start_is_no_share(clock: Clock):
    health = Health(Log())
    health.state = "active"
    health.cloud_received()
    health.problem(Problem.SKIPPED_BUSY, "busy")
    assert _report(health)[0].level == OK


def test_missing_ego_motion_is_judged_by_its_age(health: Health, clock: Clock):
    def lost(clouds: int) -> None:
        for _ in range(clouds):
            clock.now += 0.1
            health.cloud_received()
            health.problem(Problem.NO_EGO_MOTION, "no pose")

    lost(4)
    assert _report(health)[0].level == OK
    lost(3)
    status = _report(health)[0]
    assert status.level == WARN and "0.7 s without ego motion, above max_ego_motion_age (0.5)" in status.message
    _serve(health, clock, 1)
    assert _report(health)[0].level == OK


def test_ego_motion_that_was_never_known_is_missing_since_it_was_asked_for(clock: Clock):
    health = Health(Log())
    health.state = "active"
    for _ in range(4):
        health.cloud_received()
        health.problem(Problem.NO_EGO_MOTION, "no pose")
        status, values = _report(health)
        assert status.level == OK and values["ego_motion_age_s"] == "never"
        clock.now += 0.15
    health.cloud_received()
    assert "0.6 s without ego motion" in _report(health)[0].message


def test_ego_motion_that_nobody_asks_for_any_more_is_not_missed(health: Health, clock: Clock):
    health.problem(Problem.NO_EGO_MOTION, "no pose")
    for _ in range(110):  # nobody listens from now on
        clock.now += 0.1
        health.cloud_received()
        health.count("unwatched")
    status = _report(health)[0]
    assert (status.level, status.message) == (OK, "active")


@pytest.mark.parametrize("problem", [Problem.GAP, Problem.BAD_ODOMETRY, Problem.DEVICE_FALLBACK])
def test_other_problems_warn_for_ten_seconds(health: Health, clock: Clock, problem: Problem):
    health.problem(problem, "something")
    for _ in range(2):
        status = _report(health)[0]
        assert (status.level, status.message) == (WARN, f"{problem.value} 1 in the last 10 s")
    _serve(health, clock, 101)
    assert _report(health)[0].level == OK


def test_everything_wrong_is_named_and_the_worst_counts(health: Health, clock: Clock):
    for _ in range(3):
        health.took("total", 9.0)
    health.problem(Problem.BAD_ODOMETRY, "not a number")
    clock.now += 2
    status = _report(health)[0]
    assert status.level == ERROR
    assert all(name in status.message for name in ("max_latency_error_ms", "max_cloud_age", "bad_odometry 1"))


def test_activating_again_starts_the_judgement_anew(health: Health, clock: Clock):
    clock.now += 60
    health.state = "inactive"
    assert _report(health)[0].level == OK
    health.problem(Problem.GAP, "a gap")
    health.state = "active"
    status, values = _report(health)
    assert (status.level, values["cloud_age_s"], values["gap"]) == (OK, "never", "1")


def test_whatever_names_a_text_holds_it_is_one_line_and_warnings_come_to_an_end():
    health = Health(Log())
    health.problem(Problem.MALFORMED, "frame 'a\nb" + 100_000 * "x" + "'")
    for k in range(1000):
        health.warn_once(f"no transform to frame {k}\n")
    assert len(health._logger.lines) == 201
    assert all("\n" not in line and len(line) <= 1001 for line in health._logger.lines)
