"""``zeroflow distill --bag`` as a user types it: a recording without odometry and TF in, killed, a student out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from zeroflow_core.datasets.av2 import Log
from zeroflow_core.datasets.bags import write_bag
from zeroflow_core.fastflow3d.student import load_student
from zeroflow_core.simulation.log import simulate_log

PATIENCE = 400.0  # seconds; reached only by a test that fails


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    simulate_log(tmp_path / "log", seed=3, sweeps=5, scanner="small", scene="street")
    write_bag(tmp_path / "drive", Log(tmp_path / "log").sweeps(), {}, "mcap", odom=False, tf=False)
    return tmp_path / "drive"


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `zeroflow distill`; what runs on at the end is killed."""
    started = []

    def start_distill(*words: object) -> subprocess.Popen[str]:
        program = "import sys; from zeroflow_core.cli.main import main; sys.exit(main())"
        command = [sys.executable, "-c", program, "distill", *map(str, words)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        started.append(subprocess.Popen(command, env=os.environ, **pipes))
        return started[-1]

    yield start_distill
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.timeout(2 * PATIENCE)
def test_a_bag_becomes_a_student_though_the_command_is_killed(start, bag: Path, tmp_path: Path):
    out = tmp_path / "run"
    words = "--bag", bag, "--out", out, "--deskew", "never", "--pairs-per-log", 2
    words += "--epochs", 1, "--device", "cpu", "--student", "small"
    first = start(*words)
    deadline = time.monotonic() + PATIENCE
    while not any(out.glob("labels/journal/*/*.jsonl")) and first.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    said, _ = first.communicate(timeout=PATIENCE)
    assert first.returncode == -signal.SIGKILL, said

    second = start(*words)
    said, _ = second.communicate(timeout=PATIENCE)
    assert second.returncode == 0, said
    student, (log,) = out / "student.safetensors", (out / "data" / "sensor" / "train").iterdir()
    assert f"ros2 launch zeroflow_ros flow.launch.py checkpoint:={student} points:=/lidar/points" in said
    assert "ego_motion:=kiss_icp" in said and "deskew:=never" in said
    assert log.name.startswith("drive_") and len(Log(log)) == 5
    assert load_student(student, "cpu", engine="reference").metadata["ground"] == "patchwork"
    assert json.loads((out / "labels" / "manifest.json").read_text())["counts"]["labelled"] == 2
    page = (out / "report.md").read_text()
    assert "estimated with KISS-ICP" in page and "2 of 2 pairs labelled" in page
    assert (out / "curves.png").is_file() and (out / "before_after.png").is_file()
    assert not [path for path in out.rglob(".*")], "something half-written is left"
