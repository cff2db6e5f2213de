"""The node's bench: what it makes of an account, and what it says when nothing comes of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from zeroflow_core.bench import node_run
from zeroflow_core.bench.__main__ import app
from zeroflow_core.bench.node_run import Load, Outcome, Variant, run_variant
from zeroflow_core.bench.process_watch import ProcessWatch, Sample, sample, sum_up
from zeroflow_core.errors import ZeroFlowError

ACCOUNT = {
    **{"sent": 80, "received": 79, "flows": 60, "lost_to_node": 1, "lost_to_probe": 0, "unaccounted": 0},
    "latency_ms": {"clouds": 60, "p50": 101.25, "p99": 180.0, "max": 200.0},
    "counts": {"clouds_received": 79, "flows_published": 60, "skipped_busy": 18, "no_partner": 1},
    "node": {"processors": 0.75, "memory_mb": 512.0, "memory_growth_mb": 0.5, "files": 40, "threads": 20},
    "values": {
        **{f"{name}_p50_ms": "2.00" for name in ("receive", "decode", "pair", "encode", "publish")},
        **{f"{name}_p99_ms": "5.00" for name in ("receive", "decode", "pair", "encode", "publish")},
        **{"inference_p50_ms": "70.00", "inference_p99_ms": "90.00", "device": "cpu"},
    },
}


@pytest.fixture
def probes(monkeypatch):
    """Command lines of probes that were not started, and each writes ACCOUNT."""
    started, really = [], subprocess.run

    def run(words: list[str], env: dict[str, str] | None = None, **others: object) -> SimpleNamespace:
        if "zeroflow_ros.probe" not in words:
            return really(words, env=env, **others)
        started.append((words, env))
        with open(words[words.index("--json") + 1], "w") as file:
            json.dump(ACCOUNT, file)
        return SimpleNamespace(returncode=0, stdout="", stderr="")

    monkeypatch.setattr(node_run.subprocess, "run", run)
    return started


def test_the_overhead_is_what_the_node_adds_to_the_students_work():
    outcome = Outcome(Variant("odom", markers=False), ACCOUNT)
    assert outcome.overhead == (10.0, 25.0)
    assert list(outcome.stages) == ["receive", "decode", "pair", "inference", "encode", "publish"]
    assert outcome.stages["inference"] == (70.0, 90.0)


def test_the_command_tells_every_variant_and_keeps_all_of_it(probes, tmp_path):
    file = tmp_path / "node.json"
    done = CliRunner().invoke(app, ["node", "--seconds", "4", "--rate", "5", "--device", "cpu", "--json", str(file)])
    assert done.exit_code == 0, done.output
    names = ["odom", "odom + markers", "kiss_icp", "kiss_icp + markers"]
    for words in ("101.2", "skipped_busy", "70.0 / 90.0", "decode *", "0.75", "512", *names):
        assert words in done.stdout
    rows = json.loads(file.read_text())
    assert [row["variant"] for row in rows] == names
    assert {row["bench"] for row in rows} == {"node"} and rows[0]["counts"] == ACCOUNT["counts"]
    for (words, env), name in zip(probes, names, strict=True):
        assert f"ego_motion:={name.partition(' ')[0]}" in words and "device:=cpu" in words
        assert ("--markers" in words) == ("markers" in name)
        assert ("--odometry" in words, "--no-odometry" in words) == (("odom" in name), ("kiss" in name))
        assert env["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"


def test_variants_can_be_chosen_and_take_turns(probes):
    done = CliRunner().invoke(app, ["node", "--ego-motion", "odom", "--no-markers", "--turns", "2", "--device", "cpu"])
    assert done.exit_code == 0, done.output
    assert len(probes) == 2


def test_an_unknown_ego_motion_is_refused(probes):
    done = CliRunner().invoke(app, ["node", "--ego-motion", "gps", "--device", "cpu"])
    assert isinstance(done.exception, ZeroFlowError)
    assert "'gps' cannot be measured; choose from: odom, kiss_icp" in str(done.exception)
    assert probes == []


def test_a_probe_that_fails_is_told_with_its_last_words(monkeypatch):
    failed = SimpleNamespace(returncode=1, stdout="", stderr="line\n" * 20 + "No module named rclpy\n")
    monkeypatch.setattr(node_run.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(ZeroFlowError, match="exit code 1 \\(odom\\)(.|\n)*No module named rclpy") as error:
        run_variant(Variant("odom", False), Load(1000, 10.0, 2.0), {})
    assert len(str(error.value).splitlines()) < 12


def test_a_probe_that_hangs_is_ended(monkeypatch):
    def hang(words: list[str], timeout: float, **_: object) -> None:
        raise subprocess.TimeoutExpired(words, timeout)

    monkeypatch.setattr(node_run.subprocess, "run", hang)
    with pytest.raises(ZeroFlowError, match="did not end within"):
        run_variant(Variant("odom", False), Load(1000, 10.0, 2.0), {})


def test_a_process_is_watched_until_it_has_ended():
    program = "import os, sys; data = bytearray(60_000_000); files = [os.dup(0) for _ in range(30)]; sys.stdin.read()"
    process = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE)
    watch = ProcessWatch(process.pid, interval_s=0.02)
    deadline = time.monotonic() + 60
    while not watch.samples or watch.samples[-1].memory < 60e6 or watch.samples[-1].files < 30:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.communicate()
    watch.stop()
    assert watch.samples[-1].memory < 200e6
    assert watch.samples[-1].threads == 1
    assert watch.samples[-1].cpu_s >= watch.samples[0].cpu_s >= 0


def test_samples_are_summed_up():
    samples = [Sample(0.0, 10.0, 50_000_000, 0, 7, 3), Sample(1.0, 10.2, 90_000_000, 0, 9, 4)]
    samples.append(Sample(2.0, 11.0, 60_000_000, 0, 8, 3))
    expected = {"processors": 0.5, "memory_mb": 90.0, "memory_growth_mb": 10.0, "files": 9, "threads": 4}
    assert sum_up(samples) == pytest.approx(expected)
    assert set(sum_up(samples[:1]).values()) == {None}


def test_this_process_is_one_that_can_be_watched():
    before = sample(os.getpid())
    assert before.resident >= before.memory > 1e6 and before.files >= 3 and before.threads >= 1


def test_what_children_take_counts():
    program = "import time; block = bytearray(50_000_000); print(flush=True); time.sleep(60)"
    before = sample(os.getpid())
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        during = sample(os.getpid())
        child.kill()
    assert during.memory - before.memory > 45e6 and during.files >= before.files + 3
    assert sample(os.getpid()).memory < during.memory - 40e6
