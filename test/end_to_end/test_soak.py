"""A node at work for long: its memory, its files and its threads stay what they are.

Twenty seconds in the usual run; as many minutes as ZEROFLOW_SOAK_MINUTES says in `make soak`.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")

from processes import Process, soak_minutes, tiny_checkpoint

from zeroflow_core.bench.process_watch import ProcessWatch, Sample

NODE, PROBE = "zeroflow_ros.flow_node", "zeroflow_ros.probe"
MINUTES = soak_minutes()
SECONDS = 20.0 if MINUTES is None else 60 * MINUTES
POINTS, RATE = (20_000, 10.0) if MINUTES is None else (100_000, 10.0)
# A node that keeps but its input would grow by ten clouds a second: 4 MB in the short run, 22 MB in the long one.
MOST_GROWTH_MB = 12.0
MOST_SLOPE_MB_PER_MINUTE = 1.0  # where there are minutes to tell


@pytest.mark.timeout(600 + 2 * SECONDS)
def test_memory_files_and_threads_stay_as_they_are(tmp_path):
    checkpoint = tiny_checkpoint(tmp_path / "tiny.safetensors") if MINUTES is None else "default"
    parameters = ("-p", f"checkpoint:={checkpoint}", "-p", "device:=cpu", "-p", "ego_motion:=kiss_icp")
    node = Process(tmp_path, NODE, "--ros-args", *parameters)
    account = tmp_path / "account.json"
    load = ("--points", POINTS, "--rate", RATE, "--seconds", SECONDS, "--no-odometry", "--markers")
    probe = Process(tmp_path, PROBE, *load, "--json", account)
    try:
        node.wait_for("ready: ")
        watch = ProcessWatch(node.pid)
        assert probe.wait(SECONDS + 120) == 0, probe.log
        watch.stop()
    finally:
        probe.kill()
        node.kill()
    summary = json.loads(account.read_text())
    began, ended = summary["span"]
    settled = [one for one in watch.samples if (began + ended) / 2 <= one.at <= ended]
    slope, growth = _growth(settled)
    print(
        json.dumps(
            {
                "minutes": SECONDS / 60,
                "memory_mb": [round(settled[k].memory / 1e6, 1) for k in (0, -1)],
                "slope_mb_per_minute": slope,
                "files": sorted({one.files for one in settled}),
                "threads": sorted({one.threads for one in settled}),
                **{name: summary[name] for name in ("sent", "received", "flows", "unaccounted", "counts")},
            }
        )
    )
    assert growth < MOST_GROWTH_MB, (slope, growth)
    if MINUTES is not None and MINUTES >= 5:
        assert slope < MOST_SLOPE_MB_PER_MINUTE, slope
    # Two more are open for a moment now and then, while a library's greeting is kept off standard output.
    files = [one.files for one in settled]
    assert min(files[len(files) // 2 :]) == min(files[: len(files) // 2]), files
    assert max(files) <= min(files) + 2, files
    assert len({one.threads for one in settled}) == 1, [one.threads for one in settled]
    assert summary["flows"] > 0 and summary["unaccounted"] == 0, summary
    assert "Traceback" not in node.log


def _growth(samples: list[Sample]) -> tuple[float, float]:
    """MB a minute, of a straight line through the samples, and MB along it from the first to the last."""
    minutes = np.array([one.at for one in samples]) / 60
    slope = float(np.polyfit(minutes - minutes[0], [one.memory / 1e6 for one in samples], 1)[0])
    return slope, slope * float(minutes[-1] - minutes[0])
