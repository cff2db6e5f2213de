"""The demo as a user starts it: its figures, its picture, and what it leaves behind when it fails or is stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import av
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")

from PIL import Image
from processes import PATIENCE, Process, tiny_checkpoint

from zeroflow_core.datasets.bags import write_bag
from zeroflow_core.simulation.log import simulate_sweeps

DEMO = "zeroflow_ros.demo"
KITTI = "kitti/sensor/test/55f75bc3-6fc4-5c75-8954-f5a939177f70"


@pytest.fixture
def start(tmp_path):
    """Starts demos that write to tmp_path/out."""
    started = []

    def start_demo(*arguments: object) -> Process:
        demo = Process(tmp_path, DEMO, *arguments, "--out", tmp_path / "out", "--device", "cpu")
        started.append(demo)
        return demo

    yield start_demo
    for demo in started:
        if demo.running:
            demo.signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                demo.wait()
        demo.kill()
    for left in own_processes(tmp_path):  # or they would answer in the tests to come
        with suppress(ProcessLookupError):
            os.kill(left, signal.SIGKILL)


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    return tiny_checkpoint(tmp_path / "tiny.safetensors")


def finish(demo: Process, out: Path) -> dict:
    """Wait for success; its figures."""
    assert demo.wait() == 0, demo.log
    assert [path.name for path in out.iterdir() if path.name.startswith(".")] == [], "nothing half-written is left"
    return json.loads((out / "summary.json").read_text())


def own_processes(path: Path) -> dict[int, str]:
    """Command lines of running processes of ours that mention `path`, by their number."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().split(b"\0")
        except OSError:  # it ended meanwhile
            continue
        if any(str(path).encode() in word for word in words) and b"zeroflow_ros" in b" ".join(words):
            found[int(entry.parent.name)] = b" ".join(words).decode()
    return found


def test_a_simulated_drive_gives_figures_and_a_picture_of_what_moves(start, tmp_path):
    demo = start("--sweeps", 6)
    summary = finish(demo, tmp_path / "out")
    assert (summary["sweeps"], summary["flow_messages"]) == (6, 5)
    assert summary["flow_messages_with_rows_equal_to_input"] == 5
    assert summary["problems"] == {}
    assert summary["device"] == "cpu"
    assert summary["points_per_sweep"]["least"] > 20_000
    assert 0 < summary["latency_ms"]["p50"] <= summary["latency_ms"]["p99"]
    errors = summary["errors"]
    assert errors["dynamic_points"] > 1000
    assert errors["static_epe_of_zero"] < 0.05 * errors["dynamic_epe_of_zero"]
    assert errors["dynamic_epe"] < 0.75 * errors["dynamic_epe_of_zero"], "better than taking everything for still"
    assert errors["static_too_fast"] < 0.05
    assert summary["moving_objects_per_sweep"]["most"] >= 1

    assert "6 sweeps, 5 flow messages" in demo.log
    assert str(tmp_path / "out" / "demo.png") in demo.log.replace("\n", "").replace(" ", "")
    picture = np.asarray(Image.open(summary["picture"])).astype(int)
    assert picture.shape == (720, 1280, 3)
    scene = picture[:, 640:, :]  # from above, beside the legend
    assert (np.ptp(scene, axis=2) > 100).sum() > 200, "something moves, in colour"
    assert (scene.max(axis=2) > 60).mean() > 0.02, "something stands, in grey"
    with av.open(summary["film"]) as film:
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    assert len(frames) == 5 and frames[0].shape == (720, 1280, 3)
    assert min(np.abs(frame.astype(int) - picture).mean() for frame in frames) < 3, "the picture is one of them"


def test_a_real_log_gives_a_flow_message_for_each_pair_with_the_rows_of_its_cloud(start, tmp_path, test_data):
    demo = start(test_data / KITTI)
    summary = finish(demo, tmp_path / "out")
    assert (summary["sweeps"], summary["flow_messages"]) == (22, 21)
    assert summary["flow_messages_with_rows_equal_to_input"] == 21
    assert summary["points_per_sweep"]["least"] > 110_000
    assert summary["errors"] is None
    assert "22 sweeps, 21 flow messages, rows equal to input in 21 of 21" in " ".join(demo.log.split())


def test_a_bag_is_played_as_it_is(start, tmp_path, checkpoint):
    sweeps = [simulated.sweep for simulated in simulate_sweeps(seed=1, sweeps=4, scanner="small")]
    write_bag(tmp_path / "drive", sweeps, static_transforms={}, storage="mcap", tf=False)
    before = sorted(path.name for path in (tmp_path / "drive").iterdir())
    summary = finish(start(tmp_path / "drive", "--checkpoint", checkpoint), tmp_path / "out")
    assert (summary["played"], summary["sweeps"], summary["flow_messages"]) == ("drive", 4, 3)
    assert summary["points_per_sweep"]["most"] == max(map(len, sweeps))
    assert summary["checkpoint"] == "random"
    assert sorted(path.name for path in (tmp_path / "drive").iterdir()) == before


def test_a_node_that_cannot_start_ends_the_demo_with_its_words(start, tmp_path):
    demo = start("--sweeps", 2, "--checkpoint", tmp_path / "nowhere.ckpt")
    assert demo.wait() == 1
    assert "nowhere.ckpt" in demo.log
    assert "Traceback" not in demo.log
    assert not (tmp_path / "out" / "demo.png").exists()
    assert own_processes(tmp_path) == {}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_the_demo_stops_its_nodes_and_leaves_nothing_half_written(start, tmp_path, checkpoint, number):
    demo = start("--sweeps", 3, "--checkpoint", checkpoint)
    deadline = time.monotonic() + PATIENCE
    while len(own_processes(tmp_path)) < 3:
        assert demo.running and time.monotonic() < deadline, demo.log
        time.sleep(0.05)
    demo.signal(number)
    assert demo.wait() != 0
    assert own_processes(tmp_path) == {}
    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir()) == ["flow_node.log", "replay_node.log"]


def test_a_demo_that_is_killed_takes_its_nodes_with_it(start, tmp_path, checkpoint):
    demo = start("--sweeps", 3, "--checkpoint", checkpoint)
    deadline = time.monotonic() + PATIENCE
    logs = [tmp_path / "out" / f"{name}_node.log" for name in ("replay", "flow")]
    while not all(log.exists() and log.read_text() for log in logs):  # they have begun
        assert demo.running and time.monotonic() < deadline, demo.log
        time.sleep(0.02)
    demo.kill()
    while own_processes(tmp_path):
        assert time.monotonic() < deadline, own_processes(tmp_path)
        time.sleep(0.05)


def test_what_cannot_be_played_is_said_in_a_sentence(start, tmp_path):
    demo = start(tmp_path / "nothing_here")
    assert demo.wait() == 1
    assert "nothing_here" in demo.log
    assert "Traceback" not in demo.log
